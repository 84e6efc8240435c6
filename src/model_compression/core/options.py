"""Metadata of the fields of configurations: help, bounds, and what depends on the value.

Checks, command-line options, the identity of a run, groups in reports and the fingerprint of stored answers derive from
it. Messages name options by `setting`.
"""

import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal

from model_compression.core.errors import UsageError

Affects = Literal["result", "speed", "place", "consent"]
"""What depends on an option: the result of a run, its speed, where files are read and written, or whether a doubtful
input is accepted. Only options that affect the result make two runs different."""

SHARE: dict[str, Any] = {"minimum": 0, "maximum": 1}
"""The bounds of a share or a probability."""
LARGEST_SEED = 2**63 - 1

_FLAGS = "MODEL_COMPRESSION_SPEAKS_FLAGS"  # an environment variable: child processes inherit it
_ANY = "1"  # its value where the flags are not known


@dataclass(frozen=True, kw_only=True)
class Option:
    """The metadata of a field. A field without them affects the result and has no option on the command line."""

    help: str = ""
    affects: Affects = "result"
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    remedy: str = ""
    """Ends the message about a value out of bounds."""
    of: Literal["", "teacher", "method"] = ""
    """Options of the teacher have no effect without a teacher. Options of the method may differ between a run and its
    label-only baseline."""
    needs: Mapping[str, tuple[str, ...]] | None = None
    """The option has an effect only if one of these fields of the same configuration has one of the values; an empty
    tuple stands for every value but the default."""
    answers: bool = True
    """Whether the value itself enters the fingerprint of stored answers. False where the fingerprint has what the value
    leads to, as the digest of the images."""
    flag: str = ""
    """The name on the command line, if it differs from the name of the field."""
    metavar: str = ""
    search: tuple[float, float] | tuple[float, float, Literal["log"]] | None = None
    """The lowest and highest value that a search tries where the user gives no range; with "log" on a log scale."""

    def check(self, name: str, value: Any) -> None:
        """Raises UsageError for a number out of bounds. None passes."""
        bounds = (
            ("at least", self.minimum, operator.ge),
            ("above", self.above, operator.gt),
            ("at most", self.maximum, operator.le),
            ("below", self.below, operator.lt),
        )
        given = [(words, bound, holds) for words, bound, holds in bounds if bound is not None]
        if value is not None and not all(holds(value, bound) for _, bound, holds in given):
            expected = " and ".join(f"{words} {bound:,}" for words, bound, _ in given)
            remedy = f"; {self.remedy}" if self.remedy else ""
            raise UsageError(f"{setting(name, flag=self.flag)} must be {expected}, got {value}{remedy}")


def option(default: Any = MISSING, *, default_factory: Any = MISSING, **said: Any) -> Any:
    """A field of a configuration; ``said`` are the fields of `Option`."""
    return field(default=default, default_factory=default_factory, metadata={"option": Option(**said)})


def option_of(entry: "Field[Any]") -> Option:
    """The metadata of a field of a configuration."""
    said: Option = entry.metadata.get("option", Option())
    return said


def default_of(entry: "Field[Any]") -> Any:
    """The default of a field, MISSING where it has none."""
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def has_effect(config: Any, said: Option) -> bool:
    """Whether ``config`` has what an option ``needs``."""
    defaults = {entry.name: default_of(entry) for entry in fields(config)}
    return said.needs is None or any(
        getattr(config, name) in values if values else getattr(config, name) != defaults[name]
        for name, values in said.needs.items()
    )


def answer_settings(config: Any, of: str = "") -> dict[str, Any]:
    """The options of ``config``, those with this ``of``, on which a teacher's answer to an image depends.

    An option is left out at its default; one that ``needs`` others is left out if they are not set.
    """
    found = {}
    for entry in fields(config):
        said, value = option_of(entry), getattr(config, entry.name)
        matters = value != default_of(entry) if said.needs is None else has_effect(config, said)
        if said.of == of and said.affects == "result" and said.answers and matters:
            found[entry.name] = value
    return found


def speaks_flags() -> bool:
    """Whether the reader of messages called a command, not a function."""
    return _FLAGS in os.environ


def setting(name: str, value: Any = None, *, flag: str = "") -> str:
    """An option in a message, with the advised value: ``batch_size=64`` in Python, the flag and 64 in a command.

    ``name`` is the argument in Python. ``flag`` is the name on the command line, without dashes, if it differs.
    """
    if not speaks_flags():
        return name if value is None else f"{name}={value!r}"
    typed = "--" + (flag or name).replace("_", "-")
    if isinstance(value, dict):
        value = ",".join(f"{key}={entry:g}" for key, entry in value.items())
    elif isinstance(value, list):
        value = ",".join(f"{entry:g}" for entry in value)
    return typed if value is None or value is True else f"{typed} {value}"


def settings(**values: Any) -> str:
    """Several options with their values, as in a call or a command."""
    return (" " if speaks_flags() else ", ").join(setting(name, value) for name, value in values.items())


def has_setting(name: str) -> bool:
    """Whether the reader of messages can give an option: in Python any, in a command those that it has."""
    flags = os.environ.get(_FLAGS, _ANY)
    return flags == _ANY or f"--{name.replace('_', '-')}" in flags.split()


@contextmanager
def speaking_flags(flags: Iterable[str] = ()) -> Iterator[None]:
    """Messages of this process and its children name options as the command line does, which has ``flags``."""
    before = os.environ.get(_FLAGS)
    os.environ[_FLAGS] = " ".join(flags) or _ANY
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_FLAGS)
