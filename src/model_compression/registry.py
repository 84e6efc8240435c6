"""One Registry: register, create, names. A duplicate raises, an unknown name lists near matches."""

import difflib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from model_compression.errors import UnknownNameError

T = TypeVar("T", bound=Callable[..., Any])


def unknown_name(kind: str, name: str, known: list[str]) -> UnknownNameError:
    """The error for a name that is not known: near matches first, then all names."""
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}known: {', '.join(sorted(known)) or 'none'}")


class Registry(Generic[T]):
    """Names to builders of one kind of thing (``kind`` is the word that errors use)."""

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that enters a builder under ``name``; raises ValueError when another one has the name.

        The same definition may come again, as when a notebook's cell is run twice: the newest counts.
        """

        def enter(builder: T) -> T:
            if name in self._entries and _place(self._entries[name]) != _place(builder):
                raise ValueError(f"{self.kind} {name!r} is registered already, by {self._entries[name]!r}")
            self._entries[name] = builder
            return builder

        return enter

    def get(self, name: str) -> T:
        """The builder itself; raises UnknownNameError."""
        if name not in self._entries:
            raise unknown_name(self.kind, name, list(self._entries))
        return self._entries[name]

    def create(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Calls the builder of ``name``; raises UnknownNameError for it or for an option that the builder lacks.

        A builder with **options is left to check those itself.
        """
        builder = self.get(name)
        parameters = inspect.signature(builder).parameters
        free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        for key in kwargs:
            if key not in parameters and not free:
                raise unknown_name(f"option of {self.kind} {name!r}:", key, list(parameters))
        return builder(*args, **kwargs)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())


def _place(builder: Callable[..., Any]) -> tuple[str, str]:
    """Where a function or class is defined."""
    return builder.__module__, builder.__qualname__
