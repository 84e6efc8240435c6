"""A picture of what a network sees: images as they are tested, and beside each some of its views."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset
from model_compression.data.on_demand import Images, evenly
from model_compression.data.streaming import loader_for

_GAP = 4  # pixels between images
_SMALLEST, _LARGEST = 96, 224  # sides of an image in the picture: small ones are repeated, large ones scaled


def draw_views(dataset: Dataset, config: DataConfig, *, images: int = 8, views: int = 7) -> Image.Image:
    """A row for each of some ``images``, evenly spaced: as it is, then ``views`` of it as ``config`` draws them.

    Images of 1 or 3 channels are shown as they are, of others the first channel. Raises UsageError for samples of other
    kinds, and for the batches of DataLoaders, which have no views.
    """
    if not dataset.holds_images or not dataset.has_ids:
        raise UsageError(f"{dataset.name} has no images by number: there are no views of them to draw")
    ids = torch.from_numpy(evenly(len(dataset), images))
    cpu = torch.device("cpu")
    loader = loader_for(dataset, config, cpu)
    shown = [loader_for(dataset, DataConfig(), cpu).batch(ids, 0), *(loader.batch(ids, view) for view in range(views))]
    columns = [batch.inputs for batch in shown if isinstance(batch.inputs, torch.Tensor)]
    return _sheet(torch.stack(columns, dim=1).numpy())


def check_place(path: Path) -> None:
    """Raises UsageError for a picture that does not end in .png, or exists."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{setting('pictures')} must end in .png, got {path}")
    if path.exists():
        raise UsageError(f"{path} exists; choose another name for {setting('pictures')}")


def _sheet(cells: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> Image.Image:
    """Images (rows, columns, C, H, W) on white, with a wider gap behind the first column."""
    rows, columns, channels, height, width = cells.shape
    factor = max(1, -(-_SMALLEST // max(height, width)))
    share = min(1.0, _LARGEST / (factor * max(height, width)))
    size = round(width * factor * share), round(height * factor * share)
    across, down = size[0] + _GAP, size[1] + _GAP
    sheet = Image.new("RGB", (columns * across + 3 * _GAP, rows * down + _GAP), "white")
    for row in range(rows):
        for column in range(columns):
            pixels: Images = cells[row, column] if channels == 3 else cells[row, column, :1].repeat(3, axis=0)
            image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            way = Image.Resampling.NEAREST if share == 1 else Image.Resampling.LANCZOS
            sheet.paste(image.resize(size, way), (_GAP + column * across + 2 * _GAP * (column > 0), _GAP + row * down))
    return sheet
