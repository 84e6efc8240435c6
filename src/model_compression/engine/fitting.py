"""How photographs get which size: as options say, else as the weights of a network were evaluated."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import GIVEN
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import SizesDifferError
from model_compression.core.options import setting
from model_compression.data.sources import is_of_files
from model_compression.data.task_views import EMBEDDING
from model_compression.engine.networks import each_network
from model_compression.engine.teachers import load_data
from model_compression.models.declared_preprocessing import declared_preprocessing
from model_compression.models.external import library_of
from model_compression.models.preprocessing import Preprocessing


def sized_run(config: TrainConfig, report: Callable[[str], None]) -> TrainConfig:
    """``config`` with an image size where photographs differ in it: as `sized_data` says, by the student's weights."""
    student = with_defaults(config.student, pretrained=False)
    return dataclasses.replace(config, data=sized_data(config.data, student, report))


def sized_data(data: DataConfig, network: ModelConfig, report: Callable[[str], None]) -> DataConfig:
    """``data`` with an image size where photographs differ in it and ``data`` names none: that of the weights of
    ``network``; as it is where they are of one size, or the network says nothing. ``report`` is told.
    """
    declared = None if data.image_size or not is_of_files(data.name) else _declared(network)
    if declared is None or declared.size is None or declared.size[0] != declared.size[1]:
        return data
    try:
        load_data(dataclasses.replace(data, resident="off"), lambda text: None)
    except SizesDifferError:
        side = declared.size[0]
        report(
            f"images differ in size, and are scaled to {side} pixels, as the weights of {network.name} want it "
            f"({setting('image_size')})"
        )
        return dataclasses.replace(data, image_size=side)
    return data


def fitted_run(config: TrainConfig, report: Callable[[str], None] | None = None) -> TrainConfig:
    """``config`` whose data say how photographs get their size: by the student's weights, else by the teacher's."""
    student = with_defaults(config.student, pretrained=False)
    teachers = [] if config.teacher is None else [taught_by(config.teacher, config.data)]
    return dataclasses.replace(config, data=fitted_data(config.data, [student, *teachers], report))


def taught_by(teacher: ModelConfig, data: DataConfig) -> ModelConfig:
    """``teacher`` with the option ``pretrained`` that it has where nobody says otherwise."""
    return with_defaults(teacher, pretrained=True) if data.task == EMBEDDING and not teacher.weights else teacher


def with_defaults(network: ModelConfig, **options: Any) -> ModelConfig:
    """``network`` with ``options`` of its library's builder that it does not have."""
    known = library_of(network.name) is not None
    return dataclasses.replace(network, options={**options, **network.options}) if known else network


def fitted_data(
    data: DataConfig, networks: Iterable[ModelConfig], report: Callable[[str], None] | None = None
) -> DataConfig:
    """``data`` that say how photographs get their size, where options leave it open and the weights of one of
    ``networks`` were evaluated in another way than the usual one. The first that says so counts; ``report`` is told.
    """
    if not data.image_size or None not in (data.fit, data.crop_share, data.interpolation):
        return data
    declared = ((one.name, _declared(one)) for one in networks)
    found = [(name, how.fitting) for name, how in declared if how is not None and how.fitting is not None]
    if not found:
        return data
    name, first = found[0]
    taken = first.to_dict()
    if data.fit not in (None, first.fit):
        del taken["crop_share"]  # which is of another way
    fitted = dataclasses.replace(data, **{key: value for key, value in taken.items() if getattr(data, key) is None})
    if fitted.fitting == data.fitting:
        return data
    if report is not None:
        report(f"images are {fitted.fitting.words}, as the weights of {name} want it")
        for other, own in found[1:]:
            if own != fitted.fitting:
                report(f"the weights of {other} want images {own.words}; it sees those of the student")
    return fitted


def _declared(network: ModelConfig) -> Preprocessing | None:
    """Of several networks with commas between their names that of the first."""
    if network.name.startswith(GIVEN):
        return None
    return declared_preprocessing(each_network(network)[0].name, network.options, network.weights)
