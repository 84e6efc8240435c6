"""What is said of an option beside its name, type and default, in one place: a field of a configuration.

Checks, the command line, the identity of a run, groups in reports and the fingerprint of stored answers follow from it.
"""

import operator
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal

from model_compression.core.errors import UsageError

Affects = Literal["result", "speed", "place", "consent"]
"""What changes with an option: what a run comes to; only how fast; only what is read and written where; or only
whether something doubtful is accepted. Runs that differ in others than the first are one and the same run."""

_FLAGS = "MODEL_COMPRESSION_SPEAKS_FLAGS"  # an environment variable, so that child processes speak alike


@dataclass(frozen=True, kw_only=True)
class Option:
    """What the metadata of a field say. Without any it affects the result, and the command line does not have it."""

    help: str = ""
    affects: Affects = "result"
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    remedy: str = ""
    """What the error of a value out of bounds advises."""
    of: Literal["", "teacher", "method"] = ""
    """Options of the teacher have no effect without one, and a run may differ in those of the method from its baseline
    on labels."""
    needs: Mapping[str, tuple[str, ...]] | None = None
    """It has no effect unless one of these fields beside it has one of the values, or with none named, is set."""
    answers: bool = True
    """Whether it says by itself how the teacher answers; others do by what they come to, which is recorded."""
    flag: str = ""
    """What the command line calls it, where that is not the field's name."""
    metavar: str = ""

    def check(self, name: str, value: Any) -> None:
        """Raises UsageError for a number out of bounds; None has none."""
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
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata={"option": Option(**said)})
    return field(default=default, metadata={"option": Option(**said)})


def option_of(entry: "Field[Any]") -> Option:
    """What is said of a field of a configuration."""
    said: Option = entry.metadata.get("option", Option())
    return said


def default_of(entry: "Field[Any]") -> Any:
    """The default of a field, MISSING where it has none."""
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def has_effect(config: Any, said: Option) -> bool:
    """Whether the fields beside it in ``config`` have what an option needs."""
    defaults = {entry.name: default_of(entry) for entry in fields(config)}
    return said.needs is None or any(
        getattr(config, name) in values if values else getattr(config, name) != defaults[name]
        for name, values in said.needs.items()
    )


def answer_settings(config: Any, of: str = "") -> dict[str, Any]:
    """The options in ``config``, those of ``of``, that say how a teacher answers an image.

    A new one is in it where it is not at its default; one that ``needs`` others where they are set.
    """
    found = {}
    for entry in fields(config):
        said, value = option_of(entry), getattr(config, entry.name)
        matters = value != default_of(entry) if said.needs is None else has_effect(config, said)
        if said.of == of and said.affects == "result" and said.answers and matters:
            found[entry.name] = value
    return found


def setting(name: str, value: Any = None, *, flag: str = "") -> str:
    """An option in a message, with a value if one is advised: ``batch_size=64``, or the flag for those who type flags.

    ``name`` is that of the argument in Python; ``flag`` that of the command line, without dashes, where it is another.
    """
    if _FLAGS not in os.environ:
        return name if value is None else f"{name}={value!r}"
    typed = "--" + (flag or name).replace("_", "-")
    if isinstance(value, dict):
        value = ",".join(f"{key}={entry:g}" for key, entry in value.items())
    elif isinstance(value, list):
        value = ",".join(f"{entry:g}" for entry in value)
    return typed if value is None or value is True else f"{typed} {value}"


def settings(**values: Any) -> str:
    """Several options with their values, as they stand side by side in a call or in a command."""
    return (" " if _FLAGS in os.environ else ", ").join(setting(name, value) for name, value in values.items())


@contextmanager
def speaking_flags() -> Iterator[None]:
    """Within it, here and in child processes, messages name options as the command line does."""
    before = os.environ.get(_FLAGS)
    os.environ[_FLAGS] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_FLAGS)
