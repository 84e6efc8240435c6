"""What a run folder holds, read without torch: also of a run that is still going, or that stopped."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.errors import FileFormatError, RunFolderError, UsageError
from model_compression.files import user_path
from model_compression.report.predictions import Predictions, read_predictions

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """A run as its folder has it.

    ``path`` is as it was given. ``events`` has a dictionary for each epoch that is done. ``metrics``, ``predictions``,
    ``student_bytes`` (of the weights file) and ``network``, whose weights it has, as "lenet" or "pruned lenet", are
    None until the run is finished; ``measured`` is what is in measure.json, as `measure --json` prints it, None
    without one.
    """

    path: Path
    config: Values
    environment: Values
    events: Sequence[Values]
    metrics: Values | None
    predictions: Predictions | None
    student_bytes: int | None
    network: str | None
    measured: Values | None

    @property
    def seed(self) -> int:
        """Of the initial weights and the order of the images."""
        return int(self.config["seed"])

    @property
    def eval_set(self) -> str:
        """What accuracies are of: "test", or "validation" where training images were held out."""
        return "validation" if self.config.get("data", {}).get("validation") else "test"

    @property
    def accuracy(self) -> float | None:
        """Of the last epoch, 0 to 1; None until the run is finished."""
        return None if self.metrics is None else float(self.metrics[f"{self.eval_set}_accuracy"])


def find_runs(paths: Sequence[str | Path]) -> list[RunFiles]:
    """The runs in the folders that `run_places` finds, each once. Raises what it does, FileFormatError for damage."""
    folders: dict[Path, Path] = {}
    for place in run_places(paths):
        for folder in _run_folders(place):
            folders.setdefault(folder.resolve(), folder)
    return [read_run(folder) for folder in folders.values()]


def run_places(paths: Sequence[str | Path]) -> list[Path]:
    """The folders that ``paths`` name: of a run, of a scheme, a comparison or a compression.

    Raises UsageError for a path that is no folder, RunFolderError for one without runs.
    """
    places = []
    for given in paths:
        path = user_path(given)
        if not path.is_dir():
            what = "a file" if path.exists() else "not there"
            raise UsageError(f"{path} is {what}; expected the folder of a run, or one with runs in it, as runs/mine")
        if _run_folders(path):
            places.append(path)
            continue
        found = [child for child in sorted(path.iterdir(), key=_natural) if child.is_dir() and _run_folders(child)]
        if not found and any(path.glob("*-seed*.json")):
            raise RunFolderError(
                f"{path} has records of runs, not the runs; give the folder of the runs themselves, as runs/{path.name}"
            )
        if not found:
            raise RunFolderError(f"{path} is no run folder: it has no config.json, nor has a folder in it")
        places += found
    return places


def _run_folders(path: Path) -> list[Path]:
    if (path / "config.json").is_file():
        return [path]
    return sorted((child.parent for child in path.glob("*/config.json")), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts generation-10 behind generation-9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def read_run(folder: Path, metrics: Values | None = None) -> RunFiles:
    """The run in ``folder``, finished with ``metrics`` where metrics.json is still to be written.

    Raises FileFormatError for damaged files, with their names.
    """
    config = _object(folder / "config.json")
    for key in ("student", "data", "epochs", "seed"):
        if key not in config:
            raise FileFormatError(f"{folder / 'config.json'} is not of a run: the key {key!r} is missing")
    if not all(isinstance(config[key], Mapping) and "name" in config[key] for key in ("student", "data")):
        raise FileFormatError(f"{folder / 'config.json'} is damaged: student and data have no name")
    if not all(type(config[key]) is int for key in ("epochs", "seed")):
        raise FileFormatError(f"{folder / 'config.json'} is damaged: epochs and seed are no integers")
    if metrics is None and (folder / "metrics.json").is_file():
        metrics = _object(folder / "metrics.json")
    finished = metrics is not None
    weights, predictions = folder / "student.safetensors", folder / "predictions.safetensors"
    run = RunFiles(
        path=folder,
        config=config,
        environment=_object(folder / "environment.json") if (folder / "environment.json").is_file() else {},
        events=_events(folder / "events.jsonl"),
        metrics=metrics,
        predictions=read_predictions(predictions, config["data"]["name"])
        if finished and predictions.is_file()
        else None,
        student_bytes=weights.stat().st_size if finished and weights.is_file() else None,
        network=_network(weights) if finished and weights.is_file() else None,
        measured=_measured(folder / "measure.json"),
    )
    key = f"{run.eval_set}_accuracy"
    if run.metrics is not None and not _is_share(run.metrics.get(key)):
        raise FileFormatError(f"{folder / 'metrics.json'} is damaged: {key} is {run.metrics.get(key)!r}")
    if run.metrics is not None and not isinstance(run.metrics.get("seconds", 0.0), int | float):
        raise FileFormatError(f"{folder / 'metrics.json'} is damaged: seconds is {run.metrics['seconds']!r}")
    return run


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of JSON or UTF-8
        raise FileFormatError(f"{path} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise FileFormatError(f"{path} is damaged: expected an object with keys, got a {type(values).__name__}")
    return values


def _events(path: Path) -> list[dict[str, Any]]:
    """The whole lines; the last one may be in the middle of being written."""
    if not path.is_file():
        return []
    try:
        events = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise FileFormatError(f"{path} is damaged: {error}") from None
    for event in events:
        if not isinstance(event, dict) or type(event.get("epoch")) is not int:
            raise FileFormatError(f"{path} is damaged: a line is not the record of an epoch")
    return events


def _network(path: Path) -> str | None:
    """The network that a weights file names, behind what was done to it; None where it does not say."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {})["model_compression"])
        name, options = header["model"], header["options"]
        words = [name]
        while isinstance(options.get("body"), str):  # as pruned has it, and of what it may have been made
            words.append(options["body"])
            options = options.get("body_options") or {}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return " ".join(words) if all(isinstance(word, str) for word in words) else None


def _measured(path: Path) -> dict[str, Any] | None:
    """What `measure RUN --json` printed into it."""
    if not path.is_file():
        return None
    values = _object(path)
    needed = ("runtime", "batch", "threads", "median_ms", "p95_ms")
    entries = values.get("latency")
    if not isinstance(entries, list) or not all(isinstance(e, dict) and {*needed} <= {*e} for e in entries):
        raise FileFormatError(f"{path} is not what `model-compression measure RUN --json` prints: no latency in it")
    return values
