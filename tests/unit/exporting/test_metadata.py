"""What a file says of itself: exact round trips, and every damage refused."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from model_compression.core.errors import FileFormatError
from model_compression.core.fitting import Fitting
from model_compression.data.image_files import decode_scaled
from model_compression.exporting.classify import answer
from model_compression.exporting.metadata import Metadata, from_json
from model_compression.exporting.runtimes import ExportedFile

METADATA = Metadata(
    model="lenet",
    class_names=("cat", "dög"),
    image_shape=(3, 32, 32),
    preprocessing_inside=True,
    mean=(0.1, 0.2, 0.3),
    std=(0.5, 0.5, 0.25),
    channel_order="rgb",
    data="cifar10-test",
    accuracy=0.8,
    weights_sha256="0" * 64,
)


def test_metadata_round_trip_is_exact():
    assert from_json(METADATA.to_json(), "a.onnx") == METADATA
    padded = dataclasses.replace(METADATA, fit="pad")
    assert from_json(padded.to_json(), "a.onnx") == padded
    said = json.loads(METADATA.to_json()).keys()
    assert said & {"fit", "crop_share", "interpolation"} == set()  # as files have always said it


@pytest.mark.parametrize(
    "fit", [{}, {"fit": "pad"}, {"fit": "squash"}, {"crop_share": 0.6, "interpolation": "bilinear"}], ids=str
)
def test_photographs_reach_the_file_as_it_was_trained(tmp_path, fit):
    """The pixels that the runtime is given are those of a dataset that is fitted alike."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    given = []
    metadata = dataclasses.replace(METADATA, **fit)
    file = ExportedFile(runtime="x", metadata=metadata, run=lambda images: given.append(images) or np.zeros((1, 2)))
    answer(file, tmp_path / "a.png")
    expected = decode_scaled(tmp_path / "a.png", "a", 3, (32, 32), Fitting.from_dict(fit))
    np.testing.assert_array_equal(given[0][0], expected)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "model_compression.export/2"},
        {"format": None},
        {"class_names": 7},
        {"image_shape": [3, 32]},
        {"image_shape": [3, 32, 0]},
        {"image_shape": [3, 32, "32"]},
        {"unknown": 1},
        {"fit": "stretch"},
        {"crop_share": 0},
        {"interpolation": "best"},
    ],
)
def test_damaged_metadata_are_refused(change):
    values = json.loads(METADATA.to_json()) | change
    with pytest.raises(FileFormatError, match=r"a\.onnx"):
        from_json(json.dumps({key: value for key, value in values.items() if value is not None}), "a.onnx")


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "{}"])
def test_what_is_no_metadata_is_refused(text):
    with pytest.raises(FileFormatError, match=r"a\.onnx: what it says of itself is damaged"):
        from_json(text, "a.onnx")


def test_a_file_of_other_origin_is_refused():
    with pytest.raises(FileFormatError, match="does not say what it is; expected a file that `model-compression expo"):
        from_json(None, "a.onnx")
