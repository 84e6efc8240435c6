"""A folder of one teacher's answers: a file for each view and field, what they depend on, and how often they served."""

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model_compression.core.errors import CacheMismatchError, FileFormatError, ModelCompressionError, shown
from model_compression.core.files import TEMPORARY, read_json, user_path, write_atomically, writing_failed
from model_compression.core.options import setting
from model_compression.core.trust import read, write_sealed
from model_compression.distillation.teachers.fingerprint import FORMAT, differences

_FINGERPRINT, _USAGE, _LOCK, _USAGE_LOCK = "fingerprint.json", "usage.json", ".lock", ".usage.lock"
_FILES = {"logits": "view", "embedding": "embedding"}  # what the file of a field is called, before the view's number
_ANSWERS = re.compile(rf"({'|'.join(_FILES.values())})-(\d+)\.safetensors")
_WAIT_S = 0.5  # between looks at whether another process has finished, and whether this one is to stop


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
        self._content: dict[str, Any] | None = None  # of the fingerprint's file, once it is claimed

    def check_place(self) -> None:
        """Raises CacheMismatchError when the folder can be none of answers: it is a file, or holds something else."""
        try:
            str(self.folder).encode()
        except UnicodeEncodeError:  # which safetensors does not open
            raise CacheMismatchError(
                f"{shown(str(self.folder))} is no name in UTF-8; name another folder for the teacher's answers"
            ) from None
        there = next((path for path in (self.folder, *self.folder.parents) if os.path.lexists(path)), None)
        if there is not None and not there.is_dir():
            raise CacheMismatchError(f"{there} is no folder; name one for the teacher's answers")
        if there == self.folder and not (self.folder / _FINGERPRINT).exists():
            self._check_own()

    def claim(self, wanted: dict[str, Any], origin: dict[str, Any]) -> None:
        """Makes the folder one of answers with the fingerprint ``wanted``, or finds that it is.

        ``origin`` says where teacher and data came from, for people and for a later check.
        Raises CacheMismatchError, which says what differs, when it holds other answers.
        """
        self._content = {"fingerprint": wanted, "origin": origin}
        try:
            if (self.folder / _FINGERPRINT).exists():
                self._check(wanted)  # without the lock: a folder that can only be read serves as well
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_own()  # before the lock leaves its file in a folder of something else
            with self.lock():
                if (self.folder / _FINGERPRINT).exists():
                    self._check(wanted)
                    return
                for path in self._check_own():  # of a process that was killed: nobody knows what they answer
                    path.unlink(missing_ok=True)
                self._describe()
        except OSError as error:
            raise _not_writable(self.folder, error) from error

    def _describe(self) -> None:
        """Writes what the answers depend on."""
        assert self._content is not None
        content = (json.dumps(self._content, indent=2) + "\n").encode()
        write_sealed(self.folder / _FINGERPRINT, self._content["origin"], content)

    def _check_own(self) -> list[Path]:
        """The answers and unfinished files in the folder. Raises CacheMismatchError where there is anything else."""
        paths = list(self.folder.iterdir())
        left = [path for path in paths if _ANSWERS.fullmatch(path.name) or path.match(TEMPORARY)]
        named = {path.name for path in paths} - {path.name for path in left}
        if named - {_LOCK, _USAGE, _USAGE_LOCK} or (left and _LOCK not in named):
            raise CacheMismatchError(
                f"{self.folder} holds files but no answers of a teacher; name an empty folder, or one that does not "
                "exist"
            )
        return left

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
            content = read_json(path)
            read(content, path, path)
            return {key: dict(content[key]) for key in ("fingerprint", "origin")}
        except (FileFormatError, ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"{path} is damaged ({error}); delete the folder") from None

    @contextmanager
    def lock(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Held by the process that writes; ``waiting`` is called twice a second while it is another."""
        try:
            while True:
                with suppress(Timeout):
                    self._lock.acquire(timeout=_WAIT_S)
                    break
                waiting()
        except OSError as error:
            raise _not_writable(self.folder, error) from error
        try:
            yield
        finally:
            self._lock.release()

    def is_stored(self, view: int, fields: Sequence[str]) -> bool:
        """Whether all ``fields`` of a view are there."""
        return all(self.path(view, field).exists() for field in fields)

    def check_writable(self) -> None:
        """Raises ModelCompressionError unless answers can be written."""
        try:
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            lock = self.folder / _LOCK
            if lock.exists() and not os.access(lock, os.W_OK):
                raise PermissionError(errno.EACCES, "it is another user's", str(lock))
        except OSError as error:
            raise _not_writable(self.folder, error) from error

    def path(self, view: int, field: str = "logits") -> Path:
        """The file of a view's ``field``: "logits" or "embedding"."""
        return self.folder / f"{_FILES[field]}-{view}.safetensors"

    def views(self, field: str = "logits") -> list[int]:
        """The numbers of the views of which ``field`` is stored, in order."""
        found = [_ANSWERS.fullmatch(path.name) for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(name[2]) for name in found if name and name[1] == _FILES[field])

    def size_bytes(self) -> int:
        """Of all files."""
        total = 0
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process has just renamed it
                total += path.stat().st_size if path.is_file() else 0
        return total

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
                f"store them with {setting('teacher_cache_dtype', 'fp32')}"
            )
        if self._content is not None and not (self.folder / _FINGERPRINT).exists():
            self._describe()  # someone has cleared the store
        write_atomically(self.path(view, field), save({field: stored}, {FORMAT: _digest(stored)}))

    @property
    def usage(self) -> Usage:
        """How often the answers served."""
        try:
            counts = {key: int(value) for key, value in read_json(self.folder / _USAGE).items() if value >= 0}
            return Usage(**counts)
        except (FileFormatError, ValueError, TypeError, OverflowError):
            return Usage()  # only a count: without it, it begins anew

    def count(self, *, found: int = 0, filled: int = 0) -> None:
        """Adds to `usage`; nothing where that cannot be written at once: it is only a count."""
        with suppress(OSError, Timeout, ModelCompressionError):
            if not (self.folder / _FINGERPRINT).exists():
                return
            with FileLock(self.folder / _USAGE_LOCK, timeout=_WAIT_S):
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
            names = [_USAGE, _FINGERPRINT, _USAGE_LOCK, _LOCK]  # the answers first: without them nothing is stale
            answers = [self.path(view, field) for field in _FILES for view in self.views(field)]
            try:
                for path in [*answers, *self.folder.glob(TEMPORARY), *(self.folder / name for name in names)]:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise ModelCompressionError(f"cannot delete {error.filename}: {error.strerror}") from error
        if not any(self.folder.iterdir()):
            self.folder.rmdir()
        return freed


def _not_writable(folder: Path, error: OSError) -> ModelCompressionError:
    own, off = setting("teacher_cache"), setting("teacher_cache", "off")
    remedy = f"name another folder with {own} or MODEL_COMPRESSION_CACHE, or give {off}"
    return ModelCompressionError(f"{writing_failed(folder, error)}; {remedy}")


def cache_folder() -> Path:
    """Where answers are stored: in the folder that MODEL_COMPRESSION_CACHE names, or else in the user's cache."""
    given = os.environ.get("MODEL_COMPRESSION_CACHE")
    return user_path(given or platformdirs.user_cache_dir("model-compression")) / "teachers"


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
