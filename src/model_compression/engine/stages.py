"""Stages: each fills a folder of its own, is found done there, and resumes where it was interrupted.

A training run is the smallest one, see `training`. The others hold several of them, or turn a network into a file.
All stages of a process share data and teacher, see `Parts`.
"""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

from model_compression.core import trust
from model_compression.core.config_json import locate, to_dict
from model_compression.core.config_values import Config, affecting_result, from_dict
from model_compression.core.errors import FinishedError, Interrupted, ModelCompressionError, RunFolderError
from model_compression.core.files import plain_json, read_json, user_path, writing_failed
from model_compression.engine.observer import Observer, Silent
from model_compression.engine.parts import Parts
from model_compression.engine.relative_paths import ORIGIN, record_origin
from model_compression.engine.run_folder import LOCK, RunFolder
from model_compression.engine.stop_requests import ended_by_signals, words_and_code

C = TypeVar("C", bound=Config)
R = TypeVar("R")
_FILES = ("prune.json", "quantize.json", "compress.json", "scheme.json")  # what `FILE` is of those that there are


class Stage(ABC, Generic[C, R]):
    """What ``config`` asks for, in ``folder``. `start`, `resume` and `finish` return the result, see `run`."""

    KIND: ClassVar[type[Config]]
    FILE: ClassVar[str]
    """Holds the configuration, in the folder."""
    NOUN: ClassVar[str]
    """What a folder is called that holds one."""

    def __init__(
        self, config: C, folder: str | Path, observer: Observer | None = None, parts: Parts | None = None
    ):  # fmt: skip
        self.config, self.folder = config, user_path(folder)
        self.observer, self.parts = observer or Silent(), parts or Parts()

    @classmethod
    def at(cls, folder: str | Path, observer: Observer | None = None) -> Self:
        """The stage that was begun in ``folder``. Raises FileFormatError when its configuration cannot be read."""
        path = user_path(folder) / cls.FILE
        values = read_json(path)
        trust.read(values, path, path)
        return cls(from_dict(cls.KIND, values, str(path)), folder, observer)  # type: ignore[arg-type]

    @abstractmethod
    def check(self) -> C:
        """The configuration that is recorded. Raises what can be seen beforehand of all that `run` would raise."""

    @abstractmethod
    def run(self) -> R:
        """Does what is not done yet; returns the result."""

    @property
    @abstractmethod
    def result(self) -> Path:
        """Where the result is when the stage is done."""

    @abstractmethod
    def is_done(self) -> bool:
        """Whether the result is there, whole. Raises FileFormatError for one that was changed or damaged."""

    def start(self) -> R:
        """Runs in a new folder.

        Raises RunFolderError when the folder is taken, UsageError before anything is done, and Interrupted after a
        signal, with all kept that is done. An error before anything is done leaves no folder.
        """
        self._check_new()
        with self._interruptible():
            self.config = self.check()
            self._make_folder()
            with self._held():
                self._check_new()  # another process may have been faster
                self._begin()
                try:
                    return self.run()
                except Interrupted:
                    raise
                except ModelCompressionError:
                    self._leave_nothing()
                    raise

    def resume(self) -> R:
        """Does what is left. Raises FinishedError when there is nothing, and what `start` raises."""
        if self.is_done():
            raise FinishedError(f"{self.folder} is finished: there is nothing to resume; its result is {self.result}")
        with self._interruptible(), self._held():
            return self.run()

    def finish(self) -> R:
        """Starts, resumes, or finds done, whichever the folder asks for.

        Raises RunFolderError when it holds something else, and what `start` raises.
        """
        if not (self.folder / self.FILE).exists():
            return self.start()
        there, here = (locate(one, self.folder) for one in (self.at(self.folder).config, self.config))
        if affecting_result(there) != affecting_result(here):
            raise RunFolderError(f"{self.folder} holds another {self.NOUN}; choose another folder, or delete it")
        if self.is_done():  # also in a folder that can only be read
            return self.run()
        with self._held():
            return self.run()

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Raises RunFolderError where another process works in the folder."""
        folder = RunFolder(self.folder)
        folder.lock()
        try:
            yield
        finally:
            folder.unlock()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """An interruption inside says that it was in ``name``, and that this folder is what is to be resumed."""
        try:
            yield
        except Interrupted as stop:
            reason = str(stop).partition("; ")[0]
            raise Interrupted(f"{name}: {reason}; {self._way_on}", stop.exit_code) from None

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """A signal outside a training run, which saves its state and says so itself, ends with a line as well."""
        try:
            with ended_by_signals():
                yield
        except KeyboardInterrupt as stop:
            words, code = words_and_code(stop)
            begun = (self.folder / self.FILE).exists()
            said = f"what is done is kept; {self._way_on}" if begun else "nothing was written yet: repeat the command"
            raise Interrupted(f"{words}; {said}", code) from None

    @property
    def _way_on(self) -> str:
        return f"continue with: model-compression resume {self.folder}"

    def _check_new(self) -> None:
        """Raises RunFolderError, with the remedy, unless the folder is none yet, or empty."""
        if not self.folder.exists() or (self.folder.is_dir() and set(self.folder.iterdir()) <= self._hidden):
            return
        if self.folder.is_dir() and any((self.folder / name).exists() for name in _FILES):
            raise RunFolderError(
                f"{self.folder} is begun already: continue it with: model-compression resume {self.folder}, or choose "
                "another folder"
            )
        raise RunFolderError(f"{self.folder} exists and is not an empty folder; choose another one")

    @property
    def _hidden(self) -> set[Path]:
        """Files that a process leaves which did not begin."""
        return {self.folder / name for name in (LOCK, ORIGIN)}

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise writing_failed(self.folder, error) from error

    def _begin(self) -> None:
        """Writes the configuration into the folder."""
        record_origin(self.folder)
        values = to_dict(self.config)
        trust.write_sealed(self.folder / self.FILE, values, plain_json(values))

    def _leave_nothing(self) -> None:
        """Removes what `_begin` wrote, if the folder holds nothing else: the same options would fail again."""
        if {self.folder / self.FILE, *self._hidden} >= set(self.folder.iterdir()):
            shutil.rmtree(self.folder)
