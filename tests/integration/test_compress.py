"""The one command: stages in turn, what they cost, the budget, and going on at the stage that was interrupted."""

import dataclasses
import errno
import json
import os
import signal
import sys
from collections import OrderedDict
from weakref import WeakKeyDictionary

import numpy as np
import pytest
from torch import nn

from model_compression.cli.compression_reports import print_compressed
from model_compression.cli.main import main
from model_compression.compression import pipeline
from model_compression.compression.config import Budget, CompressConfig
from model_compression.compression.pipeline import Compression, broken, compress
from model_compression.core.config import ModelConfig
from model_compression.core.config_json import to_json
from model_compression.core.errors import (
    Interrupted,
    MissingExtraError,
    ModelCompressionError,
    NotVerifiedError,
    RunFolderError,
)
from model_compression.core.text import NO_BREAK
from model_compression.data import loader
from model_compression.data.sources import DATASETS
from model_compression.exporting.runtimes import open_file
from model_compression.exporting.verify import Verification
from model_compression.models.base import MODELS, Network
from model_compression.reports.compression_stages import Stage, front, markdown, plot, read_compression, to_plain
from model_compression.reports.contents import make_report
from model_compression.reports.html import to_html
from model_compression.reports.page_parts import tiles
from model_compression.reports.shipped import read_shipped


def wide(num_classes=3):
    layers = OrderedDict(conv1=nn.Conv2d(3, 12, 3, bias=False), bn1=nn.BatchNorm2d(12), relu1=nn.ReLU())
    layers |= {
        "flatten": nn.Flatten(),
        "ip1": nn.Linear(432, 16),
        "relu2": nn.ReLU(),
        "ip2": nn.Linear(16, num_classes),
    }
    return Network(layers)


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setitem(MODELS._entries, "wide", wide)


def settings(tiny, **changes):
    run = tiny.config("kd", student=ModelConfig(name="wide"))
    given = {"budget": Budget(), "share": 0.5, "steps": 2, "step_epochs": 1, "prune_epochs": 2, "max_drop": 99}
    return CompressConfig(run=run, **{**given, **changes})


UPLOADED = []  # names of the datasets whose images `whole` copied to the device


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A compression that nothing interrupted."""
    folder, upload = tmp_path_factory.mktemp("whole") / "c", loader.upload
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS._entries, "wide", wide)
        patch.setattr(loader, "_COPIES", WeakKeyDictionary())  # none of tests before
        patch.setattr(loader, "upload", lambda data, device: UPLOADED.append(data.name) or upload(data, device))
        return folder, compress(settings(tiny), folder)


@pytest.mark.slow
def test_each_image_of_a_compression_is_on_the_device_once(whole, tiny):
    assert sorted(name for name in UPLOADED if "[" not in name) == ["tiny", "tiny-test"]  # the others are samples


@pytest.mark.slow
def test_stages_are_in_the_table_with_what_they_cost(whole, tiny):
    folder, result = whole
    names = [(stage["name"], stage["runtime"]) for stage in result["stages"]]
    runtimes = ("PyTorch", "ONNX Runtime")
    assert names == [(name, runtime) for name in ("distilled", "pruned") for runtime in runtimes] + [
        ("int8", "ONNX Runtime")
    ]
    assert json.loads((folder / "stages.json").read_text()) == json.loads(json.dumps(result))
    _, test = tiny.data()
    for path, stage in (("distilled-float32.onnx", 1), ("pruned-float32.onnx", 3), ("student.onnx", 4)):
        right = float((open_file(folder / path).run(test.images).argmax(axis=1) == test.labels).mean())
        assert result["stages"][stage]["accuracy"] == pytest.approx(right)
        assert result["stages"][stage]["size_bytes"] == (folder / path).stat().st_size
    assert result["stages"][2]["parameters"] < 0.5 * result["stages"][0]["parameters"]
    assert (folder / "stages.png").read_bytes().startswith(b"\x89PNG")
    assert sum(line.startswith("| ") for line in (folder / "table.md").read_text().splitlines()) == 1 + 5


@pytest.mark.slow
def test_report_leads_with_the_file_that_ships(whole, tiny):
    folder, _ = whole
    report, (_, test) = make_report([folder]), tiny.data()
    answers = open_file(folder / "student.onnx").run(test.images).argmax(axis=1)
    matrix = np.zeros((3, 3), dtype=int)
    np.add.at(matrix, (test.labels, answers), 1)
    assert np.array_equal(report.shipped.found.confusion, matrix)
    first, second = tiles(report)[:2]
    assert (first.name, first.value) == ("Test accuracy", f"{100 * (answers == test.labels).mean():.2f}{NO_BREAK}%")
    assert first.note.startswith("of the last stage, int8 in ONNX Runtime; 95 % interval ")
    assert second.name == "Distilled"
    page = to_html(report)
    assert "Of the file that ships, int8." in page
    (folder / "predictions.safetensors").rename(folder / "kept")  # as an older version left it
    try:
        assert make_report([folder]).shipped is None
        assert tiles(make_report([folder]))[0].value == first.value
    finally:
        (folder / "kept").rename(folder / "predictions.safetensors")


@pytest.mark.parametrize(
    ("stop", "where"),
    [
        pytest.param(17, "pruning: step-1", marks=pytest.mark.slow),
        pytest.param(3, "distilling", marks=pytest.mark.slow),
        pytest.param(27, "pruning: final", marks=pytest.mark.slow),
    ],
)
def test_it_goes_on_at_the_stage_that_was_interrupted(whole, tiny, tmp_path, watcher, stop, where):
    class Stopping(watcher):
        def stepped(self, progress):
            super().stepped(progress)
            if len(self.steps) == stop:
                os.kill(os.getpid(), signal.SIGTERM)

    folder = tmp_path / "c"
    with pytest.raises(Interrupted, match=f"{where}: stopped at .*continue with: model-compression resume {folder}$"):
        compress(settings(tiny), folder, Stopping())
    with pytest.raises(RunFolderError, match="is begun already"):
        compress(settings(tiny), folder)
    folder = folder.rename(tmp_path / "moved")
    seen = watcher()
    Compression.at(folder, seen).resume()
    assert len(seen.steps) == 30 - stop  # 3 epochs of the student, then 1 and 2, of 5 steps
    for name in ("student.onnx", "pruned-float32.onnx", "quantized/report.json"):
        assert (folder / name).read_bytes() == (whole[0] / name).read_bytes(), name
    with pytest.raises(RunFolderError, match="is finished: there is nothing to resume"):
        Compression.at(folder).resume()


@pytest.mark.slow
def test_full_disk_at_the_very_end_leaves_no_part_of_the_file(whole, monkeypatch):
    folder, right = whole[0], (whole[0] / "student.onnx").read_bytes()
    (folder / "student.onnx").unlink()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "no space left")

    def plot_and_fill_the_disk(path, *rest):
        plot(path, *rest)
        monkeypatch.setattr(os, "fsync", full)

    monkeypatch.setattr(pipeline, "plot", plot_and_fill_the_disk)
    with pytest.raises(ModelCompressionError, match=r"cannot write .*predictions\.safetensors: the disk is full"):
        Compression.at(folder).resume()
    assert not (folder / "student.onnx").exists()
    monkeypatch.undo()
    monkeypatch.setitem(MODELS._entries, "wide", wide)
    Compression.at(folder).resume()
    assert (folder / "student.onnx").read_bytes() == right


@pytest.mark.slow
def test_what_breaks_the_budget_does_not_ship(tiny, tmp_path):
    config = settings(tiny, share=1.0, budget=Budget(min_accuracy=1.0))
    with pytest.raises(
        ModelCompressionError, match=r"the budget is not kept: accuracy .*, at least 100.00% is asked for"
    ):
        compress(config, tmp_path / "c")
    assert not (tmp_path / "c" / "student.onnx").exists()
    assert (tmp_path / "c" / "stages.json").exists()


@pytest.mark.slow
def test_int8_that_loses_too_much_leaves_the_table_of_the_other_stages(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Verification, "drop_fault", lambda self, max_drop: "it loses too much")
    message = r"it loses too much, after .* quantize_epochs of compress.*stages\.json says what the other stages"
    for start in (
        lambda: compress(settings(tiny, share=1.0), tmp_path / "c"),
        lambda: Compression.at(tmp_path / "c").resume(),
    ):
        with pytest.raises(NotVerifiedError, match=message):
            start()
        result = json.loads((tmp_path / "c" / "stages.json").read_text())
        assert [(one["name"], one["runtime"]) for one in result["stages"]] == [
            ("distilled", "PyTorch"),
            ("distilled", "ONNX Runtime"),
        ]
        assert ["it loses too much" in fault for fault in result["broken"]] == [True]
        for name in ("table.md", "stages.png", "stages.json"):
            (tmp_path / "c" / name).unlink()
        assert not list((tmp_path / "c").glob("**/student.onnx"))


@pytest.mark.parametrize(
    ("where", "advice"),
    [
        ("check", "nothing was written yet: repeat the command"),
        ("run", "what is done is kept; continue with: model-compression resume"),
    ],
)
def test_interruption_outside_a_training_says_how_to_go_on(tiny, tmp_path, monkeypatch, capsys, where, advice):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Compression, "check", lambda self: self.config)
    monkeypatch.setattr(Compression, where, interrupted)
    (tmp_path / "config.json").write_text(to_json(tiny.config("kd")))
    assert main(["compress", "--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "c")]) == 130
    assert f"compress: interrupted; {advice}" in capsys.readouterr().err


def test_validation_of_a_configuration_is_refused_as_the_option_is(tiny, tmp_path, capsys):
    run = tiny.config("kd")
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, validation=10))
    (tmp_path / "config.json").write_text(to_json(run))
    assert main(["compress", "--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "c")]) == 2
    assert "--validation 10 has no effect here: every stage is measured on the test" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def stage(name="a", size=100, accuracy=0.8, ms=1.0):
    return Stage(
        name=name, runtime="ONNX Runtime", size_bytes=size, parameters=1, macs=1, result=accuracy,
        interval=(accuracy - 0.01, accuracy + 0.01), median_ms=ms, p95_ms=ms + 0.1,
    )  # fmt: skip


def test_the_front_has_those_that_none_beats():
    stages = [
        stage(size=100, accuracy=0.8),
        stage(size=50, accuracy=0.8),
        stage(size=20, accuracy=0.7),
        stage(size=30, accuracy=0.7),
    ]
    assert front(stages, "size_bytes") == [False, True, True, False]
    assert front(stages, "median_ms") == [True, True, False, False]
    assert "| 50 * | 1 | 1 | 80.00% | 79.00 to 81.00% | 1.000 * | 1.100 |" in markdown(stages, 2)


def test_a_latency_that_was_disturbed_is_marked_wherever_it_stands(tmp_path, capsys):
    busy = dataclasses.replace(stage(), disturbed=True)
    table = markdown([stage(), busy], 2)
    assert "| 1.000 * (disturbed) | 1.100 |" in table
    assert table.endswith("\ndisturbed: other work on the machine slowed it down; measure again when idle\n")
    assert "disturbed" not in markdown([stage()], 2)
    assert "the measurement was disturbed" in broken(Budget(max_latency_ms=0.5), busy)[0]
    result = {"threads": 2, "teacher_accuracy": None, "stages": to_plain([stage(), busy]), "broken": []}
    result["budget"] = dataclasses.asdict(Budget())
    assert print_compressed(result, tmp_path, as_json=False) == 0
    assert capsys.readouterr().out.count("disturbed") == 2
    (tmp_path / "stages.json").write_text(json.dumps(result))
    found = read_compression(tmp_path)
    assert [one.disturbed for one in found.stages] == [False, True]
    for one in result["stages"]:
        del one["disturbed"]  # as an older version wrote it
    (tmp_path / "stages.json").write_text(json.dumps(result))
    assert not any(one.disturbed for one in read_compression(tmp_path).stages)


def test_a_metric_without_an_interval_gets_none(tmp_path):
    """R², mAP and mIoU have none by their value; one of no width would claim that the figure is exact."""
    alone = dataclasses.replace(stage(), interval=None)
    assert "| 80.00% | – | 1.000 * |" in markdown([alone], 2)
    values = {"threads": 2, "stages": to_plain([alone, stage()]), "broken": []}
    values["stages"][0]["interval"] = [0.8, 0.8]  # as an older version wrote it
    (tmp_path / "stages.json").write_text(json.dumps(values))
    assert [one.interval for one in read_compression(tmp_path).stages] == [None, [*stage().interval]]
    assert read_shipped(tmp_path).interval == [*stage().interval]
    (tmp_path / "stages.json").write_text(json.dumps(values | {"stages": to_plain([alone])}))
    assert read_shipped(tmp_path).interval is None
    plot(tmp_path / "stages.png", [alone], "title")


def test_budget_says_what_is_broken():
    budget = Budget(max_bytes=90, max_latency_ms=0.5, min_accuracy=0.81)
    assert broken(budget, stage()) == [
        "100 bytes, at most 90 are allowed",
        "1.000 ms, at most 0.5 are allowed",
        "accuracy 80.00%, at least 81.00% is asked for",
    ]
    assert broken(Budget(), stage()) == []


def test_pruning_is_planned_from_the_file_that_ships_and_every_try_is_shown(tiny, tmp_path, monkeypatch, watcher):
    shown = []

    class Showing(watcher):
        def counter(self, name, total, unit):
            return lambda done: shown.append((name, done, total, unit))

    monkeypatch.setattr(pipeline, "fits_budget", lambda network, *_, **__: network.ip1.out_features <= 8)
    config = Compression(settings(tiny, share=1.0, budget=Budget(max_bytes=1)), tmp_path / "c", Showing()).check()
    assert shown == [("size", number, 8, "tries") for number in range(1, 9)]
    assert config.resource == "params"
    assert 0.1 < config.share < 0.9


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime", "torch_pruning"])
def test_missing_package_is_said_before_anything_is_loaded(tiny, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(DATASETS._entries, "tiny")  # an error for whoever loads data
    with pytest.raises(MissingExtraError, match=f"needs the package '{package.replace('_', '-')}'"):
        compress(settings(tiny, budget=Budget(max_bytes=9000)), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_student_that_int8_does_not_make_small_is_refused_before_training(tiny, tmp_path, monkeypatch):
    def upsampling(num_classes=3):
        layers = OrderedDict(conv=nn.Conv2d(3, 16, 3), up=nn.ConvTranspose2d(16, 16, 3), pool=nn.AdaptiveAvgPool2d(1))
        return Network(layers | {"flatten": nn.Flatten(), "head": nn.Linear(16, num_classes)})

    monkeypatch.setitem(MODELS._entries, "wide", upsampling)
    with pytest.raises(ModelCompressionError, match="int8 leaves 9,216 of 9,216 bytes of weights in float32"):
        compress(settings(tiny, share=1.0), tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-bytes", "-1"], "--max-bytes must be at least 0, got -1"),
        (["--min-accuracy", "82"], "--min-accuracy must be at least 0 and at most 1, got 82.0; 0.82 is 82 %"),
        pytest.param(["--max-bytes", "100"], "however far wide is pruned, it does not fit", marks=pytest.mark.slow),
        (["--method", "fitnet"], "method 'fitnet' compares features"),
        (["--scheme", "self"], "--scheme has no effect here"),
        (["--validation", "3"], "--validation 3 has no effect here"),
        (["--to", "half"], "unknown precision 'half'; known: int4, int8"),
        (["--steps", "0"], "--steps must be at least 1 and at most 1,000, got 0; 2 to 10 are usual"),
    ],
)
def test_wrong_usage_is_one_line(tiny, tmp_path, capsys, arguments, message):
    base = [
        "compress",
        "--teacher",
        str(tiny.teacher),
        "--student",
        "wide",
        "--data",
        "tiny",
        "--out",
        str(tmp_path / "c"),
    ]
    assert main([*base, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def drawn(monkeypatch, tmp_path, *rows):
    """The figure of stages with these (bytes, median ms, accuracy)."""
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **options: figures.append(self))
    stages = [
        Stage(name=f"stage {n}", runtime="ONNX Runtime", size_bytes=size, parameters=1, macs=1, result=accuracy,
              interval=(accuracy - 0.01, accuracy + 0.01), median_ms=ms, p95_ms=1.1 * ms)
        for n, (size, ms, accuracy) in enumerate(rows)
    ]  # fmt: skip
    plot(tmp_path / "stages.png", stages, "title")
    figures[0].canvas.draw()
    return figures[0]


@pytest.mark.parametrize(
    "rows",
    [
        [(110_000, 0.3, 0.76), (110_100, 0.1, 0.76), (39_000, 0.3, 0.74), (39_200, 0.1, 0.74), (10_100, 0.06, 0.74)],
        [(31_000, 0.30, 0.9), (32_000, 0.31, 0.9), (30_000, 0.29, 0.9)],
    ],
    ids=["five stages", "alike"],
)  # fmt: skip
def test_plot_has_ticks_that_are_read_and_labels_that_are_apart(rows, monkeypatch, tmp_path):
    figure = drawn(monkeypatch, tmp_path, *rows)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = [tick.get_text() for tick in axes.get_xticklabels() if low <= tick.get_position()[0] <= high]
        assert len(ticks) >= 2
        assert all(float(tick.replace(",", "")) > 0 for tick in ticks)  # and no 3×10¹
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == len(rows)
        assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_result_fits_80_columns_and_says_that_the_budget_is_kept(capsys, tmp_path):
    from model_compression.cli.compression_reports import print_compressed

    one = {"runtime": "ONNX Runtime", "size_bytes": 98_304_000, "parameters": 25_557_032, "accuracy": 1.0,
           "median_ms": 123.456, "p95_ms": 1234.567, "disturbed": False}  # fmt: skip
    stages = [{**one, "name": name} for name in ("distilled", "int8")]
    budget = {"max_bytes": 100_000_000, "max_latency_ms": 0.0, "min_accuracy": 0.8}
    result = {"stages": stages, "budget": budget, "teacher_accuracy": 0.9, "threads": 2, "broken": []}
    print_compressed(result, tmp_path, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert (
        " ".join(" ".join(lines[-2:]).split())
        == "the budget is kept: 98,304,000 of 100,000,000 bytes, accuracy 100.00% of at least 80.00%"
    )
