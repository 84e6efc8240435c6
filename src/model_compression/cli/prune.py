"""Remove channels of a trained network in steps, and fine-tune it with its run's teacher after each step.

The result is an ordinary, smaller network: test, measure, export, quantise or train it like any other. A network
without a teacher learns from its own state before pruning; --teacher names another teacher.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from model_compression.cli.config_options import add_config_options, given_values, places_of
from model_compression.cli.distill import add_teacher_options, with_teacher
from model_compression.cli.training_options import add_recipe_options, out_folder, with_recipe_options
from model_compression.compression.config import PruneConfig
from model_compression.core.argument_types import parse_pairs
from model_compression.core.config import MethodConfig, TrainConfig
from model_compression.core.files import user_path
from model_compression.core.options import Option

EXAMPLES = """examples:
  model-compression prune runs/distilled --macs 0.5
  model-compression prune runs/distilled --params 0.07 --steps 5 --epochs 30
  model-compression prune runs/distilled --latency 0.5 --out runs/twice-as-fast
  model-compression prune lenet-cifar10 --params 0.1 --epochs 6 \\
      --teacher whitening-cnn-cifar10
  model-compression prune runs/distilled --sparsity 0.9

The result is the run OUT/final; OUT is a name of it as well:
  model-compression export runs/distilled-macs-0.5 --out small.onnx
"""

_CUTS = places_of(PruneConfig)
_GOALS = {"macs": "multiply-accumulates", "params": "parameters", "latency": "latency of one image on this machine"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.usage = "%(prog)s RUN [options]\n       (--macs | --params | --latency | --sparsity) SHARE"
    parser.add_argument("model", metavar="RUN", help="a finished run, a weights file or a shipped network")
    goal = parser.add_mutually_exclusive_group(required=True)
    for name, text in _GOALS.items():
        goal.add_argument(f"--{name}", type=float, metavar="SHARE", help=f"share of the {text} to keep")
    goal.add_argument(
        "--sparsity",
        type=float,
        metavar="SHARE",
        help="share of single weights to set to zero, as 0.9; the file keeps its size and speed",
    )
    add_config_options(parser, _CUTS, PruneConfig)
    parser.add_argument("--out", metavar="FOLDER", help="folder of the result; default: RUN with the goal in its name")
    add_repair_options(parser, "fine-tuning (default: as the run was trained)")


def add_repair_options(parser: argparse.ArgumentParser, title: str) -> None:
    """Adds the options of fine-tuning; those that are not given are as in the network's run."""
    group = parser.add_argument_group(title)
    group.add_argument("--method", metavar="NAME", help="one that needs logits only, as kd or dkd")
    group.add_argument("--param", action="append", default=[], metavar="KEY=VALUE", help="of the method")
    add_config_options(group, ["method.label_weight"], show_defaults=False)
    add_teacher_options(parser, "the run's", show_defaults=False)
    add_recipe_options(parser, show_defaults=False)


def run(args: argparse.Namespace) -> int:
    """Prunes; returns the exit code."""
    from model_compression.cli.compression_reports import print_pruned
    from model_compression.compression.prune import prune
    from model_compression.engine.console_observer import ConsoleObserver

    folder, note = out_folder(args, _folder(args))
    with ConsoleObserver(note) as observer:
        metrics = prune(_config(args), folder, observer)
    return print_pruned(metrics, folder, args.json)


def _config(args: argparse.Namespace) -> PruneConfig:
    from model_compression.compression.repair import place_of

    goal, share = _goal(args)
    Option(above=0, below=1, remedy="0.5 is a half").check(goal, share)
    resource: Any = "weights" if goal == "sparsity" else goal
    return PruneConfig(
        model=place_of(args.model),
        run=repaired(args.model, args),
        resource=resource,
        share=1 - share if goal == "sparsity" else share,
        **given_values(args, _CUTS, PruneConfig),
    )


def _goal(args: argparse.Namespace) -> tuple[str, float]:
    return next((name, getattr(args, name)) for name in (*_GOALS, "sparsity") if getattr(args, name) is not None)


def _folder(args: argparse.Namespace) -> Path:
    goal, share = _goal(args)
    return beside(args.model, f"{goal}-{share:g}")


def beside(model: str, what: str) -> Path:
    """The folder for ``what`` is made of ``model``: beside it, or among the runs for one that is shipped."""
    path = user_path(model)
    parent = path.parent if path.exists() else Path("runs")
    return parent / f"{path.stem if path.is_file() else path.name}-{what}"


def repaired(model: str, args: argparse.Namespace) -> TrainConfig:
    """How ``model`` is fine-tuned: as it was trained, except for what the command line gives."""

    from model_compression.compression.repair import repair_config, without_idle_smoothing

    config = with_recipe_options(repair_config(model), args)
    method = config.method
    assert method is not None
    if args.method and args.method != method.name:
        method = MethodConfig(name=args.method)
    params = parse_pairs(args.param, "--param")
    label_weight = method.label_weight if args.label_weight is None else args.label_weight
    method = dataclasses.replace(method, params={**method.params, **params}, label_weight=label_weight)
    taught: TrainConfig = with_teacher(dataclasses.replace(config, method=method), args)
    return taught if args.label_smoothing else without_idle_smoothing(taught)
