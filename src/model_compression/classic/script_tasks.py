"""The three tasks of the historic script on the modern path, and the lines that it printed."""

import dataclasses
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_compression.checks import networks as checks
from model_compression.classic.local_weights import local_teacher, with_local_weights
from model_compression.core.config import TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.device import choose_device, choose_precision
from model_compression.core.errors import NotThereError, RunFolderError
from model_compression.core.files import user_path
from model_compression.data.sources import DATASETS
from model_compression.engine import runs
from model_compression.engine.contracts import Progress
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.trainer import Trainer
from model_compression.models import Network
from model_compression.models.copies import place
from model_compression.models.loading import read_model
from model_compression.models.prediction import predict
from model_compression.models.weights import find_weights, shipped_weights

_NUM_CLASSES = 10  # of CIFAR-10, the script's one dataset
_MODES = {"logits": "NIPS2014", "noisy_teacher": "noisy", "kd": "knowledge distilling"}


def train(config: TrainConfig, data: DataConfig, folder: Path) -> None:
    """Trains the student into ``folder``: a run folder that also holds model-10, model-20 and so on."""
    try:
        RunFolder(folder).check_free()  # before anything is imported
    except RunFolderError as error:
        raise RunFolderError(str(error).replace("--out", "--model")) from None
    assert config.method is not None
    print(f"prepare for training, {_MODES[config.method.name]} mode", flush=True)
    config = dataclasses.replace(config, data=data, allow_weak_teacher=True)  # the script trained on any
    config = with_local_weights(config, Path.cwd())
    metrics = runs.start_run(config, folder, ClassicObserver(folder))
    print(
        f"acc = {metrics['test_accuracy']:f} on the test images, teacher {metrics['teacher_test_accuracy']:f}. "
        f"The student is in {RunFolder(folder).student}; measure it with --task test --model {folder}"
    )


def test(model: str, data: DataConfig) -> None:
    """Measures the student in a model-N file, a run folder or a weights file."""
    print("Task : test")
    _measure(read_model(_student_file(model)), data)


def validate(shipped: str, data: DataConfig) -> None:
    """Measures the teacher: teacher.npy of the working folder, else the one that is ``shipped``."""
    print("Task : val\nvalidate the teacher: teacher.npy in this folder, else the one that is shipped")
    teacher = local_teacher(Path.cwd(), data)
    _measure(read_model(find_weights(shipped)) if teacher is None else teacher, data)


class ClassicObserver:
    """Prints the script's line an epoch; gives the weights that are kept in ``folder`` its names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun, self._iterations = 0.0, 0
        self._sums_before: Tensor | None = None  # of the epoch, before the last step
        self._cost: Tensor | float = 0.0

    def message(self, text: str) -> None:
        """A line of its own."""
        print(text, file=sys.stderr, flush=True)

    def started(self, trainer: Trainer, eval_set: str) -> None:
        """Says how long an epoch is."""
        self._begun, self._iterations = time.monotonic(), trainer.steps_per_epoch
        print(f"number of iterations (per epoch) ={self._iterations}", flush=True)

    def stepped(self, progress: Progress) -> None:
        """Adds the step's loss, a mean over its batch, to the cost of the epoch, without waiting for the device."""
        sums = progress.sums.clone()
        step = sums if self._sums_before is None else sums - self._sums_before
        self._cost = self._cost + step[0] / step[2]  # the last batch counts as much as the others, however small
        self._sums_before = sums

    def epoch_done(self, event: dict[str, Any]) -> None:
        """The line of the epoch, and the file model-N where weights were kept."""
        epoch, cost = event["epoch"], float(self._cost)
        print(
            f"epoch {epoch} - avg. {(time.monotonic() - self._begun) / epoch:f} seconds in each epoch, "
            f"lr = {event['rate']:.0e}, cost = {cost:f} , "
            f"avg-cost-per-logits = {cost / self._iterations / _NUM_CLASSES:f}",
            flush=True,
        )
        self._sums_before, self._cost = None, 0.0
        kept = _weights_of(self._folder, epoch)
        if kept.exists():
            print(f"Epoch  {epoch}  is done. Saving the model ...", flush=True)
            kept.rename(self._folder / f"model-{epoch}")

    def teacher_answered(self, done: int, total: int) -> None:
        """Says once that the teacher answers, which takes longer than an epoch."""
        if done == total:
            self.message(f"the teacher's answers to {total} images are stored; later runs read them")


def _measure(model: Network, data: DataConfig) -> None:
    _, dataset = DATASETS.get(data.name)(data.data_dir)
    checks.check_classes("model", model, dataset)
    device = choose_device("auto")
    begun = time.monotonic()
    logits = predict(place(model, device), dataset, device, choose_precision("auto", device))
    seconds = time.monotonic() - begun
    correct, total = int((logits.argmax(dim=1) == torch.from_numpy(dataset.labels)).sum()), len(dataset)
    print(f"acc = {correct / total:f} . {correct}/{total}.  Computing time = {seconds:f} seconds")


def _student_file(model: str) -> Path:
    path = user_path(model)
    match = re.fullmatch(r"model-(\d+)", path.name)
    if match and not path.exists() and _weights_of(path.parent, int(match[1])).exists():
        return _weights_of(path.parent, int(match[1]))  # `model-compression resume` leaves the name that it gives
    if not path.exists() and model not in shipped_weights():
        raise NotThereError(f"{path} does not exist; expected a model-N file, a run folder or a weights file")
    return find_weights(model)


def _weights_of(folder: Path, epoch: int) -> Path:
    """The weights of ``epoch`` under the name that `runs` gives them."""
    return folder / f"student-{epoch}.safetensors"
