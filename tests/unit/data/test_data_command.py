"""The subcommand `model-compression data`."""

import json

import pytest

from model_compression.cli.main import main
from model_compression.core.errors import DataError
from model_compression.data import cifar_sources
from model_compression.data.cifar_files import read_archive


@pytest.fixture
def offline(monkeypatch):
    def fail(cifar, workspace):
        raise DataError("no route")

    monkeypatch.setattr(cifar_sources, "sources", lambda cifar: {"first": fail, "second": fail})


def test_data_prints_what_was_done(tiny, tmp_path, capsys):
    folder = tiny.folder(tmp_path / "mine", "bin")
    assert main(["data", "cifar10", "--data-dir", str(folder)]) == 0
    printed = capsys.readouterr()
    assert f"read from {folder}" in printed.out
    assert "source    own copy in mine" in printed.out
    assert "20 images" in printed.out
    assert "SHA-256" in printed.out
    assert printed.err == ""


def test_data_takes_cifar10_without_a_name(tiny, tmp_path, capsys):
    assert main(["data", "--data-dir", str(tiny.folder(tmp_path / "mine", "bin"))]) == 0
    assert capsys.readouterr().out.startswith("cifar10")


def test_data_json_prints_one_object_with_messages_on_stderr(tiny, tmp_path, capsys, monkeypatch):
    archive = tiny.archive(tmp_path / "x.tgz", "bin")
    found = {"mirror": lambda cifar, workspace: read_archive(cifar, archive)}
    monkeypatch.setattr(cifar_sources, "sources", lambda cifar: found)
    assert main(["data", "cifar10", "--data-dir", str(tmp_path / "store"), "--json"]) == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert facts["source"] == "mirror"
    assert facts["path"] == str(tmp_path / "store" / "cifar10.safetensors")
    assert facts["train"]["images"] == 20
    assert sum(facts["test"]["class_counts"].values()) == 4
    assert len(facts["test"]["digest"]) == 64
    assert facts["messages"] == printed.err.splitlines()
    assert any(line.startswith("mirror: fetched") for line in facts["messages"])


def test_data_synthetic_needs_nothing(offline, capsys):
    assert main(["data", "synthetic"]) == 0
    assert "1,000 images, 100 of each of 10 classes" in capsys.readouterr().out


def test_data_fails_with_one_line_and_code_1(tiny, tmp_path, offline, capsys):
    (tmp_path / "notes.txt").write_bytes(b"x")
    assert main(["data", "--data-dir", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("model-compression data: error: ")
    assert len(printed.err.splitlines()) == 1


def test_data_says_why_each_source_failed(tiny, offline, capsys):
    assert main(["data"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in lines[1:3]] == ["first:", "second:"]
    assert lines[-1].startswith("model-compression data: error: CIFAR-10 cannot be fetched")


def test_data_refuses_an_unknown_name_with_code_2(capsys):
    assert main(["data", "cifar"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'cifar10'" in error
    assert "folder:PATH" in error


def test_data_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["data", "--help"])
    assert caught.value.code == 0
    assert "model-compression data cifar10 --data-dir" in capsys.readouterr().out
