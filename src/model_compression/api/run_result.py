"""What a run leaves: its figures, the trained student and the folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from model_compression.core.metric import primary_metric
from model_compression.engine.run_folder import RunFolder
from model_compression.models.base import Network
from model_compression.models.external import External
from model_compression.models.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True, repr=False)
class RunResult:
    """What a run left: its figures, the trained student in eval mode, and the folder with everything.

    ``student(preprocessing(images))`` answers images (B, C, H, W) uint8 with logits (B, K). Of a run on DataLoaders
    ``student(images)`` does so with images that are normalised as theirs, and ``preprocessing`` changes nothing.
    """

    metrics: dict[str, Any]
    student: nn.Module
    preprocessing: Preprocessing
    run_dir: Path

    @property
    def backbone(self) -> Path | None:
        """The weights of a network without a head, under the names of its own library; None for other networks."""
        path = RunFolder(self.run_dir).backbone
        return path if path.is_file() else None

    def __repr__(self) -> str:
        metric = primary_metric(self.metrics)
        key = next(key for key in map(metric.key, ("validation", "test")) if key in self.metrics)
        return f"<{key.replace('_', ' ')} {metric.text(self.metrics[key])}, run {self.run_dir}>"


def result_of(metrics: dict[str, Any], network: Network, folder: Path) -> RunResult:
    """The result of a run that ended with ``network``."""
    network.eval()
    return RunResult(
        metrics=metrics,
        student=network.body if isinstance(network, External) else network,
        preprocessing=network.preprocessing,
        run_dir=folder,
    )
