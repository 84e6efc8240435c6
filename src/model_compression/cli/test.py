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
  model-compression test --model hf:my-vit --data folder:photos --image-size 224
"""

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
    parser.add_argument("--precision", default="auto", metavar="NAME", help="auto, fp32 or bf16 (default: auto)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Measures; returns the exit code."""
    import time

    import torch

    from model_compression.checks.networks import check_classes
    from model_compression.core.config import ModelConfig
    from model_compression.core.device import choose_device, choose_precision
    from model_compression.engine.console_observer import ConsoleObserver
    from model_compression.engine.networks import check_teachers, load_trained
    from model_compression.engine.teachers import load_data
    from model_compression.models.copies import placed
    from model_compression.models.prediction import predict
    from model_compression.tasks import task_of

    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    config = with_model_options(ModelConfig(name=args.model), args)
    check_teachers(config)
    with ConsoleObserver() as observer:
        data = dataclasses.replace(data_of(args), resident=args.resident, workers=args.workers)
        train, test = load_data(data, observer.message)
        dataset = test if args.split == "test" else train
        model = load_trained(config, dataset)
        check_classes("model", model, dataset)
        for line in task_of(dataset).differences(model, dataset):
            observer.message(line)
        begun = time.monotonic()
        logits = predict(placed(model, device), dataset, device, precision, observer.counter(args.split, len(dataset)))
        seconds = time.monotonic() - begun
    result = task_of(dataset).figures(logits, torch.from_numpy(dataset.labels))
    stated = model.facts.get("test_accuracy") if args.split == "test" else None
    if args.json:
        facts = {"model": args.model, "data": data.name, "split": args.split, "images": len(dataset)}
        print(json_text({**facts, **result, "stated_accuracy": stated, "seconds": round(seconds, 2)}))
        return 0
    correct = round(result["accuracy"] * len(dataset))
    print(
        f"{args.split} accuracy   {result['accuracy']:.2%}   ({correct:,} of {len(dataset):,} images, {seconds:.1f} s)"
    )
    print(f"NLL             {result['nll']:.4f}    calibration error {result['ece']:.2%}")
    if isinstance(stated, float) and data.name == "cifar10":
        same = abs(stated - result["accuracy"]) <= _TOLERANCE
        print(f"stated          {stated:.2%}   {'confirmed' if same else 'NOT confirmed on this machine'}")
    return 0
