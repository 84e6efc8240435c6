"""The tutorials run: their commands as they are printed, on small data and for an epoch."""

import re
import runpy
import shlex
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from model_compression.cli.main import main
from model_compression.distillation.methods import METHODS, create

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page, language):
    """The code blocks of a page."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


def commands(page):
    """The commands of a page, each a list of arguments, with one epoch in the place of more."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines() if line.strip()]
    return [shlex.split(re.sub(r"--epochs \d+", "--epochs 1", line), comments=True) for line in lines]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with photos/apple and photos/pear of different sizes."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("apple", "pear")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 120, (36 + number, 48, 3), dtype=np.uint8)
            pixels[:, :, label] += 100
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dark_and_bright():
    """30 images (30, 3, 8, 8) uint8 of two classes, and their labels."""
    images, labels = np.zeros((30, 3, 8, 8), dtype=np.uint8), np.arange(30) % 2
    images[labels == 1] = 200
    return images, labels


def linear():
    """A network without maps."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))


def convolutional(width):
    """A network whose layers have the numbers that docs/own-loop.md taps."""
    convolutions = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.Conv2d(width, width, 1)]
    last = [nn.ReLU(), nn.Conv2d(width, width, 1)]
    head = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classifier=nn.Linear(width, 10))
    return nn.Sequential(OrderedDict(features=nn.Sequential(*convolutions, *last), **head))


def test_own_images_from_the_folder_to_the_small_model(place, capsys):
    for command in commands("own-images.md"):
        assert command[0] == "model-compression"
        assert main(command[1:]) == 0, capsys.readouterr().err
        last = capsys.readouterr().out
    assert (place / "student.safetensors").stat().st_size < 300_000
    assert [line.partition("   ")[0] for line in last.splitlines()] == sorted(
        f"photos/apple/{n}.jpg" for n in range(20)
    )


@pytest.fixture
def vit(place):
    """my-vit: a transformer of two layers that has learnt apples and pears, as save_pretrained leaves it."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    from model_compression.data.folder import load_folder

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=2))
    processor = ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.4] * 3, image_std=[0.3] * 3)
    train, _ = load_folder(place / "photos", 16)
    pixels, labels = (torch.from_numpy(train.images[:]) / 255 - 0.4) / 0.3, torch.from_numpy(train.labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        model(pixel_values=pixels, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained("my-vit")
    processor.save_pretrained("my-vit")


@pytest.mark.usefixtures("vit")
def test_hugging_face_model_teaches_as_the_page_has_it(capsys):
    shown = []
    for command in commands("hugging-face-teacher.md"):
        assert main(command[1:]) == 0, capsys.readouterr().err
        shown.append(capsys.readouterr().out)
    assert "test accuracy       100.00%" in shown[0]  # so image processor, order and size are those of its training
    assert "vit.layers.1" in shown[2]
    script = Path("script.py")
    script.write_text(blocks("hugging-face-teacher.md", "python")[0].replace("epochs=30", "epochs=1"))
    assert runpy.run_path(str(script))["metrics"]["teacher_test_accuracy"] == 1.0


@pytest.mark.usefixtures("place")
def test_pytorch_data_sets_as_the_page_has_them():
    (block,) = blocks("data.md", "python")
    Path("script.py").write_text(block.replace("epochs=30", "epochs=1"))
    images = torch.arange(20 * 192).reshape(20, 3, 8, 8).remainder(251).to(torch.uint8)
    data = torch.utils.data.TensorDataset(images, torch.arange(20) % 2)
    modules = {name: nn.Sequential(nn.Flatten(), nn.Linear(192, 2)) for name in ("my_teacher", "my_student")}
    found = runpy.run_path("script.py", init_globals={**modules, "train_set": data, "test_set": data})
    assert "test_accuracy" in found["result"].metrics


@pytest.mark.usefixtures("place")
def test_unlabelled_and_streamed_images_as_the_page_has_them(tiny, capsys):
    Path("photos").rename("wild")
    (command,) = [line for line in commands("data.md") if "--unlabelled" in line]
    assert command[:2] == ["model-compression", "distill"]
    changed = [*command[1:], "--data", "tiny", "--teacher", str(tiny.teacher), "--student", "tiny", "--epochs", "1"]
    assert main([*changed, "--resident", "off", "--workers", "1"]) == 0, capsys.readouterr().err
    assert "agrees with the teacher" in capsys.readouterr().err


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("page", ["own-images.md", "../README.md"])
def test_own_module_and_arrays_as_the_page_has_it(page):
    (block,) = (block for block in blocks(page, "python") if "mc.distill" in block)
    script = Path("script.py")
    script.write_text(block.replace("epochs=30", "epochs=1"))
    images, labels = dark_and_bright()
    images = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)  # as from images of (H, W, 3)
    assert not images.flags.c_contiguous
    arrays = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    given = {"my_teacher": linear(), "my_student": linear(), "images": torch.from_numpy(images)}
    found = runpy.run_path(str(script), init_globals={**given, **arrays})
    assert found["logits"].shape == (30, 2)
    assert (found["result"].run_dir / "student.safetensors").exists()


def test_own_loop_as_the_page_has_it():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(20, 3, 8, 8, generator=generator), torch.arange(20) % 10
    loader = DataLoader(TensorDataset(images, labels), batch_size=8)
    torch.manual_seed(0)
    student = convolutional(4)
    before = [parameter.detach().clone() for parameter in student.parameters()]
    found = {"teacher": convolutional(6), "student": student, "loader": loader}
    for block in blocks("own-loop.md", "python"):
        exec(block.replace("range(30)", "range(1)"), found)
        assert bool(found["loss"].isfinite())
    assert set(found["terms"]) == {"fitnet", "sp"}
    assert not any(torch.equal(old, new) for old, new in zip(before, student.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in found["teacher"].parameters())


def test_own_method_as_the_page_has_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    monkeypatch.chdir(tmp_path)
    method, use = blocks("own-method.md", "python")
    (tmp_path / "losses.py").write_text(method)
    (command,) = blocks("own-method.md", "sh")
    assert command.endswith("--method losses:cosine\n")
    assert main(["methods", "losses:cosine"]) == 0
    assert "points where the teacher's does" in capsys.readouterr().out
    METHODS._entries.pop("cosine")
    images, labels = dark_and_bright()
    found = {"my_teacher": linear(), "my_student": linear(), "arrays": (images, labels, images, labels)}
    for _ in range(2):  # again, as in a notebook
        exec(method, found)
    exec(use.replace('"nin-cifar10", "lenet", "cifar10"', "my_teacher, my_student, arrays"), found)
    assert 0 <= float(capsys.readouterr().out) <= 1
    s, t = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    cosine = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(s, t, strict=True)]
    assert float(found["cosine_loss"](s, t)) == pytest.approx(1 - sum(cosine) / 4)
    assert sorted(create("kd,cosine").default_weights) == ["cosine", "kd"]


ROOT = DOCS.parent
_LIBRARY = re.compile(r"\b(?:timm|torchvision|hf):[\w./-]+")
_STANDS_FOR = {  # what is fetched → what is made here
    "pretrained=true": "pretrained=false",
    "hf:uoft-cs/cifar100,label=fine_label": "hf:./birds",
    "--size 224": "--size 64",
    "--image-size 128": "--image-size 32",
    "--image-size 224": "--image-size 32",
}


def library_commands():
    """Each command of README, docs and help texts that names something of timm, torchvision or Hugging Face."""
    pages = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((ROOT / "src/model_compression/cli").glob("*.py"))]
    found = {}
    for page in pages:
        text = re.sub(r"\\\\?\n\s*", "", page.read_text())  # one command on several lines
        for command in re.findall(r"(?:^\s*|`)(model-compression [^`\n]+)", text, flags=re.MULTILINE):
            command = re.split(r"\s{3,}", command)[0]  # without what a help text says beside it
            if _LIBRARY.search(command):
                found.setdefault(" ".join(command.split()), page.name)
    return [pytest.param(command, id=f"{page}: {command}"[:90]) for command, page in found.items()]


@pytest.mark.slow
@pytest.mark.usefixtures("vit")
@pytest.mark.parametrize("command", library_commands())
def test_command_with_a_network_or_data_set_of_a_library_runs(command, place, tiny, capsys):
    import datasets

    images = [Image.new("RGB", (40, 30), (number * 6, 100, 50)) for number in range(40)]
    rows = {"image": images, "label": [number % 2 for number in range(40)]}
    kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["wren", "tit"]))
    halves = {name: datasets.Dataset.from_dict(rows, features=kinds) for name in ("train", "test")}
    datasets.DatasetDict(halves).save_to_disk("birds")
    for fetched, made in _STANDS_FOR.items():
        command = command.replace(fetched, made)
    words = shlex.split(re.sub(r"--epochs \d+", "", command), comments=True)[1:]
    words += ["--epochs", "1"] * (words[0] in ("train", "distill", "compare-methods"))
    assert main(words) == 0, capsys.readouterr().err


def library_names():
    """Each network of timm or torchvision that a page or a help text names."""
    pages = [ROOT / "README.md", *DOCS.glob("*.md"), *(ROOT / "src/model_compression/cli").glob("*.py")]
    names = {name for page in pages for name in re.findall(r"\b(?:timm|torchvision):[a-z][\w.]*\w", page.read_text())}
    return sorted(names)


@pytest.mark.slow
@pytest.mark.parametrize("name", library_names())
def test_network_of_a_library_that_a_page_names_is_there(name, capsys):
    size = "224" if name.endswith("_224") else "64"  # of networks that take one size only
    assert main(["features", name, "--size", size]) == 0, capsys.readouterr().err


def test_commands_with_libraries_are_found():
    """The walk that the two tests above begin with finds what there is."""
    named = " ".join(parameter.values[0] for parameter in library_commands())
    assert all(name in named for name in ("timm:resnet18", "hf:my-vit", "hf:./birds"))
    assert {"timm:resnet18", "torchvision:resnet18"} <= set(library_names())
