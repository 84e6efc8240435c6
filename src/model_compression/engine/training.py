"""A training run as a stage, and stages that hold several of them."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

from model_compression.core.config import TrainConfig
from model_compression.core.config_values import Config
from model_compression.core.errors import Interrupted
from model_compression.engine.observer import Observer
from model_compression.engine.parts import Parts
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import check_run, check_same, resume_run, start_run
from model_compression.engine.stages import C, Stage
from model_compression.engine.stop_requests import stop_requests
from model_compression.models.base import Network

Metrics = dict[str, Any]


class Training(Stage[TrainConfig, Metrics]):
    """One run. ``strict``, ``finished`` and ``lr``, for a resumed run, are as for `start_run` and `resume_run`."""

    KIND: ClassVar[type[Config]] = TrainConfig
    FILE, NOUN = "config.json", "run"

    def __init__(
        self,
        config: TrainConfig,
        folder: str | Path,
        observer: Observer | None = None,
        parts: Parts | None = None,
        *,
        strict: bool = False,
        finished: Callable[[Network], None] = lambda network: None,
    ):
        super().__init__(config, folder, observer, parts)
        self.strict, self.finished = strict, finished
        self.lr: float | None = None

    @classmethod
    def at(cls, folder: str | Path, observer: Observer | None = None) -> Self:
        """The run that was begun in ``folder``. Raises RunFolderError when there is none."""
        return cls(RunFolder(folder).read_config(), folder, observer)

    @property
    def result(self) -> Path:
        """The trained weights."""
        return RunFolder(self.folder).student

    def is_done(self) -> bool:
        """Whether it is finished."""
        run = RunFolder(self.folder)
        return run.config.exists() and run.is_finished()

    def check(self) -> TrainConfig:
        """Builds what the run needs."""
        check_run(self.config, self.parts)
        return self.config

    def start(self) -> Metrics:
        """The metrics of a new run; see `start_run`, which rehearses it besides."""
        return start_run(
            self.config, self.folder, self.observer, parts=self.parts, strict=self.strict, finished=self.finished
        )

    def resume(self) -> Metrics:
        """The metrics of an interrupted run; see `resume_run`."""
        return resume_run(
            self.folder, self.observer, parts=self.parts, lr=self.lr, rest=self.config, strict=self.strict,
            finished=self.finished,
        )  # fmt: skip

    def run(self) -> Metrics:
        """The metrics, of a run that is finished, resumed or made anew, whichever the folder asks for.

        A signal that arrives while the results are written raises Interrupted after them, before the next run begins.
        """
        folder = RunFolder(self.folder)
        if self.is_done():
            return folder.read_metrics()
        with stop_requests() as stopped:
            metrics = self.resume() if folder.config.exists() else self.start()
        if stopped:  # by a signal that came too late for this run, whose result is written
            raise Interrupted(
                f"stopped behind {folder.path}, which is finished; continue with: model-compression resume "
                f"{folder.path}",
                exit_code=128 + stopped[0],
            )
        return metrics

    def finish(self) -> Metrics:
        """`run`, in a folder that is new or of the same configuration. Raises RunFolderError for another one."""
        if RunFolder(self.folder).config.exists():
            check_same(self.folder, self.config)
        return self.run()


class StageOfRuns(Stage[C, dict[str, Metrics]]):
    """A stage that consists of runs in its folder."""

    def finish_runs(self, runs: Iterable[tuple[str, TrainConfig, str]]) -> dict[str, Metrics]:
        """The metrics, by name, of the runs: each a name, its configuration, and a line about it.

        A run is asked for when those before it are finished.
        """
        metrics = {}
        for name, config, line in runs:
            training = Training(config, self.folder / name, self.observer, self.parts)
            if training.is_done():  # whatever the folder was called when it was made
                metrics[name] = training.run()
                continue
            self.observer.message(line)
            try:
                with self.part(name):
                    metrics[name] = training.finish()
            except Interrupted:
                if not self.is_done():
                    raise
                metrics[name] = training.run()  # the signal came too late: nothing is left to do
        return metrics
