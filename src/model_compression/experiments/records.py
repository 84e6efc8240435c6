"""Records of the runs of an experiment: what is recorded is not run again."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from model_compression.core.config import UNDECIDED, TrainConfig
from model_compression.core.config_json import to_dict
from model_compression.core.errors import RunFolderError
from model_compression.core.files import read_json, writing_failed
from model_compression.core.options import setting
from model_compression.core.run_options import result_values
from model_compression.reports.records import FAILURES, read_record, save_record

_POLL_S = 1.0


@contextmanager
def held(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Keeps other processes from making the runs whose records are in ``folder``; waits for one that makes them."""
    lock, waits = FileLock(folder / ".lock"), False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while not lock.is_locked:
            try:
                lock.acquire(timeout=_POLL_S)
            except Timeout:
                if not waits:
                    say(f"another process makes the runs of {folder}: waiting for it")
                waits = True
    except OSError as error:
        raise writing_failed(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def is_recorded(path: Path, config: TrainConfig) -> bool:
    """Whether the run has its record; raises RunFolderError when that is of another configuration.

    One that says why there is no result counts as none.
    """
    if not path.exists():
        return False
    record = read_record(path)
    if any(reason in record for reason in FAILURES):
        return False
    differing = differences(record["config"], to_dict(config))
    if differing:
        raise RunFolderError(f"{path} was made with another {', '.join(differing)}; choose another {setting('out')}")
    return True


def differences(recorded: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What differs between two configurations as plain values, as "optim.lr"; of what one of them lacks, the part.

    An option that there was not when the record was made had its default then. What no result depends on
    and what ``wanted`` leaves open is left out.
    """
    own, other = result_values(recorded), result_values(wanted)
    found = [place for place in other | own if own.get(place) != other.get(place)]
    found = [place for place in found if place not in wanted.get("left_open", ())]
    if {recorded.get("precision"), wanted["precision"]} <= {*UNDECIDED, None}:  # records of before have no "native"
        found = [place for place in found if place != "precision"]
    lacking = {part for part in wanted if not recorded.get(part) or not wanted[part]}
    parts = (place.partition(".")[0] for place in found)
    return [*dict.fromkeys(part if part in lacking else place for place, part in zip(found, parts, strict=True))]


def check_same_data(recorded: Mapping[str, Any], digests: object, folder: Path) -> None:
    """Raises RunFolderError where results in ``folder`` state other data; older ones state none."""
    if recorded.get("data_sha256", digests) != digests:
        raise RunFolderError(
            f"the data changed since the results in {folder} were made, which cannot be compared with new ones; bring "
            f"the data back, or choose another {setting('out')}"
        )


def write_record(path: Path, arm: str, config: TrainConfig, content: dict[str, Any]) -> None:
    """Writes the record of a run: its metrics and logs, or why it has none."""
    save_record(path, {"arm": arm, "config": to_dict(config), **content})


def logs(folder: Path) -> dict[str, Any]:
    """What a record takes from the run's folder: environment and the events of its epochs."""
    from model_compression.engine.events import read_events
    from model_compression.engine.run_folder import RunFolder

    run = RunFolder(folder)
    return {"environment": read_json(run.environment), "events": read_events(run.events)}
