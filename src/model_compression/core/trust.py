"""Decides whether a name of code, as "mynets:small", may be imported. Every import by name passes `check`.

A name is followed when

- the user gave it: as a word of the command, or as an argument in Python;
- it stands in a file that a command of this user wrote on this machine, unchanged since (`seal`, `read`);
- the user said so, by ``trust=True`` or the flag of that name.

Everything else is refused before anything is imported: a stranger's config.json or weights file runs no code.
"""

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_compression.core.errors import UntrustedCodeError
from model_compression.core.files import write_atomically
from model_compression.core.options import setting

NAME = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.\w+)*):(?P<attribute>[A-Za-z_]\w*)")
"""What something in a module of a user's own is called, as "package.module:attribute"."""

_BETWEEN = re.compile(r"[^\w.:/\\~-]+")  # several names in one text: commas, plus signs, JSON
_NO_CODE = ("timm", "torchvision", "hf", "hub", "folder", "python")  # before a colon: libraries, data, objects


@dataclass
class _State:
    """What this process knows of names. In a command (``is_command``) only the user's own names are followed; in
    Python, where any code may call with a name, all but those that were read in a stranger's file."""

    is_command: bool = False
    trusts_all: bool = False
    own: set[str] = field(default_factory=set)
    trusted: set[str] = field(default_factory=set)
    """Names that were followed because the user trusts all files."""
    written: set[str] = field(default_factory=set)
    """SHA-256 of files that are thrown away again."""
    foreign: dict[str, str] = field(default_factory=dict)
    """Name → the file that it stands in, of a name that is not the user's."""


_state = _State()


def check(name: str) -> bool:
    """Whether ``name`` is the user's own; False when it is a file's, and trusted. Raises UntrustedCodeError."""
    if _is_own(name):
        return True
    source = _state.foreign.get(name, "a file")
    if not _state.trusts_all:
        raise UntrustedCodeError(
            f"{source} names the code {name}, and code is not imported because a file names it; if you trust the file "
            f"and the module, add {setting('trust', True)}, or give the name yourself"
        )
    if name not in _state.trusted and _state.is_command:
        print(f"importing {name}, which {source} names ({setting('trust')})", file=sys.stderr)
    _state.trusted.add(name)
    return False


def give(*values: Any) -> None:
    """The user gave ``values``, texts or plain values: the names in them are followed from now on."""
    _state.own |= names_in(values)


@contextmanager
def command(words: Sequence[str], *, trusts_all: bool = False) -> Iterator[None]:
    """Inside, only the names in ``words``, which the user typed, are followed, and those of sealed files."""
    global _state
    before = _state
    # A shell may have replaced a * by file names, which nobody typed.
    typed = names_in([word for word in words if not _is_path(word)])
    _state = _State(is_command=True, trusts_all=trusts_all, own=typed)
    try:
        yield
    finally:
        _state = before


@contextmanager
def all_files(trust: bool = True) -> Iterator[None]:
    """Inside, names that stand in any file are followed, if ``trust``."""
    state = _state
    before = state.trusts_all
    state.trusts_all = before or trust
    try:
        yield
    finally:
        state.trusts_all = before


def read(values: Any, source: str | Path, content: bytes | Path) -> None:
    """Notes the names in ``values``, which were read from ``source``: they are the user's if the file is sealed.

    ``content`` is that of the whole file, or its path; it is only looked at when ``values`` have names.
    """
    names = names_in(values)
    if not names:
        return
    if _is_sealed(content):
        _state.own |= {name for name in names if not _is_no_code(name)}
    for name in names:
        _state.foreign.setdefault(name, str(source))


def seal(values: Any, content: bytes) -> None:
    """Remembers a file that this process writes, if it names code and all of that may be followed here.

    The SHA-256 of ``content`` is noted in the user's own folder: a moved or copied file is known again, a changed one
    is not. A folder that cannot be written is no obstacle; the file then counts as a stranger's.
    """
    names = names_of_code(values)
    if not names or not all(_is_own(name) or name in _state.trusted for name in names):
        return
    seal_content(content)


def seal_content(content: bytes, *, lasting: bool = True) -> None:
    """Remembers a file of this process that is more than names, as a graph; if not ``lasting``, for this process."""
    if not lasting:
        _state.written.add(_digest(content))
        return
    with suppress(OSError):
        folder = _seals()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / _digest(content)).touch()


def is_trusted(content: bytes) -> bool:
    """Whether a file is one that this user's commands wrote here, or all files are trusted."""
    return _state.trusts_all or _digest(content) in _state.written or _is_sealed(content)


def write_sealed(path: Path, values: Any, content: bytes) -> None:
    """Writes a file of ``values``, as ``content`` has them, and seals it."""
    write_atomically(path, content)
    seal(values, content)


def for_child() -> dict[str, Any]:
    """What a process that this one starts is to be told, so that nobody has to type a name twice."""
    return {"own": sorted(_state.own), "trusts_all": _state.trusts_all}


def names_in(value: Any) -> set[str]:
    """All names of code in texts, sequences and mappings."""
    if isinstance(value, str):
        return {text for text in _BETWEEN.split(value) if NAME.fullmatch(text)}
    if isinstance(value, Mapping):
        return names_in(list(value.values()))
    if isinstance(value, list | tuple | set):
        return set().union(*(names_in(part) for part in value)) if value else set()
    return set()


def _is_own(name: str) -> bool:
    return name in _state.own or not (_state.is_command or name in _state.foreign)


def names_of_code(values: Any) -> set[str]:
    """Those of `names_in` that can be code; the others name libraries and data."""
    return {name for name in names_in(values) if not _is_no_code(name)}


def _is_no_code(name: str) -> bool:
    return name.partition(":")[0] in _NO_CODE


def _is_path(word: str) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):
        return False


def _is_sealed(content: bytes | Path) -> bool:
    try:
        return (_seals() / _digest(content)).is_file()
    except OSError:
        return False


def _seals() -> Path:
    import platformdirs

    return Path(platformdirs.user_state_dir("model-compression")) / "seals"


def _digest(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
