"""What was run, in words."""

import pytest
from written_runs import config_of

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.config_json import to_dict
from model_compression.core.data_config import DataConfig
from model_compression.core.optim_config import OptimConfig
from model_compression.reports.groups import recipe_of
from model_compression.reports.words import environment_in_words, recipe_in_words


def words(config):
    return dict(recipe_in_words(recipe_of(to_dict(config))))


def test_words_leave_out_what_is_off():
    found = words(config_of(None))
    assert "teacher" not in found
    assert "besides" not in found
    assert found["learns by"] == "labels only"
    assert found["augmentation"] == "none"
    assert found["training"] == "4 epochs in batches of 256"
    assert found["optimiser"] == "Adam, rate 0.001"


def test_words_say_what_is_on():
    config = TrainConfig(
        student=ModelConfig(name="timm:resnet18", options={"width": 2}),
        teacher=ModelConfig(name="somewhere/teacher"),
        method=MethodConfig(name="kd", params={"temperature": 2.0}, weights={"kd": 0.7}, label_weight=0.3),
        data=DataConfig(augmentation="flip_shift", shift=2, views=1, validation=5000, cutout=8),
        optim=OptimConfig(optimizer="sgd", lr=0.1, weight_decay=5e-4, schedule="one_cycle", warmup=0.2),
        epochs=1,
        label_smoothing=0.1,
        ema=0.99,
        precision="bf16",
        teacher_tta="flip",
        teacher_view="plain",
    )
    found = words(config)
    assert found["student"] == "timm:resnet18 (width 2)"
    assert found["teacher"] == (
        "teacher, mean of an image and its mirror image, which sees each image once, without augmentation"
    )
    assert found["learns by"] == "kd (temperature 2.0; weights: kd 0.7; label weight 0.3)"
    assert found["data"] == "cifar10, 5,000 training images held out for validation"
    assert found["augmentation"].startswith(
        "mirrored and shifted by up to 2 pixels at random, a hole of 8 pixels, 1 view in turn"
    )
    assert found["training"] == "1 epoch in batches of 256"
    assert found["optimiser"] == "SGD, rate 0.1, momentum 0.9, weight decay 0.0005"
    assert found["schedule"] == "one cycle: the rate rises for 20% of the steps, then falls to zero"
    assert found["besides"] == "label smoothing 0.1, averaged weights, decay 0.99, precision bf16"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "random crops of 35% of the image or more, mirrored at random, colours changed by up to 40%"),
        (
            {"crop_area": 0.08, "color_jitter": 0.0, "hue": 0.1, "grey": 0.2, "erasing": 0.25},
            "random crops of 8% of the image or more, mirrored at random, hue by up to 0.1 turns, "
            "grey with probability 0.2, a box erased with probability 0.25",
        ),
        (
            {"augmentation": "randaugment", "mixup": 0.2},
            "random crops of 35% of the image or more, mirrored at random, RandAugment (2 operations of magnitude 9), "
            "blended with another image (mixup 0.2)",
        ),
        (
            {"augmentation": "trivialaugment"},
            "random crops of 35% of the image or more, mirrored at random, TrivialAugment",
        ),
    ],
)
def test_words_say_what_crops_and_changes_of_colour_are(options, expected):
    data = DataConfig(**{"augmentation": "photo", **options})
    assert words(TrainConfig(student=ModelConfig(name="lenet"), data=data))["augmentation"] == (
        f"{expected}, a fresh view each epoch"
    )


def test_words_say_how_photographs_become_square():
    for options, expected in (
        ({"fit": "pad"}, "x, images padded to a square"),
        ({"crop_share": 0.875}, "x, the middle 87.5% of each image"),
    ):
        data = DataConfig(name="x", image_size=64, **options)
        assert words(TrainConfig(student=ModelConfig(name="lenet"), data=data))["data"] == expected


def test_environment_names_what_is_known():
    assert environment_in_words({}) == [("versions", "model-compression ?")]
    known = {"gpu": "Card", "processor": "Chip", "threads": 1, "system": "Linux", "torch": "2.13.0"}
    assert environment_in_words(known)[0] == ("hardware", "Card · Chip, 1 thread")
