"""No option does nothing in silence: it changes the weights, is refused, or a line says that it has no effect."""

import dataclasses
import re

import pytest
from safetensors.torch import load_file

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.errors import DataError, UsageError
from model_compression.core.run_options import OPTIONS, changed_options, lacks, with_values
from model_compression.engine.effects import check_parts_of_batch, without_effect
from model_compression.engine.parts import Parts
from model_compression.engine.runs import start_run
from model_compression.engine.setup import prepare
from model_compression.experiments.recipes import RECIPES

PLAIN = TrainConfig(student=ModelConfig(name="lenet"), method=MethodConfig(name="kd"))
NEEDY = [
    place
    for place, said in OPTIONS.items()
    if said.affects == "result" and lacks(PLAIN, place) and place != "data.cutout"  # which is refused alone
]

# Values where a number that is half or one more than the default is none of the option's.
VALUES = {
    "method.name": "logits", "method.params": {"temperature": 2.0}, "method.weights": {"kd": 0.3},
    "method.pairs": {"conv1": "conv1"}, "data.name": "synthetic", "data.task": "embedding", "data.fit": "squash",
    "data.interpolation": "bilinear", "data.unlabelled": "tiny", "data.augmentation": "flip",
    "data.mask_folders": "x,y",
    "data.table.target_mean": "1", "data.table.target_std": "1", "optim.optimizer": "sgd", "optim.schedule": "step",
    "precision": "bf16", "teacher_precision": "bf16", "teacher_cache_dtype": "fp32", "class_weights": "balanced",
    "teacher_answers": "probabilities", "teacher_tta": "flip", "teacher_view": "plain", "accumulate": 3,
    "batch_size": 4, "data.crop_ratio": 2.0,
}  # fmt: skip


def another(config, place):
    if place in VALUES:
        return VALUES[place]
    for name in place.split("."):
        config = getattr(config, name)
    if isinstance(config, bool):
        return not config
    return {int: lambda: config + 1, float: lambda: config / 2 + 0.1, str: lambda: "x"}.get(type(config), lambda: 0.5)()


def trained(config, folder, watcher):
    seen = watcher()
    start_run(config, folder, seen)
    weights = load_file(folder / "student.safetensors")
    return b"".join(weights[name].numpy().tobytes() for name in sorted(weights)), seen.messages


def name_of(place):
    return place.rpartition(".")[2]


@pytest.mark.slow
@pytest.mark.parametrize("method", [None, "kd"])
def test_each_option_changes_the_weights_or_is_refused_or_said_to_have_no_effect(tiny, tmp_path, watcher, method):
    base = tiny.config(method, epochs=1)
    same, before = trained(base, tmp_path / "base", watcher)
    silent = []
    for place, said in OPTIONS.items():
        part = place.partition(".")[0]
        if said.affects != "result" or part in ("student", "teacher", "peers") or (part == "method" and not method):
            continue
        try:
            found, messages = trained(with_values(base, {place: another(base, place)}), tmp_path / place, watcher)
        except (UsageError, DataError):
            continue
        told = [line for line in messages if line not in before and name_of(place) in line]
        told = [line for line in told if "slower" not in line]  # bf16 on a processor without: it is slow, and works
        if (found != same) == bool(told) and not (found != same and "BatchNorm" in told[0]):
            silent.append((place, told))
    teachers = {place for place, said in OPTIONS.items() if said.of == "teacher"}  # a baseline keeps the method's
    assert [one for one in silent if method or one[0] not in teachers] == []


@pytest.mark.parametrize("place", NEEDY)
def test_options_that_need_others_lack_them_by_default_and_have_them_beside_each(place):
    part = place.rpartition(".")[0]
    config = with_values(PLAIN, {place: another(PLAIN, place)})
    assert changed_options(config) == [*changed_options(PLAIN), place]
    listed = lacks(config, place)
    for name, values in OPTIONS[place].needs.items():
        assert name in listed
        for value in values or [another(PLAIN, f"{part}.{name}")]:
            assert lacks(with_values(config, {f"{part}.{name}": value}), place) == ""
            assert str(value) in listed or not values


def test_options_without_effect_are_said_once_by_a_run(tiny, tmp_path, watcher):
    seen = watcher()
    values = {place: another(tiny.config("kd"), place) for place in NEEDY}
    values |= {"data.ignore_index": 7, "data.max_length": 9, "sync_batchnorm": True, "shard_teacher": True}
    values |= {"method.first_stage_epochs": 3, "teacher_cache": "off", "teacher_cache_dtype": "fp32", "keep_every": 9}
    values |= {"optim.schedule": "step", "epochs": 1}
    expected = {name_of(place) for place in values} - {"teacher_cache", "epochs"}
    expected -= {"step_at", "step_factor"}  # which have what they need, a schedule that has no effect
    prepare(with_values(tiny.config("kd"), values), seen, Parts())
    told = [re.match("([a-z_]+) has no effect here: .+", line) for line in seen.messages]
    assert sorted(found[1] for found in told if found) == sorted(expected)


def test_no_recipe_has_an_option_without_effect():
    for name in RECIPES:
        config = RECIPES.get(name)().config
        assert [place for place in changed_options(config) if lacks(config, place)] == []


@pytest.mark.parametrize(("batch", "parts"), [(5, 6), (5, 999), (100, 23)])
def test_more_parts_than_a_batch_has_samples_are_refused(tiny, tmp_path, batch, parts):
    most = min(batch, 22)
    with pytest.raises(UsageError, match=f"^accumulate must be at most {most}, the samples of a batch, got {parts}$"):
        start_run(tiny.config(batch_size=batch, accumulate=parts), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    start_run(tiny.config(batch_size=batch, accumulate=most, epochs=1), tmp_path / "run")


def test_parts_are_of_the_samples_of_each_process(tiny):
    config = tiny.config(batch_size=5, accumulate=4)
    with pytest.raises(UsageError, match="must be at most 3, the samples of a batch in each of 2 processes, got 4"):
        check_parts_of_batch(config, tiny.data()[0], 2)
    check_parts_of_batch(dataclasses.replace(config, accumulate=3), tiny.data()[0], 2)


def test_what_the_student_lacks_is_said(tiny):
    from torch import nn

    config = tiny.config("kd", sync_batchnorm=True, optim={"bias_lr_scale": 2.0})
    train, plain, with_norm = tiny.data()[0], nn.Linear(2, 2), nn.Sequential(nn.BatchNorm2d(3))
    lines = [*without_effect(config, train, plain, 2, taught=True)]
    assert lines == [
        "bias_lr_scale has no effect here: the student has no normalisation layers with biases",
        "sync_batchnorm has no effect here: the student has no BatchNorm",
    ]
    assert [*without_effect(config, train, with_norm, 2, taught=True)] == []
    large = [*without_effect(tiny.config(batch_size=23), train, with_norm, 1, taught=False)]
    assert large == ["batch_size=23 is above the 22 images of tiny: an epoch is one step of all of them"]
    assert [*without_effect(tiny.config(batch_size=22), train, with_norm, 1, taught=False)] == []
    untaught = [*without_effect(tiny.config("kd", teacher_tta="flip"), train, with_norm, 1, taught=False)]
    assert untaught == ["teacher_tta has no effect here: there is no teacher"]
