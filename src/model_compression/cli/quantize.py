"""Write a quantised ONNX file, compare it with the network on every test image, and fine-tune if it loses too much.

int8, and int4 (int8 arithmetic on 4-bit weights), are calibrated on training images. If the file loses more than
--max-drop points, the network is fine-tuned with the same rounding by its run's teacher, and written again.
int8-dynamic rounds activations as they come, which transformers need. half and int8-weights store small weights and
compute in float32. A file that loses too much is not written.
"""

import argparse
import dataclasses

from model_compression.cli.config_options import add_config_options, given_values, places_of
from model_compression.cli.prune import add_repair_options, repaired
from model_compression.cli.run_data import SOURCE
from model_compression.compression.config import CALIBRATED, PRECISIONS, QuantizeConfig
from model_compression.core.errors import UsageError

EXAMPLES = """examples:
  model-compression quantize runs/distilled
  model-compression quantize runs/pruned --max-drop 0.3 --epochs 10
  model-compression quantize lenet-cifar10 --to half --out half
  model-compression quantize lenet-cifar10 --teacher whitening-cnn-cifar10

The file is OUT/student.onnx:
  model-compression measure runs/distilled-int8/student.onnx --threads 1
  model-compression predict runs/distilled-int8/student.onnx cat.png
"""

_EPOCHS, _RATE = 8, 0.1  # of the training with roundings: the network is nearly there
_OPTIONS = places_of(QuantizeConfig)
_OF_ALL_PRECISIONS = {"json", "data", "resident", "workers"} | {place.rpartition(".")[2] for place in SOURCE}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("model", metavar="RUN", help="a finished run, a weights file or a shipped network")
    parser.add_argument(
        "--out", metavar="FOLDER", help="folder of the result; default: RUN with the precision in its name"
    )
    add_config_options(parser, _OPTIONS, QuantizeConfig)
    add_repair_options(parser, f"fine-tuning, if it is needed (default: as the run was trained, but {_EPOCHS} epochs)")


def run(args: argparse.Namespace) -> int:
    """Quantises; returns the exit code."""
    from model_compression.cli.compression_reports import print_quantized
    from model_compression.cli.prune import beside
    from model_compression.cli.training_options import out_folder
    from model_compression.compression.quantize import quantize
    from model_compression.engine.console_observer import ConsoleObserver

    config = _config(args)
    folder, note = out_folder(args, beside(args.model, config.to))
    with ConsoleObserver(note) as observer:
        report = quantize(config, folder, observer)
    return print_quantized(report, folder, args.json)


def _config(args: argparse.Namespace) -> QuantizeConfig:

    from model_compression.compression.repair import place_of

    if args.to in PRECISIONS and args.to not in CALIBRATED:
        _check_none_is_of_ranges_or_training(args)
    run = repaired(args.model, args)
    if args.epochs is None:
        run = dataclasses.replace(run, epochs=_EPOCHS)
    if args.lr is None:
        run = dataclasses.replace(run, optim=dataclasses.replace(run.optim, lr=_RATE * run.optim.lr))
    return QuantizeConfig(model=place_of(args.model), run=run, **given_values(args, _OPTIONS, QuantizeConfig))


def _check_none_is_of_ranges_or_training(args: argparse.Namespace) -> None:
    """Raises UsageError for options of ranges and of training, which other precisions do without."""

    parser = argparse.ArgumentParser(add_help=False)
    add_repair_options(parser, "")
    defaults = {"calibration": None, "images": None, **vars(parser.parse_args([]))}
    for name, default in defaults.items():
        if name not in _OF_ALL_PRECISIONS and getattr(args, name) != default:
            raise UsageError(
                f"--{name.replace('_', '-')} has no effect here: --to {args.to} finds no ranges and trains nothing; "
                "leave it out, or choose --to int8 or int4"
            )
