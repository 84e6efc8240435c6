"""What the doctor finds: each fault injected into machine, data, teacher or loss, and nothing found without one."""

import dataclasses
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from model_compression.checks.data import examine_data
from model_compression.checks.teacher import examine_before_run, examine_teacher
from model_compression.core.config import MethodConfig, ModelConfig
from model_compression.data.dataset import Dataset
from model_compression.data.loader import ResidentLoader
from model_compression.diagnosis import machine
from model_compression.diagnosis.machine import examine_machine, is_older
from model_compression.diagnosis.terms import examine_repetition, examine_terms
from model_compression.engine.observer import Silent
from model_compression.engine.parts import Parts
from model_compression.engine.setup import prepare
from model_compression.models import create_model
from model_compression.models.base import Network
from model_compression.models.loading import read_model
from model_compression.models.preprocessing import Preprocessing

CPU = torch.device("cpu")


def by_subject(findings):
    return {finding.subject: finding for finding in findings}


def levels(findings):
    return {subject: finding.level for subject, finding in by_subject(findings).items()}


def dataset(count, seed, classes=4, labels=None):
    """Images whose grey level is their class, with noise: a network of one weight knows them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes if labels is None else labels
    images = 40 * (labels + 1)[:, None, None, None] + rng.integers(-9, 10, (count, 3, 4, 4))
    names = tuple("abcdefgh"[:classes])
    figures = {"mean": (0.4,) * 3, "std": (0.2,) * 3}
    return Dataset(name="greys", samples=images.astype(np.uint8), labels=labels, class_names=names, **figures)


TRAIN, TEST = dataset(200, 1), dataset(400, 2)


class Grey(nn.Module):
    """Chooses the class whose grey level, as the data's mean and deviation normalise it, is nearest."""

    def __init__(self, order=(0, 1, 2, 3), noise=0.0, leak=0.0):
        super().__init__()
        levels = torch.tensor([(40 * (label + 1) / 255 - 0.4) / 0.2 for label in range(4)])
        self.register_buffer("levels", levels[list(order)])
        self.noise, self.leak = noise, leak

    def forward(self, images):
        grey = images.mean(dim=(1, 2, 3))[:, None]
        logits = -((grey - self.levels) ** 2)
        return logits + self.noise * torch.rand_like(logits) + self.leak * logits.mean(dim=0)


def teacher(preprocessing=None, **options):
    network = Network(OrderedDict(grey=Grey(**options)))
    network.preprocessing = preprocessing or Preprocessing(mean=TRAIN.mean, std=TRAIN.std)
    return network


def test_good_machine_data_and_teacher_are_ok(tmp_path, monkeypatch):
    assert set(levels(examine_data(TRAIN, TEST)).values()) == {"ok"}
    assert set(levels(examine_teacher(teacher(), TRAIN, TEST, CPU)).values()) == {"ok"}
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 64 * 2**30)
    found = by_subject(examine_machine(CPU, tmp_path / "runs"))
    assert list(found) == ["versions", "extras", "threads", "bfloat16", "memory", "disk, answers", "disk, runs"]
    assert (found["versions"].level, found["memory"].level) == ("ok", "ok")
    assert "times as fast as in float32" in found["bfloat16"].text
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("free", "level"), [(2**29, "fail"), (3 * 2**30, "warn"), (8 * 2**30, "ok")])
def test_little_memory_is_found(tmp_path, monkeypatch, free, level):
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: free)
    found = by_subject(examine_machine(CPU, tmp_path))["memory"]
    assert found.level == level
    assert bool(found.remedy) == (level != "ok")


def test_folder_that_cannot_be_written_fails(tmp_path):
    (tmp_path / "file").write_text("")
    found = by_subject(examine_machine(CPU, tmp_path / "file" / "runs"))["disk, runs"]
    assert (found.level, found.text) == ("fail", f"nothing can be written to {tmp_path / 'file'}")


def test_older_packages_are_told_by_their_numbers():
    assert is_older("torch", "2.100")
    assert not is_older("torch", "2.8")
    assert not is_older("torch", torch.__version__.partition("+")[0])


@pytest.mark.parametrize(
    ("train", "test", "subject", "level", "text"),
    [
        (dataset(90, 1, labels=np.arange(90) % 3), TEST, "labels", "warn", "no training images of d"),
        (dataset(90, 1, labels=np.zeros(90, dtype=np.int64)), TEST, "labels", "fail", "all training images are of one"),
        (dataset(90, 1, labels=(np.arange(90) % 30).clip(max=3)), TEST, "balance", "warn", "a has 3 images, d 81"),
        (TRAIN, TRAIN.subset(range(50)), "duplicates", "fail", "50 of 50 test images are training images too"),
        (TRAIN, dataset(90, 1, labels=np.arange(90) % 2), "labels", "warn", "no test images of c, d"),
        (dataclasses.replace(TRAIN, labelled=False), TEST, "labels", "ok", "the training images have none"),
        (dataclasses.replace(TRAIN, notes=("3 .txt",)), TEST, "left out", "warn", "3 .txt"),
        (dataclasses.replace(TRAIN, std=(0.01,) * 3), TEST, "contrast", "warn", "deviation 0.01, 0.01, 0.01"),
    ],
)
def test_faults_of_data_are_found(train, test, subject, level, text):
    found = by_subject(examine_data(train, test))[subject]
    assert found.level == level
    assert text in found.text
    assert bool(found.remedy) == (level != "ok")


@pytest.mark.parametrize(
    ("network", "subject", "text", "remedy"),
    [
        (teacher(noise=5.0), "eval mode", "answers differently each time", "self.training"),
        (teacher(leak=2.0), "eval mode", "a sample alone otherwise than in a batch", "track_running_stats"),
        (
            teacher(order=(1, 0, 2, 3)),
            "class order",
            "it says a for b, b for a; so read, 100.0% are right",
            r"[1, 0, 2",
        ),
        (
            teacher(Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)),
            "normalisation",
            "with the data's 100.0%",
            "[0.4, 0.4",
        ),
        (teacher(order=(3, 3, 3, 3)), "accuracy", "25.0% of 400 test images are right", "look at its normalisation"),
    ],
)
def test_faults_of_a_teacher_are_found(network, subject, text, remedy):
    found = by_subject(examine_teacher(network, TRAIN, TEST, CPU))[subject]
    assert (found.level, text in found.text, remedy in found.remedy) == ("fail", True, True), found


@pytest.mark.parametrize(
    "examined", [lambda one: examine_teacher(one, TRAIN, TEST, CPU), lambda one: examine_before_run(one, TRAIN, CPU)]
)
@pytest.mark.parametrize(("own", "level"), [(["a", "b", "c", "d"], "ok"), (["a", "b", "bb", "c"], "warn")])
def test_teacher_that_learned_other_classes_is_named(examined, own, level):
    network = teacher()
    network.facts = {"class_names": own}
    found = by_subject(examined(network))["class names"]
    assert (found.level, "its class 2 is 'bb', the data's 'c'" in found.text) == (level, level == "warn")


def test_luck_with_few_images_is_no_fault_of_the_normalisation():
    found = by_subject(examine_teacher(teacher(Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)), TRAIN, TEST, CPU))
    few = by_subject(
        examine_teacher(teacher(Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)), TRAIN, TEST.subset(range(8)), CPU)
    )
    assert (found["normalisation"].level, few["normalisation"].level) == ("fail", "ok")


def test_few_images_do_not_tell_a_teacher_from_chance():
    found = by_subject(examine_teacher(teacher(order=(0, 1, 3, 2)), TRAIN, TEST.subset(range(8)), CPU))["accuracy"]
    assert (found.level, "; by chance 25.0%" in found.text, "luck" in found.remedy) == ("warn", True, True)


def test_stated_accuracy_is_compared():
    network = teacher(order=(0, 1, 2, 0))
    network.facts = {"test_accuracy": 0.97}
    found = by_subject(examine_teacher(network, TRAIN, TEST, CPU))["accuracy"]
    assert (found.level, found.text) == (
        "fail",
        "75.0% of 400 test images are right; its file states 97.0%; by chance 25.0%",
    )


def findings_on_loss(tiny, **options):
    config = tiny.config(**options, teacher_cache="off", allow_weak_teacher=True)
    return by_subject(examine_terms(prepare(config, Silent(), Parts(data=tiny.data())).trainer))


def test_terms_at_the_first_step_are_those_of_the_float64_formula(tiny):
    student = ModelConfig(name="tiny", options={"dropout": 0.0})
    found = findings_on_loss(tiny, method="kd", student=student)
    loader = ResidentLoader(tiny.data()[0], tiny.config().data, CPU)
    batch = next(iter(loader.epoch(epoch=0, seed=0, batch_size=5)))
    images = (batch.inputs.double() / 255 - 0.5) / 0.25
    network = create_model("tiny", seed=0, dropout=0.0).train().double()
    s = network(images)
    model = read_model(tiny.teacher).eval().double()
    with torch.no_grad():
        t = model(model.preprocessing(batch.inputs).double())
    label = nn.functional.cross_entropy(s, batch.targets)
    kd = 16 * (t.div(4).softmax(1) * (t.div(4).log_softmax(1) - s.div(4).log_softmax(1))).sum(1).mean()
    for name, term, weight in (("label", label, 0.1), ("kd", kd, 0.9)):
        gradients = torch.autograd.grad(term, list(network.parameters()), retain_graph=True)
        pull = weight * sum(float(gradient.square().sum()) for gradient in gradients) ** 0.5
        expected = f"{term.item():.3g} × weight {weight}; its gradient in the student is {pull:.3g}"
        assert found[name].text == expected


def test_weights_that_drown_a_term_or_leave_it_without_effect_are_found(tiny):
    small = findings_on_loss(tiny, method=MethodConfig(name="kd", weights={"kd": 1e-9}))
    assert small["label"].level == "ok"
    assert (small["kd"].level, "next to label it does nothing; weights={'kd': " in small["kd"].remedy) == ("warn", True)
    weight = float(small["kd"].remedy.partition("{'kd': ")[2].partition("}")[0])
    mended = findings_on_loss(tiny, method=MethodConfig(name="kd", weights={"kd": weight}))
    assert {finding.level for finding in mended.values()} == {"ok"}


def test_student_that_begins_sure_and_wrong_is_found(tiny):
    student = Network(OrderedDict(flatten=nn.Flatten(), ip1=nn.Linear(192, 3)))
    nn.init.normal_(student.ip1.weight, std=30.0)
    config = tiny.config()
    trainer = prepare(config, Silent(), Parts(data=tiny.data(), student=student)).trainer
    found = by_subject(examine_terms(trainer))["label"]
    assert (found.level, "the student begins sure and wrong" in found.remedy) == ("warn", True)


def test_packages_count_only_when_they_can_be_imported(tmp_path, monkeypatch):
    """As torchvision, installed for another torch: its metadata say that all is well."""
    for name, code in (("whole_thing", ""), ("broken_thing", "raise RuntimeError('operator x::nms does not exist')")):
        (tmp_path / f"{name}.py").write_text(code)
        info = tmp_path / f"{name}-2.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 2.0\n")
        (info / "top_level.txt").write_text(f"{name}\n")
    monkeypatch.syspath_prepend(tmp_path)
    spelled = tmp_path / "whole_thing-2.0.dist-info" / "METADATA"
    spelled.write_text(spelled.read_text().replace("whole-thing", "Whole_Thing"))
    spelled.with_name("top_level.txt").write_text("whole\n")  # as open-clip-torch, which is open_clip_torch there
    (tmp_path / "whole_thing.py").rename(tmp_path / "whole.py")
    assert machine._broken(["whole-thing"]) == []
    needs = [
        "whole-thing>=1",
        "broken-thing>=1; extra == 'timm'",
        "absent-thing; extra == 'hf'",
        "ruff; extra == 'dev'",
    ]
    monkeypatch.setattr(machine.metadata, "requires", lambda name: needs)
    versions, extras = machine._versions(), machine._extras()
    assert (versions.level, versions.text.partition(", ")[2]) == ("ok", "1 packages as needed")
    assert (extras.level, extras.text) == (
        "warn",
        "installed, but cannot be imported: broken-thing (RuntimeError: operator x::nms does not exist)",
    )


def test_chance_is_the_share_of_the_largest_class():
    rows = np.flatnonzero((TEST.labels == 0) | (np.arange(len(TEST)) // 4 % 2 == 0))  # half of the other classes
    found = by_subject(examine_teacher(teacher(), TRAIN, TEST.subset(rows), CPU))["accuracy"]
    largest = np.bincount(TEST.labels[rows]).max() / len(rows)
    assert found.text.endswith(f"by chance {largest:.1%}")
    assert largest > 0.3


@pytest.mark.parametrize("draws", [False, True])
def test_step_that_does_not_repeat_is_found(tiny, monkeypatch, draws):
    trainer = prepare(tiny.config("kd", allow_weak_teacher=True, teacher_cache="off"), Silent(), Parts()).trainer
    numbers = iter(range(1, 99))
    if draws:
        own = trainer.student.forward
        monkeypatch.setattr(trainer.student, "forward", lambda images: own(images) * next(numbers))
    assert examine_repetition(trainer).level == ("warn" if draws else "ok")
