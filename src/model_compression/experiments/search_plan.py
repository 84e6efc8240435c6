"""What a search is to do: the run, the options that it tunes, how many trials, and where all of it goes."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.core.config import TrainConfig
from model_compression.core.config_json import to_dict
from model_compression.core.errors import RunFolderError, UsageError
from model_compression.core.files import read_json, user_path
from model_compression.core.options import Option, setting
from model_compression.core.run_options import result_values, short_name
from model_compression.core.text import count
from model_compression.experiments.executor import ONE_BY_ONE, Executor
from model_compression.experiments.search_space import Tuned, Wanted, search_space

_MOST_TRIALS, _MOST_SEEDS = 100_000, 1000


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What is searched: results go to ``out``, run folders to ``runs``; ``base`` is the run with its defaults."""

    base: TrainConfig
    space: tuple[Tuned, ...]
    trials: int
    final_seeds: int
    out: Path
    runs: Path
    storage: str
    executor: Executor

    @property
    def trial_config(self) -> TrainConfig:
        """`base`, evaluated on the held-out images after each epoch."""
        return dataclasses.replace(self.base, evaluate_every=1)

    def folder(self, number: int) -> Path:
        """Of a trial."""
        return self.runs / self.out.name / f"trial-{number:03}"

    @property
    def identity(self) -> dict[str, Any]:
        """What two calls share that work on the same search; that of `results`, which an earlier version may have made.

        Raises RunFolderError when ``out`` holds a search of another run, or of other options.
        """
        own = {"config": to_dict(self.base), "tune": [str(tuned) for tuned in self.space]}
        return self._recorded(own) if self.results.exists() else own

    @property
    def results(self) -> Path:
        """The file with all results, which has the identity from the beginning."""
        return self.out / "search.json"

    def _recorded(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        recorded = read_json(self.results)
        own, wanted = (result_values(found["config"]) for found in (recorded, asked))
        found = [place for place in own | wanted if own.get(place) != wanted.get(place)]
        if recorded["tune"] != asked["tune"]:
            found.append(f"{setting('tune')} ({', '.join(recorded['tune'])})")
        if found:
            raise RunFolderError(
                f"{self.out} holds a search with another {', '.join(found)}; choose another {setting('out')}"
            )
        return {key: recorded[key] for key in asked}


def plan_search(
    base: TrainConfig,
    tune: Wanted = (),
    *,
    trials: int = 20,
    final_seeds: int = 3,
    storage: str | Path | None = None,
    out: str | Path | None = None,
    runs: str | Path = "runs",
    executor: Executor = ONE_BY_ONE,
) -> SearchPlan:
    """Raises UsageError for values that cannot be, and for a run that holds no images out."""
    Option(minimum=1, maximum=_MOST_TRIALS).check("trials", trials)
    Option(minimum=0, maximum=_MOST_SEEDS).check("final_seeds", final_seeds)
    if isinstance(tune, str):
        raise UsageError(f"tune must be a list of texts or a dictionary, as [{tune!r}]")
    if storage == "":
        raise UsageError(f"{setting('storage')} is empty; give it a value, or leave it out")
    if not base.data.validation:
        raise UsageError(
            "a search compares its trials on training images that are held out, as the test set must choose nothing: "
            f"give {setting('validation', 5000)}, or about a tenth of your training images"
        )
    folder = user_path(str(out or f"results/search-{short_name(base)}-{count(base.epochs, 'epoch').replace(' ', '-')}"))
    return SearchPlan(
        base=base,
        space=tuple(search_space(base, tune)),
        trials=trials,
        final_seeds=final_seeds,
        out=folder,
        runs=user_path(str(runs)),
        storage=str(storage or folder / "study.journal"),
        executor=executor,
    )
