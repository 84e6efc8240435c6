"""From a teacher to the file that ships: distil, prune, quantise and export within a budget, and prove each stage.

A folder holds compress.json, the run ``distilled``, the pruning ``pruned`` if the budget needs one, the quantisation
``quantized``, float32 files of the networks, stages.json, table.md and stages.png; student.onnx if the budget is kept.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open

from model_compression.compression.budget import as_if_trained, fits_budget, quantised_file, share_that_fits
from model_compression.compression.config import CALIBRATED, Budget, CompressConfig, PruneConfig, QuantizeConfig
from model_compression.compression.costs import float_rows, quantised_row
from model_compression.compression.prune import Pruning
from model_compression.compression.quantize import ONNX, Quantisation
from model_compression.compression.repair import check_repair
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.checksummed import save_in_order
from model_compression.core.config_json import HERE
from model_compression.core.errors import (
    ModelCompressionError,
    NotVerifiedError,
    UsageError,
)
from model_compression.core.extras import check_extra
from model_compression.core.files import write_atomically, write_json, write_text
from model_compression.core.manifest import begin_again, check_manifest, write_manifest
from model_compression.core.metric import DEFAULT_METRIC, Metric, primary_metric, recorded
from model_compression.core.options import Option
from model_compression.core.run_options import decided_as
from model_compression.data.dataset import Dataset
from model_compression.engine.observer import Observer, left_out
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import check_run
from model_compression.engine.stages import Stage
from model_compression.engine.teachers import check_cache_place
from model_compression.engine.training import Training
from model_compression.exporting.verify import answers_of
from model_compression.models.quantization_aware import check_weight_bits
from model_compression.reports.compression_stages import FILE as RESULT
from model_compression.reports.compression_stages import Stage as Row
from model_compression.reports.compression_stages import markdown, plot, read_compression, to_plain
from model_compression.tasks import task_of

PREDICTIONS = "predictions.safetensors"


class Compression(Stage[CompressConfig, dict[str, Any]]):
    """Distils, prunes, quantises, exports and measures in turn."""

    KIND, FILE, NOUN = CompressConfig, "compress.json", "compression"

    @property
    def result(self) -> Path:
        """The file that ships."""
        return self.folder / ONNX

    def is_done(self) -> bool:
        """Whether the file that ships is there, whole."""
        quantized = self.folder / "quantized" / ONNX
        if not self.result.is_file():
            return False
        return check_manifest(self.folder) or (  # or made before there were manifests, or killed before the last one
            quantized.is_file()
            and self.result.read_bytes() == quantized.read_bytes()
            and read_compression(self.folder) is not None
        )

    def check(self) -> CompressConfig:
        """The configuration with the pruning that its budget asks for, found on the untrained student.

        Raises what the stages would raise at their beginnings, and UsageError when the budget cannot be kept.
        """
        config, report = self.config, self.observer.message
        check_extra("quantize", "quantising")
        if config.budget.max_bytes or config.budget.max_latency_ms:
            check_extra("prune", "pruning")
        check_repair(config.run)
        check_cache_place(config.run)
        train, _ = self.parts.load_data(config.run, report)
        if not train.holds_images:
            raise UsageError(
                f"compress serves images only, and {train.name} has {train.noun}; use: model-compression distill, then "
                "model-compression quantize RUN --to int8-dynamic"
            )
        _check_bound(config.budget, task_of(train).metric)
        looked_at = dataclasses.replace(config.run, teacher_cache="off")
        student = check_run(looked_at, self.parts).trainer.network.deployed().cpu()
        budget, bits = config.budget, CALIBRATED[config.to]
        check_weight_bits(student, bits)
        if not (budget.max_bytes or budget.max_latency_ms):
            with quantised_file(as_if_trained(student), train, bits):  # what cannot be written is not trained for
                return config
        report("looking for the size that keeps the budget; nothing is written yet")
        resource: Literal["macs", "params"] = "params" if budget.max_bytes else "macs"
        share = share_that_fits(
            student,
            train,
            resource,
            lambda one: fits_budget(one, train, budget.max_bytes, budget.max_latency_ms, weight_bits=bits),
            config,
            self.observer,
        )
        if share < 1:
            report(f"{share:.1%} of the {'MACs' if resource == 'macs' else 'parameters'} are kept")
        return dataclasses.replace(config, resource=resource, share=share)

    def run(self) -> dict[str, Any]:
        """What stages.json says.

        Raises ModelCompressionError when the budget is not kept, NotVerifiedError when the fewer bits lose more than
        ``max_drop``: then stages.json says what was reached, and there is no student.onnx.
        """
        config, distilled, pruned = self.config, self.folder / "distilled", self.folder / "pruned"
        begin_again(self.folder)
        with self._step("distilling"):
            metrics = Training(config.run, distilled, self.observer, self.parts).finish()
        run = decided_as(config.run, RunFolder(distilled).read_config())
        config = dataclasses.replace(config, run=run)
        networks = {"distilled": distilled}
        if config.share < 1:
            with self._step("pruning"):
                Pruning(_pruning(config, distilled), pruned, self.observer, self.parts).finish()
            networks["pruned"] = pruned
        quantizing = _quantising(config, [*networks.values()][-1])
        quantisation = Quantisation(quantizing, self.folder / "quantized", self.observer, self.parts)
        report, lost = None, None
        with self._step("quantising"):
            try:
                report = quantisation.finish()
            except NotVerifiedError as loss:  # the table says what the other stages reached
                lost = loss
        with self._step("exporting and measuring"):
            _, test = self.parts.load_data(config.run, self.observer.message)
            rows = [row for name, run in networks.items() for row in float_rows(name, run, self.folder, test)]
            if report is not None:
                rows.append(quantised_row(quantisation.result, report, rows[-1]))
            faults = broken(config.budget, rows[-1], primary_metric(metrics)) if lost is None else [str(lost)]
            metric = primary_metric(metrics)
            result = self._write_result(rows, faults, metric, metrics.get(f"teacher_{metric.key('test')}"))
            if lost is not None:
                raise NotVerifiedError(f"{lost}; {self.folder / RESULT} says what the other stages reached") from lost
            if faults:
                raise ModelCompressionError(
                    f"the budget is not kept: {'; '.join(faults)}; {self.folder / RESULT} says what was reached, and "
                    f"{quantisation.result} is the file"
                )
            _write_predictions(quantisation.result, distilled, self.folder, test)
            write_atomically(self.result, quantisation.result.read_bytes())
            write_manifest(self.folder, (self.FILE, RESULT, PREDICTIONS, ONNX))  # last: it says that all is finished
            return result

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Says that a step of the whole begins, and where it was if it is interrupted."""
        steps = ["distilling", *(["pruning"] if self.config.share < 1 else []), "quantising", "exporting and measuring"]
        self.observer.message(f"stage {steps.index(name) + 1} of {len(steps)}: {name}")
        with self.part(name):
            yield

    def _write_result(
        self, rows: list[Row], faults: list[str], metric: Metric, of_teacher: float | None
    ) -> dict[str, Any]:
        """Writes what the stages came to, as values, table and plot; returns the values."""
        run, threads = self.config.run, torch.get_num_threads()
        result: dict[str, Any] = {
            "threads": threads,
            "stages": to_plain(rows, metric),
            "budget": dataclasses.asdict(self.config.budget),
            f"teacher_{metric.name}": of_teacher,
            "broken": faults,
            **recorded(metric),
        }
        write_json(self.folder / RESULT, result)
        write_text(self.folder / "table.md", markdown(rows, threads, metric))
        with left_out(f"the plot {self.folder / 'stages.png'}", self.observer.message):
            title = f"{run.student.name} on {run.data.name}: {metric.label} and cost"
            plot(self.folder / "stages.png", rows, title, metric)
        return result


@checked_arguments
def compress(config: CompressConfig, folder: str | Path, observer: Observer | None = None) -> dict[str, Any]:
    """Makes the file that ships in a new ``folder``; returns what stages.json says.

    Raises RunFolderError when the folder is taken, UsageError before anything is written, Interrupted after a signal,
    and what `Compression.run` raises.
    """
    return Compression(config, folder, observer).start()


def _write_predictions(file: Path, distilled: Path, folder: Path, test: Dataset) -> None:
    """Writes what ``file`` answers, with the teacher's answers and the images that the run ``distilled`` keeps."""
    with safe_open(distilled / PREDICTIONS, "pt") as kept:
        tensors = {key: kept.get_tensor(key) for key in kept.keys()}  # noqa: SIM118 (no mapping)
        metadata = kept.metadata()
    task = task_of(test)
    tensors[f"student_{task.kept_as}"] = answers_of(file, test)
    write_atomically(folder / PREDICTIONS, save_in_order(tensors, metadata))


def broken(budget: Budget, shipped: Row, metric: Metric = DEFAULT_METRIC) -> list[str]:
    """What of the budget the file that ships does not keep, in words; ``min_accuracy`` bounds the primary metric."""
    faults = []
    if budget.max_bytes and shipped.size_bytes > budget.max_bytes:
        faults.append(f"{shipped.size_bytes:,} bytes, at most {budget.max_bytes:,} are allowed")
    if budget.max_latency_ms and shipped.median_ms > budget.max_latency_ms:
        why = "; the measurement was disturbed, run it when the machine is idle" if shipped.disturbed else ""
        faults.append(f"{shipped.median_ms:.3f} ms, at most {budget.max_latency_ms:g} are allowed{why}")
    if budget.min_accuracy and metric.gain(shipped.result, budget.min_accuracy) < 0:
        bound = metric.text(budget.min_accuracy)
        faults.append(f"{metric.label} {metric.text(shipped.result)}, {metric.bound_word} {bound} is asked for")
    return faults


def _check_bound(budget: Budget, metric: Metric) -> None:
    """Raises UsageError for a bound of the primary metric that is no value of it."""
    remedy = "0.82 is 82 %" if metric.is_share and metric.unit == "%" else f"it bounds the {metric.label}"
    lowest, highest = (end if end is None or end % 1 else int(end) for end in (metric.lowest, metric.highest))
    Option(minimum=lowest, maximum=highest, remedy=remedy).check("min_accuracy", budget.min_accuracy)


def _pruning(config: CompressConfig, distilled: Path) -> PruneConfig:
    epochs, optim = config.prune_epochs or config.run.epochs, config.run.optim.going_on()
    run = dataclasses.replace(config.run, epochs=epochs, optim=optim)
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
    optim = dataclasses.replace(config.run.optim.going_on(), lr=config.run.optim.lr / 10)
    run = dataclasses.replace(config.run, epochs=config.quantize_epochs, optim=optim)
    return QuantizeConfig(model=f"{HERE}../{last.name}", run=run, to=config.to, max_drop=config.max_drop)
