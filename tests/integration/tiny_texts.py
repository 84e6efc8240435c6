"""Texts whose class is in their words, a tokenizer that knows them, and tiny networks of transformers."""

import json

import numpy as np

MOODS = ("glad", "odd", "sad")
OWN = {
    "glad": ["sun", "smile", "song", "dance", "sweet", "bloom"],
    "odd": ["moth", "riddle", "crook", "warp", "twist", "blot"],
    "sad": ["rain", "sigh", "grave", "loss", "moan", "frost"],
}
COMMON = ["the", "a", "of", "and", "in", "it", "was", "with", "on", "to"]
TAGS = ("B-GLAD", "B-SAD", "I-SAD", "O")


def make_texts(count, seed, longest=12):
    """(text, mood) pairs: words of the mood among others."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        mood = MOODS[number % 3]
        words = [str(rng.choice(OWN[mood] if rng.random() < 0.5 else COMMON)) for _ in range(rng.integers(4, longest))]
        found.append((" ".join(words), mood))
    return found


def make_tagged(count, seed):
    """(words, tags) pairs: glad words are entities of one word, a sad word and its follower one of two."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        words, tags = [], []
        while len(words) < rng.integers(3, 9):
            kind = rng.integers(0, 4)
            if kind == 0:
                words.append(str(rng.choice(OWN["glad"])))
                tags.append("B-GLAD")
            elif kind == 1:
                words += [str(word) for word in rng.choice(OWN["sad"], 2)]
                tags += ["B-SAD", "I-SAD"]
            else:
                words.append(str(rng.choice(COMMON)))
                tags.append("O")
        found.append((words, tags))
    return found


def make_tokenizer(folder):
    """Writes tokenizer.json: word pieces, with [PAD] 0, [CLS] and [SEP] around each text, and [MASK]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = sorted({word for group in OWN.values() for word in group} | set(COMMON))
    pieces = sorted({letter for word in words for letter in word})
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *pieces, *(f"##{letter}" for letter in pieces)]
    made = Tokenizer(models.WordPiece({word: n for n, word in enumerate(known)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.add_special_tokens(known[:5])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    return len(known)


def make_network(folder, *, layers=4, width=16, seed=0, kind="BertModel", **options):
    """A folder as on the hub: config.json, model.safetensors and tokenizer.json of a small BERT without a head."""
    import torch
    import transformers

    size = make_tokenizer(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = transformers.BertConfig(
            vocab_size=size, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
            intermediate_size=2 * width, max_position_embeddings=64, **options,
        )  # fmt: skip
        getattr(transformers, kind)(config).save_pretrained(folder)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
