"""Every value in the JSON files of a run, made something else: a report is made or the file is named, no more."""

import copy
import json

import pytest
from written_runs import measured, write_run

from model_compression.cli.main import main
from model_compression.core.errors import ModelCompressionError
from model_compression.reports.contents import make_report, to_plain
from model_compression.reports.html import to_html
from model_compression.reports.markdown import to_markdown
from model_compression.reports.run_states import run_states

OTHERS = ("x", None, True, [], {}, float("nan"), float("inf"), -1, 10**30, 1.5, "\udcff\x1b[31m")


def places(values, path=()):
    """The way to each value, those in lists and objects included."""
    found = [path] if path else []
    children = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return found + [place for key, child in children for place in places(child, (*path, key))]


def with_other(values, place, other):
    values = copy.deepcopy(values)
    holder = values
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = other
    return values


def readers(folder, page):
    """What reads a run; none may end otherwise than by an error of ours."""
    said = ""
    try:
        report = make_report([folder])
    except ModelCompressionError as error:
        said = str(error)
    else:
        to_markdown(report)
        json.dumps(to_plain(report))
        assert not page or "<h1>" in to_html(report)
    assert not said or str(folder) in said
    assert "\n" not in said


@pytest.mark.parametrize("name", ["config.json", "environment.json", "metrics.json", "events.jsonl", "measure.json"])
def test_any_other_value_is_shown_or_named(tmp_path, name):
    folder = write_run(tmp_path / "run", images=8, views=2)
    (folder / "measure.json").write_text(measured(0.5))
    metrics = json.loads((folder / "metrics.json").read_text())
    more = {"test_nll": 0.5, "test_ece": 0.1, "lr_changed_to": 1e-3, "epochs": 4, "device": "cpu"}
    (folder / "metrics.json").write_text(json.dumps({**metrics, **more}))
    path = folder / name
    lines = path.read_text().split("\n") if name.endswith("jsonl") else [path.read_text()]
    values = json.loads(lines[0])
    for number, place in enumerate(places(values)):
        for other in (OTHERS[(number + turn) % len(OTHERS)] for turn in (0, 5)):
            path.write_text("\n".join([json.dumps(with_other(values, place, other)), *lines[1:]]))
            readers(folder, page=number % 3 == 0)
    assert len(run_states(folder)) == 1


def test_one_damaged_run_is_named_and_the_others_are_shown(tmp_path, capsys):
    for seed in range(3):
        write_run(tmp_path / "runs" / f"seed{seed}", seed=seed)
    write_run(tmp_path / "labels", None)
    (tmp_path / "runs" / "seed1" / "metrics.json").write_text("")
    damaged = "seed1/metrics.json is damaged"
    assert main(["report", str(tmp_path / "runs"), "--format", "md"]) == 0
    shown = capsys.readouterr()
    assert damaged in shown.err
    assert damaged in shown.out
    assert "2 seeds" in shown.out
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "page.html")]) == 0
    assert damaged in (tmp_path / "page.html").read_text()
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "runs"), str(tmp_path / "labels")]) == 0
    shown = capsys.readouterr()
    assert damaged in shown.err
    assert "n = 2" in shown.out
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("finished") == 3
    assert main(["report", str(tmp_path / "runs" / "seed1")]) == 1
    assert damaged in capsys.readouterr().err


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    from pathlib import Path

    write_run(tmp_path / "good")
    write_run(tmp_path / "shut")
    real = Path.iterdir

    def iterdir(self):
        if self.name == "shut":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    states = {one.path.name: one for one in run_states(tmp_path)}
    assert states["good"].state == "finished"
    assert states["shut"].state == "damaged"
    assert "Permission denied" in states["shut"].what
