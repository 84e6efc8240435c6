"""The networks that a configuration names, built, filled and with the preprocessing that fits them and the data."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from model_compression.core.config import ModelConfig
from model_compression.core.config_json import GIVEN
from model_compression.core.errors import GivenAsObjectError, UsageError
from model_compression.core.files import user_path
from model_compression.core.options import setting
from model_compression.data.batches import to_tensors
from model_compression.data.dataset import Dataset
from model_compression.data.task_views import EMBEDDING, UNLABELLED
from model_compression.data.texts import Texts
from model_compression.models.base import MODELS, Network, seeded
from model_compression.models.chosen_answers import choose_answers
from model_compression.models.copies import copy_of
from model_compression.models.embeddings import take_head_off
from model_compression.models.eval_mode import evaluating
from model_compression.models.external import (
    EMBEDS,
    INPUT_SHAPE,
    External,
    check_external,
    has_num_classes,
    is_external,
    library_of,
    materialise,
)
from model_compression.models.fewer_layers import keep_layers
from model_compression.models.hf_texts import TASK, is_architecture
from model_compression.models.loading import build_model, check_own_weights
from model_compression.models.preprocessing import AS_IT_IS, Preprocessing
from model_compression.models.timm_networks import preprocessing_of_tag
from model_compression.models.weights import find_weights, no_weights, read_header
from model_compression.tasks import task_of
from model_compression.tasks.teacher_classes import numbers_of_classes


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


def check_teachers(config: ModelConfig, *, embeds: bool = False) -> None:
    """The same for what `load_teachers` takes. Raises UsageError for a network without weights as well.

    One that ``embeds`` comes with its library's weights unless its options say otherwise.
    """
    configs = each_network(config)
    if len(configs) > 1 and (config.weights or config.mean or config.size):
        raise UsageError(f"weights, mean, std and size belong to one teacher; {config.name!r} names {len(configs)}")
    for one in configs:
        check_student(one)
        if one.weights is None and _is_untrained(one, embeds=embeds):
            raise no_weights(one.name)  # fresh ones would answer at random, and otherwise after a resume


def load_student(config: ModelConfig, data: Dataset, seed: int) -> Network:
    """The student: fresh, for the number of classes of ``data``, or going on from weights that it comes with."""
    config = with_head_of(config, data)
    options = _fitted(config.name, config.options, task_of(data).num_outputs(data))
    if library_of(config.name):
        options = {"pretrained": False, **options}
    options = _with_shape(config, _with_head(config.name, options, data), data)
    network = build_model(config.name, options, seed=seed, weights=config.weights, fits_head=True)
    if config.layers is not None:
        network = keep_layers(network, config.layers)
    return _with_preprocessing(network, config, data)


def given_network(module: nn.Module, data: Dataset, seed: int, config: ModelConfig | None = None) -> Network:
    """A module that was given, copied, with the mean and std of ``config``, or the dataset's.

    ``seed`` is of weights that it has not yet.
    """
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise UsageError(
            f"the {type(module).__name__} that was given has no weights, it is on the device meta: build it on the CPU"
        )
    embeds = answers_with_embeddings(data)
    how = Preprocessing(mean=data.mean, std=data.std, fitting=data.fit)
    network = External(copy_of(module), how, embeds=embeds)
    with seeded(seed):
        network.options = materialise(network.body, data.image_shape if data.holds_images else None)
    if embeds:
        network.options[EMBEDS] = True
    if isinstance(module, Network):  # what it says of its answers, which are held against the dataset's
        stated = task_of(data).facts(data)
        network.facts = {name: value for name, value in module.facts.items() if name in stated}
    return network if config is None else _with_preprocessing(network, config, data)


def load_teachers(config: ModelConfig, data: Dataset) -> list[Network]:
    """The networks that ``config`` names, with commas between several."""
    check_teachers(config, embeds=answers_with_embeddings(data))
    teachers = [load_trained(one, data) for one in each_network(config)]
    if config.classes is not None:
        for teacher in teachers:
            choose_classes(teacher, config.classes, data)
    return teachers


def choose_classes(teacher: Network, wanted: str, data: Dataset) -> None:
    """``teacher`` answers with the classes of ``data`` only, which ``wanted`` tells; see `numbers_of_classes`."""
    if not data.one_each:
        raise UsageError(f"{setting('teacher_classes')} needs samples with one class each, as {data.name} has not")
    numbers = numbers_of_classes(wanted, teacher, data)
    with evaluating(teacher), torch.no_grad():
        answers = teacher(teacher.preprocessing(to_tensors(data.first(1)))).shape[1]
    if max(numbers) >= answers:
        raise UsageError(f"{wanted} names class {max(numbers)} of the teacher, which has {answers}, counted from 0")
    choose_answers(teacher, numbers)
    kept = {name: value for name, value in teacher.facts.items() if name in ("config", "image_shape")}
    teacher.facts = kept | task_of(data).facts(data)  # others, as a stated result, are of all its classes


def load_trained(config: ModelConfig, data: Dataset) -> Network:
    """One network with weights: those that it comes with, or those of a file of someone's own."""
    embeds = answers_with_embeddings(data)
    if not embeds:
        _refuse_headless(config)
    config = with_head_of(config, data)
    options = config.options
    if (config.weights is not None and config.classes is None) or embeds:
        options = _fitted(config.name, options, task_of(data).num_outputs(data))
    if embeds and library_of(config.name) and config.weights is None:
        options = {"pretrained": True, **options}
    options = _with_shape(config, _with_head(config.name, options, data), data)
    model = build_model(config.name, options, seed=0, weights=config.weights, fits_head=embeds)
    learned = model.facts.get("task") in (EMBEDDING, UNLABELLED)  # an earlier version noted it nowhere else
    if embeds and isinstance(model, External) and not (learned or is_headless(model.name, model.options)):
        take_head_off(model.body, model.name)
    if config.layers is not None:
        model = keep_layers(model, config.layers, "teacher")
    known = config.weights or model.declares_preprocessing or config.mean
    is_fresh = embeds and options.get("pretrained") is False
    if data.holds_images and library_of(config.name) and not (known or is_fresh):
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


def each_network(config: ModelConfig) -> list[ModelConfig]:
    """One for each of the names between commas; a file or folder may have commas in its name."""
    if user_path(config.name.removeprefix("hf:")).exists():
        return [config]
    return [dataclasses.replace(config, name=name.strip()) for name in config.name.split(",")]


def answers_with_embeddings(data: Dataset) -> bool:
    """Whether networks for ``data`` have no head."""
    return task_of(data).answer == "embedding"


def is_headless(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a network of that name and these options answers with embeddings."""
    return options.get("num_classes") == 0 or bool(options.get(EMBEDS)) or not (name in MODELS or is_external(name))


def _refuse_headless(config: ModelConfig) -> None:
    """Raises UsageError for the file of a network without a head, where answers of another kind are wanted."""
    if config.weights is None and not (config.name in MODELS or is_external(config.name)):
        options = read_header(find_weights(config.name))["options"]
        if options.get("num_classes") == 0 or options.get(EMBEDS):
            raise UsageError(
                f"{config.name} has no classifier, it answers with embeddings: judge it with {setting('knn', True)}, "
                f"give {setting('task', 'embedding')}, or train it on labels as a student"
            )


def with_head_of(config: ModelConfig, data: Dataset) -> ModelConfig:
    """``config``; of a weights file whose network has a head and needs none, or the reverse, what is to be built.

    The classifier is left out, or starts afresh.
    """
    if config.weights is not None or config.name in MODELS or is_external(config.name) or "," in config.name:
        return config
    path = find_weights(config.name)
    header, embeds = read_header(path), answers_with_embeddings(data)
    name, options = header["model"], header["options"]
    built_anew = name in MODELS or library_of(name) in ("timm", "torchvision")
    if not built_anew or (options.get("num_classes") == 0) == embeds:
        return config
    options = {key: value for key, value in options.items() if key != "num_classes"}
    if embeds:
        options["num_classes"] = 0
    return dataclasses.replace(config, name=name, options=options, weights=str(path))


def _is_untrained(config: ModelConfig, *, embeds: bool) -> bool:
    """Whether a network of that name has fresh weights. A builder of one's own may give it any; a look shows that."""
    if library_of(config.name):
        return not embeds and not config.options.get("pretrained", library_of(config.name) == "hf")
    return config.name in MODELS


def _fitted(name: str, options: dict[str, Any], num_classes: int) -> dict[str, Any]:
    """``options`` with the dataset's number of classes, where the network is built anew and has that option."""
    if "num_classes" in options or not (name in MODELS or is_external(name)):
        return options
    if name not in MODELS:
        return {**options, "num_classes": num_classes} if has_num_classes(name) else options
    parameter = inspect.signature(MODELS.get(name)).parameters.get("num_classes")
    return options if parameter is None or parameter.default == num_classes else {**options, "num_classes": num_classes}


def _with_head(name: str, options: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """``options`` with the head that texts need, and the size of a fresh table of tokens.

    For embeddings, the output of the user's own builder is taken as it is.
    """
    if answers_with_embeddings(data) and is_external(name) and library_of(name) is None:
        return {**options, EMBEDS: True}
    if not isinstance(data.samples, Texts) or library_of(name) != "hf":
        return options
    table = {"vocab_size": data.samples.tokenizer.size} if is_architecture(name) else {}
    return {TASK: data.task, **table, **options}


def _with_shape(config: ModelConfig, options: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """``options`` with the images' shape for a builder of the user's, whose layers may get their sizes from it."""
    if not is_external(config.name) or library_of(config.name) or not data.holds_images:
        return options
    height, width = (int(side) for side in config.size or data.image_shape[1:])
    return {**options, INPUT_SHAPE: [data.image_shape[0], height, width]}


def _with_preprocessing(model: Network, config: ModelConfig, data: Dataset) -> Network:
    """``model`` with its own preprocessing, else with the dataset's mean and std; ``config`` has the last word.

    A weights file beside a tag of timm, as timm:resnet18.a1_in1k, is taken for those weights, with what timm declares
    for them. How photographs got their size is that of ``data``, which may have it from these weights.
    """
    if not data.holds_images:
        if config.mean is not None or config.size is not None:
            raise UsageError(f"mean, std and size are of images, and {data.name} has {data.noun}: leave them out")
        model.preprocessing = AS_IT_IS
        return model
    own = model.preprocessing
    if not model.declares_preprocessing:
        tagged = library_of(config.name) == "timm" and config.weights is not None
        stated = preprocessing_of_tag(config.name.partition(":")[2]) if tagged else None
        own = stated or Preprocessing(mean=data.mean, std=data.std, size=own.size)
    if config.mean is not None and config.std is not None:
        own = dataclasses.replace(own, mean=tuple(config.mean), std=tuple(config.std), mean_image=None)
    if config.size is not None:
        height, width = config.size
        own = dataclasses.replace(own, size=(height, width))
    model.preprocessing = own if data.fit is None else dataclasses.replace(own, fitting=data.fit)
    return model
