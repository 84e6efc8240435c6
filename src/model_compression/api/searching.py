"""`search`: options of a training tuned on held-out images, and the best beside the defaults."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.api.experiments import Told
from model_compression.api.inputs import give_names, watched, with_data
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import DataConfig, MethodConfig, ModelConfig, TrainConfig
from model_compression.core.errors import UsageError
from model_compression.core.run_options import LEFT_OPEN, with_settings
from model_compression.engine.observer import Observer
from model_compression.experiments.executor import Executor
from model_compression.experiments.search import make_search
from model_compression.experiments.search_plan import plan_search
from model_compression.experiments.search_results import Found
from model_compression.experiments.study import Trial


@dataclass(frozen=True, kw_only=True, repr=False)
class Search:
    """What a search found.

    ``best`` is the trial with the best metric on the held-out images, with its ``settings`` by name; None where every
    trial failed. ``verdict`` says in a line whether it is better than the defaults on the test set. ``trials`` are all,
    by number; ``content`` is what search.json in ``out`` holds.
    """

    best: Trial | None
    verdict: str
    trials: list[Trial]
    content: dict[str, Any]
    out: Path
    text: str

    def __repr__(self) -> str:
        return self.text


@checked_arguments
def search(
    student: str | ModelConfig,
    data: str | DataConfig = "cifar10",
    *,
    teacher: str | ModelConfig | None = None,
    method: str | MethodConfig | None = None,
    tune: Sequence[str] | Mapping[str, Any] = (),
    trials: int = 20,
    final_seeds: int = 3,
    epochs: int = 30,
    storage: str | Path | None = None,
    out: str | Path | None = None,
    runs: str | Path = "runs",
    jobs: int = 1,
    executor: str = "local",
    config: TrainConfig | None = None,
    observer: Observer | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Search:
    """Tunes options of `train` or `distill` on held-out training images, and tests the best ones against the defaults.

    Each trial is a run in a process of its own. After each epoch a trial that is below the median of the others at that
    epoch is stopped. The test set chooses nothing: only the final runs see it, which train best and defaults on all
    images with seeds that no trial had. Settings are proposed by tree-structured Parzen estimators (Bergstra et al.
    2011) of Optuna (Akiba et al. 2019, arXiv 1907.10902).

    The same call resumes a search; several processes or machines that give the same arguments and ``storage`` share
    the trials out.

    Example:
        >>> found = mc.search(
        ...     "lenet", "synthetic", validation=100, epochs=1, trials=2, final_seeds=1, tune=["lr=1e-3:1e-2:log"],
        ...     out="results/found", precision="fp32",
        ... )
        >>> found.best.settings
        {'lr': ...}
        >>> len(found.trials)
        2

    Args:
        student: a network, by name.
        data: a dataset, by name.
        teacher: a network with weights, by name; with ``method``. None: train on labels.
        method: a name, or a `MethodConfig`; None: "kd" with a teacher, none without.
        tune: what is tuned. Texts, as "lr", "batch_size=32,64,128", "weight_decay=1e-6:1e-2:log", or a dictionary, as
            ``{"batch_size": [32, 64], "weight_decay": (1e-6, 1e-2, "log")}``. A name without values has those of its
            option. Names are settings, parameters of the method, and weights.TERM. By default lr, and the method's
            temperature and weights.
        trials: of the whole search, by all processes.
        final_seeds: final runs of best and defaults each; 0: none.
        epochs: of each run.
        storage: a file for a journal, or the address of a database, as "postgresql://me@host/search"; None:
            study.journal in ``out``.
        out: where results go; None: results/search-DATA-STUDENT-EPOCHS-epochs.
        runs: where run folders go.
        jobs: runs at once, each on a GPU of its own where there are several.
        executor: "local", or "ray" or "ray:ADDRESS" for processes of a Ray cluster.
        config: the recipe with the defaults; its networks, method, data and epochs are replaced.
        observer: who watches; takes the place of ``progress``.
        progress: whether lines are shown as the command shows them.
        settings: of `TrainConfig`, `DataConfig` or `OptimConfig`; ``validation``, the number of images held out, is
            needed.

    Raises:
        UsageError: a name, range or value that cannot be, or no images held out.
        RunFolderError: ``out`` holds another search.
        MissingExtraError: Optuna is not installed.
    """
    give_names(student, data, *([teacher] if teacher else []), *([method] if method else []))
    student = ModelConfig(name=student) if isinstance(student, str) else student
    if teacher is not None and method is None:
        method = "kd"
    base = config or TrainConfig(student=student, left_open=[*LEFT_OPEN])
    base = dataclasses.replace(
        base,
        student=student,
        teacher=ModelConfig(name=teacher) if isinstance(teacher, str) else teacher,
        method=MethodConfig(name=method) if isinstance(method, str) else method,
        epochs=epochs,
    )
    base = with_data(base, data)
    if isinstance(tune, str):
        raise UsageError(f"tune must be a list of texts or a dictionary, as [{tune!r}]")
    plan = plan_search(
        with_settings(base, settings),
        tune,
        trials=trials,
        final_seeds=final_seeds,
        storage=None if storage is None else str(storage),
        out=out,
        runs=runs,
        executor=Executor(jobs=jobs, name=executor),
    )
    with watched(observer, progress) as watcher:
        found: Found = make_search(plan, Told(watcher))
    return Search(
        best=found.best,
        verdict=found.verdict,
        trials=found.trials,
        content=found.content,
        out=plan.out,
        text=found.text,
    )
