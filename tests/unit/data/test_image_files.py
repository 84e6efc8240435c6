"""Image files: what counts as one, what is left out by name, and that metadata change nothing but the orientation."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from model_compression.core.errors import DataError
from model_compression.data import image_files
from model_compression.data.folder import load_folder
from model_compression.data.folder_files import list_files
from model_compression.data.folder_images import FolderImages
from model_compression.data.image_files import decode_image, image_suffixes, size_of
from model_compression.data.listing import find_images

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def save(path, pixels=PIXELS, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def entries(*fields, tail=b""):
    """EXIF data of entries (tag, type, count, four bytes), written by hand: Pillow writes only what is sound."""
    packed = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in fields)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(fields)) + packed + bytes(4) + tail


TURNED = (0x0112, 3, 1, struct.pack("<HH", 6, 0))  # by 90 degrees
DAMAGED = {
    "orientation in letters": entries((0x0112, 2, 4, b"abc\0")),
    "orientation 0": entries((0x0112, 3, 1, bytes(4))),
    "orientation 9": entries((0x0112, 3, 1, struct.pack("<HH", 9, 0))),
    "beyond the end": entries((0x0112, 3, 4_000_000_000, bytes(4))),
    "no EXIF": b"Exif\0\0rubbish and more of it",
    "cut off": entries(TURNED)[:12],
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of the damage
@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
@pytest.mark.parametrize("name", [*DAMAGED, "good, with a resolution in letters"])
def test_damaged_metadata_do_not_change_an_image(tmp_path, kind, name):
    exif = DAMAGED.get(name) or entries(TURNED, (0x011A, 2, 4, b"abc\0"))
    lossless = {"lossless": True} if kind == "webp" else {}
    plain, odd = save(tmp_path / f"a.{kind}", **lossless), save(tmp_path / f"b.{kind}", exif=exif, **lossless)
    expected = np.asarray(Image.open(plain).convert("RGB"))
    if name not in DAMAGED:
        expected = np.rot90(expected, -1)
    np.testing.assert_array_equal(np.asarray(decode_image(odd, "b")), expected)
    assert size_of(odd) == expected.shape[:2]


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_followed_in_pixels_and_size(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{kind}", exif=exif)
    seen = [  # of the EXIF standard: which edges of the file are the top and the left of the scene
        PIXELS, PIXELS[:, ::-1], PIXELS[::-1, ::-1], PIXELS[::-1],
        PIXELS.swapaxes(0, 1), np.rot90(PIXELS, -1), PIXELS[::-1, ::-1].swapaxes(0, 1), np.rot90(PIXELS),
    ][orientation - 1]  # fmt: skip
    np.testing.assert_array_equal(np.asarray(decode_image(path, "a")), seen)
    assert size_of(path) == seen.shape[:2]


def test_any_mode_becomes_rgb_of_8_bits(tmp_path):
    grey = PIXELS[:, :, 0]
    as_grey = np.stack([grey] * 3, axis=2)
    deep = grey.astype(np.uint16) * 257  # the same from black to white
    palette = Image.fromarray(grey).quantize(16)
    alpha = np.concatenate([PIXELS, grey[:, :, None]], axis=2)
    palette.info["transparency"] = bytes(range(16))
    cases = {
        "deep.png": (Image.fromarray(deep), as_grey),
        "deep.pgm": (Image.fromarray(deep), as_grey),
        "deep.tif": (Image.fromarray(deep), as_grey),
        "alpha.png": (Image.fromarray(alpha), PIXELS),
        "grey_alpha.png": (Image.fromarray(alpha[:, :, 2:]), np.stack([PIXELS[:, :, 2]] * 3, axis=2)),
        "palette.png": (palette, np.asarray(Image.fromarray(grey).quantize(16).convert("RGB"))),
        "bits.png": (Image.fromarray(grey > 127), np.where(grey > 127, 255, 0)[:, :, None] + np.zeros(3, int)),
        "cmyk.tif": (Image.fromarray(PIXELS).convert("CMYK"), PIXELS),
        "profile.png": (Image.fromarray(PIXELS), PIXELS),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name, **({"icc_profile": b"rubbish"} if name == "profile.png" else {}))
        np.testing.assert_array_equal(np.asarray(decode_image(tmp_path / name, name)), expected, err_msg=name)
    assert np.asarray(decode_image(tmp_path / "alpha.png", "", channels=1)).shape == (6, 9)


def test_pixels_whose_scale_nobody_states_are_refused_with_the_name(tmp_path):
    for number, pixels in enumerate((PIXELS[:, :, 0] / np.float32(255), PIXELS[:, :, 0].astype(np.int32))):
        path = save(tmp_path / f"{number}.tif", pixels)
        with pytest.raises(DataError, match=rf"{number}\.tif cannot be read as an image: its mode is '[FI]', whose"):
            decode_image(path, str(path))


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"%!PS-Adobe" + b, bytes.swapcase]
)
@pytest.mark.parametrize("suffix", sorted({".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", ".jp2", ".npy"}))
def test_every_damaged_file_is_named(tmp_path, suffix, damage):
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, PIXELS.transpose(2, 0, 1))
    else:
        save(path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    try:  # what the damage did not meet in the pixels is an image still
        said, shape = "", FolderImages(list_files(path.parent, ("",), print), (6, 9), is_scaled=False).decode(0).shape
    except DataError as error:
        said, shape = str(error), None
    assert shape == (3, 6, 9) or str(path) in said
    assert "\n" not in said


def test_what_pillow_can_decode_is_an_image_whatever_its_ending_looks_like(tmp_path):
    endings = ["jfif", "JPE", "JPEG", "bmp", "tga", "Tiff", "ppm", "gif", "ico"]
    endings += ["jp2"] * features.check_codec("jpg_2000") + ["avif"] * features.check("avif")
    for ending in endings:
        save(tmp_path / f"a.{ending}", format="JPEG" if ending.lower() in ("jfif", "jpe") else None)
    assert {Path(file.path).suffix for file in find_images(tmp_path).files} == {f".{ending}" for ending in endings}
    assert not {".eps", ".pdf", ".mpg", ".h5", ".wmf", ".txt", ""} & image_suffixes()


def test_what_is_left_out_is_named_and_what_is_hidden_is_no_data(tmp_path):
    for name in ("a/1.png", "a/deep/er/2.png", "b/3.png", "b/4.png", "b/5.png"):
        save(tmp_path / "set" / name)
    hidden = ["a/.ipynb_checkpoints/1.png", "__MACOSX/a/1.png", ".git/x/1.png", "a/._1.png", "b/@eaDir/4.png"]
    for name in hidden:
        save(tmp_path / "set" / name)
    for name in ("a/.DS_Store", "b/Thumbs.db"):
        (tmp_path / "set" / name).write_bytes(b"x")
    said = []
    train, test = load_folder(tmp_path / "set", report=said.append)
    assert (len(train) + len(test), train.class_names, train.notes) == (5, ("a", "b"), ())
    for name in ("a/notes.txt", "a/deep/x.TXT", "b/README", "b/film.mpg"):
        (tmp_path / "set" / name).write_bytes(b"x")
    save(tmp_path / "set" / "loose.png")
    save(tmp_path / "elsewhere" / "6.png")
    links = {"b/linked": tmp_path / "elsewhere", "b/loop": tmp_path / "set", "a/gone.png": tmp_path / "nowhere"}
    for name, target in links.items():
        (tmp_path / "set" / name).symlink_to(target)
    train, test = load_folder(tmp_path / "set")
    assert train.notes[0] == f"{tmp_path / 'set'}: left out, as they lie in no class folder: 1 images (loose.png)"
    for part in ("2 .txt (a/deep/x.TXT, a/notes.txt", "without an ending (b/README", "1 .mpg (b/film.mpg", "(b/loop)"):
        assert part in train.notes[1]
    assert "1 broken link (a/gone.png)" in train.notes[1]
    assert len(train) + len(test) == 6


def test_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    for name in ("a/1.png", "a/private/2.png", "b/3.png", "b/4.png"):
        save(tmp_path / name)
    original, closed = os.scandir, {"private"}

    def scandir(path):
        if Path(path).name in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root may open any folder
    train, _ = load_folder(tmp_path)
    assert train.notes == (
        f"{tmp_path}: left out, as they are no images that can be read: 1 cannot be opened (Permission denied) "
        "(a/private)",
    )
    closed.add("b")
    with pytest.raises(DataError, match="b cannot be opened: Permission denied; change its permissions"):
        load_folder(tmp_path)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_arrays_are_images_of_any_number_of_channels(tmp_path, channels):
    images = np.random.default_rng(1).integers(0, 256, (8, channels, 6, 9), dtype=np.uint8)
    for number, image in enumerate(images):
        path = tmp_path / "ab"[number % 2] / f"{number}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, image[0] if channels == 1 else image)
    train, test = load_folder(tmp_path)
    assert train.image_shape == (channels, 6, 9)
    whole = {image.tobytes() for dataset in (train, test) for image in dataset.images[:]}
    assert whole == {image.tobytes() for image in images}
    assert load_folder(tmp_path, 4)[0].images[:].shape == (len(train), channels, 4, 4)


def test_arrays_that_are_no_images_are_refused_by_name(tmp_path):
    for name in ("a/1.npy", "b/2.npy"):
        (tmp_path / name).parent.mkdir()
        np.save(tmp_path / name, PIXELS.transpose(2, 0, 1))
    for array, text in (
        (PIXELS, r"1\.npy is \(6, 9, 3\), channels last; expected \(C, H, W\): save image\.transpose\(2, 0, 1\)"),
        (PIXELS / 255, r"1\.npy holds float64 of shape \(6, 9, 3\); expected an image of uint8"),
        (np.array([{}]), r"1\.npy cannot be read as an image: .*Python objects"),
        (PIXELS.transpose(2, 0, 1)[:2], r"1\.npy has 2, .*2\.npy 3; expected as many in all"),
    ):
        np.save(tmp_path / "a" / "1.npy", array, allow_pickle=True)
        with pytest.raises(DataError, match=text):
            load_folder(tmp_path)
    save(tmp_path / "a" / "3.png")
    with pytest.raises(DataError, match=r"npy is an array and .*3\.png an image file; expected one kind"):
        load_folder(tmp_path)


def png_of_one_bit(path, side):
    """A black square, 1 bit a pixel, written by hand: a few kB, whatever its size."""

    def chunk(name, payload):
        return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(side * (1 + -(-side // 8)))))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b""))
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_small_file_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    assert decode_image(png_of_one_bit(tmp_path / "small.png", 30), "small").size == (30, 30)
    path = png_of_one_bit(tmp_path / "large.png", 13_300)
    assert path.stat().st_size < 100_000
    for read in (size_of, lambda path: decode_image(path, str(path))):
        with pytest.raises(DataError, match=r"large.png .*13,300 × 13,300 pixels, expected at most 67,108,864; scale"):
            read(path)
    np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.uint8, (3, 2**14, 2**15))  # a file without content
    with pytest.raises(DataError, match=r"large.npy holds 1,610,612,736 bytes; expected at most 268,435,456"):
        image_files.array_image(tmp_path / "large.npy")


def test_large_jpeg_is_decoded_at_half_its_size(tmp_path, monkeypatch):
    smooth = np.add.outer(np.arange(80), np.arange(120)).astype(np.uint8)[..., None].repeat(3, axis=2)
    path = save(tmp_path / "large.jpg", smooth, quality=95)
    monkeypatch.setattr(image_files, "MAX_PIXELS", 80 * 120 - 1)
    found = np.asarray(decode_image(path, "large")).astype(float)
    np.testing.assert_allclose(found, smooth.reshape(40, 2, 60, 2, 3).mean(axis=(1, 3)), atol=4)
    with pytest.raises(DataError, match="120 × 80 pixels, expected at most 9,599"):
        size_of(path)  # where images are taken as they are
    with pytest.raises(DataError, match="120 × 80 pixels"):
        decode_image(save(tmp_path / "progressive.jpg", smooth, progressive=True), "progressive")
    monkeypatch.setattr(image_files, "MAX_PIXELS", 80 * 120)
    assert decode_image(path, "large").size == (120, 80)
