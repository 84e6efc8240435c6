"""Nothing in a file runs: every kind of file that a command reads, in every command, with a payload that leaves traces.

Your own code still works through every door: named in the command, in your own run, with --trust.
"""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import model_compression
from model_compression.cli.main import COMMANDS, main
from model_compression.core import trust
from model_compression.core.checksummed import seal
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import to_dict, to_json
from model_compression.core.config_values import from_dict
from model_compression.core.data_config import DataConfig
from model_compression.distillation.methods.base import METHODS
from model_compression.engine.runs import check_run
from model_compression.experiments.processes import RunError, run_isolated
from model_compression.models.preprocessing import Preprocessing
from model_compression.models.weights import FORMAT

PAYLOAD = """
from pathlib import Path
from torch import nn
Path("pwned").touch()

class Net(nn.Sequential):
    def __init__(self, num_classes=3):
        Path("pwned").touch()
        super().__init__(nn.Flatten(), nn.Linear(192, num_classes))

def build(num_classes=3):
    return Net(num_classes)
"""


class Touch:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("pwned"),)


def weights(path, model, options=()):
    header = {"format": FORMAT, "model": model, "options": dict(options), "facts": {"test_accuracy": 0.9}}
    header["preprocessing"] = Preprocessing().to_dict()
    # Digests that are right: anybody can write them.
    path.write_bytes(seal({"1.weight": torch.zeros(3, 192), "1.bias": torch.zeros(3)}, "model_compression", header))


def run_folder(folder, config, finished):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "environment.json").write_text("{}")
    (folder / "events.jsonl").touch()
    (folder / "timing.jsonl").touch()
    weights(folder / "student.safetensors", "payload:Net")
    if finished:
        (folder / "metrics.json").write_text(json.dumps({"test_accuracy": 0.9, "seconds": 1.0, "epochs": 1, "seed": 0}))
        answers = {"student_logits": torch.eye(3), "targets": torch.arange(3), "teacher_logits": torch.eye(3)}
        save_file(answers, folder / "predictions.safetensors")


def hostile_files(here, config):
    """Writes one of each kind, and returns their names."""
    (here / "payload.py").write_text(PAYLOAD)
    for name, model, options in [
        ("class", "payload:Net", ()),
        ("function", "payload:build", ()),
        ("system", "os:system", {"command": "touch pwned"}),
        ("popen", "subprocess:Popen", {"args": ["touch", "pwned"]}),
        ("program", "this.__main__:x", ()),
        ("pruned", "pruned", {"body": "payload:Net", "widths": {}}),
        ("factored", "factored", {"body": "payload:Net", "ranks": {}}),
        ("sparse", "sparse", {"body": "payload:Net"}),
        ("roundings", "quantization-aware", {"body": "class.safetensors"}),
        ("itself", "quantization-aware", {"body": "itself.safetensors"}),
        ("reused", "reused-classifier", {"body": "payload:Net", "teacher": "payload:Net"}),
        ("library", "hf:payload", {"config": {"model_type": "vit", "auto_map": {"AutoConfig": "payload.Net"}}}),
    ]:
        weights(here / f"{name}.safetensors", model, options)
    own = {"name": "payload:Net"}
    configs = {
        "student": {**config, "student": own},
        "teacher": {**config, "teacher": own},
        "options": {**config, "student": {"name": "os:system", "options": {"command": "touch pwned"}}},
        "method": {**config, "method": {"name": "kd+payload:Net"}},
        "data": {**config, "data": {"name": "payload:Net"}},
        "folder": {**config, "method": {"name": "folder:payload"}},
        "peers": {**config, "teacher": None, "peers": own},
        "body": {**config, "student": {"name": "pruned", "options": {"body": "payload:Net", "widths": {}}}},
        "file": {**config, "student": {"name": str(here / "class.safetensors")}},
        "weights": {**config, "student": {"name": "tiny", "weights": str(here / "evil.pt")}},
    }
    for name, values in configs.items():
        (here / f"{name}.json").write_text(json.dumps(values))
        run_folder(here / f"run-{name}", values, finished=False)
    run_folder(here / "run-finished", configs["student"], finished=True)
    stages = {
        "scheme": {"scheme": "self", "run": configs["student"], "generations": 2, "assistants": ""},
        "prune": {"model": str(here / "run-finished"), "run": configs["teacher"], "share": 0.5},
        "quantize": {"model": str(here / "run-finished"), "run": configs["method"]},
        "compress": {"run": configs["student"], "budget": {}},
    }
    for name, values in stages.items():
        (here / f"stages-{name}").mkdir()
        (here / f"stages-{name}" / f"{name}.json").write_text(json.dumps(values))
    (here / "store").mkdir()
    origin = {"teacher": "payload:Net", "teacher_config": own, "data": {"name": "tiny"}}
    print_ = {"precision": "float32", "tta": "none", "dtype": "fp16"}
    (here / "store" / "fingerprint.json").write_text(json.dumps({"fingerprint": print_, "origin": origin}))
    torch.save({"state_dict": Touch()}, here / "evil.pt")
    (here / "old.pth").write_bytes(pickle.dumps(Touch()))
    (here / "evil.npy").write_bytes(b"")
    np.save(here / "evil.npy", np.array(Touch(), dtype=object), allow_pickle=True)
    np.savez(here / "evil.npz", np.array(Touch(), dtype=object))
    (here / "evil.caffemodel").write_bytes(pickle.dumps(Touch()))
    (here / "evil.onnx").write_bytes(pickle.dumps(Touch()))
    torch.save(Touch(), here / "evil.pt2")
    for name in ("data_batch_1", "train"):  # CIFAR's files
        folder = here / f"cifar-{name}"
        folder.mkdir()
        (folder / name).write_bytes(pickle.dumps(Touch()))
    (here / "results").mkdir()
    record = {"arm": "kd", "config": configs["method"], "metrics": {}, "events": []}
    (here / "results" / "kd-seed0.json").write_text(json.dumps(record))
    return sorted(path.name for path in here.iterdir() if path.name != "payload.py")


# Command → calls of it that read the file F
CALLS = {
    "train": ["--student F", "--config F", "--student tiny --student-weights F"],
    "distill": ["--teacher F --student tiny", "--config F", "--teacher tiny --teacher-weights F --student tiny"],
    "resume": ["F"],
    "test": ["--model F", "--model tiny --weights F"],
    "prune": ["F --macs 0.5"],
    "quantize": ["F", "F --to half"],
    "compress": ["--config F", "--teacher F --student tiny"],
    "pack": ["F --out packed.safetensors"],
    "export": ["F --out out.onnx"],
    "verify": ["F --model F"],
    "predict": ["F F"],
    "measure": ["F --seconds 0.01 --batch-size 1"],
    "doctor": ["--teacher F --student tiny", "--config F"],
    "runs": ["F", "."],
    "compare": ["F F"],
    "push": ["F a/b --dry-run"],
    "demo": [],  # reads no file that it is given
    "compare-methods": ["--methods kd --teacher F --student tiny", "--methods kd --config F"],
    "reproduce": ["--arms kd --teacher F --epochs 1", "--arms kd --data-dir F --epochs 1"],
    "search": ["--teacher F --student tiny --validation 6", "--config F --validation 6"],
    "report": ["F", "."],
    "methods": [],
    "features": ["F"],
    "draw": ["F --out out.svg"],
    "data": ["cifar10 --data-dir F", "folder:F", "csv:F --task regression", "jsonl:F"],
    "embed": ["F --data synthetic --out out.parquet"],
    "cache": ["build --teacher F --student tiny", "build --config F", "info F", "check F"],
    "import": ["F --out out.safetensors"],
    "export-npy": ["F --out out.npy"],
}
FEW = ["class.safetensors", "run-finished", "hub:user/repo", "options.json", "method.json", "run-student", "evil.npy"]
FEW += ["stages-scheme", "stages-prune", "store", "evil.pt"]
SLOW = ("doctor", "data", "reproduce")  # whose calls take a second and more


def test_calls_are_of_every_command():
    assert CALLS.keys() == COMMANDS.keys()


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    """A folder with a hostile file of each kind, and their names."""
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, hostile_files(folder, {**json.loads(to_json(tiny.config("kd"))), "epochs": 1})


@pytest.fixture
def here(written, tmp_path, monkeypatch):
    """A working folder with copies of them, and a hub that has one too. Nothing is downloaded or started."""
    shutil.copytree(written[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("model_compression.models.weights.fetch", lambda name: tmp_path / "class.safetensors")

    def prepared(task, watch, stopped, **options):  # what a process of its own would do, in this one
        configs = [from_dict(TrainConfig, values) for values in task.get("configs", {}).values()]
        for config in configs:
            check_run(config)
        raise RunError("enough")

    monkeypatch.setattr("model_compression.experiments.executor.run_isolated", prepared)
    return tmp_path, [*written[1], "hub:user/repo"]


def data_of(command, words):
    """Options that keep a call small and away from the network; a configuration names its own data."""
    if "--config" in words:
        return []
    if command in ("train", "distill", "compress", "compare-methods", "search") or words[:1] == ["build"]:
        return ["--data", "tiny", "--epochs", "1", "--device", "cpu"]
    own = ("test", "prune", "quantize", "export", "verify", "pack", "doctor", "reproduce")
    return ["--data", "tiny"] if command in own else []


@pytest.mark.parametrize("few", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["few", "all"])
@pytest.mark.parametrize("command", CALLS)
def test_no_file_runs_code(command, few, here, capsys):
    folder, files = here
    for call in CALLS[command]:
        for name in files:
            if few and name not in (FEW[:2] if command in SLOW else FEW):
                continue
            words = [name if part == "F" else part.replace(":F", f":{name}") for part in call.split()]
            try:
                code = main([command, *words, *data_of(command, words)])
            except SystemExit as stop:
                code = stop.code
            said = capsys.readouterr().err
            assert code in (0, 1, 2), (words, said)
            assert not (folder / "pwned").exists(), f"model-compression {command} {' '.join(words)}"
            assert "payload" not in sys.modules, f"model-compression {command} {' '.join(words)}"


OWN = """
from torch import nn
from model_compression.distillation.methods.base import METHODS, Method, logit_pair

def small(num_classes=3):
    layers = [nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(12, num_classes))

@METHODS.register("squares")
class Squares(Method):
    default_weights = {"squares": 1.0}
    default_label_weight = 0.5

    def forward(self, student, teacher, targets, context=None):
        s, t = logit_pair(student, teacher)
        return {"squares": (s - t).square().mean()}
"""


def forget():
    """As in another process."""
    sys.modules.pop("own_things", None)
    METHODS._entries.pop("squares", None)


@pytest.fixture
def own(tiny, tmp_path, monkeypatch):
    """A working folder with own_things.py and what a command made of it: runs/own."""
    monkeypatch.chdir(tmp_path)
    Path("own_things.py").write_text(OWN)
    words = ["--teacher", str(tiny.teacher), "--student", "own_things:small", "--method", "own_things:squares"]
    short = ["--data", "tiny", "--epochs", "1", "--device", "cpu", "--batch-size", "5"]
    assert main(["distill", *words, *short, "--out", "runs/own"]) == 0
    forget()
    yield short
    forget()


DOORS = {
    "config": ["distill", "--config", "R/config.json", "--out", "out"],
    "teacher": ["distill", "--teacher", "R", "--student", "tiny", "--out", "out", "--data", "tiny", "--epochs", "1"],
    "test": ["test", "--model", "R"],
    "prune": ["prune", "R", "--macs", "0.5", "--steps", "1", "--epochs", "1", "--round-to", "1", "--out", "out"],
    "quantize": ["quantize", "R", "--to", "half", "--out", "out", "--max-drop", "100"],
    "export": ["export", "R", "--out", "out.onnx"],
    "measure": ["measure", "R", "--seconds", "0.01", "--batch-size", "1"],
    "features": ["features", "R", "--size", "8"],
}
FAST = ("config", "teacher", "test", "features")


@pytest.mark.parametrize(
    "door", [door if door in FAST else pytest.param(door, marks=pytest.mark.slow) for door in DOORS]
)
def test_own_code_works_in_a_run_of_ones_own_and_with_trust(door, own, tmp_path, monkeypatch, capsys):
    if door == "export":
        pytest.importorskip("onnxruntime")
    Path("runs/own").rename("moved")
    words = [part.replace("R", "moved") for part in DOORS[door]]
    assert main(words) == 0, capsys.readouterr().err
    shutil.rmtree("out", ignore_errors=True)
    Path("out.onnx").unlink(missing_ok=True)
    forget()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user's"))
    capsys.readouterr()
    assert main(words) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "names the code own_things:s" in said
    assert "--trust" in said
    assert "own_things" not in sys.modules
    assert main([*words, "--trust"]) == 0, capsys.readouterr().err
    assert "importing own_things:s" in capsys.readouterr().err


def test_own_code_is_refused_in_a_configuration_that_was_edited_until_it_is_named_again(own, capsys):
    path = Path("runs/own/config.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    call = ["distill", "--config", str(path), "--out", "out"]
    assert main(call) == 1
    assert "config.json names the code own_things:s" in capsys.readouterr().err
    assert "own_things" not in sys.modules
    assert main([*call, "--student", "own_things:small", "--method", "own_things:squares"]) == 0


@pytest.mark.slow
def test_processes_that_a_command_starts_follow_what_was_typed_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("own_things.py").write_text(OWN)
    data = DataConfig(name="synthetic")
    config = TrainConfig(student=ModelConfig(name="own_things:small"), data=data, epochs=1, device="cpu")
    task = {"task": "train", "config": to_dict(config), "folder": "run"}
    with trust.command([]), pytest.raises(RunError, match="names the code own_things:small"):
        run_isolated(task, lambda message: None, [])
    with trust.command(["--student", "own_things:small"]):
        assert run_isolated(task, lambda message: None, [])["metrics"]["epochs"] == 1


def test_modules_of_the_working_folder_do_not_stand_for_installed_ones(tmp_path):
    """Neither for the command nor for a process that it starts, as that which runs a stranger's ONNX file."""
    for path in Path(model_compression.__file__).parent.rglob("*.py"):
        for start in re.finditer(r"sys\.executable[\])]?[,(]+\s*[^\n]*", path.read_text()):
            assert '"-P", "-m"' in start[0] or '"-m"' not in start[0], path
    script = Path(sys.executable).parent / "model-compression"
    if not script.exists():
        pytest.skip("the package is not installed as a command here")
    for name in ("torch", "numpy", "json", "argparse", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text("open('RAN', 'w').close()\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(model_compression.__file__).parents[1])}
    for arguments in (["methods", "kd"], ["predict", "no.onnx", "no.png"], ["draw", "lenet"]):
        done = subprocess.run([script, *arguments], cwd=tmp_path, env=environment, capture_output=True, check=False)
        assert done.returncode in (0, 1, 2), done.stderr
        assert not (tmp_path / "RAN").exists()
