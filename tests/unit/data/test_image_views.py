"""Views that crop: what they depend on, how boxes are distributed, and that images, masks and batches agree."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import MissingExtraError
from model_compression.data import operations
from model_compression.data.crops import central_box, draw_boxes
from model_compression.data.dataset import Dataset
from model_compression.data.image_views import ImageViews, nearest, view_notes
from model_compression.data.operations import Operation
from model_compression.data.streaming import loader_for

v2 = pytest.importorskip("torchvision.transforms.v2")

CPU = torch.device("cpu")
IDS = torch.arange(40)


def views_of(augmentation="photo", shape=(3, 24, 20), **options):
    config = DataConfig(augmentation=augmentation, **options)
    return ImageViews(config=config, shape=shape, fill=(100,) * shape[0])


def every(draws, count=40, height=50, width=70):
    return [draws.of(row, height, width) for row in range(count)]


def photograph(channels=3, height=50, width=70):
    rows, columns = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(rows / (4 + number % 7) + columns / (9 - number % 5)) for number in range(channels)]
    return torch.from_numpy(np.stack(waves).round().astype(np.uint8))


@pytest.mark.parametrize("augmentation", ["photo", "randaugment", "trivialaugment"])
def test_views_do_not_depend_on_batch_or_order(augmentation):
    views = views_of(augmentation, hue=0.1, grey=0.3) if augmentation == "photo" else views_of(augmentation)
    whole = every(views.draw(IDS, 3))
    order = torch.randperm(len(IDS), generator=torch.Generator().manual_seed(0))
    for ids in (order, order[:1], torch.tensor([39, 0, 39])):
        assert every(views.draw(ids, 3), len(ids)) == [whole[int(number)] for number in ids]
    for other in (views.draw(IDS, 4), views_of(augmentation, view_seed=1).draw(IDS, 3), views.draw(IDS + 40, 3)):
        assert sum(one == two for one, two in zip(whole, every(other), strict=True)) < 3


def test_views_are_fixed_for_all_time():
    """Stored teacher answers belong to these very views."""

    def of(name, sample, **options):
        found = views_of(name, **options).draw(torch.tensor([sample]), 2).of(0, 50, 70)
        return found.box, found.flip, [(one.name, round(one.magnitude, 6)) for one in found.operations]

    jitter = [("Color", 0.157133), ("Brightness", -0.130775), ("Contrast", -0.309421), ("Hue", -0.07922)]
    assert of("photo", 3, hue=0.1, grey=0.5) == ((3, 6, 33, 43), False, jitter)
    assert of("randaugment", 3) == ((3, 6, 33, 43), False, [("Identity", 0.0), ("Color", -0.27)])
    assert of("trivialaugment", 5) == ((4, 5, 45, 38), False, [("ShearX", -0.693)])


@pytest.mark.parametrize(
    ("height", "width", "area", "ratio"), [(50, 70, 0.35, 1.33), (64, 64, 0.08, 4 / 3), (30, 200, 0.9, 3.0)]
)
def test_boxes_are_distributed_as_those_of_random_resized_crop(height, width, area, ratio):
    """Kolmogorov and Smirnov's test of places and sides, 2,000 draws of each; ours the same each time."""
    count = 2000
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = v2.RandomResizedCrop(8, scale=(area, 1.0), ratio=(1 / ratio, ratio))
        drawn = [theirs.make_params([torch.empty(1, height, width)]) for _ in range(count)]
    views = views_of(crop_area=area, crop_ratio=ratio)
    found = np.array([one.box for one in every(views.draw(torch.arange(count), 0), count, height, width)])
    expected = np.array([[one[name] for name in ("top", "left", "height", "width")] for one in drawn])
    for own, their in zip(found.T, expected.T, strict=True):
        assert ks_2samp(own, their).pvalue > 1e-3
    assert (found[:, :2] >= 0).all()
    assert (found[:, 0] + found[:, 2] <= height).all()
    assert (found[:, 1] + found[:, 3] <= width).all()


def test_draw_boxes_of_erasing_are_distributed_as_torchvisions():
    count, size = 4000, (40, 56)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = v2.RandomErasing(p=1.0)
        drawn = [theirs.make_params([torch.empty(3, *size)]) for _ in range(count)]
    draws = draw_boxes(torch.arange(count), (1, 2, 3), (0.02, 0.33), (1 / 3.3, 1 / 0.3))
    found = np.array([draws.box(row, *size, smaller=True) for row in range(count)])
    expected = np.array([[one[name] for name in "ijhw"] for one in drawn])
    for own, their in zip(found.T, expected.T, strict=True):
        assert ks_2samp(own, their).pvalue > 1e-3


def test_central_box_is_that_of_random_resized_crop(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high: self.fill_(5.0))  # never fits
    for height, width in ((50, 70), (10, 90), (90, 10), (33, 33)):
        theirs = v2.RandomResizedCrop(8, scale=(0.35, 1.0), ratio=(0.75, 4 / 3)).make_params(
            [torch.empty(1, height, width)]
        )
        expected = tuple(theirs[name] for name in ("top", "left", "height", "width"))
        assert central_box(height, width, (0.75, 4 / 3)) == expected


def test_photo_is_torchvisions_pipeline_with_the_same_parameters():
    """Crop and scaling by its resized_crop, then its classes in the order that was drawn."""
    views, before = views_of(hue=0.1, grey=0.3), photograph()
    seen = set()
    for drawn in every(views.draw(IDS, 5)):
        exact = [
            Operation(one.name, round(one.magnitude * 256) / 256) for one in drawn.operations
        ]  # in float32 as well
        one = dataclasses.replace(drawn, operations=tuple(exact))
        top, left, height, width = one.box
        expected = v2.functional.resized_crop(
            before, top, left, height, width, [24, 20], interpolation=v2.InterpolationMode.BICUBIC, antialias=True
        )
        expected = v2.functional.horizontal_flip(expected) if one.flip else expected
        for operation in one.operations:
            name, size = operation.name, operation.magnitude
            if name == "Grey":
                expected = v2.RandomGrayscale(p=1.0)(expected)
            else:
                option = {"Color": "saturation"}.get(name, name.lower())
                factor = size if name == "Hue" else 1 + size
                expected = v2.ColorJitter(**{option: (factor, factor)})(expected)
        assert torch.equal(views.apply(before, one), expected)
        seen.add(tuple(operation.name for operation in one.operations))
    assert len(seen) > 10
    assert {len(names) for names in seen} == {4, 5}


def test_color_jitter_is_uniform_and_each_option_leaves_the_draws_of_others():
    ids = torch.arange(4000)
    drawn = views_of(color_jitter=0.4, hue=0.2, grey=0.25).draw(ids, 0).operations
    assert np.mean([one[-1].name == "Grey" for one in drawn]) == pytest.approx(0.25, abs=0.03)
    for name, largest in (("Brightness", 0.4), ("Contrast", 0.4), ("Color", 0.4), ("Hue", 0.2)):
        sizes = np.array([op.magnitude for one in drawn for op in one if op.name == name])
        assert ks_2samp(sizes, np.random.default_rng(0).uniform(-largest, largest, 20_000)).pvalue > 1e-3
        assert np.mean([one[0].name == name for one in drawn]) == pytest.approx(0.25, abs=0.03)
    without = views_of(color_jitter=0.4).draw(ids, 0).operations
    for one, other in zip(drawn, without, strict=True):
        assert [op for op in one if op.name not in ("Hue", "Grey")] == list(other)
    assert not any(views_of(color_jitter=0.0).draw(ids, 0).operations)


def test_randaugment_draws_all_operations_alike_at_one_magnitude():
    views = views_of("randaugment", randaugment_ops=3, randaugment_magnitude=30)
    drawn = [op for one in views.draw(torch.arange(4000), 1).operations for op in one]
    assert len(drawn) == 12_000
    counts = {name: sum(op.name == name for op in drawn) for name in operations.RANDAUGMENT}
    assert all(count == pytest.approx(12_000 / 14, rel=0.12) for count in counts.values())
    assert {abs(op.magnitude) for op in drawn if op.name == "Rotate"} == {30.0}
    assert np.mean([op.magnitude > 0 for op in drawn if op.name == "Rotate"]) == pytest.approx(0.5, abs=0.06)
    assert {op.magnitude for op in drawn if op.name == "TranslateX"} == {20 * 150 / 331, -20 * 150 / 331}
    wide = [one for (one,) in views_of("trivialaugment").draw(torch.arange(4000), 1).operations]
    assert len({op.magnitude for op in wide if op.name == "Rotate"}) > 50


@pytest.mark.parametrize("augmentation", ["photo", "randaugment", "trivialaugment"])
def test_masks_move_as_images_do(augmentation):
    """A mask whose classes are bands of brightness: what the moved image shows is what the moved mask says."""
    views = views_of(augmentation, shape=(1, 48, 48), **({"color_jitter": 0.0} if augmentation == "photo" else {}))
    columns = torch.arange(60) // 20  # three classes in columns, each of its own level
    mask = columns.repeat(60, 1)
    pixels = (mask * 100 + 20).to(torch.uint8)[None]
    colourless = [op for op in operations.RANDAUGMENT if op not in (*operations.GEOMETRIC, "Identity")]
    checked = 0
    for one in every(views.draw(IDS, 0), height=60, width=60):
        if any(op.name in colourless for op in one.operations):
            continue
        image, moved = views.apply(pixels, one)[0].int(), views.apply_to_mask(mask, one)
        assert moved.shape == (48, 48)
        inside = moved != 255
        exact = (image - (moved * 100 + 20)).abs() < 40  # bicubic: edges of classes are between their levels
        assert exact[inside].float().mean() > 0.93
        assert (image[~inside] == 100).all()  # the fill
        checked += 1
    assert checked > 5
    stacked = views.move_masks(mask.expand(3, -1, -1), torch.tensor([4, 0, 9]), 7)
    expected = [views.apply_to_mask(mask, views.draw(torch.tensor([i]), 7).of(0, 60, 60)) for i in (4, 0, 9)]
    assert torch.equal(stacked, torch.stack(expected))


@pytest.mark.parametrize(("size", "new"), [((5, 7), (10, 14)), ((10, 14), (5, 7)), ((9, 7), (4, 11))])
def test_nearest_takes_the_pixel_at_the_centre(size, new):
    mask = torch.arange(size[0] * size[1]).view(size)
    image = Image.fromarray(mask.to(torch.int32).numpy())
    expected = np.asarray(image.resize((new[1], new[0]), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(nearest(mask, new).numpy(), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("augmentation", ["photo", "randaugment", "trivialaugment"])
def test_any_number_of_channels_is_shown(augmentation, channels):
    """Operations on colours are for grey and RGB; what is left out is said once."""
    config = DataConfig(augmentation=augmentation)
    images = photograph(channels)[None].expand(6, -1, -1, -1).contiguous().numpy()
    dataset = Dataset(
        name="d", samples=images, labels=np.arange(6) % 2, class_names=("a", "b"), mean=(0.5,) * channels,
        std=(0.2,) * channels,
    )  # fmt: skip
    views = ImageViews.of(config, dataset)
    shown = views.shown(np.arange(6), 1)
    assert {shown(row, _Source(images), row).shape for row in range(6)} == {(channels, 50, 70)}
    names = {op.name for one in views.draw(torch.arange(500), 0).operations for op in one}
    said = view_notes(config, channels)
    if channels in (1, 3):
        assert not said
        assert len(names) == (14 if augmentation != "photo" else 3 if channels == 3 else 2)
    else:
        assert len(said) == 1
        assert f"images have {channels} channels" in said[0]
        assert names == ({*operations.GEOMETRIC, "Identity"} if augmentation != "photo" else set())


class _Source:
    def __init__(self, images):
        self.images = images

    def decode(self, number):
        return self.images[number]


def test_without_torchvision_the_extra_is_named_and_plain_crops_need_none(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(operations.importlib, "import_module", missing)
    images = photograph()[None].expand(4, -1, -1, -1).contiguous().numpy()
    dataset = Dataset(
        name="d", samples=images, labels=np.arange(4) % 2, class_names=("a", "b"), mean=(0.5,) * 3, std=(0.2,) * 3
    )
    for augmentation in ("photo", "randaugment", "trivialaugment"):
        with pytest.raises(MissingExtraError, match=rf"augmentation {augmentation} needs .*model-compression\[torch"):
            loader_for(dataset, DataConfig(augmentation=augmentation), CPU)
    loader = loader_for(dataset, DataConfig(augmentation="photo", color_jitter=0.0, workers=0), CPU)
    assert loader.batch(torch.arange(4), 0).inputs.shape == (4, 3, 50, 70)
