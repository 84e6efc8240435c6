"""What an exported file says of itself. Read without torch."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from model_compression.errors import FileFormatError

KEY = "model_compression"
FORMAT = "model_compression.export/1"


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """``class_names`` in the order of the logits; ``image_shape`` (C, H, W) of the input.

    With ``preprocessing_inside`` the input is uint8 RGB pixels; without it, float32 (pixels / 255 − ``mean``) / ``std``
    in ``channel_order``. ``weights_sha256`` is of the network that was exported, ``accuracy`` its test accuracy in
    float32 on ``data``, None where it was not measured.
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

    def to_json(self) -> str:
        """Text that `from_json` reads."""
        return json.dumps({"format": FORMAT, **asdict(self)})


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
        if len(found.image_shape) != 3 or not all(type(size) is int and size > 0 for size in found.image_shape):
            raise ValueError("image_shape")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{source}: what it says of itself is damaged: {error}") from None
    return found
