"""The zoo: networks with size, latency and accuracy, each with the command that makes it.

    python -m benchmarks.zoo [--measure lenet-cifar10 nin-cifar10 ...]

writes the tables of docs/zoo.md from records: of results/zoo, which --measure makes of the shipped networks (a file in
float32 and one in int8, both run on all test images: minutes each), of results/small-students and results/photographs.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import line, surroundings
from benchmarks.shipped_forms import measure_forms
from model_compression.core.files import write_atomically, write_json
from model_compression.models.weights import shipped_weights

FOLDER, PAGE = Path("results/zoo"), Path("docs/zoo.md")
SMALL, PHOTOGRAPHS = Path("results/small-students"), Path("results/photographs")
BEGIN, END = "<!-- written by python -m benchmarks.zoo -->", "<!-- end -->"
_HEAD = (
    "| network | parameters | MACs | float32 | accuracy | ms | smallest file | accuracy | ms | made by |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
)


def main() -> None:
    """Measures what is asked for and has no record, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shipped = sorted(shipped_weights())
    parser.add_argument("--measure", nargs="+", default=[], choices=shipped, metavar="NAME", help=", ".join(shipped))
    args = parser.parse_args()
    for name in args.measure:
        record = FOLDER / f"{name}.json"
        if not record.exists():
            found = {"surroundings": surroundings(torch.device("cpu")), "files": measure_forms(name)}
            FOLDER.mkdir(parents=True, exist_ok=True)
            write_json(record, found)
    text = written(PAGE.read_text(), tables())
    write_atomically(PAGE, text.encode())
    print(PAGE)


def written(page: str, content: str) -> str:
    """``page`` with ``content`` between the two marks."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{PAGE} has no lines {BEGIN} and {END}, between which the tables go")
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def tables() -> str:
    """Markdown of all records."""
    parts = [("CIFAR-10, 32 pixels", [*_shipped(), *_small()]), ("Photographs, 224 pixels", [*_photographs()])]
    lines: list[str] = []
    for title, rows in parts:
        if rows:
            lines += [f"## {title}", "", *_HEAD, *(row for row, _ in rows), ""]
            lines += [*dict.fromkeys(f"{where}." for _, where in rows), ""]
    return "\n".join(lines).strip()


def _shipped() -> Iterator[tuple[str, str]]:
    for path in sorted(FOLDER.glob("*.json")):
        record, name = json.loads(path.read_text()), path.stem
        made = f"shipped; `train --recipe {name}`"
        yield _row(f"`{name}`", record["files"], "int8", made), line(record["surroundings"])


def _small() -> Iterator[tuple[str, str]]:
    """The students of `benchmarks.small_students`: means over seeds, medians of latencies, largest files."""
    for student in sorted({path.stem.rpartition("-")[0] for path in SMALL.glob("*-seed*.json")}):
        records = [json.loads(path.read_text()) for path in sorted(SMALL.glob(f"{student}-seed*.json"))]
        for stage in ("distilled", "pruned"):
            first, last = (_over_seeds(records, name) for name in (stage, "int4"))
            files = {**first["files"], "float32": first, "int4": last}
            made = f"`python -m benchmarks.small_students --students {student} --seeds {len(records)}`"
            if stage == "pruned":
                yield _row(f"`{student}`, distilled and pruned", files, "int4", made), line(records[0]["surroundings"])
            else:
                yield _row(f"`{student}`, distilled", files, None, made), line(records[0]["surroundings"])


def _over_seeds(records: list[dict[str, Any]], name: str) -> dict[str, Any]:
    stages = [
        one for record in records for one in record["stages"]
        if one["name"] == name and one["runtime"] == "ONNX Runtime"
    ]  # fmt: skip
    return {
        "bytes": max(one["size_bytes"] for one in stages),
        "accuracy": statistics.mean(one["accuracy"] for one in stages),
        "median_ms": statistics.median(one["median_ms"] for one in stages),
        "files": {key: max(one[key] for one in stages) for key in ("parameters", "macs")},
    }


def _photographs() -> Iterator[tuple[str, str]]:
    for path in sorted(PHOTOGRAPHS.glob("*.json")):
        record = json.loads(path.read_text())
        made = f"`python -m benchmarks.photographs --images {record['images']}`"
        yield _row(_photographs_name(record["run"]), record["files"], "int8", made), line(record["surroundings"])


def _photographs_name(run: str) -> str:
    """The network of a run "teacher", "STUDENT-labels-seed0" or "STUDENT-distilled-seed0", and how it was trained."""
    student, *rest = run.split("-")
    arms = {"labels": "labels only", "distilled": "distilled"}
    return f"`timm:{student}`, {arms[rest[0]]}" if rest else "`timm:tf_efficientnet_lite0`, the teacher"


def _row(name: str, files: dict[str, Any], small: str | None, made: str) -> str:
    forms = _form(files["float32"], "") + (_form(files[small], f" ({small})") if small else "| | | ")
    return f"| {name} | {files['parameters']:,} | {files['macs'] / 1e6:,.1f} M {forms}| {made} |"


def _form(form: dict[str, Any], kind: str) -> str:
    mark = " (disturbed)" if form.get("disturbed") else ""
    return f"| {form['bytes']:,}{kind} | {form['accuracy']:.2%} | {form['median_ms']:.3f}{mark} "


if __name__ == "__main__":
    main()
