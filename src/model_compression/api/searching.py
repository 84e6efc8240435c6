"""`search`: options of a training tuned on held-out images, and the best beside the defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.api.argument_texts import described
from model_compression.api.experiments import Told
from model_compression.api.inputs import give_names, run_config, watched
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.engine.fitting import sized_run
from model_compression.engine.observer import Observer
from model_compression.experiments.executor import Executor
from model_compression.experiments.search import make_search
from model_compression.experiments.search_plan import plan_search
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


@described
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
    """Tunes options of `train` or `distill` on held-out images, and tests the best against the defaults.

    Each trial is a process; one that is below the median of the others after an epoch is stopped. Only the final runs
    see the test set: they train best and defaults on all images, with seeds that no trial had. Optuna (Akiba et al.
    2019, arXiv 1907.10902) proposes settings by tree-structured Parzen estimators (Bergstra et al. 2011). The same call
    resumes a search; those with the same ``storage`` share the trials out.

    Example:
        >>> found = mc.search("lenet", "synthetic", validation=100, epochs=1, trials=2, final_seeds=1, precision="fp32")
        >>> found.best.settings
        {'lr': ...}

    Args:
        student: a network, by name.
        data: a dataset, by name.
        teacher: a network with weights, by name; with ``method``. None: train on labels.
        method: a name, or a `MethodConfig`; None: that of `distill` with a teacher, none without.
        tune: `api.argument_texts`.
        trials: of the whole search, by all processes.
        final_seeds: final runs of best and defaults each; 0: none.
        storage: a journal file, or a database, as "postgresql://me@host/search"; None: study.journal in ``out``.
        out: where results go; None: results/search-DATA-STUDENT-EPOCHS-epochs.
        config: the recipe with the defaults; its networks, method, data and epochs are replaced.
        epochs, runs, jobs, executor, observer, progress: `api.argument_texts`.
        settings: of `TrainConfig`, `DataConfig` or `OptimConfig`; ``validation``, the images held out, is needed.

    Raises:
        UsageError: a name, range or value that cannot be, or no images held out.
        RunFolderError: ``out`` holds another search.
        MissingExtraError: Optuna is not installed.
    """
    give_names(student, data, teacher, method)
    base = run_config(config, student, teacher, method, settings, data, epochs=epochs)
    with watched(observer, progress) as watcher:
        plan = plan_search(
            sized_run(base, watcher.message), tune, trials=trials, final_seeds=final_seeds, storage=storage, out=out,
            runs=runs, executor=Executor(jobs=jobs, name=executor),
        )  # fmt: skip
        return Search(**vars(make_search(plan, Told(watcher))), out=plan.out)
