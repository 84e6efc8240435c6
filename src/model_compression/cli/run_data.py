"""The data set that a command means: the one that is named, else that of the run that is given, else CIFAR-10."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from model_compression.core.files import user_path

if TYPE_CHECKING:
    from model_compression.core.config import DataConfig


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds --data, --image-size and --data-dir."""
    parser.add_argument(
        "--data", metavar="NAME", help="data set, folder:PATH or hf:NAME (default: the run's, or cifar10)"
    )
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="of folder:PATH and hf:NAME")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data set is, or is to be stored")


def data_of(args: argparse.Namespace) -> "DataConfig":
    """What these options, and the run that ``args.model`` names, ask for."""
    from model_compression.core.config import DataConfig

    data = DataConfig() if args.data else _run_data(user_path(args.model))
    given = {"name": args.data, "image_size": args.image_size, "data_dir": args.data_dir}
    return dataclasses.replace(data, **{key: value for key, value in given.items() if value is not None})


def _run_data(path: Path) -> "DataConfig":
    from model_compression.core.config import DataConfig
    from model_compression.engine.relative_paths import anchored
    from model_compression.engine.run_folder import RunFolder

    folder = path.parent if path.name == "student.safetensors" else path
    for run in (RunFolder(folder), RunFolder(folder / "final")):
        if run.config.is_file():
            data = anchored(run.read_config(), run.path).data
            return DataConfig(name=data.name, image_size=data.image_size, data_dir=data.data_dir)
    return DataConfig()
