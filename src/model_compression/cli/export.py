"""Write a network for another runtime, and compare the file with the network on every test image.

A file that answers differently is not written.
"""

import argparse

from model_compression.cli.model_options import add_model_options, with_model_options
from model_compression.cli.run_data import add_data_options, data_of
from model_compression.core.console import json_text

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
    from model_compression.api.exporting import export
    from model_compression.cli.verify import print_verification
    from model_compression.core.config import ModelConfig
    from model_compression.engine.console_observer import ConsoleObserver

    model = with_model_options(ModelConfig(name=args.model), args)
    with ConsoleObserver() as observer:
        done = export(
            model, args.out, data_of(args), to=args.to, preprocessing=not args.bare, force=args.force, observer=observer
        )
    found = done.verification
    if args.json:
        facts = {"out": str(done.path), "bytes": done.size_bytes}
        values = {found.metric.name: found.value, "largest_difference": found.largest_difference}
        print(json_text({**facts, **values}))
        return 0
    print(f"{done.path}   {done.size_bytes:,} bytes")
    print_verification(found, done.facts)
    return 0
