"""Quantises a trained network into an ONNX file, proves it on the whole test set, and fine-tunes if it loses too much.

A folder holds quantize.json, student.onnx, report.json (when finished) and, if rounding alone lost too much, the
quantisation-aware run ``trained``. A file that loses more than it may does not get its name.
"""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model_compression.checks.networks import check_classes
from model_compression.compression.channels import shown_images
from model_compression.compression.config import AUTO, CALIBRATED, QuantizeConfig
from model_compression.compression.groups import copy_network
from model_compression.compression.repair import check_repair
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import HERE, locate
from model_compression.core.errors import (
    FileFormatError,
    NotVerifiedError,
    UsageError,
)
from model_compression.core.extras import check_extra
from model_compression.core.files import read_json, write_json
from model_compression.core.manifest import begin_again, check_manifest, write_manifest
from model_compression.core.metric import recorded
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset
from model_compression.distillation.teachers.fingerprint import digest_of
from model_compression.engine.observer import Observer
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import check_run
from model_compression.engine.stages import Stage
from model_compression.engine.teachers import check_cache_place, with_own_cache
from model_compression.engine.training import Training
from model_compression.exporting.fewer_bits import CALIBRATIONS, to_half, to_int8, to_int8_dynamic, to_int8_weights
from model_compression.exporting.images_in_parts import in_batches
from model_compression.exporting.write import Encoding, encoded_answers, export
from model_compression.models.base import Network
from model_compression.models.loading import read_model
from model_compression.models.quantization_aware import NAME, check_weight_bits
from model_compression.models.weights import find_weights
from model_compression.reports.run_files import QUANTISATION
from model_compression.reports.run_files import QUANTISED as REPORT
from model_compression.tasks import task_of
from model_compression.tasks.answers import Answer, answer_distance

ONNX = "student.onnx"
_STORED_SMALL: dict[str, Callable[[Any], Any]] = {
    "int8-dynamic": to_int8_dynamic,
    "half": to_half,
    "int8-weights": to_int8_weights,
}


class Quantisation(Stage[QuantizeConfig, dict[str, Any]]):
    """Writes the file; if rounding alone loses too much, fine-tunes with the rounding and writes it again."""

    KIND, FILE, NOUN = QuantizeConfig, QUANTISATION, "quantisation"

    @property
    def result(self) -> Path:
        """The file that ships."""
        return self.folder / ONNX

    def is_done(self) -> bool:
        """Whether file and report are there, whole."""
        if self.result.is_file() and check_manifest(self.folder):
            return True
        try:  # made before there were manifests, or by a process that was killed before it wrote one
            return bool(read_json(self.folder / REPORT)["bytes"] == self.result.stat().st_size)
        except (FileFormatError, KeyError, OSError):
            return False  # they are made again

    def check(self) -> QuantizeConfig:
        """Tries whether the network fits data and precision, and the training that may be needed."""
        config = locate(self.config, self.folder)
        check_repair(config.run)
        check_extra("quantize", "quantising")
        check_cache_place(config.run)
        weights = find_weights(config.model)
        network = read_model(weights)
        _, test = self.parts.load_data(config.run, self.observer.message)
        check_classes("model", network, test, has_size_option=False)
        for line in task_of(test).differences(network, test):
            self.observer.message(line)
        check_weight_bits(network, CALIBRATED.get(config.to, 8))
        if config.to in CALIBRATED:
            if not test.holds_images:
                raise UsageError(
                    f"{config.to} finds ranges on images, and {test.name} has {test.noun}; use "
                    f"{setting('to', 'int8-dynamic')}"
                )
            check_run(dataclasses.replace(self._training(str(weights.resolve())), teacher_cache="off"), self.parts)
        return self.config

    def run(self) -> dict[str, Any]:
        """What report.json says."""
        if self.is_done():
            return read_json(self.folder / REPORT)
        begin_again(self.folder)
        config, observer = self.config, self.observer
        train, test = self.parts.load_data(config.run, observer.message)
        weights = find_weights(locate(config.model, self.folder))
        network = copy_network(read_model(weights))
        trained = RunFolder(self.folder / "trained")
        if not trained.config.exists():
            observer.message(f"{config.to}: writing {self.result}, and comparing it with the network on {test.name}")
            try:
                return self._written(network, (train, test))
            except NotVerifiedError as loss:
                if config.to not in CALIBRATED:
                    raise
                observer.message(f"{loss}; fine-tuning with its rounding")
        body = str(weights.resolve())
        if config.model.startswith(HERE):  # then they are moved with this folder
            body = HERE + os.path.relpath(body, trained.path.resolve())
        with self.part("quantisation-aware training"):
            Training(self._training(body), trained.path, observer, self.parts).finish()
        try:
            after = copy_network(read_model(trained.student))
            return self._written(after, (train, test), network)
        except NotVerifiedError as loss:
            raise NotVerifiedError(
                f"{loss}, after quantisation-aware training; train longer ({setting('epochs')} of quantize, "
                f"{setting('quantize_epochs')} of compress), or accept more ({setting('max_drop')})"
            ) from None

    def _training(self, body: str) -> TrainConfig:
        """The run with roundings, which begins with the weights ``body``."""
        bits = {"weight_bits": 4} if self.config.to == "int4" else {}
        return dataclasses.replace(
            with_own_cache(self.config.run, "fp32"),
            student=ModelConfig(name=NAME, options={"body": body, **bits}),
            precision="fp32",
            teacher_precision="auto",
            compile="off",
        )

    def _written(
        self, network: Network, data: tuple[Dataset, Dataset], reference: Network | None = None
    ) -> dict[str, Any]:
        """Writes the file and holds it against ``reference``, or the network itself; returns the report.

        Raises NotVerifiedError, leaving nothing, if it fails.
        """
        config, (train, test) = self.config, data
        encode = _STORED_SMALL.get(config.to)
        calibration: str | None = None
        if encode is None:
            bits = CALIBRATED[config.to]
            shown = torch.cat(list(shown_images(train, config.run.seed, 2 * config.images)))
            seen, others = shown[::2], shown[1::2]
            calibration = config.calibration
            if calibration == AUTO:
                others = others if len(others) else seen
                calibration = best_calibration(network, seen, others, self.observer, bits, task_of(train).answer)
            encode = partial(to_int8, images=seen.numpy(), calibration=calibration, weight_bits=bits)
        encoding = Encoding(
            precision=config.to,
            encode=encode,
            max_drop=config.max_drop,
            reference=reference,
            reference_sha256="" if reference is None else digest_of([reference]),
        )
        found = export(network, self.result, test, encoding=encoding, report=self.observer.message)
        report = {
            "file": ONNX,
            "bytes": self.result.stat().st_size,
            "precision": config.to,
            "calibration": calibration,
            "trained": (self.folder / "trained").exists(),
            "images": found.images,
            found.metric.name: found.value,
            "interval": None if found.interval is None else list(found.interval),
            f"network_{found.metric.name}": found.reference_value,
            "drop": found.drop,
            "agreement": found.agreement,
            "largest_difference": float(np.float32(found.largest_difference)),
            **recorded(found.metric),
        }
        write_json(self.folder / REPORT, report)
        write_manifest(self.folder, (self.FILE, REPORT, ONNX))
        return report


@checked_arguments
def quantize(config: QuantizeConfig, folder: str | Path, observer: Observer | None = None) -> dict[str, Any]:
    """Quantises into a new ``folder``; returns what report.json says.

    Raises RunFolderError when the folder is taken, UsageError before anything is written, MissingExtraError,
    Interrupted after a signal, and NotVerifiedError when the file loses too much even after training.
    """
    return Quantisation(config, folder, observer).start()


def best_calibration(
    network: Network, seen: Tensor, others: Tensor, observer: Observer, weight_bits: int = 8,
    kind: Answer = "categorical",
) -> str:  # fmt: skip
    """The calibration on images ``seen`` that changes the answers to ``others`` least, see `answer_distance`."""
    with torch.no_grad():
        expected = torch.cat([network(network.preprocessing(part)) for part in in_batches(others)])
    encodes = {
        name: partial(to_int8, images=seen.numpy(), calibration=name, weight_bits=weight_bits) for name in CALIBRATIONS
    }
    distances = {}
    for name, answers in encoded_answers(network, encodes, others.numpy()).items():
        distances[name] = answer_distance(kind, torch.from_numpy(answers), expected)
    best = min(distances, key=lambda name: distances[name])
    listed = ", ".join(f"{name} {distance:.2g}" for name, distance in distances.items())
    what = "half the squared error" if kind == "real" else "KL divergence"
    observer.message(f"calibration {best} changes the answers least ({what}: {listed})")
    return best
