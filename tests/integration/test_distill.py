"""distill(): modules and arrays in the place of names, with the same result as the long way."""

import dataclasses
import gc
import itertools
import logging
import re
import signal
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import model_compression as mc
from model_compression.cli.main import main
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import from_json
from model_compression.core.errors import Interrupted, NumericalError, RunFolderError, UsageError, WeightsMismatchError
from model_compression.core.optim_config import OptimConfig
from model_compression.engine.runs import start_run
from model_compression.models.loading import read_model
from model_compression.models.weights import read_header, save_weights

CONFIG = TrainConfig(
    student=ModelConfig(name="x"),
    batch_size=5,
    precision="fp32",
    device="cpu",
    optim=OptimConfig(lr=1e-2),
    allow_weak_teacher=True,
)


class Own(nn.Module):
    """A network of someone's own: branches, and a dictionary as its answer."""

    def __init__(self, width=4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.branch = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 3)

    def forward(self, images):
        maps = self.stem(images).relu()
        maps = maps + self.branch(maps)
        return {"logits": self.head(maps.mean(dim=(2, 3)))}


@pytest.fixture
def arrays():
    """Pictures of three colours: training images and labels, test images and labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = rng.integers(0, 120, (90, 3, 8, 8), dtype=np.uint8)
    images[np.arange(90), labels] += 100
    return images[:60], labels[:60], images[60:], labels[60:]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Scaled(Own):
    """The tensors of its class, and something else that is in no file of weights."""

    def __init__(self, factor=None):
        super().__init__()
        factor = torch.rand(1) if factor is None else torch.tensor(factor)
        self.register_buffer("factor", factor, persistent=False)

    def forward(self, images):
        return super().forward(self.factor * images)


def hooked(own):
    own.head.register_forward_hook(lambda layer, inputs, output: output.flip(1))
    return own


def own(seed, width=4):
    torch.manual_seed(seed)
    return Own(width)


def test_distill_of_own_modules_on_arrays_learns_and_leaves_them_as_they_are(arrays, tmp_path):
    teacher, student = own(0, 6).train(), own(1)
    before = [tensor.clone() for model in (teacher, student) for tensor in model.state_dict().values()]
    result = mc.distill(teacher, student, arrays, method="kd", params={"temperature": 2.0}, epochs=12, config=CONFIG)
    after = [tensor for model in (teacher, student) for tensor in model.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert teacher.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert type(result.student) is Own
    assert not torch.equal(result.student.head.weight, student.head.weight)
    assert result.metrics["test_accuracy"] > 0.5  # though the teacher knows nothing, the labels count a tenth
    images, labels = torch.from_numpy(arrays[2]).float() / 255, torch.from_numpy(arrays[3])
    pixels = torch.from_numpy(arrays[0]).double() / 255
    mean, std = (getattr(pixels, name)(dim=(0, 2, 3)).float().view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        answers = result.student((images - mean) / std)["logits"].argmax(dim=1)
    assert result.metrics["test_accuracy"] == pytest.approx((answers == labels).double().mean().item())
    with torch.no_grad():
        again = result.student(result.preprocessing(arrays[2]))["logits"].argmax(dim=1)
    assert torch.equal(again, answers)
    assert (result.run_dir / "metrics.json").exists()
    loaded = mc.load_model(result.run_dir).state_dict()
    assert torch.equal(loaded["module.head.weight"], result.student.head.weight)


@pytest.mark.parametrize("teacher_cache", ["on", "off"])
def test_distill_has_each_image_on_the_device_once(arrays, uploads, teacher_cache):
    gc.collect()  # datasets of other tests, with these images
    settings = {"method": "kd", "augmentation": "flip", "teacher_cache": teacher_cache}
    mc.distill(own(0), own(1), arrays, epochs=2, config=CONFIG, **settings)
    assert sorted(name for name in uploads if "[" not in name) == ["arrays", "arrays-test"]  # the others are samples


def test_distill_takes_settings_by_name(arrays):
    settings = {
        "batch_size": np.int64(7),
        "lr": np.float64(3e-3),
        "augmentation": "flip",
        "device": "cpu",
        "allow_weak_teacher": True,
    }
    result = mc.distill(own(0), own(1), arrays, epochs=np.int32(1), **settings)
    config = from_json(TrainConfig, (result.run_dir / "config.json").read_text())
    assert (config.batch_size, config.optim.lr, config.data.augmentation) == (7, 3e-3, "flip")
    with pytest.raises(UsageError, match=r"unknown setting 'batchsize'; did you mean 'batch_size'"):
        mc.distill(own(0), own(1), arrays, batchsize=7)
    with pytest.raises(UsageError, match="out is an option of the command line; here it is run_dir"):
        mc.distill(own(0), own(1), arrays, out="runs/mine")


def test_student_that_its_name_does_not_build_is_said_to_be_so_before_training(arrays, watcher, caplog, capsys):
    seen, other = watcher(), watcher()
    mc.distill(own(0), own(1), arrays, epochs=1, config=CONFIG, observer=other)
    result = mc.distill(own(0), own(1, width=8), arrays, epochs=1, config=CONFIG, observer=seen)
    mc.distill(own(0), own(1, width=8), arrays, epochs=1, config=CONFIG)
    told = f"{__name__}:Own() without arguments does not build the student that you gave"
    assert [level for _, level, text in caplog.record_tuples if text.startswith(told)] == [logging.WARNING]
    assert len([text for text in seen.messages if text.startswith(told)]) == 1
    assert not [text for text in other.messages if "without arguments" in text]
    with pytest.raises(WeightsMismatchError, match="Name what builds it: load_model"):
        mc.load_model(result.run_dir)
    assert main(["measure", str(result.run_dir)]) == 1
    weights = result.run_dir / "student.safetensors"
    told = capsys.readouterr().err
    assert f"Name what builds it: --model mynets:build --weights {weights} for test and export; in Python load_" in told
    assert main(["resume", str(result.run_dir)]) == 0
    told = capsys.readouterr().out
    assert told.endswith(f": model_compression.distill(teacher, '{result.run_dir}', data, epochs=N)\n")
    network = mc.load_model(f"{__name__}:Own", {"width": 8}, weights=result.run_dir / "student.safetensors")
    assert torch.equal(network.body.head.weight, result.student.head.weight)


@pytest.mark.parametrize(
    "student", [lambda: Scaled(3.0), Scaled, lambda: hooked(own(1))], ids=["default", "drawn", "hook"]
)
def test_weights_of_a_student_that_computes_something_else_than_its_class_fill_no_other_network(arrays, student):
    result = mc.train(student(), arrays, epochs=1, config=CONFIG)
    with pytest.raises(WeightsMismatchError, match="Name what builds it: load_model"):
        mc.evaluate(result.run_dir, arrays)


def test_builder_of_another_network_at_each_call_is_refused_before_training(arrays):
    with pytest.raises(UsageError, match="Scaled builds a network that answers otherwise each time it is built"):
        mc.train(f"{__name__}:Scaled", arrays, epochs=1, config=CONFIG)


def test_distill_compares_features_by_the_modules_own_names(arrays, watcher):
    seen = watcher()
    mc.distill(own(0, 6), own(1), arrays, method="fitnet", epochs=1, config=CONFIG, observer=seen)
    assert seen.messages[0] == "features that are compared, student = teacher: branch = branch"


def test_distill_by_names_is_the_run_of_the_command_line(tiny, tmp_path, watcher):
    config = tiny.config("kd")
    mc.start_run(config, tmp_path / "long")
    result = mc.distill(str(tiny.teacher), "tiny", "tiny", epochs=3, run_dir=tmp_path / "short", config=config)
    for name in ("student.safetensors", "events.jsonl"):
        assert (tmp_path / "long" / name).read_bytes() == (tmp_path / "short" / name).read_bytes()
    expected = read_model(tmp_path / "long" / "student.safetensors").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in result.student.state_dict().items())


def test_distill_says_what_it_cannot_take(arrays, tmp_path):
    with pytest.raises(UsageError, match=r"a network must be a name or a torch.nn.Module, got a dict"):
        mc.distill({}, "lenet", arrays)
    with pytest.raises(
        UsageError, match=r"data has 3 parts \(ndarray, ndarray, ndarray\); expected a name, as 'folder:photos', a pair"
    ):
        mc.distill(own(0), own(1), arrays[:3])
    with pytest.raises(UsageError, match=r"the student answers with 3 classes, but the data \(arrays\) have 4"):
        mc.distill(own(0), own(1), (*arrays[:3], arrays[3] + 1), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"params": [("temperature", 2.0)]}, "params must be a dictionary of the method's parameters"),
        ({"params": {1: 2.0}}, "the names in params must be texts, got {1: 2.0}"),
        ({"config": {"epochs": 3}}, "config must be a TrainConfig, got {'epochs': 3}"),
        ({"observer": print}, "a builtin_function_or_method lacks started, stepped, epoch_done"),
        ({"method": ["kd"]}, "method must be a name, as 'kd', or a MethodConfig, got"),
        ({"method": mc.MethodConfig(name="kd"), "params": {"temperature": 2.0}}, "params are given twice"),
        ({"epochs": 2.0}, "epochs must be an integer, got 2.0"),
        ({"seed": True}, "seed must be an integer, got True"),
        ({"run_dir": 7}, "run_dir must be the path of a folder, got 7"),
        ({"resume": 1}, "resume must be True or False, got 1"),
        ({"resume": True}, "resume needs the run_dir of the run that is to go on"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_of_another_type_are_said_to_be(arrays, argument, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        mc.distill(own(0), own(1), arrays, **argument)


def test_distill_takes_a_method_with_its_weights(arrays):
    method = mc.MethodConfig(name="kd,at", weights={"at": 10.0}, label_weight=0.0, pairs={"stem": "branch"})
    result = mc.distill(own(0, 6), own(1), arrays, method=method, epochs=1, config=CONFIG)
    assert from_json(TrainConfig, (result.run_dir / "config.json").read_text(), "config").method == method
    assert str(result.run_dir) == "runs/arrays-Own-kd-at-1"


def test_distill_runs_in_numbered_folders_and_leaves_none_when_it_fails(arrays, tmp_path):
    with pytest.raises(UsageError, match="unknown method 'kdd'"):
        mc.distill(own(0), own(1), arrays, method="kdd")
    assert list(tmp_path.iterdir()) == []
    folders = [mc.distill(own(0), own(1), arrays, epochs=1, config=CONFIG).run_dir for _ in range(2)]
    assert list(map(str, folders)) == ["runs/arrays-Own-kd-1", "runs/arrays-Own-kd-2"]
    assert all((tmp_path / folder / "student.safetensors").exists() for folder in folders)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, u, v: (x / 255, y, u, v), "training images are float64 of shape .*; expected uint8"),
        (
            lambda x, y, u, v: (x[:, 0], y, u, v),
            "training images are uint8 of shape .60, 8, 8.; expected uint8 .N, C, H",
        ),
        (
            lambda x, y, u, v: (x, y + 0.5, u, v),
            "the student answers two images with .2, 3.; expected 1 number for each",
        ),
        (
            lambda x, y, u, v: (x, y, u, v[:3]),
            "test labels are int64 of shape .3,.; expected class numbers or names .30,.",
        ),
        (lambda x, y, u, v: (x, y, u[:, :1], v), "training images have 3 channels, test images 1"),
        (lambda x, y, u, v: (x[:1], y[:1], u, v), "at least two images"),
        (lambda x, y, u, v: 5, "data is a int; expected a name, as 'folder:photos', a pair"),
    ],
)
def test_arrays_that_are_something_else_are_named(arrays, change, message):
    with pytest.raises(UsageError, match=message):
        mc.distill(own(0), own(1), change(*arrays))


def test_network_is_not_measured_on_its_classes_in_another_order(tiny, tmp_path, capsys):
    start_run(tiny.config(epochs=1), tmp_path / "run")
    assert read_header(tmp_path / "run" / "student.safetensors")["facts"]["class_names"] == ["a", "b", "c"]
    rng = np.random.default_rng(0)
    for split, name in itertools.product(("train", "test"), "abc"):
        folder = tmp_path / "photos" / split / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    command = ["test", "--model", str(tmp_path / "run"), "--data", f"folder:{tmp_path / 'photos'}"]
    assert main(command) == 0
    assert main(["pack", str(tmp_path / "run"), *command[3:], "--out", str(tmp_path / "small.safetensors")]) == 0
    path = tmp_path / "run" / "student.safetensors"
    network = read_model(path)
    save_weights(path, network, facts={"class_names": ["b", "a", "c"]})
    (tmp_path / "run" / "manifest.json").unlink()  # as in a run of an earlier version
    capsys.readouterr()
    assert main(command) == 2
    expected = "the model has its classes in another order than photos-test: its class 0 is 'b', the data's 'a'; bring"
    assert expected in capsys.readouterr().err


def test_settings_without_effect_on_objects_are_refused(arrays):
    for name, value in (("image_size", 16), ("data_dir", "photos")):
        with pytest.raises(UsageError, match=f"{name} {value!r} has no effect on data that are given as objects"):
            mc.distill(own(0), own(1), arrays, config=CONFIG, **{name: value})


def test_networks_that_answer_something_else_are_named(arrays, tmp_path):
    class Flat(Own):
        def forward(self, images):
            return super().forward(images)["logits"][:, 0]

    with pytest.raises(UsageError, match=r"the student answers two images with \(2,\); expected logits \(2, classes\)"):
        mc.distill(own(0), Flat(), arrays, run_dir=tmp_path / "run")
    nan = own(0)
    nan.head.bias.data.fill_(float("nan"))
    with pytest.raises(NumericalError, match="the teacher answers with NaN or infinity"):
        mc.distill(nan, own(1), arrays, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_method_that_needs_no_teacher_runs_without_and_not_with_one(tiny, tmp_path, watcher):
    config = tiny.config("tf_kd")
    with pytest.raises(UsageError, match="method 'tf_kd' makes up its own teacher; leave the other one out"):
        start_run(config, tmp_path / "run")
    config = dataclasses.replace(config, teacher=None)
    seen = watcher()
    metrics = start_run(config, tmp_path / "run", seen)
    assert set(seen.events[0]["terms"]) == {"label", "tf_kd"}
    assert "teacher_agreement" not in metrics
    result = mc.distill(None, "tiny", "tiny", method="tf_kd", epochs=3, config=tiny.config(), run_dir=tmp_path / "b")
    assert {**result.metrics, "seconds": 0} == {**metrics, "seconds": 0}
    with pytest.raises(UsageError, match="method 'kd' needs a teacher; name one, or train on labels only"):
        start_run(dataclasses.replace(tiny.config("kd"), teacher=None), tmp_path / "c")
    assert not (tmp_path / "c").exists()


class Stopping:
    """Stops the run it watches in its second epoch, as Ctrl-C would."""

    def __getattr__(self, name):
        return lambda *args: None

    def stepped(self, progress):
        if progress.epoch == 1:
            signal.raise_signal(signal.SIGINT)


def test_run_on_objects_goes_on_from_python_and_says_so(arrays, tmp_path, capsys):
    def run(folder, **options):
        return mc.distill(own(0), own(1), arrays, epochs=3, config=CONFIG, run_dir=tmp_path / folder, **options)

    expected = run("whole")
    with pytest.raises(Interrupted) as stop:
        run("stopped", observer=Stopping())
    way_on = f"model_compression.distill(..., run_dir={str(tmp_path / 'stopped')!r}, resume=True)"
    assert str(stop.value).endswith(f"continue with: {way_on}")
    with pytest.raises(RunFolderError, match=re.escape(f"continue that run with: {way_on}")):
        run("stopped")
    other = (*arrays[:2], 255 - arrays[2], arrays[3])
    with pytest.raises(RunFolderError, match=r"the test data of .* has changed since its state was saved"):
        mc.distill(own(0), own(1), other, epochs=3, config=CONFIG, run_dir=tmp_path / "stopped", resume=True)
    with pytest.raises(RunFolderError, match=r"another configuration \(data.augmentation none there, flip here\)"):
        run("stopped", resume=True, augmentation="flip")
    assert main(["resume", str(tmp_path / "stopped")]) == 2
    assert f"the network {__name__}:Own was given from Python as an object" in capsys.readouterr().err
    result = run("stopped", resume=True)
    assert torch.equal(result.student.head.weight, expected.student.head.weight)
    assert {**result.metrics, "seconds": 0} == {**expected.metrics, "seconds": 0}


def test_run_on_objects_is_tested_on_data_that_are_named(arrays, tmp_path, capsys):
    run = mc.distill(own(0), own(1), arrays, epochs=1, config=CONFIG).run_dir
    assert main(["test", "--model", str(run)]) == 2
    assert "the data 'arrays' was given from Python as an object, which no name brings" in capsys.readouterr().err
    assert main(["test", "--model", str(run), "--data", "synthetic"]) == 2
    assert "the model answers with 3 classes, but the data (synthetic-test) have" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("progress", "terminal", "shown"), [(None, False, 0), (None, True, 2), (True, False, 2), (False, True, 0)]
)
def test_progress_is_shown_where_somebody_looks(progress, terminal, shown, arrays, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    mc.distill(own(0), own(1), arrays, epochs=2, config=CONFIG, progress=progress)
    out, error = capsys.readouterr()
    assert (out, len(re.findall(r"epoch +\d/2  loss", error))) == ("", shown)


def test_names_are_offered_and_two_methods_have_two_spellings():
    assert set(mc.__all__) <= set(dir(mc))
    assert type(mc.create_method("kd+at")) is type(mc.create_method("kd,at"))
    assert mc.MethodConfig(name="kd+at") == mc.MethodConfig(name="kd,at")
