"""Test whether run A is better than run B or the difference may be chance, and list how their recipes differ.

A and B are finished runs, or folders whose runs differ in their seed only. With two common seeds or more, the test is
over seeds; with one, over images, which says nothing about other seeds.
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
    parser.add_argument("second", metavar="B", help="another one, to compare A with")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Compares; returns the exit code."""
    from model_compression.reports.difference import difference

    found = difference(args.first, args.second)
    for reason in found.left_out:
        print(f"left out: {reason}", file=sys.stderr)
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
    assert group.summary is not None
    return {group.metric.name: asdict(group.summary), "seeds": [run.seed for run in group.finished]}


def _print(found: "Difference", args: argparse.Namespace) -> None:
    from model_compression.reports.statistics import OF_TWO
    from model_compression.reports.words import sentence

    metric, rows = found.metric, []
    for letter, path, group in (("A", args.first, found.first), ("B", args.second, found.second)):
        assert group.summary is not None
        run = f"{one_line(path)}\n{sentence(group.recipe)}"
        result = metric.text(group.summary.mean, half_width=group.summary.half_width)
        rows.append((letter, run, result, str(group.summary.n)))
    print(table(rows, ("", "run", f"{found.first.eval_set} {metric.label}", "seeds"), left=2))
    if any(group.summary and group.summary.n == 2 for group in (found.first, found.second)):
        print(OF_TWO)
    if not metric.higher_is_better:
        print(f"lower is better: a positive gain is a lower {metric.label}")
    print()
    for line in [*_over_seeds(found), *_on_images(found)]:
        print(line)
    if not found.options:
        print("\nA and B have the same recipe")
        return
    options = [(place, _value(first), _value(second)) for place, first, second in found.options]
    print("\n" + table(options, ("A and B differ in", "A", "B"), left=3))


def _over_seeds(found: "Difference") -> list[str]:
    gain, metric = found.over_seeds, found.metric
    if gain is None:
        return []
    interval = "" if gain.half_width is None else f", 95 % interval{metric.spread(gain.half_width)}"
    tested = "" if gain.p_value is None else f", p = {gain.p_value:.2g}"
    line = f"over {gain.n} seeds A gains {metric.points(gain.mean)}{interval}{tested} (paired t test)"
    return [line, *([_verdict(found.is_significant, "seeds")] if found.same_images else [])]


def _on_images(found: "Difference") -> list[str]:
    images, metric = found.on_images, found.metric
    if images is None:
        return _why_not_on_images(found)
    low, high = (metric.number(bound, sign="+") for bound in images.interval)
    seed = f" of seed {found.seeds[0]}" if found.seeds else ""
    lines = [
        f"on the same {images.count:,} {found.noun} the networks{seed} differ by {metric.points(images.difference)}, "
        f"95 % interval {low} to {high}",
        f"only A is right on {images.only_first:,}, only B on {images.only_second:,}; McNemar's exact test: "
        f"p = {images.p_value:.2g}",
    ]
    if found.over_seeds is None:
        lines += [
            _verdict(found.is_significant, found.noun),
            "another seed may give another difference: train both with --seed 1, 2, … to find out",
        ]
    return lines


def _why_not_on_images(found: "Difference") -> list[str]:
    if found.same_images:  # and the metric is no share of them
        return [] if found.over_seeds else ["several common seeds are needed: no test shows which is better"]
    if all(run.section is None for group in (found.first, found.second) for run in group.finished):
        return ["they were measured on different images: no test shows which is better"]
    groups = {"A": found.first, "B": found.second}
    lacking = [name for name, group in groups.items() if any(run.predictions is None for run in group.finished)]
    if lacking:
        have = "has" if len(lacking) == 1 else "have"
        return [f"{' and '.join(lacking)} {have} no predictions.safetensors: no test shows which is better"]
    return ["they were measured on different images: no test shows which is better"]


def _verdict(significant: bool | None, source: str) -> str:
    """``source`` of chance is "seeds", or what the samples are."""
    if significant is None:
        return "too little is known for a verdict"
    if not significant:
        return f"not significant: chance in the {source} may explain the difference (5 % level)"
    networks = "" if source == "seeds" else " for these two networks"
    return f"significant{networks}: chance in the {source} seldom gives such a difference (5 % level)"


def _value(value: object) -> str:
    return "none" if value is None else one_line(value)
