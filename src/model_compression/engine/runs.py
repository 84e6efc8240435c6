"""A run from its configuration to its folder: new, resumed after an interruption, or repeated."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from model_compression.core import processes
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import UNDECIDED, TrainConfig
from model_compression.core.config_json import config_digest, locate, to_dict
from model_compression.core.config_values import affecting_result
from model_compression.core.errors import FinishedError, ModelCompressionError, RunFolderError, UsageError
from model_compression.core.options import setting
from model_compression.core.run_options import decided_as, result_values
from model_compression.core.trust import all_files
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.engine.checkpoint import State, load_state
from model_compression.engine.events import read_events
from model_compression.engine.observer import Observer, Silent
from model_compression.engine.parts import Parts
from model_compression.engine.recovery import way_on_after_signal, ways_on
from model_compression.engine.rehearsal import rehearse
from model_compression.engine.results import write_results
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.run_loop import RunLoop
from model_compression.engine.setup import Prepared, prepare
from model_compression.engine.stop_requests import stop_requests
from model_compression.engine.teachers import num_views
from model_compression.engine.trackers import open_trackers
from model_compression.models.base import Network


@checked_arguments
def start_run(
    config: TrainConfig,
    folder: str | Path,
    observer: Observer | None = None,
    *,
    parts: Parts | None = None,
    strict: bool = False,
    finished: Callable[[Network], None] = lambda network: None,
) -> dict[str, Any]:
    """Trains as ``config`` says, into a new ``folder``; returns the run's metrics.

    ``parts`` take the place of what ``config`` names; ``finished`` is given the trained network. ``strict`` makes an
    error of what is otherwise a line: all that is wrong and cheap to see in data and teacher.

    Raises RunFolderError when the folder is taken, Interrupted after a signal (the state is saved), and what the data,
    the models and the method raise.
    """
    run = RunFolder(folder)
    processes.meet()
    processes.on_main(run.check_free)
    observer = _watching(observer)
    # before the folder: a usage error leaves nothing behind
    parts = parts or Parts()
    with way_on_after_signal(run):
        prepared = prepare(config, observer, parts, run.path, decide=True, strict=strict)
        config = prepared.config
        rehearse(config, prepared, parts, observer, write_results)
        processes.on_main(lambda: run.create(config, prepared.data.digests))
        try:
            metrics = _train(config, prepared, run, observer, None)
            finished(prepared.trainer.network.deployed())
            return metrics
        finally:
            run.unlock()


@checked_arguments
def resume_run(
    folder: str | Path,
    observer: Observer | None = None,
    *,
    parts: Parts | None = None,
    lr: float | None = None,
    rest: TrainConfig | None = None,
    strict: bool = False,
    finished: Callable[[Network], None] = lambda network: None,
    trust: bool = False,
) -> dict[str, Any]:
    """Continues an interrupted run to the weights that it would have reached; returns its metrics.

    ``parts`` are those that it was started with; ``finished`` is given the trained network. ``lr``, after a loss that
    exploded, is the schedule's largest rate from here on; the metrics then hold it, as the configuration alone no
    longer says how the weights came to be. ``rest`` says anew what the result does not depend on, as the device and
    where the data is. ``trust``: whether code that the configuration names is imported where the
    run is not one that you made on this machine.

    Raises RunFolderError when there is nothing to continue, or when config, data or teacher are no longer the run's,
    and UsageError for a rate that cannot be.
    """
    run = RunFolder(folder)
    processes.meet()
    observer, parts = _watching(observer), parts or Parts()
    config = processes.on_main(run.read_config)
    config = config if rest is None else dataclasses.replace(affecting_result(config, rest), left_open=[])
    processes.on_main(lambda: _lock(run))
    try:
        state = processes.on_main(lambda: _state_to_resume(run, config, observer))
        if lr is not None:
            _check_lr(run, config, state, lr)
        with way_on_after_signal(run):
            with all_files(trust):
                prepared = prepare(config, observer, parts, run.path, strict=strict)
            if state is not None:
                _check_unchanged(run, prepared, state)
                _say_changed_code(run, prepared.code, state, observer)
            rehearse(config, prepared, parts, observer, write_results)
            processes.on_main(lambda: run.begin(prepared.data.digests))
            metrics = _train(config, prepared, run, observer, state, lr)
            finished(prepared.trainer.network.deployed())
            return metrics
    finally:
        run.unlock()


def check_run(config: TrainConfig, parts: Parts | None = None) -> Prepared:
    """Raises what `start_run` would before it makes its folder, but for `rehearse`; returns what would train."""
    return prepare(config, Silent(), parts or Parts())


def fill_cache(config: TrainConfig, observer: Observer, parts: Parts | None = None) -> CachedTeacher:
    """Stores all answers that a run of ``config`` reads, and returns what serves them.

    Raises UsageError when ``config`` stores none, and what `start_run` raises before it makes its folder.
    """
    if config.teacher is None or config.teacher_cache == "off":
        raise UsageError(
            f"there is nothing to store: give a teacher, and {setting('teacher_cache', 'auto')} or a folder"
        )
    teacher = prepare(config, _watching(observer), parts or Parts()).trainer.teacher
    if not isinstance(teacher, CachedTeacher):
        raise UsageError(
            "there is nothing to store: the teacher answers live; give a method that compares no features, or for "
            f"very many answers name a folder with {setting('teacher_cache')}"
        )
    for view in range(num_views(config)):
        teacher.view(view)
    return teacher


def check_same(folder: str | Path, config: TrainConfig) -> None:
    """Raises RunFolderError unless ``folder`` holds a run of ``config``; what that leaves open is the run's own."""
    run = RunFolder(folder)
    recorded = run.read_config()
    config = decided_as(config, recorded)
    if config.precision in UNDECIDED:
        taken = {"precision": recorded.precision, "teacher_precision": recorded.teacher_precision}
        config = dataclasses.replace(config, **taken)  # type: ignore[arg-type]
    own, wanted = (result_values(to_dict(locate(one, run.path))) for one in (recorded, config))
    differing = [
        f"{key} {own.get(key, 'none')} there, {wanted.get(key, 'none')} here"
        for key in sorted(own.keys() | wanted.keys())
        if own.get(key) != wanted.get(key)
    ]
    if differing:
        raise RunFolderError(
            f"{folder} holds a run of another configuration ({'; '.join(differing)}); choose another folder, or "
            "delete it"
        )


def _watching(observer: Observer | None) -> Observer:
    """``observer`` in the process that speaks."""
    return observer if observer is not None and processes.is_main() else Silent()


def _lock(run: RunFolder) -> None:
    """Takes the folder; raises FinishedError for a finished run in one that can only be read."""
    try:
        run.lock()
    except RunFolderError:
        raise
    except ModelCompressionError:
        if run.is_finished():
            raise _finished(run) from None
        raise


def _finished(run: RunFolder) -> FinishedError:
    return FinishedError(
        f"{run.path} is finished: there is nothing to resume; its figures are in {run.metrics}; to train its network "
        f"for more epochs: {run.trained_on}"
    )


def _state_to_resume(run: RunFolder, config: TrainConfig, observer: Observer) -> State | None:
    """What a run in a locked folder goes on from; None: its beginning. Raises FinishedError when it is finished."""
    run.mend(observer.message)
    if run.is_finished():  # seen under the lock: another process may just have finished it
        raise _finished(run)
    state = load_state(run.state, observer.message)
    if state is None:
        _check_beginning(run, config, observer)
    return state


def _check_beginning(run: RunFolder, config: TrainConfig, observer: Observer) -> None:
    """Says that a run begins anew, as it stopped before its first save. Raises RunFolderError when it had saved."""
    count = len(read_events(run.events))
    if count > config.checkpoint_every:
        raise RunFolderError(
            f"{run.path} has done {count} epochs, and its {run.state.name} is gone: it cannot go on; put the file "
            "back, or start a new run"
        )
    if count:
        observer.message(f"{run.path} stopped before its first save: it begins anew")


def _check_unchanged(run: RunFolder, prepared: Prepared, state: State) -> None:
    for key, digest in prepared.identity.items():
        if state.progress.get(key, digest) not in (digest, *_digests_of_before(prepared.config)):
            what = key.removesuffix("_sha256").replace("_", " ")
            raise RunFolderError(f"the {what} of {run.path} has changed since its state was saved; start a new run")


def _digests_of_before(config: TrainConfig) -> Iterator[str]:
    """The digests of ``config`` as states of earlier versions have them."""
    placeless = dataclasses.replace(config.data, data_dir=None, resident="auto", workers=None)
    yield config_digest(dataclasses.replace(config, data=placeless, teacher_cache="auto"))  # with the device
    if (config.data.fit, config.data.crop_share) == ("crop", 1.0):  # which were defaults
        data = dataclasses.replace(config.data, fit=None, crop_share=None)
        yield config_digest(affecting_result(dataclasses.replace(config, data=data)))


def _say_changed_code(run: RunFolder, code: dict[str, str], state: State, observer: Observer) -> None:
    """A fault that is mended in a long run's method must not cost the run; but it is another run from there on."""
    before: dict[str, str] = state.progress.get("code", {})
    changed = [name for name, digest in code.items() if before.get(name, digest) != digest]
    if changed:
        observer.message(
            f"{' and '.join(changed)} changed since the state of {run.path} was saved: what follows is trained by the "
            "new code, and the whole cannot be repeated; for a clean result start a new run"
        )


def _check_lr(run: RunFolder, config: TrainConfig, state: State | None, lr: float) -> None:
    """Raises UsageError unless the run can go on with another rate."""
    dataclasses.replace(config.optim, lr=lr)  # checks the value
    if config.peers is not None:
        raise UsageError(f"a run with peers goes on with its own rate: leave {setting('lr')} out, or start a new run")
    if state is None:
        raise UsageError(f"{run.path} has no saved state to go on from with another rate: start a new run with it")


def _train(
    config: TrainConfig,
    prepared: Prepared,
    run: RunFolder,
    observer: Observer,
    state: State | None,
    lr: float | None = None,
) -> dict[str, Any]:
    with ways_on(run), stop_requests() as stopped:
        loop = RunLoop(config, prepared, run, observer, state, stopped)
        if lr is not None:
            loop.change_lr(lr)
        with open_trackers(config, run.path, loop.next_epoch, observer.message) as trackers:
            loop.train(trackers)
            metrics = write_results(config, prepared, run, loop.seconds, observer)  # a signal changes nothing now
            for tracker in trackers:
                tracker.close(metrics)
            return metrics
