"""Compare distillation methods: the same student, data and recipe with each method and on labels only, over several
seeds, with intervals and tests.

Each run is a process of its own: its peak memory is its own, and when it fails the others go on. Finished runs leave a
record in the results folder and are not made again; the same command goes on where it was stopped, and with more
methods or seeds makes only what is new. Failed runs are tried again.
"""

import argparse
import dataclasses
from typing import Any

from model_compression.cli.distill import add_teacher_options, with_teacher
from model_compression.cli.training_options import add_jobs, add_options, base_config, with_options
from model_compression.core.argument_types import parse_pairs
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig, usual_methods
from model_compression.core.console import json_text
from model_compression.core.errors import UsageError
from model_compression.core.registry import unknown_name

EXAMPLES = """examples:
  model-compression compare-methods --student lenet --epochs 10
  model-compression compare-methods --student resnet8 --methods all --seeds 1 \\
      --epochs 5
  model-compression compare-methods --student resnet8 --methods kd,dkd,kd+at \\
      --epochs 5
  model-compression compare-methods --methods kd,logit_std --epochs 10 \\
      --method-param logit_std.base=dkd --out results/standardised

The second and third write to results/compare-cifar10-resnet8-5-epochs: its
table has the runs of both. Exit code 1 when a run failed; the table says why.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--methods",
        metavar="NAME,...",
        help="all, or some; a+b adds two as one (default: by task; kd,dkd,logit_std for classes)",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each, from --seed on (default: 3)")
    parser.add_argument(
        "--method-param", action="append", default=[], metavar="METHOD.KEY=VALUE", help="of one, as kd.temperature=2"
    )
    parser.add_argument(
        "--method-weight",
        action="append",
        default=[],
        metavar="METHOD.TERM=W",
        help="weight of a term of one, as at.at=500; the term label is its label loss",
    )
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where the run folders go (default: runs)")
    add_jobs(parser)
    add_teacher_options(parser)
    add_options(parser, out="results folder (default: results/compare-DATA-STUDENT-E-epochs)")


def run(args: argparse.Namespace) -> int:
    """Makes the runs that have no record, and prints the tables; returns the exit code."""

    from model_compression.cli.comparison_progress import ComparisonProgress
    from model_compression.experiments.comparison import make_runs, plan_comparison
    from model_compression.experiments.executor import Executor

    base = _base(args)
    executor = Executor(jobs=args.jobs, name=args.executor, debug=args.debug)
    plan = plan_comparison(base, _methods(args, base), args.seeds, args.out, args.runs, executor=executor)
    with ComparisonProgress() as progress:
        tables, content = make_runs(plan, progress)
    if args.json:
        print(json_text({"results": str(plan.out), **content}))
    else:
        written = [plan.out / name for name in ("table.md", "comparison.png")]
        print("\n".join([tables, "", *(str(path) for path in written if path.exists())]))
    return 1 if content["failed"] else 0


def _base(args: argparse.Namespace) -> TrainConfig:
    """The recipe that all runs share, with the teacher; its method is none that is run."""

    default = TrainConfig(student=ModelConfig(name="lenet"))
    config = with_options(base_config(args, default), args)
    if config.teacher is None:
        config = dataclasses.replace(config, teacher=ModelConfig(name="nin-cifar10"), method=MethodConfig(name="kd"))
    shared: TrainConfig = with_teacher(config, args)
    return shared


def _methods(args: argparse.Namespace, base: TrainConfig) -> list[MethodConfig]:
    """The methods of ``--methods``, each with its own parameters and weights."""
    from model_compression.data.sources import stated_task

    arms = _arms(args.methods, stated_task(base.data))
    params = _by_arm(args.method_param, "--method-param", arms)
    weights = _by_arm(args.method_weight, "--method-weight", arms)
    assert base.method is not None
    methods = []
    for arm in arms:
        name = arm.replace("+", ",")
        method = base.method if name == base.method.name else MethodConfig(name=name, pairs=base.method.pairs)
        own = {**method.weights, **weights[arm]}
        label_weight = own.pop("label", method.label_weight)
        own_params = {**method.params, **params[arm]}
        methods.append(dataclasses.replace(method, params=own_params, weights=own, label_weight=label_weight))
    return methods


def _arms(text: str | None, task: str) -> list[str]:
    """The names in ``--methods``, each once; label-only is always included."""
    from model_compression.distillation.objective import methods_for
    from model_compression.tasks import TASKS

    names = usual_methods(task) if text is None else [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(f"--methods must be all, or names with commas between them, got {text!r}")
    served = methods_for(TASKS.create(task or "image-classification"))
    arms = [arm for name in names for arm in (served if name == "all" else [name])]
    return [arm for arm in dict.fromkeys(arms) if arm != "labels"]


def _by_arm(pairs: list[str], option: str, arms: list[str]) -> dict[str, dict[str, Any]]:
    """METHOD.KEY=VALUE texts, as KEY: VALUE of each method. Raises UsageError for a method that is not compared."""

    found: dict[str, dict[str, Any]] = {arm: {} for arm in arms}
    for key, value in parse_pairs(pairs, option).items():
        arm = next((arm for arm in arms if key.startswith(f"{arm}.")), key.partition(".")[0])
        name = key.removeprefix(arm).removeprefix(".")
        if not name:
            raise UsageError(f"{option} must be METHOD.KEY=VALUE, as kd.{key}=…, got {key!r}")
        if arm not in found:
            raise unknown_name(f"method in {option}, which is none of --methods:", arm, arms)
        found[arm][name] = value
    return found
