"""The options that `train`, `distill` and `compare-methods` share, and how they become a configuration."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_compression.cli.early import names
from model_compression.cli.model_options import add_model_options, with_model_options
from model_compression.core.config import ModelConfig, TrainConfig, from_json
from model_compression.core.errors import FileFormatError, NotThereError, UsageError
from model_compression.core.files import user_path

# option → (type, place in the configuration, help)
_OPTIONS: dict[str, tuple[Any, str, str]] = {
    "--data": (str, "data.name", "cifar10, cifar100, folder:PATH, hf:NAME, or synthetic for a quick trial"),
    "--data-dir": (str, "data.data_dir", "where the data set is, or is to be stored"),
    "--image-size": (
        int,
        "data.image_size",
        "of folder:PATH and hf:NAME: the side that images are scaled to; 0 leaves them as they are",
    ),
    "--unlabelled": (
        str,
        "data.unlabelled",
        "folder:PATH: images without classes, trained on in the place of --data's",
    ),
    "--resident": (str, "data.resident", "auto, on or off: decoded images are held in memory"),
    "--workers": (int, "data.workers", "processes that decode other images (default: one fewer than processors)"),
    "--augmentation": (str, "data.augmentation", "none, flip or flip_shift"),
    "--shift": (int, "data.shift", "largest shift of flip_shift, in pixels"),
    "--cutout": (int, "data.cutout", "side of a hole in each augmented image, in pixels, as 8; 0: none"),
    "--mixup": (float, "data.mixup", "blend each image with another, share from Beta(MIXUP, MIXUP), as 0.2; 0: none"),
    "--cutmix": (float, "data.cutmix", "paste a box of another image into each, share from Beta, as 1; 0: none"),
    "--views": (int, "data.views", "augmented views that are shown in turn; 0: a fresh one each epoch"),
    "--view-seed": (int, "data.view_seed", "seed of the augmentation"),
    "--validation": (
        int,
        "data.validation",
        "training images held out for tuning, as 5000; the test set is not touched",
    ),
    "--epochs": (int, "epochs", "passes over the training images"),
    "--batch-size": (int, "batch_size", "images a step"),
    "--seed": (int, "seed", "of the initial weights and the order of the images"),
    "--optimizer": (str, "optim.optimizer", "sgd, adam, adamw or muon"),
    "--lr": (float, "optim.lr", "largest learning rate"),
    "--weight-decay": (float, "optim.weight_decay", "on weights, never on biases"),
    "--momentum": (float, "optim.momentum", "of sgd and muon, with Nesterov's correction"),
    "--schedule": (str, "optim.schedule", "constant, step or one_cycle"),
    "--step-at": (float, "optim.step_at", "step: share of the epochs after which the rate falls"),
    "--step-factor": (float, "optim.step_factor", "step: what the rate is multiplied by"),
    "--warmup": (float, "optim.warmup", "one_cycle: share of the steps in which the rate rises"),
    "--label-smoothing": (float, "label_smoothing", "of the label loss, 0 to 1; harmful in a teacher"),
    "--ema": (float, "ema", "decay a step of the averaged weights that are evaluated and saved, as 0.999; 0: none"),
    "--precision": (str, "precision", "auto (measured), native, fp32, bf16 or fp16"),
    "--compile": (str, "compile", "auto, on or off: compile the student's step"),
    "--device": (str, "device", "auto, cpu, cuda or mps"),
    "--wandb": (str, "wandb", "a project on Weights & Biases, for the curves as well (extra: wandb)"),
    "--evaluate-every": (int, "evaluate_every", "epochs between points of the accuracy curve; 0: the last epoch only"),
    "--checkpoint-every": (int, "checkpoint_every", "epochs between saves of the resumable state"),
    "--keep-every": (int, "keep_every", "epochs between weights files that are kept"),
}

_MOST_SEEDS = 10_000
_METAVARS = {str: "NAME", int: "N", float: "X"}

# option → (what it needs, whether a configuration has that); without it the option would do nothing
_NEEDS: dict[str, tuple[str, Callable[[TrainConfig], bool]]] = {
    "--shift": ("--augmentation flip_shift", lambda config: config.data.augmentation == "flip_shift"),
    "--views": ("--augmentation, --mixup or --cutmix", lambda config: config.data.has_views),
    "--view-seed": ("--augmentation, --mixup or --cutmix", lambda config: config.data.has_views),
    "--workers": ("--resident auto or off", lambda config: config.data.resident != "on"),
    "--momentum": ("--optimizer sgd or muon", lambda config: config.optim.optimizer in ("sgd", "muon")),
    "--step-at": ("--schedule step", lambda config: config.optim.schedule == "step"),
    "--step-factor": ("--schedule step", lambda config: config.optim.schedule == "step"),
    "--warmup": ("--schedule one_cycle", lambda config: config.optim.schedule == "one_cycle"),
}


def add_options(
    parser: argparse.ArgumentParser, out: str = "run folder; default: runs/ and a name that says what it is"
) -> None:
    """Adds what these commands take; ``out`` is the help of --out.

    Every default is None: what is not given is the recipe's or the config's.
    """
    student = parser.add_argument_group("student")
    student.add_argument(
        "--student",
        metavar="MODEL",
        help="the network to train, as lenet, timm:NAME, torchvision:NAME, hf:NAME or mypackage.nets:build; "
        "a weights file goes on from it",
    )
    add_model_options(student, "student")
    parser.add_argument("--out", metavar="FOLDER", help=out)
    parser.add_argument("--recipe", metavar="NAME", help=f"start from a recipe: {', '.join(names('recipes'))}")
    parser.add_argument("--config", metavar="FILE", help="start from a run's config.json, which repeats that run")
    add_recipe_options(parser)


def add_recipe_options(parser: argparse.ArgumentParser, show_defaults: bool = True) -> None:
    """Adds what says how a network is trained, whichever it is; ``show_defaults`` where they are the config's."""
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard logs too (extra: tensorboard)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    add_strict(parser)
    groups = {"data": parser.add_argument_group("data"), "": parser.add_argument_group("training")}
    for option, (kind, place, text) in _OPTIONS.items():
        text += _default(place) if show_defaults else ""
        group = groups["data" if place.startswith("data.") else ""]
        group.add_argument(option, type=kind, metavar=_METAVARS[kind], help=text)


def add_strict(parser: argparse.ArgumentParser) -> None:
    """Adds --strict."""
    parser.add_argument("--strict", action="store_true", help="a warning about data or teacher stops the command")


def check_seeds(count: int) -> None:
    """Raises UsageError for a number of seeds that nobody can wait for."""
    if count < 1:
        raise UsageError(f"--seeds must be at least 1, got {count}")
    if count > _MOST_SEEDS:
        raise UsageError(f"--seeds must be at most {_MOST_SEEDS:,}, got {count}")


def started_from(args: argparse.Namespace) -> str:
    """ " --recipe NAME" or " --config FILE", as it was given: for a message that names another command."""
    return "".join(f" --{name} {getattr(args, name)}" for name in ("recipe", "config") if getattr(args, name))


def base_config(args: argparse.Namespace, default: TrainConfig) -> TrainConfig:
    """The configuration to start from: of ``--config``, of ``--recipe``, or ``default``."""
    if args.config and args.recipe:
        raise UsageError("--config and --recipe both say where to start from; give one of them")
    if args.recipe:
        from model_compression.experiments.recipes import RECIPES, Recipe

        recipe: Recipe = RECIPES.create(args.recipe)
        return recipe.config
    if args.config:
        from model_compression.engine.relative_paths import anchored

        try:
            path = user_path(args.config)
            return anchored(from_json(TrainConfig, path.read_text(), args.config), path.parent)
        except FileNotFoundError:
            raise NotThereError(f"the config {args.config} is not there; expected a run's config.json") from None
        except (OSError, UnicodeDecodeError) as error:
            raise FileFormatError(f"cannot read the config {args.config}: {error}") from None
    return default


def with_options(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """``config`` with what the command line gives in its place."""
    config = with_recipe_options(config, args)
    if args.student:
        config = dataclasses.replace(config, student=ModelConfig(name=args.student))
    return dataclasses.replace(config, student=with_model_options(config.student, args, "student"))


def with_recipe_options(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """``config`` with what the options of `add_recipe_options` give in its place."""
    for option, (_, place, _) in _OPTIONS.items():
        value = getattr(args, option[2:].replace("-", "_"))
        if value is not None:
            config = _replaced(config, place, value)
    for option, (needed, is_met) in _NEEDS.items():
        if getattr(args, option[2:].replace("-", "_")) is not None and not is_met(config):
            raise UsageError(f"{option} has no effect here: it needs {needed}")
    return _replaced(config, "tensorboard", True) if args.tensorboard else config


def run_folder(args: argparse.Namespace, config: TrainConfig) -> tuple[Path, str]:
    """`out_folder`, by default runs/DATA-STUDENT-METHOD-seedN, with the scheme behind the method where there is one."""
    method = config.method.name.replace(":", "-") if config.method else "labels"
    if getattr(args, "scheme", None):
        method = f"{method}-{args.scheme}"
    return out_folder(args, Path("runs") / f"{short_name(config)}-{method}-seed{config.seed}")


def out_folder(args: argparse.Namespace, default: Path) -> tuple[Path, str]:
    """``--out``, or ``default``, with a number where that is taken; and a line about that."""
    from model_compression.engine.run_folder import free_folder

    return (user_path(args.out), "") if args.out else free_folder(default)


def short_name(config: TrainConfig) -> str:
    """DATA-STUDENT, as part of a folder's name."""
    _, _, path = config.data.name.rpartition(":")  # of folder:PATH and hf:NAME,OPTIONS the last part of the path
    student = Path(config.student.name.rpartition(":")[2]).stem  # of a library's network its name alone
    return f"{Path(path.partition(',')[0]).name}-{student}"


def _replaced(config: Any, place: str, value: Any) -> Any:
    first, _, rest = place.partition(".")
    if rest:
        value = _replaced(getattr(config, first), rest, value)
    return dataclasses.replace(config, **{first: value})


def _default(place: str) -> str:
    from model_compression.core.config import DataConfig, OptimConfig

    group, _, name = place.rpartition(".")
    kind = {"data": DataConfig, "optim": OptimConfig, "": TrainConfig}[group]
    value = next(field.default for field in dataclasses.fields(kind) if field.name == name)
    return "" if value in (None, "") else f" (default: {value})"
