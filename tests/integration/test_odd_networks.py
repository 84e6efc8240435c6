"""Networks as their users have them: whatever a teacher or student is, it serves, or one line says why not."""

import dataclasses
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.data import DataLoader, TensorDataset

import model_compression as mc
from model_compression.cli.main import main
from model_compression.compression.channels import cost_of
from model_compression.compression.groups import smallest
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import Interrupted, UsageError, WeightsMismatchError
from model_compression.core.optim_config import OptimConfig
from model_compression.data.hold_out import hold_out
from model_compression.engine.runs import resume_run, start_run
from model_compression.engine.teachers import load_data
from model_compression.models.external import has_lazy
from model_compression.models.factored import as_factored
from model_compression.models.loading import build_named, load_model
from model_compression.models.prediction import predict
from model_compression.models.quantization_aware import rounded_weight
from model_compression.models.weights import save_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*torch.ao.quantization", "ignore:.*weight_norm")
CONFIG = TrainConfig(
    student=ModelConfig(name="odd_nets:Tied"),
    data=DataConfig(name="synthetic", validation=900),
    optim=OptimConfig(lr=1e-2),
    epochs=2,
    batch_size=25,
    precision="fp32",
    device="cpu",
)
NETS = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4)
        self.one, self.two, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, num_classes)
        self.two.weight = self.one.weight
        self.mix = self.again = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, images):
        maps = self.again(self.mix(self.stem(images).relu()).relu()).relu()
        return self.head(self.two(self.one(maps.mean((2, 3))).relu()).relu())

class Lazy(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.stem, self.norm = nn.LazyConv2d(8, 3, stride=4), nn.LazyBatchNorm2d()
        self.head = nn.LazyLinear(num_classes)

    def forward(self, images):
        return self.head(self.norm(self.stem(images)).relu().flatten(1))

class Late(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.stem, self.head, self.num_classes = nn.Conv2d(3, 8, 3, stride=4), None, num_classes

    def forward(self, images):
        maps = self.stem(images).relu().flatten(1)
        if self.head is None:
            self.head = nn.Linear(maps.shape[1], self.num_classes)
        return self.head(maps)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with odd_nets.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_nets.py").write_text(NETS)
    yield tmp_path
    sys.modules.pop("odd_nets", None)


@pytest.fixture(scope="module")
def arrays():
    """Images whose red channel says which of 3 classes they are."""
    labels = np.arange(60) % 3
    images = np.random.default_rng(0).integers(0, 60, (60, 3, 8, 8), dtype=np.uint8)
    images[:, 0] += (labels * 60).astype(np.uint8)[:, None, None]
    return images, labels, images[:30], labels[:30]


def net(width=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))


def test_tied_weights_are_trained_saved_resumed_and_tested(place, watcher, capsys):
    start_run(CONFIG, "whole")
    with pytest.raises(Interrupted):
        start_run(CONFIG, "stopped", watcher(stop_after=[5]))
    resume_run("stopped")
    assert Path("stopped/student.safetensors").read_bytes() == Path("whole/student.safetensors").read_bytes()
    body = load_model("whole").body
    assert body.one.weight is body.two.weight
    assert body.mix is body.again
    assert not torch.equal(body.one.weight, build_named("odd_nets:Tied", {}, CONFIG.seed).body.one.weight)
    for command in (
        "test --model whole --data synthetic",
        "export whole --out whole.onnx",
        "pack whole --out half.safetensors",
    ):
        assert main(command.split()) == 0, capsys.readouterr().err


def test_tied_weights_stay_tied_when_a_network_is_made_smaller(place):
    network = build_named("odd_nets:Tied", {}, 0)
    with pytest.raises(UsageError, match=r"no channels .* \(tied weights: module.one.weight = module.two.weight"):
        smallest(network, (3, 32, 32), 4)
    network.body.one.weight = network.body.two.weight = nn.Parameter(torch.rand(400, 400))
    assert as_factored(network) is network


def test_tied_weights_are_rounded_in_each_layer_that_has_them(place):
    save_weights("tied.safetensors", build_named("odd_nets:Tied", {}, 0))
    aware, images = (
        build_named("quantization-aware", {"body": "tied.safetensors"}, 0).eval(),
        torch.rand(4, 3, 32, 32),
    )
    plain = load_model("tied.safetensors").eval().body
    with torch.no_grad():
        for weight in {id(one): one for one in plain.parameters() if one.ndim > 1}.values():
            weight.copy_(rounded_weight(weight))
        torch.testing.assert_close(aware(images), plain(images))  # no range has been seen: inputs are not rounded


class Answers(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = net(), wrap

    def forward(self, images):
        return self.wrap(self.net(images))


class Double(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net().double()

    def forward(self, images):
        return self.net(images.double())


def changed(how):
    module = net()
    how(module[0])
    module(torch.rand(2, 3, 8, 8))  # its weight is now the result of a computation
    return module


def quantized():
    engine = next(
        name for name in ("onednn", "x86", "fbgemm", "qnnpack") if name in torch.backends.quantized.supported_engines
    )
    torch.backends.quantized.engine = engine
    module = nn.Sequential(torch.ao.quantization.QuantStub(), *net().eval(), torch.ao.quantization.DeQuantStub())
    module.qconfig = torch.ao.quantization.get_default_qconfig(engine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.ao.quantization.prepare(module, inplace=True)
        module(torch.rand(4, 3, 8, 8))
        return torch.ao.quantization.convert(module)


def remembering():
    module = Answers(lambda logits: logits)
    module.register_forward_hook(lambda module, images, logits: setattr(module, "last", logits))
    module(torch.rand(2, 3, 8, 8))
    return module


_OTHER_PROCESSORS = pytest.mark.filterwarnings("ignore:Default qconfig of oneDNN")  # which lack an instruction


TEACHERS = {
    "weight_norm": lambda: changed(torch.nn.utils.weight_norm),
    "spectral_norm": lambda: changed(torch.nn.utils.spectral_norm),
    "pruned": lambda: changed(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "parametrised": lambda: changed(parametrizations.weight_norm),
    "scripted": lambda: torch.jit.script(net().eval()),
    "traced": lambda: torch.jit.trace(net().eval(), torch.rand(2, 3, 8, 8)),
    "frozen script": lambda: torch.jit.freeze(torch.jit.script(net().eval())),
    "compiled": lambda: torch.compile(net(), backend="eager"),
    "DataParallel": lambda: nn.DataParallel(net()),
    "frozen": lambda: net().requires_grad_(False),
    "float64": lambda: net().double(),
    "bfloat16": lambda: net().bfloat16(),
    "float64 inside": Double,
    "quantised": quantized,
    "remembers its answer": remembering,
    "logits": lambda: Answers(lambda logits: {"logits": logits, "aux": 2 * logits}),
    "mapping of one": lambda: Answers(lambda logits: {"out": logits}),
    "tuple": lambda: Answers(lambda logits: (logits, 2 * logits)),
    "maps of one pixel": lambda: Answers(lambda logits: logits[:, :, None, None]),
    "inference mode": lambda: Answers(torch.inference_mode()(lambda logits: logits * 1)),
    "NumPy": lambda: Answers(lambda logits: torch.from_numpy(logits.detach().numpy())),
}  # fmt: skip


@_OTHER_PROCESSORS
@pytest.mark.parametrize("kind", TEACHERS)
def test_teachers_of_all_kinds_are_called_and_stay_as_they_are(arrays, tmp_path, kind):
    teacher = TEACHERS[kind]()
    mode, learning = getattr(teacher, "training", None), [one.requires_grad for one in teacher.parameters()]
    run = mc.distill(
        teacher, net(2), arrays, epochs=1, batch_size=20, run_dir=tmp_path / "run", device="cpu", precision="bf16",
        allow_weak_teacher=True,
    )  # fmt: skip
    assert [one.requires_grad for one in teacher.parameters()] == learning
    assert getattr(teacher, "training", None) == mode
    pixels = torch.from_numpy(arrays[2])
    with torch.no_grad():
        teacher if kind == "frozen script" else teacher.eval()
        shown = run.preprocessing(pixels).to({"float64": torch.float64, "bfloat16": torch.bfloat16}.get(kind))
        answer = teacher(shown)
    answer = (
        answer
        if isinstance(answer, torch.Tensor)
        else next(iter(answer.values()))
        if isinstance(answer, dict)
        else answer[0]
    )
    expected = (answer.flatten(1).argmax(dim=1).numpy() == arrays[3]).mean()
    assert run.metrics["teacher_test_accuracy"] == pytest.approx(expected, abs=0.1)  # bfloat16 here, float32 there


STUDENTS = {
    "on meta": (lambda: net().to("meta"), "has no weights, it is on the device meta: build it on the CPU"),
    "locked": (lambda: with_a_lock(net()), "cannot be copied, and yours stays as it is: cannot pickle"),
    "quantised": (quantized, "the student is quantised already"),
    "float64": (lambda: net().double(), "weights are torch.float64: call its float()"),
    "without gradient": (TEACHERS["inference mode"], "no gradient, so it cannot learn"),
    "mapping without logits": (lambda: Answers(lambda x: {"a": x, "b": x}), "answers with a mapping of a, b; expected"),
}


def with_a_lock(module):
    module.lock = threading.Lock()
    return module


@_OTHER_PROCESSORS
@pytest.mark.parametrize("kind", STUDENTS)
def test_students_that_cannot_be_trained_are_refused_in_a_line_before_the_folder(arrays, tmp_path, kind):
    build, message = STUDENTS[kind]
    with pytest.raises(UsageError) as caught:
        mc.distill(net(), build(), arrays, run_dir=tmp_path / "run", device="cpu", allow_weak_teacher=True)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_scripted_teacher_has_no_layers_to_tap_and_serves_logits_only(arrays, tmp_path):
    with pytest.raises(UsageError, match="the teacher is TorchScript, whose layers cannot be tapped"):
        mc.distill(TEACHERS["scripted"](), net(), arrays, method="at", run_dir=tmp_path / "run", device="cpu")


def test_weight_norm_student_learns_and_is_saved(arrays, tmp_path):
    student = TEACHERS["weight_norm"]()
    run = mc.distill(net(), student, arrays, epochs=1, run_dir=tmp_path / "run", device="cpu", allow_weak_teacher=True)
    assert not torch.equal(run.student[0].weight_v, student[0].weight_v)
    images = run.preprocessing(torch.from_numpy(arrays[2]))
    layer = run.student[0]
    weight = layer.weight_g * layer.weight_v / layer.weight_v.flatten(1).norm(dim=1)[:, None, None, None]
    expected = run.student[1:](F.conv2d(images, weight, layer.bias))
    torch.testing.assert_close(run.student(images), expected)


class Norm(nn.Module):
    """Ends in BatchNorm of one value a channel, which a batch of one image fails in."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, images):
        assert not (self.training and len(images) == 1)
        return self.head(self.norm(self.conv(images).mean((2, 3))))


@pytest.mark.parametrize("count", [41, 42])
@pytest.mark.parametrize("loaders", [False, True])
def test_image_that_would_be_alone_in_the_last_batch_joins_the_one_before(arrays, tmp_path, watcher, loaders, count):
    images, labels = arrays[0][:count], arrays[1][:count]
    data, watch = (images, labels, *arrays[2:]), watcher()
    if loaders:
        sets = [TensorDataset(torch.from_numpy(data[n]) / 255, torch.from_numpy(data[n + 1])) for n in (0, 2)]
        data = tuple(DataLoader(one, batch_size=20) for one in sets)
    mc.distill(
        net(), Norm(), data, method="rkd", epochs=2, batch_size=20, run_dir=tmp_path / "run", device="cpu",
        observer=watch, allow_weak_teacher=True,
    )  # fmt: skip
    assert watch.steps == list(range(1, 5 if count == 41 else 7))
    assert all(np.isfinite(event["train_loss"]) for event in watch.events)


def test_batches_in_which_batch_norm_fails_are_refused_before_the_folder(arrays, tmp_path):
    with pytest.raises(UsageError, match=r"in training on a batch of one sample: .*; give batches of two samples"):
        mc.distill(
            net(), torchvision_like(), arrays, batch_size=1, run_dir=tmp_path / "run", allow_weak_teacher=True
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def torchvision_like():
    return nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize("name", ["Lazy", "Late"])
def test_layers_that_come_with_the_first_images_depend_on_the_seed_and_are_loaded_again(place, name):
    config = dataclasses.replace(CONFIG, student=ModelConfig(name=f"odd_nets:{name}"))
    for folder, seed in (("one", 0), ("again", 0), ("other", 1)):
        torch.manual_seed(hash(folder) % 1000)  # which no run depends on
        start_run(dataclasses.replace(config, seed=seed), folder)
    files = [Path(folder, "student.safetensors").read_bytes() for folder in ("one", "again", "other")]
    assert files[0] == files[1] != files[2]
    held_out = hold_out(load_data(CONFIG.data, print)[0], 900, seed=0)[1]
    for network in (load_model("one"), load_model(f"odd_nets:{name}", weights="one/student.safetensors")):
        logits = predict(network, held_out, torch.device("cpu"), torch.float32)
        assert torch.equal(logits, load_file("one/predictions.safetensors")["student_logits"])
        assert network.body.head.weight.shape == (10, 8 * 8 * 8)
        cut, _ = smallest(network, (3, 32, 32), 4)
        assert cost_of(cut, "params", (3, 32, 32)) < cost_of(network, "params", (3, 32, 32))
    assert main(["test", "--model", "one", "--data", "synthetic", "--device", "cpu"]) == 0


def test_lazy_modules_that_are_given_depend_on_the_seed_and_stay_as_they_are(arrays, tmp_path):
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    options = {"epochs": 1, "device": "cpu", "precision": "fp32", "allow_weak_teacher": True}
    runs = [mc.distill(net(), lazy, arrays, run_dir=tmp_path / name, **options) for name in "ab"]
    assert torch.equal(runs[0].student[3].weight, runs[1].student[3].weight)
    assert has_lazy(lazy)


def test_weights_of_lazy_layers_need_their_sizes(place):
    torch.save({"a": torch.ones(1)}, "own.pt")
    with pytest.raises(WeightsMismatchError, match=r"own.pt cannot fill layers that get their sizes from the first"):
        load_model("odd_nets:Lazy", weights="own.pt")
