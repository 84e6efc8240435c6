"""F1 of whole entities, of classes that are called as in the BIO scheme or one of its kin (BIOES, BILOU)."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Classes = npt.NDArray[np.int64]
_FIRST, _LAST = "BSU", "ESLU"  # letters of an entity's first and last word; S and U are both
_LETTERS = "BIESLU"


def is_bio(names: Sequence[str]) -> bool:
    """Whether tags are "O", and "B-TYPE" or "I-TYPE"."""
    others = [name for name in names if name != "O"]
    return "O" in names and bool(others) and all(name[:1] in _LETTERS and name[1:2] == "-" for name in others)


def entity_f1(predicted: Iterable[Classes], targets: Iterable[Classes], names: Sequence[str]) -> float | None:
    """F1 of entities, 0 to 1, of the tags of each text (L,), where targets below 0 are no words.

    None where ``names`` are of another scheme. An entity counts where its first word, its last one and its type are
    right, as in the figures of CoNLL-2003; one that begins with "I-" is one too.
    """
    if not is_bio(names):
        return None
    found = wanted = both = 0
    for tags, answers in zip(predicted, targets, strict=True):
        kept = answers >= 0
        mine, right = _entities(tags[kept], names), _entities(answers[kept], names)
        found, wanted, both = found + len(mine), wanted + len(right), both + len(mine & right)
    return 2 * both / (found + wanted) if found + wanted else 0.0


def _entities(tags: Classes, names: Sequence[str]) -> set[tuple[int, int, str]]:
    """Place of the first word, place behind the last one, and type of each."""
    found = set()
    start, letter, kind = 0, "O", ""
    for place, name in enumerate([*(names[tag] for tag in tags), "O"]):
        then, of = name[:1], name[2:]
        if letter != "O" and (then == "O" or then in _FIRST or letter in _LAST or of != kind):
            found.add((start, place, kind))
            letter = "O"
        if letter == "O":
            start, kind = place, of
        letter = then
    return found
