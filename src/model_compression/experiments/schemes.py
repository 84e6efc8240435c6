"""Schemes of several runs in turn, each taught by the one before: recipes over the same trainer, no losses.

`self`: born-again generations (Furlanello et al. 2018, arXiv 1805.04770). The same network is trained again and again,
each time taught by the last one; the first learns from labels, or from a teacher that is given. With `kd` and two
generations this is Tf-KD_self too (Yuan et al. 2020, arXiv 1909.11723).

`takd`: teacher assistants (Mirzadeh et al. 2020, arXiv 1902.03393). The teacher teaches an assistant of a size between,
that one the next, and the last one the student: where the teacher is too large for the student to follow.

Each stage is a run of its own in the scheme's folder. What is finished stays, what was interrupted goes on to the bit.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import HERE, ModelConfig, TrainConfig, from_dict, located, to_dict
from model_compression.core.config_values import Config
from model_compression.core.errors import Interrupted, RunFolderError, UsageError
from model_compression.core.files import plain_json, read_json, user_path, writing_failed
from model_compression.core.trust import all_files, read, write_sealed
from model_compression.engine.mutual import SEED_STRIDE
from model_compression.engine.observer import Observer, Silent
from model_compression.engine.parts import Parts
from model_compression.engine.relative_paths import record_origin
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import check_run, finish_run
from model_compression.engine.teachers import check_cache_place, load_data, with_own_cache
from model_compression.models.base import Network

_FILE = "scheme.json"
_MOST = 1000  # generations


@dataclass(frozen=True, kw_only=True)
class SchemeConfig(Config):
    """A scheme, whole: ``run`` says how each stage is trained, and who its teacher and its student are."""

    scheme: Literal["self", "takd"]
    run: TrainConfig
    generations: int = 0
    """Of ``self``: how many networks are trained, the first included."""
    assistants: str = ""
    """Of ``takd``: names of networks, with commas between them, from the teacher's side to the student's."""

    def check(self) -> None:
        """Checks the values."""
        if self.run.method is None or self.run.peers is not None:
            raise UsageError(f"scheme {self.scheme!r} needs a method by which a network teaches the next, and no peers")
        if self.scheme == "self" and (self.generations < 2 or self.assistants):
            raise UsageError(f"scheme 'self' needs at least 2 generations, and no assistants; got {self.generations}")
        if self.generations > _MOST:
            raise UsageError(f"generations must be at most {_MOST}, got {self.generations}")
        if self.scheme == "takd" and (not self.assistants.strip() or self.generations):
            raise UsageError("scheme 'takd' needs assistants, as resnet20,resnet14, and no generations")
        if self.scheme == "takd" and self.run.teacher is None:
            raise UsageError("scheme 'takd' needs a teacher, which teaches the first assistant")


def stages_of(config: SchemeConfig) -> dict[str, TrainConfig]:
    """The runs of a scheme by name, in order. Generations have seeds of their own."""
    run, stages = config.run, dict[str, TrainConfig]()
    if config.scheme == "self":
        count = config.generations
        networks = {f"generation-{number}": run.student for number in range(1, count + 1)}
    else:
        names = [name.strip() for name in config.assistants.split(",")]
        networks = {f"assistant-{number}": ModelConfig(name=name) for number, name in enumerate(names, start=1)}
        networks["student"] = run.student
    teacher = run.teacher
    for number, (name, network) in enumerate(networks.items()):
        stages[name] = dataclasses.replace(
            with_own_cache(run, name) if number else run,
            student=network,
            teacher=teacher,
            method=run.method if teacher is not None else None,
            seed=run.seed + (SEED_STRIDE * number if config.scheme == "self" else 0),
            allow_weak_teacher=run.allow_weak_teacher or number > 0,  # what a stage came to is what is asked for
        )
        teacher = ModelConfig(name=f"{HERE}../{name}")  # beside it, wherever the folder is moved
    return stages


@checked_arguments
def run_scheme(config: SchemeConfig, folder: str | Path, observer: Observer | None = None) -> dict[str, dict[str, Any]]:
    """Trains the stages of a scheme into runs in a new ``folder``; returns the metrics of each, by name, in order.

    The last one's are the result. Every stage is tried out before anything is written.

    Raises RunFolderError when the folder is taken, and what `start_run` raises.
    """
    folder, observer = user_path(folder), observer or Silent()
    if folder.is_dir() and (folder / _FILE).exists():
        remedy = f"continue it with: model-compression resume {folder}"
        raise RunFolderError(f"{folder} holds a scheme: {remedy}, or choose another folder with --out")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunFolderError(f"{folder} exists and is not an empty folder; choose another with --out")
    stages = stages_of(config)
    _check(list(stages.values()), observer)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise writing_failed(folder, error) from error
    record_origin(folder)
    write_sealed(folder / _FILE, to_dict(config), plain_json(to_dict(config)))
    return _finish(stages, folder, observer)


def is_scheme(folder: str | Path) -> bool:
    """Whether ``folder`` is that of a scheme, and not of a run."""
    return (user_path(folder) / _FILE).is_file()


@checked_arguments
def resume_scheme(
    folder: str | Path, observer: Observer | None = None, *, trust: bool = False
) -> dict[str, dict[str, Any]]:
    """Continues an interrupted scheme, in whichever stage it stopped or between them; returns what `run_scheme` does.

    ``trust``: as for `resume_run`.

    Raises RunFolderError when there is nothing to continue, and what `resume_run` raises.
    """
    folder = user_path(folder)
    values = read_json(folder / _FILE)
    read(values, folder / _FILE, folder / _FILE)
    stages = stages_of(from_dict(SchemeConfig, values, str(folder / _FILE)))
    if all(RunFolder(folder / name).is_finished() for name in stages):
        raise RunFolderError(
            f"{folder} is finished: there is nothing to resume; its result is in {folder / [*stages][-1]}"
        )
    with all_files(trust):
        return _finish(stages, folder, observer or Silent())


def _check(stages: list[TrainConfig], observer: Observer) -> None:
    """Raises what a stage would raise at its beginning, with the untrained network of the one before as its teacher."""
    check_cache_place(stages[0])
    data = load_data(stages[0].data, observer.message)
    before: Network | None = None
    for config in stages:
        # The network before is not trained yet: its answers are not to be stored, nor to be judged.
        weak = config.allow_weak_teacher or before is not None
        looked_at = dataclasses.replace(config, teacher_cache="off", allow_weak_teacher=weak)
        before = check_run(looked_at, Parts(data=data, teacher=before)).network.deployed()


def _finish(stages: dict[str, TrainConfig], folder: Path, observer: Observer) -> dict[str, dict[str, Any]]:
    metrics = {}
    for number, (name, config) in enumerate(stages.items(), start=1):
        source = located(config.teacher.name, folder / name) if config.teacher else "labels"
        observer.message(f"{name}, stage {number} of {len(stages)}: {config.student.name} from {source}")
        stage = RunFolder(folder / name)
        if stage.is_finished():  # whatever the folder was called when it was made
            metrics[name] = stage.read_metrics()
            continue
        try:
            metrics[name] = finish_run(config, stage.path, observer)
        except Interrupted as stop:
            reason = str(stop).partition("; continue with")[0]
            message = f"{name}: {reason}; continue with: model-compression resume {folder}"
            raise Interrupted(message, stop.exit_code) from None
    return metrics
