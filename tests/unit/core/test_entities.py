"""F1 of entities beside another library's, and by hand where schemes differ."""

import numpy as np
import pytest

from model_compression.core.entities import entity_f1, is_bio

BIO = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def _f1(predicted: str, wanted: str) -> float | None:
    """Of one text of tags."""
    names = ("O", *sorted({tag for tag in (*predicted.split(), *wanted.split()) if tag != "O"}))
    found, right = (np.array([names.index(tag) for tag in tags.split()]) for tags in (predicted, wanted))
    return entity_f1([found], [right], names)


@pytest.mark.parametrize("length", [1, 2, 7, 40])
def test_f1_is_that_of_nervaluate(length):
    from nervaluate import Evaluator

    rng = np.random.default_rng(length)
    wanted = rng.integers(0, 5, (30, length))
    predicted = np.where(rng.random(wanted.shape) < 0.3, rng.integers(0, 5, wanted.shape), wanted)
    spelled = [[[BIO[tag] for tag in row] for row in tags] for tags in (wanted, predicted)]
    strict = Evaluator(*spelled, tags=["LOC", "PER"], loader="list").evaluate()["overall"]["strict"]
    assert entity_f1(predicted, wanted, BIO) == pytest.approx(2 * strict.correct / (strict.possible + strict.actual))


@pytest.mark.parametrize(
    ("predicted", "wanted", "f1"),
    [
        ("S-A S-A O", "S-A S-A O", 1),  # two of one word each
        ("B-A E-A B-A", "B-A E-A O", 2 / 3),
        ("B-A I-A L-A U-A", "B-A I-A L-A O", 2 / 3),
        ("E-A E-A O", "S-A S-A O", 1),  # an entity ends with each E
        ("I-A I-A O", "B-A I-A O", 1),  # one that begins inside is one too
        ("I-A I-B O", "B-A I-A O", 0),
        ("B-A B-A O", "B-A I-A O", 0),
        ("O O B-A", "B-A O B-A", 2 / 3),  # also at the end of a text
        ("O O O", "O O B-A", 0),
    ],
)
def test_f1_of_schemes_by_hand(predicted, wanted, f1):
    assert _f1(predicted, wanted) == pytest.approx(f1)


def test_what_is_no_word_counts_for_nothing_and_no_entity_crosses_texts():
    wanted = np.array([[1, -100, 2], [2, 0, -100]])
    assert entity_f1(np.array([[1, 4, 2], [2, 0, 3]]), wanted, BIO) == 1
    assert entity_f1(np.array([[1, 4, 2], [0, 0, 3]]), wanted, BIO) == pytest.approx(2 / 3)
    assert entity_f1(np.zeros((1, 3)).astype(int), np.zeros((1, 3)).astype(int), BIO) == 0


@pytest.mark.parametrize("names", [("O",), ("NOUN", "VERB"), ("O", "PER"), ("B-PER", "I-PER"), ("O", "X-PER")])
def test_other_schemes_have_no_entities(names):
    assert not is_bio(names)
    assert entity_f1([np.array([0])], [np.array([0])], names) is None
