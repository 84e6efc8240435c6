"""The options of `distill` that train several networks, in turn or at once, and what is printed of them."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from model_compression.cli.run_results import print_stages
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.errors import UsageError
from model_compression.core.registry import unknown_name

if TYPE_CHECKING:
    from model_compression.experiments.schemes import SchemeConfig

_OPTIONS = {"self": "generations", "takd": "assistants", "dml": "peers"}  # scheme → the option that is its own
_GENERATIONS = 3


def add_scheme_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    scheme = parser.add_argument_group("scheme")
    scheme.add_argument("--scheme", metavar="NAME", help="several networks: self, takd (in turn) or dml (at once)")
    scheme.add_argument(
        "--generations",
        type=int,
        metavar="N",
        help=f"self: how many students, each taught by the last; the first by labels or --teacher "
        f"(default: {_GENERATIONS})",
    )
    scheme.add_argument(
        "--assistants", metavar="A,B", help="takd: networks between teacher and student, from the teacher's side"
    )
    scheme.add_argument(
        "--peers", metavar="A,B", help="dml: networks that learn beside the student (default: one of its kind)"
    )


def scheme_default(default: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """``default`` as the scheme has it: who teaches where no teacher is named, and dml's own loss.

    Raises UsageError for an unknown scheme, and for an option of another one.
    """
    if args.scheme is not None and args.scheme not in _OPTIONS:
        raise unknown_name("scheme", args.scheme, list(_OPTIONS))
    for scheme, option in _OPTIONS.items():
        if getattr(args, option) is not None and args.scheme != scheme:
            raise UsageError(f"--{option} has no effect here: it needs --scheme {scheme}")
    if args.scheme == "takd" and args.assistants is None:
        raise UsageError("--scheme takd needs --assistants, networks between teacher and student, as resnet20,resnet14")
    if args.scheme == "dml":
        from model_compression.engine.mutual import METHOD

        return dataclasses.replace(default, teacher=None, method=METHOD)
    return dataclasses.replace(default, teacher=None) if args.scheme == "self" else default


def with_peers(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """``config`` with the peers of --scheme dml."""
    if args.scheme != "dml":
        return config
    peers = config.student if args.peers is None else ModelConfig(name=args.peers)
    return dataclasses.replace(config, peers=peers)


def scheme_config(config: TrainConfig, args: argparse.Namespace) -> "SchemeConfig | None":
    """The scheme of several runs that the command line asks for; None for a single run."""
    from model_compression.experiments.schemes import SchemeConfig

    if args.scheme == "self":
        count = _GENERATIONS if args.generations is None else args.generations
        return SchemeConfig(scheme="self", run=config, generations=count)
    if args.scheme == "takd":
        return SchemeConfig(scheme="takd", run=config, assistants=args.assistants)
    return None


def run_scheme_and_report(scheme: "SchemeConfig", folder: Path, note: str, *, as_json: bool) -> int:
    """Trains all stages into ``folder`` and prints what came out; returns the exit code."""
    from model_compression.engine.console_observer import ConsoleObserver
    from model_compression.experiments.schemes import run_scheme

    with ConsoleObserver(note) as observer:
        metrics = run_scheme(scheme, folder, observer)
    return print_stages(metrics, folder, as_json)
