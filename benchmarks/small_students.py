"""From a teacher to files that ship, on CIFAR-10, over several seeds: what each stage keeps of accuracy, and costs.

    python -m benchmarks.small_students [--students lenet resnet20] [--seeds 1]

Each (student, seed) is one `compress`, in runs/small-students; one that was interrupted goes on, and one that has a
record in results/small-students is not run again. The table is written from all records.
"""

import argparse
import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import line, surroundings
from model_compression.compression.config import Budget, CompressConfig
from model_compression.compression.pipeline import Compression, compress
from model_compression.core.config import ModelConfig
from model_compression.core.files import write_atomically, write_json
from model_compression.core.metric import ACCURACY
from model_compression.core.optim_config import OptimConfig
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.experiments.recipes import RECIPES
from model_compression.reports.statistics import summarise

FOLDER, RUNS = Path("results/small-students"), Path("runs/small-students")


def plan(student: str, seed: int) -> CompressConfig:
    """A tenth of the bytes of ``student`` in float32, and of a LeNet 250 kB at most."""
    run = dataclasses.replace(RECIPES.create("lenet-distilled-cifar10").config, seed=seed)
    settings: dict[str, Any] = {"to": "int4", "steps": 3, "step_epochs": 3}
    if student == "lenet":
        budget = Budget(max_bytes=250_000, min_accuracy=0.80)
        settings |= {"prune_epochs": 40, "low_rank": True, "round_to": 1, "quantize_epochs": 16}
        return CompressConfig(run=run, budget=budget, **settings)
    optim = OptimConfig(optimizer="muon", lr=8e-3, weight_decay=0.1, schedule="one_cycle")
    run = dataclasses.replace(run, student=ModelConfig(name=student), epochs=20, batch_size=512, optim=optim)
    return CompressConfig(run=run, budget=Budget(max_bytes=108_000, min_accuracy=0.80), **settings)


def main() -> None:
    """Compresses what has no record yet, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    students = ["lenet", "resnet20"]
    parser.add_argument("--students", nargs="+", default=students, choices=students)
    parser.add_argument("--seeds", type=int, default=1, help="runs of each student (default: 1)")
    args = parser.parse_args()
    for seed in range(args.seeds):
        for student in args.students:
            record = FOLDER / f"{student}-seed{seed}.json"
            if not record.exists():
                folder = RUNS / f"{student}-seed{seed}"
                result = _compressed(plan(student, seed), folder)
                record.parent.mkdir(parents=True, exist_ok=True)
                write_json(record, {"surroundings": surroundings(torch.device("cpu")), **result})
    found = {s: [json.loads(path.read_text()) for path in sorted(FOLDER.glob(f"{s}-seed*.json"))] for s in students}
    text = table({student: results for student, results in found.items() if results})
    write_atomically(FOLDER / "table.md", text.encode())
    print(text)


def _compressed(config: CompressConfig, folder: Path) -> dict[str, Any]:
    with ConsoleObserver() as observer:
        if (folder / "student.onnx").exists():
            result: dict[str, Any] = json.loads((folder / "stages.json").read_text())
            return result
        observer.message(str(folder))
        begun = (folder / "compress.json").exists()
        return Compression.at(folder, observer).resume() if begun else compress(config, folder, observer)


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a row a stage, means over the seeds; latencies are medians of the seeds' medians."""
    lines = ["# From a teacher to files that ship, CIFAR-10", ""]
    for where in sorted({line(result["surroundings"]) for results in found.values() for result in results}):
        lines.append(f"{where}.")
    lines += ["`python -m benchmarks.small_students`; runs of one thread count are compared with each other only.", ""]
    for student, results in found.items():
        threads = ", ".join(sorted({str(result["threads"]) for result in results}))
        lines += [
            f"## {student}, n = {len(results)}",
            "",
            f"Teacher: {results[0]['teacher_accuracy']:.2%}. Latency: one image, {threads} threads.",
            "",
            "| stage | runtime | bytes, at most | of float32 | test accuracy, mean | sd | each seed "
            "| against distilled, points | ms | × faster |",
            "|---|---|---:|---:|---:|---:|---|---:|---:|---:|",
            *_rows(results),
            "",
        ]
    return "\n".join(lines)


def _rows(results: Sequence[dict[str, Any]]) -> list[str]:
    first = _figures(results, 0)
    rows = []
    for number, stage in enumerate(results[0]["stages"]):
        here = _figures(results, number)
        summary = summarise(here["accuracy"])
        accuracy = f"{ACCURACY.text(summary.mean)}{ACCURACY.spread(summary.half_width)}"
        lost = summarise([a - b for a, b in zip(here["accuracy"], first["accuracy"], strict=True)])
        rows.append(
            f"| {stage['name']} | {stage['runtime']} | {max(here['size_bytes']):,.0f} "
            f"| {max(here['size_bytes']) / min(first['size_bytes']):.1%} | {accuracy} "
            f"| {'' if summary.sd is None else f'{100 * summary.sd:.2f}'} "
            f"| {', '.join(f'{value:.2%}' for value in here['accuracy'])} | {100 * lost.mean:+.2f} "
            f"| {statistics.median(here['median_ms']):.3f} "
            f"| {statistics.median(first['median_ms']) / statistics.median(here['median_ms']):.1f} |"
        )
    return rows


def _figures(results: Sequence[dict[str, Any]], number: int) -> dict[str, list[float]]:
    """A stage's figures, a value a seed."""
    names = ("accuracy", "size_bytes", "median_ms")
    return {name: [result["stages"][number][name] for result in results] for name in names}


if __name__ == "__main__":
    main()
