"""A folder of one teacher's answers: a file for each view and field, what they depend on, and how often they served."""

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from model_compression.core.errors import CacheMismatchError, FileFormatError, ModelCompressionError, shown
from model_compression.core.files import TEMPORARY, read_json, user_path, write_atomically, writing_failed
from model_compression.core.options import setting
from model_compression.core.trust import read, write_sealed
from model_compression.distillation.teachers.fingerprint import differences
from model_compression.distillation.teachers.shards import FormatOf, StoredRows, count_blocks, is_filled

_FINGERPRINT, _USAGE, _LOCK, _USAGE_LOCK = "fingerprint.json", "usage.json", ".lock", ".usage.lock"
_FILES = {"logits": "view", "embedding": "embedding"}  # what the file of a field is called, before the view's number
_ANSWERS = re.compile(rf"({'|'.join(_FILES.values())})-(\d+)(?:-shard-(\d+))?\.safetensors")
_DISK_BLOCK = 512  # bytes of st_blocks, on every system that has it
_FOREVER = -1.0
WAIT_S = 0.5  # between looks at whether another process has finished, and whether this one is to stop


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
    """The answers in ``folder``, filled and read by any number of processes; one fills a block at a time."""

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
    def lock(self) -> Iterator[None]:
        """Held by the process that makes or deletes files; waits for another one to let it go."""
        self._acquire(self._lock, _FOREVER)
        try:
            yield
        finally:
            self._lock.release()

    def claim_block(self, view: int, block: int, timeout_s: float = 0.0) -> FileLock | None:
        """The lock of a block of a view, None while another process holds it. The system frees that of a killed one."""
        lock = FileLock(self.folder / f".block-{view}-{block}.tmp")  # as `TEMPORARY` has it
        return lock if self._acquire(lock, timeout_s) else None

    def forget_block(self, lock: FileLock) -> None:
        """Frees a block that is stored, and deletes its lock: whoever holds it all the same finds the block stored."""
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()

    def _acquire(self, lock: FileLock, timeout_s: float) -> bool:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=timeout_s)
        except Timeout:
            return False
        except OSError as error:
            raise _not_writable(self.folder, error) from error
        return True

    def is_stored(self, view: int, fields: Sequence[str]) -> bool:
        """Whether all blocks of a view's ``fields`` are there."""
        return all(is_filled(self._stem(view, field)) for field in fields)

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

    def views(self, field: str = "logits") -> list[int]:
        """The numbers of the views of which ``field`` is stored whole, in order."""
        return [view for view, (filled, count) in self.blocks(field).items() if 0 < count == filled]

    def blocks(self, field: str = "logits") -> dict[int, tuple[int, int]]:
        """(blocks of ``field`` that are stored, all blocks) of each view that has files of it, in order."""
        names = [_ANSWERS.fullmatch(path.name) for path in self._answers()] if self.folder.is_dir() else []
        found = {int(name[2]) for name in names if name and name[1] == _FILES[field]}
        return {view: count_blocks(self._stem(view, field)) for view in sorted(found)}

    def _stem(self, view: int, field: str) -> Path:
        return self.folder / f"{_FILES[field]}-{view}"

    def size_bytes(self) -> int:
        """Of all files, as far as they are filled: a view has its files in full length from its first block on."""
        total = 0
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process has just renamed it
                found = path.stat()
                blocks = getattr(found, "st_blocks", found.st_size)  # Windows does not say
                total += min(found.st_size, blocks * _DISK_BLOCK) if path.is_file() else 0
        return total

    def rows(self, view: int, field: str, count: int, format_of: FormatOf) -> StoredRows:
        """The ``count`` rows of a view's ``field``: "logits" or "embedding"."""
        return StoredRows(self._stem(view, field), field, count, format_of)

    @contextmanager
    def making(self) -> Iterator[None]:
        """Held while a file of answers is made; what they depend on is written again if someone has cleared it."""
        with self.lock():
            if self._content is not None and not (self.folder / _FINGERPRINT).exists():
                self._describe()
            yield

    def drop(self, view: int) -> None:
        """Deletes the answers of a view."""
        with self.lock():
            for path in self._answers(view):
                path.unlink(missing_ok=True)

    def _answers(self, view: int | None = None) -> list[Path]:
        """The files of answers, of one view or of all."""
        names = {path: _ANSWERS.fullmatch(path.name) for path in self.folder.iterdir()}
        return [path for path, name in names.items() if name and view in (None, int(name[2]))]

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
            with FileLock(self.folder / _USAGE_LOCK, timeout=WAIT_S):
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
            try:
                for path in [*self._answers(), *self.folder.glob(TEMPORARY), *(self.folder / name for name in names)]:
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
