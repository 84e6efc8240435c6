"""`prune`, `quantize` and `compress`: a smaller network, and the file that ships."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from model_compression.api.argument_texts import described
from model_compression.api.inputs import give_names, run_config, watched
from model_compression.compression import pipeline
from model_compression.compression import prune as pruning
from model_compression.compression import quantize as quantisation
from model_compression.compression.config import Budget, CompressConfig, PruneConfig, QuantizeConfig
from model_compression.compression.repair import place_of, repair_config, without_idle_smoothing
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.files import user_path
from model_compression.core.metric import Metric, primary_metric
from model_compression.core.run_options import with_settings
from model_compression.engine.fitting import sized_run
from model_compression.engine.observer import Observer
from model_compression.engine.run_folder import free_folder
from model_compression.models.base import Network
from model_compression.models.loading import read_model

_TENTH = 0.1  # of a run's learning rate, at which a network is trained on with roundings
_ROUNDING_EPOCHS = 8


@dataclass(frozen=True, kw_only=True, repr=False)
class Pruned:
    """What a pruning came to: the figures of each step by name, the last one's the result, and where it is."""

    steps: dict[str, dict[str, Any]]
    run_dir: Path

    @property
    def metric(self) -> Metric:
        """The primary metric."""
        return primary_metric(*self.steps.values())

    @property
    def network(self) -> Network:
        """The pruned network, in eval mode."""
        return read_model(self.run_dir / "final" / "student.safetensors").eval()

    def __repr__(self) -> str:
        *_, last = self.steps.values()
        value = self.metric.text(last[self.metric.key("test")])
        return f"<pruned to {last['share']:.1%}: test {self.metric.label} {value}, {self.run_dir}>"


@dataclass(frozen=True, kw_only=True, repr=False)
class Quantized:
    """A file in fewer bits, and the report on what it lost."""

    file: Path
    report: dict[str, Any]

    def __repr__(self) -> str:
        drop, size, metric = self.report["drop"], self.report["bytes"], primary_metric(self.report)
        turn = f"{abs(drop):.2f} points {'lost' if drop >= 0 else 'gained'}"
        value = metric.text(self.report[metric.name])
        return f"<{self.report['precision']}: {size:,} bytes, {metric.label} {value}, {turn}, {self.file}>"


@dataclass(frozen=True, kw_only=True, repr=False)
class Compressed:
    """The file that ships, and what each stage came to."""

    file: Path
    stages: list[dict[str, Any]]
    metric: Metric

    def __repr__(self) -> str:
        lines = []
        for one in self.stages:
            what = f"{one['name']:<10} {one['runtime']:<13} {one['size_bytes']:>10,} bytes"
            lines.append(f"{what}  {self.metric.text(one[self.metric.name])}  {one['median_ms']:.3f} ms")
        return "\n".join(lines)


@described
@checked_arguments
def prune(
    model: str | Path,
    share: float,
    *,
    resource: Literal["macs", "params", "weights"] = "macs",
    steps: int = 4,
    step_epochs: int = 2,
    low_rank: bool = False,
    method: str | MethodConfig | None = None,
    config: TrainConfig | None = None,
    run_dir: str | Path | None = None,
    observer: Observer | None = None,
    progress: bool | None = None,
    trust: bool = False,
    **settings: Any,
) -> Pruned:
    """Takes channels out of a trained network in steps, each repaired by distillation from its run's teacher.

    Example:
        >>> mc.prune("runs/distilled", 0.5, steps=1, epochs=1, run_dir="runs/half")
        <pruned to 50.0%: test accuracy ...%, runs/half>

    Args:
        model: a run folder, a weights file or a shipped network.
        share: of the ``resource`` that is left, between 0 and 1.
        resource: multiply-accumulates, parameters, or single weights, which become zero.
        steps, step_epochs: `api.argument_texts`.
        low_rank: whether the rank of large inner products is lowered, too.
        method: of the repair; None: the run's, where it needs logits only, else kd.
        config: how a step is repaired; None: as the network's own run was trained.
        run_dir: a new folder; None: beside the model.
        observer, progress, trust: `api.argument_texts`.
        settings: of `TrainConfig`, `DataConfig` or `OptimConfig`, as ``epochs=5``, the epochs of the last repair.

    Raises:
        UsageError: the network cannot be pruned so far.
        RunFolderError: ``run_dir`` is taken.
    """
    give_names(model, method)
    with watched(observer, progress, trust) as watcher:
        wanted = PruneConfig(
            model=place_of(str(model)),
            run=_repair(model, method, config, settings),
            resource=resource,
            share=share,
            steps=steps,
            step_epochs=step_epochs,
            low_rank=low_rank,
        )
        folder = _folder_for(model, f"{resource}-{share:g}", run_dir)
        return Pruned(steps=pruning.prune(wanted, folder, watcher), run_dir=folder)


@described
@checked_arguments
def quantize(
    model: str | Path,
    *,
    to: str = "int8",
    calibration: Literal["auto", "minmax", "percentile", "entropy"] = "auto",
    max_drop: float = 0.5,
    method: str | MethodConfig | None = None,
    config: TrainConfig | None = None,
    run_dir: str | Path | None = None,
    observer: Observer | None = None,
    progress: bool | None = None,
    trust: bool = False,
    **settings: Any,
) -> Quantized:
    """Writes a network in fewer bits, proven on every test image; trains it with roundings if rounding loses too much.

    Example:
        >>> mc.quantize("runs/distilled", to="half", max_drop=5, run_dir="runs/half-precision")
        <half: ... bytes, accuracy ...%, ... points ..., runs/half-precision/student.onnx>

    Args:
        model: a run folder, a weights file or a shipped network.
        to: "int8", "int4", "int8-dynamic", as transformers need it, "half" or "int8-weights".
        calibration: how int8 and int4 find ranges.
        max_drop: points of accuracy that may be lost.
        method: of the training with roundings; None: the run's, where it needs logits only, else kd.
        config: how it is trained on; None: as its own run, for 8 epochs at a tenth of the learning rate.
        run_dir: a new folder; None: beside the model.
        observer, progress, trust: `api.argument_texts`.
        settings: of `TrainConfig`, `DataConfig` or `OptimConfig`, as ``epochs=5``.

    Raises:
        NotVerifiedError: the file loses more than ``max_drop``.
        RunFolderError: ``run_dir`` is taken.
    """
    give_names(model, method)
    with watched(observer, progress, trust) as watcher:
        run = _repair(model, method, config, {})
        if config is None:
            optim = dataclasses.replace(run.optim, lr=_TENTH * run.optim.lr)
            run = dataclasses.replace(run, epochs=_ROUNDING_EPOCHS, optim=optim)
        wanted = QuantizeConfig(
            model=place_of(str(model)),
            run=with_settings(run, settings),
            to=to,
            calibration=calibration,
            max_drop=max_drop,
        )
        folder = _folder_for(model, to, run_dir)
        report = quantisation.quantize(wanted, folder, watcher)
    return Quantized(file=folder / report["file"], report=report)


@described
@checked_arguments
def compress(
    teacher: str | ModelConfig,
    student: str | ModelConfig,
    data: str = "cifar10",
    *,
    max_bytes: int = 0,
    max_latency_ms: float = 0.0,
    min_accuracy: float = 0.0,
    to: str = "int8",
    max_drop: float = 0.5,
    method: str | MethodConfig | None = None,
    steps: int = 4,
    step_epochs: int = 2,
    epochs: int = 30,
    seed: int = 0,
    config: TrainConfig | None = None,
    run_dir: str | Path | None = None,
    observer: Observer | None = None,
    progress: bool | None = None,
    trust: bool = False,
    **settings: Any,
) -> Compressed:
    """From a teacher to the file that ships: distils, prunes, quantises, exports and verifies, within a budget.

    Example:
        >>> mc.compress("runs/labels", "lenet", "synthetic", epochs=1, max_drop=5, run_dir="runs/small")
        distilled  PyTorch ...
        distilled  ONNX Runtime ...
        int8       ONNX Runtime ...

    Args:
        teacher: a network with weights, by name.
        student: a network, by name.
        data: a dataset's name.
        max_bytes: largest size of the file; 0: any.
        max_latency_ms: longest median time for one image in ONNX Runtime on this machine; 0: any.
        min_accuracy: least accuracy on the test images, 0 to 1.
        to: "int8" or "int4".
        max_drop: points of accuracy that quantising may lose.
        method: of the distillation and the repairs; it needs logits only. None: that of `distill`.
        steps, step_epochs: `api.argument_texts`.
        epochs: of the distillation.
        config: where to start from; its networks, method, data, epochs and seed are replaced.
        run_dir: a new folder; None: below runs.
        seed, observer, progress, trust, settings: `api.argument_texts`.

    Raises:
        UsageError: the budget cannot be kept; nothing is written.
        ModelCompressionError: the budget is not kept.
        NotVerifiedError: the fewer bits lose more than ``max_drop``.
    """
    give_names(teacher, student, data, method)
    run = run_config(config, student, teacher, method, settings, data, epochs=epochs, seed=seed)
    budget = Budget(max_bytes=max_bytes, max_latency_ms=max_latency_ms, min_accuracy=min_accuracy)
    name = f"{Path(data.rpartition(':')[2]).name}-{Path(run.student.name).stem}-compressed-seed{seed}"
    folder = user_path(str(run_dir)) if run_dir else free_folder(Path("runs") / name)[0]
    with watched(observer, progress, trust) as watcher:
        run = sized_run(run, watcher.message)
        wanted = CompressConfig(run=run, budget=budget, to=to, max_drop=max_drop, steps=steps, step_epochs=step_epochs)
        result = pipeline.compress(wanted, folder, watcher)
    return Compressed(file=folder / quantisation.ONNX, stages=result["stages"], metric=primary_metric(result))


def _repair(
    model: str | Path, method: str | MethodConfig | None, config: TrainConfig | None, settings: dict[str, Any]
) -> TrainConfig:
    """How ``model`` is trained on."""
    run = with_settings(config or repair_config(str(model)), settings)
    if method is not None:
        run = dataclasses.replace(run, method=MethodConfig(name=method) if isinstance(method, str) else method)
    return without_idle_smoothing(run)


def _folder_for(model: str | Path, what: str, run_dir: str | Path | None) -> Path:
    """``run_dir``, or a free folder beside ``model``, or among the runs for one that is shipped."""
    if run_dir is not None:
        return user_path(str(run_dir))
    path = user_path(str(model))
    parent = path.parent if path.exists() else Path("runs")
    return free_folder(parent / f"{path.stem if path.is_file() else path.name}-{what}")[0]
