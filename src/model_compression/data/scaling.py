"""Scaling and cropping of images to one size, antialiased. Torch is imported for images that are much larger."""

import math
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from model_compression.core.fitting import WHOLE, Fitting, Interpolation
from model_compression.core.masks import IGNORE
from model_compression.data.on_demand import Choose, Images

MUCH_LARGER = 1.5  # times the size that is wanted, both ways: from here on what is fast may differ by rounding
_NEAR = 1 / 32  # of a pixel: how far from its place an image may be sampled
_STEPS = 32  # pixels of the result that are computed in vain, at most, to begin at a whole pixel
_TAPS = 2  # pixels of the result that bicubic weights reach to each side

Size = tuple[int, int]
Span = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


_ROUNDING = 1e-6  # of a pixel: what 224 / (224 / 232) is short of 232
_PADDING = 127  # the level beside a padded image: near the mean of most


def least_sides(size: Size, fit: Fitting = WHOLE) -> Size:
    """The height and width in pixels that an image which is to get ``size`` (H, W) must keep if decoded smaller."""
    least = math.ceil(MUCH_LARGER * max(size) / fit.share)
    return least, least


def scale(image: Image.Image | Images, size: Size | None, scene: Box | None = None, fit: Fitting = WHOLE) -> Images:
    """(C, H, W) of an image, brought to ``size`` (H, W) as ``fit`` says, or as it is.

    ``scene`` is the part of the image that counts, without it all. Pillow's filter; images that are `MUCH_LARGER` go
    through torch's bilinear or bicubic one, which is six times as fast and differs where the two round otherwise,
    mostly by one level.
    """
    if isinstance(image, np.ndarray):  # Pillow has no images of any number of channels: one after the other
        if size is None or (image.shape[1:] == size and fit.share == 1):
            return image
        return np.concatenate([scale(Image.fromarray(channel), size, fit=fit) for channel in image])
    if size is None:
        return _pixels(image)
    whole = scene or (0, 0, *image.size)
    inner = _inner(size, whole) if fit.fit == "pad" else size
    pixels = _middle_of(image, inner, _covering(inner, whole, fit), whole, fit.interpolation)
    return _padded(pixels, size, _PADDING) if fit.fit == "pad" else pixels


def scale_crop(crop: Images, size: Size, interpolation: Interpolation = "bicubic") -> Images:
    """A crop (C, h, w), whole, scaled to ``size`` (H, W): nothing beside it is seen.

    By torch's bilinear filter where that is the ``interpolation``, else by its bicubic one.
    """
    import torch

    if crop.shape[1:] == size:
        return np.array(crop)
    mode = "bilinear" if interpolation == "bilinear" else "bicubic"
    pixels = torch.from_numpy(np.ascontiguousarray(crop.transpose(1, 2, 0))).permute(2, 0, 1)  # the order it is fast in
    scaled = torch.nn.functional.interpolate(pixels[None], size, mode=mode, antialias=True)
    return scaled[0].numpy()


def crop_array(image: Images, size: Size, choose: Choose, interpolation: Interpolation = "bicubic") -> Images:
    """The part of an image (C, h, w) that ``choose`` takes, scaled to ``size`` (H, W)."""
    top, left, height, width = choose(*image.shape[1:])
    return scale_crop(image[:, top : top + height, left : left + width], size, interpolation)


def _middle_of(image: Image.Image, size: Size, whole: Size, scene: Box, interpolation: Interpolation) -> Images:
    """The middle ``size`` (H, W) of ``scene`` when it is scaled to ``whole``."""
    left, top, right, bottom = scene
    columns, rows = _middle(left, right, size[1], whole[1]), _middle(top, bottom, size[0], whole[0])
    if min((right - left) / whole[1], (bottom - top) / whole[0]) >= MUCH_LARGER:
        reduced = _reduced(image, size, columns, rows, interpolation)
        if reduced is not None:
            return reduced
    inside = (left, top, min(right, image.width), min(bottom, image.height))  # of what rounds over
    scaled = image.resize((whole[1], whole[0]), Image.Resampling[interpolation.upper()], box=inside)
    first, upper = _margin(whole[1], size[1]), _margin(whole[0], size[0])
    return _pixels(scaled.crop((first, upper, first + size[1], upper + size[0])))


def _pixels(image: Image.Image) -> Images:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)  # (H, W, C) → (C, H, W)


def fit_mask(mask: Images, size: Size | None, fit: Fitting = WHOLE) -> Images:
    """A mask (H, W) brought to ``size`` as `scale` does with its image: the nearest pixels, `IGNORE` beside them."""
    if size is None or (mask.shape == size and fit.share == 1):
        return mask
    scene: Box = (0, 0, mask.shape[1], mask.shape[0])
    inner = _inner(size, scene) if fit.fit == "pad" else size
    found = _middle_of(Image.fromarray(mask), inner, _covering(inner, scene, fit), scene, "nearest")
    return _padded(found[0], size, IGNORE)


def _covering(size: Size, scene: Box, fit: Fitting) -> Size:
    """The size (H, W) that ``scene`` is scaled to before all but the middle ``size`` of it is cut off, as `Fitting`
    says.
    """
    across, down = scene[2] - scene[0], scene[3] - scene[1]
    high, wide = (math.floor(side / fit.share + _ROUNDING) for side in size)
    if fit.fit != "crop":
        return high, wide
    if across * size[0] < down * size[1]:
        return max(high, int(wide * down / across)), wide
    return high, max(wide, int(high * across / down))


def _middle(first: float, last: float, kept: int, count: int) -> Span:
    """Of a span that becomes ``count`` pixels what becomes the middle ``kept``."""
    step, skipped = (last - first) / count, _margin(count, kept)
    return first + skipped * step, first + (skipped + kept) * step


def _margin(count: int, kept: int) -> int:
    """How many of ``count`` pixels lie before the middle ``kept``, as torchvision counts them."""
    return round((count - kept) / 2)


def _inner(size: Size, scene: Box) -> Size:
    """The largest size with the shape of ``scene`` inside of ``size``."""
    width, height = scene[2] - scene[0], scene[3] - scene[1]
    share = min(size[0] / height, size[1] / width)
    return max(1, round(height * share)), max(1, round(width * share))


def _padded(pixels: Images, size: Size, level: int) -> Images:
    """``pixels`` (…, h, w) in the middle of (…, H, W), with ``level`` beside them."""
    height, width = pixels.shape[-2:]
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)  # as Pillow's pad
    padded = np.full((*pixels.shape[:-2], *size), level, dtype=np.uint8)
    padded[..., top : top + height, left : left + width] = pixels
    return padded


def _reduced(image: Image.Image, size: Size, across: Span, down: Span, interpolation: Interpolation) -> Images | None:
    """The part ``across`` and ``down`` by torch; None if it has no such filter, a slow one, or cannot begin there."""
    import torch

    filters = {"bilinear": torch.ops.aten._upsample_bilinear2d_aa, "bicubic": torch.ops.aten._upsample_bicubic2d_aa}
    if interpolation not in filters:
        return None
    columns, rows = _window(*across, size[1], image.width), _window(*down, size[0], image.height)
    if columns is None or rows is None or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return None
    pixels: Any = np.array(np.atleast_3d(np.asarray(image))[rows.pixels, columns.pixels])
    scaled: torch.Tensor = filters[interpolation](  # what interpolate calls, which hides the scale
        torch.from_numpy(pixels).permute(2, 0, 1)[None],
        [rows.skipped + size[0], columns.skipped + size[1]],
        False,
        1 / rows.step,
        1 / columns.step,
    )
    return scaled[0, :, rows.skipped :, columns.skipped :].numpy()


class _Window(NamedTuple):
    """Pixels of an axis that are ``step`` to a pixel of the result, of which the first ``skipped`` are not wanted."""

    pixels: slice
    skipped: int
    step: float


def _window(low: float, high: float, count: int, length: int) -> _Window | None:
    """The window of an axis of ``length`` pixels in which those from ``low`` to ``high`` become ``count``.

    Torch's filter begins at the edge of a pixel; a box may begin inside of one. So the window begins some steps before
    the box, where a step ends nearest to an edge. None where no such place is near enough.
    """
    step = (high - low) / count
    steps = [0] if low < _NEAR else range(_TAPS, min(_STEPS, int((low + _NEAR) / step)) + 1)
    places = [(low - skipped * step, skipped) for skipped in steps]
    starts = [(abs(place - round(place)), skipped, round(place)) for place, skipped in places]
    missed, skipped, first = min(starts, default=(1.0, 0, 0))
    if missed > _NEAR:
        return None
    return _Window(slice(first, min(length, math.ceil(high + _TAPS * step))), skipped, step)
