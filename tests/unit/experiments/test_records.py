"""What a record was made with, held against what is asked for."""

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import to_dict
from model_compression.core.data_config import DataConfig
from model_compression.core.optim_config import OptimConfig
from model_compression.experiments.records import differences

WANTED = TrainConfig(student=ModelConfig(name="lenet"), data=DataConfig(name="x"), optim=OptimConfig(lr=0.1))


def test_option_that_came_later_had_its_default_then():
    recorded = to_dict(WANTED)
    del recorded["data"]["mixup"], recorded["label_smoothing"]
    assert differences(recorded, to_dict(WANTED)) == []
    mixed = TrainConfig(
        student=WANTED.student, data=DataConfig(name="x", mixup=0.2), optim=WANTED.optim, label_smoothing=0.1
    )
    assert differences(recorded, to_dict(mixed)) == ["data.mixup", "label_smoothing"]


def test_what_differs_is_named_and_where_things_lie_is_no_matter():
    recorded = to_dict(WANTED)
    recorded["optim"]["lr"], recorded["teacher_cache"], recorded["data"]["workers"] = 0.2, "elsewhere", 4
    recorded["wandb"] = "mine"
    assert differences(recorded, to_dict(WANTED)) == ["optim.lr"]
