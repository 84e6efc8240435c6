"""The options that `train`, `distill` and `compare-methods` share, and how they become a configuration."""

import argparse
import dataclasses
from pathlib import Path

from model_compression.cli.config_options import DATA, TRAINING, add_config_options, with_options_at
from model_compression.cli.model_options import add_model_options, with_model_options
from model_compression.core import processes
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_file import read_config
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.core.run_options import LEFT_OPEN, short_name
from model_compression.experiments.recipes import RECIPES, Recipe


def add_options(
    parser: argparse.ArgumentParser, out: str = "run folder; default: runs/ and a name that says what it is"
) -> None:
    """Adds what these commands take; ``out`` is the help of --out."""
    student = parser.add_argument_group("student")
    student.add_argument(
        "--student",
        metavar="MODEL",
        help="the network to train, as lenet, timm:NAME, torchvision:NAME, hf:NAME or mypackage.nets:build; "
        "a weights file goes on from it",
    )
    add_model_options(student, "student")
    parser.add_argument("--out", metavar="FOLDER", help=out)
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"start from a recipe: {', '.join(RECIPES.names())} (default: by data and student)",
    )
    parser.add_argument("--config", metavar="FILE", help="start from a .toml file or a run's config.json")
    add_recipe_options(parser)


def add_recipe_options(parser: argparse.ArgumentParser, show_defaults: bool = True) -> None:
    """Adds what says how a network is trained, whichever it is; ``show_defaults`` where they are the config's."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    add_strict(parser)
    for title, places in (("data", DATA), ("training", TRAINING)):
        group = parser.add_argument_group(title)
        add_config_options(group, places, show_defaults=show_defaults, left_open=LEFT_OPEN)


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Adds --jobs and --executor."""
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs at once, each with a GPU if there are several (default: 1)",
    )
    parser.add_argument(
        "--executor",
        default="local",
        metavar="WHERE",
        help="where runs are made: local, ray or ray:ADDRESS (default: local)",
    )


def add_strict(parser: argparse.ArgumentParser) -> None:
    """Adds --strict."""
    parser.add_argument("--strict", action="store_true", help="a warning about data or teacher stops the command")


def started_from(args: argparse.Namespace) -> str:
    """ " --recipe NAME" or " --config FILE", as it was given: for a message that names another command."""
    return "".join(f" --{name} {getattr(args, name)}" for name in ("recipe", "config") if getattr(args, name))


def base_config(args: argparse.Namespace, default: TrainConfig) -> TrainConfig:
    """The configuration to start from: of ``--config``, of ``--recipe``, or ``default`` with the recipe left open."""
    if args.config and args.recipe:
        raise UsageError("--config and --recipe both say where to start from; give one of them")
    if args.recipe:
        recipe: Recipe = RECIPES.create(args.recipe)
        return recipe.config
    if args.config:
        from model_compression.engine.relative_paths import anchor

        path = user_path(args.config)
        return anchor(read_config(path, args.config, getattr(args, "student", None) or ""), path.parent)
    return dataclasses.replace(default, left_open=[*LEFT_OPEN])


def with_options(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """``config`` with what the command line gives in its place."""
    config = with_recipe_options(config, args)
    if args.student:
        config = dataclasses.replace(config, student=ModelConfig(name=args.student))
    return dataclasses.replace(config, student=with_model_options(config.student, args, "student"))


def with_recipe_options(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """``config`` with what the options of `add_recipe_options` give in its place."""
    return with_options_at(config, args, [*DATA, *TRAINING])


def run_folder(args: argparse.Namespace, config: TrainConfig) -> tuple[Path, str]:
    """`out_folder`, by default runs/DATA-STUDENT-METHOD-seedN, with the scheme behind the method where there is one."""
    method = config.method.name.replace(":", "-") if config.method else "labels"
    if getattr(args, "scheme", None):
        method = f"{method}-{args.scheme}"
    return out_folder(args, Path("runs") / f"{short_name(config)}-{method}-seed{config.seed}")


def out_folder(args: argparse.Namespace, default: Path) -> tuple[Path, str]:
    """``--out``, or ``default``, with a number where that is taken; and a line about that."""
    from model_compression.engine.run_folder import free_folder

    if args.out:
        return user_path(args.out), ""
    processes.meet()
    return processes.on_main(lambda: free_folder(default))
