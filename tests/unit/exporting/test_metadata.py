"""What a file says of itself: exact round trips, and every damage refused."""

import json

import pytest

from model_compression.core.errors import FileFormatError
from model_compression.exporting.metadata import Metadata, from_json

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
