"""train, distill and resume as a person types them: what they run, what they print, and what they say to mistakes."""

import json
import os
import signal

import pytest

from model_compression.cli.main import main
from model_compression.core.config import TrainConfig
from model_compression.core.config_json import from_json
from model_compression.engine import parts, training
from model_compression.experiments.recipes import RECIPES

FAST = ["--data", "tiny", "--epochs", "2", "--batch-size", "8", "--precision", "fp32", "--device", "cpu"]
TRAIN = ["train", "--student", "tiny", *FAST]
DISTILL = ["distill", "--student", "tiny", *FAST]
TAUGHT = [*DISTILL, "--teacher", "TEACHER"]


@pytest.fixture
def command(tiny, tmp_path, monkeypatch, capsys):
    """Function that runs a command in a folder of its own and returns (exit code, stdout, stderr); TEACHER is one."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(tiny.teacher) if argument == "TEACHER" else str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def usage(command, tmp_path, capsys):
    """Function that runs a command which must end with exit code 2, one line and no file, and returns the line."""

    def run(*arguments):
        try:
            code, out, err = command(*arguments)
        except SystemExit as stop:  # argparse's way
            code, (out, err) = stop.code, capsys.readouterr()
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert not list(tmp_path.glob("*"))
        return err

    return run


@pytest.fixture
def config_of(monkeypatch, command):
    """Function of a command that returns the config which it would run, and the folder."""
    started = []

    def start(config, folder, observer, **options):
        started.append((config, folder))
        return {"test_accuracy": 0.5, "seed": config.seed}

    monkeypatch.setattr(training, "start_run", start)

    def run(*arguments):
        assert command(*arguments)[0] == 0
        return started[-1]

    return run


def test_train_prints_the_result_and_where_it_is(command, tmp_path):
    code, out, err = command(*TRAIN, "--out", "runs/mine")
    assert code == 0
    metrics = json.loads((tmp_path / "runs/mine/metrics.json").read_text())
    assert out.splitlines() == [
        f"test accuracy   {metrics['test_accuracy']:.2%}   (last epoch, seed 0)",
        "run folder      runs/mine",
    ]
    assert "tiny: 22 images, 2 epochs of 3 steps, float32 on cpu" in err
    assert [line.split()[1] for line in err.splitlines() if line.startswith("epoch")] == ["1/2", "2/2"]


def test_distill_prints_the_teacher_beside_the_student(command):
    code, out, err = command(*DISTILL, "--teacher", "TEACHER", "--method", "logits")
    assert code == 0
    assert out.splitlines()[1].startswith("teacher ")
    assert "agreement" in out.splitlines()[1]
    assert out.splitlines()[2].endswith("runs/tiny-tiny-logits-seed0")
    assert "storing the teacher's answers; later runs read them" in err


@pytest.mark.parametrize("validation", [0, 6])
def test_json_is_one_object_on_stdout(command, validation):
    code, out, err = command(*DISTILL, "--teacher", "TEACHER", "--validation", validation, "--json", "--out", "r")
    assert code == 0
    assert len(out.splitlines()) == 1
    values = json.loads(out)
    name = "validation" if validation else "test"
    assert values["run"] == "r"
    assert {f"{name}_accuracy", f"{name}_nll", f"{name}_ece", f"teacher_{name}_accuracy", "seed"} <= values.keys()
    assert err


def test_config_file_repeats_a_run_to_the_byte(command, tmp_path):
    options = ["--augmentation", "flip_shift", "--shift", "2", "--seed", "5", "--ema", "0.9", "--schedule", "one_cycle"]
    assert command(*DISTILL, "--teacher", "TEACHER", *options, "--out", "a")[0] == 0
    assert command("distill", "--config", "a/config.json", "--out", "b")[0] == 0
    for name in ("student.safetensors", "predictions.safetensors", "events.jsonl", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_momentum_is_an_option_of_muon_too(config_of):
    config, _ = config_of("train", "--student", "lenet", "--optimizer", "muon", "--momentum", 0.8)
    assert (config.optim.optimizer, config.optim.momentum) == ("muon", 0.8)


def test_options_reach_the_config(config_of):
    config, folder = config_of(
        "train", "--student", "nin", "--student-option", "dropout=0.25", "--data", "synthetic", "--data-dir", "d",
        "--augmentation", "flip_shift", "--shift", 1, "--cutout", 6, "--views", 8,
        "--view-seed", 3, "--validation", 10, "--epochs", 4,
        "--batch-size", 32, "--seed", 7, "--optimizer", "sgd", "--lr", "1e-2", "--weight-decay", "5e-4", "--momentum",
        0.8, "--schedule", "step", "--step-at", 0.5, "--step-factor", 0.2, "--label-smoothing", 0.1,
        "--ema", 0.99, "--precision", "bf16", "--compile", "off", "--device", "cpu", "--evaluate-every", 2,
        "--checkpoint-every", 3, "--keep-every", 1,
    )  # fmt: skip
    assert (config.student.name, config.student.options) == ("nin", {"dropout": 0.25})
    data, optim = config.data, config.optim
    assert (data.name, data.data_dir, data.augmentation, data.shift) == ("synthetic", "d", "flip_shift", 1)
    assert (data.cutout, data.views, data.view_seed, data.validation) == (6, 8, 3, 10)
    assert (optim.optimizer, optim.lr, optim.weight_decay, optim.momentum) == ("sgd", 0.01, 5e-4, 0.8)
    assert (optim.schedule, optim.step_at, optim.step_factor) == ("step", 0.5, 0.2)
    assert (config.epochs, config.batch_size, config.seed, config.label_smoothing) == (4, 32, 7, 0.1)
    assert (config.ema, config.precision, config.compile, config.device) == (0.99, "bf16", "off", "cpu")
    assert (config.evaluate_every, config.checkpoint_every, config.keep_every) == (2, 3, 1)
    assert str(folder) == "runs/synthetic-nin-labels-seed7"
    config, _ = config_of("train", "--schedule", "one_cycle", "--warmup", 0.1)
    assert config.optim.warmup == 0.1


def test_method_options_reach_the_config(config_of):
    config, _ = config_of(
        *DISTILL, "--teacher", "nin", "--method", "kd", "--variant", "historic", "--param", "temperature=3", "--weight",
        "kd=0.7", "--label-weight", 0.3, "--teacher-cache", "answers", "--teacher-cache-dtype", "fp32", "--teacher-tta",
        "flip",
    )  # fmt: skip
    assert config.teacher.name == "nin"
    assert config.method.params == {"temperature": 3, "variant": "historic"}
    assert (config.method.weights, config.method.label_weight) == ({"kd": 0.7}, 0.3)
    assert (config.teacher_cache, config.teacher_cache_dtype, config.teacher_tta) == ("answers", "fp32", "flip")
    assert config_of(*DISTILL, "--teacher", "nin", "--method", "kd+dkd")[0].method.name == "kd,dkd"


@pytest.mark.parametrize("name", RECIPES.names())
def test_recipe_is_run_as_it_is_written(config_of, name):
    command = "distill" if RECIPES.create(name).config.teacher else "train"
    assert config_of(command, "--recipe", name)[0] == RECIPES.create(name).config
    changed, _ = config_of(command, "--recipe", name, "--epochs", 1)
    assert changed.epochs == 1
    assert changed.optim == RECIPES.create(name).config.optim


@pytest.mark.usefixtures("config_of")
def test_what_a_recipe_gives_is_promised_of_the_recipe_alone(command):
    expect = RECIPES.create("lenet-cifar10").expect
    assert f"is to give: {expect}" in command("train", "--recipe", "lenet-cifar10")[2]
    assert f"gives {expect} as it stands" in command("train", "--recipe", "lenet-cifar10", "--epochs", 1)[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TRAIN, "--epoch", 3], "unrecognized argument: --epoch; did you mean --epochs"),
        ([*TRAIN, "--epochs", "three"], "--epochs must be an integer, got 'three'"),
        ([*TRAIN, "--epochs", -1], "--epochs must be at least 0, got -1"),
        ([*TRAIN, "--lr", "nan"], "lr must be a finite number"),
        ([*TRAIN, "--student", "tinyy"], "unknown model 'tinyy'; did you mean 'tiny'"),
        ([*TRAIN, "--student-option", "drop=1"], "unknown option of model 'tiny': 'drop'; did you mean 'dropout'"),
        ([*TRAIN, "--student-option", "dropout"], "--student-option must be KEY=VALUE, got 'dropout'"),
        ([*TRAIN, "--student-option", "seed=1"], "seed is not an option of a network"),
        ([*TRAIN, "--data", "cifar"], "unknown dataset 'cifar'; did you mean 'cifar10'"),
        ([*TRAIN, "--augmentation", "flipshift"], "unknown augmentation 'flipshift'; did you mean 'flip_shift'"),
        ([*TRAIN, "--optimizer", "adamz"], "unknown optimizer 'adamz'; did you mean 'adam"),
        ([*TRAIN, "--views", 4], "--views has no effect here: it needs --augmentation, --mixup, --cutmix or --mask"),
        ([*TRAIN, "--augmentation", "flip", "--shift", 4], "--shift has no effect here: it needs --augmentation shift"),
        ([*TRAIN, "--cutout", 3], "--cutout 3 needs --augmentation flip, flip_shift"),
        ([*TRAIN, "--augmentation", "flip", "--cutout", 9], "cutout must be at most the images' 8 pixels, got 9"),
        ([*TRAIN, "--momentum", 0.5], "--momentum has no effect here: it needs --optimizer sgd or muon"),
        ([*TRAIN, "--resident", "on", "--workers", 1], "--workers has no effect here: it needs --resident auto or off"),
        ([*TAUGHT, "--teacher-cache", "off", "--teacher-cache-dtype", "fp32"], "stores no answer"),
        ([*TRAIN, "--step-at", 0.5], "--step-at has no effect here: it needs --schedule step"),
        ([*TRAIN, "--schedule", "step", "--warmup", 0.5], "--warmup has no effect here: it needs --schedule one_cycle"),
        ([*TAUGHT, "--method", "logits", "--label-smoothing", 0.1], "label_smoothing 0.1 has no effect: method 'logi"),
        ([*TRAIN, "--device", "cuda:x"], "device must be auto, cpu, cuda or mps, got 'cuda:x'"),
        (["train", "--recipe", "lenet"], "unknown recipe 'lenet'; did you mean 'lenet-cifar10'"),
        (["train", "--recipe", "x", "--config", "y"], "--config and --recipe both say where to start from"),
        ([*TAUGHT, "--method", ""], "--method is empty; give it a value, or leave it out"),
        ([*DISTILL, "--teacher", "nin-cifar10,"], "the name of a network is empty"),
        ([*TAUGHT, "--method", "kdd"], "unknown method 'kdd'; did you mean 'kd'"),
        ([*TAUGHT, "--param", "temp=3"], "unknown option of method 'kd': 'temp'; did you mean 'temperature'"),
        ([*TAUGHT, "--param", "name=x"], "unknown option of method 'kd': 'name'"),
        ([*TAUGHT, "--param", "temperature=hot"], "kd: temperature must be a number from 0.01 to 1000"),
        ([*TAUGHT, "--variant", "new"], "kd: variant must be 'paper' or 'historic', got 'new'"),
        ([*TAUGHT, "--weight", "kl=1"], "unknown term of method 'kd': 'kl'; known: kd"),
        ([*TAUGHT, "--weight", "kd=x"], "weights.kd must be a number, got 'x'"),
        ([*DISTILL, "--teacher", "tiny-teachr"], "unknown model 'tiny-teachr'; did you mean 'tiny-teacher'"),
        (
            ["distill", "--recipe", "nin-cifar10"],
            "has no teacher; run it with: model-compression train --recipe nin-cifar10\n",
        ),
        (["resume"], "the following arguments are required: RUN"),
        *[
            ([command, "--data", data, *more], f"give --teacher: a network that knows the classes of {data}, as a run ")
            for command in ("distill", "compress", "compare-methods")
            for data, *more in (["synthetic"], ["folder:photos", "--image-size", 64])
        ],
    ],
    ids=lambda value: " ".join(map(str, value[-2:])) if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_usage_is_one_line_with_near_matches(usage, arguments, message):
    line = usage(*arguments)
    assert line.startswith(f"model-compression {arguments[0]}: error: ")
    assert message in line


@pytest.mark.parametrize(
    "arguments",
    [["--method", "kdd"], ["--param", "temp=3"], ["--weight", "kl=1"]],
    ids=lambda value: value[0],
)
@pytest.mark.parametrize("name", ["distill", "cache build"])
def test_names_are_checked_before_data_and_teacher_are_loaded(usage, monkeypatch, name, arguments):
    def load(*_):
        raise AssertionError("loaded too early")

    for function in ("load_data", "load_teachers"):
        monkeypatch.setattr(parts, function, load)
    assert "unknown" in usage(*name.split(), *TAUGHT[1:], *arguments)


def test_failures_are_one_line_and_exit_code_1(command, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"\x08" + bytes(30))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("")
    cases = {
        ("train", "--student", "bad.safetensors", *FAST): "bad.safetensors is not a readable safetensors file",
        (*TRAIN, "--out", "folder"): "folder exists and is not empty: it holds something else",
        ("resume", "folder"): "folder is not a run folder: it has no config.json",
        (*TRAIN, "--optimizer", "sgd", "--lr", "1e38", "--out", "huge"): "became NaN or infinite at step",
    }
    for arguments, message in cases.items():
        code, out, err = command(*arguments)
        assert (code, out) == (1, "")
        assert message in err.splitlines()[-1]
        assert "Traceback" not in err
    with pytest.raises(Exception, match=r"bad.safetensors"):
        command(*next(iter(cases)), "--debug")


def test_distill_run_is_not_started_by_train(command):
    assert command(*DISTILL, "--teacher", "TEACHER", "--out", "r")[0] == 0
    code, _, err = command("train", "--config", "r/config.json", "--out", "s")
    assert code == 2
    assert err.splitlines()[-1].endswith(
        "this configuration has a teacher; run it with: model-compression distill --config r/config.json"
    )


def test_interrupted_command_says_how_to_go_on_and_resume_does(command, tmp_path, monkeypatch):
    from model_compression.engine.console_observer import ConsoleObserver

    assert command(*TRAIN, "--out", "whole")[0] == 0
    stepped = ConsoleObserver.stepped

    def interrupting(self, progress):
        stepped(self, progress)
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ConsoleObserver, "stepped", interrupting)
        code, out, err = command(*TRAIN, "--out", "part")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == (
        "model-compression train: stopped at step 4 of 6, state saved; continue with: model-compression resume part"
    )
    code, _, err = command(*TRAIN, "--out", "part")
    assert code == 1
    assert err.splitlines()[-1].endswith("continue that run with: model-compression resume part")
    code, out, _ = command("resume", "part", "--json")
    assert code == 0
    assert json.loads(out)["run"] == "part"
    for name in ("student.safetensors", "events.jsonl"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert from_json(TrainConfig, (tmp_path / "part" / "config.json").read_text()).epochs == 2


def test_paths_with_brackets_are_printed_as_they_are(command):
    _, out, err = command(*TRAIN, "--out", "runs/[red]mine")
    assert "runs/[red]mine" in out
    code, _, err = command(*TRAIN, "--student", "[bold]x")
    assert code == 2
    assert "[bold]x" in err


def test_default_folder_is_numbered_when_it_is_taken(command, tmp_path):
    for end in ("", "-2", "-3"):
        code, out, err = command(*TRAIN, "--epochs", "1")
        wanted = f"runs/tiny-tiny-labels-seed0{end}"
        assert (code, out.splitlines()[-1].split()) == (0, ["run", "folder", wanted])
        assert ("is taken" in err) == bool(end)
    (tmp_path / "runs" / "tiny-tiny-labels-seed0" / "metrics.json").unlink()
    lines = command(*TRAIN, "--epochs", "1")[2].splitlines()
    assert lines[0] == (
        "runs/tiny-tiny-labels-seed0 is taken: this goes into runs/tiny-tiny-labels-seed0-4; the run there stopped, "
        "continue it with: model-compression resume runs/tiny-tiny-labels-seed0"
    )
    code, _, err = command("train", "--student", "nowhere:net", *FAST)  # what is wrong comes before the folder
    assert (code, err.count("\n"), "No module named 'nowhere'" in err) == (2, 1, True)


def test_finished_run_is_trained_on_by_the_command_that_is_named(command, tmp_path):
    assert command(*TAUGHT, "--out", "first")[0] == 0
    code, _, err = command("resume", "first", "--epochs", "4")
    named = "model-compression distill --config first/config.json --student first --epochs 4\n"
    assert (code, err.endswith(named)) == (2, True)
    assert (
        "model-compression distill --config first/config.json --student first --epochs N"
        in command("resume", "first")[1]
    )
    code, _, err = command(*named.split()[1:], "--out", "second")
    assert (code, err.count("epoch ")) == (0, 4)


def test_figures_of_a_test_stand_in_one_column(command):
    assert command(*TAUGHT, "--out", "first")[0] == 0
    lines = command("test", "--model", "first", "--data", "tiny")[1].splitlines()
    names = ("test accuracy", "NLL", "calibration error")
    assert [line[:20].rstrip() for line in lines] == [*names]
    assert all(line[17:20] == "   " and line[20] != " " for line in lines)
