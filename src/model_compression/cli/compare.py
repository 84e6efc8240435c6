"""Say whether run A is better than run B or the difference may be chance, and in what their recipes differ.

A and B are finished runs, or folders whose runs differ in their seed alone. With two common seeds or more, the test is
over seeds; with one, over images, which says nothing of what other seeds would give.
"""

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from model_compression.core.console import json_text, one_line, table

if TYPE_CHECKING:
    from model_compression.reports.difference import Difference
    from model_compression.reports.groups import Group

EXAMPLES = """examples:
  model-compression compare runs/kd runs/labels
  model-compression compare runs/wide/ runs/narrow/ --json

Many methods over seeds, corrected for many comparisons:
  model-compression compare-methods --help
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("first", metavar="A", help="a run, or a folder with runs of one recipe")
    parser.add_argument("second", metavar="B", help="what it is compared with")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Compares; returns the exit code."""
    from model_compression.reports.difference import difference

    found = difference(args.first, args.second)
    for said in found.left_out:
        print(f"left out: {said}", file=sys.stderr)
    if args.json:
        print(json_text(_plain(found, args)))
    else:
        _print(found, args)
    return 0


def _plain(found: "Difference", args: argparse.Namespace) -> dict[str, object]:
    images = found.on_images
    return {
        "first": {"path": args.first, **_plain_group(found.first)},
        "second": {"path": args.second, **_plain_group(found.second)},
        "common_seeds": list(found.seeds),
        "over_seeds": None if found.over_seeds is None else asdict(found.over_seeds),
        "on_images": None
        if images is None
        else {
            **asdict(images),
            "difference": images.difference,
            "interval": images.interval,
            "p_value": images.p_value,
        },
        "significant": found.is_significant,
        "left_out": list(found.left_out),
        "differs": {place: [first, second] for place, first, second in found.options},
    }


def _plain_group(group: "Group") -> dict[str, object]:
    assert group.accuracy is not None
    return {"accuracy": asdict(group.accuracy), "seeds": [run.seed for run in group.finished]}


def _print(found: "Difference", args: argparse.Namespace) -> None:
    from model_compression.reports.statistics import OF_TWO
    from model_compression.reports.words import sentence

    rows = []
    for letter, path, group in (("A", args.first, found.first), ("B", args.second, found.second)):
        assert group.accuracy is not None
        half = "" if group.accuracy.half_width is None else f" ± {group.accuracy.half_width:.2%}"
        run = f"{one_line(path)}\n{sentence(group.recipe)}"
        rows.append((letter, run, f"{group.accuracy.mean:.2%}{half}", str(group.accuracy.n)))
    print(table(rows, ("", "run", f"{found.first.eval_set} accuracy", "seeds"), left=2))
    if any(group.accuracy and group.accuracy.n == 2 for group in (found.first, found.second)):
        print(OF_TWO)
    print()
    for line in [*_seeds(found), *_images(found)]:
        print(line)
    if not found.options:
        print("\nA and B have the same recipe")
        return
    options = [(place, _value(first), _value(second)) for place, first, second in found.options]
    print("\n" + table(options, ("A and B differ in", "A", "B"), left=3))


def _seeds(found: "Difference") -> list[str]:
    gain = found.over_seeds
    if gain is None:
        return []
    interval = "" if gain.half_width is None else f", 95 % interval ± {100 * gain.half_width:.2f}"
    tested = "" if gain.p_value is None else f", p = {gain.p_value:.2g}"
    return [
        f"over {gain.n} seeds A gains {100 * gain.mean:+.2f} points{interval}{tested} (paired t test)",
        *([_verdict(found.is_significant, "the seeds")] if found.on_images else []),
    ]


def _images(found: "Difference") -> list[str]:
    images = found.on_images
    if images is None:
        groups = {"A": found.first, "B": found.second}
        lacking = [name for name, group in groups.items() if any(run.predictions is None for run in group.finished)]
        if lacking:
            have = "has" if len(lacking) == 1 else "have"
            return [
                f"{' and '.join(lacking)} {have} no predictions.safetensors: nothing can be said of which is better"
            ]
        return ["they were measured on different images: nothing can be said of which is better"]
    low, high = (f"{100 * bound:+.2f}" for bound in images.interval)
    seed = f" of seed {found.seeds[0]}" if found.seeds else ""
    lines = [
        f"on the same {images.count:,} images the networks{seed} differ by {100 * images.difference:+.2f} points, "
        f"95 % interval {low} to {high}",
        f"A alone is right on {images.only_first:,}, B alone on {images.only_second:,}; McNemar's exact test: "
        f"p = {images.p_value:.2g}",
    ]
    if found.over_seeds is None:
        lines += [
            _verdict(found.is_significant, "these images"),
            "another seed may give another difference: train both with --seed 1, 2, … to tell",
        ]
    return lines


def _verdict(significant: bool | None, chance: str) -> str:
    if significant is None:
        return "too little is known for a verdict"
    if significant and chance == "these images":
        return (
            "significant for these two networks: a difference this large is seldom the luck of the images (5 % level)"
        )
    if significant:
        return f"significant: a difference this large is seldom the luck of {chance} (5 % level)"
    return f"not significant: it may be the luck of {chance} (5 % level)"


def _value(value: object) -> str:
    return "none" if value is None else one_line(value)
