"""Write a network for another runtime, and compare the file with the network on every test image.

A file that answers differently is not written.
"""

import argparse

from model_compression.cli.model_options import add_model_options, with_model_options
from model_compression.cli.run_data import add_data_options, data_of
from model_compression.core.console import json_text
from model_compression.core.files import user_path

EXAMPLES = """examples:
  model-compression export runs/distilled --out student.onnx
  model-compression export lenet-cifar10 --to torch-export --out lenet.pt2
  model-compression export nets:small --weights a.pt --data folder:photos \\
      --out a.onnx
  model-compression predict student.onnx cat.png
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a finished run, a weights file or a shipped network; hf:NAME; with --weights any other",
    )
    add_model_options(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write, .onnx or .pt2")
    parser.add_argument("--to", metavar="FORMAT", help="onnx or torch-export (default: by the file's ending)")
    parser.add_argument(
        "--bare", action="store_true", help="without the preprocessing: the file takes normalised float32 images"
    )
    add_data_options(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Exports and verifies; returns the exit code."""
    from model_compression.checks.networks import check_classes
    from model_compression.cli.verify import print_verification
    from model_compression.core.config import ModelConfig
    from model_compression.core.errors import UsageError
    from model_compression.data.sources import load_dataset
    from model_compression.engine.console_observer import ConsoleObserver
    from model_compression.engine.networks import check_teachers, load_trained
    from model_compression.exporting.runtimes import RUNTIMES, names_by_suffix
    from model_compression.exporting.write import export
    from model_compression.tasks import task_of

    out = user_path(args.out)
    kinds = names_by_suffix()
    if args.to is None and out.suffix not in kinds:
        raise UsageError(f"--out must end in {' or '.join(kinds)}, got {args.out}")
    to = args.to or kinds[out.suffix]
    RUNTIMES.create(to).check()
    if out.exists() and not args.force:
        raise UsageError(f"{out} exists; choose another --out, or replace it with --force")
    config = with_model_options(ModelConfig(name=args.model), args)
    check_teachers(config)
    with ConsoleObserver() as observer:
        data = data_of(args)
        _, test = load_dataset(data.name, data.data_dir, observer.message, data.image_size)
        network = load_trained(config, test)
        check_classes("model", network, test)
        for line in task_of(test).differences(network, test):
            observer.message(line)
        observer.message(f"writing {out}, and comparing its answers to {len(test):,} images with the network's")
        found = export(network, out, test, to=to, preprocessing=not args.bare)
    if args.json:
        facts = {"out": str(out), "bytes": out.stat().st_size}
        print(json_text({**facts, found.metric.name: found.value, "largest_difference": found.largest_difference}))
        return 0
    print(f"{out}   {out.stat().st_size:,} bytes")
    print_verification(found, network.facts)
    return 0
