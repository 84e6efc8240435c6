"""Folders of images and masks: kinds of masks, classes and colours, sizes, and each fault with its file."""

import numpy as np
import pytest
from PIL import Image

from model_compression.api.given_data import given_data
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import DataError, UsageError
from model_compression.data.sources import load_dataset
from model_compression.engine.observer import Silent

IGNORE = 255
COLOURS = "0 0 0 ground\n10 20 30 ignore\n200 0 0 red roof\n0 0 255 pond\n"


def masks(count=10, size=(12, 10)):
    rng = np.random.default_rng(1)
    found = rng.integers(0, 3, (count, *size)).astype(np.uint8)
    found[:, 0] = IGNORE
    return found


def write(root, given, save=lambda mask, path: Image.fromarray(mask).save(path), image=".jpg", suffix=".png"):
    for name in ("images", "masks"):
        (root / name / "deep").mkdir(parents=True)
    for number, mask in enumerate(given):
        place = f"deep/{number}" if number % 2 else f"{number}"
        grey = np.repeat(np.where(mask == IGNORE, 0, mask * 80).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(grey).save(root / "images" / f"{place}{image}")
        save(mask, root / "masks" / f"{place}{suffix}")


def palette_image(mask, path):
    image = Image.fromarray(mask).convert("P")
    image.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    image.putdata(mask.ravel())
    image.save(path)


def coloured(mask, path):
    table = np.zeros((256, 3), dtype=np.uint8)
    table[[1, 2, IGNORE]] = [200, 0, 0], [0, 0, 255], [10, 20, 30]
    Image.fromarray(table[mask]).save(path)


def by_name(given):
    """In the order of names below the folder, in which 0, 2, 4 come before those in deep/."""
    order = sorted(range(len(given)), key=lambda n: ("deep", str(n)) if n % 2 else (f"{n}.jpg",))
    return given[order]


@pytest.mark.parametrize("kind", ["grey", "palette", "coloured", "npy"])
def test_masks_of_every_kind_are_read(tmp_path, kind):
    given = masks()
    save = {"palette": palette_image, "coloured": coloured, "npy": lambda mask, path: np.save(path, mask)}
    for part, some in (("train", given[:7]), ("val", given[7:])):
        settings = {"save": save[kind]} if kind in save else {}
        write(tmp_path / part, some, suffix=".npy" if kind == "npy" else ".png", **settings)
    if kind == "coloured":
        (tmp_path / "classes.txt").write_text(COLOURS)
    train, test = load_dataset(f"folder:{tmp_path}")
    assert train.task == test.task == "segmentation"
    assert train.class_names == (("ground", "red roof", "pond") if kind == "coloured" else ("0", "1", "2"))
    assert np.array_equal(train.labels, by_name(given[:7]))
    assert np.array_equal(test.labels, by_name(given[7:]))
    assert train.image_shape == (3, 12, 10)
    assert train.mean == test.mean


def test_names_of_classes_come_from_a_file_and_a_fifth_is_held_out(tmp_path):
    write(tmp_path, masks())
    (tmp_path / "classes.txt").write_text("ground\n\nroof\npond\nnever seen\n")
    said = []
    train, test = load_dataset(f"folder:{tmp_path}", report=said.append)
    assert train.class_names == ("ground", "roof", "pond", "never seen")
    assert (len(train), len(test)) == (8, 2)
    assert any("2 of 10 images are held out" in line for line in said)


def test_folders_of_other_names_and_another_number_to_ignore(tmp_path):
    given = masks()
    given[given == IGNORE] = 9
    write(tmp_path, given)
    (tmp_path / "images").rename(tmp_path / "jpg")
    (tmp_path / "masks").rename(tmp_path / "png")
    train, _ = load_dataset(f"folder:{tmp_path}", mask_folders="jpg,png", ignore_index=9)
    assert (train.labels[:, 0] == IGNORE).all()
    assert train.num_classes == 3
    with pytest.raises(UsageError, match="mask_folders must name a folder of images and one of masks"):
        load_dataset(f"folder:{tmp_path}", mask_folders="jpg")


@pytest.mark.parametrize("size", [(20, 31), (64, 40)])
def test_masks_are_scaled_and_cropped_with_their_images_and_never_blended(tmp_path, size):
    """An image that shows its own mask, scaled by Pillow, still shows it but where two classes meet."""
    rng = np.random.default_rng(2)
    blocks = rng.integers(0, 3, (10, 3, 3))
    height, width = size
    given = blocks[:, np.arange(height) * 3 // height][:, :, np.arange(width) * 3 // width].astype(np.uint8)
    write(tmp_path, given, image=".png")
    train, test = load_dataset(f"folder:{tmp_path}", image_size=16)
    for one in (train, test):
        shown = np.round(one.images[:][:, 0] / 80)
        assert one.labels.shape == shown.shape == (len(one), 16, 16)
        assert {*np.unique(one.labels)} <= {0, 1, 2}
        assert (shown == one.labels).mean() > 0.9


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", r"images/4\.jpg: no mask of that name in .*masks; bring it, or take the image out"),
        ("size", r"masks/4\.png has 5 × 6 pixels, and its image .*images/4\.jpg 10 × 12; expected the same size"),
        ("value", r"masks/4\.png: the pixel in row 3, column 2 is 77; expected a class number from 0 to 2, or 255"),
        ("damaged", r"masks/4\.png cannot be read as a mask: .*; repair it, or take image and mask out"),
        ("colour", r"masks/4\.png is coloured \(RGB\), and nothing says which class a colour is; expected a palette"),
        ("twice", r"several images are called 4, and share a mask; rename all but one"),
    ],
)
def test_each_fault_is_named_with_its_file(tmp_path, fault, message):
    write(tmp_path, masks())
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    mask = tmp_path / "masks" / "4.png"
    if fault == "missing":
        mask.unlink()
    elif fault == "damaged":
        mask.write_bytes(mask.read_bytes()[:60])
    elif fault == "twice":
        Image.new("RGB", (10, 12)).save(tmp_path / "images" / "4.png")
    elif fault == "colour":
        Image.new("RGB", (10, 12)).save(mask)
    else:
        values = np.array(Image.open(mask))
        values[3, 2] = 77
        Image.fromarray(values[:6, :5] if fault == "size" else values).save(mask)
    with pytest.raises(DataError, match=message):
        load_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (COLOURS.replace("200 0 0", "200 0 1"), r"a colour which is not in classes\.txt; add a line for it"),
        (COLOURS.replace("0 0 255", "0 0 0"), "line 4: the colour 0 0 0 is of another line"),
        ("0 0 0 one\n", "names 1 classes; expected 2 to 255"),
        ("one\ntwo\none\n", "line 3: the class 'one' is there twice"),
    ],
)
def test_tables_that_cannot_be_are_named_with_their_line(tmp_path, table, message):
    write(tmp_path, masks(), coloured)
    (tmp_path / "classes.txt").write_text(table)
    with pytest.raises(DataError, match=message):
        load_dataset(f"folder:{tmp_path}")


def test_masks_without_an_image_are_named_and_left_out(tmp_path):
    write(tmp_path, masks())
    Image.new("L", (10, 12)).save(tmp_path / "masks" / "extra.png")
    train, _ = load_dataset(f"folder:{tmp_path}")
    assert any("left out, as no image has their name: 1 masks (extra)" in note for note in train.notes)


def test_masks_that_predict_has_written_beside_images_are_none(tmp_path):
    write(tmp_path, masks())
    Image.new("P", (10, 12)).save(tmp_path / "images" / "4.mask.png")
    train, test = load_dataset(f"folder:{tmp_path}")
    assert len(train) + len(test) == 10


def test_masks_are_given_as_arrays(tmp_path):
    given = masks().astype(np.int64)
    given[given == IGNORE] = -1
    images = np.zeros((10, 3, 12, 10), dtype=np.uint8)
    config = DataConfig(name="arrays", ignore_index=-1)
    (train, test), _ = given_data((images[:7], given[:7], images[7:], given[7:]), config, Silent())
    assert (train.task, train.num_classes, train.labels.dtype) == ("segmentation", 3, np.uint8)
    assert np.array_equal(test.labels, masks()[7:])
    (unlabelled, _), _ = given_data((images[:7], None, images[7:], given[7:]), config, Silent())
    assert not unlabelled.labelled
    assert unlabelled.labels.shape == (7, 12, 10)
    with pytest.raises(UsageError, match=r"training masks are int64 of shape \(7, 12, 9\); expected whole numbers"):
        given_data((images[:7], given[:7, :, 1:], images[7:], given[7:]), config, Silent())
    given[8, 2, 2] = -7
    with pytest.raises(UsageError, match="test mask 1 holds -7 to 2; expected class numbers from 0 to 254, or -1"):
        given_data((images[:7], given[:7], images[7:], given[7:]), config, Silent())


def test_masks_are_turned_as_their_exif_data_say(tmp_path):
    given = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees, clockwise
    write(tmp_path, [given] * 5, lambda mask, path: Image.fromarray(np.rot90(mask)).save(path, exif=turned))
    train, _ = load_dataset(f"folder:{tmp_path}")
    assert np.array_equal(train.labels[0], given)


def test_second_mask_of_an_image_and_formats_that_change_numbers_are_refused(tmp_path):
    write(tmp_path, masks(), image=".png")
    (tmp_path / "masks" / "0.bmp").write_bytes((tmp_path / "masks" / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"0\.bmp and 0\.png are masks of one image"):
        load_dataset(f"folder:{tmp_path}")
    (tmp_path / "masks" / "0.bmp").unlink()
    for suffix, options in (("webp", {"lossless": True}), ("jpg", {}), ("webp", {"quality": 100})):
        file = tmp_path / "masks" / "0.png"
        Image.open(file).convert("RGB" if suffix == "webp" else "L").save(tmp_path / "masks" / f"0.{suffix}", **options)
        file.rename(tmp_path / "aside.png")
        expected = "coloured" if options.get("lossless") else "changes the numbers of pixels"
        with pytest.raises(DataError, match=expected):
            load_dataset(f"folder:{tmp_path}")
        (tmp_path / "masks" / f"0.{suffix}").unlink()
        (tmp_path / "aside.png").rename(file)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("# classes\n0 ground\n1 red roof\n\n2 pond\n", ("ground", "red roof", "pond")),
        ("1 ground\n2 roof\n3 pond\n", "line 1: the class number is 1, expected 0"),
        ("ground\nroof\npond\nignore\n", "line 4: 'ignore' is for the colour"),
    ],
)
def test_lines_of_classes_may_be_numbered_and_ignore_is_no_class(tmp_path, text, names):
    write(tmp_path, masks())
    (tmp_path / "classes.txt").write_text(text)
    if isinstance(names, tuple):
        assert load_dataset(f"folder:{tmp_path}")[0].class_names == names
    else:
        with pytest.raises(DataError, match=names):
            load_dataset(f"folder:{tmp_path}")
