"""Tune options of train or distill on held-out training images, and test the best settings against the defaults.

Each trial is a run of its own in a process of its own. A trial below the median of the others is stopped early. At the
end the best settings and the defaults train on all images with fresh seeds; a line says whether the best are better.
The same command resumes a search. Given several times with the same --storage, on one or more machines, it shares the
trials out.
"""

import argparse
import dataclasses

from model_compression.cli.config_options import METHOD, TEACHER, given_values
from model_compression.cli.distill import DEFAULT_TEACHER, add_method_options, add_teacher_options, with_method
from model_compression.cli.model_options import with_model_options
from model_compression.cli.training_options import add_jobs, add_options, base_config, with_options
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.console import json_text
from model_compression.core.errors import UsageError

EXAMPLES = """examples:
  model-compression search --student resnet8 --validation 5000 --epochs 5
  model-compression search --student resnet8 --validation 5000 \\
      --tune lr --tune batch_size=32,64,128 --tune weight_decay=1e-6:1e-2:log
  model-compression search --teacher nin-cifar10 --student lenet \\
      --validation 5000 --tune temperature=1:20 --tune label_weight
  model-compression search --student resnet8 --validation 5000 --trials 200 \\
      --storage postgresql://me@host/search --jobs 8

Without --teacher and --method the runs are those of train, with either those
of distill. Trials never see the test set; only the final runs do.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--tune",
        action="append",
        default=[],
        metavar="NAME[=VALUES]",
        help="option to tune, NAME=A,B or NAME=LOW:HIGH[:log] (default: lr, and the method's temperature and weights)",
    )
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="trials of the search (default: 20)")
    parser.add_argument(
        "--final-seeds", type=int, default=3, metavar="N", help="final runs of best and defaults; 0: none (default: 3)"
    )
    parser.add_argument(
        "--storage", metavar="WHERE", help="journal file or database address (default: study.journal in --out)"
    )
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where the run folders go (default: runs)")
    add_jobs(parser)
    add_teacher_options(parser, "none")
    add_method_options(parser, "none; kd with a teacher")
    add_options(parser, out="results folder (default: results/search-DATA-STUDENT-E-epochs)")


def run(args: argparse.Namespace) -> int:
    """Searches, and prints what was found; returns the exit code."""
    from model_compression.cli.comparison_progress import ComparisonProgress
    from model_compression.experiments.executor import Executor
    from model_compression.experiments.search import make_search
    from model_compression.experiments.search_plan import plan_search

    plan = plan_search(
        search_config(args),
        args.tune,
        trials=args.trials,
        final_seeds=args.final_seeds,
        storage=args.storage,
        out=args.out,
        runs=args.runs,
        executor=Executor(jobs=args.jobs, name=args.executor, debug=args.debug),
    )
    with ComparisonProgress() as progress:
        found = make_search(plan, progress)
    print(json_text({"results": str(plan.out), **found.content}) if args.json else f"{found.text}\n{plan.results}")
    return 0 if found.best is not None else 1


def search_config(args: argparse.Namespace) -> TrainConfig:
    """The run that is tuned: on labels, or with the teacher and method that are given."""
    config = with_options(base_config(args, TrainConfig(student=ModelConfig(name="lenet"))), args)
    if config.method is None:
        from model_compression.engine.default_recipe import usual_method

        if not args.teacher and not args.method:
            _check_no_teacher(config, args)
            return config
        teacher = ModelConfig(name=DEFAULT_TEACHER)
        method = MethodConfig(name=args.method or usual_method(config.data))
        config = dataclasses.replace(config, teacher=teacher, method=method)
    return with_method(config, args)


def _check_no_teacher(config: TrainConfig, args: argparse.Namespace) -> None:
    """Raises UsageError for an option of teacher or method, which a run on labels has not."""
    given = given_values(args, [*TEACHER, *METHOD]) or args.pairs or args.param or args.variant or args.weight
    if given or with_model_options(config.student, args, "teacher") != config.student:
        raise UsageError("options of teacher and method have no effect on runs of train: give --teacher or --method")
