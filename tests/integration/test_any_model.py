"""Networks of libraries and of one's own code, as students and teachers, through whole runs and the commands after."""

import dataclasses
import json
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import model_compression as mc
from model_compression.cli.main import main
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import Interrupted, UsageError, WeightsMismatchError
from model_compression.core.optim_config import OptimConfig
from model_compression.engine.runs import resume_run, start_run
from model_compression.models.external import External
from model_compression.models.loading import load_model
from model_compression.models.weights import read_header

NETS = """
from torch import nn

def teacher(num_classes=10):
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(6, num_classes))
"""
CONFIG = TrainConfig(
    student=ModelConfig(name="timm:test_resnet"),
    teacher=ModelConfig(name="nets_here:teacher", weights="own.pt"),
    method=MethodConfig(name="kd"),
    data=DataConfig(name="synthetic", validation=900),
    optim=OptimConfig(lr=1e-3),
    epochs=1,
    batch_size=25,
    precision="fp32",
    device="cpu",
    allow_weak_teacher=True,
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with nets_here.py, and own.pt, weights for its teacher."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_here.py").write_text(NETS)
    torch.manual_seed(0)
    torch.save({"epoch": 1, "net": load_model("nets_here:teacher").body.state_dict()}, "own.pt")
    yield tmp_path
    sys.modules.pop("nets_here", None)


def test_run_of_a_timm_student_and_an_own_teacher_serves_all_commands(place, capsys):
    metrics = start_run(CONFIG, "run")
    header = read_header("run/student.safetensors")
    assert (header["model"], header["options"]) == ("timm:test_resnet", {"num_classes": 10})
    command = "test --model run --data synthetic --split train --device cpu --precision fp32 --json"
    assert main(command.split()) == 0
    whole = json.loads(capsys.readouterr().out)["accuracy"]  # of 1,000 images, of which 900 were for validation
    assert whole == pytest.approx(metrics["validation_accuracy"], abs=0.1)
    assert main(["features", "run", "--json"]) == 0
    names = [layer["name"] for layer in json.loads(capsys.readouterr().out)["layers"]]
    assert "layer1" in names  # as in the module, and as --pairs takes them
    again = dataclasses.replace(
        CONFIG,
        student=ModelConfig(name="run"),
        teacher=ModelConfig(name="run"),
        method=MethodConfig(name="at", pairs={"layer2": "layer2"}),
    )
    metrics = start_run(again, "later")
    assert metrics["teacher_agreement"] > 0
    assert read_header("later/student.safetensors")["model"] == "timm:test_resnet"


def test_pack_keeps_what_builds_a_network_of_others_again(place, capsys):
    student, data = ModelConfig(name="nets_here:teacher"), DataConfig(name="synthetic")
    start_run(dataclasses.replace(CONFIG, student=student, data=data, batch_size=500), "run")
    assert main(["pack", "run", "--out", "small.safetensors", "--json"]) == 0
    packed = json.loads(capsys.readouterr().out)["test_accuracy"]
    assert main(["test", "--model", "small.safetensors", "--data", "synthetic", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == packed


def test_interrupted_run_with_networks_of_others_resumes_to_the_same_bits(place, watcher):
    config = dataclasses.replace(
        CONFIG, epochs=2, data=DataConfig(name="synthetic", validation=940, augmentation="flip")
    )
    start_run(config, "whole")
    with pytest.raises(Interrupted):
        start_run(config, "parts", watcher(stop_after=(4,)))
    resume_run("parts")
    for name in ("student.safetensors", "events.jsonl"):
        assert (place / "parts" / name).read_bytes() == (place / "whole" / name).read_bytes()


def test_own_weights_teach_as_the_same_module_does(place):
    network = load_model("nets_here:teacher", weights="own.pt").body
    named = mc.distill("nets_here:teacher", "lenet", "synthetic", teacher_weights="own.pt", epochs=1, config=CONFIG)
    given = mc.distill(network, "lenet", "synthetic", epochs=1, config=CONFIG)
    filled = mc.distill(
        nn.Sequential(*load_model("nets_here:teacher", seed=9).body), "lenet", "synthetic", teacher_weights="own.pt",
        epochs=1, config=CONFIG,
    )  # fmt: skip
    for result in (given, filled):
        for name, tensor in result.student.state_dict().items():
            assert torch.equal(tensor, named.student.state_dict()[name])


def test_teacher_and_student_of_other_sizes_and_normalisations_see_the_same_view(place):
    """What each network is given, with its normalisation undone and scaled, is one and the same picture."""
    seen = {}

    def note(module, inputs):
        if isinstance(module, External):
            seen.setdefault(module.name, []).append(inputs[0].detach().clone())

    teacher = ModelConfig(
        name="nets_here:teacher", weights="own.pt", mean=(0.1, 0.2, 0.3), std=(2, 3, 4), size=(20, 24)
    )
    data = DataConfig(name="synthetic", validation=950, augmentation="flip_shift")
    config = dataclasses.replace(CONFIG, teacher=teacher, data=data, teacher_cache="off", epochs=2)
    handle = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        start_run(config, "run")
    finally:
        handle.remove()
    given = load_model("run").preprocessing
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (given.mean, given.std))
    batches = [batch * std + mean for batch in seen["timm:test_resnet"] if len(batch) == 25][:4]
    answered = [batch for batch in seen["nets_here:teacher"] if len(batch) == 25][:4]
    assert len(batches) == len(answered) == 4
    assert not torch.equal(batches[0], batches[2])
    for batch, other in zip(batches, answered, strict=True):
        restored = other * torch.tensor([2.0, 3.0, 4.0]).view(3, 1, 1) + torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
        scaled = F.interpolate(batch, (20, 24), mode="bilinear", antialias=True)
        assert restored.shape[2:] == (20, 24)
        torch.testing.assert_close(restored, scaled, rtol=0, atol=1e-4)


DISTILL = ["distill", "--data", "synthetic", "--teacher", "nin-cifar10", "--out", "run"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--teacher", "timm:test_resnet"],
            "or weights for it: the option pretrained=true, or a file",
        ),
        (["--teacher", "resnet20", "--teacher-weights", "no.pt"], "no.pt is not there; expected a weights file"),
        (
            ["--teacher-weights", "own.pt"],
            "are for a network that is built anew, as resnet20; 'nin-cifar10' has its own",
        ),
        (
            ["--teacher", "lenet", "--teacher-weights", "own.pt"],
            "own.pt does not fit the model: they have no name in common: conv1.weight: missing, ",
        ),
        (
            ["--teacher", "a,b", "--teacher-size", "8"],
            "weights, mean, std and size belong to one teacher; 'a,b' names 2",
        ),
        (
            ["--teacher-mean", "0.5,0.5,x"],
            "--teacher-mean must be numbers with commas between them, as 0.5,0.5,0.5, got",
        ),
        (["--teacher-mean", "0.5,0.5,0.5"], "mean and std of nin-cifar10 go together"),
        (["--student-size", "8,8,8"], "--student-size must be H,W or one side of a square, in pixels, got '8,8,8'"),
        (["--student-size", "0"], "--student-size must be H,W or one side"),
        (["--student", "timm:test_resnte"], "unknown timm model 'test_resnte'; did you mean "),
        (["--student", "nets_here:techer"], "unknown attribute of nets_here: 'techer'; did you mean 'teacher'"),
        (["--student", "timm:test_vit", "--student-option", "img_size=33"], "Input height (33) should be div"),
    ],
)
def test_wrong_networks_are_named_before_anything_is_written(place, capsys, arguments, message):
    before = set(place.iterdir())
    assert main([*DISTILL, *arguments]) in (1, 2)
    shown = capsys.readouterr().err.splitlines()[-1]
    assert message in shown
    assert {path for path in place.iterdir() if path.name != "__pycache__"} == before


def test_options_of_the_command_line_become_the_configuration(place, capsys):
    from model_compression.cli import distill
    from model_compression.cli.distill import distill_config
    from model_compression.cli.main import Parser

    parser = Parser()
    distill.configure(parser)
    arguments = "--teacher a:b --teacher-option width=3 --teacher-weights w.pt#ema --teacher-mean 0.1,0.2,0.3"
    arguments += " --teacher-std 1,1,1"
    arguments += " --teacher-size 20,24 --student-weights s.pt --student-size 16 --allow-weak-teacher"
    config = distill_config(parser.parse_args(arguments.split()))
    assert config.teacher == ModelConfig(
        name="a:b", options={"width": 3}, weights="w.pt#ema", mean=[0.1, 0.2, 0.3], std=[1, 1, 1], size=[20, 24]
    )
    assert config.student == ModelConfig(name="lenet", weights="s.pt", size=[16, 16])
    assert config.allow_weak_teacher


def test_student_goes_on_from_own_weights(place):
    student = ModelConfig(name="nets_here:teacher", weights="own.pt")
    config = dataclasses.replace(CONFIG, student=student, optim=OptimConfig(optimizer="sgd", lr=1e-12, momentum=0.0))
    start_run(config, "run")
    expected = torch.load("own.pt", weights_only=True)["net"]
    for name, tensor in load_model("run").body.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])


def test_stored_answers_of_an_own_teacher_are_found_and_checked(place, capsys):
    for run in ("a", "b"):
        start_run(CONFIG, run)
    assert main(["cache", "check", "--device", "cpu"]) == 0, capsys.readouterr().out
    assert main(["cache", "info", "--json"]) == 0
    (store,) = json.loads(capsys.readouterr().out.splitlines()[-1])["stores"]
    assert store["teacher"] == "nets_here:teacher"


def test_weak_teacher_stops_a_run_before_its_folder_unless_it_is_allowed(place):
    config = dataclasses.replace(CONFIG, data=DataConfig(name="synthetic"), allow_weak_teacher=False)
    with pytest.raises(UsageError, match=r"the teacher nets_here:teacher .*allow_weak_teacher=True .*goes on"):
        start_run(config, "run")
    assert not (place / "run").exists()


def test_hf_teacher_without_a_processor_asks_for_its_normalisation(place):
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=10)).save_pretrained("vit")
    config = dataclasses.replace(CONFIG, teacher=ModelConfig(name="hf:vit"), student=ModelConfig(name="lenet"))
    with pytest.raises(UsageError, match="hf:vit does not say how its images are normalised"):
        start_run(config, "run")
    teacher = ModelConfig(name="hf:vit", mean=[0.5] * 3, std=[0.5] * 3, size=[16, 16])
    assert start_run(dataclasses.replace(config, teacher=teacher), "run")["epochs"] == 1


def test_own_weights_of_another_number_of_classes_name_the_layer(place):
    config = dataclasses.replace(CONFIG, teacher=ModelConfig(name="nets_here:teacher", weights="three.pt"))
    torch.save(load_model("nets_here:teacher", {"num_classes": 3}).body.state_dict(), "three.pt")
    with pytest.raises(WeightsMismatchError, match=r"4.weight: found \(3, 6\), expected \(10, 6\); 4.bias"):
        start_run(config, "run")
