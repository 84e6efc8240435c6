"""The command line of the historic script, teacher-student.py, on the modern path. Frozen: nothing new is added."""

import argparse
import sys
from collections.abc import Sequence

from model_compression.core import trust
from model_compression.core.argument_types import register_types
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.console import error_line, safe_streams, unforeseen
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import (
    EXIT_BUG,
    EXIT_FAILURE,
    Interrupted,
    ModelCompressionError,
    UsageError,
)
from model_compression.core.files import user_path
from model_compression.core.optim_config import OptimConfig
from model_compression.core.options import Option, speaking_flags
from model_compression.engine.stop_requests import ended_by_signals, words_and_code

EXAMPLES = """examples:
  python teacher-student.py --task train --model savemodel
  python teacher-student.py --task train --model savemodel --noisy --noisy_ratio 0.5 --noisy_sigma 0.1
  python teacher-student.py --task train --model savemodel --KD --lamda 0.3 --tau 3
  python teacher-student.py --task test --model savemodel/model-100
  python teacher-student.py --task val

The teacher is teacher.npy in the working folder, else the shipped nin-cifar10; a student.npy there initialises the
student. CIFAR-10 is in the user's cache, or where MODEL_COMPRESSION_DATA says. All else is in: model-compression --help
"""

TEACHER, STUDENT = "nin-cifar10", "lenet"
_SAVE_EVERY = 10
TASKS = ("train", "test", "val")
_NEEDS = {"noisy_ratio": "noisy", "noisy_sigma": "noisy", "lamda": "KD", "tau": "KD"}  # option → the one it belongs to


def main(arguments: Sequence[str] | None = None, *, data: DataConfig | None = None) -> int:
    """Runs one task. Returns 0, 1 for a failure, 70 for a bug, 130 when interrupted.

    ``data`` is for tests (default: CIFAR-10).
    """
    with safe_streams(), speaking_flags():
        return _main(list(sys.argv[1:] if arguments is None else arguments), data or DataConfig())


def _main(arguments: list[str], data: DataConfig) -> int:
    parser = build_parser()
    if not arguments:
        parser.print_help()
        return EXIT_FAILURE
    args = parser.parse_args(arguments)
    try:
        with ended_by_signals(), trust.command(arguments):
            _run(args, _ineffective(args, _given_names(parser, arguments)), data)
    except KeyboardInterrupt as stop:
        return _print_error(*words_and_code(stop))
    except BrokenPipeError:
        raise
    except (ModelCompressionError, OSError, MemoryError) as error:
        code = error.exit_code if isinstance(error, Interrupted) else EXIT_FAILURE
        return _print_error(str(error) or type(error).__name__, code)
    except Exception as error:  # nobody foresaw it
        return _print_error(unforeseen(error), EXIT_BUG)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of 2016: its names and defaults do not change."""
    parser = argparse.ArgumentParser(
        prog="teacher-student.py",
        description="teacher-student model",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    register_types(parser)
    parser.add_argument(
        "--model", metavar="PATH", help="folder for the trained student; in testing, the trained student"
    )
    parser.add_argument("--task", metavar="TASK", help="train, test (the student) or val (the teacher)")
    parser.add_argument("--lr", default=1e-3, type=float, help="learning rate (default: 1e-3)")
    parser.add_argument("--epoch", default=100, type=int, help="number of epochs (default: 100)")
    parser.add_argument("--dropout", default=0.5, type=float, help="of the teacher; without effect now")
    parser.add_argument("--noisy", action="store_true", help="noisy teacher (Sau & Balasubramanian 2016)")
    parser.add_argument("--noisy_ratio", default=0.5, type=float, help="share of noisy answers (default: 0.5)")
    parser.add_argument("--noisy_sigma", default=0.9, type=float, help="deviation of the noise (default: 0.9)")
    parser.add_argument("--KD", action="store_true", help="knowledge distillation (Hinton et al. 2015)")
    parser.add_argument("--lamda", default=0.3, type=float, help="weight of the labels, 0 to 1 (default: 0.3)")
    parser.add_argument("--tau", default=3.0, type=float, help="temperature (default: 3)")
    parser.add_argument("--batchsize", default=256, type=int, help="images in a step (default: 256)")
    return parser


def to_config(args: argparse.Namespace) -> TrainConfig:
    """Today's configuration of a historic training; depends on ``args`` alone. Raises UsageError for bad values."""
    Option(minimum=1).check("epochs", args.epoch)
    return TrainConfig(
        student=ModelConfig(name=STUDENT),
        teacher=ModelConfig(name=TEACHER),
        method=_method(args),
        optim=OptimConfig(optimizer="adam", lr=args.lr, schedule="step", step_at=0.8, step_factor=0.1),
        epochs=args.epoch,
        batch_size=args.batchsize,
        precision="native",
        evaluate_every=_SAVE_EVERY,
        keep_every=_SAVE_EVERY,
    )


def _method(args: argparse.Namespace) -> MethodConfig:
    """The paper's form of the method that is asked for."""
    if args.noisy and args.KD:
        raise UsageError("only one method can be selected, noisy or KD; got --noisy and --KD")
    if args.noisy:
        return MethodConfig(name="noisy_teacher", params={"alpha": args.noisy_ratio, "sigma": args.noisy_sigma})
    if not args.KD:
        return MethodConfig(name="logits")
    if not 0 <= args.lamda <= 1:
        raise UsageError(
            f"--lamda must lie between 0 and 1, got {args.lamda}; it weights the labels, 1 - lamda the rest"
        )
    return MethodConfig(
        name="kd", params={"temperature": args.tau}, weights={"kd": 1 - args.lamda}, label_weight=args.lamda
    )


def _run(args: argparse.Namespace, notes: list[str], data: DataConfig) -> None:
    config = to_config(args)
    if args.task not in TASKS:
        raise UsageError(f"task should be train, test, or val; got {args.task or 'none'}")
    if args.task != "val" and not args.model:
        wanted = "the folder to train into" if args.task == "train" else "a trained student"
        raise UsageError(f"--task {args.task} needs {wanted}: --model PATH")
    from model_compression.classic import script_tasks

    if args.task == "val":
        script_tasks.validate(TEACHER, data)
    elif args.task == "test":
        script_tasks.test(args.model, data)
    else:
        for note in notes:
            print(note)
        script_tasks.train(config, data, user_path(args.model))


def _given_names(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> set[str]:
    """The names of the options that ``arguments`` spell out: argparse leaves a value that is there, as None, alone."""
    unset = dict.fromkeys(vars(parser.parse_args([])))
    return {
        name
        for name, value in vars(parser.parse_args(arguments, argparse.Namespace(**unset))).items()
        if value is not None
    }


def _ineffective(args: argparse.Namespace, given: set[str]) -> list[str]:
    """A line for each option that is ``given`` and changes nothing."""
    notes = [
        f"--{name} has no effect without --{mode}"
        for name, mode in _NEEDS.items()
        if name in given and not vars(args)[mode]
    ]
    if "dropout" in given:
        notes.append(
            "--dropout has no effect: it acted in the teacher, which answers in eval mode now, without dropout"
        )
    return notes


def _print_error(message: str, code: int) -> int:
    print(f"teacher-student.py: error: {error_line(message)}", file=sys.stderr)
    return code
