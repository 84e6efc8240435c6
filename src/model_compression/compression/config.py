"""What is pruned, quantised or compressed, how far, and what it may cost. Knows nothing of torch."""

from dataclasses import dataclass
from typing import Literal

from model_compression.core.config import TrainConfig
from model_compression.core.config_values import Config, PathText
from model_compression.core.errors import UsageError
from model_compression.core.options import option, setting
from model_compression.core.registry import unknown_name

ROUND_TO = 4  # of what is left of a layer's channels, unless another is asked for
CALIBRATED = {"int8": 8, "int4": 4}  # precisions that compute in int8, and the bits of their weights
PRECISIONS = (*CALIBRATED, "int8-dynamic", "half", "int8-weights")
AUTO, _IMAGES = "auto", 512


@dataclass(frozen=True, kw_only=True)
class Cuts(Config):
    """How a network is cut, to whatever size."""

    steps: int = option(
        4, help="pruning steps, each with a fine-tuning", minimum=1, maximum=1000, remedy="2 to 10 are usual"
    )
    step_epochs: int = option(2, help="epochs of fine-tuning after each step but the last", minimum=1)
    low_rank: bool = option(False, help="also replace each large inner product by a product of two")
    round_to: int = option(ROUND_TO, help="layers that are cut keep a multiple of N channels", minimum=1)


@dataclass(frozen=True, kw_only=True)
class PruneConfig(Cuts):
    """What is pruned, how far, and how it is repaired."""

    model: PathText
    """A run, a weights file or a shipped network."""
    run: TrainConfig
    """How each step is repaired; its student is replaced. Its epochs are those of the last step."""
    resource: Literal["macs", "params", "weights", "latency"] = "macs"
    """What is spared: multiply-accumulates or parameters, by whole channels, or single weights, which become zero.

    latency, the time for one image on this machine, is recorded as the multiply-accumulates that take so long.
    """
    share: float = option(above=0, below=1, remedy="0.5 leaves half")
    """Of the resource that is left in the end."""

    def check(self) -> None:
        """Checks what goes together."""
        for name, default in (("low_rank", False), ("round_to", ROUND_TO)):
            if self.resource == "weights" and getattr(self, name) != default:
                raise UsageError(f"{setting(name)} has no effect on single weights; leave it out")


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig(Config):
    """What is quantised, to what, and what it may cost."""

    model: PathText
    """A run, a weights file or a shipped network."""
    run: TrainConfig
    """How it is trained on where it must be, and on what data; its student is replaced."""
    to: str = option("int8", help="number format of the file: int8, int4, int8-dynamic, half or int8-weights")
    calibration: Literal["auto", "minmax", "percentile", "entropy"] = option(
        "auto", help="how int8 and int4 find ranges: minmax, percentile, entropy, or auto (the best)"
    )
    images: int = option(_IMAGES, help="training images to find ranges on", minimum=1, remedy="some hundreds are usual")
    max_drop: float = option(
        0.5, help="largest loss from quantisation", minimum=0, maximum=100, remedy="0.5 is usual", metavar="POINTS"
    )

    def check(self) -> None:
        """Checks what goes together."""
        if self.to not in PRECISIONS:
            raise unknown_name("precision", self.to, list(PRECISIONS))
        if self.to not in CALIBRATED and (self.calibration, self.images) != (AUTO, _IMAGES):
            raise UsageError(
                f"{setting('calibration')} and {setting('images')} have no effect for {self.to}, which needs no "
                "ranges; leave them out, or choose int8 or int4"
            )


@dataclass(frozen=True, kw_only=True)
class Budget(Config):
    """What the file that ships may cost; 0: anything."""

    max_bytes: int = option(0, help="largest size of the file in bytes, as 250000; 0: any", minimum=0)
    max_latency_ms: float = option(
        0.0, help="largest median latency of one image, ONNX Runtime, this machine; 0: any", minimum=0, metavar="MS"
    )
    min_accuracy: float = option(
        0.0,
        help="bound of the primary metric on the test data, as accuracy 0.82; 0: any",
        metavar="VALUE",
    )


@dataclass(frozen=True, kw_only=True)
class CompressConfig(Cuts):
    """A compression, whole. ``share`` of the ``resource`` is left by pruning; 1: nothing is pruned."""

    run: TrainConfig
    """How the student is distilled."""
    budget: Budget
    resource: Literal["macs", "params"] = "params"
    share: float = 1.0
    prune_epochs: int = option(
        0, help="epochs of fine-tuning after the last step; 0: as many as the distillation", minimum=0
    )
    to: str = option("int8", help="number format of the file: int8, or int4 (half the bytes)")
    quantize_epochs: int = option(8, help="epochs of fine-tuning with rounding, if rounding loses too much", minimum=1)
    max_drop: float = option(
        0.5, help="largest loss from quantisation", minimum=0, maximum=100, remedy="0.5 is usual", metavar="POINTS"
    )

    def check(self) -> None:
        """Checks what goes together."""
        if self.run.data.validation:
            raise UsageError(
                f"{setting('validation', self.run.data.validation)} has no effect here: every stage is measured "
                "on the test images; leave it out, or set data.validation to 0 in the configuration"
            )
        if self.to not in CALIBRATED:
            raise unknown_name("precision", self.to, list(CALIBRATED))
