"""Quantises a trained network into an ONNX file that is proven on the whole test set, and trains it on where it must.

A folder holds quantize.json, student.onnx, report.json (when finished) and, where rounding alone cost too much, the
quantisation-aware run ``trained``. A file that loses more accuracy than it may does not get its name.
"""

import dataclasses
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.checks.networks import check_classes
from model_compression.compression.groups import copied
from model_compression.compression.prune import shown_images
from model_compression.compression.repair import checked_repair
from model_compression.compression.stages import begin, check_new, read, stage
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import HERE, ModelConfig, TrainConfig, located
from model_compression.core.config_values import Config, PathText
from model_compression.core.errors import (
    FileFormatError,
    MissingExtraError,
    NotVerifiedError,
    RunFolderError,
    UsageError,
)
from model_compression.core.files import read_json, user_path, write_json
from model_compression.core.manifest import begin_again, check_manifest, write_manifest
from model_compression.core.registry import unknown_name
from model_compression.data.dataset import Dataset
from model_compression.distillation.teachers.fingerprint import digest_of
from model_compression.engine.observer import Observer, Silent
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import finish_run
from model_compression.engine.teachers import check_cache_place, load_data, with_own_cache
from model_compression.exporting.fewer_bits import CALIBRATIONS, to_half, to_int8, to_int8_weights
from model_compression.exporting.verify import Verification
from model_compression.exporting.write import Encoding, encoded_answers, export, logits_on
from model_compression.models.base import Network
from model_compression.models.quantization_aware import NAME, check_weight_bits
from model_compression.models.weights import find_weights, read_model
from model_compression.tasks import task_of

FILE, ONNX, REPORT = "quantize.json", "student.onnx", "report.json"
AUTO, _IMAGES = "auto", 512
CALIBRATED = {"int8": 8, "int4": 4}  # precisions that compute in int8, and the bits of their weights
PRECISIONS = (*CALIBRATED, "half", "int8-weights")


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig(Config):
    """What is quantised, to what, and what it may cost."""

    model: PathText
    """A run, a weights file or a shipped network."""
    run: TrainConfig
    """How it is trained on where it must be, and on what data; its student is replaced."""
    to: str = "int8"
    """int8 computes so, and int4 too, on weights of 4 bits; the others store weights small and compute in float32."""
    calibration: str = AUTO
    """How ranges are found: minmax, percentile or entropy; auto takes what changes answers to other images least."""
    images: int = _IMAGES
    """Training images that ranges are seen on."""
    max_drop: float = 0.5
    """Points of test accuracy that the file may lose."""

    def check(self) -> None:
        """Checks the values."""
        if self.to not in PRECISIONS:
            raise unknown_name("precision", self.to, list(PRECISIONS))
        if self.calibration not in (AUTO, *CALIBRATIONS):
            raise unknown_name("calibration", self.calibration, [AUTO, *CALIBRATIONS])
        if self.to not in CALIBRATED and (self.calibration, self.images) != (AUTO, _IMAGES):
            raise UsageError(
                f"calibration and images have no effect for {self.to}, which needs no ranges; leave them out, or "
                "choose int8 or int4"
            )
        if self.images < 1:
            raise UsageError(f"images must be at least 1, got {self.images}; some hundreds are usual")
        if not 0 <= self.max_drop <= 100:
            raise UsageError(f"max_drop must lie between 0 and 100 points, got {self.max_drop}; 0.5 is usual")
        checked_repair(self.run)


@checked_arguments
def quantize(config: QuantizeConfig, folder: str | Path, observer: Observer | None = None) -> dict[str, Any]:
    """Quantises into a new ``folder``; returns what report.json says.

    Raises RunFolderError when the folder is taken, UsageError before anything is written, MissingExtraError,
    Interrupted after a signal, and NotVerifiedError when the file loses too much even after training.
    """
    folder, observer = user_path(folder), observer or Silent()
    check_new(folder)
    _check(located(config, folder), observer)
    begin(folder, FILE, config)
    return _finish(config, folder, observer)


@checked_arguments
def resume_quantize(folder: str | Path, observer: Observer | None = None) -> dict[str, Any]:
    """Continues what was interrupted; returns what `quantize` does. Raises RunFolderError when nothing is left."""
    folder = user_path(folder)
    config = read(QuantizeConfig, folder / FILE)
    if _is_finished(folder):
        raise RunFolderError(f"{folder} is finished: there is nothing to resume; its result is {folder / ONNX}")
    return _finish(config, folder, observer or Silent())


def finish_quantize(config: QuantizeConfig, folder: Path, observer: Observer) -> dict[str, Any]:
    """The report of what is finished, resumed or made anew, whichever ``folder`` asks for."""
    if not (folder / FILE).exists():
        return quantize(config, folder, observer)
    if located(read(QuantizeConfig, folder / FILE), folder) != located(config, folder):
        raise RunFolderError(f"{folder} holds another quantisation; choose another --out, or delete it")
    return read_json(folder / REPORT) if _is_finished(folder) else _finish(config, folder, observer)


def _is_finished(folder: Path) -> bool:
    """Whether file and report are there, whole. Raises FileFormatError for those that were changed since."""
    if (folder / ONNX).is_file() and check_manifest(folder):
        return True
    try:  # made before there were manifests, or by a process that was killed before it wrote one
        return bool(read_json(folder / REPORT)["bytes"] == (folder / ONNX).stat().st_size)
    except (FileFormatError, KeyError, OSError):
        return False  # they are made again


def _check(config: QuantizeConfig, observer: Observer) -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime.quantization  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "onnxruntime", "quantize", "quantising") from None
    check_cache_place(config.run)
    network = read_model(find_weights(config.model))
    _, test = load_data(config.run.data, observer.message)
    check_classes("model", network, test, has_size_option=False)
    for line in task_of(test).differences(network, test):
        observer.message(line)
    check_weight_bits(network, CALIBRATED.get(config.to, 8))


def _finish(config: QuantizeConfig, folder: Path, observer: Observer) -> dict[str, Any]:
    begin_again(folder)
    train, test = load_data(config.run.data, observer.message)
    weights = find_weights(located(config.model, folder))
    network = copied(read_model(weights))
    expected = logits_on(network, test)
    trained = RunFolder(folder / "trained")
    if not trained.config.exists():
        observer.message(f"{config.to}: writing {folder / ONNX}, and comparing it with the network on {test.name}")
        try:
            return _written(config, network, expected, (train, test), folder, observer)
        except NotVerifiedError as loss:
            if config.to not in CALIBRATED:
                raise
            observer.message(f"{loss}; training with its roundings")
    is_beside = config.model.startswith(HERE)  # then it is moved with this folder
    body = HERE + os.path.relpath(weights.resolve(), trained.path.resolve()) if is_beside else str(weights.resolve())
    options: dict[str, Any] = {"body": body}
    student = ModelConfig(name=NAME, options=options | ({"weight_bits": 4} if config.to == "int4" else {}))
    run = dataclasses.replace(
        with_own_cache(config.run, "fp32"), student=student, precision="fp32", teacher_precision="auto", compile="off"
    )
    with stage("quantisation-aware training", folder):
        finish_run(run, trained.path, observer)
    try:
        after = copied(read_model(trained.student))
        return _written(config, after, expected, (train, test), folder, observer, digest_of([network]))
    except NotVerifiedError as loss:
        raise NotVerifiedError(
            f"{loss}, after quantisation-aware training; train longer (--epochs of quantize, --quantize-epochs of "
            "compress), or accept more (--max-drop)"
        ) from None


def _written(
    config: QuantizeConfig, network: Network, expected: Tensor, data: tuple[Dataset, Dataset], folder: Path,
    observer: Observer, reference_sha256: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Writes and proves the file; returns the report. Raises NotVerifiedError, leaving nothing, when it is not kept."""
    train, test = data
    encode, calibration = {"half": to_half, "int8-weights": to_int8_weights}.get(config.to), None
    if encode is None:
        bits = CALIBRATED[config.to]
        shown = torch.cat(list(shown_images(train, config.run.seed, 2 * config.images)))
        seen, others = shown[::2], shown[1::2]
        calibration = config.calibration
        if calibration == AUTO:
            calibration = best_calibration(network, seen, others if len(others) else seen, observer, bits)
        encode = partial(to_int8, images=seen.numpy(), calibration=calibration, weight_bits=bits)
    encoding = Encoding(
        precision=config.to,
        encode=encode,
        max_drop=config.max_drop,
        expected=expected,
        reference_sha256=reference_sha256,
    )
    found = export(network, folder / ONNX, test, encoding=encoding)
    report = _report(config, found, folder, calibration, trained=(folder / "trained").exists())
    write_json(folder / REPORT, report)
    write_manifest(folder, (FILE, REPORT, ONNX))
    return report


def best_calibration(network: Network, seen: Tensor, others: Tensor, observer: Observer, weight_bits: int = 8) -> str:
    """The calibration on images ``seen`` that changes the answers to ``others`` least, by KL divergence in nats."""
    with torch.no_grad():
        expected = network(network.preprocessing(others)).log_softmax(dim=1)
    encodes = {
        name: partial(to_int8, images=seen.numpy(), calibration=name, weight_bits=weight_bits) for name in CALIBRATIONS
    }
    distances = {}
    for name, answers in encoded_answers(network, encodes, others.numpy()).items():
        found = torch.from_numpy(answers).log_softmax(dim=1)
        distances[name] = float(F.kl_div(found, expected, log_target=True, reduction="batchmean"))
    best = min(distances, key=lambda name: distances[name])
    listed = ", ".join(f"{name} {distance:.2g}" for name, distance in distances.items())
    observer.message(f"ranges by {best}, which changes the answers least (KL divergence: {listed})")
    return best


def _report(
    config: QuantizeConfig, found: Verification, folder: Path, calibration: str | None, trained: bool
) -> dict[str, Any]:
    return {
        "file": ONNX,
        "bytes": (folder / ONNX).stat().st_size,
        "precision": config.to,
        "calibration": calibration,
        "trained": trained,
        "images": found.images,
        "accuracy": found.accuracy,
        "interval": list(found.interval()),
        "network_accuracy": found.reference_correct / found.images,
        "drop": found.drop,
        "agreement": found.agreement,
        "largest_difference": float(np.float32(found.largest_difference)),
    }
