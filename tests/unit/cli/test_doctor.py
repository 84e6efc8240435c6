"""`model-compression doctor`: what is printed, at 80 columns and as JSON, and the exit code."""

import json

import pytest

from model_compression.cli.main import main


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_doctor_alone_looks_at_the_machine(tmp_path, capsys):
    assert main(["doctor", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("machine\n")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert out.splitlines()[-1].endswith(" 0 fail")


def test_doctor_on_a_plan_that_holds_looks_at_all_of_it(tiny, tmp_path, capsys):
    arguments = ["--data", "tiny", "--student", "tiny", "--teacher", str(tiny.teacher), "--out", str(tmp_path)]
    assert main(["doctor", *arguments, "--json"]) in (0, 1)  # nobody has trained that teacher
    result = json.loads(capsys.readouterr().out)
    assert result["failed"] == any(finding["level"] == "fail" for finding in result["findings"])
    assert list(dict.fromkeys(finding["area"] for finding in result["findings"])) == [
        "machine",
        "data",
        "teacher",
        "loss",
    ]
    assert all(finding["remedy"] for finding in result["findings"] if finding["level"] != "ok")


def test_doctor_fails_on_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--out", str(tmp_path / "file")]) == 1
    assert " fail disk, runs" in capsys.readouterr().out


def test_doctor_reports_data_that_cannot_be_read_as_a_finding(tmp_path, capsys):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    assert main(["doctor", "--data", f"folder:{tmp_path / 'photos'}", "--out", str(tmp_path)]) == 1
    assert " fail content" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--student", "lenett"], "unknown model 'lenett'"),
        (["--method", "kdd", "--student", "lenet"], "unknown method 'kdd'"),
        (["--method", "kd"], "--method has no effect here"),
        (["--teacher-mean", "0,0,0", "--teacher-std", "1,1,1"], "options of a teacher have no effect here"),
        (["--image-size", "8"], "--image-size has no effect here: give --data"),
        (["--studnet", "lenet"], "did you mean --student"),
    ],
)
def test_doctor_refuses_wrong_usage_in_one_line(arguments, text, capsys):
    try:
        code = main(["doctor", *arguments])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert text in captured.err
