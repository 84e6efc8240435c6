"""What an exported file says of itself. Read without torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from model_compression.core.errors import FileFormatError
from model_compression.core.fitting import WHOLE, Fit, Fitting, Interpolation

Shape = tuple[int | str, ...]
KEY = "model_compression"
FORMAT = "model_compression.export/1"
DTYPES = ("uint8", "int64", "float32")
"""Of what a file may take."""
ANY_SIZE = ("height", "width")
"""The sizes of images that may have any."""
_MAX_SIZE = 4096
_FIRST_TASK = "image-classification"
_MOST_OUTPUTS = 2**26


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What goes in or comes out: a tensor (B, ``shape``), in which a text is a size that varies."""

    name: str
    dtype: str
    shape: Shape


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """``class_names`` in the order of the logits; ``image_shape`` (C, H, W) of the input.

    A file that takes no images has no ``image_shape``, ``mean`` and ``std``, and says in ``inputs`` what it takes. One
    that takes images of any size says so in ``inputs``, and ``image_shape`` is the size that it was proven on.
    With ``preprocessing_inside`` the input is uint8 RGB pixels; without it, float32 (pixels / 255 − ``mean``) / ``std``
    in ``channel_order``. ``weights_sha256`` is of the network that was exported, ``accuracy`` the test accuracy on
    ``data``, None where it was not measured. ``precision`` is what the file computes in, or holds its weights in.
    ``reference_sha256`` is of the network that it was compared with, where that is another one: of a file that was
    trained on with its roundings. ``outputs`` is how many numbers the file answers with where they are no classes;
    ``answer`` are the sizes of its logits where they are more than one number a class. ``facts`` are what else its task
    says of the answers, plain values, as thresholds or the scale of numbers. ``fit``, ``crop_share`` and
    ``interpolation`` say how photographs got the size of ``image_shape``, see `Fitting`.
    """

    model: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    preprocessing_inside: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str
    data: str
    accuracy: float | None
    weights_sha256: str
    precision: str = "float32"
    reference_sha256: str = ""
    task: str = _FIRST_TASK
    outputs: int = 0
    inputs: tuple[Entry, ...] = ()
    answer: Shape = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    fit: Fit = "crop"
    crop_share: float = 1.0
    interpolation: Interpolation = "bicubic"

    @property
    def fitting(self) -> Fitting:
        """How an image gets the size of ``image_shape``."""
        return Fitting(self.fit, self.crop_share, self.interpolation)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What the file takes."""
        kind = "uint8" if self.preprocessing_inside else "float32"
        return self.inputs or (Entry(name="images", dtype=kind, shape=self.image_shape),)

    @property
    def is_of_any_size(self) -> bool:
        """Whether it takes images of any height and width."""
        return bool(self.image_shape and self.inputs)

    @property
    def answer_shape(self) -> Shape:
        """Sizes of the logits (B, …) behind the batch."""
        return self.answer or (self.outputs or len(self.class_names),)

    def answer_sizes(self, inputs: Mapping[str, Any]) -> tuple[int, ...]:
        """`answer_shape` for arrays by name, which say what the sizes that vary are."""
        known = {
            size: inputs[entry.name].shape[place]
            for entry in self.inputs
            for place, size in enumerate(entry.shape, start=1)
        }
        return tuple(int(known.get(size, size)) for size in self.answer_shape)

    def to_json(self) -> str:
        """Text that `from_json` reads."""
        values = {"format": FORMAT, **asdict(self)}
        if not (self.outputs or self.inputs or self.answer or self.task != _FIRST_TASK):  # as files have always said it
            del values["task"], values["outputs"]
        for key in ("inputs", "answer", "facts"):
            if not values[key]:
                del values[key]
        for key, default in WHOLE.to_dict().items():
            if values[key] == default:
                del values[key]
        return json.dumps(values)


def _is_shape(sizes: Shape) -> bool:
    return all(
        (type(size) is int and 0 < size <= _MAX_SIZE) or (isinstance(size, str) and size.isidentifier())
        for size in sizes
    )


def _check(found: Metadata) -> None:
    """Raises ValueError with the name of what cannot be."""
    numbers = (*found.mean, *found.std)
    good = {
        "class_names": (found.class_names or found.outputs)
        and all(isinstance(n, str) and n.isprintable() for n in found.class_names),
        "inputs": all(
            isinstance(one.name, str) and one.dtype in DTYPES and _is_shape(one.shape) for one in found.inputs
        ),
        "answer": _is_shape(found.answer)
        and {size for size in found.answer if isinstance(size, str)} <= {s for one in found.inputs for s in one.shape},
        "image_shape": found.inputs != () == found.image_shape
        or (len(found.image_shape) == 3 and _is_shape(found.image_shape) and str not in map(type, found.image_shape)),
        "inputs beside image_shape": not (found.inputs and found.image_shape)
        or (len(found.inputs) == 1 and found.inputs[0].shape == (found.image_shape[0], *ANY_SIZE)),
        "mean and std": len(found.mean) == len(found.std) == (found.image_shape[0] if found.image_shape else 0)
        and all(isinstance(value, int | float) for value in numbers),
        "facts": isinstance(found.facts, dict),
        "task": isinstance(found.task, str) and found.task.isprintable(),
        "outputs": type(found.outputs) is int and 0 <= found.outputs <= _MOST_OUTPUTS,
        "fit": found.fit in get_args(Fit),
        "crop_share": isinstance(found.crop_share, int | float) and 0 < found.crop_share <= 1,
        "interpolation": found.interpolation in get_args(Interpolation),
        "precision": isinstance(found.precision, str) and found.precision.isprintable(),
        "preprocessing_inside": isinstance(found.preprocessing_inside, bool),
    }
    wrong = [name for name, holds in good.items() if not holds]
    if wrong:
        raise ValueError(f"{wrong[0]} cannot be")


def from_json(text: str | None, source: str) -> Metadata:
    """The metadata in a file's text. Raises FileFormatError for a file of other origin, and for a damaged text."""
    if text is None:
        raise FileFormatError(
            f"{source} does not say what it is; expected a file that `model-compression export` has written"
        )
    try:
        values: dict[str, Any] = json.loads(text)
        if values.pop("format") != FORMAT:
            raise FileFormatError(f"{source} is of another format than {FORMAT!r}; use the version that wrote it")
        for key in ("class_names", "image_shape", "mean", "std"):
            values[key] = tuple(values[key])
        values["inputs"] = tuple(
            Entry(name=one["name"], dtype=one["dtype"], shape=tuple(one["shape"])) for one in values.get("inputs", ())
        )
        values["answer"] = tuple(values.get("answer", ()))
        found = Metadata(**values)
        _check(found)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{source}: what it says of itself is damaged: {error}") from None
    return found
