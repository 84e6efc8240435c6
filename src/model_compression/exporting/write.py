"""Writes a network for other runtimes. A file gets its name only once it is verified."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model_compression.core import trust
from model_compression.core.errors import NotVerifiedError, UsageError, reason_of
from model_compression.core.files import temporary_folder, user_path, write_atomically, writing_failed
from model_compression.core.fitting import WHOLE
from model_compression.core.inputs import Inputs, map_inputs
from model_compression.core.metric import DEFAULT_METRIC, Metric
from model_compression.data.batches import to_tensors
from model_compression.data.dataset import Dataset
from model_compression.data.samples import UNNAMED, Samples
from model_compression.distillation.teachers.fingerprint import digest_of
from model_compression.exporting.images_in_parts import in_batches
from model_compression.exporting.metadata import ANY_SIZE, Entry, Metadata
from model_compression.exporting.quiet import quiet
from model_compression.exporting.runtimes import RUNTIMES, Runtime, open_file
from model_compression.exporting.runtimes.onnx import OnnxRuntime, rewrite, with_metadata, write_model
from model_compression.exporting.short_names import with_short_names
from model_compression.exporting.verify import BOUND, Verification, inputs_of, verify
from model_compression.models.base import Network
from model_compression.models.blank import blank
from model_compression.models.copies import copy_of
from model_compression.models.preprocessing import AS_IT_IS
from model_compression.tasks import task_of


class Deployed(nn.Module):
    """A network as one call: uint8 RGB images (B, C, H, W), or what it takes instead, to logits (B, …)."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network
        self.preprocessing = network.preprocessing

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits (B, …), with the network's own preprocessing inside."""
        logits: Tensor = self.network(self.preprocessing(inputs))
        return logits


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Fewer bits for an ONNX file: ``encode`` rewrites the model in place, for ``precision``.

    It passes with a primary metric that is at most ``max_drop`` below that of ``reference``, a network of
    ``reference_sha256``, or of the network itself.
    """

    precision: str
    encode: Callable[[Any], Any]
    max_drop: float
    reference: Network | None = None
    reference_sha256: str = ""


def export(
    network: Network,
    path: str | Path,
    dataset: Dataset,
    *,
    to: str = "onnx",
    preprocessing: bool = True,
    encoding: Encoding | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Verification:
    """Writes ``network`` to ``path`` for the runtime ``to``, and proves on all of ``dataset`` that it answers alike.

    The batch is dynamic, and of images whose answers are masks the size, where the network takes any; ``report`` is
    told if it does not. With ``preprocessing`` the file takes uint8 RGB pixels (B, C, H, W), without it what the
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
    stated = task_of(dataset).metric == DEFAULT_METRIC  # only then a file states its figure, and all logits are kept
    expected = logits_on(network, dataset) if stated else None
    metadata = _metadata_on(network, dataset, expected, preprocessing)
    if encoding is not None:
        assert to == "onnx"
        metadata = dataclasses.replace(
            metadata, precision=encoding.precision, reference_sha256=encoding.reference_sha256
        )
        expected = expected if encoding.reference is None else None
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = _write_for(dataset, network, part, metadata, runtime, report)
        if encoding is not None:
            rewrite(part, lambda model: with_short_names(encoding.encode(model)))
        reference = network if encoding is None or encoding.reference is None else encoding.reference
        found = verify(part, reference, dataset, expected=expected)
        fault = found.fault() if encoding is None else found.drop_fault(encoding.max_drop)
        if fault:
            raise NotVerifiedError(f"{path} is not written, as it does not answer as the network does: {fault}")
        if encoding is not None:
            own = dataclasses.replace(metadata, accuracy=_accuracy(found.metric, found.value))
            rewrite(part, lambda model: with_metadata(model, own))
        trust.seal_content(part.read_bytes())
        if isinstance(dataset.samples, Samples):
            for file, content in dataset.samples.companions.items():
                write_atomically(path.parent / file, content)
        os.replace(part, path)
    except OSError as error:
        needed = sum(tensor.nbytes for tensor in network.state_dict().values())
        raise writing_failed(path, error, needed if encoding is None else 0) from error
    finally:
        part.unlink(missing_ok=True)
    return found


def encoded_answers(network: Network, encodes: Mapping[str, Callable[[Any], Any]], images: Any) -> dict[str, Any]:
    """Logits (N, K), in an array, to uint8 ``images`` (N, C, H, W), of a file as each of ``encodes`` rewrites it."""
    import onnx

    answers = {}
    with temporary_folder() as folder:
        plain, tried = folder / "plain.onnx", folder / "tried.onnx"
        write_unverified(network, plain, tuple(images.shape[1:]), preprocessing=True)
        for name, encode in encodes.items():
            write_model(tried, encode(onnx.load(plain)))
            file = open_file(tried)
            answers[name] = np.concatenate([file.run(part) for part in in_batches(images)])
    return answers


def write_unverified(
    network: Network, path: Path, input_shape: tuple[int, ...], *, preprocessing: bool = False
) -> None:
    """An ONNX file that is tried and thrown away. Raises MissingExtraError.

    It takes normalised images of ``input_shape`` (C, H, W), or pixels; or texts, where that is (L,).
    """
    runtime, network = OnnxRuntime(), freeze(network)
    runtime.check()
    shown = blank(input_shape, 2)
    with torch.no_grad():
        sizes: tuple[int | str, ...] = tuple(network(shown).shape[1:])
    said: dict[str, Any] = {"data": "", "accuracy": None, "answer": sizes if len(sizes) > 1 else ()}
    if isinstance(shown, Tensor):
        said["class_names"] = tuple(map(str, range(int(sizes[0]))))
        metadata = _metadata(network, input_shape, preprocessing, **said)
        _write(network, path, metadata, runtime, _blank(input_shape))
        return
    network.preprocessing = AS_IT_IS
    said["inputs"] = tuple(Entry(name=name, dtype="int64", shape=("length",)) for name in shown)
    said["class_names"] = tuple(map(str, range(int(sizes[-1]))))
    if len(sizes) > 1:
        said["answer"] = ("length", sizes[-1])
    _write(network, path, _metadata(network, (), True, **said), runtime, shown)


def freeze(network: Network) -> Network:
    """A copy of what ships, in float32 on the CPU, that will not be trained."""
    network = copy_of(network.deployed()).cpu().float().eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network


def _blank(image_shape: tuple[int, ...]) -> Tensor:
    """Two images, for an export to trace."""
    return torch.zeros(2, *image_shape, dtype=torch.uint8)


def _write(network: Network, path: Path, metadata: Metadata, runtime: Runtime, example: Inputs) -> None:
    module: nn.Module = Deployed(network).eval()
    if not metadata.preprocessing_inside:
        module, example = network, map_inputs(Tensor.float, example)
    with quiet():
        runtime.write(module, example, path, metadata)


def _write_for(
    dataset: Dataset,
    network: Network,
    path: Path,
    fixed: Metadata,
    runtime: Runtime,
    report: Callable[[str], None],
) -> Metadata:
    """Writes the file, for images of any size where masks and network allow it; returns what it then states."""
    if dataset.has_masks and network.preprocessing.size is None and network.preprocessing.mean_image is None:
        metadata = _of_any_size(fixed)
        fault = _any_size_fault(network, path, metadata, runtime)
        if fault is None:
            return metadata
        height, width = fixed.image_shape[1:]
        report(f"the network cannot be written for images of any size ({fault}): the file takes {height} × {width}")
    shown = _blank(fixed.image_shape) if dataset.holds_images else to_tensors(dataset.first(2))
    _write(network, path, fixed, runtime, shown)
    return fixed


def _of_any_size(fixed: Metadata) -> Metadata:
    """The metadata of a file whose logits are those of the pixels of images of any size."""
    (entry,), classes = fixed.entries, fixed.answer_shape[0]
    free = dataclasses.replace(entry, shape=(fixed.image_shape[0], *ANY_SIZE))
    return dataclasses.replace(fixed, inputs=(free,), answer=(classes, *ANY_SIZE))


@torch.no_grad()
def _any_size_fault(network: Network, path: Path, metadata: Metadata, runtime: Runtime) -> str | None:
    """Writes the file for images of any size, and tries it on images twice as high and three times as wide.

    Returns why the network cannot be written so, in a line; None where its file answers as it does.
    """
    channels, height, width = metadata.image_shape
    pixels = torch.randint(0, 256, (1, channels, 2 * height, 3 * width), generator=torch.Generator().manual_seed(0))
    inputs = pixels.to(torch.uint8) if metadata.preprocessing_inside else pixels / 255
    try:
        _write(network, path, metadata, runtime, _blank(metadata.image_shape))
        found = torch.from_numpy(open_file(path).run(inputs.numpy()))
        expected = Deployed(network)(inputs) if metadata.preprocessing_inside else network(inputs)
    except Exception as error:  # of torch's exporter, of a runtime, or of a network of others
        return reason_of(error)
    if found.shape == expected.shape and float((found - expected).abs().max()) <= BOUND * float(expected.std() * 10):
        return None
    return "a file for any size answers otherwise than the network does"


@torch.no_grad()
def logits_on(network: Network, dataset: Dataset) -> Tensor:
    """Logits (N, …) of all samples, in float32; the network is on the CPU."""
    return torch.cat([network(network.preprocessing(inputs)) for inputs in inputs_of(dataset, [network])])


def _metadata_on(network: Network, dataset: Dataset, logits: Tensor | None, preprocessing: bool) -> Metadata:
    """With the figure that ``logits`` have on ``dataset``, if they are given."""
    task = task_of(dataset, network.facts)
    if network.preprocessing.mean_image is not None and not preprocessing:
        raise UsageError(
            "this network subtracts a mean image, which the file's description cannot hold; "
            "export it with the preprocessing inside"
        )
    answer, outputs = task.answer_shape(dataset), task.num_outputs(dataset)
    if not outputs:  # the network alone says
        outputs = network(network.preprocessing(to_tensors(dataset.first(1)))).shape[1]
    return _metadata(
        network,
        dataset.image_shape if dataset.holds_images else (),
        preprocessing or not dataset.holds_images,
        class_names=dataset.class_names,
        data=dataset.name,
        accuracy=None if logits is None else task.value(logits, task.tensor_of(dataset)),
        task=dataset.task,
        outputs=0 if dataset.class_names else outputs,
        inputs=_entries(dataset),
        answer=() if answer == (outputs,) else answer,
        facts={name: value for name, value in task.facts(dataset).items() if name != "class_names"},
        **(dataset.fit or WHOLE).to_dict(),
    )


def _entries(dataset: Dataset) -> tuple[Entry, ...]:
    """What a file takes in place of images; none where it takes these."""
    if not isinstance(dataset.samples, Samples):
        return ()
    first = dataset.first(1)
    arrays = first if isinstance(first, dict) else {UNNAMED: first}
    shapes = dataset.samples.signature
    return tuple(Entry(name=name, dtype=str(array.dtype), shape=shapes[name]) for name, array in arrays.items())


def _metadata(network: Network, image_shape: tuple[int, ...], preprocessing: bool, **said: Any) -> Metadata:
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
    """What a file states of its accuracy: nothing where its task has another metric than the default one."""
    return value if metric == DEFAULT_METRIC else None
