"""A run folder: everything about one run, and nothing of another."""

import itertools
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from model_compression._version import __version__
from model_compression.core.config import TrainConfig
from model_compression.core.config_json import flat, from_json, is_given, to_dict, to_json
from model_compression.core.errors import FileFormatError, ModelCompressionError, NotThereError, RunFolderError
from model_compression.core.files import TEMPORARY, read_json, user_path, write_json, writing_failed
from model_compression.core.manifest import FILE as MANIFEST
from model_compression.core.manifest import begin_again, check_manifest, write_manifest
from model_compression.core.options import setting, speaks_flags
from model_compression.core.trust import write_sealed
from model_compression.engine.checkpoint import delete_states
from model_compression.engine.relative_paths import ORIGIN, record_origin
from model_compression.reports.run_results import has_state, read_results

LOCK = ".lock"


class RunFolder:
    """The files of a run.

    config.json, environment.json, events.jsonl (one line an epoch), timing.jsonl; when finished metrics.json,
    student.safetensors, of a network without a head backbone.safetensors too, its model card README.md,
    predictions.safetensors (test logits of student and teacher), and, last, manifest.json with the digests of all but
    the card; until then state.safetensors and the state before it, state-previous.safetensors.
    """

    def __init__(self, path: str | Path):
        self.path = user_path(path)
        self.config = self.path / "config.json"
        self.environment = self.path / "environment.json"
        self.events = self.path / "events.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.metrics = self.path / "metrics.json"
        self.card = self.path / "README.md"
        self.student = self.path / "student.safetensors"
        self.backbone = self.path / "backbone.safetensors"
        self.predictions = self.path / "predictions.safetensors"
        self.manifest = self.path / MANIFEST
        self.state = self.path / "state.safetensors"
        self._lock = FileLock(self.path / LOCK)

    def create(self, config: TrainConfig, data: Mapping[str, str] | None = None) -> None:
        """Makes the folder for a new run, and takes it for this process. Raises RunFolderError when it is taken.

        ``data`` are digests of what it trains and is tested on, which stand beside the versions.
        """
        self.check_free()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise writing_failed(self.path, error) from error
        self.lock()
        try:
            self.check_free()  # another process may have been faster
            record_origin(self.path)
            write_sealed(self.config, to_dict(config), to_json(config).encode())
            self.mend()
            write_json(self.environment, environment() | dict(data or {}))
        except BaseException:
            self.unlock()
            raise

    def check_free(self) -> None:
        """Raises RunFolderError, with the remedy, when the folder holds anything."""
        if not self.path.exists():
            return
        if self.path.is_dir() and all(
            entry.name in (LOCK, ORIGIN) or entry.match(TEMPORARY) for entry in self.path.iterdir()
        ):
            return
        another = f"choose another folder with {setting('run_dir', flag='out')}"
        if not self.path.is_dir():
            raise RunFolderError(f"{self.path} is a file, not a folder; {another}")
        if self.manifest.exists() or self.metrics.exists():
            remedy = f"that run is finished; {another}"
        elif self._is_in_use():
            remedy = f"another process trains in it; {another}"
        elif has_state(self.path):
            remedy = f"continue that run with: {self.way_on}"
        elif self.config.exists():
            remedy = f"that run stopped before its first save; {another}, or start it again with: {self.way_on}"
        else:
            remedy = f"it holds something else; {another}"
        raise RunFolderError(f"{self.path} exists and is not empty: {remedy}")

    @property
    def is_stopped(self) -> bool:
        """Whether it holds a run that is not finished, and that no process has."""
        if not self.config.exists() or self.metrics.exists():
            return False
        try:
            self.lock()
        except ModelCompressionError:
            return False
        self.unlock()
        return True

    def _is_in_use(self) -> bool:
        if not (self.path / LOCK).exists():  # to take a lock would write one, into a folder of something else
            return False
        try:
            self.lock()
        except RunFolderError:
            return True
        except ModelCompressionError:  # a folder that can only be read
            return False
        self.unlock()
        return False

    @property
    def trained_on(self) -> str:
        """The command or call that trains a finished run's network for more epochs."""
        distils = self.read_config().method is not None
        if not speaks_flags() or self._is_of_objects:
            given = "distill(teacher, " if distils else "train("
            return f"model_compression.{given}{str(self.path)!r}, data, epochs=N)"
        verb = "distill" if distils else "train"
        return f"model-compression {verb} --config {self.config} --student {self.path} --epochs N"

    @property
    def _is_of_objects(self) -> bool:
        """Whether modules or arrays were given from Python, so that no command can repeat the run."""
        with suppress(ModelCompressionError):  # of a damaged configuration
            return is_given(flat(to_dict(self.read_config())))
        return False

    @property
    def way_on(self) -> str:
        """What continues the run: a command, or for a run on objects that were given from Python a call."""
        if self._is_of_objects:
            return f"model_compression.distill(..., run_dir={str(self.path)!r}, resume=True)"
        return f"model-compression resume {self.path}"

    def lock(self) -> None:
        """Takes the folder for this process. Raises RunFolderError when another one has it."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(
                f"{self.path} is in use by another process; wait for it or choose another folder"
            ) from None
        except OSError as error:  # a folder that can only be read
            raise writing_failed(self.path / LOCK, error) from error

    def wait_until_free(self, seconds: float) -> None:
        """Waits for another process that has the folder, ``seconds`` at most."""
        if self.path.exists():
            with suppress(Timeout, OSError), self._lock.acquire(timeout=seconds):
                pass

    def unlock(self) -> None:
        """Gives the folder back. The file stays: to unlink it could hand the lock to two processes."""
        self._lock.release()

    def mend(self, report: Callable[[str], None] = lambda message: None) -> None:
        """Does what a process that was killed here left undone; the folder must be locked."""
        for path in self.path.glob(TEMPORARY):
            path.unlink(missing_ok=True)
        if self.manifest.exists() and self.is_finished():
            delete_states(self.state)
            return
        try:
            read_json(self.environment)
        except FileFormatError as error:
            if self.environment.exists():
                report(f"{error}; it is written anew, as of this process")
            write_json(self.environment, environment())

    def is_finished(self) -> bool:
        """Whether the run's results are there, whole. Raises FileFormatError for those that were changed or damaged."""
        return read_results(self.path) is not None

    def begin(self, data: Mapping[str, str]) -> None:
        """Takes away what says that the run is finished, before it trains on; ``data`` as for `create`."""
        begin_again(self.path)
        self.metrics.unlink(missing_ok=True)
        recorded = read_json(self.environment)
        if recorded | dict(data) != recorded:  # killed before they were written, or written by an earlier version
            write_json(self.environment, recorded | dict(data))

    def finish(self, metrics: dict[str, Any]) -> None:
        """Writes the metrics, then the manifest, with which the run is finished, and deletes the states."""
        write_json(self.metrics, metrics)
        logs = [self.events, self.timing]
        results = [self.config, self.environment, *logs, self.metrics, self.predictions, self.student]
        further = [self.path.glob(name) for name in ("peer-*.safetensors", self.backbone.name, "tokenizer.json")]
        write_manifest(self.path, [path.name for path in (*results, *itertools.chain(*further))])
        delete_states(self.state)

    def read_config(self) -> TrainConfig:
        """The run's configuration. Raises RunFolderError when there is no run."""
        if not self.config.is_file():
            if not self.path.exists():
                raise NotThereError(f"{self.path} is not there; expected the folder of a run, as runs/mine")
            raise RunFolderError(f"{self.path} is not a run folder: it has no config.json")
        if not has_state(self.path):
            check_manifest(self.path, [self.config.name])
        try:
            return from_json(TrainConfig, self.config.read_text(), str(self.config))
        except UnicodeDecodeError as error:
            raise RunFolderError(f"{self.config} is damaged: {error}; start a new run") from None

    def read_metrics(self) -> dict[str, Any]:
        """The figures of a finished run. Raises RunFolderError for an unfinished one, and what `is_finished` does."""
        found = read_results(self.path)
        if found is None:
            raise RunFolderError(f"{self.path} has no metrics.json: the run is not finished; resume it")
        return dict(found.metrics)


def free_folder(folder: Path) -> tuple[Path, str]:
    """``folder``, or with the first number behind its name that is free; and a line that says so, where it is taken."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    free = next(one for one in itertools.chain([folder], numbered) if not (one.exists() and any(one.iterdir())))
    if free == folder:
        return folder, ""
    run = RunFolder(folder)
    stopped = f"; the run there stopped, continue it with: {run.way_on}" if run.is_stopped else ""
    return free, f"{folder} is taken: this goes into {free}{stopped}"


def environment() -> dict[str, Any]:
    """Versions and hardware that figures depend on; no name of a machine, user or folder."""
    return {
        "model_compression": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
