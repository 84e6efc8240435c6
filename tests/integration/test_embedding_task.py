"""The task `embedding`: distilled from a network without a head, judged by labels, resumed, stored, exported."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tiny_texts
import torch
from PIL import Image
from safetensors.numpy import load_file

import model_compression as mc
from model_compression.api.embedding import load_as_embedding
from model_compression.cli.main import main
from model_compression.core.config import MethodConfig, ModelConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import Interrupted, UsageError
from model_compression.data.task_views import as_task
from model_compression.distillation.objective import methods_for
from model_compression.engine.networks import load_trained
from model_compression.engine.observer import Silent
from model_compression.engine.runs import resume_run, start_run
from model_compression.engine.teachers import load_data
from model_compression.models.create import create_model
from model_compression.models.loading import build_model, load_model
from model_compression.models.weights import save_weights
from model_compression.tasks import TASKS


def config_of(tiny, method="align", **options):
    """A run on the tiny images: the teacher's file has a classifier, which is left out."""
    data = {"task": "embedding", **options.pop("data", {})}
    return dataclasses.replace(tiny.config(method, data=data, optim={"lr": 1e-2}, **options), epochs=4)


def cosine_share(answers, labels):
    """k-NN with all others, vote by vote."""
    units = answers.astype(np.float64) / np.linalg.norm(answers.astype(np.float64), axis=1, keepdims=True)
    right = 0
    for place, one in enumerate(units):
        others = [n for n in np.argsort(-(units @ one), kind="stable") if n != place][:20]
        votes = np.bincount(labels[others], weights=np.exp((units[others] @ one - 1) / 0.07))
        right += votes.argmax() == labels[place]
    return right / len(units)


def test_run_learns_the_teachers_embeddings_without_labels(tiny, watcher, tmp_path):
    seen = watcher()
    metrics = start_run(config_of(tiny, evaluate_every=2), tmp_path / "run", seen)
    found = load_file(tmp_path / "run" / "predictions.safetensors")
    labels = tiny.data()[1].labels
    assert found["student_logits"].shape == (13, 144)
    assert found["teacher_logits"].shape == (13, 5)
    assert metrics["test_knn"] == pytest.approx(cosine_share(found["student_logits"], labels))
    assert metrics["teacher_test_knn"] == pytest.approx(cosine_share(found["teacher_logits"], labels))
    assert 0 < metrics["teacher_agreement"] <= 1
    assert metrics["test_linear_probe_low"] <= metrics["test_linear_probe"] <= metrics["test_linear_probe_high"]
    assert seen.events[-1]["terms"]["align"] < seen.events[0]["terms"]["align"]
    assert "label" not in seen.events[0]["terms"]
    assert seen.answered[-1] == (22, 22)  # stored


@pytest.mark.parametrize("method", ["align_tokens", "lightly", "align,rkd"])
def test_interrupted_run_ends_with_the_same_bits(method, tiny, watcher, tmp_path):
    config = config_of(tiny, method, data={"augmentation": "flip_shift", "views": 2})
    start_run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", watcher([7]))
    resume_run(tmp_path / "run")
    for name in ("student.safetensors", "backbone.safetensors", "events.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_answers_of_the_plain_view_are_stored_once_for_every_student_and_seed(tiny, watcher, tmp_path):
    options = {"data": {"augmentation": "flip_shift"}, "teacher_view": "plain"}
    start_run(config_of(tiny, **options), tmp_path / "first", first := watcher())
    student = ModelConfig(name="resnet8")
    start_run(config_of(tiny, "lightly", student=student, seed=3, **options), tmp_path / "second", second := watcher())
    assert first.answered
    assert not second.answered
    assert load_model(tmp_path / "second")(torch.zeros(2, 3, 8, 8)).shape == (2, 64)


def test_labels_are_never_learnt_from(tiny, tmp_path):
    for method, said in (
        (None, "give a teacher"),
        ("kd", "choose align"),
        ("crd", "compares samples by their class"),
        (MethodConfig(name="align", label_weight=0.5), "must be 0, got 0.5"),
    ):
        with pytest.raises(UsageError, match=said):
            start_run(config_of(tiny, method), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_backbone_is_fine_tuned_and_a_run_of_it_too(tiny, tmp_path, watcher):
    start_run(config_of(tiny), tmp_path / "run")
    learnt = load_file(tmp_path / "run" / "backbone.safetensors")
    labelled = tiny.config(None)
    for student in (
        ModelConfig(name="tiny", weights=str(tmp_path / "run" / "backbone.safetensors")),
        ModelConfig(name=str(tmp_path / "run")),
    ):
        seen = watcher()
        folder = tmp_path / f"tuned-{len(student.name)}"
        optim = dataclasses.replace(labelled.optim, lr=1e-12)
        start_run(dataclasses.replace(labelled, student=student, optim=optim), folder, seen)
        assert any("hold no fitting ip1: what classifies starts afresh" in line for line in seen.messages)
        tuned = load_model(folder)
        np.testing.assert_allclose(tuned.conv1.weight.detach().numpy(), learnt["conv1.weight"], atol=1e-6)
        assert tuned.ip1.out_features == 3


@pytest.mark.parametrize("name", ["ends_in_linear", "ends_in_pooling"])
def test_what_a_builder_of_ones_own_returns_is_the_embedding(name, tiny, tmp_path, monkeypatch):
    """As teacher and as student, while it trains and when the run is read again: no layer is taken for a head."""
    (tmp_path / "own_backbones.py").write_text(OWN_BACKBONES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    own = ModelConfig(name=f"own_backbones:{name}")
    start_run(dataclasses.replace(config_of(tiny, student=own), teacher=own), tmp_path / "run")
    found = load_file(tmp_path / "run" / "predictions.safetensors")
    width = {"ends_in_linear": 24, "ends_in_pooling": 6}[name]
    assert found["student_logits"].shape == found["teacher_logits"].shape == (13, width)
    kept = json.loads((tmp_path / "run/metrics.json").read_text())
    assert mc.evaluate(tmp_path / "run", progress=False).value == kept["test_knn"]
    mc.export(tmp_path / "run", tmp_path / "file.onnx", progress=False)
    images = np.ascontiguousarray(tiny.data()[1].images[:])
    session = onnxruntime.InferenceSession(tmp_path / "file.onnx", providers=["CPUExecutionProvider"])
    (answers,) = session.run(None, {session.get_inputs()[0].name: images})
    np.testing.assert_allclose(answers, found["student_logits"], rtol=1e-4, atol=1e-6)
    earlier = tmp_path / "earlier.safetensors"  # of a version that did not note it among the options
    network = load_model(tmp_path / "run")
    network.options.pop("_embeds")
    save_weights(earlier, network, facts=network.facts)
    read = load_trained(ModelConfig(name=str(earlier)), as_task(tiny.data(), "embedding")[0])
    assert read(torch.zeros(2, 3, 8, 8)).shape == (2, width)


OWN_BACKBONES = """
import torch
from torch import nn


def ends_in_pooling():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def ends_in_linear():
    return nn.Sequential(ends_in_pooling(), nn.Linear(6, 24))
"""


def draw(folder, count, sizes=((12, 16),)):
    rng = np.random.default_rng(1)
    for number in range(count):
        height, width = sizes[number % len(sizes)]
        place = folder / ("2024" if number % 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(place / f"{number}.png")


def test_command_distils_from_a_library_without_labels_and_exports(tmp_path, monkeypatch, capsys):
    """timm's networks by name, a folder without class folders, images of two sizes."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photos", 24, sizes=((64, 64),))
    teacher = ["--teacher", "timm:test_vit", "--teacher-option", "pretrained=false", "--teacher-option", "img_size=64"]
    student = ["--student", "timm:test_efficientnet", "--epochs", "1", "--batch-size", "8", "--device", "cpu"]
    options = ["--task", "embedding", "--data", "folder:photos", "--precision", "fp32", "--out", "run"]
    assert main(["distill", *teacher, *student, *options]) == 0, capsys.readouterr().err
    shown = capsys.readouterr()
    assert "5 of 24 images are held out for the test" in shown.err
    assert "test effective rank" in shown.out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    answers = load_file(tmp_path / "run" / "predictions.safetensors")["student_logits"]
    values = np.linalg.svd(answers.astype(np.float64), compute_uv=False)
    shares = values / values.sum()
    assert metrics["test_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert not [key for key in metrics if "knn" in key or "probe" in key]

    assert main(["export", "run", "--out", "run.onnx"]) == 0, capsys.readouterr().err
    assert main(["verify", "run.onnx", "--model", "run"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main(["predict", "run.onnx", "photos/0.png", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["answer"]
    network = load_model(tmp_path / "run").eval()
    pixels = torch.from_numpy(np.asarray(Image.open("photos/0.png")).transpose(2, 0, 1).copy())[None]
    np.testing.assert_allclose(found, network(network.preprocessing(pixels))[0].detach(), atol=1e-4)


def test_teacher_and_student_may_be_modules_given_from_python(tiny, tmp_path):
    train, test = tiny.data()
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU())  # answers with maps
    teacher = build_model(str(tiny.teacher))
    run = mc.distill(
        torch.nn.Sequential(*list(teacher)[:-1]), body, (train, test), task="embedding", epochs=1, batch_size=5,
        run_dir=tmp_path / "run", device="cpu", precision="fp32",
    )  # fmt: skip
    assert run.backbone == tmp_path / "run" / "backbone.safetensors"
    assert load_file(run.backbone).keys() == body.state_dict().keys()
    assert run.metrics["task"] == "embedding"
    images = torch.from_numpy(test.images)
    answers = load_file(tmp_path / "run" / "predictions.safetensors")["student_logits"]
    maps = run.student(run.preprocessing(images)).detach()
    np.testing.assert_allclose(answers, maps.mean(dim=(2, 3)), atol=1e-5)


def test_images_of_several_sizes_are_scaled_where_nobody_names_one(tmp_path):
    from model_compression.data.sources import load_dataset

    draw(tmp_path / "photos", 10, sizes=((12, 16), (20, 15)))
    said = []
    train, test = load_dataset(f"folder:{tmp_path / 'photos'}", report=said.append, task="embedding")
    assert (len(train), len(test)) == (8, 2)
    assert train.image_shape == (3, 224, 224)
    assert train.task == test.task == "embedding-unlabelled"
    assert not train.labelled
    assert any("scaled to 224 pixels" in line for line in said)
    with pytest.raises(UsageError, match="unknown task 'embeding'; did you mean 'embedding'"):
        load_data(DataConfig(name=f"folder:{tmp_path / 'photos'}", task="embeding"), said.append)


def test_report_and_card_show_neighbours_and_compare_runs(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for method in ("align", "lightly"):
        start_run(config_of(tiny, method), tmp_path / "runs" / method)
    for kind in ("md", "html", "json"):
        assert main(["report", "runs", "--out", f"report.{kind}"]) == 0, capsys.readouterr().err
    page = (tmp_path / "report.html").read_text()
    assert "Nearest neighbours" in page
    assert page.count('alt="another class"') + page.count('alt="same class"') == 2 * 2 * 8 * 5
    metrics = json.loads((tmp_path / "runs" / "align" / "metrics.json").read_text())
    card = (tmp_path / "runs" / "align" / "README.md").read_text()
    assert "linear probe, trained on training images" in card
    assert f"{100 * metrics['test_linear_probe']:.2f}" in card
    assert "image-feature-extraction" in card
    assert main(["compare", "runs/align", "runs/lightly"]) == 0, capsys.readouterr().err
    assert "k-NN" in capsys.readouterr().out


def test_embeddings_are_written_with_the_names_of_their_files(tmp_path, monkeypatch, capsys):
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photos", 10, sizes=((64, 64),))
    command = ["embed", "timm:test_efficientnet", "--option", "pretrained=false", "--data", "folder:photos"]
    assert main([*command, "--out", "vectors.parquet", "--precision", "fp32"]) == 0, capsys.readouterr().err
    rows = pq.read_table("vectors.parquet").to_pylist()
    assert sorted(row["path"] for row in rows) == sorted(
        p.relative_to("photos").as_posix() for p in Path("photos").rglob("*.png")
    )
    assert [row["split"] for row in rows] == ["train"] * 8 + ["test"] * 2
    network = build_model("timm:test_efficientnet", {"num_classes": 0}, seed=0).eval()
    pixels = np.stack([np.asarray(Image.open(f"photos/{row['path']}")).transpose(2, 0, 1) for row in rows])
    channels = pixels[:8].transpose(1, 0, 2, 3).reshape(3, -1)  # the training images
    mean, std = channels.mean(axis=1), channels.std(axis=1)
    scaled = (pixels - mean[:, None, None]) / std[:, None, None]
    expected = network(torch.from_numpy(scaled).float()).detach()
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=2e-3)
    assert {row["label"] for row in rows} == {None}
    assert main([*command, "--out", "vectors.parquet"]) == 2
    assert "exists; choose another --out" in capsys.readouterr().err
    assert main([*command, "--out", "vectors.npy"]) == 2
    assert "must end in .parquet" in capsys.readouterr().err


def test_labels_of_another_task_judge_no_embeddings(tmp_path):
    """Names that are several classes each are not taken for one class: such labels are none here."""
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    rows = "".join(f"{number}.png,{kinds}\n" for number, kinds in enumerate(("a;b", "a", "b") * 2))
    (tmp_path / "t.csv").write_text("path,kinds\n" + rows)
    for task, known in (("multi-label", False), ("", True)):
        data = DataConfig(name=f"csv:{tmp_path / 't.csv'}", task=task)
        assert [one.labelled for one in load_as_embedding(data, "lenet", Silent())] == [known] * 2


def test_texts_are_cut_by_the_tokenizer_beside_the_network(tmp_path):
    tiny_texts.make_tokenizer(tmp_path)
    save_weights(tmp_path / "student.safetensors", create_model("lenet"))
    (tmp_path / "t.csv").write_text("text,mood\n" + "sun,a\nrain,b\n" * 5)
    train, test = load_as_embedding(f"csv:{tmp_path / 't.csv'}", str(tmp_path / "student.safetensors"), Silent())
    assert (train.noun, len(train) + len(test)) == ("texts", 10)


def test_any_network_is_judged_by_its_embeddings(tiny, tmp_path, capsys):
    """A classifier's file and a run without a head, against votes counted here and scikit-learn's regression."""
    start_run(config_of(tiny), tmp_path / "run")
    train, test = tiny.data()
    for model in (tiny.teacher, tmp_path / "run"):
        found = mc.evaluate(model, mc.DataConfig(name="tiny"), knn=True, device="cpu", precision="fp32")
        network = load_model(model).eval()
        body = torch.nn.Sequential(*list(network)[:-1]) if model == tiny.teacher else network
        known, vectors = (
            torch.nn.functional.normalize(body(network.preprocessing(torch.from_numpy(one.images))).detach()).double()
            for one in (train, test)
        )
        right = 0
        for one, label in zip(vectors, test.labels, strict=True):
            nearest = (known @ one).argsort(descending=True)[:20]
            weights = ((known[nearest] @ one - 1) / 0.07).exp().numpy()
            right += np.bincount(train.labels[nearest.numpy()], weights=weights).argmax() == label
        assert found.figures["knn"] == pytest.approx(right / len(test))
        low, high = found.intervals["knn"]
        assert low <= found.value <= high
    assert main(["test", "--model", str(tmp_path / "run"), "--knn"]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "linear probe" in shown
    assert "95 % interval" in shown
    with pytest.raises(UsageError, match="judges test images by training images"):
        mc.evaluate(tiny.teacher, "tiny", knn=True, split="train")


@pytest.mark.slow
def test_page_of_embeddings_runs_as_it_is_printed(tmp_path, monkeypatch, capsys):
    """On small networks of the same library, with random weights: those of the page are on a hub."""
    page = (Path(__file__).parents[2] / "docs" / "embeddings.md").read_text()
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)).replace("\\\n", " ")
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "unlabelled", 16, sizes=((64, 64),))
    draw(tmp_path / "photos", 6, sizes=((64, 64),))
    for name in ("apple", "pear"):
        draw(tmp_path / "labelled" / name, 6, sizes=((64, 64),))
    (tmp_path / "photos" / "0.png").rename(tmp_path / "photo.jpg")
    done = []
    for line in filter(None, map(str.strip, blocks.splitlines())):
        for theirs, ours in (("vit_small_patch14_dinov2.lvd142m", "test_vit"), ("repvit_m1", "test_efficientnet")):
            line = line.replace(theirs, ours)
        words = shlex.split(re.sub(r"--epochs \d+", "--epochs 1", line))
        words += ["--teacher-option", "img_size=64"] * ("--teacher" in words)
        words += ["--teacher-option", "pretrained=false"] * ("--teacher" in words)
        words += ["--epochs", "1", "--batch-size", "8"] * (words[1] == "train")
        assert main(words[1:]) == 0, capsys.readouterr().err
        done.append(words[1])
    assert done == ["distill", "train", "embed", "export", "predict"]
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["answer"]) == 256


def test_network_without_a_classifier_is_refused_where_classes_are_wanted(tiny, tmp_path, capsys):
    start_run(config_of(tiny), tmp_path / "run")
    assert main(["test", "--model", str(tmp_path / "run"), "--data", "tiny"]) == 2
    assert "has no classifier, it answers with embeddings: judge it with --knn" in capsys.readouterr().err


def test_methods_are_compared_without_a_label_only_arm(tiny, tmp_path):
    from model_compression.experiments.recipes import methods_protocol

    base = config_of(tiny)
    assert list(methods_protocol(base, [MethodConfig(name="align"), MethodConfig(name="lightly")], 0)) == [
        "align",
        "lightly",
    ]
    assert "kd" not in (served := methods_for(TASKS.create("embedding")))
    assert {"align", "align_tokens", "lightly", "rkd", "at"} <= set(served)
    assert "crd" not in served
    assert {"kd", "crd", "align_tokens"} <= set(classes := methods_for(TASKS.create("image-classification")))
    assert "align" not in classes


def test_teacher_that_answers_all_images_alike_is_refused(tiny, tmp_path):
    """Of images without labels, too."""
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
    constant = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))
    torch.nn.init.zeros_(constant[1].weight)
    data = (images, None, images[:10], np.arange(10) % 2)
    with pytest.raises(UsageError, match=r"gives 60 images embeddings that fill 1\.00 dimensions"):
        mc.distill(constant, "resnet8", data, task="embedding", run_dir=tmp_path / "run", device="cpu")
