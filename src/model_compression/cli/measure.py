"""Measure a network: parameters, multiply-accumulates, bytes, memory, and latency in PyTorch and ONNX Runtime."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from model_compression.core.console import json_text, table

if TYPE_CHECKING:
    from model_compression.api.measuring import Cost
    from model_compression.compression.measure import Latency, Size

EXAMPLES = """examples:
  model-compression measure lenet
  model-compression measure runs/distilled --threads 1
  model-compression measure student.onnx --batch-size 64
  model-compression measure runs/mails --tokens 64
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("model", metavar="MODEL", help="a network's name, a weights file, a run, or an exported file")
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side of the images (default: that of the network, else 32)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="images or texts per call, besides 1 (default: 256 images, 32 texts)",
    )
    parser.add_argument("--tokens", type=int, default=128, metavar="N", help="tokens of each text (default: 128)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="processor threads (default: all cores)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="duration of each timing (default: 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Measures; returns the exit code."""
    from model_compression.api.measuring import measure

    cost = measure(
        args.model,
        batch_size=args.batch_size,
        threads=args.threads,
        seconds=args.seconds,
        size=args.size,
        tokens=args.tokens,
    )
    if cost.is_guest:
        print(
            f"{args.model} is from elsewhere: it runs in a separate process, which is a little slower; --trust runs "
            "it in this one",
            file=sys.stderr,
        )
    if cost.size is not None and len({one.runtime for one in cost.latencies}) == 1:
        print("no ONNX Runtime beside PyTorch: pip install 'model-compression[export]'", file=sys.stderr)
    if args.json:
        print(json_text(_plain(cost, args.model)))
    else:
        _print(cost.size, cost.file_bytes, list(cost.latencies))
    return 0


def _plain(cost: "Cost", name: str) -> dict[str, Any]:
    from dataclasses import asdict

    times = [{**asdict(one), f"{cost.noun}_per_second": one.samples_per_second} for one in cost.latencies]
    size = asdict(cost.size) if cost.size else {}
    shape = size.pop("input_shape", None)
    if shape is not None:
        size |= {"image_shape": shape} if cost.noun == "images" else {"tokens": shape[0]}
    return {"model": name, **size, "file_bytes": cost.file_bytes, "latency": times}


def _print(size: "Size | None", file_bytes: int | None, times: "list[Latency]") -> None:
    from model_compression.core.text import count
    from model_compression.models.blank import described
    from model_compression.reports.compression_stages import DISTURBED, NOTE

    figures = []
    if size is not None:
        one = "text" if len(size.input_shape) == 1 else "image"
        figures = [
            ("parameters", size.parameters),
            (f"MACs for {described(size.input_shape)}", size.macs),
            ("bytes of weights in float32", size.float32_bytes),
            ("bytes of weights in float16", size.float16_bytes),
            ("bytes of weights in int8", size.int8_bytes),
            (f"bytes of activations at most, one {one}", size.activation_bytes),
        ]
    if file_bytes is not None:
        figures.append(("bytes of the file", file_bytes))
    if figures:
        print(table([(name, f"{number:,}") for name, number in figures]) + "\n")
    rows = [
        (
            f"{entry.runtime}, batch {entry.batch}{DISTURBED if entry.disturbed else ''}",
            f"{entry.median_ms:.2f} ms",
            f"{entry.p95_ms:.2f} ms",
            f"{entry.samples_per_second:,.0f}",
        )
        for entry in times
    ]
    print(table(rows, (f"latency, {count(times[0].threads, 'thread')}", "median", "95th %", "per second")))
    if any(entry.disturbed for entry in times):
        print(NOTE)
