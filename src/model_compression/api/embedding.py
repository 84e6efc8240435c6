"""`embed`: what a network without its head makes of images, as a file of vectors; and what these are worth."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from model_compression.api.argument_texts import described
from model_compression.api.given_data import given_data
from model_compression.api.inputs import Data, Model, data_config, give_names, load_datasets, load_network, watched
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.data_config import DataConfig
from model_compression.core.device import choose_device, choose_precision
from model_compression.core.errors import UsageError
from model_compression.core.extras import check_extra
from model_compression.core.files import user_path, writing_failed
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset
from model_compression.data.folder_images import FolderImages
from model_compression.data.on_demand import OnDemandImages
from model_compression.data.task_views import EMBEDDING, as_task
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.engine.observer import Observer
from model_compression.models.base import Network
from model_compression.models.copies import place
from model_compression.models.prediction import predict

_AT_ONCE = 65_536  # rows of a group in the file


@dataclass(frozen=True, kw_only=True, repr=False)
class Embedded:
    """A file of ``samples`` embeddings of ``width`` numbers each."""

    path: Path
    samples: int
    width: int
    seconds: float

    def __repr__(self) -> str:
        return f"<{self.path}: {self.samples:,} embeddings of {self.width} numbers>"


@described
@checked_arguments
def embed(
    model: Model,
    out: str | Path,
    data: Data = None,
    *,
    split: Literal["both", "train", "test"] = "both",
    device: str = "auto",
    precision: str = "auto",
    force: bool = False,
    observer: Observer | None = None,
    progress: bool | None = None,
    trust: bool = False,
) -> Embedded:
    """Writes the embeddings of all images as Parquet: a row an image, in the order of the dataset, training set first.

    Columns: split ("train" or "test"), id (number in the split), path (of a folder's images, below it; else null),
    label (class number; null without labels), embedding (list of D float32).

    Example:
        >>> mc.embed("runs/taught", "vectors.parquet", "synthetic", split="test")
        <vectors.parquet: ... embeddings of 1024 numbers>

    Args:
        model: a network without a head, as the run of a distillation with ``task="embedding"``; or any that `evaluate`
            takes, whose classifier is left out. "timm:NAME" and other names of libraries come with their weights.
        out: the file, NAME.parquet.
        data: as `distill` takes it; labels are not needed. None: the run's own, else CIFAR-10.
        split: which images.
        device, precision: `api.argument_texts`.
        force: whether an existing file is replaced.
        observer, progress, trust: `api.argument_texts`.

    Raises:
        UsageError: another ending, ``out`` exists, or the network takes other images.
        MissingExtraError: pyarrow is not installed.
    """
    path = user_path(str(out))
    if path.suffix != ".parquet":
        raise UsageError(f"{setting('out')} must end in .parquet, got {out}")
    check_extra("embed", "writing embeddings")
    if path.exists() and not force:
        raise UsageError(f"{path} exists; choose another {setting('out')}, or replace it with {setting('force', True)}")
    give_names(model, data)
    chosen, kind = choose_device(device), choose_precision(precision, choose_device(device))
    begun = time.monotonic()
    with watched(observer, progress, trust) as watcher:
        sets = dict(zip(("train", "test"), load_as_embedding(data, model, watcher, streamed=True), strict=True))
        sets = {name: one for name, one in sets.items() if split in ("both", name)}
        network = load_network(model, next(iter(sets.values())), watcher)
        found = {name: vectors_of(network, one, chosen, kind, watcher, name) for name, one in sets.items()}
    write_parquet(path, (row for name, one in sets.items() for row in _groups(name, one, found[name])))
    width = next(iter(found.values())).shape[1]
    samples = sum(map(len, found.values()))
    return Embedded(path=path, samples=samples, width=width, seconds=time.monotonic() - begun)


def load_as_embedding(
    data: Data, model: Model, watcher: Observer, *, streamed: bool = False
) -> tuple[Dataset, Dataset]:
    """(training set, test set) as the task of embeddings sees them; ``streamed``: images know their files."""
    if data is None or isinstance(data, str | DataConfig):
        config = data_config(data, model)
        config = replace(config, task=config.task or EMBEDDING, resident="off" if streamed else config.resident)
        return as_task(load_datasets(config, model, watcher), EMBEDDING)
    return as_task(given_data(data, DataConfig(), watcher)[0], EMBEDDING)


def vectors_of(
    network: Network, dataset: Dataset, device: torch.device, precision: torch.dtype, watcher: Observer, split: str
) -> Tensor:
    """Embeddings (N, D) float32, on the CPU, in the order of the dataset."""
    bar = watcher.counter(split, len(dataset)) if isinstance(watcher, ConsoleObserver) else None
    return predict(place(network, device), dataset, device, precision, bar)


def _groups(split: str, dataset: Dataset, vectors: Tensor) -> Iterator[dict[str, Any]]:
    """The columns of some rows each."""
    names = _paths(dataset)
    for first in range(0, len(dataset), _AT_ONCE):
        rows = range(first, min(first + _AT_ONCE, len(dataset)))
        yield {
            "split": [split] * len(rows),
            "id": list(rows),
            "path": [names[row] if names else None for row in rows],
            "label": dataset.labels[rows.start : rows.stop, 0].tolist() if dataset.labelled else [None] * len(rows),
            "embedding": vectors[rows.start : rows.stop].numpy(),
        }


def _paths(dataset: Dataset) -> list[str]:
    """Of each image below its folder; none for images of other origin."""
    images = dataset.samples
    if not isinstance(images, OnDemandImages) or not isinstance(images.source, FolderImages):
        return []
    files = images.source.files
    return [files[int(row)].relative_to(files.root).as_posix() for row in images.rows]


def write_parquet(path: Path, groups: Iterator[dict[str, Any]]) -> None:
    """Writes groups of columns, see `embed`; under another name until all are there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    part, writer = path.with_name(f".{path.name}.{os.getpid()}.part"), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for group in groups:
            vectors = np.ascontiguousarray(group["embedding"])
            listed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
            kinds = {"split": pa.string(), "id": pa.int64(), "path": pa.string(), "label": pa.int64()}
            columns = {name: pa.array(group[name], kind) for name, kind in kinds.items()}
            table = pa.table({**columns, "embedding": listed})
            writer = writer or pq.ParquetWriter(part, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()
        os.replace(part, path)
    except OSError as error:
        raise writing_failed(path, error) from error
    finally:
        part.unlink(missing_ok=True)
