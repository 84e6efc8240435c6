"""Train a student on a teacher's answers. The last epoch is what is reported, never the best."""

import argparse
import dataclasses

from model_compression.cli.config_options import METHOD, TEACHER, add_config_options, flag_of, given_values
from model_compression.cli.launch import add_processes
from model_compression.cli.model_options import add_model_options, with_model_options
from model_compression.cli.schemes import (
    add_scheme_options,
    run_scheme_and_report,
    scheme_config,
    scheme_default,
    with_peers,
)
from model_compression.cli.training_options import add_options, base_config, run_folder, started_from, with_options
from model_compression.core import processes
from model_compression.core.argument_types import parse_pairs
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig, default_method
from model_compression.core.errors import UsageError

EXAMPLES = """examples:
  model-compression distill --teacher nin-cifar10 --student lenet --method kd
  model-compression distill --method kd --param temperature=2 --label-weight 0.3
  model-compression distill --method tf_kd --student resnet8
  model-compression distill --augmentation flip_shift --views 4 --epochs 60
  model-compression distill --data folder:photos --teacher runs/photos
  model-compression distill --unlabelled folder:wild --label-weight 0
  model-compression distill --task embedding --teacher timm:vit_small_patch14_dinov2.lvd142m \\
      --student timm:repvit_m1 --data folder:unlabelled
  model-compression distill --scheme self --student resnet8 --generations 3
  model-compression distill --scheme takd --assistants resnet20 --student lenet
  model-compression distill --scheme dml --student resnet8 --peers lenet
  model-compression distill --teacher resnet56 --teacher-weights own.pt
  model-compression distill --teacher hf:my-vit --student timm:resnet18 \\
      --data folder:photos --image-size 224
"""

DEFAULT_TEACHER = "nin-cifar10"  # the teacher of cifar10 where none is named


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_distill_options(parser)
    add_processes(parser)


def add_distill_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `distill_config` reads."""
    add_teacher_options(parser)
    add_method_options(parser)
    add_scheme_options(parser)
    add_options(parser)


def add_method_options(parser: argparse.ArgumentParser, default: str = "kd") -> None:
    """Adds what says how the student learns; ``default`` is what the help calls the method that none is given for."""
    method = parser.add_argument_group("method")
    method.add_argument(
        "--method", metavar="NAME", help=f"see `model-compression methods`; a+b adds two (default: {default})"
    )
    method.add_argument(
        "--param", action="append", default=[], metavar="KEY=VALUE", help="of the method, as temperature=2"
    )
    method.add_argument("--variant", metavar="NAME", help="of the method: paper, or historic for the script of 2016")
    method.add_argument(
        "--weight", action="append", default=[], metavar="TERM=W", help="weight of a term of the method"
    )
    add_config_options(method, METHOD)


def add_teacher_options(
    parser: argparse.ArgumentParser, default: str = DEFAULT_TEACHER, *, show_defaults: bool = True
) -> None:
    """Adds what says who answers (``default`` is what the help calls it), from which layers, and where it is stored."""
    group = parser.add_argument_group("teacher")
    group.add_argument(
        "--teacher",
        metavar="MODEL",
        help="a shipped network, a weights file or a run, hf:NAME, or with weights any that --student takes; "
        f"a,b averages two (default: {default})",
    )
    add_model_options(group, "teacher")
    group.add_argument(
        "--pairs",
        metavar="S=T,...",
        help="layers that are compared, student's = teacher's, for methods that need features (default: by stage)",
    )
    add_config_options(group, TEACHER, show_defaults=show_defaults)


def run(args: argparse.Namespace) -> int:
    """Distils; returns the exit code."""
    config = distill_config(args)
    scheme = scheme_config(config, args)
    folder, note = run_folder(args, config)
    if scheme is not None:
        if processes.world_size() > 1:
            raise UsageError("a scheme runs in one process: leave --processes out")
        return run_scheme_and_report(scheme, folder, note, as_json=args.json)
    from model_compression.cli.watched_runs import run_and_report

    return run_and_report(config, folder, note, as_json=args.json, recipe=args.recipe)


def distill_config(args: argparse.Namespace) -> TrainConfig:
    """The configuration that the command line asks for."""
    default = TrainConfig(
        student=ModelConfig(name="lenet"),
        teacher=ModelConfig(name=DEFAULT_TEACHER),
        method=MethodConfig(name=default_method("")),
    )
    default = scheme_default(default, args)
    config = with_options(base_config(args, default), args)
    if args.scheme != "dml" and not (args.method or args.config or args.recipe):
        from model_compression.engine.default_recipe import with_usual_method

        config = with_usual_method(config)
    if args.scheme and config.method is None:  # a recipe of labels only
        config = dataclasses.replace(config, method=default.method, teacher=default.teacher)
    return with_peers(with_method(config, args), args)


def with_method(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """``config`` with the command line's teacher and method in their place."""
    if config.method is None:
        raise UsageError(f"this configuration has no teacher; run it with: model-compression train{started_from(args)}")
    if args.method == "":
        raise UsageError("--method is empty; give it a value, or leave it out")
    method = config.method
    name = args.method or method.name
    if name != method.name:
        method = MethodConfig(name=name)
    params = parse_pairs(args.param, "--param") | ({"variant": args.variant} if args.variant else {})
    weights = {**method.weights, **parse_pairs(args.weight, "--weight")}
    changed = {place.partition(".")[2]: value for place, value in given_values(args, METHOD).items()}
    from model_compression.distillation.methods import create

    if args.first_stage_epochs is not None and not create(method.name).has_first_stage:
        raise UsageError(
            f"--first-stage-epochs has no effect here: method {method.name!r} has no stage before training"
        )
    method = dataclasses.replace(method, params={**method.params, **params}, weights=weights, **changed)
    return with_teacher(dataclasses.replace(config, method=method), args)


def with_teacher(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """``config``, which has a method, with the command line's teacher, its layers and where its answers are stored."""
    from model_compression.distillation.methods import create

    for option in ("teacher", "pairs", "teacher_cache"):
        if getattr(args, option) == "":
            raise UsageError(f"--{option.replace('_', '-')} is empty; give it a value, or leave it out")
    method = config.method
    assert method is not None
    if args.pairs:
        pairs = {s: str(t) for s, t in parse_pairs(args.pairs.split(","), "--pairs").items()}
        method = dataclasses.replace(method, pairs=pairs)
    teacher = ModelConfig(name=args.teacher) if args.teacher else config.teacher
    if not args.teacher and not create(method.name, **method.params).needs_teacher:
        teacher = None  # the default one is for methods that have use for it
    if teacher == ModelConfig(name=DEFAULT_TEACHER) and config.data.task and not (args.teacher or args.config):
        raise UsageError(
            f"give --teacher: a network for the task {config.data.task}, as timm:vit_small_patch14_dinov2.lvd142m for "
            "embeddings"
        )
    if (
        teacher == ModelConfig(name=DEFAULT_TEACHER)
        and config.data.name != "cifar10"
        and not (args.teacher or args.config)
    ):
        named = f"--data {config.data.name}" + f" --image-size {config.data.image_size}" * bool(config.data.image_size)
        raise UsageError(
            f"give --teacher: a network that knows the classes of {config.data.name}, as a run of "
            f"`model-compression train {named} --out runs/teacher` (the default, {DEFAULT_TEACHER}, knows those of "
            "cifar10)"
        )
    given = given_values(args, TEACHER)
    if given and teacher is None and getattr(args, "scheme", None) != "self":
        raise UsageError(f"{flag_of(next(iter(given)))} has no effect here: there is no teacher")
    stored = [option for option in ("teacher_cache_dtype", "teacher_cache_topk") if option in given]
    if stored and given.get("teacher_cache", config.teacher_cache) == "off":
        raise UsageError(f"{flag_of(stored[0])} has no effect here: --teacher-cache off stores no answers")
    if teacher is not None:
        teacher = with_model_options(teacher, args, "teacher")
    elif with_model_options(config.student, args, "teacher") != config.student:
        raise UsageError("options of a teacher have no effect here: there is no teacher")
    return dataclasses.replace(config, method=method, teacher=teacher, **given)
