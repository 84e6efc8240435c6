"""The picture of views, and the command that draws it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from model_compression.cli.main import main
from model_compression.core.data_config import DataConfig
from model_compression.data.dataset import Dataset
from model_compression.data.streaming import loader_for
from model_compression.data.view_sheet import draw_views

CPU = torch.device("cpu")


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("side", [100, 20])
def test_draw_views_shows_the_image_and_then_its_views(channels, side):
    """Every cell is found at its place: pixels of 100 as they are, of 20 each five times."""
    images = np.random.default_rng(0).integers(0, 256, (3, channels, side, side), dtype=np.uint8)
    dataset = Dataset(
        name="d", samples=images, labels=np.arange(3) % 2, class_names=("a", "b"), mean=(0.5,) * channels,
        std=(0.2,) * channels,
    )  # fmt: skip
    config = DataConfig(augmentation="flip_shift", shift=9)
    sheet = np.asarray(draw_views(dataset, config, images=2, views=2))
    loader = loader_for(dataset, config, CPU)
    assert sheet.shape == (2 * 104 + 4, 3 * 104 + 12, 3)
    for row, number in enumerate((0, 2)):
        shown = [torch.from_numpy(images[number]), *(loader.batch(torch.tensor([number]), v).inputs[0] for v in (0, 1))]
        for left, expected in zip((4, 116, 220), shown, strict=True):
            cell = sheet[4 + 104 * row : 104 + 104 * row, left : left + 100]
            pixels = expected.numpy().repeat(100 // side, axis=1).repeat(100 // side, axis=2)
            pixels = pixels if channels == 3 else pixels[:1].repeat(3, axis=0)
            np.testing.assert_array_equal(cell.transpose(2, 0, 1), pixels)


def test_data_draws_views(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "synthetic", "--augmentation", "flip", "--pictures", "v.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == "v.png"
    with Image.open("v.png") as sheet:
        assert sheet.size == (8 * 100 + 12, 8 * 100 + 4)
    for options, line in (
        (["--pictures", "v.png"], "v.png exists; choose another name for --pictures"),
        (["--pictures", "v.jpg"], "--pictures must end in .png, got v.jpg"),
        (["--cutout", "3"], "--cutout has no effect here: it needs --pictures"),
        (["--hue", "0.1", "--pictures", "w.png"], "--hue has no effect here: it needs --augmentation photo"),
    ):
        assert main(["data", "synthetic", *options]) == 2
        assert line in capsys.readouterr().err
