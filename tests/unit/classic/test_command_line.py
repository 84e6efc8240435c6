"""The historic command line: its names, its defaults, and the configuration that follows from them."""

import subprocess
import sys
from pathlib import Path

import pytest

from model_compression.classic import command_line as classic
from model_compression.core.config import MethodConfig
from model_compression.core.config_json import from_json, to_json
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import Interrupted, UsageError

ROOT = Path(__file__).parents[3]
DEFAULTS = {
    "--model": None,
    "--task": None,
    "--lr": 1e-3,
    "--epoch": 100,
    "--dropout": 0.5,
    "--noisy": False,
    "--noisy_ratio": 0.5,
    "--noisy_sigma": 0.9,
    "--KD": False,
    "--lamda": 0.3,
    "--tau": 3.0,
    "--batchsize": 256,
}


def config_of(*arguments):
    return classic.to_config(classic.build_parser().parse_args(arguments))


def notes_of(*arguments):
    parser = classic.build_parser()
    return classic._ineffective(parser.parse_args(arguments), classic._given_names(parser, arguments))


def test_parser_keeps_names_and_defaults():
    actions = classic.build_parser()._actions
    assert {action.option_strings[-1]: action.default for action in actions if action.dest != "help"} == DEFAULTS
    args = classic.build_parser().parse_args([])
    assert {f"--{name}": value for name, value in vars(args).items()} == DEFAULTS
    assert all(type(vars(args)[name.strip("-")]) is type(value) for name, value in DEFAULTS.items())


def test_parser_takes_unambiguous_beginnings_as_it_did():
    assert classic.build_parser().parse_args(["--batch", "8"]).batchsize == 8


def test_to_config_of_defaults_is_the_classic_protocol():
    config = config_of("--task", "train", "--model", "x")
    assert (config.student.name, config.student.options) == ("lenet", {})
    assert config.teacher.name == "nin-cifar10"
    assert config.method == MethodConfig(name="logits")
    assert config.data == DataConfig(name="cifar10", data_dir=None, augmentation="none", validation=0)
    assert (config.optim.optimizer, config.optim.lr, config.optim.weight_decay) == ("adam", 1e-3, 0.0)
    assert (config.optim.schedule, config.optim.step_at, config.optim.step_factor) == ("step", 0.8, 0.1)
    assert (config.epochs, config.batch_size, config.keep_every) == (100, 256, 10)
    assert from_json(type(config), to_json(config)) == config


def test_to_config_takes_rate_epochs_and_batch():
    config = config_of("--lr", "0.01", "--epoch", "7", "--batchsize", "32")
    assert (config.optim.lr, config.epochs, config.batch_size) == (0.01, 7, 32)


def test_to_config_of_kd_weights_the_labels_with_lamda():
    method = config_of("--KD", "--lamda", "0.25", "--tau", "5").method
    assert (method.name, method.params) == ("kd", {"temperature": 5.0})  # no variant: the paper's formula
    assert method.label_weight == 0.25
    assert method.weights == {"kd": 0.75}


def test_to_config_of_noisy_is_the_papers_noise():
    method = config_of("--noisy", "--noisy_ratio", "0.4", "--noisy_sigma", "0.1").method
    assert method == MethodConfig(name="noisy_teacher", params={"alpha": 0.4, "sigma": 0.1})


def test_to_config_depends_on_its_arguments_alone(tmp_path, monkeypatch):
    before = config_of("--KD")
    (tmp_path / "teacher.npy").write_bytes(b"")
    (tmp_path / "student.npy").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert config_of("--KD") == before


@pytest.mark.parametrize("lamda", ["-0.1", "1.5"])
def test_to_config_refuses_impossible_lamda(lamda):
    with pytest.raises(UsageError, match=r"--lamda must lie between 0 and 1"):
        config_of("--KD", f"--lamda={lamda}")


def test_notes_name_given_options_without_effect():
    assert notes_of("--task", "train") == []
    (note,) = notes_of("--dropout", "0.5")  # the default, but spelt out
    assert note.startswith("--dropout has no effect")
    assert notes_of("--tau", "3", "--noisy", "--noisy_ratio", "0.5") == ["--tau has no effect without --KD"]
    assert notes_of("--KD", "--noisy_sigma=0.1") == ["--noisy_sigma has no effect without --noisy"]
    assert notes_of("--KD", "--lamda", "0.3", "--tau", "3") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "train", "--model", "x", "--noisy", "--KD"], "only one method can be selected, noisy or KD"),
        (["--task", "val", "--noisy", "--KD"], "only one method can be selected, noisy or KD"),
        (["--task", "fly"], "task should be train, test, or val"),
        (["--model", "x"], "task should be train, test, or val"),
        (["--task", "train"], "--task train needs the folder to train into: --model PATH"),
        (["--task", "test"], "--task test needs a trained student: --model PATH"),
        (["--task", "train", "--model", "x", "--epoch", "0"], "epochs must be"),
        (["--task", "train", "--model", "x", "--batchsize", "0"], "--batch-size must be"),
        (["--task", "train", "--model", "x", "--lr", "-1"], "lr must be"),
    ],
)
def test_main_refuses_in_one_line_with_exit_1(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert classic.main(arguments) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_main_leaves_wrong_options_to_argparse(capsys):
    with pytest.raises(SystemExit) as caught:
        classic.main(["--task", "train", "--temperature", "3"])
    assert caught.value.code == 2
    assert "unrecognized arguments: --temperature" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted("saved", 143), 143, "saved"),
        (OSError("disk"), 1, "disk"),
    ],
)
def test_main_turns_exceptions_into_a_line_and_a_code(raised, code, text, monkeypatch, capsys):
    def fail(*_):
        raise raised

    monkeypatch.setattr(classic, "_run", fail)
    assert classic.main(["--task", "val"]) == code
    assert capsys.readouterr().err == f"teacher-student.py: error: {text}\n"


def test_script_without_arguments_prints_help_and_exits_1(tmp_path):
    command = [sys.executable, "-X", "importtime", str(ROOT / "teacher-student.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert all(name in done.stdout for name in DEFAULTS)
    assert " torch\n" not in done.stderr  # help is instant


def test_only_classic_knows_the_historic_names():
    names = ("lamda", "noisy_ratio", "noisy_sigma", "batchsize")
    package = ROOT / "src" / "model_compression"
    knowing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(name in path.read_text() for name in names)
    }
    assert knowing == {"classic/command_line.py"}
