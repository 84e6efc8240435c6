"""Rows of stored answers: the largest logits and the mass of the rest, against the formulas in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_compression.core.errors import ModelCompressionError
from model_compression.distillation.teachers.row_formats import Dense, TopK, row_bytes, row_format


def logits_of(count, classes, scale=4.0, seed=0):
    return scale * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("classes", "kept"), [(2, 1), (10, 3), (10, 9), (1000, 16), (257, 5), (70_000, 4)])
def test_topk_keeps_the_largest_and_spreads_the_mass_of_the_rest_evenly(classes, kept, temperature):
    answers = logits_of(20, classes)
    form = TopK(classes, kept, torch.float32)
    found = form.decode(form.encode(answers)).double().numpy()
    exact = answers.double().numpy()
    expected = np.empty_like(exact)
    for row, out in zip(exact, expected, strict=True):
        largest = np.argsort(-row, kind="stable")[:kept]
        rest = np.delete(row, largest)
        out[:] = np.log(np.exp(rest).sum()) - np.log(classes - kept)
        out[largest] = row[largest]
    assert np.abs(softmax(found / temperature) - softmax(expected / temperature)).max() < 1e-6
    kept_share = np.sort(softmax(exact), axis=1)[:, -kept:].sum(axis=1)
    assert np.abs(np.sort(softmax(found), axis=1)[:, -kept:].sum(axis=1) - kept_share).max() < 1e-6


def test_topk_of_one_other_class_is_the_whole_answer():
    answers = logits_of(50, 10)
    form = TopK(10, 9, torch.float16)
    assert torch.equal(form.decode(form.encode(answers)), answers.half().float())


def test_a_temperature_gives_the_rest_no_less_than_the_whole_answer_does():
    answers = logits_of(50, 30)
    form = TopK(30, 4, torch.float32)
    found = form.decode(form.encode(answers)).double().numpy()
    largest = np.argsort(-answers.numpy(), axis=1)[:, :4]
    for temperature in (2, 4, 20):
        whole, read = (np.take_along_axis(softmax(x / temperature), largest, 1).sum(axis=1)
                       for x in (answers.double().numpy(), found))  # fmt: skip
        assert (read <= whole + 1e-6).all()
        assert (read < whole).any()


@pytest.mark.parametrize(
    ("classes", "kept", "dtype", "expected"),
    [(1000, 16, "fp16", 16 * 2 + 2 + 20), (10, 3, "fp16", 10), (65_536, 16, "fp16", 66), (10, 3, "fp32", 18)],
)
def test_row_is_as_long_as_the_documentation_says(classes, kept, dtype, expected):
    form = row_format([classes], dtype, kept)
    assert row_bytes(form) == expected
    assert form.encode(logits_of(7, classes)).shape == (7, expected)


@given(st.integers(2, 300), st.data())
def test_any_classes_come_back(classes, data):
    kept = data.draw(st.integers(1, classes - 1))
    chosen = data.draw(st.sets(st.integers(0, classes - 1), min_size=kept, max_size=kept))
    answers = torch.zeros(1, classes)
    answers[0, list(chosen)] = 5.0
    form = TopK(classes, kept, torch.float16)
    found = form.decode(form.encode(answers))
    assert set(torch.nonzero(found[0] == 5.0)[:, 0].tolist()) == chosen


def test_of_equal_logits_the_lower_class_is_kept():
    answers = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 2.0, 3.0, 2.0]])
    form = TopK(5, 2, torch.float32)
    found = form.decode(form.encode(answers)).double().numpy()
    rest = [np.log(np.exp([1.0, 2, 2]).sum() / 3), 0.0, np.log(np.exp([1.0, 2, 2]).sum() / 3)]
    expected = np.array([[rest[0], 3, 2, rest[0], rest[0]], [0.0] * 5, [2, rest[2], rest[2], 3, rest[2]]])
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("form", [Dense((4,), torch.float16), TopK(4, 2, torch.float16)], ids=["dense", "topk"])
def test_logits_beyond_half_precision_are_refused_and_the_remedy_works(form):
    answers = torch.tensor([[7e4, 1.0, 2.0, 3.0]])
    with pytest.raises(
        ModelCompressionError, match=r"reach 7e\+04, and half precision ends at 65,504; .*_dtype='fp32'"
    ):
        form.encode(answers)
    exact = row_format((4,), "fp32", 2 if isinstance(form, TopK) else 0)
    assert exact.decode(exact.encode(answers))[0, 0] == 7e4


def test_small_logits_beyond_half_precision_are_only_a_part_of_the_rest():
    answers = torch.tensor([[-7e4, 1.0, 2.0, 3.0]])
    form = TopK(4, 2, torch.float16)
    found = form.decode(form.encode(answers)).double().numpy()
    assert np.abs(softmax(found).sum() - 1) < 1e-6
    assert np.abs(found[0] - [1 - np.log(2), 1 - np.log(2), 2, 3]).max() < 1e-3


def test_nan_has_no_largest_logits():
    with pytest.raises(ModelCompressionError, match="the teacher answers with NaN"):
        TopK(4, 2, torch.float16).encode(torch.tensor([[torch.nan, 1.0, 2.0, 3.0]]))


def test_compare_finds_other_answers_and_forgives_rounding():
    answers = logits_of(20, 50)
    form = TopK(50, 6, torch.float16)
    stored, expected = form.compare(form.encode(answers), answers + 1e-3)
    assert (stored - expected).abs().max() < 0.02
    stored, expected = form.compare(form.encode(answers), answers.roll(1, dims=0))
    assert (stored - expected).abs().max() > 1


@pytest.mark.parametrize(("shape", "kept"), [([2], 2), ([1], 2), ([4, 4], 2), ([], 2), ([-3], 0)])
def test_shapes_of_a_file_that_cannot_be_have_no_format(shape, kept):
    with pytest.raises(ValueError, match="no row holds answers of shape"):
        row_format(shape, "fp16", kept)


def test_classes_that_cannot_be_are_read_as_some_class():
    """Bits that somebody wrote into a file on purpose."""
    form = TopK(1000, 2, torch.float16)
    rows = form.encode(logits_of(3, 1000))
    rows[:, -3:] = 255
    assert form.decode(rows).shape == (3, 1000)


def test_each_pixel_of_maps_is_stored_as_a_sample_is():
    maps = logits_of(2 * 3 * 4, 6).view(2, 3, 4, 6).movedim(-1, 1)  # (2, 6, 3, 4)
    form, pixel = row_format([6, 3, 4], "fp16", 2), row_format([6], "fp16", 2)
    rows = form.encode(maps)
    assert rows.shape == (2, 12 * row_bytes(pixel)) == (2, *form.row_shape)
    found = form.decode(rows)
    for image, row, column in np.ndindex(2, 3, 4):
        one = maps[image, :, row, column][None]
        assert torch.equal(found[image, :, row, column], pixel.decode(pixel.encode(one))[0])
    assert torch.equal(form.decode(rows[1:]), found[1:])
    stored, again = form.compare(rows, maps)
    assert torch.allclose(stored, again, atol=1e-2)
