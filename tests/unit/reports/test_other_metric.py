"""Runs whose primary metric is an error in millimetres, of which the lowest is best: every output says it rightly."""

import json
import math
import re
from dataclasses import asdict

import pytest
from written_runs import write_compression, write_run

from model_compression.cli.main import main
from model_compression.core.errors import UsageError
from model_compression.core.metric import RECORDED, Metric
from model_compression.reports.comparison_tables import write_comparison
from model_compression.reports.contents import make_report, to_plain
from model_compression.reports.html import to_html
from model_compression.reports.model_card import model_card
from model_compression.reports.records import record_path
from model_compression.reports.run_files import read_run

ERROR = Metric(
    name="error", label="error", plural="errors", unit="mm", gain_unit="mm", digits=3, higher_is_better=False
)
ERRORS = {"kd": (1.25, 1.35, 1.30), "labels": (1.5, 1.7, 1.6), "dkd": (1.4, 1.5, 1.6)}
TEACHER = 0.875


def write_error_run(folder, method, seed, error):
    """A run as training leaves it, with errors instead of accuracies and with vectors as predictions."""
    write_run(folder, None if method == "labels" else method, seed)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    for event in events:
        del event["test_accuracy"]
        event["test_error"] = error * (5 - event["epoch"])
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    metrics = {
        "test_error": error,
        "seconds": 61.0,
        "parameters": 1234,
        "precision": "float32",
        RECORDED: asdict(ERROR),
    }
    metrics |= {} if method == "labels" else {"teacher_test_error": TEACHER}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "predictions.safetensors").write_bytes(b"vectors, which this reader does not know")
    environment = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps({**environment, "test_data_sha256": "12ab"}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("errors")
    for method, errors in ERRORS.items():
        for seed, error in enumerate(errors):
            write_error_run(folder / method / f"seed{seed}", method, seed, error)
    return folder


def text_of(report):
    """The words of the page, spaces and tags aside."""
    page = re.sub(r"<(style|script)>.*?</\1>", "", to_html(report), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page).replace("&nbsp;", " "))


def test_page_shows_errors_with_the_lowest_first(runs):
    report = make_report([runs / name for name in ERRORS])
    text = text_of(report)
    assert "Lowest: kd 1.300 mm" in text  # the mean of three seeds
    assert (
        "Gain over labels only +0.300 ± 0.124 mm" in text
    )  # by hand: sd 0.05 of 0.25, 0.35, 0.30; t(0.975; 2) = 4.303
    assert text.index("kd 1.300 ± 0.124 mm") < text.index("dkd 1.500 ± 0.248 mm") < text.index("1.600 ± 0.248 mm")
    assert "The teacher 0.875 mm" in text
    assert "test error, mm" in text
    assert "Lower is better." in text
    assert "ccuracy" not in text
    assert "%" not in text.replace("95 %", "").replace("5 %", "")


def test_page_of_one_run_has_no_classes(runs):
    text = text_of(make_report([runs / "kd" / "seed0"]))
    assert "Test error 1.250 mm" in text
    assert "Its teacher 0.875 mm" in text
    assert "Each class" not in text


def test_markdown_and_json_have_the_same_figures(runs, capsys):
    paths = [str(runs / name) for name in ERRORS]
    assert main(["report", *paths, "--format", "md"]) == 0
    page = capsys.readouterr().out
    assert "| kd | 1.300 mm | 1.18 to 1.42 mm | 3 seeds | 0.875 mm |" in page
    assert "- kd over labels only: +0.300 ± 0.124 mm (n = 3 seeds, p = " in page
    assert "ccuracy" not in page
    assert main(["report", *paths, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[RECORDED] == asdict(ERROR)
    by_name = {group["name"]: group["error"]["mean"] for group in found["groups"]}
    assert by_name == {"kd": pytest.approx(1.3), "labels only": pytest.approx(1.6), "dkd": pytest.approx(1.5)}
    assert {gain["group"]: gain["gain"]["mean"] for gain in found["gains"]} == {
        "kd": pytest.approx(0.3), "dkd": pytest.approx(0.1),
    }  # fmt: skip


def test_compare_calls_a_lower_error_a_gain(runs, capsys):
    assert main(["compare", str(runs / "kd"), str(runs / "labels")]) == 0
    text = capsys.readouterr().out
    assert "test error" in text
    assert "1.300 ± 0.124 mm" in text
    statistic = 0.3 / (0.05 / math.sqrt(3))
    p_value = 1 - statistic / math.sqrt(2 + statistic**2)  # of Student's t with 2 degrees of freedom
    assert f"over 3 seeds A gains +0.300 mm, 95 % interval ± 0.124, p = {p_value:.2g} (paired t test)" in text
    assert "significant: chance in the seeds seldom gives such a difference" in text
    assert "lower is better" in text
    assert "accuracy" not in text
    assert main(["compare", str(runs / "labels"), str(runs / "kd"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["over_seeds"]["mean"] == pytest.approx(-0.3)
    assert found["second"]["error"]["mean"] == pytest.approx(1.3)


def test_one_seed_of_another_metric_has_no_verdict(runs, capsys):
    assert main(["compare", str(runs / "kd" / "seed0"), str(runs / "labels" / "seed0")]) == 0
    assert "several common seeds are needed: no test shows which is better" in capsys.readouterr().out


def test_runs_list_the_errors(runs, capsys):
    assert main(["runs", str(runs)]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].split() == ["run", "state", "error", "written"]
    assert re.search(r"^kd/seed0 +finished +1\.250 mm", text, re.MULTILINE)
    assert main(["runs", str(runs), "--json"]) == 0
    errors = {one["path"]: one["error"] for one in json.loads(capsys.readouterr().out)["runs"]}
    assert errors[str(runs / "kd" / "seed0")] == 1.25


def test_model_card_of_another_metric(runs):
    card = model_card(read_run(runs / "kd" / "seed0"))
    assert "## Error" in card
    assert "| error on test images | 1.250 mm |" in card
    assert "| error of the teacher | 0.875 mm |" in card
    assert '"type": "error", "value": 1.25' in card
    assert "accuracy" not in card
    assert "classif" not in card


def test_comparison_ranks_the_lowest_error_first(tmp_path, runs):
    for method, errors in ERRORS.items():
        for seed, error in enumerate(errors):
            run = read_run(runs / method / f"seed{seed}")
            optim = {"optimizer": "adam", "lr": 0.001, "schedule": "constant", "weight_decay": 0.0}
            config = {**run.config, "optim": optim}
            record = {"arm": method, "config": config, "metrics": run.metrics, "environment": run.environment,
                      "events": []}  # fmt: skip
            record_path(tmp_path, method, seed).write_text(json.dumps(record))
            assert run.result == error
    text, values = write_comparison(tmp_path, "Errors")
    assert [row["arm"] for row in values["rows"]] == ["kd", "dkd", "labels"]
    assert values["rows"][0]["errors"] == ERRORS["kd"]
    assert values["teacher_error"] == TEACHER
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("method"))
    assert head.split() == ["method", "n", "error,", "mm"]  # no column that no run has
    assert next(line for line in lines if line.startswith("kd")).split() == ["kd", "3", "1.300", "±", "0.124"]
    assert next(line for line in lines if re.match("kd +\\+", line)).split()[1:4] == ["+0.300", "±", "0.124"]
    said = " ".join(text.split())
    assert "test error of the last epoch over n seeds, lowest first" in said
    assert "above zero where the error is lower" in said
    assert "accuracy" not in text
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_table_of_a_compression_of_another_metric(tmp_path):
    folder = write_compression(tmp_path / "small")
    write_error_run_over(folder / "distilled")
    values = json.loads((folder / "stages.json").read_text())
    for stage, error in zip(values["stages"], (1.25, 1.25, 1.5), strict=True):
        del stage["accuracy"]
        stage |= {"error": error, "interval": [error - 0.1, error + 0.1]}
    (folder / "stages.json").write_text(json.dumps({**values, RECORDED: asdict(ERROR)}))
    report = make_report([folder])
    text = text_of(report)
    assert "Test error 1.500 mm of the last stage, int8 in ONNX Runtime; 95 % interval 1.40 to 1.60 mm" in text
    assert "pruned, PyTorch 2,500 bytes * 1,234 1.250 mm 1.15 to 1.35 mm 0.410 ms" in text
    (found,) = report.compressions
    assert [stage.result for stage in found.stages] == [1.25, 1.25, 1.5]
    first, *_ = to_plain(report)["compressions"][0]["stages"]
    assert {*first} == {*values["stages"][0], "disturbed", "on_size_front", "on_latency_front"}


def write_error_run_over(folder):
    """Turns the run in ``folder`` into one with errors."""
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    write_error_run(folder, "kd", 0, 1.25)


def test_runs_with_different_metrics_are_not_compared(tmp_path, runs):
    other = write_run(tmp_path / "accuracy")
    with pytest.raises(UsageError, match="these runs have different metrics"):
        make_report([runs / "kd", other])


@pytest.mark.parametrize(("change", "said"), [
    ({"test_error": "low"}, "test_error is 'low'"),
    ({"test_error": float("nan")}, "test_error is nan"),
    ({RECORDED: {"name": "error"}}, "primary_metric is"),
    ({RECORDED: None}, "test_accuracy is None"),
])  # fmt: skip
def test_damaged_metrics_are_named(tmp_path, capsys, change, said):
    write_error_run(tmp_path / "r", "kd", 0, 1.0)
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    (tmp_path / "r" / "metrics.json").write_text(json.dumps(metrics | change))
    assert main(["report", str(tmp_path / "r"), "--format", "md"]) != 0
    assert said in capsys.readouterr().err
