"""Writes a network for other runtimes. A file gets its name only once it is verified."""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_compression.core import trust
from model_compression.core.errors import NotVerifiedError, UsageError
from model_compression.core.files import user_path, writing_failed
from model_compression.core.metric import ACCURACY, Metric
from model_compression.data.dataset import Dataset
from model_compression.distillation.teachers.fingerprint import digest_of
from model_compression.exporting.metadata import Metadata
from model_compression.exporting.quiet import quiet
from model_compression.exporting.runtimes import RUNTIMES, Runtime, open_file
from model_compression.exporting.runtimes.onnx import OnnxRuntime, rewrite, with_metadata, write_model
from model_compression.exporting.short_names import with_short_names
from model_compression.exporting.verify import Verification, pixels_of, verify
from model_compression.models.base import Network
from model_compression.models.copies import copy_of
from model_compression.tasks import task_of


class Deployed(nn.Module):
    """A network as one call: uint8 RGB images (B, C, H, W) to logits (B, K), with its own preprocessing inside."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network
        self.preprocessing = network.preprocessing

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) uint8."""
        logits: Tensor = self.network(self.preprocessing(images))
        return logits


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Fewer bits for an ONNX file: ``encode`` rewrites the model in place, for ``precision``.

    It passes with at most ``max_drop`` points of accuracy below ``expected``, logits (N, K) of the network of
    ``reference_sha256``, or the network's own.
    """

    precision: str
    encode: Callable[[Any], Any]
    max_drop: float
    expected: Tensor | None = None
    reference_sha256: str = ""


def export(
    network: Network,
    path: str | Path,
    dataset: Dataset,
    *,
    to: str = "onnx",
    preprocessing: bool = True,
    encoding: Encoding | None = None,
) -> Verification:
    """Writes ``network`` to ``path`` for the runtime ``to``, and proves on all of ``dataset`` that it answers alike.

    The batch is dynamic. With ``preprocessing`` the file takes uint8 RGB pixels (B, C, H, W), without it what the
    network itself takes. The file is written under another name, loaded by its own runtime and compared; it gets
    ``path`` as its name when it has passed. ``encoding`` writes an ONNX file in fewer bits, which then states its own
    accuracy.

    Raises UsageError for an unknown format or ending, MissingExtraError, and NotVerifiedError, leaving nothing,
    when the file does not answer as the network does.
    """
    path, runtime = user_path(path), RUNTIMES.create(to)
    runtime.check()
    if path.suffix != runtime.suffix:
        raise UsageError(f"a file for {to} must end in {runtime.suffix}, got {path.name}")
    network = freeze(network)
    expected = logits_on(network, dataset)
    metadata = _metadata_on(network, dataset, expected, preprocessing)
    if encoding is not None:
        assert to == "onnx"
        metadata = dataclasses.replace(
            metadata, precision=encoding.precision, reference_sha256=encoding.reference_sha256
        )
        expected = expected if encoding.expected is None else encoding.expected
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(network, part, metadata, runtime)
        if encoding is not None:
            rewrite(part, lambda model: with_short_names(encoding.encode(model)))
        found = verify(part, network, dataset, expected=expected)
        fault = found.fault() if encoding is None else found.drop_fault(encoding.max_drop)
        if fault:
            raise NotVerifiedError(f"{path} is not written, as it does not answer as the network does: {fault}")
        if encoding is not None:
            own = dataclasses.replace(metadata, accuracy=_accuracy(found.metric, found.value))
            rewrite(part, lambda model: with_metadata(model, own))
        trust.seal_content(part.read_bytes())
        os.replace(part, path)
    except OSError as error:
        raise writing_failed(path, error) from error
    finally:
        part.unlink(missing_ok=True)
    return found


def encoded_answers(network: Network, encodes: Mapping[str, Callable[[Any], Any]], images: Any) -> dict[str, Any]:
    """Logits (N, K), in an array, to uint8 ``images`` (N, C, H, W), of a file as each of ``encodes`` rewrites it."""
    import onnx

    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        plain, tried = Path(folder) / "plain.onnx", Path(folder) / "tried.onnx"
        write_unverified(network, plain, tuple(images.shape[1:]), preprocessing=True)
        for name, encode in encodes.items():
            write_model(tried, encode(onnx.load(plain)))
            answers[name] = open_file(tried).run(images)
    return answers


def write_unverified(
    network: Network,
    path: Path,
    image_shape: tuple[int, int, int],
    *,
    preprocessing: bool = False,
) -> None:
    """An ONNX file that is tried and thrown away: of normalised images, or of pixels. Raises MissingExtraError."""
    runtime, network = OnnxRuntime(), freeze(network)
    runtime.check()
    with torch.no_grad():
        classes = network(torch.zeros(2, *image_shape)).shape[1]
    names = tuple(map(str, range(classes)))
    metadata = _metadata(network, image_shape, preprocessing, class_names=names, data="", accuracy=None)
    _write(network, path, metadata, runtime)


def freeze(network: Network) -> Network:
    """A copy of what ships, in float32 on the CPU, that will not be trained."""
    network = copy_of(network.deployed()).cpu().float().eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network


def _write(network: Network, path: Path, metadata: Metadata, runtime: Runtime) -> None:
    images = torch.zeros(2, *metadata.image_shape, dtype=torch.uint8)
    if metadata.preprocessing_inside:
        module: nn.Module = Deployed(network).eval()
        example = images
    else:
        module, example = network, images.float()
    with quiet():
        runtime.write(module, example, path, metadata)


@torch.no_grad()
def logits_on(network: Network, dataset: Dataset) -> Tensor:
    """Logits (N, K) of all images, in float32; the network is on the CPU."""
    return torch.cat([network(network.preprocessing(images)) for images in pixels_of(dataset)])


def _metadata_on(network: Network, dataset: Dataset, logits: Tensor, preprocessing: bool) -> Metadata:
    """With the accuracy that ``logits`` have on ``dataset``."""
    task = task_of(dataset)
    if network.preprocessing.mean_image is not None and not preprocessing:
        raise UsageError(
            "this network subtracts a mean image, which the file's description cannot hold; "
            "export it with the preprocessing inside"
        )
    return _metadata(
        network,
        dataset.image_shape,
        preprocessing,
        class_names=dataset.class_names,
        data=dataset.name,
        accuracy=_accuracy(task.metric, task.value(logits, torch.from_numpy(dataset.labels))),
        task=dataset.task,
        outputs=0 if dataset.class_names else dataset.num_outputs,
    )


def _metadata(network: Network, image_shape: tuple[int, int, int], preprocessing: bool, **said: Any) -> Metadata:
    how = network.preprocessing
    return Metadata(
        model=network.name,
        image_shape=image_shape,
        preprocessing_inside=preprocessing,
        mean=how.mean,
        std=how.std,
        channel_order=how.channel_order,
        weights_sha256=digest_of([network]),
        **said,
    )


def _accuracy(metric: Metric, value: float) -> float | None:
    """What a file states of its accuracy: nothing where its task has another metric."""
    return value if metric == ACCURACY else None
