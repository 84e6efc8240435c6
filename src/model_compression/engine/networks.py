"""The networks that a configuration names, built, filled and with the preprocessing that fits them and the data."""

import dataclasses
import inspect
from typing import Any

from torch import nn

from model_compression.core.config import ModelConfig
from model_compression.core.config_json import GIVEN
from model_compression.core.errors import GivenAsObjectError, UsageError
from model_compression.core.files import user_path
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset
from model_compression.models.base import MODELS, Network, seeded
from model_compression.models.copies import copy_of
from model_compression.models.external import (
    INPUT_SHAPE,
    External,
    check_external,
    has_num_classes,
    is_external,
    library_of,
    materialise,
)
from model_compression.models.preprocessing import Preprocessing
from model_compression.models.weights import build_model, check_own_weights, find_weights, no_weights, read_header


def check_student(config: ModelConfig) -> None:
    """Raises UsageError for a name or options that cannot be, before any data are fetched."""
    if config.name.startswith(GIVEN):
        raise GivenAsObjectError(f"the network {config.name.removeprefix(GIVEN)}", "name what builds it")
    if config.weights is not None:
        check_own_weights(config.name, config.weights)
    if config.name in MODELS:
        build_model(config.name, config.options, seed=0)
    elif is_external(config.name):
        check_external(config.name)
    else:
        read_header(find_weights(config.name))


def check_teachers(config: ModelConfig) -> None:
    """The same for what `load_teachers` takes. Raises UsageError for a network without weights as well."""
    configs = _each(config)
    if len(configs) > 1 and (config.weights or config.mean or config.size):
        raise UsageError(f"weights, mean, std and size belong to one teacher; {config.name!r} names {len(configs)}")
    for one in configs:
        check_student(one)
        if one.weights is None and _is_untrained(one):
            raise no_weights(one.name)  # fresh ones would answer at random, and otherwise after a resume


def load_student(config: ModelConfig, data: Dataset, seed: int) -> Network:
    """The student: fresh, for the number of classes of ``data``, or going on from weights that it comes with."""
    options = _fitted(config.name, config.options, data.num_outputs)
    if library_of(config.name):
        options = {"pretrained": False, **options}
    options = _with_shape(config, options, data)
    return _with_preprocessing(build_model(config.name, options, seed=seed, weights=config.weights), config, data)


def given_network(module: nn.Module, data: Dataset, seed: int, config: ModelConfig | None = None) -> Network:
    """A module that was given, copied, with the mean and std of ``config``, or the dataset's.

    ``seed`` is of weights that it has not yet.
    """
    network = External(copy_of(module), Preprocessing(mean=data.mean, std=data.std))
    with seeded(seed):
        network.options = materialise(network.body, data.image_shape)
    return network if config is None else _with_preprocessing(network, config, data)


def load_teachers(config: ModelConfig, data: Dataset) -> list[Network]:
    """The networks that ``config`` names, with commas between several."""
    check_teachers(config)
    return [load_trained(one, data) for one in _each(config)]


def load_trained(config: ModelConfig, data: Dataset) -> Network:
    """One network with weights: those that it comes with, or those of a file of someone's own."""
    options = config.options
    if config.weights is not None:
        options = _fitted(config.name, options, data.num_outputs)
    options = _with_shape(config, options, data)
    model = build_model(config.name, options, seed=0, weights=config.weights)
    if library_of(config.name) and not (config.weights or model.declares_preprocessing or config.mean):
        raise UsageError(
            f"{config.name} does not say how its images are normalised: it has no preprocessor_config.json; give its "
            "mean and std"
        )
    takes_floats = model.preprocessing.is_identity and library_of(config.name) is None
    if takes_floats and not (config.mean or not data.has_ids):
        raise UsageError(
            f"{config.name} learned from batches of DataLoaders, and only who made them knows how their pixels were "
            f"normalised; give that mean and std ({setting('mean')} and {setting('std')}, of a teacher "
            f"{setting('teacher_mean')} and {setting('teacher_std')})"
        )
    return _with_preprocessing(model, config, data)


def _each(config: ModelConfig) -> list[ModelConfig]:
    """One for each of the names between commas; a file or folder may have commas in its name."""
    if user_path(config.name.removeprefix("hf:")).exists():
        return [config]
    return [dataclasses.replace(config, name=name.strip()) for name in config.name.split(",")]


def _is_untrained(config: ModelConfig) -> bool:
    """Whether a network of that name has fresh weights. A builder of one's own may give it any; a look shows that."""
    if library_of(config.name):
        return not config.options.get("pretrained", library_of(config.name) == "hf")
    return config.name in MODELS


def _fitted(name: str, options: dict[str, Any], num_classes: int) -> dict[str, Any]:
    """``options`` with the dataset's number of classes, where the network is built anew and has that option."""
    if "num_classes" in options or not (name in MODELS or is_external(name)):
        return options
    if name not in MODELS:
        return {**options, "num_classes": num_classes} if has_num_classes(name) else options
    parameter = inspect.signature(MODELS.get(name)).parameters.get("num_classes")
    return options if parameter is None or parameter.default == num_classes else {**options, "num_classes": num_classes}


def _with_shape(config: ModelConfig, options: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """``options`` with the images' shape for a builder of the user's, whose layers may get their sizes from it."""
    if not is_external(config.name) or library_of(config.name):
        return options
    height, width = (int(side) for side in config.size or data.image_shape[1:])
    return {**options, INPUT_SHAPE: [data.image_shape[0], height, width]}


def _with_preprocessing(model: Network, config: ModelConfig, data: Dataset) -> Network:
    """``model`` with its own preprocessing, else with the dataset's mean and std; ``config`` has the last word."""
    own = model.preprocessing
    if not model.declares_preprocessing:
        own = Preprocessing(mean=data.mean, std=data.std, size=own.size)
    if config.mean is not None and config.std is not None:
        own = dataclasses.replace(own, mean=tuple(config.mean), std=tuple(config.std), mean_image=None)
    if config.size is not None:
        height, width = config.size
        own = dataclasses.replace(own, size=(height, width))
    model.preprocessing = own
    return model
