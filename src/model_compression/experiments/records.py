"""Records of the runs of an experiment: what is recorded is not run again."""

from pathlib import Path
from typing import Any

from model_compression.core.config import UNDECIDED, ModelConfig, TrainConfig, to_dict
from model_compression.core.errors import RunFolderError
from model_compression.core.files import read_json
from model_compression.reports.records import FAILURES, read_record, save_record

_PLACES = ("teacher_cache", "data_dir", "resident", "workers", "tensorboard", "wandb", "allow_weak_teacher")


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
        raise RunFolderError(f"{path} was made with another {', '.join(differing)}; choose another --out")
    return True


def differences(recorded: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What differs between two configurations as plain values, as "optim.lr".

    An option that there was not when the record was made had its default then; where things lie is of no matter.
    """
    found = []
    recorded = _with_defaults(recorded)
    for key in wanted:
        if key not in recorded or key in _PLACES or recorded[key] == wanted[key]:
            continue
        if key == "precision" and {recorded[key], wanted[key]} <= {*UNDECIDED}:  # records of before have no "native"
            continue
        if isinstance(recorded[key], dict) and isinstance(wanted[key], dict):
            values = wanted[key]
            options = [option for option in values if option in recorded[key] and option not in _PLACES]
            found += [f"{key}.{option}" for option in options if recorded[key][option] != values[option]]
        else:
            found.append(key)
    return found


def _with_defaults(recorded: dict[str, Any]) -> dict[str, Any]:
    defaults = to_dict(TrainConfig(student=ModelConfig(name="")))
    return {
        **defaults,
        **{
            key: {**defaults[key], **value}
            if isinstance(value, dict) and isinstance(defaults.get(key), dict)
            else value
            for key, value in recorded.items()
        },
    }


def write_record(path: Path, arm: str, config: TrainConfig, content: dict[str, Any]) -> None:
    """Writes the record of a run: its metrics and logs, or why it has none."""
    save_record(path, {"arm": arm, "config": to_dict(config), **content})


def logs(folder: Path) -> dict[str, Any]:
    """What a record takes from the run's folder: environment and the events of its epochs."""
    from model_compression.engine.events import read_events
    from model_compression.engine.run_folder import RunFolder

    run = RunFolder(folder)
    return {"environment": read_json(run.environment), "events": read_events(run.events)}
