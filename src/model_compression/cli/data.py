"""Brings a dataset into the cache, checks it, and says what was done: which source was used, where the data is, its
digest, and whether anything about it is odd."""

import argparse
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

from model_compression.cli.early import names
from model_compression.core.console import json_text

if TYPE_CHECKING:
    from model_compression.data.dataset import Dataset

EXAMPLES = """examples:
  model-compression data cifar10                                   fetch it
  model-compression data cifar10 --data-dir ~/cifar-10-batches-py  your own copy
  model-compression data cifar10 --json | jq .train.digest         for scripts
  model-compression data folder:photos --image-size 64             your images
  model-compression data hf:uoft-cs/cifar100,label=fine_label      of the hub

MODEL_COMPRESSION_DATA in the environment stands for --data-dir everywhere.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand."""
    parser.add_argument(
        "name",
        nargs="?",
        default="cifar10",
        metavar="NAME",
        help=f"{', '.join(names('data'))}, folder:PATH or hf:NAME (default: cifar10)",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="an official folder or archive, or where to store (default: the user's cache)"
    )
    parser.add_argument("--image-size", type=int, default=0, metavar="N", help="of folder:PATH and hf:NAME: their side")
    parser.add_argument("--json", action="store_true", help="print one JSON object; messages go to stderr")


def run(args: argparse.Namespace) -> int:
    """Loads the dataset and prints what is known about it."""
    from model_compression.data.sources import load_dataset

    messages: list[str] = []

    def report(message: str) -> None:
        messages.append(message)
        print(message, file=sys.stderr, flush=True)

    start = time.monotonic()
    train, test = load_dataset(args.name, args.data_dir, report, args.image_size)
    seconds = time.monotonic() - start
    facts = _facts(args.name, train, test) | {"seconds": round(seconds, 3), "messages": messages}
    print(json_text(facts) if args.json else _text(facts))
    return 0


def _facts(name: str, train: "Dataset", test: "Dataset") -> dict[str, Any]:
    from model_compression.checks.data import examine_data

    return {
        "name": name,
        "source": train.source,
        "path": None if train.path is None else str(train.path),
        "image_shape": list(train.image_shape),
        "train": _split(train),
        "test": _split(test),
        "oddities": [finding.line for finding in examine_data(train, test) if finding.level != "ok"],
    }


def _split(dataset: "Dataset") -> dict[str, Any]:
    counts = dict(zip(dataset.class_names, dataset.class_counts().tolist(), strict=True))
    return {"images": len(dataset), "digest": dataset.digest, "class_counts": counts}


def _text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['name']}: images of {' × '.join(map(str, facts['image_shape']))}", f"source    {facts['source']}"]
    if facts["path"]:
        lines.append(f"read from {facts['path']}")
    for split in ("train", "test"):
        images, digest = facts[split]["images"], facts[split]["digest"]
        counts = f"{split:<9} {images:,} images, {_balance(facts[split]['class_counts'])}"
        lines += [textwrap.fill(counts, 80, subsequent_indent=" " * 10), f"SHA-256   {digest}"]
    names = f"classes   {', '.join(facts['train']['class_counts'])}, in this order"
    lines.append(textwrap.shorten(names, 400, placeholder=" …"))
    lines += [
        textwrap.fill(f"odd       {line}", 80, subsequent_indent=" " * 10)
        for line in facts["oddities"] or ["nothing: no class is empty, no test image is trained on"]
    ]
    return "\n".join([*lines, f"seconds   {facts['seconds']:.2f}"])


def _balance(counts: dict[str, int]) -> str:
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values())):,} of each of {len(counts)} classes"
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
