"""How an image of any shape gets the size that a network takes: what part of it, and by which filter."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from model_compression.core.errors import UsageError

Fit = Literal["crop", "pad", "squash"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Pillow's filters, in small letters."""
SMALLEST_SHARE = 0.01


@dataclass(frozen=True)
class Fitting:
    """Cropped or squashed, and then the middle ``share`` of each side kept; or padded with grey, whole.

    With "crop" the pixels are those of torchvision's Resize and CenterCrop: the shorter side becomes ⌊N / share⌋
    pixels, of which the middle N are taken. ``interpolation`` is the filter, antialiased. (Transformers' processors
    round half a margin down, so their middle may lie one pixel beside this one.)
    """

    fit: Fit = "crop"
    share: float = 1.0
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        """Raises UsageError for what cannot be."""
        if self.fit not in get_args(Fit) or self.interpolation not in get_args(Interpolation):
            raise UsageError(f"fit and interpolation cannot be {self.fit!r} and {self.interpolation!r}")
        share = self.share
        if not isinstance(share, int | float) or not SMALLEST_SHARE <= share <= 1 or (share != 1 and self.fit == "pad"):
            raise UsageError(f"crop_share must lie between {SMALLEST_SHARE} and 1, and be 1 with pad, got {share!r}")

    @property
    def words(self) -> str:
        """What is done, for people."""
        done = {"crop": "cropped to a square", "pad": "padded to a square", "squash": "squashed to a square"}[self.fit]
        share = "" if self.share == 1 else f", the middle {self.share:.1%} kept"
        return f"{done}{share}, scaled by the {self.interpolation} filter"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, by the names of the options."""
        return {"fit": self.fit, "crop_share": self.share, "interpolation": self.interpolation}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fitting":
        """Inverse of `to_dict`; what is missing has its default. Raises UsageError."""
        return cls(
            fit=values.get("fit", "crop"),
            share=values.get("crop_share", 1.0),
            interpolation=values.get("interpolation", "bicubic"),
        )


WHOLE = Fitting()
