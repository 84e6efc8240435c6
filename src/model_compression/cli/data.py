"""Brings a dataset into the cache, checks it, and says what was done: which source was used, where the data is, its
digest, and whether anything about it is odd."""

import argparse
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_compression.cli.config_options import DATA, add_config_options, flag_of, given_values, with_options_at
from model_compression.cli.early import names
from model_compression.cli.run_data import SOURCE, add_source_options, with_source_options
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.console import json_text
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.run_options import OPTIONS

if TYPE_CHECKING:
    from model_compression.data.dataset import Dataset

EXAMPLES = """examples:
  model-compression data cifar10                                   fetch it
  model-compression data cifar10 --data-dir ~/cifar-10-batches-py  your own copy
  model-compression data cifar10 --json | jq .train.digest         for scripts
  model-compression data folder:photos --image-size 64             your images
  model-compression data folder:photos --image-size 224 --augmentation photo --pictures views.png
  model-compression data csv:photos.csv --label-columns cat,dog    a table of paths and labels
  model-compression data hf:uoft-cs/cifar100,label=fine_label      of the hub

MODEL_COMPRESSION_DATA in the environment stands for --data-dir everywhere.
"""


_NOT_DRAWN = ("data.views", "data.mask_tokens")
VIEWS = [
    place
    for place in DATA
    if OPTIONS[place].affects == "result" and place not in (*SOURCE, *_NOT_DRAWN)
    if OPTIONS[place].answers or OPTIONS[place].needs is not None
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand."""
    parser.add_argument(
        "name",
        nargs="?",
        default="cifar10",
        metavar="NAME",
        help=f"{', '.join(names('data'))}, folder:PATH, csv:FILE, tar:PATH or hf:NAME (default: cifar10)",
    )
    add_source_options(parser)
    parser.add_argument("--pictures", type=Path, metavar="FILE", help="draw images and their augmented views, a PNG")
    add_config_options(parser.add_argument_group("views that --pictures shows"), VIEWS)
    parser.add_argument("--json", action="store_true", help="print one JSON object; messages go to stderr")


def run(args: argparse.Namespace) -> int:
    """Loads the dataset and prints what is known about it."""
    from model_compression.data.view_sheet import check_place, draw_views
    from model_compression.engine.teachers import load_data

    messages: list[str] = []

    def report(message: str) -> None:
        messages.append(message)
        print(message, file=sys.stderr, flush=True)

    start, config = time.monotonic(), _config(args)
    if args.pictures:
        check_place(args.pictures)
    train, test = load_data(config, report)
    seconds = time.monotonic() - start
    facts = _facts(args.name, train, test) | {"seconds": round(seconds, 3), "messages": messages}
    if args.pictures:
        draw_views(train, config).save(args.pictures)
        facts["pictures"] = str(args.pictures)
    print(json_text(facts) if args.json else _text(facts))
    return 0


def _config(args: argparse.Namespace) -> DataConfig:
    """The data, with the views that are to be drawn."""
    config = with_source_options(DataConfig(name=args.name), args)
    given = given_values(args, VIEWS)
    if given and not args.pictures:
        raise UsageError(f"{flag_of(next(iter(given)))} has no effect here: it needs --pictures")
    return with_options_at(TrainConfig(student=ModelConfig(name=""), data=config), args, VIEWS).data


def _facts(name: str, train: "Dataset", test: "Dataset") -> dict[str, Any]:
    from model_compression.checks.data import examine_data

    return {
        "name": name,
        "source": train.source,
        "path": None if train.path is None else str(train.path),
        **({"image_shape": list(train.image_shape)} if train.holds_images else {}),
        "task": train.task,
        "classes": list(train.class_names),
        "targets": list(train.target_names),
        "train": _split(train),
        "test": _split(test),
        "oddities": [finding.line for finding in examine_data(train, test) if finding.level != "ok"],
    }


def _split(dataset: "Dataset") -> dict[str, Any]:
    counts = dict(zip(dataset.class_names, dataset.class_counts().tolist(), strict=True)) if dataset.one_each else {}
    return {dataset.noun: len(dataset), "digest": dataset.digest, "class_counts": counts}


def _text(facts: dict[str, Any]) -> str:
    noun = next(iter(facts["train"]))
    of_size = f" of {' × '.join(map(str, facts['image_shape']))}" if "image_shape" in facts else ""
    lines = [f"{facts['name']}: {noun}{of_size}", f"source    {facts['source']}"]
    if facts["path"]:
        lines.append(f"read from {facts['path']}")
    for split in ("train", "test"):
        number, digest = facts[split][noun], facts[split]["digest"]
        balance = f", {_balance(facts[split]['class_counts'])}" if facts[split]["class_counts"] else ""
        counts = f"{split:<9} {number:,} {noun}{balance}"
        lines += [textwrap.fill(counts, 80, subsequent_indent=" " * 10), f"SHA-256   {digest}"]
    for what in ("classes", "targets"):
        if facts[what]:
            names = f"{what}   {', '.join(facts[what])}, in this order"
            lines.append(textwrap.shorten(names, 400, placeholder=" …"))
    lines += [
        textwrap.fill(f"odd       {line}", 80, subsequent_indent=" " * 10)
        for line in facts["oddities"] or ["nothing: no class is empty, no test sample is trained on"]
    ]
    if "pictures" in facts:
        lines.append(f"pictures  {facts['pictures']}: 8 images, each as tests show it, then 7 views")
    return "\n".join([*lines, f"seconds   {facts['seconds']:.2f}"])


def _balance(counts: dict[str, int]) -> str:
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values())):,} of each of {len(counts)} classes"
    listed = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return textwrap.shorten(listed, 400, placeholder=" …")
