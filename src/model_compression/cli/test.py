"""Measure a network's accuracy on the test images: a shipped network, a weights file or a run folder."""

import argparse
import dataclasses

from model_compression.cli.model_options import add_model_options, with_model_options
from model_compression.cli.run_data import add_data_options, data_of
from model_compression.core.console import json_text

EXAMPLES = """examples:
  model-compression test --model nin-cifar10
  model-compression test --model runs/cifar10-lenet-kd-seed0 --json
  model-compression test --model resnet20 --weights own.pt
  model-compression test --model timm:vit_small_patch14_dinov2.lvd142m --knn
  model-compression test --model hf:my-vit --data folder:photos --image-size 224
"""

_NAMES = {
    "nll": "NLL",
    "ece": "calibration error",
    "linear_probe": "linear probe",
    "rank": "effective rank",
}
_TOLERANCE = 0.003  # another processor rounds otherwise: a few images of 10,000 change sides


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a shipped network, a weights file or a run; hf:NAME; with --weights any other",
    )
    add_model_options(parser)
    add_data_options(parser)
    parser.add_argument("--resident", default="auto", metavar="NAME", help="auto, on or off (default: auto)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode what is not resident")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="which images (default: test)")
    parser.add_argument("--knn", action="store_true", help="judge embeddings: nearest neighbours and a linear probe")
    parser.add_argument(
        "--window", type=int, default=0, metavar="N", help="segmentation: side of windows to answer in; 0: whole images"
    )
    parser.add_argument("--precision", default="auto", metavar="NAME", help="auto, fp32 or bf16 (default: auto)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Measures; returns the exit code."""
    from model_compression.api.evaluation import evaluate
    from model_compression.core.config import ModelConfig
    from model_compression.engine.console_observer import ConsoleObserver

    data = dataclasses.replace(data_of(args), resident=args.resident, workers=args.workers)
    model = with_model_options(ModelConfig(name=args.model), args)
    with ConsoleObserver() as observer:
        options = {
            "split": args.split,
            "knn": args.knn,
            "window": args.window,
            "device": args.device,
            "precision": args.precision,
        }
        found = evaluate(model, data, **options, observer=observer)
    if args.json:
        facts = {"model": args.model, "data": data.name, "split": args.split, found.noun: found.samples}
        stated = {f"stated_{found.metric.name}": found.stated, "seconds": round(found.seconds, 2)}
        print(json_text({**facts, **found.figures, **stated}))
        return 0
    metric, text = found.metric, found.metric.text(found.value)
    lines = [(f"{args.split} {metric.label}", f"{text}   ({found.samples:,} {found.noun}, {found.seconds:.1f} s)")]
    if interval := found.intervals.get(metric.name):
        lines[0] = lines[0][0], f"{lines[0][1]}   95 % interval {metric.interval(interval)}"
    for name, value in list(found.figures.items())[1:]:
        shown = f"{value:.4f}"
        if interval := found.intervals.get(name):
            shown = f"{metric.text(value)}   95 % interval {metric.interval(interval)}"
        lines.append((_NAMES.get(name, name.replace("_", " ")), shown))
    if found.stated is not None and data.name == "cifar10":
        same = abs(found.stated - found.value) <= _TOLERANCE
        verdict = "confirmed" if same else "NOT confirmed on this machine"
        lines.append(("stated", f"{metric.text(found.stated)}   {verdict}"))
    width = max(len(name) for name, _ in lines)
    for name, line in lines:
        print(f"{name:<{width}}   {line}")
    return 0
