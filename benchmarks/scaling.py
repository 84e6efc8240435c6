"""Images a second of training on several processes, beside a plain loop with DistributedDataParallel, in turn.

python -m benchmarks.scaling [--processes 1 2 4] [--student resnet20] [--batch-size 256] [--rounds 7]

Both train the same network on the same resident images, with SGD and labels, by gloo between processors or nccl between
GPUs. The plain loop computes no statistics, keeps no state and looks for no NaN.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from benchmarks.record import line, surroundings, write
from model_compression.core import processes
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.device import autocast, choose_device
from model_compression.core.optim_config import OptimConfig
from model_compression.data.dataset import Dataset
from model_compression.engine.observer import Silent
from model_compression.engine.parts import Parts
from model_compression.engine.setup import prepare

_STEPS = 20  # of an epoch, which is what is measured at once


def main() -> None:
    """Measures each number of processes in a launch of its own, and writes the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--student", default="resnet20")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        found = measure(args.student, args.batch_size, args.rounds)
        if processes.is_main():
            print(json.dumps(found), flush=True)
        processes.part_company()
        return
    rows = []
    for count in args.processes:
        rows.append({"processes": count, **launched(count, args)})
        print(rows[-1], flush=True)
    facts = surroundings(choose_device("auto"))
    title = f"{args.student}, batch {args.batch_size}, {args.rounds} rounds of {_STEPS} steps in turn, {line(facts)}"
    content = {"where": facts, "student": args.student, "batch_size": args.batch_size, "rows": rows}
    write(f"scaling-{args.student}", content, table(title, rows))


def launched(count: int, args: argparse.Namespace) -> dict[str, Any]:
    """What ``count`` processes measure, threads shared out between them."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    own = ["-m", "benchmarks.scaling", "--worker", "--student", args.student]
    own += ["--batch-size", str(args.batch_size), "--rounds", str(args.rounds)]
    threads = str(max(1, (os.cpu_count() or 1) // count))
    done = subprocess.run(
        [*launcher, *own], stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": threads}
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(student: str, batch_size: int, rounds: int) -> dict[str, Any]:
    """Median images a second of both, and of their ratio in the same round, in all processes together."""
    processes.meet()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch_size * _STEPS, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(len(images)) % 10
    told = {"class_names": tuple("abcdefghij"), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    train = Dataset(name="noise", samples=images, labels=labels, **told)
    test = Dataset(name="noise-test", samples=images[:100], labels=labels[:100], **told)
    config = TrainConfig(
        student=ModelConfig(name=student), optim=OptimConfig(optimizer="sgd", lr=1e-3), batch_size=batch_size,
        epochs=2 * rounds, precision="fp32" if not torch.cuda.is_available() else "bf16", compile="off",
    )  # fmt: skip
    trainer = prepare(config, Silent(), Parts(data=(train, test))).trainer
    ways = {"ours": lambda: trainer.run_epoch(lambda progress: None), "plain": plain_loop(trainer, train)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            seconds = timed(way, trainer.device)
            if number:  # the first one warms up
                times[name].append(seconds)
    found = {f"{name}_images_per_s": round(len(images) / statistics.median(each)) for name, each in times.items()}
    ratios = [plain / ours for ours, plain in zip(times["ours"], times["plain"], strict=True)]
    return {**found, "ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios]}


def timed(way: Callable[[], Any], device: torch.device) -> float:
    """Seconds that ``way`` takes in the slowest process."""
    if processes.world_size() > 1:
        torch.distributed.barrier()
    begun = time.perf_counter()
    way()
    if device.type == "cuda":
        torch.cuda.synchronize()
    if processes.world_size() > 1:
        torch.distributed.barrier()
    return time.perf_counter() - begun


def plain_loop(trainer: Any, train: Dataset) -> Callable[[], None]:
    """An epoch of a loop as a user writes it, with the same network, images, order of rows and number format."""
    device, size, rank = trainer.device, processes.world_size(), processes.rank()
    network = copy.deepcopy(trainer.student).train()
    model = DistributedDataParallel(network) if size > 1 else network
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=trainer.config.optim.momentum)
    images, labels = torch.from_numpy(train.images).to(device), torch.from_numpy(train.labels).to(device)
    own = trainer.config.batch_size // size

    def epoch() -> None:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).to(device)
        for rows in order.split(trainer.config.batch_size):
            rows = rows[rank * own : (rank + 1) * own]
            with autocast(device, trainer.runtime.precision):
                logits = model(network.preprocessing(images[rows]))
            loss = F.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return epoch


def table(title: str, rows: list[dict[str, Any]]) -> str:
    """The record as Markdown."""
    lines = [title, "", "| processes | images/s | plain DDP | ratio | lowest and highest |", "|---|---|---|---|---|"]
    for row in rows:
        ends = f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}"
        figures = (row["processes"], row["ours_images_per_s"], row["plain_images_per_s"], row["ratio"], ends)
        lines.append("| " + " | ".join(map(str, figures)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
