"""Measure a network: parameters, multiply-accumulates, bytes, memory, and latency in PyTorch and ONNX Runtime."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_compression.core.console import json_text, table
from model_compression.core.files import user_path

if TYPE_CHECKING:
    from model_compression.compression.measure import Latency, Size

EXAMPLES = """examples:
  model-compression measure lenet
  model-compression measure runs/distilled --threads 1
  model-compression measure student.onnx --batch-size 64
"""

_MOST_THREADS = 1024


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
        default=256,
        metavar="N",
        help="images per call, besides 1 (default: 256)",
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="processor threads (default: all cores)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="duration of each timing (default: 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Measures; returns the exit code."""
    from contextlib import suppress

    import torch

    from model_compression.compression.measure import in_onnx_runtime, in_pytorch, of_file, size_of
    from model_compression.core.config import check_side
    from model_compression.core.errors import MissingExtraError, UsageError
    from model_compression.models.weights import build_model

    if args.size is not None:
        check_side("--size", args.size)
    if args.batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {args.batch_size}")
    if not 0 <= args.threads <= _MOST_THREADS:
        raise UsageError(f"--threads must lie between 0 (all cores) and {_MOST_THREADS}, got {args.threads}")
    if args.seconds <= 0:
        raise UsageError(f"--seconds must be above 0, got {args.seconds}")
    if args.threads:
        torch.set_num_threads(args.threads)
    threads = torch.get_num_threads()
    path = user_path(args.model)
    if path.suffix in (".onnx", ".pt2"):
        size, answering = None, [of_file(path, threads)]
        if answering[0].is_guest:
            print(
                f"{path} is from elsewhere: it runs in a process of its own, which is a little slower; --trust runs it "
                "in this one",
                file=sys.stderr,
            )
    else:
        loaded = build_model(args.model)
        channels, height, width = loaded.image_shape
        shape = (channels, args.size or height, args.size or width)
        network = loaded.deployed().eval()
        size = size_of(network, shape)
        _check_memory(args.batch_size, size)
        answering = [in_pytorch(network, shape)]
        with suppress(MissingExtraError):
            answering.append(in_onnx_runtime(network, shape, threads))
    try:
        times = [
            one.latency(batch, threads, args.seconds)
            for batch in dict.fromkeys((1, args.batch_size))
            for one in answering
        ]
    except (MemoryError, RuntimeError) as error:
        raise UsageError(
            f"{args.batch_size} images at once do not fit into memory ({str(error)[:80]}); give a smaller --batch-size"
        ) from None
    if path.suffix not in (".onnx", ".pt2") and len(answering) == 1:
        print("no ONNX Runtime beside PyTorch: pip install 'model-compression[export]'", file=sys.stderr)
    file_bytes = _file_bytes(args.model)
    if args.json:
        print(json_text(_plain(args.model, size, file_bytes, times)))
    else:
        _print(size, file_bytes, times)
    return 0


def _check_memory(batch: int, size: "Size") -> None:
    """Raises UsageError for a batch whose activations do not fit in memory: the system would kill the process."""
    from model_compression.core.errors import UsageError
    from model_compression.core.free_memory import available_memory_bytes

    needed, available = batch * size.activation_bytes, available_memory_bytes()
    if needed > available:
        raise UsageError(
            f"{batch} images of {size.image_shape} at once need about {needed / 2**30:,.0f} GiB, and "
            f"{available / 2**30:,.0f} GiB are free; give a smaller --batch-size"
        )


def _file_bytes(name: str) -> int | None:
    from model_compression.models.base import MODELS
    from model_compression.models.weights import find_weights

    if name in MODELS:
        return None
    path = Path(name)
    return (path if path.is_file() else find_weights(name)).stat().st_size


def _plain(name: str, size: "Size | None", file_bytes: int | None, times: "list[Latency]") -> dict[str, Any]:
    from dataclasses import asdict

    timings = [{**asdict(entry), "images_per_second": entry.images_per_second} for entry in times]
    return {"model": name, **(asdict(size) if size else {}), "file_bytes": file_bytes, "latency": timings}


def _print(size: "Size | None", file_bytes: int | None, times: "list[Latency]") -> None:
    from model_compression.core.text import count
    from model_compression.reports.compression_stages import DISTURBED, NOTE

    figures = []
    if size is not None:
        image = " × ".join(map(str, size.image_shape))
        figures = [
            ("parameters", size.parameters),
            (f"MACs for an image of {image}", size.macs),
            ("bytes of weights in float32", size.float32_bytes),
            ("bytes of weights in float16", size.float16_bytes),
            ("bytes of weights in int8", size.int8_bytes),
            ("bytes of activations at most, one image", size.activation_bytes),
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
            f"{entry.images_per_second:,.0f}",
        )
        for entry in times
    ]
    print(table(rows, (f"latency, {count(times[0].threads, 'thread')}", "median", "95th %", "images/s")))
    if any(entry.disturbed for entry in times):
        print(NOTE)
