"""teacher-student.py --task train and --task test, on a few synthetic images."""

import json
import os
import re
import signal

import pytest
import torch
from safetensors.torch import load_file

from model_compression.classic import command_line as classic
from model_compression.core.config import TrainConfig
from model_compression.core.config_json import from_json
from model_compression.core.data_config import DataConfig
from model_compression.core.device import choose_device, choose_precision
from model_compression.data.sources import DATASETS
from model_compression.data.synthetic import load_synthetic
from model_compression.engine.contracts import Progress
from model_compression.engine.trainer import Trainer
from model_compression.models import create_model
from model_compression.models.loading import read_model
from model_compression.models.prediction import predict
from model_compression.models.weights import save_weights

DATA = DataConfig(name="few")
EPOCH_LINE = re.compile(
    r"epoch (\d+) - avg\. (\d+\.\d{6}) seconds in each epoch, lr = (\de-\d\d), cost = (\d+\.\d{6}) , "
    r"avg-cost-per-logits = (\d+\.\d{6})"
)
ACCURACY_LINE = re.compile(r"acc = ([01]\.\d{6}) \. (\d+)/(\d+)\.  Computing time = \d+\.\d{6} seconds")


def few(data_dir=None, report=None, allow_download=True):
    train, test = load_synthetic()
    return train.subset(range(70)), test.subset(range(30))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder, 70 and 30 images, a small teacher in the shipped one's place, the drawn LeNet as student."""
    save_weights(tmp_path / "small-teacher.safetensors", create_model("lenet-caffe", seed=3))
    monkeypatch.setitem(DATASETS._entries, "few", few)
    monkeypatch.setattr(classic, "TEACHER", str(tmp_path / "small-teacher.safetensors"))
    monkeypatch.setattr(classic, "STUDENT", "lenet-caffe")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line):
    return classic.main(line.split(), data=DATA)


def events_of(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def stop_at(step, monkeypatch):
    """Presses Ctrl-C during a step, once."""
    stepped = Trainer._train_step

    def train_step(trainer, batch, epoch):
        if trainer.step + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        return stepped(trainer, batch, epoch)

    monkeypatch.setattr(Trainer, "_train_step", train_step)


def test_train_keeps_model_n_prints_its_lines_and_lowers_the_rate(place, capsys):
    assert run("--task train --model out --epoch 12 --batchsize 32 --lr 2e-3 --dropout 0.8") == 0
    out = capsys.readouterr().out
    assert "--dropout has no effect" in out
    assert "prepare for training, NIPS2014 mode\nnumber of iterations (per epoch) =3\n" in out
    lines = EPOCH_LINE.findall(out)
    assert [int(line[0]) for line in lines] == list(range(1, 13))
    assert [line[2] for line in lines] == ["2e-03"] * 9 + ["2e-04"] * 3  # int(0.8 · 12) = 9
    assert out.count("Epoch  10  is done. Saving the model ...\n") == 1
    assert sorted(path.name for path in (place / "out").glob("model-*")) == ["model-10"]
    assert list((place / "out").glob("student-*")) == []
    assert str(place / "out" / "student.safetensors").endswith(re.search(r"is in (\S+);", out)[1])
    assert not torch.equal(
        *(load_file(place / "out" / name)["ip2.bias"] for name in ("model-10", "student.safetensors"))
    )


def test_train_cost_is_the_sum_of_batch_means(place, capsys):
    assert run("--task train --model out --epoch 2 --batchsize 35") == 0
    for line, event in zip(EPOCH_LINE.findall(capsys.readouterr().out), events_of(place / "out"), strict=True):
        cost, per_logit = float(line[3]), float(line[4])
        assert cost == pytest.approx(2 * event["train_loss"], abs=1e-6)  # two equal batches
        assert per_logit == pytest.approx(cost / 2 / 10, abs=1e-6)


def test_observer_counts_a_small_last_batch_like_the_others(tmp_path, capsys):
    from model_compression.classic.script_tasks import ClassicObserver

    observer = ClassicObserver(tmp_path)
    observer._iterations = 2
    sums = torch.zeros(3, dtype=torch.float64)
    for epoch in (1, 2):
        for count, loss in ((8, 3.0), (2, 5.0)):
            sums += torch.tensor([count * loss, 0.0, count])
            observer.stepped(Progress(epoch=epoch - 1, step=0, steps_per_epoch=2, sums=sums))
        observer.epoch_done({"epoch": epoch, "rate": 1e-3})
        sums = torch.zeros_like(sums)
    assert [line[3:] for line in EPOCH_LINE.findall(capsys.readouterr().out)] == [("8.000000", "0.400000")] * 2


@pytest.mark.parametrize(
    ("options", "mode", "terms"),
    [("", "NIPS2014", {"logits"}), ("--noisy", "noisy", {"logits"}), ("--KD", "knowledge distilling", {"kd", "label"})],
)
def test_train_of_one_epoch_with_each_method(options, mode, terms, place, capsys):
    assert run(f"--task train --model out --epoch 1 {options}") == 0
    assert f"prepare for training, {mode} mode" in capsys.readouterr().out
    (event,) = events_of(place / "out")
    assert set(event["terms"]) == terms
    assert event["rate"] == 1e-3
    assert (place / "out" / "student.safetensors").is_file()


def test_train_with_kd_weights_its_terms(place):
    assert run("--task train --model out --epoch 1 --KD --lamda 0.25 --tau 2") == 0
    (event,) = events_of(place / "out")
    expected = 0.25 * event["terms"]["label"] + 0.75 * event["terms"]["kd"]
    assert event["train_loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("model", ["out/model-10", "out", "out/student.safetensors"])
def test_test_measures_what_training_saved(model, place, capsys):
    assert run("--task train --model out --epoch 10 --batchsize 70") == 0
    accuracy = json.loads((place / "out" / "metrics.json").read_text())["test_accuracy"]
    capsys.readouterr()
    assert run(f"--task test --model {model}") == 0
    printed, correct, total = ACCURACY_LINE.search(capsys.readouterr().out).groups()
    assert (int(total), int(correct) / int(total)) == (30, pytest.approx(accuracy))
    assert float(printed) == pytest.approx(accuracy, abs=1e-6)


def test_val_measures_the_teacher(place, capsys):
    assert run("--task val") == 0
    correct = int(ACCURACY_LINE.search(capsys.readouterr().out)[2])
    _, test = few()
    device = choose_device("auto")
    logits = predict(read_model(classic.TEACHER).to(device), test, device, choose_precision("auto", device))
    assert correct == int((logits.argmax(dim=1) == torch.from_numpy(test.labels)).sum())


def test_train_refuses_a_folder_that_holds_something(place, capsys):
    (place / "out").mkdir()
    (place / "out" / "notes.txt").write_text("mine")
    assert run("--task train --model out --epoch 1") == 1
    err = capsys.readouterr().err
    assert err == "teacher-student.py: error: out exists and is not empty: it holds something else; choose another " \
        "folder with --model\n"  # fmt: skip
    assert [path.name for path in (place / "out").iterdir()] == ["notes.txt"]


def test_train_interrupted_says_how_to_go_on_and_resumes_to_the_same_weights(place, monkeypatch, capsys):
    options = "--epoch 10 --batchsize 32"
    assert run(f"--task train --model whole {options}") == 0
    with pytest.MonkeyPatch.context() as patch:
        stop_at(11, patch)
        assert run(f"--task train --model cut {options}") == 130
    err = capsys.readouterr().err
    assert "continue with: model-compression resume cut\n" in err
    assert run(f"--task train --model cut {options}") == 1
    assert "continue that run with: model-compression resume cut\n" in capsys.readouterr().err
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    from model_compression.cli.main import main

    assert main(["resume", str(place / "cut")]) == 0
    whole, cut = (load_file(place / name / "student.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    capsys.readouterr()
    assert run(f"--task test --model {place / 'cut' / 'model-10'}") == 0  # resume named it student-10.safetensors


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--task test --model nothing-there", "nothing-there does not exist; expected a model-N file, a run folder"),
        ("--task test --model lenet", "lenet does not exist"),
        ("--task test --model out/model-7", "out/model-7 does not exist"),
        ("--task test --model broken", "broken is not a readable safetensors file"),
        ("--task train --model out --KD --tau 0", "temperature must be"),
        ("--task train --model out --noisy --noisy_ratio 2", "alpha must"),
        ("--task train --model broken", "broken is a file, not a folder; choose another folder with --model"),
    ],
)
def test_failures_are_one_line_and_leave_nothing(line, message, place, capsys):
    (place / "broken").write_bytes(b"not weights")
    before = sorted(place.iterdir())
    assert run(line) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert sorted(place.iterdir()) == before


def test_train_writes_a_config_that_repeats_the_run(place):
    assert run("--task train --model out --epoch 1") == 0
    config = from_json(TrainConfig, (place / "out" / "config.json").read_text())
    line = ["--task", "train", "--model", "out", "--epoch", "1"]
    args = classic.build_parser().parse_args(line)
    assert config.method == classic.to_config(args).method
    assert (config.data, config.epochs) == (DATA, 1)
