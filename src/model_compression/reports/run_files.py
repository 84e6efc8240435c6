"""What a run folder holds, read without torch: also of a run that is still going, or that stopped."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.core.config import TrainConfig, from_dict, located
from model_compression.core.errors import FileFormatError, RunFolderError, UsageError
from model_compression.core.files import read_json, user_path
from model_compression.core.manifest import FILE as MANIFEST
from model_compression.core.manifest import check_manifest
from model_compression.reports.answers import accuracy
from model_compression.reports.predictions import Predictions, read_predictions

Values = Mapping[str, Any]
_LARGEST = 1e18  # of what is counted or measured
STATES = ("state.safetensors", "state-previous.safetensors")
"""What a run goes on from until it is finished."""
_MAY_GO = ("predictions.safetensors", "environment.json", "events.jsonl", "timing.jsonl")
"""Results without which a finished run still says what it came to, so that they may be deleted to save space."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a finished run came to; ``sealed`` says whether a manifest vouches for it, which older runs lack."""

    metrics: Values
    predictions: Predictions | None
    sealed: bool


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """A run as its folder has it.

    ``path`` is as it was given. ``events`` has a dictionary for each epoch that is done. ``metrics``, ``predictions``,
    ``student_bytes`` (of the weights file) and ``network``, whose weights it has, as "lenet" or "pruned lenet", are
    None until the run is finished; ``measured`` is what is in measure.json, as `measure --json` prints it, None
    without one. ``sealed`` is that of `Results`.
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
    sealed: bool

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
    try:
        return _read_run(folder, metrics)
    except OSError as error:  # a folder that may not be looked into
        raise FileFormatError(f"{folder} cannot be read: {error.strerror}") from None


def _read_run(folder: Path, metrics: Values | None) -> RunFiles:
    config = located(read_json(folder / "config.json"), folder)
    for key in ("student", "data", "epochs", "seed"):
        if key not in config:
            raise FileFormatError(f"{folder / 'config.json'} is not of a run: the key {key!r} is missing")
    try:
        data = from_dict(TrainConfig, config, str(folder / "config.json")).data.name
    except UsageError as error:
        raise FileFormatError(f"{folder / 'config.json'} is damaged: {error}") from None
    results = read_results(folder, data) if metrics is None else _results(folder, metrics, data, sealed=True)
    weights = folder / "student.safetensors"
    run = RunFiles(
        path=folder,
        config=config,
        environment=_environment(folder / "environment.json"),
        events=_events(folder / "events.jsonl"),
        metrics=results.metrics if results else None,
        predictions=results.predictions if results else None,
        student_bytes=weights.stat().st_size if results and weights.is_file() else None,
        network=_network(weights) if results and weights.is_file() else None,
        measured=_measured(folder / "measure.json"),
        sealed=results is not None and results.sealed,
    )
    key = f"{run.eval_set}_accuracy"
    if run.metrics is not None and not _is_share(run.metrics.get(key)):
        raise FileFormatError(f"{folder / 'metrics.json'} is damaged: {key} is {run.metrics.get(key)!r}")
    return run


def read_results(folder: Path, data: str = "") -> Results | None:
    """What the run in ``folder``, on ``data``, came to; None until it is finished. All readers of results come here.

    A run is finished with its manifest; one that was made before there were manifests, with metrics and weights that
    are whole, and no state to go on from. While there is a state, nothing that is damaged is an error: the run goes on.

    Raises FileFormatError, which names the file, for results that were changed or damaged, and for metrics other than
    those of the predictions.
    """
    sealed = (folder / MANIFEST).exists()
    goes_on = has_state(folder)
    if not sealed and (goes_on or not (folder / "metrics.json").exists()):
        return None
    try:
        check_manifest(folder, may_lack=_MAY_GO)
        if not sealed:
            _check_weights(folder / "student.safetensors")
        return _results(folder, read_json(folder / "metrics.json"), data, sealed)
    except FileFormatError:
        if goes_on:
            return None
        raise


def has_state(folder: Path) -> bool:
    """Whether the run in ``folder`` has a state to go on from, as it has until it is finished."""
    return any((folder / name).is_file() for name in STATES)


def _results(folder: Path, metrics: Values, data: str, sealed: bool) -> Results:
    path = folder / "predictions.safetensors"
    predictions = read_predictions(path, data) if path.is_file() else None
    kind = "validation" if "validation_accuracy" in metrics else "test"
    stated = {key: metrics.get(key) for key in (f"{kind}_accuracy", f"teacher_{kind}_accuracy", "teacher_agreement")}
    if not _is_share(stated[f"{kind}_accuracy"]):
        raise FileFormatError(
            f"{folder / 'metrics.json'} is damaged: {kind}_accuracy is {stated[f'{kind}_accuracy']!r}"
        )
    for key, found in (_shares(predictions, kind) if predictions else {}).items():
        value = stated[key]
        if value is not None and not (_is_share(value) and abs(value - found) < 1e-9):
            raise FileFormatError(
                f"{folder / 'metrics.json'} states {key} {value}, and {path.name} gives {found}: one of them was "
                "changed after the run finished"
            )
    check_figures(metrics, folder / "metrics.json")
    return Results(metrics=metrics, predictions=predictions, sealed=sealed)


def check_figures(metrics: Values, path: Path) -> None:
    """Raises FileFormatError, naming ``path``, for a value in a run's metrics that no run writes."""
    for key, value in metrics.items():
        if key.endswith(("_accuracy", "_agreement", "_ece")):
            is_right = _is_share(value)
        elif key.endswith("_nll") or key in ("seconds", "parameters", "lr_changed_to"):
            is_right = (value is None and key == "lr_changed_to") or _is_number(value)
        else:
            is_right = value is None or isinstance(value, str | int | float)
        if not is_right:
            raise FileFormatError(f"{path} is damaged: {key} is {value!r}")


def _shares(found: Predictions, kind: str) -> dict[str, float]:
    """The headline figures, computed from the answers."""
    own = {f"{kind}_accuracy": accuracy(found.student, found.targets).share}
    if found.teacher is None:
        return own
    agrees = accuracy(found.student, found.teacher.argmax(axis=1)).share
    return {
        **own,
        f"teacher_{kind}_accuracy": accuracy(found.teacher, found.targets).share,
        "teacher_agreement": agrees,
    }


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            pass
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from None


def _is_number(value: Any) -> bool:
    """Whether it is a finite number, as one that is measured or counted."""
    return type(value) in (int, float) and abs(value) < _LARGEST


def _is_share(value: Any) -> bool:
    return _is_number(value) and bool(0 <= value <= 1)


def _environment(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values = read_json(path)
    if type(values.get("threads", 1)) is not int or not _are_plain(values.values()):
        raise FileFormatError(f"{path} is damaged: it holds other values than versions, names and a number of threads")
    return values


def _are_plain(values: Iterable[Any]) -> bool:
    return all(value is None or isinstance(value, str | int | float) for value in values)


def _events(path: Path) -> list[dict[str, Any]]:
    """The whole lines; the last one may be in the middle of being written."""
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
    shares = [value for key, value in event.items() if key.endswith(("_accuracy", "_agreement"))]
    numbers = [value for key, value in event.items() if key != "terms" and not isinstance(value, str | None)]
    numbers += terms.values()
    return all(_is_share(value) or value != value for value in shares) and all(
        type(value) is float or _is_number(value) for value in numbers
    )


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
    values = read_json(path)
    needed = ("runtime", "batch", "threads", "median_ms", "p95_ms")
    entries = values.get("latency")
    if (
        not isinstance(entries, list)
        or not all(isinstance(entry, dict) and {*needed} <= {*entry} for entry in entries)
        or not all(isinstance(entry["runtime"], str) for entry in entries)
        or not all(_is_number(entry[key]) and entry[key] > 0 for entry in entries for key in needed[1:])
        or not _is_number(values.get("parameters", 1))
    ):
        raise FileFormatError(f"{path} is not what `model-compression measure RUN --json` prints: no latency in it")
    return values
