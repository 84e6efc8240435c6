"""The runs of an experiment, each with a record: an interrupted run is resumed, a recorded one is not made again."""

import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import surroundings
from model_compression.core.config import TrainConfig
from model_compression.core.files import write_json
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.engine.parts import Parts
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.training import Training


def make_recorded(
    name: str, config: TrainConfig, records: Path, runs: Path, *, parts: Parts | None = None, teaches: bool = False
) -> None:
    """Makes the run, or what is missing of it, in RUNS/NAME, and writes RECORDS/NAME.json unless it is there.

    ``parts`` take the place of what ``config`` names. A run that ``teaches`` others is needed in its folder, also where
    it has a record.
    """
    if (records / f"{name}.json").exists() and (not teaches or RunFolder(runs / name).is_finished()):
        return
    with ConsoleObserver() as observer:
        observer.message(name)
        metrics = Training(config, runs / name, observer, parts).finish()
    records.mkdir(parents=True, exist_ok=True)
    write_json(records / f"{name}.json", {"surroundings": surroundings(torch.device("cpu")), "metrics": metrics})


def metrics_of(records: Path, pattern: str) -> list[dict[str, Any]]:
    """The metrics of the records whose names match ``pattern``, in their order."""
    return [json.loads(path.read_text())["metrics"] for path in sorted(records.glob(f"{pattern}.json"))]
