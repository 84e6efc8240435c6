"""Images without labels: the same pixels from every source, in the size and figures of what they stand in for."""

import csv
import io
import re
import tarfile

import numpy as np
import pytest
from PIL import Image

from model_compression.core.errors import DataError, UnknownNameError, UsageError
from model_compression.core.table_config import TableConfig
from model_compression.data.dataset import Dataset
from model_compression.data.sources import DATASETS, load_dataset, samples_of

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = {"labelled": True, "plain": False}


IMAGES = PIXELS.transpose(0, 3, 1, 2)


def dataset(images=IMAGES, **options):
    figures = {"mean": (0.1,) * images.shape[1], "std": (0.2,) * images.shape[1], "class_names": ("a", "b", "c")}
    return Dataset(**{"name": "made", "samples": images, "labels": np.arange(len(images)) % 3} | figures | options)


def folder(path, labelled):
    for number, image in enumerate(PIXELS):
        place = path / f"class-{number % 2}" if labelled else path
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return f"folder:{path}"


def table(path, labelled):
    folder(path, labelled=False)
    with open(path / "all.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"][: 1 + labelled])
        rows.writerows([f"{number}.png", "abc"[number % 3]][: 1 + labelled] for number in range(len(PIXELS)))
    return f"csv:{path / 'all.csv'}"


def shards(path, labelled):
    path.mkdir()
    for shard in range(2):
        with tarfile.open(path / f"{('a-val', 'b-train')[shard]}.tar", "w") as archive:
            for number in range(3 * shard, 3 * shard + 3):
                buffer = io.BytesIO()
                Image.fromarray(PIXELS[number]).save(buffer, "PNG")
                members = {"png": buffer.getvalue()} | ({"cls": b"1"} if labelled else {})
                for ending, content in members.items():
                    info = tarfile.TarInfo(f"{number}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return f"tar:{path}"


def hub(path, labelled):
    datasets = pytest.importorskip("datasets")
    columns = {"image": [Image.fromarray(image) for image in PIXELS]} | ({"label": [-1] * 6} if labelled else {})
    kinds = {"image": datasets.Image()} | ({"label": datasets.Value("int64")} if labelled else {})
    split = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    datasets.DatasetDict({"train": split}).save_to_disk(str(path))
    return f"hf:{path}"


def registered(path, labelled):
    DATASETS._entries["unlabelled-test"] = lambda *_: (dataset(class_names=("x", "y", "z")), None)
    return "unlabelled-test"


@pytest.fixture(autouse=True)
def _own_names():
    yield
    DATASETS._entries.pop("unlabelled-test", None)


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("source", [folder, table, shards, hub, registered])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the library of the hub
def test_every_source_gives_its_images_and_ignores_labels_which_is_said_once(tmp_path, source, kind):
    text, said, like = source(tmp_path / "wild", LABELS[kind]), [], dataset()
    found = samples_of(text, like, said.append)
    order = np.lexsort((np.arange(6), np.arange(6) % 2)) if (source, kind) == (folder, "labelled") else np.arange(6)
    np.testing.assert_array_equal(found.images[:], IMAGES[order])
    assert (found.labelled, found.labels.tolist(), found.class_names) == (False, [0] * 6, like.class_names)
    assert (found.mean, found.std) == (like.mean, like.std)
    ignored = source is registered or (kind == "labelled" and source is not folder)
    assert said == [f"the labels of {text} are ignored: its images are trained on without"] * ignored
    small = dataset(np.zeros((2, 3, 4, 5), dtype=np.uint8))
    if source is registered:
        with pytest.raises(DataError, match=r"made has images \(3, 8, 8\), made \(3, 4, 5\); expected one shape"):
            samples_of(text, small)
    else:
        assert samples_of(text, small).images[:].shape == (6, 3, 4, 5)


def test_what_gives_no_images_is_refused_with_what_would(tmp_path):
    for text in ("tar:", "hf: ", "parquet:x", ":"):
        message = f"unlabelled must be folder:PATH, csv:FILE, tar:PATH, hf:NAME or a dataset's name, got {text!r}"
        with pytest.raises(UsageError, match=re.escape(message)):
            samples_of(text, dataset())
    with pytest.raises(UnknownNameError, match="unknown source of unlabelled: 'photos'"):
        samples_of("photos", dataset())
    grey = dataset(np.zeros((2, 1, 4, 4), dtype=np.uint8))
    with pytest.raises(DataError, match="are RGB, those of made have 1 channels, not as many"):
        samples_of("tar:x", grey)
    with pytest.raises(UsageError, match="hf: label=x has no effect on samples without labels"):
        samples_of(f"{hub(tmp_path / 'hub', labelled=True)},label=x", dataset())


def test_images_stand_in_for_those_of_any_task(tmp_path):
    source = folder(tmp_path / "wild", labelled=False)
    numbers = dataset(labels=np.ones((6, 2), dtype=np.float32), class_names=(), target_names=("a", "b"),
                      target_mean=(1.0, 2.0), target_std=(3.0, 4.0), task="regression")  # fmt: skip
    masks = dataset(labels=np.ones((6, 8, 8), dtype=np.uint8), task="segmentation")
    for like in (numbers, masks):
        found = samples_of(source, like)
        assert (found.task, found.labelled, found.labels.shape) == (like.task, False, like.labels.shape)
        assert (found.target_names, found.target_mean) == (like.target_names, like.target_mean)
        np.testing.assert_array_equal(found.images[:], IMAGES)


def test_options_of_a_table_hold_for_that_of_the_images_without_labels(tmp_path):
    text = table(tmp_path / "wild", labelled=True)
    (tmp_path / "wild" / "all.csv").write_text("where;what\n0.png;a\n1.png;b\n")
    with pytest.raises(UsageError, match="no column could hold the samples; name the one of paths"):
        load_dataset("synthetic", unlabelled=text)
    config = TableConfig(input_column="where", delimiter=";")
    assert len(load_dataset("synthetic", unlabelled=text, table=config)[0]) == 2
    with pytest.raises(UsageError, match="input_column is for csv:FILE"):
        load_dataset("synthetic", table=config)
