"""Hugging Face datasets that are made on the spot: splits and columns are found, images arrive to the pixel."""

import gc
import io
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from model_compression.core.errors import DataError, MissingExtraError, UnknownNameError, UsageError
from model_compression.data.on_demand import OnDemandImages
from model_compression.data.sources import load_dataset
from model_compression.data.torch_datasets import from_torch_datasets

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")

NAMES = ["cat", "ape", "bee"]


@pytest.fixture(autouse=True)
def _quiet_and_apart(monkeypatch, tmp_path):
    """No progress bars, and nothing in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the library leaves files open
        gc.collect()


def pixels(count, seed, size=(6, 8)):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def split(images, **columns):
    """A split with the column "picture" and those given, each a (feature, values)."""
    features = {"picture": datasets.Image()} | {name: kind for name, (kind, _) in columns.items()}
    values = {"picture": [Image.fromarray(image) for image in images]}
    values |= {name: list(column) for name, (_, column) in columns.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def labelled(count, seed=0, names=NAMES, **options):
    labels = np.arange(count) % len(names)
    return split(pixels(count, seed, **options), label=(datasets.ClassLabel(names=names), labels.tolist()))


def saved(path, **splits):
    datasets.DatasetDict(splits).save_to_disk(str(path))
    return f"hf:{path}"


def test_saved_data_set_is_read_to_the_pixel(tmp_path):
    train, test = load_dataset(saved(tmp_path / "d", train=labelled(9), test=labelled(4, 1)))
    np.testing.assert_array_equal(train.images, pixels(9, 0).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(test.images, pixels(4, 1).transpose(0, 3, 1, 2))
    assert train.labels.tolist() == [0, 1, 2] * 3
    assert train.class_names == test.class_names == tuple(NAMES)
    assert train.mean == test.mean == pytest.approx(pixels(9, 0).mean(axis=(0, 1, 2)) / 255, abs=1e-5)


def test_files_that_the_library_reads_and_a_set_of_the_hub_go_the_same_way(tmp_path, monkeypatch):
    (tmp_path / "files").mkdir()
    for name, part in (("train", labelled(6)), ("validation", labelled(3, 1))):
        part.to_parquet(str(tmp_path / "files" / f"{name}.parquet"))
    train, test = load_dataset(f"hf:{tmp_path / 'files'}")
    np.testing.assert_array_equal(train.images, pixels(6, 0).transpose(0, 3, 1, 2))
    assert len(test) == 3
    asked = []
    answer = datasets.DatasetDict(train=labelled(6), test=labelled(3))
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments: asked.append(arguments) or answer)
    assert len(load_dataset("hf:someone/birds,config=small")[0]) == 6
    assert asked == [("someone/birds", "small")]


def test_one_split_alone_has_a_fifth_held_out(tmp_path):
    labelled(15).save_to_disk(str(tmp_path / "d"))
    said = []
    train, test = load_dataset(f"hf:{tmp_path / 'd'}", report=said.append)
    assert (train.class_counts().tolist(), test.class_counts().tolist()) == ([4] * 3, [1] * 3)
    assert said == [f"{tmp_path / 'd'} has no split for the test: 3 of 15 images are held out for the test"]


def test_splits_and_columns_are_named_where_there_are_several(tmp_path):
    coarse = (datasets.ClassLabel(names=["x", "y"]), [0, 1] * 3)
    fine = (datasets.ClassLabel(names=NAMES), [0, 1, 2] * 2)
    small = (datasets.Image(), [Image.fromarray(image) for image in pixels(6, 5, (2, 2))])
    whole = split(pixels(6, 0), coarse=coarse, fine=fine, small=small)
    name = saved(tmp_path / "d", train=whole, extra=whole)
    with pytest.raises(
        UsageError, match=r"has the image columns picture, small; expected one: name it, as ,image=pict"
    ):
        load_dataset(name)
    with pytest.raises(
        UsageError, match=r"has the label columns coarse, fine; expected one: name it, as ,label=coarse"
    ):
        load_dataset(f"{name},image=small")
    train, test = load_dataset(f"{name},image=small,label=fine,train=extra,test=train")
    assert (train.image_shape, train.class_names, len(test)) == ((3, 2, 2), tuple(NAMES), 6)
    for options, message in (
        ("label=fien,image=small", "unknown label column of .*: 'fien'; did you mean 'fine'"),
        ("image=fine", "unknown image column of .*: 'fine'"),
        ("test=tset,image=small,label=fine", "unknown split of .*: 'tset'"),
        ("lable=fine", "unknown option of hf: 'lable'; did you mean 'label'"),
    ):
        with pytest.raises(UnknownNameError, match=message):
            load_dataset(f"{name},{options}")
    with pytest.raises(UsageError, match=r"hf: options are KEY=VALUE with commas between them, .* got 'fine'"):
        load_dataset(f"{name},fine")
    with pytest.raises(UsageError, match=r"hf: has no streaming: .*; leave it out, as the files of the set are mapped"):
        load_dataset(f"{name},streaming=true")
    with pytest.raises(UsageError, match="config=x has no effect"):
        load_dataset(f"{name},config=x")


def test_numbers_serve_as_labels_where_there_are_no_class_names(tmp_path):
    numbers = split(pixels(6, 0), digit=(datasets.Value("int32"), [0, 4, 2, 1, 3, 0]))
    train, _ = load_dataset(saved(tmp_path / "d", train=numbers, test=numbers))
    assert train.labels.tolist() == [0, 4, 2, 1, 3, 0]
    assert train.class_names == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize("other", ["int64", "string"])
def test_texts_serve_as_labels_in_sorted_order(tmp_path, other):
    texts = ["pear", "apple", "fig", "pear"]
    columns = {"label": (datasets.Value("string"), texts), "id": (datasets.Value(other), [1, 2, 3, 4])}
    if other == "string":
        columns["id"] = (datasets.Value("string"), ["w", "x", "y", "z"])
    test = {name: (kind, values[1:3]) for name, (kind, values) in columns.items()}
    train, test = load_dataset(
        saved(tmp_path / "d", train=split(pixels(4, 0), **columns), test=split(pixels(2, 1), **test))
    )
    assert train.class_names == test.class_names == ("apple", "fig", "pear")
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 0, 1, 2], [0, 1])


# datasets leaves the tables open, and Python says so when it collects them
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_images_with_a_table_of_labels_beside_them_are_read(tmp_path):
    folder = tmp_path / "files"  # not that of the library's cache
    for part, rows in (("train", ["b", "a", "b"]), ("test", ["a", "b"])):
        (folder / part).mkdir(parents=True)
        for number, image in enumerate(pixels(len(rows), 0)):
            Image.fromarray(image).save(folder / part / f"{number}.png")
        lines = ["file_name,label", *(f"{number}.png,{label}" for number, label in enumerate(rows))]
        (folder / part / "metadata.csv").write_text("\n".join(lines))
    train, test = load_dataset(f"hf:{folder}")
    assert (train.class_names, train.labels.tolist(), test.labels.tolist()) == (("a", "b"), [1, 0, 1], [0, 1])
    path = folder / "test" / "1.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"image 1 of .* \(.*test/1\.png\) cannot be read as an image"):
        load_dataset(f"hf:{folder}")
    gc.collect()


def test_splits_whose_classes_differ_are_refused(tmp_path):
    name = saved(tmp_path / "d", train=labelled(6), extra=labelled(6, names=NAMES[::-1]))
    with pytest.raises(DataError, match=r"have other classes, or another order of them: cat, ape, bee; bee, ape, cat"):
        load_dataset(f"{name},test=extra")
    with pytest.raises(DataError, match=r"column 'digit': labels must be 0…K−1; got 1…3: subtract 1"):
        load_dataset(saved(tmp_path / "e", train=split(pixels(3, 0), digit=(datasets.Value("int8"), [1, 2, 3]))))


def test_images_are_scaled_and_made_rgb_and_sizes_that_differ_are_named(tmp_path):
    encoded = []
    for size in ((8, 6), (12, 5)):
        buffer = io.BytesIO()
        Image.fromarray(pixels(1, 0, size[::-1])[0]).convert("L").save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    features = datasets.Features(picture=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    part = datasets.Dataset.from_dict({"picture": encoded, "label": [0, 1]}, features=features)
    name = saved(tmp_path / "d", train=part, test=part)
    with pytest.raises(DataError, match=r"differ in size: the first is 8 × 6 pixels, number 1 12 × 5; give a side"):
        load_dataset(name)
    train, _ = load_dataset(name, image_size=4)
    assert train.image_shape == (3, 4, 4)
    assert (train.images[:, 0] == train.images[:, 2]).all()


def test_stream_is_refused_with_what_serves_instead():
    stream = labelled(4).to_iterable_dataset()
    with pytest.raises(UsageError, match=r"is a IterableDataset: its items come as a stream, .* give hf:NAME"):
        from_torch_datasets(stream, stream, print)


def test_images_are_mapped_and_not_read_as_a_whole(tmp_path):
    name = saved(tmp_path / "d", train=labelled(30, size=(400, 500)), test=labelled(3, size=(400, 500)))
    size = sum(path.stat().st_size for path in (tmp_path / "d" / "train").iterdir())
    before = pyarrow.total_allocated_bytes()
    train, _ = load_dataset(name, image_size=8, resident="off", workers=0)
    assert train.images[:].shape == (30, 3, 8, 8)
    assert pyarrow.total_allocated_bytes() - before < size / 10


def test_digest_sees_another_image_and_streaming_gives_the_same_pixels(tmp_path):
    held, _ = load_dataset(saved(tmp_path / "a", train=labelled(9), test=labelled(4)))
    streamed, _ = load_dataset(f"hf:{tmp_path / 'a'}", resident="off", workers=0)
    other, _ = load_dataset(saved(tmp_path / "b", train=labelled(9, 3), test=labelled(4)))
    assert isinstance(streamed.images, OnDemandImages)
    np.testing.assert_array_equal(streamed.images[2:5], held.images[2:5])
    assert held.digest == streamed.digest != other.digest


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            lambda: datasets.Dataset.from_dict({"name": ["a"], "label": [0]}),
            "no image column; .*columns are name, label",
        ),
        (lambda: split(pixels(2, 0)), "has no label column; expected one: its columns are picture"),
        (lambda: labelled(0), "holds no samples"),
        (
            lambda: split(pixels(2, 0), y=(datasets.Value("int64"), [0, None])),
            "1 images have no label in 'y', the first is image 1",
        ),
        (
            lambda: split(pixels(2, 0), y=(datasets.ClassLabel(names=["a"]), [-1, -1])),
            "some labels are −1, as the hub marks images",
        ),
    ],
)
def test_data_set_that_cannot_serve_is_named(monkeypatch, part, message):
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments: datasets.DatasetDict(train=part(), test=part()))
    with pytest.raises((DataError, UsageError), match=message):
        load_dataset("hf:someone/birds")


def test_what_is_not_there_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"hf:.*nothing cannot be loaded: .*; expected a dataset of the hub, a folder"):
        load_dataset(f"hf:{tmp_path / 'nothing'}")
    with pytest.raises(UsageError, match="hf: names no dataset; expected hf:NAME or hf:PATH"):
        load_dataset("hf:")
    with pytest.raises(UsageError, match="data_dir has no effect with hf:x"):
        load_dataset("hf:x", data_dir=tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'model-compression\[hf\]'"):
        load_dataset("hf:x")


CLASSES = datasets.Sequence(datasets.ClassLabel(names=NAMES))
WORDS, FLOATS = (datasets.Sequence(datasets.Value(kind)) for kind in ("string", "float32"))
INTEGER, FLOAT = (datasets.Value(kind) for kind in ("int64", "float32"))


@pytest.mark.parametrize(
    ("columns", "options", "task", "names", "targets"),
    [
        ({"tags": (CLASSES, [[0, 2], [], [1]])}, ",label=tags", "", NAMES, [[1, 0, 1], [0, 0, 0], [0, 1, 0]]),
        ({"tags": (WORDS, [["a", "b"], [], ["b"]])}, "", "multi-label", ["a", "b"], [[1, 1], [0, 0], [0, 1]]),
        (
            {"x": (INTEGER, [1, 0, 1]), "y": (INTEGER, [0, 0, 1])},
            ",label=x+y", "", ["x", "y"], [[1, 0], [0, 0], [1, 1]],
        ),
        ({"kg": (FLOAT, [1.5, 2.0, -3.0])}, ",label=kg", "", ["kg"], [[1.5], [2], [-3]]),
        ({"n": (INTEGER, [1, 7, 3])}, "", "regression", ["n"], [[1], [7], [3]]),
        (
            {"at": (FLOATS, [[1.5, 2], [0, 1], [3, 4]])},
            ",label=at", "", ["at 1", "at 2"], [[1.5, 2], [0, 1], [3, 4]],
        ),
    ],
)  # fmt: skip
def test_lists_and_numbers_are_targets_of_their_task(tmp_path, columns, options, task, names, targets):
    whole = split(pixels(3, 0), **columns)
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(tmp_path / "d")
    train, test = load_dataset(f"hf:{tmp_path / 'd'}{options}", task=task)
    assert np.array_equal(train.labels, np.array(targets, dtype=train.labels.dtype))
    assert list(train.class_names or train.target_names) == names
    assert train.task == ("regression" if train.labels.dtype.kind == "f" else "multi-label")
    if train.task == "regression":
        assert test.target_mean == pytest.approx(np.mean(targets, axis=0), rel=1e-5)


def test_number_that_is_none_is_named_with_its_row(tmp_path):
    whole = split(pixels(3, 0), kg=(datasets.Value("float32"), [1.5, float("nan"), 2.0]))
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match=r"\(train\), row 1: 'kg' is 'nan'; expected a finite number"):
        load_dataset(f"hf:{tmp_path / 'd'},label=kg")
