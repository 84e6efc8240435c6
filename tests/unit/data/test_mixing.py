"""Mixup and CutMix: what a mixture depends on, how shares are spread, and the pixels, image by image in NumPy."""

import numpy as np
import pytest
import torch
from scipy import stats

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.data.augment import apply_plan, sample_plan
from model_compression.data.dataset import Dataset
from model_compression.data.loader import ResidentLoader
from model_compression.data.mixing import Mixing, Mixture, mix

COUNT = 20_000
CPU = torch.device("cpu")
BOTH = {"mixup": 0.2, "cutmix": 1.0}

FIXED = {
    "partners": [0, 3, 5, 1, 2, 4],
    "parts": [3858, 2112, 54, 2924, 590, 4096],
    "boxed": [False, True, True, True, True, False],
    "middle": [64020.0, 1197.0],
}


def mixing(count=COUNT, **options):
    return Mixing(DataConfig(**options), count, CPU)


def sampled(view=0, **options):
    return mixing(**options).sample(torch.arange(COUNT), view)


@pytest.mark.parametrize("options", [{"mixup": 0.2}, {"cutmix": 1.0}, BOTH], ids=str)
def test_mixture_does_not_depend_on_batch_or_order(options):
    made = mixing(**options)
    whole = made.sample(torch.arange(COUNT), 3)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    made.partners(order[:5], 4)  # another view between
    for indices in (order, order[:1], torch.tensor([19_999, 0, 19_999])):
        part = made.sample(indices, 3)
        for name in ("partners", "parts", "boxed", "middle"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[indices]), name


def test_mixture_is_fixed_for_all_time():
    found = mixing(6, view_seed=1, **BOTH).sample(torch.arange(6), 4)  # stored answers belong to these very mixtures
    assert found.partners.tolist() == FIXED["partners"]
    assert found.parts.tolist() == FIXED["parts"]
    assert found.boxed.tolist() == FIXED["boxed"]
    assert (found.middle[0] * 2**16).tolist() == FIXED["middle"]


def test_partners_of_a_view_are_a_permutation_and_others_in_another_view_or_of_another_seed():
    found = [
        mixing(view_seed=seed, mixup=1.0).partners(torch.arange(COUNT), view) for seed in (0, 1) for view in (0, 1)
    ]
    for partners in found:
        assert torch.equal(partners.sort().values, torch.arange(COUNT))
    same = [float((a == b).double().mean()) for i, a in enumerate(found) for b in [*found[:i], torch.arange(COUNT)]]
    assert max(same) < 0.001  # by chance 1 in 20,000


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_shares_are_from_the_beta_distribution(kind, alpha):
    found = sampled(**{kind: alpha})
    assert bool((found.boxed == (kind == "cutmix")).all())
    steps = np.arange(4096)
    share_up_to = np.searchsorted(np.sort(found.parts.numpy()), steps, side="right") / COUNT
    distance = np.abs(share_up_to - stats.beta(alpha, alpha).cdf((steps + 0.5) / 4096)).max()  # shares are rounded
    assert distance < 0.0138  # Kolmogorov: of 20,000 draws one in a thousand is further


def test_with_both_each_serves_half_of_the_images_with_its_own_distribution():
    found = sampled(mixup=8.0, cutmix=0.5)
    assert float(found.boxed.double().mean()) == pytest.approx(0.5, abs=0.015)
    for chosen, alpha in ((found.boxed, 0.5), (~found.boxed, 8.0)):
        shares = found.parts[chosen].double() / 4096
        assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)  # the distribution's variance


def test_blend_is_the_sum_of_both_images_by_their_shares():
    rng = np.random.default_rng(0)
    images, others = rng.integers(0, 256, (2, 50, 3, 5, 4), dtype=np.uint8)
    found = mixing(50, mixup=1.0).sample(torch.arange(50), 0)
    mixed, share = mix(torch.from_numpy(images), torch.from_numpy(others), found)
    lam = found.parts.numpy() / 4096
    np.testing.assert_allclose(share.numpy(), lam, atol=1e-7)
    for image, other, own, result in zip(images, others, lam, mixed.numpy(), strict=True):
        np.testing.assert_array_equal(result, np.floor(own * image + (1 - own) * other + 0.5))  # exact in float64


@pytest.mark.parametrize("size", [(8, 8), (6, 9)])
def test_box_is_cut_at_the_border_and_counted_as_it_is(size):
    height, width = size
    images, others = torch.zeros(300, 2, *size, dtype=torch.uint8), torch.full((300, 2, *size), 7, dtype=torch.uint8)
    found = mixing(300, cutmix=1.0).sample(torch.arange(300), 2)
    mixed, share = mix(images, others, found)
    for number in range(300):
        side = np.sqrt(1 - found.parts[number].item() / 4096)
        rows, columns = round(side * height), round(side * width)
        top, left = ((found.middle[number].numpy() * size).astype(int) - [rows // 2, columns // 2]).tolist()
        expected = np.zeros(size, dtype=np.uint8)
        expected[max(0, top) : max(0, top + rows), max(0, left) : max(0, left + columns)] = 7
        np.testing.assert_array_equal(mixed[number, 1].numpy(), expected)
        assert share[number].item() == pytest.approx(1 - (expected > 0).mean())


@pytest.mark.parametrize("boxed", [False, True])
def test_share_of_one_leaves_the_image_and_of_none_gives_the_partner(boxed):
    images, others = torch.full((1, 3, 4, 4), 200, dtype=torch.uint8), torch.full((1, 3, 4, 4), 3, dtype=torch.uint8)
    for parts, wanted, own in ((4096, images, 1.0), (0, others, 0.0)):
        mixture = Mixture(
            partners=torch.tensor([0]),
            parts=torch.tensor([parts]),
            boxed=torch.tensor([boxed]),
            middle=torch.full((1, 2), 0.5, dtype=torch.float64),
        )
        mixed, share = mix(images, others, mixture)
        assert torch.equal(mixed, wanted)
        assert share.tolist() == [own]


def test_both_images_are_shown_as_the_view_augments_them():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    made = Dataset(
        name="d", samples=images, labels=np.arange(30) % 4, class_names=tuple("abcd"), mean=(0.5,) * 3, std=(0.2,) * 3
    )
    config = DataConfig(augmentation="flip_shift", shift=2, cutout=3, views=5, view_seed=2, **BOTH)
    loader = ResidentLoader(made, config, CPU)
    (batch,) = loader.epoch(epoch=8, seed=1, batch_size=30)
    assert batch.view == 3
    everything = torch.arange(30)
    plan = sample_plan("flip_shift", everything, view_seed=2, view=3, shift=2, cutout=3)
    fill = torch.from_numpy(images).float().mean(dim=(0, 2, 3)).round().to(torch.uint8)
    augmented = apply_plan(torch.from_numpy(images), plan, fill)
    mixture = Mixing(config, 30, CPU).sample(everything, 3)
    mixed, share = mix(augmented, augmented[mixture.partners], mixture)
    assert torch.equal(batch.inputs, mixed[batch.ids])
    assert torch.equal(batch.mixed.share, share[batch.ids])
    assert torch.equal(batch.targets, batch.ids % 4)
    assert torch.equal(batch.mixed.targets, mixture.partners[batch.ids] % 4)
    wanted = torch.where(batch.mixed.share >= 0.5, batch.targets, batch.mixed.targets)
    assert torch.equal(batch.main_targets, wanted)
    assert not torch.equal(wanted, batch.targets)


def test_views_differ_where_images_are_mixed_and_not_augmented():
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 4), dtype=np.uint8)
    made = Dataset(
        name="d", samples=images, labels=np.zeros(9, np.int64), class_names=("a",), mean=(0.5,) * 3, std=(0.2,) * 3
    )
    loader = ResidentLoader(made, DataConfig(mixup=1.0), CPU)
    assert [loader.view_of(epoch) for epoch in range(3)] == [0, 1, 2]
    assert not torch.equal(loader.batch(torch.arange(9), 0).inputs, loader.batch(torch.arange(9), 1).inputs)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), 101.0])
def test_impossible_parameters_of_the_distribution_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name} must (be at least 0 and at most 100|be a finite number)"):
        DataConfig(**{name: value})


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, BOTH], ids=str)
def test_masks_are_pasted_where_images_are_and_keep_both_classes_of_a_blend(options):
    """Images that show their masks: in a box both show the partner's, elsewhere the own one, by its share."""
    rng = np.random.default_rng(3)
    masks = rng.integers(0, 5, (30, 8, 6)).astype(np.uint8)
    images = np.repeat(masks[:, None] * 50, 3, axis=1)
    data = Dataset(
        name="scenes", samples=images, labels=masks, class_names=tuple("abcde"), mean=(0.5,) * 3, std=(0.2,) * 3,
        task="segmentation",
    )  # fmt: skip
    batch = ResidentLoader(data, DataConfig(name="scenes", **options), CPU).batch(torch.arange(30), view=1)
    own, other = batch.targets.double(), batch.mixed.targets.double()
    share = batch.mixed.share.double().view(-1, 1, 1)
    expected = 50 * (share * own + (1 - share) * other)
    assert float((batch.inputs[:, 0].double() - expected).abs().max()) < 0.6  # rounded
    assert not torch.equal(batch.targets, torch.from_numpy(masks)) or "cutmix" not in options
