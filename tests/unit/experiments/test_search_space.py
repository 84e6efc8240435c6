"""What a search tunes: values from texts, from Python and from the options' metadata; what cannot be is refused."""

import pytest

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.errors import UsageError
from model_compression.core.optim_config import OptimConfig
from model_compression.core.options import speaking_flags
from model_compression.core.run_options import OPTIONS
from model_compression.experiments.search_space import search_space, settings_of, with_settings_of

LABELS = TrainConfig(student=ModelConfig(name="lenet"))
TAUGHT = TrainConfig(
    student=ModelConfig(name="lenet"), teacher=ModelConfig(name="nin-cifar10"), method=MethodConfig(name="kd")
)


def texts(config, wanted=()):
    return [str(tuned) for tuned in search_space(config, wanted)]


def test_default_is_the_learning_rate_and_what_the_method_has():
    assert texts(LABELS) == ["lr=0.0001:0.5:log"]
    assert texts(TAUGHT) == ["lr=0.0001:0.5:log", "temperature=1:20:log", "weights.kd=0.09:9:log"]


def test_ranges_and_choices_come_from_texts_and_from_python_alike():
    wanted = ["lr=1e-4:1e-2:log", "batch_size=32,64", "augmentation=none,flip", "temperature=1:8"]
    assert texts(TAUGHT, wanted) == [
        "lr=0.0001:0.01:log",
        "batch_size=32,64",
        "augmentation=none,flip",
        "temperature=1:8",
    ]
    given = {
        "lr": (1e-4, 1e-2, "log"), "batch_size": [32, 64], "augmentation": ["none", "flip"], "temperature": (1, 8)
    }  # fmt: skip
    assert search_space(TAUGHT, given) == search_space(TAUGHT, wanted)


def test_name_alone_takes_what_the_metadata_of_the_option_say():
    wanted = ["optimizer", "weight_decay", "label_smoothing", "warmup", "schedule"]
    assert texts(LABELS, wanted) == [
        "optimizer=sgd,adam,adamw,muon",
        "weight_decay=1e-06:0.5:log",
        "label_smoothing=0:0.3",
        "warmup=0:1",
        "schedule=constant,step,one_cycle,cosine",
    ]


def test_ranges_of_the_metadata_are_within_the_bounds_of_their_options():
    found = {place: said for place, said in OPTIONS.items() if said.search}
    assert "optim.lr" in found
    for place, said in found.items():
        low, high, *scale = said.search
        assert low < high
        assert scale in ([], ["log"])
        assert low > 0 or not scale
        said.check(place, low)
        said.check(place, high)


def test_values_reach_their_places_and_no_other():
    space = search_space(TAUGHT, ["lr", "batch_size=8,16", "temperature", "weights.kd", "label_weight"])
    values = {"lr": 0.1, "batch_size": 8, "temperature": 2.0, "weights.kd": 3.0, "label_weight": 0.5}
    changed = with_settings_of(TAUGHT, space, values)
    assert settings_of(changed, space) == values
    assert changed == TrainConfig(
        student=TAUGHT.student,
        teacher=TAUGHT.teacher,
        method=MethodConfig(name="kd", params={"temperature": 2.0}, weights={"kd": 3.0}, label_weight=0.5),
        optim=OptimConfig(lr=0.1),
        batch_size=8,
    )
    defaults = {"lr": 1e-3, "batch_size": 256, "temperature": 4.0, "weights.kd": 0.9, "label_weight": 0.1}
    assert settings_of(TAUGHT, space) == defaults


def test_of_several_methods_each_has_its_own_parameters():
    config = TrainConfig(
        student=ModelConfig(name="lenet"), teacher=ModelConfig(name="x"), method=MethodConfig(name="kd,dkd")
    )
    space = search_space(config, ["kd.temperature=1:2"])
    assert with_settings_of(config, space, {"kd.temperature": 1.5}).method.params == {"kd.temperature": 1.5}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["lrr"], "unknown name in --tune: 'lrr'; did you mean 'lr'"),
        (["seed=1,2"], "unknown name in --tune: 'seed'"),
        (["device=cpu,cuda"], "unknown name in --tune: 'device'"),
        (["temperature"], "unknown name in --tune: 'temperature'"),
        (["lr", "lr=1:2"], "--tune names lr twice"),
        (["lr="], "--tune lr: each value must be a finite number, got ''"),
        (["lr=1,x"], "each value must be a finite number, got 'x'"),
        (["lr=0.1"], "--tune lr must have at least two different values, got '0.1'"),
        (["lr=0.1:nan"], "each value must be a finite number, got 'nan'"),
        (["lr=1:0.1"], "a range goes from a smaller number to a larger, got 1:0.1"),
        (["weight_decay=0:0.1:log"], "a range goes from a smaller number above 0 to a larger, got 0:0.1:log"),
        (["lr=1e-3:1e-1:cubic"], "expected values or a range, as batch_size=32,64,128"),
        (["batch_size=1.5:3"], "--tune batch_size: each value must be an integer, got '1.5'"),
        (["batch_size=0:3"], "--batch-size must be at least 1, got 0"),
        (["augmentation=flip,twist"], "unknown augmentation 'twist'"),
        (["cutout"], "--tune cutout needs values or a range"),
        (["momentum"], "--tune momentum has no effect here: it needs optimizer"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_one_line(wanted, message):
    with speaking_flags(), pytest.raises(UsageError) as caught:
        search_space(LABELS, wanted)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_option_that_another_tuned_one_gives_effect_may_be_tuned():
    assert len(texts(LABELS, ["optimizer", "momentum"])) == 2


def test_dictionary_of_something_else_is_refused():
    with pytest.raises(UsageError, match=r"tune\['lr'\] must be a tuple .* got 0.1"):
        search_space(LABELS, {"lr": 0.1})
