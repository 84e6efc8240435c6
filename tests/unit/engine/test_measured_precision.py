"""The precision that a run takes by itself: measured once, recorded, and never changed by a resumed or repeated run."""

import dataclasses
import json
import threading
import time
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import from_json, to_dict, to_json
from model_compression.core.errors import Interrupted, RunFolderError
from model_compression.core.optim_config import OptimConfig
from model_compression.distillation.teachers.store import cache_folder, stores
from model_compression.engine import measured_precision
from model_compression.engine import precision as precision_rule
from model_compression.engine.measured_precision import candidates, fastest, fastest_precision, step_times
from model_compression.engine.runs import check_same, resume_run, start_run
from model_compression.engine.training import Training
from model_compression.experiments.records import differences
from model_compression.models.base import Network
from model_compression.models.create import create_model

CPU = torch.device("cpu")
IMAGE = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
FP32_WINS, BF16_WINS = {"fp32": [1.0], "bf16": [2.0]}, {"fp32": [2.0], "bf16": [1.0]}


@pytest.fixture(autouse=True)
def native(monkeypatch):
    """A processor that computes in bfloat16, whichever this one is."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


@pytest.fixture
def measuring(monkeypatch):
    """Makes even short runs measure; ``seconds`` is what they find, ``done`` has the batch of each measurement."""

    class Measuring:
        seconds, done = FP32_WINS, []

    def measured(student, images, optim, device):
        Measuring.done.append(tuple(images.shape))
        return Measuring.seconds

    Measuring.done = []
    monkeypatch.setattr(measured_precision, "step_times", measured)
    monkeypatch.setattr(precision_rule, "FEWEST_STEPS", 1)
    return Measuring


@pytest.mark.parametrize(
    ("times", "native", "expected"),
    [
        ({"fp32": [1.0], "bf16": [0.5]}, "fp32", "bf16"),
        ({"fp32": [0.5], "bf16": [1.0]}, "bf16", "fp32"),
        ({"fp32": [1.0], "bf16": [1.019]}, "bf16", "bf16"),
        ({"fp32": [1.0], "bf16": [1.021]}, "bf16", "fp32"),
        ({"fp32": [1.5, 1.0, 1.5], "bf16": [1.2, 1.2, 1.2]}, "bf16", "bf16"),  # by chance, as the median has it
        ({"fp32": [1.5, 1.0, 1.1], "bf16": [1.2, 1.2, 1.2]}, "bf16", "fp32"),
        ({"fp32": [1.0], "bf16": [0.5], "fp16": [0.4]}, "bf16", "fp16"),
        ({"fp32": [1.0]}, "bf16", "fp32"),
        ({}, "fp32", "fp32"),
    ],
)
def test_fastest_is_within_two_percent_of_the_best(times, native, expected):
    assert fastest(times, native) == expected


def test_float16_is_tried_on_a_gpu_only():
    assert candidates(CPU) == ("fp32", "bf16")
    assert candidates(torch.device("cuda")) == ("fp32", "bf16", "fp16")


def test_steps_are_timed_on_a_copy_and_draw_no_random_numbers(tiny):
    student = create_model("tiny", seed=0)  # with dropout and batch norm
    before, random = {name: tensor.clone() for name, tensor in student.state_dict().items()}, torch.get_rng_state()
    found = step_times(student, IMAGE.expand(4, -1, -1, -1), OptimConfig(lr=0.1), CPU, seconds=0.01)
    assert sorted(found) == ["bf16", "fp32"]
    assert min(map(min, found.values())) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert all(parameter.grad is None for parameter in student.parameters())
    assert torch.equal(torch.get_rng_state(), random)


class Refusing(nn.Module):
    """Sleeps in float32, and has no kernel for bfloat16."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(192, 2)

    def forward(self, images):
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("\"refusing\" not implemented for 'BFloat16'")
        return self.last(images.flatten(1))


def test_precision_in_which_a_network_fails_is_not_taken():
    network = Network(OrderedDict(only=Refusing()))
    assert fastest_precision(network, IMAGE, 4, OptimConfig(), CPU, lambda text: None) == "fp32"


def test_network_is_measured_once_for_each_batch_shape_optimiser_threads_and_torch(tiny, measuring, monkeypatch):
    student, said = create_model("tiny", seed=0), []

    def asked(student=student, image=IMAGE, batch=4, optimizer="adam"):
        before = len(measuring.done)
        assert fastest_precision(student, image, batch, OptimConfig(optimizer=optimizer), CPU, said.append) == "fp32"
        return len(measuring.done) - before

    assert asked() == 1
    assert said == ["a training step takes 1e+03 ms in fp32 and 2e+03 ms in bf16: fp32 is used here from now on"]
    measuring.seconds = BF16_WINS  # which is not seen: nothing is measured again
    assert asked() == asked(create_model("tiny", seed=1)) == 0
    measuring.seconds = FP32_WINS
    assert asked(batch=5) == asked(image=IMAGE[..., :4]) == asked(optimizer="sgd") == 1
    assert asked(create_model("tiny-teacher", seed=0)) == 1
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert asked() == 1
    assert measuring.done[:2] == [(4, 3, 8, 8), (5, 3, 8, 8)]


@pytest.mark.parametrize("damage", ["", "[]", "{]", '{"x": 3}', '{"x": {"precision": "int8"}}'])
def test_damaged_record_is_measured_again(tiny, measuring, damage):
    student = create_model("tiny", seed=0)
    file = cache_folder().parent / "precision.json"
    file.parent.mkdir(parents=True)
    file.write_text(damage)
    for _ in range(2):
        assert fastest_precision(student, IMAGE, 4, OptimConfig(), CPU, lambda text: None) == "fp32"
    assert len(measuring.done) == 1


def test_cache_that_cannot_be_written_is_said(tiny, measuring, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODEL_COMPRESSION_CACHE", str(tmp_path / "file"))
    said = []
    assert fastest_precision(create_model("tiny", seed=0), IMAGE, 4, OptimConfig(), CPU, said.append) == "fp32"
    assert said[-1].startswith(f"the precision is measured in every run: cannot write {tmp_path / 'file'}")


def test_processes_that_begin_together_measure_once(tiny, monkeypatch):
    found = iter([FP32_WINS, BF16_WINS, BF16_WINS])

    def slow(*_):
        time.sleep(0.1)
        return next(found)

    monkeypatch.setattr(measured_precision, "step_times", slow)
    chosen, student = [], create_model("tiny", seed=0)

    def ask():
        chosen.append(fastest_precision(student, IMAGE, 4, OptimConfig(), CPU, lambda text: None))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert chosen == ["fp32"] * 3


def open_config(tiny, **options):
    return tiny.config(**{"precision": "auto", **options})


def recorded(folder):
    return from_json(TrainConfig, (folder / "config.json").read_text())


def test_run_takes_the_faster_precision_and_says_so_in_its_folder(tiny, measuring, tmp_path):
    metrics = start_run(open_config(tiny), tmp_path / "run")
    assert measuring.done == [(5, 3, 8, 8)]
    assert metrics["precision"] == "float32"
    assert recorded(tmp_path / "run") == open_config(tiny, precision="fp32")


def test_short_run_takes_the_native_precision_unmeasured(tiny, measuring, monkeypatch, tmp_path):
    monkeypatch.setattr(precision_rule, "FEWEST_STEPS", 16)  # one more than it has
    start_run(open_config(tiny), tmp_path / "short")
    assert (recorded(tmp_path / "short").precision, measuring.done) == ("bf16", [])
    monkeypatch.setattr(precision_rule, "FEWEST_STEPS", 15)
    start_run(open_config(tiny), tmp_path / "long")
    assert (recorded(tmp_path / "long").precision, len(measuring.done)) == ("fp32", 1)


@pytest.mark.parametrize("precision", ["native", "bf16", "fp32"])
def test_precision_that_is_named_is_not_measured(tiny, measuring, tmp_path, precision):
    start_run(open_config(tiny, precision=precision), tmp_path / "run")
    assert recorded(tmp_path / "run").precision == precision.replace("native", "bf16")
    assert measuring.done == []


def weights(folder):
    return (folder / "student.safetensors").read_bytes()


def test_resumed_run_keeps_its_precision(tiny, measuring, watcher, tmp_path):
    start_run(open_config(tiny), tmp_path / "whole")
    with pytest.raises(Interrupted):
        start_run(open_config(tiny), tmp_path / "run", watcher(stop_after=(7,)))
    measuring.seconds = BF16_WINS
    (cache_folder().parent / "precision.json").unlink()
    metrics = resume_run(tmp_path / "run")
    assert (metrics["precision"], len(measuring.done)) == ("float32", 1)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_run_is_repeated_from_its_config_in_its_precision(tiny, measuring, tmp_path):
    start_run(open_config(tiny, method="kd"), tmp_path / "run")
    measuring.seconds = BF16_WINS
    (cache_folder().parent / "precision.json").unlink()
    start_run(recorded(tmp_path / "run"), tmp_path / "again")
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    assert len(measuring.done) == 1


def test_run_of_before_that_recorded_auto_goes_on_unmeasured(tiny, measuring, watcher, tmp_path):
    """Its state has the digest of a configuration with "auto", which must stay."""
    start_run(open_config(tiny, precision="bf16"), tmp_path / "whole")
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        start_run(open_config(tiny, precision="bf16"), run, watcher(stop_after=(3,)))
    (run / "state.safetensors").unlink()
    config = dataclasses.replace(recorded(run), precision="auto")
    (run / "config.json").write_text(to_json(config))
    with pytest.raises(Interrupted):
        resume_run(run, watcher(stop_after=(7,)))
    resume_run(run)
    assert (recorded(run).precision, measuring.done) == ("auto", [])
    assert load_file(run / "student.safetensors").keys() == load_file(tmp_path / "whole/student.safetensors").keys()
    first, second = (load_file(folder / "student.safetensors") for folder in (run, tmp_path / "whole"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_students_of_other_precisions_read_the_same_answers(tiny, measuring, tmp_path):
    """The teacher's precision depends on the machine, not on which student is fast in what."""
    start_run(open_config(tiny, method="kd"), tmp_path / "first")
    measuring.seconds = BF16_WINS
    student = ModelConfig(name="tiny", options={"dropout": 0.1})
    start_run(open_config(tiny, method="kd", student=student), tmp_path / "second")
    found = [
        (recorded(tmp_path / name).precision, recorded(tmp_path / name).teacher_precision)
        for name in ("first", "second")
    ]
    assert found == [("fp32", "bf16"), ("bf16", "auto")]
    assert [store.fingerprint["precision"] for store in stores()] == ["bfloat16"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "float32"), ({"precision": "bf16"}, "bfloat16"), ({"teacher_precision": "bf16"}, "bfloat16")],
)
def test_teacher_computes_in_the_precision_that_is_named(tiny, tmp_path, options, expected):
    start_run(tiny.config("kd", **options), tmp_path / "run")
    assert [store.fingerprint["precision"] for store in stores()] == [expected]


def test_folder_of_a_run_is_known_again_by_a_config_that_leaves_the_precision_open(tiny, measuring, tmp_path):
    folder = tmp_path / "run"
    first = Training(open_config(tiny, method="kd"), folder, None).finish()
    measuring.seconds = BF16_WINS
    assert Training(open_config(tiny, method="kd"), folder, None).finish() == first
    check_same(folder, open_config(tiny, method="kd", precision="native"))
    with pytest.raises(RunFolderError, match="precision fp32 there, bf16 here"):
        check_same(folder, open_config(tiny, method="kd", precision="bf16"))


def test_records_of_before_are_those_of_recipes_that_name_the_native_precision(tiny):
    before, now = (to_dict(open_config(tiny, precision=name)) for name in ("auto", "native"))
    assert differences(before, now) == []
    assert differences(before, to_dict(open_config(tiny, precision="fp32"))) == ["precision"]
    del before["teacher_precision"]
    assert differences(json.loads(json.dumps(before)), now) == []
