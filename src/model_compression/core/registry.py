"""One Registry: register, create, names. A duplicate raises, an unknown name lists near matches."""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from model_compression.core.errors import ModelCompressionError, UnknownNameError, UsageError
from model_compression.core.trust import NAME
from model_compression.core.user_code import import_own

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T", bound=Callable[..., Any])


def unknown_name(kind: str, name: str, known: list[str]) -> UnknownNameError:
    """The error for a name that is not known: near matches first, then all names."""
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.51)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}known: {', '.join(sorted(known)) or 'none'}")


def call_with_options(what: str, builder: Callable[..., Any], options: Mapping[str, Any], *args: Any) -> Any:
    """Calls ``builder``; raises UnknownNameError for an option that it lacks, unless it takes any and checks itself."""
    try:
        parameters = inspect.signature(builder).parameters
    except ValueError:  # some of C have no signature
        return builder(*args, **options)
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in options:
            if key not in parameters:
                raise unknown_name(f"option of {what}:", key, list(parameters))
    return builder(*args, **options)


class Registry(Generic[T]):
    """Names to builders of one kind of thing (``kind`` is the word that errors use).

    "package.module:NAME" is what a module of the user's own registers as NAME when it is imported.

    Packages of others add names through entry points of the group ``group``. They are loaded when a name is not known
    here, or when the names are listed; one that cannot be loaded is in `broken`, and raises only when it is asked for.
    ``accepts`` says of what one gives whether it is ``expected``.
    """

    def __init__(
        self,
        kind: str,
        group: str = "",
        accepts: Callable[[Any], bool] = callable,
        expected: str = "something that can be called",
    ):
        self.kind, self.group = kind, group
        self._accepts, self._expected = accepts, expected
        self._entries: dict[str, T] = {}
        self._unlisted: set[str] = set()
        self.broken: dict[str, str] = {}
        """Names of entry points that could not be loaded when the names were listed last, and why."""

    def register(self, name: str, *, listed: bool = True) -> Callable[[T], T]:
        """Decorator that enters a builder under ``name``; raises ValueError when another one has the name.

        One that is not ``listed`` is for files to name, not for people: `names` and errors leave it out.

        The same definition may come again, as when a notebook's cell is run twice: the newest counts.
        """

        def enter(builder: T) -> T:
            if name in self._entries and _place(self._entries[name]) != _place(builder):
                raise ValueError(f"{self.kind} {name!r} is registered already, by {self._entries[name]!r}")
            self._entries[name] = builder
            if not listed:
                self._unlisted.add(name)
            return builder

        return enter

    def get(self, name: str) -> T:
        """The builder itself; raises UnknownNameError, and UsageError for what cannot be imported."""
        own = NAME.fullmatch(name)
        if own is not None:
            import_own(own["module"], name)
            if own["attribute"] not in self._entries:
                raise UsageError(
                    f"{own['module']} registers no {self.kind} {own['attribute']!r}; expected what its @register says"
                )
            name = own["attribute"]
        if name not in self._entries:
            plugin = self._plugins().get(name)
            if plugin is None:
                raise unknown_name(self.kind, name, [*self._listed(), *self._plugins()])
            self._load(plugin)
        return self._entries[name]

    def create(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Calls the builder of ``name``; raises UnknownNameError for it or for an option that the builder lacks."""
        return call_with_options(f"{self.kind} {name!r}", self.get(name), kwargs, *args)

    def names(self) -> list[str]:
        """All names that are listed, sorted; those of plug-ins are loaded."""
        self.broken = {}
        for name, plugin in self._plugins().items():
            try:
                self._load(plugin)
            except ModelCompressionError as error:
                self.broken[name] = str(error)
        return sorted(self._listed())

    def _listed(self) -> list[str]:
        return [name for name in self._entries if name not in self._unlisted]

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._plugins()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _plugins(self) -> "dict[str, EntryPoint]":
        """Entry points by name, without those that are loaded, or have the name of something built in."""
        if not self.group:
            return {}
        from importlib.metadata import entry_points  # a tenth of the time in which a help is printed

        found = entry_points(group=self.group)
        return {plugin.name: plugin for plugin in found if plugin.name not in self._entries}

    def _load(self, plugin: "EntryPoint") -> None:
        """Enters what an entry point names. Raises UsageError, with the plug-in's name, when it cannot be had."""
        package = plugin.dist.name if plugin.dist else "an unnamed package"
        origin = f"{self.kind} {plugin.name!r}, a plug-in of {package}"
        try:
            builder = plugin.load()
        except Exception as error:  # a stranger's module can raise anything while it is imported
            raise UsageError(
                f"{origin}, cannot be loaded from {plugin.value}: {type(error).__name__}: {error}; mend or remove it"
            ) from error
        if not self._accepts(builder):
            raise UsageError(f"{origin}, is {builder!r}; expected {self._expected}")
        self._entries.setdefault(plugin.name, builder)  # it may have registered itself while it was imported


def _place(builder: Callable[..., Any]) -> tuple[str, str]:
    """Where a function or class is defined."""
    return builder.__module__, builder.__qualname__
