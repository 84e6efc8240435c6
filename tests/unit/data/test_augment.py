"""Augmentation: what a plan depends on, and what it does to pixels, image by image in NumPy."""

import numpy as np
import pytest
import torch

from model_compression.core.masks import IGNORE
from model_compression.data.augment import Plan, apply_plan, move_masks, sample_plan

INDICES = torch.arange(2000)


def plan_of(augmentation="flip_shift", indices=INDICES, view=0, seed=0, shift=4, cutout=0):
    return sample_plan(augmentation, indices, view_seed=seed, view=view, shift=shift, cutout=cutout)


def moved(image, flip, down, right):
    """One image (C, H, W), flipped from left to right, then shifted with reflected borders."""
    image = image[:, :, ::-1] if flip else image
    pad = max(abs(down), abs(right))
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    _, height, width = image.shape
    return padded[:, pad - down : pad - down + height, pad - right : pad - right + width]


def test_plan_does_not_depend_on_batch_or_order():
    whole = plan_of(view=3)
    order = torch.randperm(len(INDICES), generator=torch.Generator().manual_seed(0))
    for indices in (order, order[:1], torch.tensor([1999, 0, 1999])):
        part = plan_of(view=3, indices=indices)
        assert torch.equal(part.flip, whole.flip[indices])
        assert torch.equal(part.shift, whole.shift[indices])
        assert torch.equal(plan_of(view=3, indices=indices, cutout=3).hole, plan_of(view=3, cutout=3).hole[indices])


def test_plan_is_fixed_for_all_time():
    plan = plan_of(indices=torch.arange(6), view=4, seed=1)  # stored teacher answers belong to these very plans
    assert plan.flip.tolist() == [True, True, False, True, True, False]
    assert plan.hole is None
    hole = plan_of(indices=torch.arange(1), view=4, seed=1, cutout=8).hole
    assert (hole * 2**16).tolist() == [[36942, 10977]]
    assert plan.shift.tolist() == [[-3, 2], [-3, 3], [3, 4], [-2, 3], [1, -4], [3, -2]]


def test_plan_differs_between_views_seeds_and_images():
    first = plan_of()
    for other in (plan_of(view=2), plan_of(seed=1), plan_of(indices=INDICES + 2000)):
        assert (first.flip != other.flip).float().mean().item() == pytest.approx(0.5, abs=0.06)
        same = (first.shift == other.shift).all(dim=1).float().mean().item()
        assert same == pytest.approx(1 / 81, abs=0.012)


@pytest.mark.parametrize("shift", [1, 2, 4])
def test_plan_shifts_are_uniform_and_independent_of_each_other(shift):
    indices = torch.arange(40_000)
    plan = plan_of(indices=indices, shift=shift)
    sides = 2 * shift + 1
    cells = (plan.shift[:, 0] + shift) * sides + plan.shift[:, 1] + shift
    counts = torch.bincount(cells, minlength=sides**2).numpy()
    assert len(counts) == sides**2
    assert abs(counts - 40_000 / sides**2).max() < 5 * np.sqrt(40_000 / sides**2)


@pytest.mark.parametrize("augmentation", ["flip", "flip_shift"])
def test_flips_alternate_between_the_two_views_of_a_pair(augmentation):
    for pair in range(3):
        first, second = (plan_of(augmentation, view=2 * pair + side) for side in range(2))
        assert torch.equal(first.flip, ~second.flip)
        assert first.flip.float().mean().item() == pytest.approx(0.5, abs=0.06)
    changed = plan_of(augmentation, view=1).flip != plan_of(augmentation, view=2).flip
    assert changed.float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_flip_does_not_shift_and_none_does_nothing():
    assert not plan_of("flip").shift.any()
    assert torch.equal(plan_of("flip", view=2).flip, plan_of("flip_shift", view=2).flip)
    assert not plan_of(shift=0).shift.any()
    images = torch.randint(0, 256, (3, 3, 4, 4), dtype=torch.uint8)
    assert plan_of("none") is None
    assert apply_plan(images, None) is images


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [(8, 8), (5, 9)])
def test_apply_plan_flips_then_shifts_with_reflected_borders(dtype, size):
    images = np.random.default_rng(0).integers(0, 256, (60, 3, *size)).astype(dtype)
    plan = plan_of(indices=torch.arange(60), shift=4)
    found = apply_plan(torch.from_numpy(images), plan).numpy()
    assert found.dtype == dtype
    for image, answer, flip, (down, right) in zip(images, found, plan.flip.tolist(), plan.shift.tolist(), strict=True):
        np.testing.assert_array_equal(answer, moved(image, flip, down, right))


def test_apply_plan_takes_the_largest_shift_that_a_border_can_reflect():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    plan = Plan(flip=torch.tensor([True]), shift=torch.tensor([[2, -2]]))
    np.testing.assert_array_equal(apply_plan(image, plan)[0].numpy(), moved(image[0].numpy(), True, 2, -2))


def test_apply_plan_does_not_change_its_input():
    images = torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8)
    before = images.clone()
    apply_plan(images, plan_of(indices=torch.arange(10)))
    assert torch.equal(images, before)


@pytest.mark.parametrize("side", [1, 4, 7, 9])
def test_holes_are_squares_around_a_pixel_cut_off_at_the_borders(side):
    images = np.random.default_rng(0).integers(1, 256, (500, 3, 7, 9), dtype=np.uint8)
    plan = plan_of("flip", indices=torch.arange(500), cutout=side)
    fill = torch.tensor([10, 20, 30], dtype=torch.uint8)
    found = apply_plan(torch.from_numpy(images), plan, fill).numpy()
    middles = set()
    for image, answer, flip, (down, right) in zip(images, found, plan.flip.tolist(), plan.hole.tolist(), strict=True):
        row, column = int(down * 7), int(right * 9)
        middles.add((row, column))
        expected = moved(image, flip, 0, 0).copy()
        top, left = row - side // 2, column - side // 2
        for channel, value in enumerate((10, 20, 30)):
            expected[channel, max(0, top) : top + side, max(0, left) : left + side] = value
        np.testing.assert_array_equal(answer, expected)
    assert len(middles) == 63  # each pixel is the middle of some


def test_holes_change_neither_flips_nor_shifts():
    with_hole, without = plan_of(cutout=5), plan_of()
    assert torch.equal(with_hole.flip, without.flip)
    assert torch.equal(with_hole.shift, without.shift)


def test_masks_move_as_their_images_do():
    masks = torch.randint(0, 9, (20, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plan = plan_of(indices=torch.arange(20), view=3)
    found = move_masks(masks, plan).numpy()
    for mask, one, flip, (down, right) in zip(masks.numpy(), found, plan.flip, plan.shift.tolist(), strict=True):
        assert np.array_equal(one, moved(mask[None], flip, down, right)[0])


def test_pixels_of_a_hole_do_not_count():
    masks = torch.zeros(20, 12, 10, dtype=torch.uint8)
    plan = plan_of(indices=torch.arange(20), cutout=5)
    images = apply_plan(torch.zeros(20, 1, 12, 10), plan, torch.ones(1))
    assert torch.equal(move_masks(masks, plan) == IGNORE, images[:, 0] == 1)
