"""The tutorials run: their commands as they are printed, on small data and for an epoch."""

import re
import runpy
import shlex
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import tiny_texts
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


_SMALL = {  # what the page of photographs names → what is as quick as a test must be
    "timm:resnet50": "timm:test_resnet",
    "timm:mobilenetv3_small_050": "timm:test_efficientnet",
    "pretrained=true": "pretrained=false",
    "224": "32",
    "--max-bytes 200000": "--max-bytes 200000 --step-epochs 1 --prune-epochs 1 --max-drop 30",
    "--student resnet20": "--student resnet8",
    "quantize runs/student": "quantize runs/student --max-drop 30",
}


@pytest.mark.slow
def test_photographs_from_the_folder_to_the_phone(place, capsys):
    """Each command of the page, with smaller networks and images."""
    for command in commands("photographs.md"):
        words = " ".join(command)
        for named, small in _SMALL.items():
            words = words.replace(named, small)
        _, *words = words.split()
        weak = ["--allow-weak-teacher"] if words[0] in ("distill", "compress") else []
        assert main([*words, *weak]) == 0, capsys.readouterr().err
        shown = capsys.readouterr().out
        if words[0] == "predict":
            named = [line.partition("   ")[0] for line in shown.splitlines()]
            assert named == sorted(f"photos/apple/{n}.jpg" for n in range(20))
    assert (place / "runs/small/student.onnx").stat().st_size <= 200_000
    assert (place / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_texts_from_a_table_to_a_file_that_ships(place, capsys):
    tiny_texts.make_network(place / "minilm", layers=4)
    rows = tiny_texts.make_texts(60, seed=0)
    (place / "mails.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    (place / "inbox").mkdir()
    for number, (text, _) in enumerate(rows[:40]):
        (place / "inbox" / f"{number}.txt").write_text(text)
    for command in commands("texts.md"):
        assert main(command[1:]) == 0, capsys.readouterr().err
        assert command[1] != "predict" or capsys.readouterr().out.splitlines()[-1].startswith("Win a prize now   ")


def test_texts_in_lists_train_distil_and_evaluate(place, capsys):
    tiny_texts.make_network(place / "minilm", layers=2)
    (code,) = blocks("texts.md", "python")
    exec(re.sub(r"epochs=\d+", "epochs=1, allow_weak_teacher=True", code), {})
    assert capsys.readouterr().out.startswith("<accuracy ")
    assert len([*(place / "runs").glob("*/student.safetensors")]) == 3


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


@pytest.mark.slow
def test_segmentation_as_the_page_has_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 10)):
        for name in ("images", "masks"):
            Path("scenes", part, name).mkdir(parents=True)
        for number in range(count):
            mask = np.repeat(np.repeat(rng.integers(0, 3, (2, 2)), 8, axis=0), 8, axis=1).astype(np.uint8)
            pixels = np.stack([mask * 100, 200 - mask * 90, mask * 0 + 60], axis=2).astype(np.uint8)
            Image.fromarray(pixels).save(Path("scenes", part, "images", f"{number}.png"))
            Image.fromarray(mask).save(Path("scenes", part, "masks", f"{number}.png"))
    for command in commands("tasks.md"):
        if not any(part in " ".join(command) for part in ("folder:scenes", "masks.onnx")):
            continue  # of other tasks
        if command[1] == "distill":
            command.append("--allow-weak-teacher")
        assert main(command[1:]) == 0, capsys.readouterr().err
    assert np.asarray(Image.open("scenes/test/images/0.mask.png")).max() < 3


@pytest.mark.slow
def test_tasks_as_the_page_has_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng, rows = (
        np.random.default_rng(0),
        {"photos.csv": ["path,classes"], "plants.csv": ["path,height [mm],weight [g]"]},
    )
    (tmp_path / "photos").mkdir(exist_ok=True)
    for number in range(90):
        on = rng.integers(0, 2, 3)
        Image.fromarray((rng.integers(0, 90, (8, 8, 3)) + 120 * on).astype(np.uint8)).save(f"photos/{number}.png")
        rows["photos.csv"].append(
            f"photos/{number}.png,{';'.join(name for name, is_on in zip('abc', on, strict=True) if is_on)}"
        )
        rows["plants.csv"].append(f"photos/{number}.png,{100 + 50 * on[0]},{on[1] + on[2] + number / 1000}")
    for name, lines in rows.items():
        Path(name).write_text("\n".join([*lines, ""]))
    answers = {
        "labels.onnx": r"(( [abc] \d+\.\d%)+| none of its classes)$",
        "values.onnx": r" height \[mm\] .* weight \[g\] ",
    }
    for command in commands("tasks.md"):
        if not any(part in " ".join(command) for part in ("photos.csv", "plants.csv", *answers)):
            continue  # of other tasks
        if command[1] == "distill":
            command.append("--allow-weak-teacher")
        assert main(command[1:]) == 0, capsys.readouterr().err
        shown = capsys.readouterr().out
        if command[1] == "predict":
            assert re.search(answers[command[2]], re.sub(" +", " ", shown.strip()))


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


def test_pictures_of_views_as_the_page_has_them(place, capsys):
    """The command of the page, on photographs of other sizes."""
    (command,) = [line for line in commands("data.md") if "--pictures" in line]
    assert main(command[1:]) == 0, capsys.readouterr().err
    with Image.open("views.png") as sheet:
        assert sheet.size == (8 * 228 + 12, 8 * 228 + 4)


@pytest.mark.usefixtures("place")
def test_unlabelled_and_streamed_images_as_the_page_has_them(tiny, capsys):
    Path("photos").rename("wild")
    (command,) = [line for line in commands("data.md") if "--unlabelled" in line]
    assert command[:2] == ["model-compression", "distill"]
    changed = [*command[1:], "--data", "tiny", "--teacher", str(tiny.teacher), "--student", "tiny", "--epochs", "1"]
    assert main([*changed, "--resident", "off", "--workers", "1"]) == 0, capsys.readouterr().err
    assert "agrees with the teacher" in capsys.readouterr().err


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("page", ["photographs.md", "../README.md"])
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
    assert command.endswith("--method losses:direction\n")
    assert main(["methods", "losses:direction"]) == 0
    assert "points where the teacher's does" in capsys.readouterr().out
    METHODS._entries.pop("direction")
    images, labels = dark_and_bright()
    found = {"my_teacher": linear(), "my_student": linear(), "arrays": (images, labels, images, labels)}
    for _ in range(2):  # again, as in a notebook
        exec(method, found)
    exec(use.replace('"nin-cifar10", "lenet", "cifar10"', "my_teacher, my_student, arrays"), found)
    assert 0 <= float(capsys.readouterr().out) <= 1
    s, t = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    cosine = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(s, t, strict=True)]
    assert float(found["cosine_loss"](s, t)) == pytest.approx(1 - sum(cosine) / 4)
    assert sorted(create("kd,direction").default_weights) == ["direction", "kd"]


ROOT = DOCS.parent
_LIBRARY = re.compile(r"\b(?:timm|torchvision|hf):[\w./-]+")
_STANDS_FOR = {  # what is fetched → what is made here
    "lvd142m --knn": "lvd142m --data folder:photos --image-size 32 --knn",
    "embed timm:resnet18 --weights own.pt": "embed hf:my-vit --data folder:photos --image-size 32",
    "timm:vit_small_patch14_dinov2.lvd142m": "hf:my-vit",
    "folder:unlabelled": "folder:photos --image-size 32",
    "pretrained=true": "pretrained=false",
    "hf:uoft-cs/cifar100,label=fine_label": "hf:./birds",
    "--size 224": "--size 64",
    "--image-size 128": "--image-size 32",
    "--image-size 224": "--image-size 32",
    "--image-size 518": "--image-size 32",
}


def library_commands():
    """Each command of README, docs and help texts that names something of timm, torchvision or Hugging Face."""
    pages = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((ROOT / "src/model_compression/cli").glob("*.py"))]
    found = {}
    for page in pages:
        if page.name in ("texts.md", "embeddings.md", "photographs.md"):  # which are run as a whole
            continue
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
    sizes = {"_224": "224", "patch14_dinov2.lvd142m": "518"}  # of networks that take one size only
    size = next((size for end, size in sizes.items() if name.endswith(end)), "64")
    assert main(["features", name, "--size", size]) == 0, capsys.readouterr().err


def test_commands_with_libraries_are_found():
    """The walk that the two tests above begin with finds what there is."""
    named = " ".join(parameter.values[0] for parameter in library_commands())
    assert all(name in named for name in ("timm:resnet18", "hf:my-vit", "hf:./birds"))
    assert {"timm:resnet18", "torchvision:resnet18"} <= set(library_names())
