"""Numbers and paths on the command line: read in one place, refused in one line, before anything is done."""

import argparse
from pathlib import Path

import pytest

from model_compression.classic import command_line as classic
from model_compression.cli import main
from model_compression.core.argument_types import register_types
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "-3", -3),
        (int, str(2**63 - 1), 2**63 - 1),
        (float, "1e-3", 1e-3),
        (Path, "~/x", Path.home() / "x"),
        *((int, text, "must be an integer") for text in ("", "x", "1.5", "1" * 20, "9" * 5000)),
        *((float, text, "must be a finite number, got ") for text in ("", "x", "nan", "inf", "-inf", "1e999", "0x1")),
        *((Path, text, "home folder of a user who is not known here") for text in ("~nosuchuser", "~nosuchuser/x")),
        (Path, "a\0b", r"'a\x00b' cannot be the name of a file: it holds a NUL character"),
        (Path, "x" * 300, "cannot be the name of a file: it is too long"),
    ],
)  # fmt: skip
def test_values_are_read_or_refused_by_a_short_line(kind, text, value):
    parser = argparse.ArgumentParser(exit_on_error=False)
    register_types(parser)
    parser.add_argument_group("group").add_argument("--option", type=kind)
    if not isinstance(value, str):
        assert parser.parse_args([f"--option={text}"]).option == value
        return
    with pytest.raises(argparse.ArgumentError) as error:
        parser.parse_args([f"--option={text}"])
    assert value in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("value", [None, 3, b"x", "\ud800", "a/" * 2100])
def test_what_is_no_path_is_wrong_usage(value):
    with pytest.raises(UsageError):
        user_path(value)


def test_links_that_lead_back_to_themselves_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="leads back to itself"):
        user_path(tmp_path / "loop")


def test_home_folders_are_expanded_in_one_place():
    package = Path(main.__file__).parents[1]
    found = [path.name for path in package.rglob("*.py") if ".expanduser(" in path.read_text()]
    assert found == ["files.py"]


def test_an_error_that_nobody_foresaw_is_one_line_with_its_place(monkeypatch, capsys):
    def broken(parser):
        raise KeyError("a\nb")

    monkeypatch.setattr("model_compression.cli.methods.configure", broken)
    assert main.main(["methods"]) == main.EXIT_BUG == 70
    line = capsys.readouterr().err
    assert line.startswith("model-compression methods: internal error: KeyError: ")
    assert "test_argument_types.py, line" in line
    assert "--debug shows the traceback" in line
    assert line.count("\n") == 1
    with pytest.raises(KeyError):
        main.main(["methods", "--debug"])


def test_the_command_line_of_2016_refuses_them_too(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        classic.main(["--task", "train", "--lr", "nan"])
    assert stop.value.code == 2
    assert "must be a finite number, got 'nan'" in capsys.readouterr().err
    monkeypatch.setattr("model_compression.classic.command_line._run", lambda *_: {}["x"])
    assert classic.main(["--task", "val"]) == main.EXIT_BUG
