"""How fast a student is distilled, against what people use: each way in its own process, in turn, in rounds.

python -m benchmarks.speed [--seconds 10] [--rounds 3] [--ways cached bare peak] [--student nin-bn --batch-size 64]
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.record import line, surroundings, write
from benchmarks.ways import Job
from model_compression import create_model
from model_compression.core.device import choose_device

WAYS = ("historic", "torchdistill", "torchdistill_bf16", "live", "cached", "bare", "peak")
EPOCH = 50_000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a way did: rates per round in samples/s (steps/s for ``peak``), and what it says of itself."""

    rates: list[float]
    memory_bytes: int
    facts: dict[str, Any]

    @property
    def rate(self) -> float:
        """The median round's."""
        return statistics.median(self.rates)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="each way a round (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--student", default="lenet", help="default: lenet")
    parser.add_argument("--teacher", default="nin-cifar10", help="default: nin-cifar10")
    parser.add_argument("--batch-size", type=int, default=256, help="default: 256")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--name", help="of the files in results/benchmarks (default: speed-STUDENT-DEVICE)")
    args = parser.parse_args()
    device = choose_device(args.device)
    job = Job(student=args.student, teacher=args.teacher, batch_size=args.batch_size, device=args.device)
    measured = measure(args.ways, job, args.rounds, args.seconds)
    facts = surroundings(device)
    flop = training_flop(args.student)
    content = {
        "surroundings": facts,
        "job": asdict(job),
        "seconds": args.seconds,
        "training_flop_an_image": flop,
        "ways": {way: asdict(result) for way, result in measured.items()},
    }
    text = table(measured, job, flop, line(facts), args.seconds)
    print(text)
    write(args.name or f"speed-{args.student}-{device.type}", content, text)


def measure(ways: list[str], job: Any, rounds: int, seconds: float) -> dict[str, Measured]:
    """Each way for ``seconds`` in turn, ``rounds`` times; all are ready and warm before the first round.

    The ways are those of the module of ``job``'s class.
    """
    command = [sys.executable, "-m", "benchmarks.worker", type(job).__module__]
    processes = {}
    facts = {}
    for way in ways:
        processes[way] = subprocess.Popen(
            [*command, way, json.dumps(asdict(job))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        facts[way] = _said(processes[way])
        print(f"{way} is ready", file=sys.stderr)
    rates: dict[str, list[float]] = {way: [] for way in ways}
    memory = dict.fromkeys(ways, 0)
    for number in range(rounds):
        for way in ways:
            stdin = processes[way].stdin
            assert stdin is not None
            stdin.write(f"{seconds}\n")
            stdin.flush()
            result = _said(processes[way])
            rates[way].append(result["samples"] / result["seconds"])
            memory[way] = result["memory_bytes"]
            print(f"round {number + 1}  {way:<18} {rates[way][-1]:12,.1f}", file=sys.stderr)
    for process in processes.values():
        process.communicate()
    return {way: Measured(rates=rates[way], memory_bytes=memory[way], facts=facts[way]) for way in ways}


def _said(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The next line of JSON; other lines, which libraries print, are passed over."""
    assert process.stdout is not None
    for text in process.stdout:
        if text.startswith("{"):
            answer: dict[str, Any] = json.loads(text)
            return answer
    raise SystemExit(f"a way ended with exit code {process.wait()} before it had an answer")


def training_flop(student: str) -> int:
    """Floating-point operations of a training step for one image: forward and backward, two for each MAC."""
    model = create_model(student, seed=0)
    counter = FlopCounterMode(display=False)
    with counter:
        model(torch.zeros(2, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() // 2


def table(measured: dict[str, Measured], job: Job, flop: int, where: str, seconds: float) -> str:
    """Markdown: rates, seconds an epoch, the share of the peak, and how many times as fast the cached way is."""
    peak = measured["peak"].rate * measured["peak"].facts["flop_a_step"] if "peak" in measured else None
    cached = measured["cached"].rate if "cached" in measured else None
    rows = []
    for way, result in measured.items():
        if way == "peak":
            continue
        share = f"{result.rate * flop / peak:.0%}" if peak else ""
        times = f"{cached / result.rate:.1f}" if cached else ""
        spread = f"{min(result.rates):,.0f} to {max(result.rates):,.0f}"
        rows.append(
            f"| {way} | {result.facts['precision']} | {result.rate:,.0f} | {spread} | {EPOCH / result.rate:.1f} "
            f"| {share} | {times} | {result.memory_bytes / 2**30:.1f} |"
        )
    lines = [
        f"# Distilling {job.student} from {job.teacher}, batch {job.batch_size}",
        "",
        f"{where}. Median of {len(next(iter(measured.values())).rates)} rounds of {seconds:g} s, each way in turn; "
        f"`python -m benchmarks.speed`.",
        "",
        "| way | precision | images/s | all rounds | seconds an epoch | share of peak | cached is × faster | GiB |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    if peak:
        lines += [
            f"Peak: {peak / 1e12:.3f} TFLOP/s, a product of large matrices in {measured['peak'].facts['precision']}. "
            f"The share counts the student's training alone, {flop / 1e6:.0f} MFLOP an image.",
            "",
        ]
    if "cached" in measured:
        facts = measured["cached"].facts
        lines += [
            f"The cache of one view took {facts['fill_seconds']:.0f} s to fill; {facts['cache_bytes'] / 1e6:.1f} MB.",
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
