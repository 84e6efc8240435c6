"""The dataset that a command means: the one that is named, else that of the run that is given, else CIFAR-10."""

import argparse
import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_compression.core.config import DataConfig


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds --data, --image-size and --data-dir."""
    parser.add_argument(
        "--data", metavar="NAME", help="dataset, folder:PATH or hf:NAME (default: the run's, or cifar10)"
    )
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="of folder:PATH and hf:NAME")
    parser.add_argument("--data-dir", metavar="DIR", help="where the dataset is, or is to be stored")


def data_of(args: argparse.Namespace) -> "DataConfig":
    """What these options, and the run that ``args.model`` names, ask for."""
    from model_compression.api.inputs import data_config
    from model_compression.core.config import DataConfig

    data = DataConfig() if args.data else data_config(None, args.model)
    given = {"name": args.data, "image_size": args.image_size, "data_dir": args.data_dir}
    return dataclasses.replace(data, **{key: value for key, value in given.items() if value is not None})
