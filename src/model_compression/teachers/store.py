"""A folder of one teacher's answers: a file for each view and field, what they depend on, and how often they served."""

import hashlib
import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model_compression.errors import CacheMismatchError, FileFormatError, ModelCompressionError
from model_compression.files import write_atomically, writing_failed
from model_compression.teachers.fingerprint import FORMAT, differences

_FINGERPRINT, _USAGE, _LOCK = "fingerprint.json", "usage.json", ".lock"
_FILES = {"logits": "view", "embedding": "embedding"}  # what the file of a field is called, before the view's number


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How often runs asked for a view: ``found`` times it was there, ``filled`` times the teacher had to answer."""

    found: int = 0
    filled: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of the requests for a view that found it, 0 to 1; 0 before the first."""
        return self.found / max(1, self.found + self.filled)


class AnswerStore:
    """The answers in ``folder``. Views are written whole, by one process at a time, and read by any number."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = FileLock(folder / _LOCK)

    def claim(self, wanted: dict[str, Any], origin: dict[str, Any]) -> None:
        """Makes the folder one of answers with the fingerprint ``wanted``, or finds that it is.

        ``origin`` says where teacher and data came from, for people and for a later check.
        Raises CacheMismatchError, which says what differs, when it holds other answers.
        """
        try:
            if (self.folder / _FINGERPRINT).exists():
                self._check(wanted)  # without the lock: a folder that can only be read serves as well
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            names = {path.name for path in self.folder.iterdir()}
            if _LOCK not in names:
                self._check_empty(names)  # before the lock leaves its file in a folder of something else
            with self.lock():
                if (self.folder / _FINGERPRINT).exists():
                    self._check(wanted)
                    return
                self._check_empty({path.name for path in self.folder.iterdir()})
                content = {"fingerprint": wanted, "origin": origin}
                write_atomically(self.folder / _FINGERPRINT, (json.dumps(content, indent=2) + "\n").encode())
        except OSError as error:
            remedy = "name another folder with --teacher-cache or MODEL_COMPRESSION_CACHE, or give --teacher-cache off"
            raise ModelCompressionError(f"{writing_failed(self.folder, error)}; {remedy}") from error

    def _check_empty(self, names: set[str]) -> None:
        if names - {_LOCK}:
            raise CacheMismatchError(
                f"{self.folder} holds files but no answers of a teacher; name an empty folder, or one that does not "
                "exist"
            )

    def _check(self, wanted: dict[str, Any]) -> None:
        lines = differences(self.fingerprint, wanted)
        if lines:
            raise CacheMismatchError(
                f"{self.folder} holds answers of something else: {'; '.join(lines)}; name another folder, or clear it "
                f"with: model-compression cache clear {self.folder}"
            )

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the answers depend on. Raises FileFormatError."""
        return self._header()["fingerprint"]

    @property
    def origin(self) -> dict[str, Any]:
        """Where teacher and data came from. Raises FileFormatError."""
        return self._header()["origin"]

    def _header(self) -> dict[str, dict[str, Any]]:
        path = self.folder / _FINGERPRINT
        try:
            content = json.loads(path.read_text())
            return {key: dict(content[key]) for key in ("fingerprint", "origin")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"{path} is damaged ({error}); delete the folder") from None

    def lock(self) -> AbstractContextManager[Any]:
        """Held by the process that writes."""
        return self._lock

    def path(self, view: int, field: str = "logits") -> Path:
        """The file of a view's ``field``: "logits" or "embedding"."""
        return self.folder / f"{_FILES[field]}-{view}.safetensors"

    def views(self, field: str = "logits") -> list[int]:
        """The numbers of the views of which ``field`` is stored, in order."""
        return sorted(int(path.stem.partition("-")[2]) for path in self.folder.glob(f"{_FILES[field]}-*.safetensors"))

    def size_bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())

    def read(self, view: int, field: str = "logits") -> Tensor:
        """What was written, (N, K) logits or (N, D) embeddings, mapped into memory.

        Raises FileFormatError when it is damaged.
        """
        path = self.path(view, field)
        try:
            with safe_open(path, framework="pt") as file:
                header, answers = file.metadata() or {}, file.get_tensor(field)
        except (SafetensorError, OSError) as error:
            raise FileFormatError(f"{path} is damaged: {error}") from None
        if header.get(FORMAT) != _digest(answers):
            raise FileFormatError(f"{path} is damaged: its digest is another")
        assert isinstance(answers, Tensor)
        return answers

    def write(self, view: int, answers: Tensor, dtype: torch.dtype, field: str = "logits") -> None:
        """Stores a ``field`` of a view as ``dtype``: logits (N, K) or embeddings (N, D).

        Raises ModelCompressionError when they do not fit into it.
        """
        stored = answers.to(dtype).contiguous()
        if bool(answers.isfinite().all()) and not bool(stored.isfinite().all()):
            raise ModelCompressionError(
                f"the teacher's answers reach {float(answers.abs().max()):.3g}, and half precision ends at 65,504; "
                "store them with --teacher-cache-dtype fp32"
            )
        write_atomically(self.path(view, field), save({field: stored}, {FORMAT: _digest(stored)}))

    @property
    def usage(self) -> Usage:
        """How often the answers served."""
        try:
            return Usage(**json.loads((self.folder / _USAGE).read_text()))
        except (OSError, ValueError, TypeError):
            return Usage()  # only a count: without it, it begins anew

    def count(self, *, found: int = 0, filled: int = 0) -> None:
        """Adds to `usage`; nothing where the folder can only be read."""
        if not os.access(self.folder, os.W_OK):
            return
        with self.lock():
            usage = self.usage
            content = {"found": usage.found + found, "filled": usage.filled + filled}
            write_atomically(self.folder / _USAGE, (json.dumps(content) + "\n").encode())

    def clear(self) -> int:
        """Deletes the answers and then what describes them; returns the bytes that were freed.

        Raises FileFormatError, and deletes nothing, when the folder is none of a teacher's answers.
        """
        if not (self.folder / _FINGERPRINT).is_file():
            raise FileFormatError(f"{self.folder} holds no answers of a teacher; nothing is deleted")
        freed = self.size_bytes()
        with self.lock():
            names = [_USAGE, _FINGERPRINT, _LOCK]
            answers = [self.path(view, field) for field in _FILES for view in self.views(field)]
            for path in [*answers, *(self.folder / name for name in names)]:
                path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()
        return freed


def cache_folder() -> Path:
    """Where answers are stored: in the folder that MODEL_COMPRESSION_CACHE names, or else in the user's cache."""
    given = os.environ.get("MODEL_COMPRESSION_CACHE")
    return Path(given or platformdirs.user_cache_dir("model-compression")).expanduser() / "teachers"


def store_for(fingerprint: dict[str, Any]) -> AnswerStore:
    """The store of the user's cache for answers with this fingerprint: its folder's name is their digest."""
    digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
    return AnswerStore(cache_folder() / digest[:32])


def stores(folder: Path | None = None) -> list[AnswerStore]:
    """The stores in ``folder``, by default the user's cache; ``folder`` may be one itself."""
    folder = cache_folder() if folder is None else folder
    found = [folder, *(sorted(folder.iterdir()) if folder.is_dir() else [])]
    return [AnswerStore(path) for path in found if (path / _FINGERPRINT).is_file()]


def _digest(answers: Tensor) -> str:
    return hashlib.sha256(answers.numpy().tobytes()).hexdigest()
