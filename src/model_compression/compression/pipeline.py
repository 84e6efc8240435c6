"""From a teacher to the file that ships: distil, prune, quantise, export, each stage proven, within a budget.

A folder holds compress.json, the run ``distilled``, the pruning ``pruned`` where the budget asks for one, the
quantisation ``quantized``, float32 files of the networks, stages.json, table.md and stages.png; and student.onnx, when
the budget is kept.
"""

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save

from model_compression.compression.budget import (
    as_if_trained,
    file_latency,
    fits_budget,
    network_latency,
    quantised_file,
    share_that_fits,
)
from model_compression.compression.channels import ROUND_TO, check_reachable, cost_of
from model_compression.compression.prune import MOST_STEPS, PruneConfig, finish_prune
from model_compression.compression.quantize import CALIBRATED, ONNX, QuantizeConfig, finish_quantize
from model_compression.compression.repair import checked_repair
from model_compression.compression.stages import begin, check_new, read, stage
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import HERE, TrainConfig
from model_compression.core.config_values import Config
from model_compression.core.errors import (
    FileFormatError,
    ModelCompressionError,
    NotVerifiedError,
    RunFolderError,
    UsageError,
)
from model_compression.core.files import user_path, write_atomically, write_json, write_text
from model_compression.core.manifest import begin_again, check_manifest, write_manifest
from model_compression.core.registry import unknown_name
from model_compression.data.dataset import Dataset
from model_compression.engine.observer import Observer, Silent, left_out
from model_compression.engine.parts import Parts
from model_compression.engine.runs import check_run, finish_run
from model_compression.engine.teachers import check_cache_place, load_data
from model_compression.exporting.verify import Verification, answers_of, verify
from model_compression.exporting.write import export
from model_compression.models.base import Network
from model_compression.models.factored import as_factored
from model_compression.models.quantization_aware import check_weight_bits
from model_compression.models.weights import find_weights, read_model
from model_compression.reports.compression_stages import FILE as RESULT
from model_compression.reports.compression_stages import Stage, markdown, plot, read_compression, to_plain

FILE, PREDICTIONS = "compress.json", "predictions.safetensors"


@dataclass(frozen=True, kw_only=True)
class Budget(Config):
    """What the file that ships may cost; 0: anything."""

    max_bytes: int = 0
    max_latency_ms: float = 0.0
    """Median of one image, in ONNX Runtime, on this machine."""
    min_accuracy: float = 0.0
    """On the test images, 0 to 1."""

    def check(self) -> None:
        """Checks the values."""
        if self.max_bytes < 0 or self.max_latency_ms < 0:
            raise UsageError(
                f"max_bytes and max_latency_ms must be at least 0, got {self.max_bytes} and {self.max_latency_ms}"
            )
        if not 0 <= self.min_accuracy <= 1:
            raise UsageError(f"min_accuracy must lie between 0 and 1, got {self.min_accuracy}; 0.82 is 82 %")


@dataclass(frozen=True, kw_only=True)
class CompressConfig(Config):
    """A compression, whole. ``share`` of the ``resource`` is left by pruning; 1: nothing is pruned."""

    run: TrainConfig
    """How the student is distilled."""
    budget: Budget
    resource: Literal["macs", "params"] = "params"
    share: float = 1.0
    steps: int = 4
    step_epochs: int = 2
    prune_epochs: int = 0
    """Of the repair after the last cut; 0: as many as the distillation."""
    low_rank: bool = False
    """Whether pruning lowers the rank of large inner products, too."""
    round_to: int = ROUND_TO
    """Every layer that loses channels keeps a multiple of it."""
    to: str = "int8"
    """What is quantised to."""
    quantize_epochs: int = 8
    """Of the training with roundings, where it is needed, at a tenth of the rate."""
    max_drop: float = 0.5
    """Points of accuracy that quantising may lose."""

    def check(self) -> None:
        """Checks the values."""
        checked_repair(self.run)
        if self.run.data.validation:
            raise UsageError(
                f"--validation {self.run.data.validation} has no effect here: every stage is measured on the test "
                "images; leave it out, or set data.validation to 0 in the configuration"
            )
        if self.to not in CALIBRATED:
            raise unknown_name("precision", self.to, list(CALIBRATED))
        for name in ("steps", "step_epochs", "quantize_epochs", "round_to"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.steps > MOST_STEPS:
            raise UsageError(f"steps must be at most {MOST_STEPS}, got {self.steps}; 2 to 10 are usual")
        if self.prune_epochs < 0 or not 0 <= self.max_drop <= 100:
            raise UsageError(f"prune_epochs and max_drop must be at least 0, got {self.prune_epochs}, {self.max_drop}")


def planned(config: CompressConfig, observer: Observer) -> CompressConfig:
    """``config`` with the pruning that its budget asks for, found on the untrained student.

    Raises what the stages would raise at their beginnings, and UsageError when the budget cannot be kept.
    """
    check_cache_place(config.run)
    data = load_data(config.run.data, observer.message)
    looked_at = dataclasses.replace(config.run, teacher_cache="off")
    student = check_run(looked_at, Parts(data=data)).network.deployed().cpu()
    budget, bits = config.budget, CALIBRATED[config.to]
    check_weight_bits(student, bits)
    if not (budget.max_bytes or budget.max_latency_ms):
        with quantised_file(as_if_trained(student), data[0], bits):  # what cannot be written is not trained for
            return config
    observer.message("looking for the size that keeps the budget; nothing is written yet")
    resource: Literal["macs", "params"] = "params" if budget.max_bytes else "macs"
    share = share_that_fits(
        student,
        data[0],
        resource,
        lambda one: fits_budget(one, data[0], budget.max_bytes, budget.max_latency_ms, weight_bits=bits),
        observer.message,
        low_rank=config.low_rank,
        round_to=config.round_to,
    )
    if share < 1:
        target = round(share * cost_of(student, resource, data[0].image_shape))
        cuttable = as_factored(student) if config.low_rank else student
        check_reachable(cuttable, resource, target, data[0].image_shape, config.round_to)
        observer.message(f"{share:.1%} of the {'MACs' if resource == 'macs' else 'parameters'} are to be left")
    return dataclasses.replace(config, resource=resource, share=share)


@checked_arguments
def compress(config: CompressConfig, folder: str | Path, observer: Observer | None = None) -> dict[str, Any]:
    """Makes the file that ships in a new ``folder``; returns what stages.json says.

    Raises RunFolderError when the folder is taken, UsageError before anything is written, Interrupted after a signal,
    and ModelCompressionError when the budget is not kept, NotVerifiedError when the fewer bits lose more than
    ``max_drop``: then stages.json says what was reached, and there is no student.onnx.
    """
    folder, observer = user_path(folder), observer or Silent()
    check_new(folder)
    config = planned(config, observer)
    begin(folder, FILE, config)
    return _finish(config, folder, observer)


@checked_arguments
def resume_compress(folder: str | Path, observer: Observer | None = None) -> dict[str, Any]:
    """Continues at the stage that was interrupted. Raises RunFolderError when nothing is left to do."""
    folder = user_path(folder)
    config = read(CompressConfig, folder / FILE)
    if _is_finished(folder):
        raise RunFolderError(f"{folder} is finished: there is nothing to resume; its result is {folder / ONNX}")
    return _finish(config, folder, observer or Silent())


def _is_finished(folder: Path) -> bool:
    """Whether the file that ships is there, whole. Raises FileFormatError for what was changed since."""
    shipped, quantized = folder / ONNX, folder / "quantized" / ONNX
    if not shipped.is_file():
        return False
    return check_manifest(folder) or (  # or made before there were manifests, or killed before the last one
        quantized.is_file() and shipped.read_bytes() == quantized.read_bytes() and read_compression(folder) is not None
    )


def _finish(config: CompressConfig, folder: Path, observer: Observer) -> dict[str, Any]:
    distilled, pruned, quantized = folder / "distilled", folder / "pruned", folder / "quantized"
    begin_again(folder)
    steps = ["distilling", *(["pruning"] if config.share < 1 else []), "quantising", "exporting and measuring"]

    def begin_step(name: str) -> None:
        observer.message(f"stage {steps.index(name) + 1} of {len(steps)}: {name}")

    begin_step("distilling")
    with stage("distilling", folder):
        metrics = finish_run(config.run, distilled, observer)
    last = distilled
    if config.share < 1:
        begin_step("pruning")
        with stage("pruning", folder):
            finish_prune(_pruning(config, distilled), pruned, observer)
        last = pruned
    begin_step("quantising")
    report, lost = None, None
    with stage("quantising", folder):
        try:
            report = finish_quantize(_quantising(config, last), quantized, observer)
        except NotVerifiedError as loss:  # the table says what the other stages reached
            lost = loss
    begin_step("exporting and measuring")
    _, test = load_data(config.run.data, observer.message)
    names = {"distilled": distilled} | ({"pruned": pruned} if last is pruned else {})
    stages = [one for name, run in names.items() for one in _float_stages(name, run, folder, test)]
    if report is not None:
        stages.append(_quantised_stage(quantized, report, stages[-1]))
    faults = broken(config.budget, stages[-1]) if lost is None else [str(lost)]
    result = _write_result(config, folder, stages, faults, metrics.get("teacher_test_accuracy"), observer)
    if lost is not None:
        raise NotVerifiedError(f"{lost}; {folder / RESULT} says what the other stages reached") from lost
    if faults:
        raise ModelCompressionError(
            f"the budget is not kept: {'; '.join(faults)}; {folder / RESULT} says what was reached, and "
            f"{quantized / ONNX} is the file"
        )
    _write_predictions(quantized / ONNX, distilled, folder, test)
    write_atomically(folder / ONNX, (quantized / ONNX).read_bytes())
    write_manifest(folder, (FILE, RESULT, PREDICTIONS, ONNX))  # last: it says that all is finished
    return result


def _write_predictions(file: Path, distilled: Path, folder: Path, test: Dataset) -> None:
    """Writes what ``file`` answers, with the teacher's answers and the images that the run ``distilled`` keeps."""
    with safe_open(distilled / PREDICTIONS, "pt") as kept:
        tensors = {key: kept.get_tensor(key) for key in kept.keys()}  # noqa: SIM118 (no mapping)
        metadata = kept.metadata()
    tensors["student_logits"] = answers_of(file, test)
    write_atomically(folder / PREDICTIONS, save(tensors, metadata=metadata))


def _write_result(
    config: CompressConfig, folder: Path, stages: list[Stage], faults: list[str], teacher_accuracy: float | None,
    observer: Observer,
) -> dict[str, Any]:  # fmt: skip
    """Writes what the stages came to, as values, table and plot; returns the values."""
    result: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "stages": to_plain(stages),
        "budget": dataclasses.asdict(config.budget),
        "teacher_accuracy": teacher_accuracy,
        "broken": faults,
    }
    write_json(folder / RESULT, result)
    write_text(folder / "table.md", markdown(stages, result["threads"]))
    with left_out(f"the plot {folder / 'stages.png'}", observer.message):
        plot(folder / "stages.png", stages, f"{config.run.student.name} on {config.run.data.name}: accuracy and cost")
    return result


def broken(budget: Budget, shipped: Stage) -> list[str]:
    """What of the budget the file that ships does not keep, in words."""
    faults = []
    if budget.max_bytes and shipped.size_bytes > budget.max_bytes:
        faults.append(f"{shipped.size_bytes:,} bytes, at most {budget.max_bytes:,} are allowed")
    if budget.max_latency_ms and shipped.median_ms > budget.max_latency_ms:
        why = "; the measurement was disturbed, run it when the machine is idle" if shipped.disturbed else ""
        faults.append(f"{shipped.median_ms:.3f} ms, at most {budget.max_latency_ms:g} are allowed{why}")
    if shipped.accuracy < budget.min_accuracy:
        faults.append(f"accuracy {shipped.accuracy:.2%}, at least {budget.min_accuracy:.2%} is asked for")
    return faults


def _pruning(config: CompressConfig, distilled: Path) -> PruneConfig:
    run = dataclasses.replace(config.run, epochs=config.prune_epochs or config.run.epochs)
    return PruneConfig(
        model=f"{HERE}../{distilled.name}",
        run=run,
        resource=config.resource,
        share=config.share,
        steps=config.steps,
        step_epochs=config.step_epochs,
        low_rank=config.low_rank,
        round_to=config.round_to,
    )


def _quantising(config: CompressConfig, last: Path) -> QuantizeConfig:
    optim = dataclasses.replace(config.run.optim, lr=config.run.optim.lr / 10)
    run = dataclasses.replace(config.run, epochs=config.quantize_epochs, optim=optim)
    return QuantizeConfig(model=f"{HERE}../{last.name}", run=run, to=config.to, max_drop=config.max_drop)


def _float_stages(name: str, run: Path, folder: Path, test: Dataset) -> list[Stage]:
    """A network in PyTorch and, exported and verified, in ONNX Runtime."""
    weights = find_weights(str(run))
    network, path = read_model(weights), folder / f"{name}-float32.onnx"
    found = _exported(network, path, test)
    shape = test.image_shape
    common: dict[str, Any] = {
        "name": name,
        "parameters": cost_of(network, "params", shape),
        "macs": cost_of(network, "macs", shape),
        "accuracy": found.accuracy,
        "interval": found.interval(),
    }
    timed = [("PyTorch", weights, network_latency(network, shape)), ("ONNX Runtime", path, file_latency(path))]
    return [
        Stage(
            runtime=runtime, size_bytes=file.stat().st_size, median_ms=time.median_ms, p95_ms=time.p95_ms,
            disturbed=time.disturbed, **common,
        )
        for runtime, file, time in timed
    ]  # fmt: skip


def _exported(network: Network, path: Path, test: Dataset) -> Verification:
    """What ``path`` answers; a file that is damaged, or of another network, is written again."""
    if path.exists():
        with suppress(FileFormatError, NotVerifiedError):
            return verify(path, network, test)
    return export(network, path, test)


def _quantised_stage(folder: Path, report: dict[str, Any], before: Stage) -> Stage:
    time = file_latency(folder / ONNX)
    return dataclasses.replace(
        before,
        name=report["precision"],
        size_bytes=report["bytes"],
        accuracy=report["accuracy"],
        interval=(report["interval"][0], report["interval"][1]),
        median_ms=time.median_ms,
        p95_ms=time.p95_ms,
        disturbed=time.disturbed,
    )
