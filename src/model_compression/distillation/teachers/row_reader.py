"""Reads stored answers by sample: from files that are mapped into memory, or from a copy on the device that trains."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model_compression.distillation.teachers.row_formats import RowFormat

_RESIDENT_BYTES = 1 << 30  # of a view that is held on a device with memory of its own


class RowReader:
    """The answers of one field and view: ``reader[ids]`` gives those to some samples, in float32, where ``ids`` are."""

    def __init__(self, form: RowFormat, shards: Sequence[np.ndarray[Any, Any]], device: torch.device | None = None):
        self.form, self._shards = form, shards
        self._size = len(shards[0])  # of each shard but the last
        self._resident: Tensor | None = None
        size_bytes = sum(shard.nbytes for shard in shards)
        if device is not None and device.type != "cpu" and size_bytes <= _RESIDENT_BYTES:
            self._resident = torch.cat([torch.from_numpy(shard.copy()) for shard in shards]).to(device)

    def __len__(self) -> int:
        return sum(len(shard) for shard in self._shards)

    def __getitem__(self, ids: Tensor) -> Tensor:
        """Answers (B, …) to the samples ``ids`` (B,)."""
        return self.form.decode(self.rows(ids))

    def on(self, device: torch.device) -> "RowReader":
        """The same, held on ``device`` where it has memory of its own and they are few."""
        return RowReader(self.form, self._shards, device)

    def rows(self, ids: Tensor) -> Tensor:
        """The rows (B, …) as they are stored; one copy brings them to the device of ``ids``."""
        if self._resident is not None:
            return self._resident[ids]
        wanted = ids.cpu().numpy()
        if len(self._shards) == 1:
            return torch.from_numpy(self._shards[0][wanted]).to(ids.device)
        rows = np.empty((len(wanted), *self.form.row_shape), self._shards[0].dtype)
        numbers = wanted // self._size
        for number in np.unique(numbers):
            here = numbers == number
            rows[here] = self._shards[number][wanted[here] - number * self._size]
        return torch.from_numpy(rows).to(ids.device)
