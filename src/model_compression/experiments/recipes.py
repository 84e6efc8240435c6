"""Named, complete runs: what is trained, how, and what accuracy to expect."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.optim_config import OptimConfig
from model_compression.core.registry import Registry
from model_compression.core.run_options import options_for


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A configuration, and what to expect of it in one line."""

    config: TrainConfig
    expect: str


_LENET = ModelConfig(name="lenet", options={"init": "default"})
_ADAMW = OptimConfig(
    optimizer="adamw", lr=2e-3, weight_decay=0.05, schedule="one_cycle"
)  # what the LeNet is trained with where nothing else is said

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
            precision="native",
        ),
        expect="88.7 % test accuracy (seed 0)",
    )


@RECIPES.register("whitening-cnn-cifar10")
def whitening_cnn_cifar10() -> Recipe:
    """The strong teacher, without label smoothing, which would make it a worse teacher (arXiv 1906.02629)."""
    config = _whitening_cnn({"widths": [128, 384, 384]}, epochs=16)
    return Recipe(config=config, expect="94.0 % test accuracy from one view (seed 0)")


@RECIPES.register("whitening-cnn-small-cifar10")
def whitening_cnn_small_cifar10() -> Recipe:
    """The same with narrower blocks: it answers 2.5 times as fast."""
    return Recipe(config=_whitening_cnn({}, epochs=24), expect="93.7 % test accuracy from one view (seed 0)")


def _whitening_cnn(options: dict[str, Any], epochs: int) -> TrainConfig:
    return TrainConfig(
        student=ModelConfig(name="whitening-cnn", options=options),
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
        epochs=epochs,
        batch_size=256,
        precision="native",
    )


@RECIPES.register("lenet-cifar10")
def lenet_cifar10() -> Recipe:
    """The classic student on labels only, with augmentation."""
    return Recipe(
        config=TrainConfig(
            student=_LENET,
            data=DataConfig(augmentation="flip_shift"),
            optim=_ADAMW,
            epochs=12,
            batch_size=256,
            precision="native",
        ),
        expect="80.3 % test accuracy (seed 0)",
    )


@RECIPES.register("lenet-distilled-cifar10")
def lenet_distilled_cifar10() -> Recipe:
    """The classic student at its best: what `reproduce modern` calls kd, seed 0."""
    config = modern_protocol(teacher="whitening-cnn-small-cifar10", epochs=30, seed=0)["kd"]
    return Recipe(config=config, expect="87.3 % test accuracy (seed 0)")


def classic_protocol(*, teacher: str, epochs: int, seed: int, data: DataConfig | None = None) -> dict[str, TrainConfig]:
    """The arms of the experiment of 2016 by name: one student, one initialisation, one order of the images per seed.

    No augmentation, Adam at 1e-3, a tenth of it after 80 % of the epochs, batch 256, the last epoch reported. Against
    the script of that time: the papers' formulas, the teacher in eval mode, pixels divided by their standard deviation,
    no image left out of an epoch.
    """
    methods = {
        "labels": None,
        "logits": MethodConfig(name="logits"),
        "noisy_teacher": MethodConfig(name="noisy_teacher", params={"alpha": 0.5, "sigma": 0.1}),
        "kd": MethodConfig(name="kd", params={"temperature": 3.0}, weights={"kd": 0.7}, label_weight=0.3),
        "kd_tau_0.3": MethodConfig(name="kd", params={"temperature": 0.3}, weights={"kd": 0.7}, label_weight=0.3),
    }
    return {
        arm: TrainConfig(
            student=ModelConfig(name="lenet"),
            teacher=None if method is None else ModelConfig(name=teacher),
            method=method,
            data=data or DataConfig(),
            optim=OptimConfig(optimizer="adam", lr=1e-3, schedule="step", step_at=0.8, step_factor=0.1),
            epochs=epochs,
            batch_size=256,
            seed=seed,
            precision="bf16",
            teacher_cache_dtype="fp32",
            evaluate_every=max(1, epochs // 50),
        )
        for arm, method in methods.items()
    }


def views_protocol(*, teacher: str, epochs: int, seed: int, data: DataConfig | None = None) -> dict[str, TrainConfig]:
    """How many views of an image a teacher should answer: one, a few shown in turn, or a fresh one each epoch."""
    labels = _augmented_lenet(epochs, seed, data)
    fresh = dataclasses.replace(labels, teacher=ModelConfig(name=teacher), method=MethodConfig(name="kd"))
    arms = {
        f"views_{views}": dataclasses.replace(fresh, data=dataclasses.replace(labels.data, views=views))
        for views in (1, 4, 16)
    }
    exact = dataclasses.replace(arms["views_4"], teacher_cache_dtype="fp32")
    return {"labels": labels, **arms, "fresh": fresh, "views_4_fp32": exact}


def modern_protocol(*, teacher: str, epochs: int, seed: int) -> dict[str, TrainConfig]:
    """The student of 2016 at its best, on labels and by the three ways: augmented, Muon with much decay, one cycle.

    The teacher answers 16 views in turn; labels, which cost nothing, have a fresh view each epoch. Rate, decay and
    batch size were found with 5,000 training images held out (docs/classic-student.md).
    """
    labels = dataclasses.replace(
        _augmented_lenet(epochs, seed, None),
        optim=OptimConfig(optimizer="muon", lr=8e-3, weight_decay=0.5, schedule="one_cycle"),
        batch_size=1024,
        data=DataConfig(augmentation="flip_shift", shift=3),
    )
    methods = {
        "logits": MethodConfig(name="logits"),
        "noisy_teacher": MethodConfig(name="noisy_teacher", params={"alpha": 0.5, "sigma": 0.1}),
        "kd": MethodConfig(name="kd"),
    }
    viewed, named = dataclasses.replace(labels.data, views=16), ModelConfig(name=teacher)
    return {
        "labels": labels,
        **{arm: dataclasses.replace(labels, teacher=named, method=m, data=viewed) for arm, m in methods.items()},
    }


def _augmented_lenet(epochs: int, seed: int, data: DataConfig | None) -> TrainConfig:
    """The student of 2016 on labels, by today's means: a fresh view of each image in each epoch, AdamW, one cycle."""
    return TrainConfig(
        student=_LENET,
        data=dataclasses.replace(data or DataConfig(), augmentation="flip_shift", shift=4),
        optim=_ADAMW,
        epochs=epochs,
        seed=seed,
        precision="native",
        evaluate_every=max(1, epochs // 10),
    )


def methods_protocol(base: TrainConfig, methods: Sequence[MethodConfig], seed: int) -> dict[str, TrainConfig]:
    """``base`` on labels only ("labels") and with each method: the same student, data, optimiser and epochs.

    An arm has its method's name, as "kd" or "kd+at". The smoothing of a label loss that a method does not have is left
    out, and so are pairs of layers where it compares none. Raises UsageError for a method that is not known.
    """
    from model_compression.distillation.objective import create_method, label_weight_of

    defaults = TrainConfig(student=base.student)
    without = {name: getattr(defaults, name) for name in options_for("teacher")}
    labels = dataclasses.replace(base, **without, method=None, seed=seed)
    arms = {} if base.data.task == "embedding" else {"labels": labels}  # of embeddings labels are not learnt
    for method in methods:
        module = create_method(method)
        if "features" not in module.needs:
            method = dataclasses.replace(method, pairs={})
        smoothing = base.label_smoothing if label_weight_of(method, module) else 0.0
        start = base if module.needs_teacher else labels  # without a teacher, nothing says how its answers are stored
        arms[method.name.replace(",", "+")] = dataclasses.replace(
            start, method=method, seed=seed, label_smoothing=smoothing
        )
    return arms


def demo_pair(*, teacher: str, epochs: int, data: DataConfig) -> dict[str, TrainConfig]:
    """A LeNet on labels only and one that learns from the teacher, with the same short schedule."""
    labels = TrainConfig(
        student=_LENET,
        data=data,
        optim=_ADAMW,
        epochs=epochs,
        precision="native",
        evaluate_every=1,
    )
    return {
        "labels": labels,
        "distilled": dataclasses.replace(labels, teacher=ModelConfig(name=teacher), method=MethodConfig(name="kd")),
    }
