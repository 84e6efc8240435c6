"""A teacher's answers, computed once per view of the data and stored for every run that asks for the same."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from filelock import FileLock

from model_compression.config import DataConfig, to_dict
from model_compression.data.loader import Batch, ResidentLoader
from model_compression.errors import FileFormatError
from model_compression.files import write_atomically
from model_compression.models.base import Network
from model_compression.outputs import Outputs
from model_compression.teachers.live import LiveTeacher

FORMAT = "model_compression.teacher_cache/1"
_BLOCK = 500

Progress = Callable[[int, int], None]


class CachedTeacher:
    """Answers from stored views; a view that is not there is filled whole, in index order, in fixed blocks.

    The folder's name is a digest of everything the answers depend on, so that a stale answer is never found.
    """

    def __init__(self, live: LiveTeacher, loader: ResidentLoader, fingerprint: dict[str, Any], progress: Progress):
        digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
        self.folder = cache_folder() / digest[:32]
        self._fingerprint = fingerprint
        self._live, self._loader, self._progress = live, loader, progress
        self._views: dict[int, torch.Tensor] = {}

    def answer(self, batch: Batch) -> Outputs:
        """Logits (B, K) in float32 for images as the batch shows them."""
        if batch.view not in self._views:
            self._views[batch.view] = torch.from_numpy(self.view(batch.view)).to(batch.targets.device)
        return Outputs(logits=self._views[batch.view][batch.indices])

    def view(self, view: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Logits (N, K) of a view, filled if need be. Safe with other processes: one fills, the others wait."""
        path = self.folder / f"view-{view}.npy"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                if not path.exists():
                    self._fill(path, view)
        return _read(path, len(self._loader))

    def _fill(self, path: Path, view: int) -> None:
        answers = []
        for batch in self._loader.in_order(view=view, batch_size=_BLOCK):
            answers.append(self._live.answer(batch).logits.cpu())
            self._progress(sum(map(len, answers)), len(self._loader))
        buffer = io.BytesIO()
        np.save(buffer, torch.cat(answers).numpy())
        write_atomically(self.folder / "fingerprint.json", json.dumps(self._fingerprint, indent=2).encode())
        write_atomically(path, buffer.getbuffer())


def fingerprint(model: Network, data_digest: str, config: DataConfig, precision: torch.dtype) -> dict[str, Any]:
    """Everything the teacher's answers for a data set depend on, as plain values."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    if model.preprocessing.mean_image is not None:
        weights.update(model.preprocessing.mean_image.cpu().numpy().tobytes())
    view = {key: value for key, value in to_dict(config).items() if key in ("augmentation", "shift", "view_seed")}
    if config.augmentation == "none":
        view = {"augmentation": "none"}
    return {
        "format": FORMAT,
        "model": model.name,
        "weights_sha256": weights.hexdigest(),
        "preprocessing": model.preprocessing.to_dict(),
        "data_sha256": data_digest,
        "precision": str(precision).removeprefix("torch."),
        **view,
    }


def cache_folder() -> Path:
    """Where answers are stored: a folder of the user's cache."""
    return Path(platformdirs.user_cache_dir("model-compression")) / "teachers"


def _read(path: Path, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    try:
        answers = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FileFormatError(f"{path} is damaged ({error}); delete it and it is computed again") from None
    if answers.shape[0] != count or answers.dtype != np.float32:
        raise FileFormatError(f"{path} holds {answers.shape} {answers.dtype}, expected {count} rows; delete it")
    return np.asarray(answers)
