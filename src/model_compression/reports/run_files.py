"""Reads run folders without torch, also those of runs in progress and of stopped runs."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.core.config import TrainConfig
from model_compression.core.config_json import locate
from model_compression.core.config_values import from_dict
from model_compression.core.errors import FileFormatError, RunFolderError, UsageError
from model_compression.core.files import read_json, user_path
from model_compression.core.metric import DEFAULT_METRIC, Metric, primary_metric
from model_compression.reports.run_results import check_results, is_number, read_results
from model_compression.reports.sections import Section

Values = Mapping[str, Any]
QUANTISATION, QUANTISED = "quantize.json", "report.json"
"""The configuration of a quantisation, and what it writes when it is finished."""


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The content of a run folder.

    ``path`` is as it was given. ``events`` has a dictionary for each epoch that is done. ``metrics``,
    ``predictions``, ``student_bytes`` (of the weights file) and ``network``, whose weights it has, as "lenet" or
    "pruned lenet", are None until the run is finished. ``section`` reads the predictions, see `Results`.
    ``metric`` is the primary one. ``measured`` is the content of
    measure.json, None without one. ``sealed`` is that of `Results`.
    """

    path: Path
    config: Values
    environment: Values
    events: Sequence[Values]
    metrics: Values | None
    metric: Metric
    section: Section | None
    predictions: Any
    student_bytes: int | None
    network: str | None
    measured: Values | None
    sealed: bool

    @property
    def seed(self) -> int:
        """The seed of the initial weights and of the order of the images."""
        return int(self.config["seed"])

    @property
    def eval_set(self) -> str:
        """What the metrics are of: "test", or "validation" where training images were held out."""
        return "validation" if self.config.get("data", {}).get("validation") else "test"

    @property
    def result(self) -> float | None:
        """The primary metric of the last epoch; None until the run is finished."""
        return None if self.metrics is None else float(self.metrics[self.metric.key(self.eval_set)])

    @property
    def test_data(self) -> str | None:
        """The digest of what the metrics are of; None where an older run does not say it."""
        digest = self.environment.get("test_data_sha256")
        return None if digest is None else str(digest)

    @property
    def epochs_done(self) -> int:
        """The number of epochs with an event."""
        return int(self.events[-1]["epoch"]) if self.events else 0


def find_runs(paths: Sequence[str | Path], leave_out: Callable[[str], None] | None = None) -> list[RunFiles]:
    """The runs in the folders that `run_places` finds, each once.

    Damaged or changed runs are passed to ``leave_out`` with the reason; the others are returned.
    Raises what `run_places` does, and FileFormatError for the first such run without ``leave_out``, or where no other
    is left.
    """
    folders: dict[Path, Path] = {}
    for place in run_places(paths):
        for folder in _run_folders(place):
            folders.setdefault(folder.resolve(), folder)
    runs, faults = list[RunFiles](), list[FileFormatError]()
    for folder in folders.values():
        try:
            runs.append(read_run(folder))
        except FileFormatError as error:
            faults.append(error)
    if faults and (leave_out is None or not runs):
        raise faults[0]
    for fault in faults if leave_out is not None else ():
        leave_out(str(fault))  # type: ignore[misc]
    return runs


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
        if (path / QUANTISATION).is_file():
            raise RunFolderError(
                f"{path} is a quantisation without training of {_source_of(path)}, which is no run folder here; its "
                f"figures are in {path / QUANTISED}"
            )
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
    found = sorted((child.parent for child in path.glob("*/config.json")), key=_natural)
    source = None if found else _source_of(path)  # a quantisation that needed no training
    return [source] if source is not None and (source / "config.json").is_file() else found


def _source_of(folder: Path) -> Path | None:
    """What the quantisation in ``folder`` was made of; None for a folder of another kind."""
    path = folder / QUANTISATION
    name = locate(read_json(path), folder).get("model") if path.is_file() else None
    return Path(name) if isinstance(name, str) else None


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts generation-10 behind generation-9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def read_run(folder: Path, metrics: Values | None = None) -> RunFiles:
    """The run in ``folder``, finished with ``metrics`` where metrics.json is still to be written.

    Raises FileFormatError for damaged files, with their names.
    """
    try:
        return _read_run(folder, metrics)
    except OSError as error:  # a folder that may not be looked into
        raise FileFormatError(f"{folder} cannot be read: {error.strerror}") from None


def _read_run(folder: Path, metrics: Values | None) -> RunFiles:
    path = folder / "config.json"
    config = locate(read_json(path), folder)
    for key in ("student", "data", "epochs", "seed"):
        if key not in config:
            raise FileFormatError(f"{path} is not of a run: the key {key!r} is missing")
    try:
        data = from_dict(TrainConfig, config, str(path)).data.name
    except UsageError as error:
        raise FileFormatError(f"{path} is damaged: {error}") from None
    results = read_results(folder, data) if metrics is None else check_results(folder, metrics, data, sealed=True)
    weights = folder / "student.safetensors"
    has_weights = results is not None and weights.is_file()
    run = RunFiles(
        path=folder,
        config=config,
        environment=_read_environment(folder / "environment.json"),
        events=_read_events(folder / "events.jsonl"),
        metrics=results.metrics if results else None,
        metric=primary_metric(results.metrics if results else None),
        section=results.section if results else None,
        predictions=results.predictions if results else None,
        student_bytes=weights.stat().st_size if has_weights else None,
        network=_read_network_name(weights) if has_weights else None,
        measured=_read_measurement(folder / "measure.json"),
        sealed=results is not None and results.sealed,
    )
    key = run.metric.key(run.eval_set)
    if run.metrics is not None and key not in run.metrics:
        raise FileFormatError(f"{folder / 'metrics.json'} is damaged: {key} is missing")
    return run


def _read_environment(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values = read_json(path)
    are_plain = all(value is None or isinstance(value, str | int | float) for value in values.values())
    if type(values.get("threads", 1)) is not int or not are_plain:
        raise FileFormatError(f"{path} is damaged: it holds other values than versions, names and a number of threads")
    return values


def _read_events(path: Path) -> list[dict[str, Any]]:
    """All complete lines; a run in progress may be writing the last one."""
    if not path.is_file():
        return []
    try:
        events = [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from None
    if not all(isinstance(event, dict) and _is_event(event) for event in events):
        raise FileFormatError(f"{path} is damaged: a line is not the record of an epoch")
    return events


def _is_event(event: Values) -> bool:
    """Whether it has an epoch and numbers; a loss may be NaN or infinite."""
    terms = event.get("terms", {})
    if type(event.get("epoch")) is not int or not isinstance(terms, Mapping):
        return False
    shares = [value for key, value in event.items() if key.endswith((f"_{DEFAULT_METRIC.name}", "_agreement"))]
    numbers = [value for key, value in event.items() if key != "terms" and not isinstance(value, str | None)]
    numbers += terms.values()
    return all((is_number(value) and 0 <= value <= 1) or value != value for value in shares) and all(
        type(value) is float or is_number(value) for value in numbers
    )


def _read_network_name(path: Path) -> str | None:
    """The name of the network in a weights file, as "pruned lenet"; None where the file does not name it."""
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


def _read_measurement(path: Path) -> dict[str, Any] | None:
    """The output of `model-compression measure RUN --json`."""
    if not path.is_file():
        return None
    values = read_json(path)
    needed = ("runtime", "batch", "threads", "median_ms", "p95_ms")
    entries = values.get("latency")
    if (
        not isinstance(entries, list)
        or not all(isinstance(entry, dict) and {*needed} <= {*entry} for entry in entries)
        or not all(isinstance(entry["runtime"], str) for entry in entries)
        or not all(is_number(entry[key]) and entry[key] > 0 for entry in entries for key in needed[1:])
        or not is_number(values.get("parameters", 1))
    ):
        raise FileFormatError(f"{path} is not what `model-compression measure RUN --json` prints: no latency in it")
    return values
