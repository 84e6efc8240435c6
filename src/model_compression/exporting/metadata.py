"""What an exported file says of itself. Read without torch."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from model_compression.core.errors import FileFormatError

KEY = "model_compression"
FORMAT = "model_compression.export/1"
_MAX_SIDE = 4096  # pixels
_MOST_OUTPUTS = 2**26


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """``class_names`` in the order of the logits; ``image_shape`` (C, H, W) of the input.

    With ``preprocessing_inside`` the input is uint8 RGB pixels; without it, float32 (pixels / 255 − ``mean``) / ``std``
    in ``channel_order``. ``weights_sha256`` is of the network that was exported, ``accuracy`` the test accuracy on
    ``data``, None where it was not measured. ``precision`` is what the file computes in, or holds its weights in.
    ``reference_sha256`` is of the network that it was compared with, where that is another one: of a file that was
    trained on with its roundings. ``outputs`` is how many numbers the file answers with where they are no classes.
    """

    model: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    preprocessing_inside: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str
    data: str
    accuracy: float | None
    weights_sha256: str
    precision: str = "float32"
    reference_sha256: str = ""
    task: str = "image-classification"
    outputs: int = 0

    @property
    def num_outputs(self) -> int:
        """How many numbers the file answers with to one image."""
        return self.outputs or len(self.class_names)

    def to_json(self) -> str:
        """Text that `from_json` reads."""
        values = {"format": FORMAT, **asdict(self)}
        if not self.outputs:  # as files have always said it
            del values["task"], values["outputs"]
        return json.dumps(values)


def _check(found: Metadata) -> None:
    """Raises ValueError with the name of what cannot be."""
    numbers = (*found.mean, *found.std)
    good = {
        "class_names": (found.class_names or found.outputs)
        and all(isinstance(n, str) and n.isprintable() for n in found.class_names),
        "image_shape": len(found.image_shape) == 3
        and all(type(size) is int and 0 < size <= _MAX_SIDE for size in found.image_shape),
        "mean and std": len(found.mean) == len(found.std) == found.image_shape[0]
        and all(isinstance(value, int | float) for value in numbers),
        "task": isinstance(found.task, str) and found.task.isprintable(),
        "outputs": type(found.outputs) is int and 0 <= found.outputs <= _MOST_OUTPUTS,
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
        found = Metadata(**values)
        _check(found)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{source}: what it says of itself is damaged: {error}") from None
    return found
