"""Images that a table names: which rows, what labels, at which scale, and what is missing."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from model_compression.core.errors import DataError, UsageError
from model_compression.core.table_config import TableConfig
from model_compression.data.sources import load_dataset
from model_compression.data.target_scale import scaled

PIXELS = np.random.default_rng(5).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "p").mkdir()
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / "p" / f"{number}.png")
    return tmp_path


def table(folder, head, cells, name="t.csv"):
    path = folder / name
    path.write_text("\n".join([head, *(f"p/{number}.png,{cell}" for number, cell in enumerate(cells))]) + "\n")
    return f"csv:{path}"


def test_images_and_labels_are_those_of_the_rows(photos):
    """Pixels as they were written, in the order of the rows; a second load has the same digests."""
    name = table(photos, "path,label,split", [f"{'ab'[n % 2]},{'test' if n > 7 else 'train'}" for n in range(10)])
    train, test = load_dataset(name)
    assert np.array_equal(train.samples.transpose(0, 2, 3, 1), PIXELS[:8])
    assert np.array_equal(test.samples.transpose(0, 2, 3, 1), PIXELS[8:])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1] * 4, [0, 1])
    assert (train.class_names, train.task) == (("a", "b"), "image-classification")
    assert [one.digest for one in load_dataset(name)] == [train.digest, test.digest]


def test_several_classes_are_a_row_of_bits(photos):
    name = table(photos, "path,x,y", [f"{n % 2},{int(n > 4)}" for n in range(10)])
    train, test = load_dataset(name)
    assert (train.task, train.class_names, len(train), len(test)) == ("multi-label", ("x", "y"), 8, 2)
    known = {pixels.tobytes(): [n % 2, int(n > 4)] for n, pixels in enumerate(PIXELS.transpose(0, 3, 1, 2))}
    for part in (train, test):
        assert [known[image.tobytes()] for image in part.samples] == part.labels.tolist()


def test_numbers_have_the_scale_of_the_training_rows(photos):
    cells = [f"{n * n},{'test' if n % 5 == 0 else 'train'}" for n in range(10)]
    train, test = load_dataset(table(photos, "path,area [mm],split", cells), task="regression")
    assert (train.target_names, train.labels.ravel().tolist()) == (("area [mm]",), [1, 4, 9, 16, 36, 49, 64, 81])
    mean = sum([1, 4, 9, 16, 36, 49, 64, 81]) / 8
    assert train.target_mean == test.target_mean == pytest.approx((mean,))
    assert train.target_std == test.target_std == pytest.approx((np.std(train.labels),), rel=1e-5)
    given = TableConfig(target_mean="1", target_std="2")
    assert load_dataset(table(photos, "path,area,split", cells), task="regression", table=given)[1].target_std == (2.0,)


def test_paths_start_from_the_folder_that_is_named(photos, tmp_path):
    (tmp_path / "tables").mkdir()
    name = table(tmp_path / "tables", "path,label", "abababab")
    with pytest.raises(DataError, match=r"line 2: .*p/0.png, and 7 files of other rows, cannot be opened"):
        load_dataset(name)
    train, test = load_dataset(name, table=TableConfig(image_root=str(photos)))
    assert len(train) + len(test) == 8


def test_image_of_another_size_and_no_image_are_named(photos):
    Image.fromarray(PIXELS[0][:3]).save(photos / "p" / "3.png")
    name = table(photos, "path,label", "abababab")
    with pytest.raises(DataError, match="images differ in size"):
        load_dataset(name)
    assert load_dataset(name, image_size=4)[0].image_shape == (3, 4, 4)
    path = photos / "no.csv"
    path.write_text("path,label\nab,c\n")
    with pytest.raises(DataError, match=r"line 2: 'ab' in 'path' is no image that can be read .* input_column"):
        load_dataset(f"csv:{path}")


def test_options_of_tables_need_one(photos):
    with pytest.raises(
        UsageError, match="label_columns is for csv:FILE or jsonl:FILE or conll:FILE, got the data synthetic"
    ):
        load_dataset("synthetic", table=TableConfig(label_columns="a"))
    with pytest.raises(UsageError, match="task 'regression' does not fit synthetic"):
        load_dataset("synthetic", task="regression")
    with pytest.raises(UsageError, match="task must be image-classification, multi-label, regression for images"):
        load_dataset(table(photos, "path,label", "ab" * 5), task="multilabel")
    with pytest.raises(UsageError, match="csv: names no path; expected csv:FILE"):
        load_dataset("csv:")
    with pytest.raises(UsageError, match="data_dir has no effect"):
        load_dataset("csv:x.csv", data_dir=photos)
    with pytest.raises(UsageError, match="target_mean is for regression"):
        load_dataset(table(photos, "path,label", "ab" * 5), table=TableConfig(target_mean="0", target_std="1"))


def test_scale_that_does_not_fit_is_refused(photos):
    pair = load_dataset(table(photos, "path,x,y", [f"{n},{n * 0.5}" for n in range(10)]))
    for mean, std, message in [
        ("1", "2,3", "target_mean must be 2 finite numbers"),
        ("1,nan", "2,3", "target_mean must be 2 finite numbers"),
        ("1,2", "0,3", "target_std must be above 0"),
    ]:
        with pytest.raises(UsageError, match=message):
            scaled(*pair, TableConfig(target_mean=mean, target_std=std))
    constant = dataclasses.replace(pair[0], labels=np.zeros((8, 2), dtype=np.float32))
    with pytest.raises(DataError, match="'x' is the same in all training rows"):
        scaled(constant, pair[1])


def test_scale_keeps_a_mean_far_from_zero_and_numbers_too_coarse_for_float32_are_refused(photos):
    values = [101_325.25 + 0.5 * n for n in range(10)]
    train, _ = load_dataset(table(photos, "path,pressure", [str(value) for value in values]))
    assert abs(train.target_mean[0] - train.labels.mean(dtype=np.float64)) < 0.01 * train.target_std[0]
    stamps = [f"{1_700_000_000.5 + 100 * n}" for n in range(10)]
    with pytest.raises(DataError, match=r"'time' has the mean 1\.7e\+09 .* in steps of 128"):
        load_dataset(table(photos, "path,time", stamps))
