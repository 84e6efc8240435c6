"""Write a run's network as a half-precision weights file, a few megabytes, with the accuracy that the file itself has.

This is how the networks inside this package were made: a recipe's run, then `pack`.
"""

import argparse

from model_compression.cli.run_data import add_data_options, data_of
from model_compression.core.console import json_text

EXAMPLES = """examples:
  model-compression train --recipe nin-cifar10 --out runs/nin
  model-compression pack runs/nin --out nin-cifar10.safetensors
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("model", metavar="RUN", help="a finished run's folder")
    parser.add_argument("--out", required=True, metavar="FILE", help="the .safetensors file to write")
    add_data_options(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Writes and measures; returns the exit code."""
    from model_compression.api.sharing import pack
    from model_compression.engine.console_observer import ConsoleObserver

    with ConsoleObserver() as observer:
        packed = pack(args.model, args.out, data_of(args), force=args.force, observer=observer)
    found, metric = packed.evaluation, packed.evaluation.metric
    if args.json:
        facts = {"out": str(packed.path), "bytes": packed.size_bytes}
        print(json_text({**facts, metric.key("test"): found.value}))
        return 0
    text = f"test {metric.label} {metric.text(found.value)} from half-precision weights"
    print(f"{packed.path}: {packed.size_bytes / 1e6:.2f} MB, {text}")
    return 0
