"""The one reader of paths that people write and of our JSON files, and the one writer: a file is whole or not there."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_compression.core.errors import FileFormatError, ModelCompressionError, UsageError, shown
from model_compression.core.text import size

TEMPORARY = ".*.tmp"  # what a process that is killed while it writes leaves

_LONGEST_NAME = 255  # bytes, on the file systems that there are


def user_path(path: str | os.PathLike[str]) -> Path:
    """``path`` as a user writes it, with ``~`` as the home folder.

    Raises UsageError for what no file system takes: an unknown user's home, NUL, a name that is too long.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"expected the path of a file or folder, got {shown(path)}")
    try:
        expanded = Path(path).expanduser()
        parts = [os.fsencode(part) for part in expanded.parts]
    except RuntimeError:
        raise UsageError(
            f"{shown(str(path))} begins with the home folder of a user who is not known here; write ./~ for a folder "
            "whose name begins so"
        ) from None
    except UnicodeEncodeError:
        raise UsageError(f"{shown(str(path))} cannot be the name of a file: it is not valid text") from None
    if b"\0" in b"".join(parts):
        raise UsageError(f"{shown(str(path))} cannot be the name of a file: it holds a NUL character")
    if max(map(len, parts), default=0) > _LONGEST_NAME or sum(len(part) + 1 for part in parts) > 4000:
        raise UsageError(f"{shown(str(path))} cannot be the name of a file: it is too long")
    try:
        expanded.stat()
    except OSError as error:  # what is not there, or not to be read, is left to who opens it
        if error.errno == errno.ELOOP:
            raise UsageError(f"{expanded} is a symbolic link that leads back to itself") from None
    return expanded


def seen_from_here(name: str | os.PathLike[str]) -> str:
    """A path below the working folder relative to it, for messages; anything else as it is."""
    with contextlib.suppress(ValueError):
        return str(Path(name).relative_to(Path.cwd()))
    return str(name)


def write_atomically(
    path: str | os.PathLike[str], payload: bytes | memoryview, *, keep: Path | None = None, size_bytes: int = 0
) -> None:
    """Writes ``payload`` to ``path`` by a temporary file beside it, flushed, renamed, folder synced.

    ``keep``, in the same folder, is the name that the old file gets, once the new one is whole. A payload shorter than
    ``size_bytes`` is followed by zeros, which take no room on most file systems. A reader sees the old
    content or the new, never a part. Raises ModelCompressionError with the remedy when the disk is full or the folder
    cannot be written; no temporary file is left.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
            file.truncate(max(len(payload), size_bytes))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp makes 0600; a weights file is as readable as any other
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise writing_failed(path, error, len(payload)) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes ``text`` as UTF-8; what UTF-8 cannot hold, as a byte of a file's name, is escaped."""
    write_atomically(path, text.encode(errors="backslashreplace"))


def plain_json(values: Any) -> bytes:
    """Plain values as the text of a file, indented."""
    return (json.dumps(values, indent=2) + "\n").encode()


def write_json(path: Path, values: Any) -> None:
    """Writes plain values, indented."""
    write_atomically(path, plain_json(values))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises FileFormatError, which names the file, for anything else."""
    try:
        values = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of JSON, UTF-8, or an integer of thousands of digits
        raise FileFormatError(f"{path} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise FileFormatError(f"{path} is damaged: expected an object with keys, got a {type(values).__name__}")
    return values


def sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` survive a power cut (where the system lets folders be synced)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def writing_failed(path: str | os.PathLike[str], error: OSError, needed: int = 0) -> ModelCompressionError:
    """The error to raise for a failed write: names the file, the cause, the bytes ``needed`` if known, the remedy."""
    room = f"{size(needed)} are needed" if needed else ""
    choose = "free some space or choose another folder"
    limit = _limit()
    remedies = {
        errno.ENOSPC: f"the disk is full{_of(room, _free(path))}; {choose}",
        errno.EDQUOT: f"the disk quota is used up{_of(room)}; {choose}",
        errno.EFBIG: f"the file is larger than files may be here{_of(room, limit)}; "
        + ("raise the limit (ulimit -f)" if limit else "choose a folder on another file system"),
        errno.EACCES: "the folder is not writable; choose another one or change its permissions",
        errno.EPERM: "the folder is not writable; choose another one or change its permissions",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.EIO: "the disk reports an error; check it, or choose another folder",
        errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
        errno.EISDIR: "the path is a folder; give the name of a file",
    }
    remedy = remedies.get(error.errno or 0, error.strerror or str(error))
    return ModelCompressionError(f"cannot write {path}: {remedy}")


def is_of_writing(error: OSError) -> bool:
    """Whether only writing can fail so: there is no room, or the system lets nothing be written."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for what is tried and thrown away. Raises ModelCompressionError, with the remedy, without room."""
    place, named = "the system's temporary folder", "; TMPDIR names another one"
    try:
        place = tempfile.gettempdir()
        with tempfile.TemporaryDirectory(prefix="model-compression-", dir=place) as folder:
            try:
                yield Path(folder)
            except OSError as error:
                if not is_of_writing(error):
                    raise
                raise ModelCompressionError(f"{writing_failed(error.filename or folder, error)}{named}") from error
    except FileNotFoundError as error:  # Python found none that can be written to
        if error.filename is not None:
            raise
        raise ModelCompressionError(f"cannot write into {place}: {error.strerror}{named}") from error


def _of(*parts: str) -> str:
    said = ", ".join(filter(None, parts))
    return f" ({said})" if said else ""


def _free(path: str | os.PathLike[str]) -> str:
    there = next((folder for folder in (Path(path), *Path(path).absolute().parents) if folder.is_dir()), None)
    with contextlib.suppress(OSError):
        return f"{size(shutil.disk_usage(there).free)} are free" if there else ""
    return ""


def _limit() -> str:
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no resource
        import resource

        allowed, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        return "" if allowed == resource.RLIM_INFINITY else f"{size(allowed)} at most"
    return ""


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
