"""Folders of images: what is read is what was written, splits are what they are said to be, and faults are named."""

import numpy as np
import pytest
from PIL import Image

from model_compression.core.errors import DataError, UnknownNameError, UsageError
from model_compression.data.folder import load_folder
from model_compression.data.sources import load_dataset


def picture(seed, size=(8, 8)):
    """(H, W, 3) of random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def fill(root, classes, count, seed=0, size=(8, 8)):
    """PNG files in class folders; returns {path: pixels}."""
    written = {}
    for label, name in enumerate(classes):
        for number in range(count):
            path = root / name / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            written[path] = picture((seed, label, number), size)
            Image.fromarray(written[path]).save(path)
    return written


def test_folder_with_train_and_test_is_read_to_the_pixel(tmp_path):
    train_files = fill(tmp_path / "train", ("cat", "ape"), 3)
    test_files = fill(tmp_path / "test", ("ape", "cat"), 2, seed=1)
    train, test = load_folder(tmp_path)
    assert train.class_names == test.class_names == ("ape", "cat")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.labels.tolist() == [0, 0, 1, 1]
    for dataset, files in ((train, train_files), (test, test_files)):
        ordered = [files[path] for path in sorted(files, key=lambda path: (path.parent.name, path.name))]
        np.testing.assert_array_equal(dataset.images[:], np.stack(ordered).transpose(0, 3, 1, 2))
    pixels = np.stack(list(train_files.values())) / 255
    assert train.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), abs=1e-5)
    assert test.std == train.std == pytest.approx(pixels.std(axis=(0, 1, 2)), abs=1e-5)


def test_folder_without_a_test_holds_out_a_fifth_of_each_class_always_the_same(tmp_path):
    fill(tmp_path, ("a", "b"), 10)
    said = []
    train, test = load_folder(tmp_path, report=said.append)
    assert said == [f"{tmp_path} has no test/ or val/: 4 of 20 images are held out for the test"]
    assert (train.class_counts().tolist(), test.class_counts().tolist()) == ([8, 8], [2, 2])
    assert not {image.tobytes() for image in train.images[:]} & {image.tobytes() for image in test.images[:]}
    assert load_folder(tmp_path)[1].digest == test.digest


def test_folder_with_test_and_val_says_which_it_uses(tmp_path):
    for split in ("train", "val", "test"):
        fill(tmp_path / split, ("a", "b"), 1)
    said = []
    assert load_folder(tmp_path, report=said.append)[1].path == tmp_path / "test"
    assert said == [f"{tmp_path}: train/ and test/ are used; not used: val"]


def test_images_are_scaled_cropped_turned_and_made_rgb(tmp_path):
    fill(tmp_path, ("a", "b"), 4, size=(12, 9))
    Image.fromarray(picture(5, (20, 10))[:, :, 0]).save(tmp_path / "a" / "grey.PNG")
    turned = Image.fromarray(np.full((10, 20, 3), 200, dtype=np.uint8))
    turned.paste((0, 0, 0), (0, 0, 10, 10))  # the left half is black
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: black comes to the top
    turned.save(tmp_path / "b" / "turned.png", exif=exif)
    (tmp_path / "b" / "notes.txt").write_text("no image")
    with pytest.raises(
        DataError, match=r"images differ in size: .*000\.png is 12 × 9 pixels, .* give a side .*image_size=224"
    ):
        load_folder(tmp_path)
    train, test = load_folder(tmp_path, 6)
    assert train.image_shape == (3, 6, 6)
    assert len(train) + len(test) == 10
    images = np.concatenate([train.images[:], test.images[:]])
    (black_on_top,) = [image for image in images if image[:, 0].max() < 60 and image[:, -1].min() > 150]
    assert black_on_top[:, 0].max() < 60
    assert any((image[0] == image[1]).all() and (image[1] == image[2]).all() and image.std() > 20 for image in images)


def test_what_is_wrong_with_a_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="is not there; expected a folder"):
        load_folder(tmp_path / "missing")
    with pytest.raises(
        DataError, match="holds no folders; expected a folder of images for each of at least two classes"
    ):
        load_folder(tmp_path)
    fill(tmp_path / "test", ("a", "b"), 1)
    with pytest.raises(DataError, match="has test/ but no train/"):
        load_folder(tmp_path)
    fill(tmp_path / "train", ("a", "c"), 1)
    with pytest.raises(DataError, match=r"the classes differ: .*test lacks c; .*train lacks b"):
        load_folder(tmp_path)
    (tmp_path / "train" / "b").mkdir()
    (tmp_path / "test" / "c").mkdir()
    with pytest.raises(DataError, match=r"b holds no images"):
        load_folder(tmp_path)


def test_image_that_cannot_be_read_is_named(tmp_path):
    fill(tmp_path, ("a", "b"), 3)
    path = tmp_path / "b" / "001.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"b/001\.png cannot be read as an image: .*; repair it, or take it out"):
        load_folder(tmp_path)


def test_load_dataset_knows_folders_and_registered_names(tmp_path):
    fill(tmp_path, ("a", "b"), 5)
    assert load_dataset(f"folder:{tmp_path}", image_size=4)[0].image_shape == (3, 4, 4)
    assert len(load_dataset("synthetic")[0]) == 1000
    with pytest.raises(UnknownNameError, match="unknown dataset 'cifar'"):
        load_dataset("cifar")
    with pytest.raises(
        UsageError, match="image_size is for folder:PATH, csv:FILE, tar:PATH and hf:NAME; the images of synthetic"
    ):
        load_dataset("synthetic", image_size=64)
    with pytest.raises(UsageError, match=r"is a folder, not a dataset's name; write data='folder:.*', or hf:"):
        load_dataset(str(tmp_path))
    with pytest.raises(UsageError, match="data_dir has no effect with folder:"):
        load_dataset(f"folder:{tmp_path}", data_dir=tmp_path)


@pytest.mark.parametrize("size", [-3, 100_000, 10**20])
def test_image_size_that_cannot_be_meant_is_wrong_usage(tmp_path, size):
    fill(tmp_path, ("a", "b"), 3)
    with pytest.raises(UsageError, match=rf"image_size must lie between 1 and 2048, got {size}"):
        load_dataset(f"folder:{tmp_path}", image_size=size)
    with pytest.raises(UsageError, match="folder: names no path; expected folder:PATH"):
        load_dataset("folder:")


def test_train_folder_of_images_alone_is_unlabelled_beside_a_labelled_test(tmp_path):
    fill(tmp_path / "test", ("a", "b"), 2)
    fill(tmp_path / "train", (".",), 5, seed=3)
    said = []
    train, test = load_folder(tmp_path, report=said.append)
    assert said == [f"{tmp_path / 'train'} holds images and no class folders: they are trained on without labels"]
    assert (train.labelled, test.labelled, len(train)) == (False, True, 5)
    assert train.class_names == test.class_names == ("a", "b")
    assert train.mean == test.mean == pytest.approx(train.images[:].mean(axis=(0, 2, 3)) / 255, abs=1e-5)


def test_images_alone_are_refused_with_the_way_to_use_them(tmp_path):
    fill(tmp_path, (".",), 3)
    with pytest.raises(DataError, match=r"holds images and no class folders; .*data='NAME', unlabelled='folder:"):
        load_folder(tmp_path)


def test_unlabelled_images_take_the_size_and_figures_of_what_they_stand_in_for(tmp_path):
    fill(tmp_path / "labelled", ("a", "b"), 5, size=(6, 4))
    fill(tmp_path / "wild", (".", "deep/er"), 3, size=(20, 9))
    train, test = load_dataset(f"folder:{tmp_path / 'labelled'}", unlabelled=f"folder:{tmp_path / 'wild'}")
    labelled, _ = load_folder(tmp_path / "labelled")
    assert (len(train), train.image_shape, train.labelled) == (6, (3, 4, 6), False)
    assert (train.mean, train.std, train.class_names) == (labelled.mean, labelled.std, test.class_names)
    with pytest.raises(DataError, match="nowhere is not there; expected a folder that holds images"):
        load_dataset("synthetic", unlabelled=f"folder:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images"):
        load_dataset("synthetic", unlabelled=f"folder:{tmp_path / 'empty'}")


def test_images_are_decoded_when_they_are_asked_for_and_held_where_memory_allows(tmp_path, monkeypatch):
    fill(tmp_path, ("a", "b"), 5)
    lazy, _ = load_folder(tmp_path)
    held, _ = load_dataset(f"folder:{tmp_path}")
    assert isinstance(held.images, np.ndarray)
    np.testing.assert_array_equal(lazy.images[:], held.images)
    assert lazy.digest == held.digest
    monkeypatch.setattr("model_compression.data.placement.available_memory_bytes", lambda: 0)
    assert not isinstance(load_dataset(f"folder:{tmp_path}")[0].images, np.ndarray)


def test_digest_stays_when_the_folder_moves_and_changes_with_what_is_in_it(tmp_path):
    written = fill(tmp_path / "one", ("a", "b"), 5)
    digest = load_folder(tmp_path / "one")[0].digest
    (tmp_path / "one").rename(tmp_path / "two")
    assert load_folder(tmp_path / "two")[0].digest == digest
    assert load_folder(tmp_path / "two", image_size=4)[0].digest != digest
    (path, *_) = (tmp_path / "two" / path.relative_to(tmp_path / "one") for path in written)
    path.rename(path.with_name("0.png"))
    assert load_folder(tmp_path / "two")[0].digest != digest
