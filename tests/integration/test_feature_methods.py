"""Methods that need more than logits, in a whole run: taps, projectors, a first stage, pairs, resuming."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import Interrupted, UsageError
from model_compression.distillation.methods import METHODS
from model_compression.distillation.methods.base import Method, embedding_pair, feature_pairs, pair_shapes, to_smaller
from model_compression.distillation.methods.feature.ofd import gaussian_margin
from model_compression.engine.events import read_events
from model_compression.engine.observer import Silent
from model_compression.engine.parts import Parts
from model_compression.engine.runs import resume_run, start_run
from model_compression.engine.setup import prepare
from model_compression.models import create_model
from model_compression.models.loading import read_model
from model_compression.models.weights import save_weights


class Toy(Method):
    """A projector for each pair, one for the embeddings, and a first stage for the latter."""

    needs = frozenset({"features", "embedding", "logits"})
    default_weights = {"maps": 1.0, "embeddings": 0.5}
    default_label_weight = 1.0

    def setup(self, shapes, num_samples, num_classes):
        self.maps = nn.ModuleList(nn.Conv2d(s[0], t[0], 1) for s, t in pair_shapes(shapes))
        self.embedding = nn.Linear(shapes["student"]["embedding"][1], shapes["teacher"]["embedding"][1])
        self.decoder = nn.Linear(shapes["teacher"]["embedding"][1], num_classes)

    def first_stage(self, teacher):
        return (self.decoder(teacher.embedding) - teacher.logits).square().mean()

    def forward(self, student, teacher, targets, context=None):
        distances = []
        for project, (s, t) in zip(self.maps, feature_pairs(student, teacher), strict=True):
            s, t = to_smaller(project(s), t)
            distances.append((s - t).square().mean())
        s, t = embedding_pair(student, teacher)
        return {"maps": sum(distances), "embeddings": (self.decoder(self.embedding(s)) - self.decoder(t)).abs().mean()}


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(METHODS._entries, "toy", Toy)


def test_run_with_features_prints_its_pairs_and_saves_the_student_alone(tiny, tmp_path, watcher):
    seen = watcher()
    metrics = start_run(tiny.config("toy", ema=0.9), tmp_path / "run", seen)
    assert seen.messages == [
        "features that are compared, student = teacher: drop1 = conv1, the embeddings",
        "features are not stored: the teacher answers live",
        "tiny has 22 images: too few to see whether the teacher knows them",
    ]
    assert set(seen.events[0]["terms"]) == {"label", "maps", "embeddings"}
    assert seen.events[-1]["terms"]["maps"] < seen.events[0]["terms"]["maps"]
    assert metrics["teacher_agreement"] > 0
    names = read_model(tmp_path / "run" / "student.safetensors").state_dict()
    assert not [name for name in names if "maps" in name or "decoder" in name]


def test_first_stage_trains_the_methods_own_part_before_the_first_step(tiny, tmp_path, watcher, monkeypatch):
    losses = []

    class Watched(Toy):
        def first_stage(self, teacher):
            loss = super().first_stage(teacher)
            losses.append(loss.item())
            return loss

    monkeypatch.setitem(METHODS._entries, "toy", Watched)
    method = MethodConfig(name="toy", first_stage_epochs=40)
    start_run(tiny.config(method), tmp_path / "run", watcher())
    assert len(losses) == 40 * 5
    assert sum(losses[-5:]) < sum(losses[:5])  # epochs of five steps


def test_named_pairs_are_used_and_wrong_ones_are_errors(tiny, tmp_path, watcher):
    config = tiny.config(MethodConfig(name="toy", pairs={"bn1": "pool", "conv1": "conv1"}))
    seen = watcher()
    start_run(config, tmp_path / "run", seen)
    assert seen.messages[0].endswith("bn1 = pool, conv1 = conv1, the embeddings")
    for pairs, message in (
        ({"bn2": "pool"}, "the student tiny has no layer 'bn2'; did you mean 'bn1'"),
        ({"bn1": "pol"}, "the teacher tiny-teacher has no layer 'pol'; did you mean 'pool'"),
        ({"ip1": "pool"}, "features mu"),
    ):
        with pytest.raises(UsageError, match=message):
            start_run(tiny.config(MethodConfig(name="toy", pairs=pairs)), tmp_path / "other", watcher())
    with pytest.raises(UsageError, match="method 'kd' compares no features: leave the pairs out"):
        start_run(tiny.config(MethodConfig(name="kd", pairs={"bn1": "pool"})), tmp_path / "other", watcher())
    assert not (tmp_path / "other").exists()


def test_method_that_wants_few_pairs_is_given_the_last(tiny, tmp_path, watcher, monkeypatch):
    stages = [("conv1", "conv1"), ("drop1", "pool")]
    monkeypatch.setattr("model_compression.distillation.taps.choose_pairs", lambda student, teacher: stages)
    for wanted, said in ((None, "conv1 = conv1, drop1 = pool, the"), (1, "teacher: drop1 = pool, the")):
        monkeypatch.setattr(Toy, "default_pairs", wanted)
        seen = watcher()
        start_run(tiny.config("toy", epochs=1), tmp_path / f"run-{wanted}", seen)
        assert said in seen.messages[0]


def test_averaged_teachers_cannot_be_tapped_and_too_few_pairs_are_said(tiny, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="features and embeddings of several teachers, or of mirror images, cannot be"):
        start_run(tiny.config("toy", teacher_tta="flip"), tmp_path / "run")
    monkeypatch.setattr(Toy, "min_pairs", 2)
    with pytest.raises(UsageError, match="method 'toy' needs at least 2 pairs of layers, and there are 1"):
        start_run(tiny.config("toy"), tmp_path / "run")
    config = tiny.config(MethodConfig(name="toy", pairs={"bn1": "pool", "conv1": "conv1"}))
    with pytest.raises(UsageError, match="compile='on' serves methods that need logits only"):
        start_run(dataclasses.replace(config, compile="on"), tmp_path / "run")


@pytest.mark.parametrize("step", [2, 5, 11])
def test_run_with_features_resumes_to_the_bit(tiny, tmp_path, watcher, step):
    config = tiny.config("toy", optim={"optimizer": "sgd", "lr": 0.05}, ema=0.8)
    start_run(config, tmp_path / "whole", watcher())
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "part", watcher([step]))
    resume_run(tmp_path / "part", watcher())
    for name in ("student.safetensors", "predictions.safetensors", "events.jsonl"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_method_with_features_is_repeated_whatever_the_global_generator_holds(tiny, tmp_path, watcher):
    for name, seed in (("a", 1), ("b", 2)):
        torch.manual_seed(seed)
        start_run(tiny.config("toy"), tmp_path / name, watcher())
    events = [json.loads((tmp_path / name / "events.jsonl").read_text().splitlines()[0]) for name in ("a", "b")]
    assert events[0] == events[1]


def test_weights_rise_with_the_steps_of_a_run(tiny, tmp_path):
    method = MethodConfig(name="logits", label_weight=1.0, warmup=1.0)
    config = tiny.config(method, epochs=4, batch_size=64)  # a step each
    start_run(config, tmp_path / "run")
    for epoch, event in enumerate(read_events(tmp_path / "run" / "events.jsonl"), start=1):
        terms = event["terms"]
        assert event["train_loss"] == pytest.approx(terms["label"] + epoch / 4 * terms["logits"], rel=1e-5)


def test_ofd_takes_its_margins_from_the_teachers_batch_norms(tmp_path):
    teacher = create_model("resnet8", seed=1)
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, -1, 1)
    save_weights(tmp_path / "teacher.safetensors", teacher)
    config = TrainConfig(
        student=ModelConfig(name="resnet8"),
        teacher=ModelConfig(name=str(tmp_path / "teacher.safetensors")),
        method=MethodConfig(name="ofd"),
        data=DataConfig(name="synthetic"),
        allow_weak_teacher=True,
    )
    method = prepare(config, Silent(), Parts()).trainer.objective.method
    for number in range(3):
        norm = teacher.body.get_submodule(f"stage{number + 1}.block1").bn2
        last = getattr(teacher.body.get_submodule(f"stage{number + 1}.block1"), "shortcut_bn", norm)
        expected = gaussian_margin(last.weight.detach(), last.bias.detach())
        torch.testing.assert_close(getattr(method, f"margin_{number}").cpu(), expected)
