"""A runtime to export to is one class: what it writes is proven before it counts."""

import dataclasses

import numpy as np
import pytest

from model_compression.core.errors import NotVerifiedError, UsageError
from model_compression.exporting.runtimes import RUNTIMES, names_by_suffix, open_file
from model_compression.exporting.runtimes.onnx import OnnxRuntime
from model_compression.exporting.write import export
from model_compression.models.loading import read_model


class Shifted(OnnxRuntime):
    """Answers ``shift`` more for the first class than what it wrote."""

    suffix, shift = ".shifted", 0.0

    def open(self, path, threads):
        file = super().open(path, threads)
        return dataclasses.replace(file, run=lambda images: file.run(images) + np.float32([self.shift, 0, 0]))


@pytest.fixture(autouse=True)
def _shifted(monkeypatch):
    monkeypatch.setitem(RUNTIMES._entries, "shifted", Shifted)


def test_runtime_that_is_registered_exports_opens_and_is_listed(tiny, tmp_path):
    network, (_, test) = read_model(tiny.teacher), tiny.data()
    found = export(network, tmp_path / "a.shifted", test, to="shifted")
    answers = open_file(tmp_path / "a.shifted").run(test.images)
    assert found.value == pytest.approx((answers.argmax(axis=1) == test.labels).mean())
    assert names_by_suffix() == {".onnx": "onnx", ".pt2": "torch-export", ".shifted": "shifted"}
    with pytest.raises(UsageError, match=r"a file for shifted must end in \.shifted, got a\.onnx"):
        export(network, tmp_path / "a.onnx", test, to="shifted")


def test_runtime_that_answers_otherwise_leaves_no_file(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Shifted, "shift", 0.1)
    with pytest.raises(NotVerifiedError, match=r"logits differ by up to 0\.1"):
        export(read_model(tiny.teacher), tmp_path / "a.shifted", tiny.data()[1], to="shifted")
    assert not list(tmp_path.iterdir())
