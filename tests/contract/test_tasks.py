"""Every command with every task, at small scale. A task joins by a function that writes its data: see `PROJECTS`."""

import json
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import tiny_texts
from PIL import Image

from model_compression.cli.main import main
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.experiments import executor, worker

SIDE, TRAIN, TEST = 8, 40, 24


@dataclass(frozen=True, kw_only=True)
class Project:
    """What the commands get for one task: the words that name the data, a method, a network and a sample to predict.

    ``wild`` is the same kind of data, of which labels are ignored.
    ``shows`` is what a prediction has in JSON, ``to`` what a file is quantised to. ``impossible`` maps
    a command to the one line that it ends with.
    """

    data: list[str]
    method: str
    label: str
    sample: str
    shows: str
    wild: str = "folder:p"
    student: str = "resnet8"
    to: str = "int8"
    is_of_images: bool = True
    impossible: Mapping[str, str] = field(default_factory=dict)


def pictures(folder: Path) -> list[np.ndarray]:
    """Images that are brighter in some channels, written as p/NUMBER.png; (TRAIN + TEST, 3) which."""
    rng = np.random.default_rng(0)
    (folder / "p").mkdir()
    bright = rng.integers(0, 2, (TRAIN + TEST, 3))
    for number, on in enumerate(bright):
        pixels = rng.integers(0, 90, (SIDE, SIDE, 3)) + on * 120
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "p" / f"{number}.png")
    return bright


def table(folder: Path, head: str, cells: list[str]) -> list[str]:
    parts = ["test" if number % 8 in (1, 4, 6) else "train" for number in range(TRAIN + TEST)]
    rows = [f"p/{number}.png,{cell},{part}" for number, (cell, part) in enumerate(zip(cells, parts, strict=True))]
    (folder / "t.csv").write_text("\n".join([f"path,{head},split", *rows, ""]))
    return ["csv:t.csv"]


def image_classification(folder: Path) -> Project:
    cells = ["light" if on[0] else "dark" for on in pictures(folder)]
    return Project(data=table(folder, "label", cells), method="kd", label="accuracy", sample="p/0.png", shows="classes")


def multi_label(folder: Path) -> Project:
    cells = [";".join(name for name, on in zip("rgb", row, strict=True) if on) for row in pictures(folder)]
    data = [*table(folder, "label", cells), "--task", "multi-label"]
    return Project(data=data, method="kd", label="mAP", sample="p/0.png", shows="present")


def regression(folder: Path) -> Project:
    cells = [
        f"{100 + 20 * on.sum() + number / 9:.3f},{on[0] - 0.001 * number:.3f}"
        for number, on in enumerate(pictures(folder))
    ]
    data = table(folder, "weight [g],redness", cells)
    return Project(
        data=data, method="logits", label="R²", sample="p/0.png", shows="values",
        impossible={"distill --method kd": "method 'kd' compares bernoulli or categorical answers"},
    )  # fmt: skip


def segmentation(folder: Path) -> Project:
    """Squares of three classes on the ground; some pixels do not count."""
    rng = np.random.default_rng(0)
    for part, count in (("train", TRAIN), ("test", TEST)):
        for name in ("images", "masks"):
            (folder / "scenes" / part / name).mkdir(parents=True)
        for number in range(count):
            mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
            (top, left), kind = rng.integers(0, 4, 2).tolist(), number % 3
            mask[top : top + 4, left : left + 4] = kind + 1
            pixels = rng.integers(0, 90, (SIDE, SIDE, 3))
            pixels[mask > 0, kind] += 120
            mask[0] = np.where(mask[0] == 0, 255, mask[0])
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "scenes" / part / "images" / f"{number}.png")
            Image.fromarray(mask).save(folder / "scenes" / part / "masks" / f"{number}.png")
    (folder / "scenes" / "classes.txt").write_text("ground\nred\ngreen\nblue\n")
    sample = "scenes/test/images/0.png"
    return Project(
        data=["folder:scenes"], method="kd", label="mIoU", sample=sample, shows="mask", student="unet",
        wild="folder:scenes/train/images",
        impossible={"distill --method crd": "compares samples by their class or number"},
    )  # fmt: skip


def text_rows(folder: Path, rows: list[dict]) -> list[str]:
    """rows.jsonl and test.jsonl, and a small network with a tokenizer in bert."""
    tiny_texts.make_network(folder / "bert", layers=2)
    for name, part in (("rows", rows[TEST:]), ("test", rows[:TEST])):
        tiny_texts.write_jsonl(folder / f"{name}.jsonl", part)
    return ["jsonl:rows.jsonl", "--test-table", "test.jsonl", "--tokenizer", "bert"]


def text_classification(folder: Path) -> Project:
    rows = [{"text": text, "label": mood} for text, mood in tiny_texts.make_texts(TRAIN + TEST, seed=0)]
    return Project(
        data=text_rows(folder, rows), method="kd", label="accuracy", sample="the sun", shows="classes",
        wild="jsonl:rows.jsonl", student="hf:./bert", to="int8-dynamic", is_of_images=False,
        impossible={
            "distill --method kd --augmentation flip": "these samples are texts: use --mask-tokens",
            "distill --method kd --student-size 8": "mean, std and size are of images",
        },
    )  # fmt: skip


def token_classification(folder: Path) -> Project:
    rows = [{"tokens": words, "tags": tags} for words, tags in tiny_texts.make_tagged(TRAIN + TEST, seed=0)]
    return Project(
        data=text_rows(folder, rows), method="kd", label="accuracy", sample="the sun", shows="words",
        wild="jsonl:rows.jsonl", student="hf:./bert", to="int8-dynamic", is_of_images=False,
        impossible={"distill --method crd": "compares samples by their class or number"},
    )  # fmt: skip


PROJECTS: dict[str, Callable[[Path], Project]] = {
    "image-classification": image_classification,
    "multi-label": multi_label,
    "regression": regression,
    "segmentation": segmentation,
    "text-classification": text_classification,
    "token-classification": token_classification,
}
SHORT = ["--epochs", "1", "--batch-size", "16", "--precision", "fp32", "--device", "cpu"]


@pytest.fixture(scope="module", params=PROJECTS)
def project(request, tmp_path_factory):
    """A folder with the data of a task and the finished runs "teacher" and "student"; work goes on there."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MODEL_COMPRESSION_CACHE", str(folder / "cache"))
        found = PROJECTS[request.param](folder)
        data = ["--data", *found.data, *SHORT]
        ran("train", "--student", found.student, *data, "--out", "teacher", "--lr", "1e-2")
        learned = ["--teacher", "teacher", "--allow-weak-teacher", "--method", found.method]
        ran("distill", "--student", found.student, *learned, *data, "--out", "student")
        yield found


def ran(*words, code=0):
    """Runs a command, which must end with ``code``."""
    assert main([*words]) == code, words


def test_run_leaves_its_figures_and_reports_show_them(project, capsys):
    metrics = json.loads(Path("student/metrics.json").read_text())
    value = next(value for key, value in metrics.items() if key.startswith("test_"))
    capsys.readouterr()
    ran("test", "--model", "student", "--precision", "fp32", "--json")
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    name = next(key for key in metrics if key.startswith("test_")).removeprefix("test_")
    assert measured[name] == pytest.approx(value, abs=1e-6)
    for kind in ("md", "html", "json"):
        ran("report", "teacher", "student", "--out", f"report.{kind}")
        text = Path(f"report.{kind}").read_text()
        assert project.label in text or name in text
        others = re.sub(r"--[a-z-]+|pixel.accuracy", "", text.lower())
        assert project.label == "accuracy" or "accurac" not in others
    ran("compare", "teacher", "student")
    ran("runs", ".")
    assert project.label in capsys.readouterr().out
    assert project.label in Path("student/README.md").read_text()


def test_data_and_teacher_are_examined(project, capsys):
    ran("data", *project.data)
    assert "odd       nothing" in capsys.readouterr().out
    main(
        [
            "doctor",
            "--teacher",
            "teacher",
            "--student",
            project.student,
            "--data",
            *project.data,
            "--method",
            project.method,
        ]
    )
    assert "a step from the same state gives the same bits" in capsys.readouterr().out.replace("\n", " ").replace(
        "  ", ""
    )


@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "no labels"])
def test_a_run_that_is_stopped_within_an_epoch_ends_with_the_same_bits(project, monkeypatch, labelled, capsys):
    stepped = ConsoleObserver.stepped

    def stop(self, progress):
        stepped(self, progress)
        if progress.step == 2 and not Path(f"{out}/state.safetensors").exists():
            signal.raise_signal(signal.SIGTERM)

    learned = ["--teacher", "teacher", "--allow-weak-teacher", "--method", project.method]
    command = ["distill", "--student", project.student, *learned, "--data", *project.data, *SHORT]
    whole, out = ("student", "stopped") if labelled else ("wild", "stopped-wild")
    if not labelled:
        command += ["--unlabelled", project.wild, "--label-weight", "0"]
        ran(*command, "--out", whole)
        assert "agrees with the teacher" in capsys.readouterr().err
    monkeypatch.setattr(ConsoleObserver, "stepped", stop)
    ran(*command, "--out", out, code=143)
    assert not Path(f"{out}/student.safetensors").exists()
    ran("resume", out)
    assert Path(f"{out}/student.safetensors").read_bytes() == Path(f"{whole}/student.safetensors").read_bytes()


def test_stored_answers_serve_the_next_run(project, capsys):
    learned = [
        "--teacher",
        "teacher",
        "--allow-weak-teacher",
        "--method",
        project.method,
        "--data",
        *project.data,
        *SHORT,
    ]
    ran("distill", "--student", project.student, *learned, "--out", "first", "--teacher-cache", "answers")
    ran("distill", "--student", project.student, *learned, "--out", "second", "--teacher-cache", "answers")
    assert "storing the teacher's answers" not in capsys.readouterr().err.partition("first")[2]
    assert Path("first/student.safetensors").read_bytes() == Path("second/student.safetensors").read_bytes()
    ran("cache", "check", "answers")


@pytest.mark.slow
def test_file_answers_as_the_network_does_on_every_test_sample(project, capsys):
    ran("export", "student", "--out", "student.onnx")
    ran("verify", "student.onnx", "--model", "student", "--json")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["images"] == TEST
    ran("predict", "student.onnx", project.sample, "--json")
    assert project.shows in json.loads(capsys.readouterr().out)
    ran("predict", "student.onnx", project.sample, "--force")
    for model in ("student", "student.onnx"):
        capsys.readouterr()
        ran("measure", model, "--seconds", "0.1", "--batch-size", "2", "--tokens", "8", "--json")
        found = json.loads(capsys.readouterr().out)["latency"]
        assert all(f"{'images' if project.is_of_images else 'texts'}_per_second" in one for one in found)
        assert {one["runtime"] for one in found} == (
            {"ONNX Runtime", "PyTorch"} if model == "student" else {"ONNX Runtime"}
        )


def test_method_that_does_not_serve_the_task_is_refused_by_name(project, capsys):
    for command, line in project.impossible.items():
        words = [
            *command.split(),
            "--teacher",
            "teacher",
            "--student",
            project.student,
            "--data",
            *project.data,
            *SHORT,
        ]
        ran(*words, "--out", "refused", code=2)
        assert line in capsys.readouterr().err
        assert not Path("refused").exists()


@pytest.mark.slow
def test_network_is_pruned_and_quantised(project, capsys):
    learned = ["--method", project.method, "--epochs", "1", "--allow-weak-teacher"]
    ran("prune", "student", "--sparsity", "0.3", "--steps", "1", *learned, "--out", "sparse")
    if project.is_of_images:
        ran("prune", "student", "--macs", "0.7", "--steps", "1", *learned, "--out", "pruned")
        assert project.label in capsys.readouterr().out
    else:
        ran("prune", "student", "--macs", "0.7", *learned, "--out", "refused", code=2)
        ran("quantize", "student", *learned, "--out", "refused", code=2)
        assert "has texts; use --to int8-dynamic" in capsys.readouterr().err
        learned = []
    ran("quantize", "student", "--to", project.to, "--max-drop", "100", *learned, "--out", "small")
    ran("predict", "small/student.onnx", project.sample, "--json", "--force")
    assert project.shows in capsys.readouterr().out.splitlines()[-1]
    ran("pack", "student", "--out", "packed.safetensors", "--data", *project.data)
    ran("test", "--model", "packed.safetensors", "--data", *project.data)


def in_this_process(task, watch, stopped, *, debug, environment):
    """What `processes.run_isolated` does, without the seconds that a process takes to start."""
    return (worker._prepare if task["task"] == "prepare" else worker._train)(task, watch)


@pytest.mark.slow
def test_whole_pipeline_methods_and_search(project, capsys, monkeypatch):
    monkeypatch.setattr(executor, "run_isolated", in_this_process)
    learned = ["--data", *project.data, *SHORT, "--allow-weak-teacher"]
    taught = ["--teacher", "teacher", "--student", project.student]
    compress = ["compress", *taught, *learned, "--method", project.method, "--quantize-epochs", "1"]
    ran(*compress, "--max-drop", "100", "--out", "all", code=0 if project.is_of_images else 2)
    found = capsys.readouterr()
    if project.is_of_images:
        assert project.label in found.out
    else:
        assert "then model-compression quantize RUN --to int8-dynamic" in found.err.replace("\n", " ")
    ran(
        "compare-methods",
        *taught,
        *learned,
        "--methods",
        f"{project.method},fitnet",
        "--seeds",
        "2",
        "--out",
        "compared",
    )
    assert project.label in capsys.readouterr().out
    search = [
        "--validation",
        "8",
        "--trials",
        "2",
        "--final-seeds",
        "1",
        "--tune",
        "lr=1e-3:1e-2:log",
        "--out",
        "searched",
    ]
    ran("search", *taught, *learned, "--method", project.method, *search)
    assert project.label in capsys.readouterr().out
