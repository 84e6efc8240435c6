"""What is said of a file that answers a little, or quite, differently."""

import pytest
import torch

from model_compression.cli.verify import print_verification
from model_compression.exporting.verify import Verification, verification_of
from model_compression.reports.sections.neighbours import alignment
from model_compression.tasks import TASKS, Changes

REFERENCE = torch.tensor([[4.0, 1.0, -1.0], [0.0, 2.0, 1.99995], [3.0, -6.0, 0.0], [1.0, 0.5, 0.0]])
TARGETS = torch.tensor([0, 1, 2, 0])
TASK = TASKS.create("image-classification")


def verification(correct, reference_correct, others=(), ties=(), images=100):
    return Verification(
        metric=TASK.metric,
        images=images,
        largest_difference=1e-6,
        logit_range=1.0,
        value=correct / images,
        reference_value=reference_correct / images,
        interval=TASK.interval(correct / images, images),
        changes=Changes(others=others, ties=ties, kind="class"),
        agreement=1 - len(others) / images,
    )


def compared(answers):
    largest, span = (answers - REFERENCE).abs().max(), REFERENCE.max() - REFERENCE.min()
    return verification_of(answers, REFERENCE, TARGETS, TASK, "images", float(largest), float(span))


def test_equal_answers_have_no_fault():
    found = compared(REFERENCE.clone())
    assert (found.images, found.largest_difference, found.logit_range) == (4, 0.0, 10.0)
    assert (found.agreement, found.value, found.fault(1e-12)) == (1.0, 0.75, None)


def test_numbers_of_a_quantised_file_agree_as_far_as_they_do():
    """Of numbers none is called another one: "the same answer to 100 % of the images" says nothing of them."""
    reference = torch.linspace(-1, 1, 50)[:, None]
    found = verification_of(reference.flip(0), reference, reference.double(), TASKS.create("regression"), "", 2.0, 2.0)
    assert (found.agreement, found.value) == (0.0, -3.0)  # of the opposite numbers: 1 - 4 · variance / variance
    half = verification_of(0.5 * reference, reference, reference.double(), TASKS.create("regression"), "", 0.5, 2.0)
    assert half.agreement == pytest.approx(0.75)


def test_embeddings_without_labels_must_agree_with_the_networks():
    """Their effective rank is the same whichever way they point."""
    reference, other = (torch.randn(60, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    nothing, task = torch.zeros(60, 1), TASKS.create("embedding-unlabelled")
    found = verification_of(other, reference, nothing, task, "images", 1.0, 1.0)
    assert abs(found.drop) < 0.5
    assert f"to {alignment(other.numpy(), reference.numpy()):.2%}, " in found.drop_fault(0.5)
    assert found.drop_fault(100) is None


def test_a_difference_is_held_against_the_range():
    answers = REFERENCE.clone()
    answers[0, 0] += 2e-3
    found = compared(answers)
    assert found.relative_difference == pytest.approx(2e-4, rel=1e-3)
    assert found.fault(1e-3) is None
    assert "logits differ by up to 0.002, 2.0e-04 of their range of 10; at most 1e-04 is accepted" in found.fault()


def test_a_tie_that_turns_is_listed_and_passes():
    answers = REFERENCE.clone()
    answers[1, 2] += 1e-4  # now above the second class, which was ahead by 5e-5
    found = compared(answers)
    assert found.changes == Changes(others=(1,), ties=(1,), kind="class")
    assert found.value == 0.5
    assert found.fault() is None


def test_another_class_that_is_no_tie_fails_and_names_the_image():
    found = verification(90, 91, (3, 7), (3,))
    assert found.fault() == "1 of 100 images get another class, the first is number 7"


@pytest.mark.parametrize(
    ("exact", "said"),
    [(True, "98 of 100 images, 1 of the other 2 in a tie\n"), (False, "agreement           98.00% with the network\n")],
)
def test_ties_are_counted_only_where_answers_are_alike(exact, said, capsys):
    found = verification(90, 91, (3, 7), (3,))
    print_verification(found, {}, exact)
    assert capsys.readouterr().out.endswith(said)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"test_accuracy": 0.92, "precision": "bfloat16"}, True),
        ({"test_accuracy": 0.9, "precision": "bfloat16"}, False),
        ({"test_accuracy": 0.92, "precision": "float32"}, False),
        ({}, False),
    ],
)
def test_accuracy_that_a_run_states_in_another_precision_is_named_beside(facts, said, capsys):
    found = verification(90, 90)
    print_verification(found, facts)
    line = "stated by the run   92.00%   (computed in bfloat16; the file computes in float32)"
    assert (line in capsys.readouterr().out.splitlines()) == said


def test_nan_fails():
    answers = REFERENCE.clone()
    answers[2, 0] = float("nan")
    assert "logits differ by up to nan" in compared(answers).fault()


def test_interval_is_wilsons():
    found = verification(90, 91)
    z, n, p = 1.959963984540054, 100, 0.9
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert found.interval == pytest.approx((middle - half, middle + half), rel=1e-9)


def test_a_file_of_fewer_bits_is_held_to_what_it_loses():
    answers = REFERENCE.clone()
    answers[0] = -answers[0]
    found = compared(answers)
    assert (found.value, found.reference_value, found.drop) == (0.5, 0.75, 25.0)
    assert found.drop_fault(25) is None
    assert found.drop_fault(24.9) == (
        "its accuracy is 50.00%, 25.00 points below the network's 75.00%; at most 24.9 are accepted"
    )
