"""The dataset that a command means: the one that is named, else that of the run that is given, else CIFAR-10."""

import argparse
import dataclasses
from typing import TYPE_CHECKING

from model_compression.cli.config_options import TABLE, add_config_options, given_values
from model_compression.core.run_options import with_values

if TYPE_CHECKING:
    from model_compression.core.data_config import DataConfig


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds --data and what says how it is read."""
    parser.add_argument(
        "--data",
        metavar="NAME",
        help="dataset, folder:PATH, csv:FILE, tar:PATH or hf:NAME (default: the run's, or cifar10)",
    )
    add_source_options(parser)


SOURCE = [f"data.{name}" for name in ("image_size", "fit", "crop_share", "interpolation", "data_dir", "task")]
SOURCE += ["data.tokenizer", "data.max_length", "data.mask_folders", "data.ignore_index", *TABLE]


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Adds what says how the data that are named are read: size and fit of images, folder, task, columns of tables."""
    add_config_options(parser, SOURCE, show_defaults=False)


def with_source_options(data: "DataConfig", args: argparse.Namespace) -> "DataConfig":
    """``data`` read as the options of `add_source_options` say."""
    given = {place.removeprefix("data."): value for place, value in given_values(args, SOURCE).items()}
    return with_values(data, given)


def data_of(args: argparse.Namespace) -> "DataConfig":
    """What these options, and the run that ``args.model`` names, ask for."""
    from model_compression.api.inputs import data_config
    from model_compression.core.data_config import DataConfig

    data = DataConfig() if args.data else data_config(None, args.model)
    return with_source_options(data if args.data is None else dataclasses.replace(data, name=args.data), args)
