"""Schemes: several runs in turn, each taught by the one before. They use the same trainer and add no losses.

`self`: born-again generations (Furlanello et al. 2018, arXiv 1805.04770). The same network is trained again and again,
each time taught by the last one; the first learns from labels, or from a teacher that is given. With `kd` and two
generations this is Tf-KD_self too (Yuan et al. 2020, arXiv 1909.11723).

`takd`: teacher assistants (Mirzadeh et al. 2020, arXiv 1902.03393). The teacher teaches an assistant of a size between,
that one the next, and the last one the student: where the teacher is too large for the student to follow.

Each stage is a run in the scheme's folder. Finished runs stay; an interrupted run resumes bit for bit.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import HERE, locate
from model_compression.core.config_values import Config
from model_compression.core.errors import UsageError
from model_compression.core.options import option
from model_compression.core.trust import all_files
from model_compression.engine.mutual import SEED_STRIDE
from model_compression.engine.observer import Observer
from model_compression.engine.parts import Parts
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import check_run
from model_compression.engine.teachers import check_cache_place, with_own_cache
from model_compression.engine.training import StageOfRuns
from model_compression.models.base import Network


@dataclass(frozen=True, kw_only=True)
class SchemeConfig(Config):
    """A scheme, whole: ``run`` says how each stage is trained, and who its teacher and its student are."""

    scheme: Literal["self", "takd"]
    run: TrainConfig
    generations: int = option(0, minimum=0, maximum=1000)
    """Of ``self``: how many networks are trained, the first included."""
    assistants: str = ""
    """Of ``takd``: names of networks, with commas between them, from the teacher's side to the student's."""

    def check(self) -> None:
        """Checks the values."""
        if self.run.method is None or self.run.peers is not None:
            raise UsageError(f"scheme {self.scheme!r} needs a method by which a network teaches the next, and no peers")
        if self.scheme == "self" and (self.generations < 2 or self.assistants):
            raise UsageError(f"scheme 'self' needs at least 2 generations, and no assistants; got {self.generations}")
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


class Scheme(StageOfRuns[SchemeConfig]):
    """Runs in turn; each teaches the next."""

    KIND, FILE, NOUN = SchemeConfig, "scheme.json", "scheme"

    @property
    def result(self) -> Path:
        """The last run."""
        return self.folder / [*stages_of(self.config)][-1]

    def is_done(self) -> bool:
        """Whether all runs are finished."""
        return all(RunFolder(self.folder / name).is_finished() for name in stages_of(self.config))

    def check(self) -> SchemeConfig:
        """Tries every run, with the untrained network of the one before as its teacher."""
        stages = [*stages_of(self.config).values()]
        check_cache_place(stages[0])
        data = self.parts.load_data(stages[0], self.observer.message)
        before: Network | None = None
        for config in stages:
            # The network before is not trained yet: its answers are not to be stored, nor to be judged.
            weak = config.allow_weak_teacher or before is not None
            looked_at = dataclasses.replace(config, teacher_cache="off", allow_weak_teacher=weak)
            parts = self.parts if before is None else Parts(data=data, teacher=before)
            before = check_run(looked_at, parts).trainer.network.deployed()
        return self.config

    def run(self) -> dict[str, dict[str, Any]]:
        """The metrics of each run by name, in order; the last one's are the result."""
        return self.finish_runs(self._runs())

    def _runs(self) -> Iterator[tuple[str, TrainConfig, str]]:
        stages = stages_of(self.config)
        for number, (name, config) in enumerate(stages.items(), start=1):
            source = locate(config.teacher.name, self.folder / name) if config.teacher else "labels"
            yield name, config, f"{name}, stage {number} of {len(stages)}: {config.student.name} from {source}"


@checked_arguments
def run_scheme(config: SchemeConfig, folder: str | Path, observer: Observer | None = None) -> dict[str, dict[str, Any]]:
    """Trains the stages of a scheme into runs in a new ``folder``; returns the metrics of each, by name, in order.

    The last one's are the result. Every stage is tried out before anything is written.

    Raises RunFolderError when the folder is taken, and what `start_run` raises.
    """
    return Scheme(config, folder, observer).start()


@checked_arguments
def resume_scheme(
    folder: str | Path, observer: Observer | None = None, *, trust: bool = False
) -> dict[str, dict[str, Any]]:
    """Continues an interrupted scheme, in whichever stage it stopped or between them; returns what `run_scheme` does.

    ``trust``: as for `resume_run`.

    Raises RunFolderError when there is nothing to continue, and what `resume_run` raises.
    """
    scheme = Scheme.at(folder, observer)
    with all_files(trust):
        return scheme.resume()
