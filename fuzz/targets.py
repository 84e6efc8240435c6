"""What is fuzzed: each target takes the bytes of a file, and may fail by an error of this package only.

A target comes with seeds, small files that are good, from which a fuzzer sets out.
"""

import io
import os
import pickle
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save

from model_compression.classic.caffe_layers import CaffeLayer
from model_compression.classic.caffemodel import message_classes, read_blob, read_caffemodel
from model_compression.classic.npy import read_npy, read_plain_npy, write_npy
from model_compression.core.checksummed import seal, unseal
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import from_json, to_json
from model_compression.core.errors import ModelCompressionError
from model_compression.data.cifar_content import CIFAR10
from model_compression.data.cifar_files import records_from_pickle
from model_compression.data.tar_members import read_members
from model_compression.data.tar_shards import list_shards
from model_compression.distillation.teachers.row_formats import row_format
from model_compression.distillation.teachers.shards import StoredRows, shard_path
from model_compression.models import create_model
from model_compression.models.loading import read_model
from model_compression.models.weights import read_header, save_weights

_ANSWERS = 3  # rows of a file of stored answers


@dataclass(frozen=True, kw_only=True)
class Target:
    """``read`` takes a file; ``seeds`` are contents of good ones."""

    read: Callable[[Path], object]
    seeds: Callable[[], Iterable[bytes]]

    def __call__(self, payload: bytes) -> None:
        """Reads a file of these bytes; raises what a user must never see."""
        with tempfile.NamedTemporaryFile(dir=_memory(), suffix=".safetensors") as file:
            file.write(payload)
            file.flush()
            try:
                self.read(Path(file.name))
            except ModelCompressionError:
                return


def _memory() -> str | None:
    """A folder in memory where there is one: files come by the thousand."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.npy"
        write(path)
        return path.read_bytes()


def _layers() -> dict[str, CaffeLayer]:
    weights = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    return {"conv1": CaffeLayer(weights=weights, bias=np.ones(2, dtype=np.float32))}


def _caffe(kind: str) -> bytes:
    classes = message_classes()
    net = classes["NetParameter"]()
    blob = classes["BlobProto"](data=[float(number) for number in range(24)])
    blob.shape.dim.extend([2, 3, 2, 2])
    layer = classes["LayerParameter"](name=b"conv1", type=b"Convolution")
    layer.blobs.append(blob.SerializeToString())
    net.layer.append(layer.SerializeToString())
    return (blob if kind == "blob" else net).SerializeToString()


def _tar(mode: Literal["w", "w:gz"], members: dict[str, int]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, size in members.items():
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(bytes(size)))
    return buffer.getvalue()


def _batch() -> bytes:
    content = {b"data": np.zeros((2, 3072), dtype=np.uint8), b"labels": [3, 9]}
    return pickle.dumps(content, protocol=2)


def _weights() -> bytes:
    model = create_model("whitening-cnn", seed=0, widths=[24, 24, 24])
    return _written(lambda path: save_weights(path, model, dtype=torch.float16))


def _read_weights(path: Path) -> None:
    read_header(path)
    read_model(path)


def _read_config(path: Path) -> None:
    from_json(TrainConfig, path.read_bytes().decode("utf-8", "replace"), "config")


def _rows(stem: Path) -> StoredRows:
    return StoredRows(stem, "logits", _ANSWERS, lambda shape: row_format(shape, "fp16", kept=2))


def _read_shard(path: Path) -> None:
    rows = _rows(path.with_suffix(".none"))
    rows.path = lambda block: path  # type: ignore[method-assign]
    if not rows.missing():
        rows.reader()[torch.arange(_ANSWERS)]


def _shard(path: Path) -> None:
    stem = path.with_suffix(".none")
    _rows(stem).write(0, torch.arange(12.0).view(_ANSWERS, 4), nullcontext)
    shard_path(stem, 0).rename(path)


TARGETS = {
    "answer-shards": Target(read=_read_shard, seeds=lambda: [_written(_shard)]),
    "batch": Target(
        read=lambda path: records_from_pickle(CIFAR10, 2, path.read_bytes(), "batch"), seeds=lambda: [_batch()]
    ),
    "blob": Target(read=read_blob, seeds=lambda: [_caffe("blob")]),
    "caffemodel": Target(read=read_caffemodel, seeds=lambda: [_caffe("net")]),
    "config": Target(
        read=_read_config, seeds=lambda: [to_json(TrainConfig(student=ModelConfig(name="lenet"))).encode()]
    ),
    "npy": Target(read=read_npy, seeds=lambda: [_written(lambda path: write_npy(path, _layers()))]),
    "plain-npy": Target(
        read=read_plain_npy, seeds=lambda: [_written(lambda path: np.save(path, np.ones((2, 3), dtype=np.float32)))]
    ),
    "state": Target(read=lambda path: unseal(path, "key"), seeds=lambda: [seal({"a": torch.ones(2)}, "key", {"b": 1})]),
    "tar": Target(
        read=lambda path: list(read_members(path, {"a/one": 10, "a/two": 1000})),
        seeds=lambda: [_tar("w:gz", {"a/one": 10, "a/two": 600})],
    ),
    "tar-shard": Target(
        read=lambda path: list_shards([path], print), seeds=lambda: [_tar("w", {"a/1.png": 600, "a/1.cls": 0})]
    ),
    "teacher-answers": Target(
        read=lambda path: _rows(path.with_suffix("")).reader(), seeds=lambda: [save({"logits": torch.ones(2, 3)})]
    ),
    "weights": Target(read=_read_weights, seeds=lambda: [_weights()]),
}
