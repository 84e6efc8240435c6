"""The data of a run: what is trained on, and what the student is evaluated on."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from model_compression.core import processes
from model_compression.core.config import TrainConfig
from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset, check_pair
from model_compression.data.image_views import view_notes
from model_compression.engine.observer import Observer
from model_compression.engine.parts import Parts
from model_compression.tasks import task_of


@dataclass(frozen=True, kw_only=True)
class RunData:
    """What is trained on, and what the student is evaluated on: "test", or "validation" images that are held out."""

    train: Dataset
    evaluation: Dataset
    evaluation_name: str
    thresholds: Dataset | None = None
    """Training samples that were held out, by which the task is `tuned`."""

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of what is trained on, and of what the student is evaluated on."""
        return {"data_sha256": self.train.digest, "test_data_sha256": self.evaluation.digest}


def load_run_data(config: TrainConfig, parts: Parts, observer: Observer) -> RunData:
    """The training set, and what the student is evaluated on."""
    train, test = parts.load_data(config, observer.message)
    check_pair(train, test)
    if train.holds_images:
        for line in view_notes(config.data, train.image_shape[0]):
            observer.message(line)
    if processes.world_size() > 1 and not train.has_ids:
        raise UsageError(
            f"a DataLoader gives each of {processes.world_size()} processes another order: give arrays, a dataset, or "
            "the name of one"
        )
    data = RunData(train=train, evaluation=test, evaluation_name="test")
    for name in ("validation", "thresholds"):
        count = getattr(config.data, name)
        if not count:
            continue
        if not train.labelled and task_of(train).has_label_loss:
            raise UsageError(f"{train.name} has no labels: leave {setting(name)} out, images held out need them")
        if name == "thresholds" and not task_of(train).finds_thresholds:
            raise UsageError(f"{setting(name)} has no effect on the task {train.task!r}; leave it out")
        train, held_out = parts.hold_out(data.train, count, name)
        data = dataclasses.replace(data, train=train, **_held_out(name, held_out))
    return data


def _held_out(name: str, dataset: Dataset) -> dict[str, Any]:
    """The fields of `RunData` for samples that are held out for "validation" or "thresholds"."""
    return {"evaluation": dataset, "evaluation_name": name} if name == "validation" else {"thresholds": dataset}
