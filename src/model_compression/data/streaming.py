"""Batches of images that are decoded while the network trains, by other processes, through torch's DataLoader."""

import math
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import DataError, ModelCompressionError, UsageError, reason_of
from model_compression.core.inputs import Inputs, join_inputs
from model_compression.core.options import setting
from model_compression.data.batches import ALL, Batch, Loader, Part, num_batches
from model_compression.data.dataset import Dataset
from model_compression.data.image_views import ImageViews
from model_compression.data.loader import ImageLoader, ResidentLoader
from model_compression.data.loader_images import LoaderImages
from model_compression.data.on_demand import OnDemandImages
from model_compression.data.placement import default_workers, stream
from model_compression.data.samples import Samples
from model_compression.data.torch_datasets import check_batch


def loader_for(dataset: Dataset, config: DataConfig, device: torch.device) -> Loader:
    """The samples' own loader; of images by where they are: in memory, still to be decoded, or in a DataLoader."""
    if isinstance(dataset.samples, Samples):
        return dataset.samples.loader(dataset.labels, config, device)
    if config.crops and isinstance(dataset.samples, np.ndarray):
        dataset = stream(dataset, default_workers() if config.workers is None else config.workers)
    kinds: dict[type, type[ImageLoader]] = {LoaderImages: GivenLoader, OnDemandImages: StreamingLoader}
    return kinds.get(type(dataset.samples), ResidentLoader)(dataset, config, device)


class StreamingLoader(ImageLoader):
    """A dataset's images, decoded batch by batch; the same batches as `ResidentLoader` for any number of workers.

    Workers decode, and make the views that crop. Order and other views are made here. All are functions of seed, epoch
    and view.
    """

    def __init__(self, dataset: Dataset, config: DataConfig, device: torch.device):
        assert isinstance(dataset.images, OnDemandImages)
        super().__init__(dataset, config, device)
        self._images = dataset.images

    def inputs(self, indices: Tensor, view: int) -> Tensor:
        """The images (B, C, H, W) at ``indices`` (B,), decoded by this process, cropped as ``view`` has them."""
        return _get(_Rows(self._images, self._views)[indices.tolist(), view]).to(self.targets.device)

    def inputs_in_turn(self, batches: Sequence[Tensor], view: int) -> Iterator[Inputs]:
        """`inputs` of each of ``batches``, decoded ahead by the workers."""
        device = self.targets.device
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than processors
            loader: DataLoader[_Decoded] = DataLoader(
                _Rows(self._images, self._views),
                batch_size=None,  # a "sample" is a batch already
                sampler=(
                    (indices.tolist(), view) for indices in batches
                ),  # one after the other: a list of all would take memory
                num_workers=self._images.workers,
                collate_fn=_keep,
                worker_init_fn=_leave_signals_to_the_parent,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),  # its own: a draw from the global one would be felt elsewhere
            )
        decoded = _start_workers(loader)
        for _ in batches:
            yield _next_batch(decoded).to(device, non_blocking=True)


class GivenLoader(ImageLoader):
    """The batches of a DataLoader of the user's, as they come: no order, no views and no indices of ours."""

    def __init__(self, dataset: Dataset, config: DataConfig, device: torch.device):
        assert isinstance(dataset.images, LoaderImages)
        super().__init__(dataset, config, device)
        self._images, self._num_classes = dataset.images, dataset.num_classes
        self._what = "test" if dataset.name.endswith("-test") else "training"

    def inputs(self, indices: Tensor, view: int) -> Tensor:
        """Images of the first batch, for dry runs."""
        return torch.from_numpy(self._images.first[indices.cpu().numpy()]).to(self.targets.device)

    def steps(self, batch_size: int) -> int:
        """How many batches the DataLoader says to have; a last one of one image joins the batch before."""
        steps, count, size = len(self._images.loader), len(self._images), len(self._images.first)
        return num_batches(count, size) if steps == -(-count // size) else steps

    def epoch(
        self, *, epoch: int, seed: int, batch_size: int, first: int = 0, part: Part | None = None
    ) -> Iterator[Batch]:
        """A pass over the DataLoader; after an interruption, as many batches of a new pass as were still to come."""
        steps, batches = self.steps(batch_size), self._batches()
        if steps < len(self._images.loader):
            batches = _join_last(batches)
        return islice(batches, steps - first)

    def in_order(self, *, view: int, batch_size: int, rows: slice = ALL) -> Iterator[Batch]:
        """All batches, whatever ``rows``. Raises UsageError when their labels come in another order than at first."""
        start = 0
        for batch in self._batches():
            if not torch.equal(batch.targets, self.targets[start : start + len(batch.targets)]):
                raise UsageError(
                    "the DataLoader of test images gives them in another order each time; make it with shuffle=False"
                )
            start += len(batch.targets)
            yield batch

    def _batches(self) -> Iterator[Batch]:
        device = self.targets.device
        for batch in self._images.loader:
            images, labels = check_batch(batch, self._what)
            if images.shape[1:] != self._images.first.shape[1:]:
                raise DataError(
                    f"a batch has images of {tuple(images.shape[1:])}, the first had {self._images.first.shape[1:]}"
                )
            targets = labels.long()
            if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < self._num_classes:
                raise DataError(
                    f"a batch has labels from {int(targets.min())} to {int(targets.max())}; expected 0 to "
                    f"{self._num_classes - 1}, as the test images have or the dataset's `classes` say"
                )
            unknown = torch.full((len(targets),), -1, device=device)
            yield Batch(inputs=images.float().to(device), targets=targets.to(device), ids=unknown, view=0)


def _join_last(batches: Iterator[Batch]) -> Iterator[Batch]:
    """``batches``, the last of which joins the one before if it has one image."""
    held = next(batches)
    for batch in batches:
        if len(batch.targets) == 1:
            inputs, targets = join_inputs([held.inputs, batch.inputs]), torch.cat([held.targets, batch.targets])
            held = replace(held, inputs=inputs, targets=targets, ids=torch.cat([held.ids, batch.ids]))
        else:
            yield held
            held = batch
    yield held


_Decoded = Tensor | ModelCompressionError


class _Rows(TorchDataset[_Decoded]):
    """Batches of decoded images by their rows, or the error that there was: raised here, it came as a traceback."""

    def __init__(self, images: OnDemandImages, views: ImageViews | None):
        self.images, self.views = images, views

    def __getitem__(self, wanted: tuple[list[int], int]) -> _Decoded:
        rows, view = wanted
        shape = (len(rows), *self.images.source.image_shape)
        batch = _shared(shape) if get_worker_info() else torch.empty(shape, dtype=torch.uint8)
        try:
            self.images.decode_into(batch.numpy(), np.array(rows), self.views, view)
        except ModelCompressionError as error:
            return error
        return batch


def _shared(shape: tuple[int, ...]) -> Tensor:
    """A batch in memory that the process which trains takes over as it is."""
    storage = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def _keep(batch: Any) -> Any:
    return batch


def _start_workers(loader: DataLoader[_Decoded]) -> Iterator[_Decoded]:
    """The workers' batches. Torch would raise, at a worker's death, wherever this process is; `_next_batch` asks."""
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    decoded = iter(loader)
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    return decoded


def _next_batch(decoded: Iterator[_Decoded]) -> Tensor:
    try:
        batch = next(decoded)
    except (RuntimeError, OSError) as error:  # what torch raises for a worker that died, as it was sending or not
        raise DataError(
            f"a process that decodes images ended: {reason_of(error)}; it may have lacked memory: "
            f"use fewer {setting('workers')}, or 0"
        ) from None
    return _get(batch)


def _get(batch: _Decoded) -> Tensor:
    if isinstance(batch, ModelCompressionError):
        raise batch
    return batch


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal: the one that trains stops them, after it has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
