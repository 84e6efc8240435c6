"""A teacher's answers, computed once per view of the data and stored for every run that asks for the same."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model_compression.config import DataConfig, to_dict
from model_compression.data.loader import Batch, ResidentLoader
from model_compression.errors import FileFormatError, ModelCompressionError
from model_compression.files import write_atomically, writing_failed
from model_compression.models.base import Network
from model_compression.outputs import Outputs
from model_compression.teachers.live import LiveTeacher

FORMAT = "model_compression.teacher_cache/2"
_BLOCK = 500
_SAMPLE = 8  # answers that are compared when a stored view is opened
# Of the range of the logits: another batch size or device rounds otherwise, other images differ by far more.
_TOLERANCES = {torch.float32: 0.01, torch.bfloat16: 0.1}

Progress = Callable[[int, int], None]


class CachedTeacher:
    """Answers from stored views; a view that is not there is filled whole, in index order, in fixed blocks.

    The folder's name is a digest of everything the answers depend on, so that a stale answer is never found.
    """

    def __init__(
        self,
        live: LiveTeacher,
        loader: ResidentLoader,
        fingerprint: dict[str, Any],
        progress: Progress,
        report: Callable[[str], None],
    ):
        digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
        self.folder = cache_folder() / digest[:32]
        self._fingerprint = fingerprint
        self._live, self._loader, self._progress, self._report = live, loader, progress, report
        self._views: dict[int, Tensor] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # now, before a run's folder is made
        except OSError as error:
            remedy = "name another cache with MODEL_COMPRESSION_CACHE, or give --no-teacher-cache"
            raise ModelCompressionError(f"{writing_failed(self.folder, error)}; {remedy}") from error

    def answer(self, batch: Batch) -> Outputs:
        """Logits (B, K) in float32 for images as the batch shows them."""
        if batch.view not in self._views:
            self._views[batch.view] = self.view(batch.view).to(batch.targets.device)
        return Outputs(logits=self._views[batch.view][batch.indices])

    def view(self, view: int) -> Tensor:
        """Logits (N, K) of a view, on the CPU, filled if need be, and filled anew, which is said, if they are damaged.

        Safe with other processes: one fills, the others wait.
        """
        path = self.folder / f"view-{view}.safetensors"
        try:
            if path.exists():
                return self._stored(path, view)
        except FileFormatError:
            pass  # looked at again, and said, by the one who fills
        with FileLock(self.folder / ".lock"):
            try:
                if path.exists():
                    return self._stored(path, view)
            except FileFormatError as error:
                self._report(f"{error}; the teacher's answers are computed anew")
            self._fill(path, view)
        return self._stored(path, view)

    def _stored(self, path: Path, view: int) -> Tensor:
        """The answers in ``path``. Raises FileFormatError for damaged ones, or of other images or weights."""
        answers = _read(path)
        sample = torch.linspace(0, len(self._loader) - 1, _SAMPLE, device=self._loader.targets.device).long()
        anew = self._live.answer(self._loader.batch(sample, view)).logits.cpu()
        if len(answers) != len(self._loader) or answers.shape[1:] != anew.shape[1:]:
            raise FileFormatError(f"{path} holds answers {tuple(answers.shape)} to {len(self._loader)} images")
        tolerance = _TOLERANCES[self._live.precision] * float(answers.max() - answers.min())
        if not float((answers[sample.cpu()] - anew).abs().max()) <= tolerance:
            raise FileFormatError(f"{path} holds other answers than this teacher gives to these images")
        return answers

    def _fill(self, path: Path, view: int) -> None:
        answers: list[Tensor] = []
        for batch in self._loader.in_order(view=view, batch_size=_BLOCK):
            answers.append(self._live.answer(batch).logits.cpu())
            self._progress(sum(map(len, answers)), len(self._loader))
        logits = torch.cat(answers)
        write_atomically(self.folder / "fingerprint.json", json.dumps(self._fingerprint, indent=2).encode())
        write_atomically(path, save({"logits": logits}, {FORMAT: _digest(logits)}))


def fingerprint(model: Network, data_digest: str, config: DataConfig, precision: torch.dtype) -> dict[str, Any]:
    """Everything the teacher's answers for a data set depend on, as plain values."""
    view = {key: value for key, value in to_dict(config).items() if key in ("augmentation", "shift", "view_seed")}
    if config.augmentation == "none":
        view = {"augmentation": "none"}
    return {
        "format": FORMAT,
        "model": model.name,
        "weights_sha256": weights_digest(model),
        "preprocessing": model.preprocessing.to_dict(),
        "data_sha256": data_digest,
        "precision": str(precision).removeprefix("torch."),
        **view,
    }


def weights_digest(model: Network) -> str:
    """SHA-256 of the names and bytes of everything in the state of ``model``, and of its mean image."""
    digest = hashlib.sha256()
    tensors = dict(sorted(model.state_dict().items()))
    if model.preprocessing.mean_image is not None:
        tensors["mean_image"] = model.preprocessing.mean_image
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where answers are stored: in the folder that MODEL_COMPRESSION_CACHE names, or else in the user's cache."""
    given = os.environ.get("MODEL_COMPRESSION_CACHE")
    return Path(given or platformdirs.user_cache_dir("model-compression")).expanduser() / "teachers"


def _read(path: Path) -> Tensor:
    """Logits (N, K) as they were written. Raises FileFormatError."""
    try:
        with safe_open(path, framework="pt") as file:
            header, answers = file.metadata() or {}, file.get_tensor("logits").clone()  # not a view of the file
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from None
    if header.get(FORMAT) != _digest(answers):
        raise FileFormatError(f"{path} is damaged: its digest is another")
    assert isinstance(answers, Tensor)
    return answers


def _digest(answers: Tensor) -> str:
    return hashlib.sha256(answers.numpy().tobytes()).hexdigest()
