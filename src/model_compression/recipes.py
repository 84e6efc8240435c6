"""Named, complete runs: what is trained, how, and what accuracy to expect."""

from collections.abc import Callable
from dataclasses import dataclass

from model_compression.config import DataConfig, ModelConfig, OptimConfig, TrainConfig
from model_compression.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A configuration, and what to expect of it in one line."""

    config: TrainConfig
    expect: str


RECIPES: Registry[Callable[[], Recipe]] = Registry("recipe")


@RECIPES.register("nin-cifar10")
def nin_cifar10() -> Recipe:
    """The classic teacher. Normalised while it trains, saved folded as the network that the drawing shows."""
    return Recipe(
        config=TrainConfig(
            student=ModelConfig(name="nin-bn"),
            data=DataConfig(augmentation="flip_shift"),
            optim=OptimConfig(
                optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="one_cycle", warmup=0.2
            ),
            epochs=9,
            batch_size=64,
        ),
        expect="at least 88 % test accuracy",
    )


@RECIPES.register("whitening-cnn-cifar10")
def whitening_cnn_cifar10() -> Recipe:
    """The fast, strong teacher, trained without label smoothing, which would make it a worse teacher (arXiv 1906.02629)."""
    return Recipe(
        config=TrainConfig(
            student=ModelConfig(name="whitening-cnn"),
            data=DataConfig(augmentation="flip_shift", shift=2),
            optim=OptimConfig(
                optimizer="sgd",
                lr=0.375,
                momentum=0.85,
                weight_decay=1.33e-3,
                bias_lr_scale=64.0,
                schedule="one_cycle",
                warmup=0.23,
            ),
            epochs=22,
            batch_size=256,
        ),
        expect="at least 94 % test accuracy, from one view",
    )


@RECIPES.register("lenet-cifar10")
def lenet_cifar10() -> Recipe:
    """The classic student on labels alone, with augmentation."""
    return Recipe(
        config=TrainConfig(
            student=ModelConfig(name="lenet", options={"init": "default"}),
            data=DataConfig(augmentation="flip_shift"),
            optim=OptimConfig(optimizer="adamw", lr=2e-3, weight_decay=0.05, schedule="one_cycle"),
            epochs=12,
            batch_size=256,
        ),
        expect="about 77 % test accuracy",
    )
