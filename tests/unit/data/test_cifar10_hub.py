"""The hub's parquet files, in the hub's order of batches; these tests need the extra 'hub'."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from model_compression.core.errors import FileFormatError, MissingExtraError
from model_compression.data import cifar10_content as content
from model_compression.data.cifar10_hub import fetch_hub, read_parquet

HUB_ORDER = ("data_batch_4", "data_batch_3", "data_batch_2", "data_batch_5", "data_batch_1")


@pytest.mark.parametrize("absent", ["pyarrow", "huggingface_hub"])
def test_fetch_hub_names_the_extra_that_is_missing(tmp_path, monkeypatch, absent):
    for name in ("pyarrow", "pyarrow.parquet", "huggingface_hub"):
        if name.startswith(absent):
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'model-compression\[hub\]'"):
        fetch_hub(tmp_path)


def png(image, mode="RGB"):
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path):
    """Writes a parquet file of the hub's form."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write_file(name, images, labels):
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = pa.array([{"bytes": image, "path": None} for image in images], type=kind)
        parquet.write_table(pa.table({"img": rows, "label": pa.array([int(x) for x in labels])}), tmp_path / name)
        return tmp_path / name

    return write_file


def in_hub_order(tiny, names=HUB_ORDER):
    batches = [tiny.batch(name) for name in names]
    return [png(image) for images, _ in batches for image in images], np.concatenate([labels for _, labels in batches])


def test_read_parquet_puts_the_batches_into_official_order(tiny, write):
    train = write("train", *in_hub_order(tiny))
    test = write("test", *in_hub_order(tiny, ["test_batch"]))
    content.verify(read_parquet(train, test), "hub")


def test_read_parquet_refuses_other_images(tiny, write):
    images, labels = in_hub_order(tiny)
    images[3] = png(tiny.images[0])
    with pytest.raises(FileFormatError, match="no batch of CIFAR-10 has SHA-256"):
        read_parquet(write("train", images, labels), write("test", *in_hub_order(tiny, ["test_batch"])))


@pytest.mark.parametrize(
    ("change", "named"),
    [(lambda image: image[:10], "no PNG of 32"), (lambda image: image[:90], "hub's file"), (lambda image: None, "hub")],
)
def test_read_parquet_names_the_row_or_file_of_a_corrupt_image(tiny, write, change, named):
    images, labels = in_hub_order(tiny)
    images[3] = change(images[3])
    with pytest.raises(FileFormatError, match=named):
        read_parquet(write("train", images, labels), write("test", *in_hub_order(tiny, ["test_batch"])))


def test_read_parquet_refuses_a_wrong_number_of_rows(tiny, write):
    test = write("test", *in_hub_order(tiny, ["test_batch"]))
    with pytest.raises(FileFormatError, match="has 4 rows; expected 20"):
        read_parquet(test, test)


def test_read_parquet_refuses_what_is_no_parquet(tiny, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "train"
    path.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(FileFormatError, match=f"{path} is not the hub's file"):
        read_parquet(path, path)
