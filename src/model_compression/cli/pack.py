"""Write a run's network as a half-precision weights file, a few megabytes, with the accuracy that the file itself has.

This is how the networks inside this package were made: a recipe's run, then `pack`.
"""

import argparse

from model_compression.cli.run_data import add_data_options, data_of
from model_compression.core.console import json_text
from model_compression.core.files import user_path

EXAMPLES = """examples:
  model-compression train --recipe nin-cifar10 --out runs/nin
  model-compression pack runs/nin --out nin-cifar10.safetensors
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("model", metavar="RUN", help="a finished run's folder")
    parser.add_argument("--out", required=True, metavar="FILE", help="the .safetensors file to write")
    add_data_options(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Writes and measures; returns the exit code."""
    import torch

    from model_compression.checks.networks import check_classes
    from model_compression.core.config_json import to_dict
    from model_compression.core.device import choose_device
    from model_compression.core.errors import UsageError
    from model_compression.core.files import read_json
    from model_compression.engine.console_observer import ConsoleObserver
    from model_compression.engine.run_folder import RunFolder
    from model_compression.engine.teachers import load_data
    from model_compression.models.copies import placed
    from model_compression.models.prediction import predict
    from model_compression.models.weights import read_model, save_weights
    from model_compression.tasks import task_of

    out = user_path(args.out)
    if out.suffix != ".safetensors":
        raise UsageError(f"--out must end in .safetensors, got {out}")
    if out.exists() and not args.force:
        raise UsageError(f"{out} exists; choose another --out, or replace it with --force")
    folder = RunFolder(args.model)
    config, metrics = folder.read_config(), folder.read_metrics()
    network = read_model(folder.student)
    for parameter in network.state_dict().values():
        parameter.copy_(parameter.half())  # what is measured is what the file holds
    device = choose_device("auto")
    observer = ConsoleObserver()
    _, test = load_data(data_of(args), observer.message)
    check_classes("model", network, test)
    for line in task_of(test).differences(network, test):
        observer.message(line)
    logits = predict(placed(network, device), test, device, torch.float32)  # the same on any machine
    measured = task_of(test).figures(logits, torch.from_numpy(test.labels))
    facts = {
        **{f"test_{key}": value for key, value in measured.items()},
        "precision": "float32",
        "class_names": list(test.class_names),
        "image_shape": list(test.image_shape),
        "config": to_dict(config),
        "environment": read_json(folder.environment),
        "training_seconds": metrics["seconds"],
    }
    save_weights(out, network, dtype=torch.float16, facts=facts)
    num_bytes = out.stat().st_size
    if args.json:
        print(json_text({"out": str(out), "bytes": num_bytes, "test_accuracy": measured["accuracy"]}))
    else:
        print(f"{out}: {num_bytes / 1e6:.2f} MB, test accuracy {measured['accuracy']:.2%} from half-precision weights")
    return 0
