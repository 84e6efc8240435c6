"""The benchmarks run, and count what they say they count."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks import architecture, brown, digests, loading, photographs, topk_accuracy, zoo
from benchmarks.precision import table as precision_table
from benchmarks.small_students import table
from PIL import Image

from model_compression.reports.records import record_path, save_record

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_speed_benchmark_measures_each_way_and_writes_the_table(tmp_path):
    options = ["--seconds", "0.5", "--rounds", "2", "--ways", "live", "bare", "peak", "--batch-size", "64"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed", *options, "--name", "trial"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "results/benchmarks/trial.json").read_text())
    assert content["training_flop_an_image"] == 157_655_040  # REFERENCE: 7.88 TFLOP for 50,000
    assert {way: len(result["rates"]) for way, result in content["ways"].items()} == {"live": 2, "bare": 2, "peak": 2}
    assert min(min(result["rates"]) for result in content["ways"].values()) > 0
    assert "| live | " in (tmp_path / "results/benchmarks/trial.md").read_text()


@pytest.mark.slow
def test_stored_answers_take_54_bytes_of_16_from_1000_classes(tmp_path):
    """16 · 2 bytes of logits, 2 of the rest and 16 · 10 bits of classes; 64 letters of a digest for 500 images."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stored_answers", "--images", "5000", "--seconds", "0.2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results/benchmarks/stored-answers-cpu.json").read_text())["rows"]
    extra = 2000 / 5000 + 64 / 500
    assert 54 < found[0]["bytes_an_image"] < 54 + extra
    assert 2000 < found[1]["bytes_an_image"] < 2000 + extra
    assert "| 16 largest | 0.3 | 54." in (tmp_path / "results/benchmarks/stored-answers-cpu.md").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the other loaders
@pytest.mark.parametrize(("way", "count"), [("here", 8), ("torchvision", 10), ("timm", 10)])
def test_every_loader_shows_the_images_of_a_folder_as_bytes(tmp_path, way, count):
    (tmp_path / "photographs").mkdir()
    for number in range(5):
        Image.new("RGB", (320, 240), (50 * number, 0, 255)).save(tmp_path / "photographs" / f"{number}.jpg")
    loading.spread(tmp_path / "train", sorted((tmp_path / "photographs").iterdir()), 10)
    images = torch.cat(list(loading.WAYS[way](str(tmp_path), 4, 0)))  # here a fifth is held out for the test
    assert (images.shape, images.dtype) == ((count, 3, 224, 224), torch.uint8)
    colours = {round(image[0].float().mean().item() / 50) for image in images}
    assert colours <= set(range(5))
    assert len(colours) >= 4
    assert (images[:, 2] > 250).all()


def test_table_of_largest_logits_pairs_the_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(topk_accuracy, "FOLDER", tmp_path)
    for kept, accuracies in ((0, (0.70, 0.72, 0.74)), (3, (0.71, 0.72, 0.76))):
        for seed, value in enumerate(accuracies):
            metrics = {"test_accuracy": value, "teacher_agreement": 0.75}
            arm = topk_accuracy.arm(kept)
            record = {"arm": arm, "config": {"seed": seed}, "events": [], "metrics": metrics}
            save_record(record_path(tmp_path, arm, seed), record)
    rows = topk_accuracy.table(3, 10, [3]).splitlines()[-2:]
    assert rows[0] == "| all 10 logits | 72.00% ± 4.97 | 75.00% |  | 70.00%, 72.00%, 74.00% |"
    # differences 1, 0 and 2 points: mean 1, 4.303 · 1 / √3
    assert rows[1] == "| 3 largest of 10 | 73.00% ± 6.57 | 75.00% | +1.00 ± 2.48 | 71.00%, 72.00%, 76.00% |"


def test_table_of_small_students_has_means_over_seeds_and_costs_against_the_first_stage():
    def result(first, second, milliseconds):
        stages = [("distilled", "PyTorch", first, 1000, 3.0), ("int8", "ONNX Runtime", second, 90, milliseconds)]
        names = ("name", "runtime", "accuracy", "size_bytes", "median_ms")
        where = {"date": "2026-01-01", "cores": 2, "processor": "P", "python": "3.11", "versions": {}}
        return {
            "surroundings": where,
            "threads": 2,
            "teacher_accuracy": 0.9,
            "stages": [dict(zip(names, values, strict=True)) for values in stages],
        }

    text = table({"lenet": [result(0.80, 0.79, 1.0), result(0.82, 0.82, 0.5)]})
    row = next(line for line in text.splitlines() if line.startswith("| int8 "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:4] == ["90", "9.0%"]
    assert cells[4:6] == ["80.50% ± 19.06", "2.12"]  # 12.706 · 0.0212 / √2
    assert cells[6:] == ["79.00%, 82.00%", "-0.50", "0.750", "4.0"]
    assert "lenet, n = 2" in text


@pytest.mark.slow
def test_digests_are_those_of_the_record_until_a_result_changes(tmp_path, monkeypatch, capsys):
    options = ["--data", "synthetic", "--epochs", "1", "--student", "resnet8", "--precision", "fp32", "--out"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digests, "RUNS", {"labels": ["train", *options, "labels"]})
    monkeypatch.setattr(sys, "argv", ["digests", "--record"])
    assert digests.main() == 0
    monkeypatch.setattr(sys, "argv", ["digests"])
    assert digests.main() == 0
    assert "3 of 3 digests are those of" in capsys.readouterr().out
    monkeypatch.setattr(digests, "RUNS", {"labels": ["train", "--seed", "1", *options, "labels"]})
    assert digests.main() == 1
    assert "labels/student.safetensors: " in capsys.readouterr().out


def test_table_of_precisions_says_how_near_to_the_best_auto_comes():
    def row(taken, fp32, bf16):
        shape = {"network": "n", "side": 32, "batch": 8, "auto": taken, "auto_seconds": 1.26}
        return {**shape, "seconds": {"fp32": fp32, "bf16": bf16}}

    text = precision_table([row("fp32", 0.0102, 0.01), row("bf16", 0.02, 0.01)], "bf16", "here", torch.device("cpu"))
    rows = [line for line in text.splitlines() if line.startswith("| `n`")]
    assert rows == [
        "| `n` | 32 | 8 | 10.2 | 10.0 | fp32 | 1.02 | 1.00 | 1.3 |",
        "| `n` | 32 | 8 | 20.0 | 10.0 | bf16 | 1.00 | 1.00 | 1.3 |",
    ]
    assert "Within 3% of the best: 2 of 2." in text
    assert "Within 3% of the best: 0 of 1." in precision_table(
        [row("bf16", 0.01, 0.02)], "bf16", "", torch.device("cpu")
    )


def test_picture_of_the_parts_shows_those_that_there_are():
    drawn = " ".join(architecture.OUT.read_text(encoding="utf-8").split())
    for row in architecture.layers(architecture.parts()):
        for name in row:
            assert f">{name}</text>" in drawn
            assert architecture.description(name).split()[-1] in drawn


def test_words_of_the_brown_corpus_have_the_class_of_their_tag_without_its_suffix(tmp_path):
    text = "\n\n\tHe's/pps+bez not/* Allen's/np$ fw/fw-nn-tl 1/2/cd --/---hl ./.-hl\n\n\tGo/vb\n"
    (tmp_path / "ca01").write_text(text, encoding="latin-1")
    first, second = brown.sentences(tmp_path / "ca01")
    assert first[0] == ["He's", "not", "Allen's", "fw", "1/2", "--", "."]
    assert first[1] == ["pronoun", "particle", "noun", "other", "number", "mark", "mark"]
    assert second == (["Go"], ["verb"])


def test_page_of_the_zoo_is_what_the_records_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = zoo.PAGE.read_text()
    assert zoo.written(page, zoo.tables()) == page


def test_zoo_takes_means_over_seeds_and_the_largest_file(tmp_path, monkeypatch):
    for name in ("FOLDER", "SMALL", "PHOTOGRAPHS"):
        monkeypatch.setattr(zoo, name, tmp_path / name)
    where = {"date": "2026-01-01", "processor": "a CPU", "cores": 2, "python": "3.11", "versions": {}}
    (tmp_path / "SMALL").mkdir()
    for seed, (size, accuracy, ms) in enumerate([(100, 0.5, 3.0), (300, 0.7, 1.0), (200, 0.9, 2.0)]):
        stage = {"runtime": "ONNX Runtime", "parameters": 7, "macs": 2_000_000}
        stage |= {"size_bytes": size, "accuracy": accuracy, "median_ms": ms}
        stages = [{**stage, "name": name} for name in ("distilled", "pruned", "int4")]
        (tmp_path / "SMALL" / f"net-seed{seed}.json").write_text(json.dumps({"surroundings": where, "stages": stages}))
    (tmp_path / "FOLDER").mkdir()
    form = {"bytes": 4000, "accuracy": 0.8, "median_ms": 0.5, "threads": 2, "disturbed": False}
    files = {"parameters": 1000, "macs": 5_000_000, "float32": form, "int8": {**form, "bytes": 1100, "disturbed": True}}
    (tmp_path / "FOLDER" / "lenet-cifar10.json").write_text(json.dumps({"surroundings": where, "files": files}))
    rows = [line for line in zoo.tables().splitlines() if line.startswith("| `")]
    assert rows[0].startswith(
        "| `lenet-cifar10` | 1,000 | 5.0 M | 4,000 | 80.00% | 0.500 | 1,100 (int8) | 80.00% | 0.500 (disturbed) |"
    )
    assert rows[1].startswith("| `net`, distilled | 7 | 2.0 M | 300 | 70.00% | 2.000 | | | | ")
    assert "| 300 (int4) | 70.00% | 2.000 | `python -m benchmarks.small_students --students net --seeds 3` |" in rows[2]


def test_photographs_are_as_many_of_each_class_and_runs_differ_in_teacher_and_seed(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(photographs, "RUNS", tmp_path)
    train, _ = photographs.load_dataset("tiny")
    photographs._write(tmp_path / "train", train, 2)
    found = sorted(path.relative_to(tmp_path / "train") for path in (tmp_path / "train").rglob("*.jpg"))
    assert [path.parts[0] for path in found] == sorted(2 * train.class_names)
    with Image.open(tmp_path / "train" / found[0]) as image:
        assert image.size == (224, 224)
    labels, distilled = (photographs.config_of(f"resnet18-{arm}-seed3", tmp_path) for arm in photographs.ARMS)
    assert (labels.teacher, labels.seed, labels.student.name) == (None, 3, "timm:resnet18")
    assert distilled.teacher.name == str(tmp_path / "teacher")
    assert distilled.data == labels.data
