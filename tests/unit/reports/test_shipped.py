"""The headline of a folder of several stages is what ships."""

import json
import shutil

import pytest
from written_runs import write_compression, write_run

from model_compression.api.experiments import report_text
from model_compression.cli.main import main
from model_compression.core.errors import RunFolderError
from model_compression.core.manifest import write_manifest
from model_compression.core.text import NO_BREAK
from model_compression.reports.contents import make_report
from model_compression.reports.page_parts import tiles
from model_compression.reports.run_states import run_states


def write_quantisation(folder, source, *, trained=True, **changes):
    """Writes what `quantize` leaves, of the run ``source``; returns ``folder``."""
    folder.mkdir(parents=True)
    (folder / "quantize.json").write_text(json.dumps({"model": str(source), "to": "int4"}))
    (folder / "student.onnx").write_bytes(b"x" * 52)
    values = {
        "file": "student.onnx", "bytes": 52, "precision": "int4", "trained": trained, "images": 500, "accuracy": 0.708,
        "interval": [0.667, 0.746], "network_accuracy": 0.658, "drop": -5.0, "agreement": 0.8,
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(values | changes))
    if trained:
        write_run(folder / "trained", share=0.758)
    write_manifest(folder, ("quantize.json", "report.json", "student.onnx"))
    return folder


def quantised(tmp_path):
    return write_quantisation(tmp_path / "q", tmp_path / "base"), "student.onnx", 0.708, 52


def quantised_untrained(tmp_path):
    source = write_run(tmp_path / "base", share=0.658)
    return write_quantisation(tmp_path / "q", source, trained=False), "student.onnx", 0.708, 52


def compressed(tmp_path):
    return write_compression(tmp_path / "c"), "student.onnx", 0.57, 700


def pruned(tmp_path):
    for name, share in (("step-1", 0.9), ("final", 0.5)):  # the best is not what ships
        write_run(tmp_path / "p" / name, share=share, epochs=4, batch_size=50 if name == "final" else 100)
    (tmp_path / "p" / "prune.json").write_text("{}")
    metrics = json.loads((tmp_path / "p" / "final" / "metrics.json").read_text())
    return tmp_path / "p", "final/student.safetensors", metrics["test_accuracy"], 5000


@pytest.mark.parametrize("write", [quantised, quantised_untrained, compressed, pruned])
def test_every_reader_leads_with_the_file_that_ships(tmp_path, write):
    folder, file, share, size_bytes = write(tmp_path)
    report = make_report([folder])
    ships = report.headline
    assert (ships.file, ships.result, ships.size_bytes) == (folder / file, share, size_bytes)
    first = tiles(report)[0]
    assert (first.name, first.value) == ("Test accuracy", f"{share:.2%}".replace("%", f"{NO_BREAK}%"))
    sizes = {tile.name: tile.value for tile in tiles(report)}
    assert sizes.get("What ships", sizes.get("Size")) == {52: "52 bytes", 700: "700 bytes", 5000: "5 kB"}[size_bytes]
    assert f"**What ships:** {folder / file}, {share:.2%}".replace("%", " %") in report_text(report, "md").replace(
        "\\", ""
    )
    (plain,) = json.loads(report_text(report, "json"))["ships"]
    assert (plain["file"], plain["accuracy"], plain["size_bytes"]) == (str(folder / file), share, size_bytes)
    states = {one.path: one.result for one in run_states(folder)}
    assert share in (states.get(folder), states.get(folder / "final"))


def test_quantisation_that_was_trained_shows_its_run_behind_the_file(tmp_path):
    folder, *_ = quantised(tmp_path)
    report = make_report([folder])
    assert [tile.name for tile in tiles(report)][:2] == ["Test accuracy", "Fine-tuned, in PyTorch"]
    assert f"+5.00 points against 65.80{NO_BREAK}% of the network before" in report_text(report, "html")
    assert "those of the file that ships are not stored" in report_text(report, "html")


@pytest.mark.parametrize("file", ["student.onnx", "report.json"])
def test_changed_quantisation_is_named_and_not_the_headline(tmp_path, capsys, file):
    folder, *_ = quantised(tmp_path)
    (folder / file).write_bytes((folder / file).read_bytes().replace(b"0.708", b"0.908") + b" ")
    report = make_report([folder])
    assert report.headline is None
    assert any(str(folder / file) in reason and "changed" in reason for reason in report.left_out)
    assert main(["runs", str(folder), "--json"]) == 0
    (damaged,) = (one for one in json.loads(capsys.readouterr().out)["runs"] if one["state"] == "damaged")
    assert f"{folder / file} was changed" in damaged["what"]


@pytest.mark.parametrize("changes", [{"accuracy": "x"}, {"interval": [1]}, {"bytes": None}, {"network_accuracy": 7}])
def test_report_of_a_quantisation_that_is_no_such_is_named(tmp_path, changes):
    write_quantisation(tmp_path / "q", tmp_path / "base", **changes)
    (reason,) = make_report([tmp_path / "q"]).left_out
    assert "report.json is not what `model-compression quantize` writes" in reason


def test_quantisation_of_no_run_says_where_its_figures_are(tmp_path):
    folder, *_ = quantised_untrained(tmp_path)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(RunFolderError, match=r"its figures are in .*report\.json"):
        make_report([folder])
