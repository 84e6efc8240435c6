"""Images that show ONNX Runtime the ranges of activations, in parts whose activations fit in memory."""

import copy
import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_BATCH = 32
_MOST_HELD = 2**31  # bytes of activations


class ImagesInParts:
    """Gives ONNX Runtime the images, batch by batch, in parts: it holds the activations of a whole part in memory."""

    def __init__(self, model: Any, images: Array):
        self._name = model.graph.input[0].name
        batch = min(_BATCH, len(images))
        whole = images[: len(images) // batch * batch]  # its histograms want batches of one size
        held = batch * _activation_bytes(model, images.shape[1:])
        batches, count = np.split(whole, len(whole) // batch), max(1, _MOST_HELD // max(1, held))
        self._parts = [batches[first : first + count] for first in range(0, len(batches), count)]
        self._batches: Iterator[Array] = iter(())

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self._parts)

    def set_range(self, start_index: int, end_index: int) -> None:
        """The parts that `get_next` goes on with."""
        self._batches = chain.from_iterable(self._parts[start_index:end_index])

    def get_next(self) -> dict[str, Array] | None:
        """The next batch, by the name of the input; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def in_batches(images: Any) -> Iterator[Any]:
    """Parts of ``images`` (N, …), an array or a tensor, that a network of photographs can answer in little memory."""
    return (images[first : first + _BATCH] for first in range(0, len(images), _BATCH))


def _activation_bytes(model: Any, shape: tuple[int, ...]) -> int:
    """What all tensors between the operators of ``model`` take for an image of ``shape`` (C, H, W)."""
    from onnx import shape_inference

    known = copy.deepcopy(model)
    for dim, size in zip(known.graph.input[0].type.tensor_type.shape.dim, (1, *shape), strict=True):
        dim.dim_value = size
    values = shape_inference.infer_shapes(known, data_prop=True).graph.value_info
    shapes = ([dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values)
    return sum(4 * math.prod(sizes) for sizes in shapes)
