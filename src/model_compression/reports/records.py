"""Records of runs: a JSON file each, in the results folder of an experiment."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_compression.core.errors import FileFormatError
from model_compression.core.files import read_json, write_atomically
from model_compression.core.manifest import with_digest, without_digest
from model_compression.reports.run_results import check_figures

FAILURES = ("failed", "not_run")
"""The keys of a record without metrics: the reason why there are none."""


def record_path(folder: Path, arm: str, seed: int) -> Path:
    """The file of the record of a run."""
    return folder / f"{arm}-seed{seed}.json"


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records in a results folder, by name of the file. Raises FileFormatError for a damaged one."""
    return [read_record(path) for path in sorted(folder.glob("*-seed*.json"))]


def read_record(path: Path) -> dict[str, Any]:
    """One record: its arm and config, with metrics and events, or the reason why there are none."""
    try:
        record = without_digest(read_json(path), path)
        record["arm"], record["config"]["seed"]
        if not any(reason in record for reason in FAILURES):
            record["events"]
            check_figures(record["metrics"], path)
    except (FileFormatError, KeyError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{path} is damaged ({error}); delete it and its run is made again") from None
    return record


def save_record(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record with its digest: a reader refuses a record that was changed afterwards."""
    write_atomically(path, (json.dumps(with_digest(record)) + "\n").encode())
