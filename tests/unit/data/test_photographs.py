"""Photographs as files: crops of the original and what is fitted into a square, beside Pillow as another reader."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import model_compression as mc
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import SizesDifferError
from model_compression.core.fitting import Fitting
from model_compression.data.image_files import decode_crop, decode_scaled
from model_compression.data.image_views import ImageViews
from model_compression.data.mask_folder import load_mask_folder
from model_compression.data.on_demand import OnDemandImages, OriginalSource
from model_compression.data.placement import place_images
from model_compression.data.scaling import fit_mask, scale
from model_compression.data.sources import load_dataset
from model_compression.data.streaming import loader_for
from model_compression.engine.run_folder import RunFolder
from model_compression.models.create import create_model
from model_compression.models.preprocessing import Preprocessing
from model_compression.models.weights import save_weights

SIZE = (24, 20)
CPU = torch.device("cpu")


def scene(height=300, width=400, channels=3):
    """Smooth, so that a reduced scale and a full decode differ by little, and without symmetry."""
    rows, columns = np.mgrid[:height, :width]
    waves = [
        128 + 100 * np.sin(rows / (25 + 9 * number)) * np.cos(columns / (40 - 8 * number) + number)
        for number in range(channels)
    ]
    return np.stack(waves, axis=-1).round().astype(np.uint8)


def encoded(image, **settings):
    file = io.BytesIO()
    image.save(file, **{"format": "PNG", **settings})
    return file


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def cropped(image, box, size=SIZE):
    """By Pillow alone: cut, then its antialiased bicubic filter."""
    top, left, height, width = box
    part = image.crop((left, top, left + width, top + height)).resize(size[::-1], Image.Resampling.BICUBIC)
    pixels = np.asarray(part)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)).astype(int)


def decoded(file, box, channels=3, seen=None):
    def choose(height, width):
        if seen is not None:
            seen.append((height, width))
        return box

    return decode_crop(file, "x", channels, SIZE, choose).astype(int)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("box", [(0, 0, 200, 150), (37, 21, 251, 199), (140, 100, 31, 47)])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_decode_crop_cuts_from_the_turned_original(format, orientation, box):
    """Of JPEG at a reduced scale where the box is large; the box counts in pixels of the whole, turned image."""
    settings = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
    file, seen = encoded(Image.fromarray(scene()), format=format, exif=turned(orientation), **settings), []
    with Image.open(file) as whole:
        upright = ImageOps.exif_transpose(whole).convert("RGB")
    if orientation >= 5:
        box = (box[1], box[0], box[3], box[2])
    found = decoded(file, box, seen=seen)
    assert seen == [upright.size[::-1]]  # asked once
    away = np.abs(found - cropped(upright, box))
    assert away.mean() < (2.0 if format == "JPEG" else 0.6)
    assert away.max() <= (16 if format == "JPEG" else 2)


def test_decode_crop_reads_a_jpeg_at_the_scale_that_the_crop_needs(monkeypatch):
    """A large box at an eighth, a small one at full size: never below 1.5 pixels for one of the result."""
    loaded = []
    load = Image.Image.crop
    monkeypatch.setattr(Image.Image, "crop", lambda self, box=None: loaded.append(self.size) or load(self, box))
    file = encoded(Image.fromarray(scene(1200, 1600)), format="JPEG")
    for box, expected in (
        ((0, 0, 1200, 1600), (200, 150)),
        ((50, 10, 200, 200), (400, 300)),
        ((50, 10, 100, 100), (800, 600)),
        ((50, 10, 60, 70), (1600, 1200)),
    ):
        decoded(file, box)
        assert loaded.pop() == expected


MODES = {
    "RGB": lambda image: image,
    "L": lambda image: image.convert("L"),
    "RGBA": lambda image: image.convert("RGBA"),
    "LA": lambda image: image.convert("LA"),
    "P": lambda image: image.convert("P", palette=Image.Palette.ADAPTIVE),
    "1": lambda image: image.convert("1"),
    "CMYK": lambda image: image.convert("CMYK"),
    "YCbCr": lambda image: image.convert("YCbCr"),
    "I;16": lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_cropped_and_fitted_as_its_8_bits_are(mode, channels):
    """CMYK and YCbCr as TIFF; alpha is dropped; of 16 bits the upper 8 count: what Pillow converts is what is cut."""
    image = MODES[mode](Image.fromarray(scene(60, 90)))
    file = encoded(image, format="TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    with Image.open(file) as again:
        again.load()
    eight = Image.fromarray((np.asarray(again).astype(int) >> 8).astype(np.uint8)) if mode == "I;16" else again
    expected = eight.convert({1: "L", 3: "RGB"}[channels])
    assert np.abs(decoded(file, (5, 11, 40, 61), channels) - cropped(expected, (5, 11, 40, 61))).max() <= 2
    squashed = decode_scaled(file, "x", channels, SIZE, Fitting("squash")).astype(int)
    assert np.abs(squashed - cropped(expected, (0, 0, 60, 90))).max() <= 2


def test_cmyk_jpeg_is_cropped_at_a_reduced_scale():
    file = encoded(Image.fromarray(scene()).convert("CMYK"), format="JPEG", quality=95)
    with Image.open(file) as whole:
        expected = cropped(whole.convert("RGB"), (10, 20, 280, 300))
    assert np.abs(decoded(file, (10, 20, 280, 300)) - expected).mean() < 3


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (61, 61), (30, 200), (300, 400)])
@pytest.mark.parametrize("size", [SIZE, (32, 32)])
def test_fit_is_what_pillow_gives_by_hand(shape, size):
    image = Image.fromarray(scene(*shape))

    def close(fit, expected):
        found = scale(image, size, fit=fit).astype(int)
        assert found.shape == (3, *size)
        assert np.abs(found - np.asarray(expected).transpose(2, 0, 1).astype(int)).max() <= 2

    close(Fitting("squash"), image.resize(size[::-1], Image.Resampling.BICUBIC))
    close(Fitting("pad"), ImageOps.pad(image, size[::-1], Image.Resampling.BICUBIC, color=(127, 127, 127)))
    doubled = image.resize((2 * size[1], 2 * size[0]), Image.Resampling.BICUBIC)
    middle = (size[1] // 2, size[0] // 2, size[1] // 2 + size[1], size[0] // 2 + size[0])
    close(Fitting("squash", 0.5), doubled.crop(middle))


@pytest.mark.parametrize("fit", [Fitting(), Fitting("crop", 0.7), Fitting("pad"), Fitting("squash")])
@pytest.mark.parametrize("shape", [(60, 91), (91, 60), (48, 48)])
def test_masks_fit_as_their_images(shape, fit):
    """Two halves, black and white: where the fitted image is clearly one of them, the mask is its class."""
    mask = np.zeros(shape, dtype=np.uint8)
    mask[:, shape[1] // 3 :] = 1
    mask[: shape[0] // 4] = 2
    image = scale(Image.fromarray(mask * 120), (32, 32), fit=fit)[0].astype(int)
    found = fit_mask(mask, (32, 32), fit)
    beside = found == 255
    assert beside.any() == (fit.fit == "pad" and shape[0] != shape[1])
    assert (image[beside] == 127).all()
    for label in range(3):
        sure = (np.abs(image - label * 120) < 8) & ~beside & (image != 127)
        assert (found[sure] == label).sum() >= 0.97 * sure.sum()


@pytest.fixture
def folder(tmp_path):
    for number in range(12):
        image = Image.fromarray(scene(50 + 3 * number, 90 - number))
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=95, exif=turned(number % 8 + 1))
    return tmp_path / "photos"


@pytest.mark.parametrize("resident", ["auto", "on", "off"])
def test_photo_of_a_folder_crops_the_files_whatever_is_resident(folder, resident):
    """The training images are decoded from their files for every view; test images are held as ever."""
    train, test = load_dataset(f"folder:{folder}", image_size=16, resident=resident, crops=True, workers=0)
    assert isinstance(train.samples, OnDemandImages)
    assert isinstance(test.samples, OnDemandImages) == (resident == "off")
    config = DataConfig(augmentation="photo", color_jitter=0.0)
    batch = next(loader_for(train, config, CPU).in_order(view=2, batch_size=len(train)))
    views = ImageViews.of(config, train)
    draws = views.draw(torch.arange(len(train)), 2)
    for row in range(len(train)):
        with Image.open(train.images.source.files[int(train.images.rows[row])]) as file:
            upright = ImageOps.exif_transpose(file).convert("RGB")
        one = draws.of(row, *upright.size[::-1])
        expected = cropped(upright, one.box, (16, 16))
        expected = expected[:, :, ::-1] if one.flip else expected
        assert np.abs(batch.inputs[row].numpy().astype(int) - expected).mean() < 2
    plain = next(loader_for(train, DataConfig(), CPU).in_order(view=0, batch_size=len(train)))
    np.testing.assert_array_equal(plain.inputs.numpy(), train.images[:])


def test_fit_and_crop_share_reach_the_images_of_every_source(folder, tmp_path):
    """By load_dataset for a folder, a table, tar shards and the hub's format, and for images without labels."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*.jpg"))
    rows = ["file,label", *(f"{name},{name.parts[0]}" for name in names)]
    (folder / "t.csv").write_text("\n".join(rows))
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        for name in names:
            shard.add(folder / name, f"{name.stem}.jpg")
            entry = tarfile.TarInfo(f"{name.stem}.cls")
            entry.size = 1
            shard.addfile(entry, io.BytesIO(str("ab".index(name.parts[0])).encode()))
    for fit in (Fitting("pad"), Fitting("squash"), Fitting("crop", 0.6)):
        expected = sorted(decode_scaled(folder / name, "x", 3, (16, 16), fit).tobytes() for name in names)
        for source in (f"folder:{folder}", f"csv:{folder / 't.csv'}", f"tar:{tmp_path / 's.tar'}"):
            parts = load_dataset(source, image_size=16, fit=fit, report=lambda line: None)
            found = sorted(image.tobytes() for part in parts for image in part.images[:])
            assert found == expected, (source, fit)
        wild, _ = load_dataset(
            f"folder:{folder}", image_size=16, fit=fit, unlabelled=f"folder:{folder}", report=lambda line: None
        )
        assert sorted(image.tobytes() for image in wild.images[:]) == expected


def test_masks_of_a_folder_move_with_crops(tmp_path):
    """Images and masks are one picture: after photo the mask still says where the image is bright."""
    for number in range(4):
        mask = np.zeros((40, 60), dtype=np.uint8)
        mask[8 : 20 + number, 10:45] = 1
        for kind, pixels in (("images", mask * 200), ("masks", mask)):
            path = tmp_path / kind / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
    train, test = load_mask_folder(tmp_path, ("images", "masks"), 255, 32, lambda line: None, Fitting("pad"))
    held, _ = place_images(train, test, workers=0, crops=True)
    assert isinstance(held.samples, np.ndarray)  # crops are of what the masks fit, and that may be held
    for augmentation in ("photo", "randaugment"):
        options = {"color_jitter": 0.0} if augmentation == "photo" else {"randaugment_magnitude": 0}
        for dataset, views in ((held, 4), (train, 2)):
            config = DataConfig(augmentation=augmentation, erasing=0.5, workers=0, **options)
            for view in range(views):
                batch = next(loader_for(dataset, config, CPU).in_order(view=view, batch_size=8))
                for image, moved in zip(batch.inputs[:, 0], batch.targets, strict=True):
                    assert (moved[image > 190] != 0).all()
                    assert (moved[(image < 10)] != 1).all()


def test_box_that_rounding_moves_over_the_border_is_scaled():
    """525 × 379 at a quarter has shares of a pixel at its border, where the box of 24 × 94 ends."""
    file = encoded(Image.fromarray(scene(379, 525)), format="JPEG", quality=95, exif=turned(8))
    with Image.open(file) as whole:
        upright = ImageOps.exif_transpose(whole)
    expected = ImageOps.fit(upright, (94, 24), Image.Resampling.BICUBIC)
    found = decode_scaled(file, "x", 3, (24, 94)).astype(int)
    assert np.abs(found - np.asarray(expected).transpose(2, 0, 1)).mean() < 2


@pytest.fixture
def sources(folder, tmp_path):
    """The same images by the name of each source of files."""
    datasets = pytest.importorskip("datasets")
    rows = {"image": [str(path) for path in sorted(folder.rglob("*.jpg"))], "label": [0, 1] * 6}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(str(tmp_path / "hub"))
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        for number, path in enumerate(rows["image"]):
            shard.add(path, f"{number}.jpg")
            entry = tarfile.TarInfo(f"{number}.cls")
            entry.size = 1
            shard.addfile(entry, io.BytesIO(str(number % 2).encode()))
    (folder / "t.csv").write_text(
        "\n".join(["file,label", *(f"{path},{n % 2}" for n, path in enumerate(rows["image"]))])
    )
    return [f"folder:{folder}", f"csv:{folder / 't.csv'}", f"tar:{tmp_path / 's.tar'}", f"hf:{tmp_path / 'hub'}"]


def test_every_source_of_files_cuts_from_the_original(sources):
    """The crop is that of the encoded file, whatever size images have."""
    box = (3, 5, 40, 30)
    for source in sources:
        train, _ = load_dataset(source, image_size=16, crops=True, report=lambda line: None)
        images = train.images.source
        assert isinstance(images, OriginalSource)
        for number in (0, 7):
            expected = decode_crop(io.BytesIO(images.content(number)), "x", 3, (16, 16), lambda height, width: box)
            np.testing.assert_array_equal(images.decode_crop(number, lambda height, width: box), expected)


def test_photographs_that_differ_in_size_get_that_of_the_weights(sources, tmp_path, watcher):
    """By training and evaluation, from every source; who starts afresh is asked for a size."""
    network = create_model("resnet8", num_classes=2)
    network.preprocessing = Preprocessing(size=(24, 24), fitting=Fitting("squash"))
    save_weights(tmp_path / "w.safetensors", network)
    given = {"epochs": 1, "precision": "fp32", "device": "cpu", "progress": False}
    for number, source in enumerate(sources):
        seen = watcher()
        run = mc.train(str(tmp_path / "w.safetensors"), source, run_dir=tmp_path / str(number), observer=seen, **given)
        data = RunFolder(run.run_dir).read_config().data
        assert (data.image_size, data.fit) == (24, "squash")
        assert [line for line in seen.messages if "differ in size" in line and "scaled to 24 pixels" in line]
        expected = mc.evaluate(run.run_dir, DataConfig(name=source, image_size=24, fit="squash"))
        assert mc.evaluate(run.run_dir, source).figures == expected.figures
        with pytest.raises(SizesDifferError, match="image_size=224"):
            mc.train("resnet8", source, run_dir=tmp_path / "fresh", **given)
    said = mc.doctor(student=str(tmp_path / "w.safetensors"), data=sources[0], device="cpu")
    assert not [finding for finding in said.findings if finding.area == "data" and finding.level == "fail"]
    same = mc.train(str(tmp_path / "w.safetensors"), sources[0], run_dir=tmp_path / "same", image_size=16, **given)
    assert RunFolder(same.run_dir).read_config().data.image_size == 16
