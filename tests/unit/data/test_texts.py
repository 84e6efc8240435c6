"""Texts: tokens as transformers gives them, batches by length, masks that depend on view, text and place alone."""

import dataclasses

import numpy as np
import pytest
import tiny_texts
import torch

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import FileFormatError, NotThereError, UsageError
from model_compression.data.dataset import Dataset
from model_compression.data.streaming import loader_for
from model_compression.data.texts import Texts
from model_compression.data.tokenizers import load_tokenizer, tokenizer_beside

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_texts.make_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(folder):
    tokenizer = load_tokenizer(str(folder), 10)
    texts, moods = zip(*tiny_texts.make_texts(203, seed=1, longest=20), strict=True)
    labels = np.array([tiny_texts.MOODS.index(mood) for mood in moods])
    samples = Texts(texts, tokenizer.encode(texts), tokenizer)
    return Dataset(name="m", samples=samples, labels=labels, class_names=tiny_texts.MOODS, task="text-classification")


def loader(dataset, **options):
    return loader_for(dataset, DataConfig(name="m", **options), CPU)


def test_tokens_are_those_of_transformers(folder, dataset):
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
    expected = theirs(list(dataset.samples.texts), truncation=True, max_length=10, padding=True, return_tensors="np")
    taken = dataset.samples.take(np.arange(len(dataset)))
    assert np.array_equal(taken["input_ids"], expected["input_ids"])
    assert np.array_equal(taken["attention_mask"], expected["attention_mask"])


def test_words_of_tokens_are_counted(folder):
    tokens = load_tokenizer(str(folder), 8).encode([["sun", "suns", "rain"], ["the"]], in_words=True)
    assert tokens.words.tolist() == [-1, 0, 1, 1, 2, -1, -1, 0, -1]
    assert tokens.lengths.tolist() == [6, 3]


def test_an_epoch_has_each_text_once_in_batches_of_about_one_length(dataset):
    order = [batch.ids.tolist() for batch in loader(dataset).epoch(epoch=3, seed=1, batch_size=16)]
    again = [batch.ids.tolist() for batch in loader(dataset).epoch(epoch=3, seed=1, batch_size=16)]
    other = [batch.ids.tolist() for batch in loader(dataset).epoch(epoch=4, seed=1, batch_size=16)]
    assert order == again != other
    assert sorted(number for ids in order for number in ids) == list(range(203))
    assert sorted(map(len, order)) == [11, *[16] * 12]
    lengths = dataset.samples.tokens.lengths
    padded = sum(len(ids) * lengths[ids].max() for ids in order) / lengths.sum()
    assert padded < 1.06 < len(lengths) * lengths.max() / lengths.sum()
    maxima = [lengths[ids].max() for ids in order]
    assert maxima != sorted(maxima)


def test_each_batch_is_padded_to_its_longest_text_and_ids_belong_to_their_targets(dataset):
    for batch in loader(dataset).epoch(epoch=0, seed=0, batch_size=16):
        mask = batch.inputs["attention_mask"]
        assert mask.sum(dim=1).max() == mask.shape[1]
        assert batch.targets.tolist() == dataset.labels[batch.ids].tolist()
        for row, number in enumerate(batch.ids.tolist()):
            alone = dataset.samples.take(np.array([number]))["input_ids"][0].tolist()
            assert batch.inputs["input_ids"][row][mask[row] == 1].tolist() == alone


def test_an_epoch_goes_on_from_any_batch(dataset):
    whole = list(loader(dataset, mask_tokens=0.2).epoch(epoch=2, seed=5, batch_size=16))
    rest = loader(dataset, mask_tokens=0.2).epoch(epoch=2, seed=5, batch_size=16, first=9)
    for found, expected in zip(rest, whole[9:], strict=True):
        assert torch.equal(found.inputs["input_ids"], expected.inputs["input_ids"])


def test_processes_together_have_the_batches_of_one(dataset):
    options = {"epoch": 1, "seed": 0, "batch_size": 16}
    whole = list(loader(dataset, mask_tokens=0.3).epoch(**options))
    halves = [
        list(loader(dataset, mask_tokens=0.3).epoch(**options, part=part))
        for part in (lambda total: slice(0, total // 2), lambda total: slice(total // 2, total))
    ]
    for one, first, second in zip(whole, *halves, strict=True):
        assert torch.equal(torch.cat([first.inputs["input_ids"], second.inputs["input_ids"]]), one.inputs["input_ids"])
        assert first.num_global == len(one.ids)


def test_masks_are_a_function_of_view_text_and_place(dataset):
    masking = loader(dataset, mask_tokens=0.25)
    plain, rows = loader(dataset), torch.arange(200)
    shown, again = masking.batch(rows, 1).inputs["input_ids"], masking.batch(rows.flip(0), 1).inputs["input_ids"]
    inputs = plain.batch(rows, 0).inputs
    masked = shown == 4
    assert torch.equal(shown, again.flip(0))
    assert not torch.equal(shown, masking.batch(rows, 2).inputs["input_ids"])
    assert torch.equal(shown[~masked], inputs["input_ids"][~masked])
    inner = (inputs["attention_mask"] == 1) & (inputs["input_ids"] > 4)
    assert not masked[~inner].any()
    share = masked[inner].double().mean()
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / inner.sum()) ** 0.5
    alone = masking.batch(rows[7:8], 1).inputs["input_ids"]
    assert torch.equal(alone, shown[7:8, : alone.shape[1]])


def test_evaluation_is_in_order_and_small_where_texts_are_long(dataset, monkeypatch):
    monkeypatch.setattr("model_compression.data.texts._TOKENS", 100)
    batches = list(loader(dataset).in_order(view=0, batch_size=500))
    assert torch.cat([batch.ids for batch in batches]).tolist() == list(range(203))
    assert {len(batch.ids) for batch in batches} == {10, 3}


def test_digest_depends_on_texts_targets_and_tokenizer(folder, dataset, tmp_path):
    text = (folder / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace('"lowercase"', '"uppercase"').replace("Lowercase", "NFC"))
    samples = dataset.samples
    other = load_tokenizer(str(tmp_path), 10)
    found = {
        samples.digest(dataset.labels),
        samples.digest(dataset.labels[::-1]),
        dataclasses.replace(samples, tokenizer=other).digest(dataset.labels),
        samples.subset(np.arange(202)).digest(dataset.labels[:202]),
    }
    assert len(found) == 4
    assert samples.subset(np.arange(203)).digest(dataset.labels) == dataset.digest


def test_the_file_that_goes_along_cuts_alike(dataset, tmp_path):
    from tokenizers import Tokenizer

    (tmp_path / "tokenizer.json").write_bytes(dataset.samples.companions["tokenizer.json"])
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for row, text in enumerate(dataset.samples.texts[:20]):
        assert plain.encode(text).ids == dataset.samples.tokens.subset(np.array([row])).values.tolist()
    assert load_tokenizer(str(tmp_path), 5).sha256 == dataset.samples.tokenizer.sha256
    plain.no_truncation()
    longer = [len(plain.encode(text).ids) > 10 for text in dataset.samples.texts]
    assert dataset.samples.tokens.is_cut.tolist() == longer
    assert dataset.samples.tokens.subset(np.array([5, 3])).is_cut.tolist() == [longer[5], longer[3]]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"augmentation": "flip"}, "these samples are texts: use mask_tokens"), ({"mixup": 0.2}, "are for images")],
)
def test_augmentation_of_images_is_refused(dataset, options, said):
    with pytest.raises(UsageError, match=said):
        loader(dataset, **options)


def test_masking_is_refused_without_a_mask_token_and_for_images(folder, tmp_path, dataset):
    text = (folder / "tokenizer.json").read_text().replace("[MASK]", "[GAP]")
    (tmp_path / "tokenizer.json").write_text(text)
    samples = dataclasses.replace(dataset.samples, tokenizer=load_tokenizer(str(tmp_path), 10))
    with pytest.raises(UsageError, match="has no mask token"):
        loader(dataclasses.replace(dataset, samples=samples), mask_tokens=0.1)
    images = np.zeros((4, 3, 8, 8), dtype=np.uint8)
    plain = Dataset(
        name="i", samples=images, labels=np.arange(4), class_names=tuple("abcd"), mean=(0,) * 3, std=(1,) * 3
    )
    with pytest.raises(UsageError, match="mask_tokens is for texts, and i has images"):
        loader(plain, mask_tokens=0.1)


def test_what_is_no_tokenizer_is_named(folder, tmp_path):
    with pytest.raises(NotThereError, match=r"nowhere.json is not there"):
        load_tokenizer(str(tmp_path / "nowhere.json"), 8)
    for content in ("{", "[]", '{"model": {"type": "WordPiece"}}'):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(FileFormatError, match="is no fast tokenizer"):
            load_tokenizer(str(tmp_path), 8)
    with pytest.raises(UsageError, match="max_length must be above 2"):
        load_tokenizer(str(folder), 2)


def test_tokenizers_are_found_beside_networks(folder, monkeypatch):
    (folder / "student.safetensors").touch()
    monkeypatch.chdir(folder)
    assert tokenizer_beside(f"hf:{folder}") == str(folder)
    assert tokenizer_beside(str(folder)) == str(folder)
    assert tokenizer_beside(str(folder / "student.safetensors")) == str(folder)
    assert tokenizer_beside("hf:bert") is None
    assert tokenizer_beside("resnet8") is None


def test_words_of_a_tokenizer_that_keeps_blanks_are_cut_as_transformers_cuts_them(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(["a sun and a moon"] * 3, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    made.save(str(tmp_path / "tokenizer.json"))
    words = [["sun", "moon", "and"], ["moon"]]
    found = load_tokenizer(str(tmp_path), 10).encode(words, in_words=True)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    theirs = PreTrainedTokenizerFast(tokenizer_object=made)
    assert [found.subset(np.array([row])).values.tolist() for row in (0, 1)] == [
        theirs(text, is_split_into_words=True)["input_ids"] for text in words
    ]
