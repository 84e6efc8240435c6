"""Hugging Face datasets with a column of masks: the samples and targets of a folder with the same files."""

import gc
import warnings

import numpy as np
import pytest
from PIL import Image

from model_compression.core.errors import DataError, UnknownNameError, UsageError
from model_compression.core.fitting import Fitting
from model_compression.data.sources import load_dataset

datasets = pytest.importorskip("datasets")
CLASSES = "0 0 0 ground\n200 0 0 roof\n0 0 200 pond\n9 9 9 ignore\n"


@pytest.fixture(autouse=True)
def _quiet_and_apart(monkeypatch, tmp_path):
    """No progress bars, and nothing in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the library leaves files open
        gc.collect()


def write_folder(root, *, size=(14, 9), void=255, coloured=False, sizes=()):
    """train/ and test/ with images and masks of three classes; ``void`` is the number of pixels that do not count."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 7), ("test", 3)):
        for name in ("images", "masks"):
            (root / part / name).mkdir(parents=True)
        for number in range(count):
            height, width = sizes[number % len(sizes)] if sizes else size
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            mask = rng.integers(0, 3, (height, width), dtype=np.uint8)
            mask[0] = void
            if coloured:
                table = np.zeros((256, 3), dtype=np.uint8)
                table[[1, 2, void]] = [200, 0, 0], [0, 0, 200], [9, 9, 9]
                mask = table[mask]
            Image.fromarray(pixels).save(root / part / "images" / f"{number}.png")
            Image.fromarray(mask).save(root / part / "masks" / f"{number}.png")


def saved(root, path, names=("image", "annotation"), more=None, change=lambda row: row):
    """The files of a folder as a dataset that was saved to disk."""
    splits = {}
    for part in ("train", "test"):
        files = sorted((root / part / "images").iterdir())
        rows = [
            change({names[0]: {"bytes": file.read_bytes(), "path": None},
                    names[1]: {"bytes": (root / part / "masks" / file.name).read_bytes(), "path": None}})
            for file in files
        ]  # fmt: skip
        kinds = {name: datasets.Image() for name in names} | (more or {})
        for number, row in enumerate(rows):
            row.update(dict.fromkeys(more or {}, number % 2))
        splits[part] = datasets.Dataset.from_list(rows, features=datasets.Features(kinds))
    datasets.DatasetDict(splits).save_to_disk(str(path))
    return f"hf:{path}"


def content(sets):
    return [(one.task, one.class_names, one.mean, one.std, one.images[:].tolist(), one.labels.tolist()) for one in sets]


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ({}, {}),
        ({"void": 7}, {"ignore_index": 7}),
        ({"coloured": True}, {}),
        ({"sizes": [(14, 9), (20, 31)]}, {"image_size": 8, "fit": Fitting(fit="crop")}),
        ({"sizes": [(14, 9), (20, 31)]}, {"image_size": 16}),
    ],
    ids=["plain", "another void", "coloured", "cropped", "whole"],
)
def test_split_with_masks_is_the_folder_of_the_same_files(tmp_path, written, options):
    write_folder(tmp_path / "scenes", **written)
    name = saved(tmp_path / "scenes", tmp_path / "set")
    for root in (tmp_path / "scenes", tmp_path / "set"):
        (root / "classes.txt").write_text(CLASSES if "coloured" in written else "ground\nroof\npond\n")
    expected = content(load_dataset(f"folder:{tmp_path / 'scenes'}", **options))
    assert expected[0][:2] == ("segmentation", ("ground", "roof", "pond"))
    assert content(load_dataset(name, **options)) == expected
    assert content(load_dataset(name, task="segmentation", **options)) == expected


def test_masks_are_found_by_the_task_or_their_column(tmp_path):
    write_folder(tmp_path / "scenes")
    expected = content(load_dataset(f"folder:{tmp_path / 'scenes'}"))
    odd = saved(tmp_path / "scenes", tmp_path / "odd", names=("photo", "areas"))
    kind = {"weather": datasets.ClassLabel(names=["sun", "rain"])}
    both = saved(tmp_path / "scenes", tmp_path / "both", names=("photo", "mask"), more=kind)
    assert content(load_dataset(f"{odd},mask=areas")) == expected
    assert content(load_dataset(f"{odd},image=photo", task="segmentation")) == expected
    assert content(load_dataset(both, task="segmentation")) == expected
    weather, _ = load_dataset(f"{both},image=photo")
    assert (weather.task, weather.class_names) == ("image-classification", ("sun", "rain"))
    for name, options, error, said in (
        (odd, {"task": "segmentation"}, UsageError, "has the image columns photo, areas; expected one of images and"),
        (f"{odd},mask=area", {}, UnknownNameError, "unknown mask column of .* 'area'; did you mean 'areas'"),
        (f"{both},mask=mask,label=weather", {}, UsageError, "label=weather has no effect on images with masks"),
        (both, {}, UsageError, "has the image columns photo, mask; expected one: name it, as ,image=photo"),
    ):
        with pytest.raises(error, match=said):
            load_dataset(name, **options)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (None, r"mask 0 of .*set \(train\) is missing; expected an image of class numbers"),
        (
            np.zeros((9, 14), np.uint8),
            r"mask 0 of .* has 14 × 9 pixels, and its image image 0 9 × 14; expected the same",
        ),
        (np.full((14, 9), 200, np.uint8), "mask 0 of .*: the pixel in row 0, column 0 is 200; expected a class number"),
        (np.zeros((14, 9, 3), np.uint8), r"mask 0 of .* is coloured \(RGB\), and nothing says which class a colour is"),
    ],
    ids=["missing", "size", "number", "coloured"],
)
def test_mask_that_cannot_be_is_named_by_its_number(tmp_path, mask, said):
    write_folder(tmp_path / "scenes")
    Image.fromarray(np.zeros((2, 2), np.uint8) if mask is None else mask).save(tmp_path / "wrong.png")
    first = (tmp_path / "scenes/train/images/0.png").read_bytes()

    def change(row):
        if row["image"]["bytes"] == first:
            row["annotation"] = None if mask is None else {"bytes": (tmp_path / "wrong.png").read_bytes(), "path": None}
        return row

    name = saved(tmp_path / "scenes", tmp_path / "set", change=change)
    (tmp_path / "set/classes.txt").write_text("ground\nroof\npond\n")
    with pytest.raises(DataError, match=said):
        load_dataset(name)
