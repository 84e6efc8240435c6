"""A teacher's answers to a set of the size of ImageNet: bytes, fill and read rates, and memory.

    python -m benchmarks.stored_answers [--images 1281167] [--classes 1000] [--kept 16 0] [--seconds 10]

Each setting has its own process, which stores one view in a temporary folder and reads random batches of 256. The
answers come from a cheap function instead of a network, so that the store is what is measured. Anonymous memory
(RssAnon of Linux) is what a process holds; the pages of mapped files beside it are the system's, which takes them back.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import line, surroundings, write
from model_compression.core.data_config import DataConfig
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch, SampleLoader
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.distillation.teachers.store import AnswerStore

CPU, BATCH, POOL = torch.device("cpu"), 256, 8192
_FIELDS = ("images", "classes", "kept", "seconds")


class CheapTeacher(LiveTeacher):
    """Answers with a row of a table of random logits, moved by a number of the image's own."""

    def __init__(self, classes: int):
        super().__init__([], CPU, torch.float32)
        self._table = 3 * torch.randn(POOL, classes, generator=torch.Generator().manual_seed(0))

    def answer(self, batch: Batch) -> Outputs:
        """Logits (B, K) in float32."""
        moved = (batch.ids % 997).float() / 997
        return Outputs(logits=self._table[batch.ids % POOL] + moved[:, None])


def main() -> None:
    """Measures each setting in its own process, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_281_167, help="default: 1281167")
    parser.add_argument("--classes", type=int, default=1000, help="default: 1000")
    parser.add_argument("--kept", type=int, nargs="+", default=[16, 0], metavar="K", help="0: all (default: 16 0)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of reading (default: 10)")
    parser.add_argument("--one", metavar="JSON", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(**json.loads(args.one))), flush=True)
        return
    rows = []
    for kept in args.kept:
        job = json.dumps(dict(zip(_FIELDS, (args.images, args.classes, kept, args.seconds), strict=True)))
        command = [sys.executable, "-m", "benchmarks.stored_answers", "--one", job]
        rows.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
        print(rows[-1], flush=True)
    where = surroundings(CPU)
    text = table(rows, line(where))
    print(text)
    write("stored-answers-cpu", {"surroundings": where, "rows": rows}, text)


def measured(images: int, classes: int, kept: int, seconds: float) -> dict[str, Any]:
    """What one setting takes."""
    with tempfile.TemporaryDirectory() as folder:
        teacher = opened(Path(folder), images, classes, kept)
        watch = Watch()
        before = watch.largest()
        filled = timed(lambda: len(teacher.view(0)["logits"]))
        after = watch.largest()
        teacher = opened(Path(folder), images, classes, kept)
        found = timed(lambda: len(teacher.view(0)["logits"]))
        read = timed(lambda: read_batches(teacher, images, seconds))
        return {
            **dict(zip(_FIELDS, (images, classes, kept, seconds), strict=True)),
            "size_bytes": teacher.store.size_bytes(),
            "bytes_an_image": teacher.store.size_bytes() / images,
            "filled": filled,
            "opened": found,
            "read": read,
            "anonymous_bytes": {"before": before, "after_filling": after, "after_reading": watch.largest()},
            "peak_resident_bytes": memory("VmHWM"),
        }


def timed(work: Callable[[], int]) -> dict[str, float]:
    """Seconds that ``work`` took, and the rows that it returns for each of them."""
    begun, spent = time.perf_counter(), time.process_time()
    rows = work()
    seconds, processor = time.perf_counter() - begun, time.process_time() - spent
    return {
        "seconds": seconds,
        "rows_per_second": rows / seconds,
        "rows_per_processor_second": rows / processor,
    }


def opened(folder: Path, images: int, classes: int, kept: int) -> CachedTeacher:
    """The teacher with its store; the images have no pixels."""
    store = AnswerStore(folder)
    store.claim({"dtype": "fp16", **({"teacher_cache_topk": kept} if kept else {})}, {})
    labels = np.zeros(images, np.int64)
    loader = SampleLoader(lambda rows: np.zeros((len(rows), 0)), "numbers", labels, DataConfig(name="none"), CPU)
    return CachedTeacher(CheapTeacher(classes), loader, store, lambda done, total: None, print)


def read_batches(teacher: CachedTeacher, images: int, seconds: float) -> int:
    """Number of answers that were read: random batches, as a training step gets them, decoded, in float32."""
    generator, count = torch.Generator().manual_seed(0), 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        ids = torch.randint(images, (BATCH,), generator=generator)
        count += len(teacher.answer(Batch(inputs=ids, targets=ids, ids=ids, view=0)).logits)
    return count


class Watch:
    """Looks at the anonymous memory of this process a hundred times a second."""

    def __init__(self) -> None:
        self._largest = 0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self._largest = max(self._largest, memory("RssAnon"))
            time.sleep(0.01)

    def largest(self) -> int:
        """The most so far, in bytes."""
        self._largest = max(self._largest, memory("RssAnon"))
        return self._largest


def memory(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(text.split()[1]) * 1024 for text in lines if text.startswith(f"{name}:"))


def table(rows: list[dict[str, Any]], where: str) -> str:
    """Markdown: a row a setting."""
    before = rows[0]["anonymous_bytes"]["before"] / 2**20
    lines = [
        f"# Stored answers to {rows[0]['images']:,} images of {rows[0]['classes']:,} classes, one view",
        "",
        f"{where}. `python -m benchmarks.stored_answers`: half precision, answers of a cheap function, random batches "
        f"of {BATCH}. In brackets: rows for each second of a processor, which other programs hardly change. Memory is "
        "the largest anonymous one (RssAnon), with Python, torch and the table of answers, which are "
        f"{before:,.0f} MiB before the first answer.",
        "",
        "| stored | MB | bytes an image | filled, rows/s | checked and opened, s | read, rows/s | memory, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        rates = [
            f"{row[what]['rows_per_second']:,.0f} ({row[what]['rows_per_processor_second']:,.0f})"
            for what in ("filled", "read")
        ]
        lines.append(
            f"| {'{kept} largest'.format(**row) if row['kept'] else 'all'} | {row['size_bytes'] / 1e6:,.1f} "
            f"| {row['bytes_an_image']:.2f} | {rates[0]} | {row['opened']['seconds']:.1f} | {rates[1]} "
            f"| {row['anonymous_bytes']['after_reading'] / 2**20:,.0f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
