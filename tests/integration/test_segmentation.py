"""Segmentation whole: rows that methods compare, runs, stored answers, files for images of any size, and commands."""

import dataclasses
import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from sklearn.metrics import jaccard_score
from torch import nn

import model_compression as mc
from model_compression.cli.main import main
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import Interrupted, UsageError
from model_compression.core.masks import IGNORE
from model_compression.core.optim_config import OptimConfig
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch
from model_compression.data.dataset import Dataset
from model_compression.data.sources import DATASETS
from model_compression.distillation.methods import Context
from model_compression.distillation.objective import Objective
from model_compression.distillation.teachers.store import stores
from model_compression.engine.runs import resume_run, start_run
from model_compression.engine.runtime import Runtime
from model_compression.engine.trainer import Trainer
from model_compression.exporting.runtimes import open_file
from model_compression.models.base import MODELS, Network
from model_compression.models.create import create_model
from model_compression.models.loading import read_model
from model_compression.models.weights import save_weights
from model_compression.tasks import TASKS

TASK = TASKS.create("segmentation")
NAMES = ("dark", "bright", "red")


def pixels(data_dir=None, report=None, allow_download=True):
    rng = np.random.default_rng(11)
    sets = []
    for name, count in (("pixels", 21), ("pixels-test", 9)):
        images = rng.integers(0, 256, (count, 3, 6, 5), dtype=np.uint8)
        red = images[:, 0].astype(int) > 60 + images[:, 1:].max(axis=1)
        masks = np.where(red, 2, images.mean(axis=1) > 127).astype(np.uint8)
        masks[rng.random(masks.shape) < 0.2] = IGNORE
        masks[3] = IGNORE
        sets.append(
            Dataset(
                name=name,
                samples=images,
                labels=masks,
                class_names=NAMES,
                mean=(0.5,) * 3,
                std=(0.3,) * 3,
                task="segmentation",
            )
        )
    return tuple(sets)


def dense(num_classes=3, width=4):
    """A network that a test can break in no time: it sees 3 × 3 pixels."""
    return Network(
        OrderedDict(
            conv=nn.Conv2d(3, width, 3, padding=1),
            relu=nn.ReLU(),
            drop=nn.Dropout(0.1),
            head=nn.Conv2d(width, num_classes, 1),
        )
    )


@pytest.fixture(autouse=True)
def _task(monkeypatch, tmp_path):
    monkeypatch.setitem(DATASETS._entries, "pixels", pixels)
    monkeypatch.setitem(MODELS._entries, "dense", dense)
    monkeypatch.chdir(tmp_path)
    save_weights(tmp_path / "teacher.safetensors", create_model("dense", seed=3, width=8))


def config_of(method=None, **options):
    kept = {"teacher": ModelConfig(name="teacher.safetensors"), "allow_weak_teacher": True} if method else {}
    return TrainConfig(
        student=ModelConfig(name="dense"), method=method, data=DataConfig(name="pixels"), optim=OptimConfig(lr=2e-2),
        epochs=5, batch_size=6, precision="fp32", **(kept | options),
    )  # fmt: skip


def answers(seed, count=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 6, 5, generator=generator) * 3


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def kd_in_float64(student, teacher, masks, temperature):
    """T² · mean over the valid pixels of KL(teacher ‖ student)."""
    s, t = (log_softmax(side.numpy().astype(np.float64) / temperature) for side in (student, teacher))
    divergence = (np.exp(t) * (t - s)).sum(axis=1)
    return temperature**2 * divergence[masks != IGNORE].mean()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_of_pixels_is_the_mean_over_the_valid_ones(temperature):
    config = config_of(MethodConfig(name="kd", params={"temperature": temperature}))
    masks = pixels()[0].labels[:5]
    batch = Batch(inputs=torch.zeros(5, 3, 6, 5), targets=torch.from_numpy(masks), ids=torch.arange(5), view=0)
    objective = Objective(config, TASK, 21, 3)
    student, teacher = answers(1), answers(2)
    context = Context(ids=batch.ids, epoch=0, step=0, seed=0)
    _, terms = objective(Outputs(logits=student), Outputs(logits=teacher), batch, context)
    assert float(terms["kd"]) == pytest.approx(kd_in_float64(student, teacher, masks, temperature), rel=1e-5)
    changed = torch.where(torch.from_numpy(masks)[:, None] == IGNORE, 100.0, student)
    _, again = objective(Outputs(logits=changed), Outputs(logits=teacher), batch, context)
    assert float(again["kd"]) == float(terms["kd"])


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "logits", "nkd", "wsld", "ctkd", "logit_std", "noisy_teacher"])
def test_each_logit_method_sees_pixels_as_it_sees_samples(name):
    """The terms for pixels are those for as many samples, in a task of one class each."""
    config = config_of(MethodConfig(name=name))
    masks = torch.from_numpy(pixels()[0].labels[:5])
    student, teacher, kept = answers(1), answers(2), masks != IGNORE
    ids = torch.arange(5)[:, None, None].expand_as(masks)[kept]
    batches = (
        Batch(inputs=torch.zeros(5, 3, 6, 5), targets=masks, ids=torch.arange(5), view=0),
        Batch(inputs=torch.zeros(len(ids), 3, 1, 1), targets=masks[kept].long(), ids=ids, view=0),
    )
    sides = ((student, teacher), tuple(side.permute(0, 2, 3, 1)[kept] for side in (student, teacher)))
    found = []
    for task, batch, pair in zip((TASK, TASKS.create("image-classification")), batches, sides, strict=True):
        objective = Objective(config, task, 21, 3)
        context = Context(ids=batch.ids, epoch=0, step=0, seed=0)
        loss, terms = objective(*(Outputs(logits=side) for side in pair), batch, context)
        found.append({name: float(term.detach()) for name, term in {"loss": loss, **terms}.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_batch_without_a_valid_pixel_gives_zero_and_no_nan():
    batch = Batch(inputs=torch.zeros(2, 3, 6, 5), targets=torch.full((2, 6, 5), IGNORE), ids=torch.arange(2), view=0)
    student = answers(1, 2).requires_grad_()
    objective = Objective(config_of(MethodConfig(name="kd", label_weight=1.0)), TASK, 21, 3)
    context = Context(ids=batch.ids, epoch=0, step=0, seed=0)
    loss, _ = objective(Outputs(logits=student), Outputs(logits=answers(2, 2)), batch, context)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not student.grad.any()


def test_parts_of_a_batch_weigh_by_their_valid_pixels():
    """Gradients of a split batch are those of the whole one, although the parts have other numbers of valid pixels."""
    config = config_of(MethodConfig(name="kd", label_weight=1.0))
    runtime = Runtime(device=torch.device("cpu"), precision=torch.float32)
    train, gradients = pixels()[0], []

    class Fixed:
        def answer(self, batch):
            return Outputs(logits=answers(5, 21)[batch.ids])

    for size in (None, 1, 4):
        trainer = Trainer(config, create_model("dense", seed=0, width=4).eval(), Fixed(), train, runtime)
        batch = trainer.loader.batch(torch.arange(7), view=0)
        parts = [batch] if size is None else [batch.rows(slice(n, n + size)) for n in range(0, 7, size)]
        learned = trainer.gradients.attempt(parts, trainer.teacher, *trainer._context(parts[0], 0))
        gradients.append([float(learned.loss), *(one.grad.clone() for one in trainer.student.parameters())])
    for other in gradients[1:]:
        assert other[0] == pytest.approx(gradients[0][0], rel=1e-5)
        for one, whole in zip(other[1:], gradients[0][1:], strict=True):
            assert torch.allclose(one, whole, atol=1e-6)


def test_run_distils_stores_answers_of_its_shape_and_resumes(watcher, tmp_path):
    config = config_of(MethodConfig(name="kd", label_weight=1.0))
    with pytest.raises(UsageError, match="method 'crd' compares samples by their class or number"):
        start_run(dataclasses.replace(config, method=MethodConfig(name="crd")), tmp_path / "no")
    metrics = start_run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", watcher([6]))
    resume_run(tmp_path / "run")
    assert (tmp_path / "run" / "student.safetensors").read_bytes() == (
        tmp_path / "whole" / "student.safetensors"
    ).read_bytes()
    found = load_file(tmp_path / "run" / "predictions.safetensors")
    masks = pixels()[1].labels
    assert found["student_masks"].shape == found["teacher_masks"].shape == masks.shape
    valid = masks != IGNORE
    student = found["student_masks"][valid]
    assert metrics["test_miou"] == pytest.approx(jaccard_score(masks[valid], student, average="macro"))
    assert metrics["test_pixel_accuracy"] == pytest.approx((student == masks[valid]).mean())
    (store,) = stores()
    assert store.usage.filled == 1
    start_run(dataclasses.replace(config, teacher_cache="off"), tmp_path / "live")
    stored, live = (load_file(tmp_path / name / "student.safetensors") for name in ("run", "live"))
    assert all(np.allclose(stored[name], live[name], atol=1e-3) for name in live)  # stored in half precision


def grown(factor):
    """The test images, each repeated ``factor`` times down and across."""
    return np.tile(pixels()[1].images, (1, 1, factor, factor))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_file_answers_images_of_any_size_as_the_network_does(tmp_path, capsys, suffix):
    start_run(config_of(), tmp_path / "run")
    assert main(["export", "run", "--out", f"dense{suffix}"]) == 0, capsys.readouterr().err
    assert main(["verify", f"dense{suffix}", "--model", "run"]) == 0, capsys.readouterr().err
    file, network = open_file(tmp_path / f"dense{suffix}"), read_model(tmp_path / "run" / "student.safetensors").eval()
    assert file.metadata.is_of_any_size
    images = grown(3)
    with torch.no_grad():
        expected = network(network.preprocessing(torch.from_numpy(images))).numpy()
    np.testing.assert_allclose(file.run(images), expected, atol=1e-4)


@pytest.mark.slow
def test_network_of_one_size_only_is_written_for_that_one(tmp_path, capsys, monkeypatch):
    class Fixed(Network):
        def forward(self, images):
            return super().forward(images) + torch.arange(30.0).view(6, 5)

    def fixed(num_classes=3):
        return Fixed(OrderedDict(head=nn.Conv2d(3, num_classes, 1)))

    monkeypatch.setitem(MODELS._entries, "fixed", fixed)
    start_run(dataclasses.replace(config_of(), student=ModelConfig(name="fixed")), tmp_path / "run")
    assert main(["export", "run", "--out", "fixed.onnx"]) == 0
    assert "cannot be written for images of any size" in capsys.readouterr().err
    assert not open_file(tmp_path / "fixed.onnx").metadata.is_of_any_size
    assert main(["verify", "fixed.onnx", "--model", "run"]) == 0


def test_predict_writes_masks_of_images_scaled_whole_and_in_windows(tmp_path, capsys):
    start_run(config_of(), tmp_path / "run")
    assert main(["export", "run", "--out", "dense.onnx"]) == 0
    network = read_model(tmp_path / "run" / "student.safetensors").eval()
    image = grown(2)[0]
    (tmp_path / "in").mkdir()
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "in" / "big.png")
    pixels_of = network.preprocessing(torch.from_numpy(image[None]))
    with torch.no_grad():
        whole = network(pixels_of)[0].numpy()
        total, count = np.zeros_like(whole), np.zeros(whole.shape[1:])
        for top, left in np.ndindex(3, 3):  # windows of 6 × 5, half of one apart, the last at the end
            rows, columns = slice(3 * top, 3 * top + 6), slice(left * 5 // 2, left * 5 // 2 + 5)
            total[:, rows, columns] += network(pixels_of[:, :, rows, columns])[0].numpy()
            count[rows, columns] += 1
    for given, expected in (("whole", whole), ("windows", total / count)):
        capsys.readouterr()
        assert main(["predict", "dense.onnx", "in", "--full-size", given, "--out", given, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        mask = Image.open(said["mask"])
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), expected.argmax(axis=0))
        shares = {one["name"]: one["share"] for one in said["classes"]}
        assert shares == {NAMES[k]: np.mean(np.asarray(mask) == k) for k in np.unique(np.asarray(mask))}
    assert main(["predict", "dense.onnx", "in"]) == 0
    assert np.asarray(Image.open(tmp_path / "in" / "big.mask.png")).shape == (6, 5)
    assert main(["predict", "dense.onnx", "in"]) == 2
    assert "big.mask.png exists" in capsys.readouterr().err
    assert main(["predict", "dense.onnx", "in", "--force"]) == 0  # and the mask is no image
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "in" / "big.bmp")
    before = (tmp_path / "in" / "big.mask.png").read_bytes()
    capsys.readouterr()
    assert main(["predict", "dense.onnx", "in", "--force"]) == 2  # one mask would replace the other
    told = capsys.readouterr()
    assert told.out == ""
    assert "in/big.bmp and in/big.png would both have the mask in/big.mask.png" in told.err
    assert (tmp_path / "in" / "big.mask.png").read_bytes() == before


def test_network_is_evaluated_in_windows(tmp_path):
    start_run(config_of(), tmp_path / "run")
    network = read_model(tmp_path / "run" / "student.safetensors")
    data = tuple(dataclasses.replace(one, samples=np.tile(one.images, (1, 1, 2, 2)), digest="",
                                     labels=np.tile(one.labels, (1, 2, 2))) for one in pixels())  # fmt: skip
    parts = mc.evaluate(network, data, window=5, device="cpu", precision="fp32").logits
    images = network.preprocessing(torch.from_numpy(data[1].images))
    with torch.no_grad():
        network.eval()
        total, count = torch.zeros(9, 3, 12, 10), torch.zeros(12, 10)
        for top in (0, 2, 4, 7):
            for left in (0, 2, 5):
                total[:, :, top : top + 5, left : left + 5] += network(images[:, :, top : top + 5, left : left + 5])
                count[top : top + 5, left : left + 5] += 1
    assert torch.equal(parts, (total / count).argmax(dim=1).to(torch.uint8))
    with pytest.raises(UsageError, match="window=-1 must be a side in pixels"):
        mc.evaluate(network, data, window=-1)


def test_stored_answers_keep_the_largest_logits_of_each_pixel(tmp_path):
    config = dataclasses.replace(config_of(MethodConfig(name="kd")), teacher_cache_topk=2)  # of 3: that is all
    start_run(config, tmp_path / "topk")
    start_run(dataclasses.replace(config, teacher_cache_topk=0), tmp_path / "all")
    largest, every = (load_file(tmp_path / name / "student.safetensors") for name in ("topk", "all"))
    assert all(np.allclose(largest[name], every[name], atol=1e-3) for name in every)
    with pytest.raises(UsageError, match="teacher_cache_topk must be below the number of classes, got 3 for 3 classes"):
        start_run(dataclasses.replace(config, teacher_cache_topk=3), tmp_path / "no")


@pytest.mark.parametrize(("method", "params"), [("cwd", {"on": "logits"}), ("kd,pairwise", {})])
def test_methods_for_segmentation_train(tmp_path, method, params):
    pairs = {"conv": "conv"} if "pairwise" in method else {}
    metrics = start_run(config_of(MethodConfig(name=method, params=params, pairs=pairs)), tmp_path / "run")
    assert 0 < metrics["test_miou"] <= 1
    assert len(stores()) == (0 if pairs else 1)  # features are answered live


def test_critic_is_saved_with_the_run_and_resumes_to_the_same_weights(watcher, tmp_path):
    params = {"holistic.width": 8, "holistic.size": 16}
    config = config_of(MethodConfig(name="kd,holistic", params=params, weights={"holistic": 1.0}))
    start_run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", watcher([6]))
    resume_run(tmp_path / "run")
    whole, resumed = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "run"))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    assert not any("critic" in name for name in whole)
    start_run(dataclasses.replace(config, method=MethodConfig(name="kd")), tmp_path / "kd")
    without = load_file(tmp_path / "kd" / "student.safetensors")
    assert any(not np.array_equal(whole[name], value) for name, value in without.items())


def test_method_of_maps_is_refused_by_other_tasks(tmp_path):
    config = TrainConfig(student=ModelConfig(name="lenet"), data=DataConfig(name="synthetic"), epochs=1)
    for name, params in (("holistic", {}), ("cwd", {"on": "logits"})):
        method = MethodConfig(name=name, params=params)
        with pytest.raises(UsageError, match=f"method '{name}' as it is set compares maps of class scores"):
            Objective(dataclasses.replace(config, method=method), TASKS.create("image-classification"), 10, 3)


def test_teacher_with_its_classes_in_another_order_is_refused(tmp_path):
    network = create_model("dense", seed=3, width=8)
    network.facts = {"class_names": [NAMES[n] for n in (1, 0, 2)]}
    save_weights(tmp_path / "teacher.safetensors", network, facts=network.facts)
    with pytest.raises(UsageError, match="has its classes in another order than pixels"):
        start_run(config_of(MethodConfig(name="kd")), tmp_path / "run")
