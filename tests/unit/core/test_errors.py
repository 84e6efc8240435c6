"""The exceptions: what kind each is, and how the command line tells them."""

import pytest

from model_compression.cli import main as cli
from model_compression.core import errors


def every_error():
    return [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_is_caught_by_the_base(kind):
    assert issubclass(kind, errors.ModelCompressionError)


def test_missing_extra_error_says_what_to_install():
    error = errors.MissingExtraError("pyarrow", "hub", "the hub")
    assert str(error) == (
        "the hub needs the package 'pyarrow', which is not installed; "
        "install it with: pip install 'model-compression[hub]'"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x must be > 0"), 2),
        (errors.UnknownNameError("unknown model"), 2),
        (errors.DataError("no data"), 1),
        (errors.FileFormatError("corrupt"), 1),
        (errors.Interrupted("stopped"), 130),
        (FileNotFoundError(2, "No such file", "x"), 1),
        (MemoryError(), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_command_line_tells_an_error_in_one_line(monkeypatch, capsys, error, code):
    def fail(args):
        raise error

    monkeypatch.setattr("model_compression.cli.data.run", fail)
    assert cli.main(["data"]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    was_wished = code == 130
    assert printed.err.startswith("model-compression data: ")
    assert printed.err.startswith("model-compression data: error: ") != was_wished
    assert len(printed.err.splitlines()) == 1


def test_command_line_shows_a_traceback_when_asked_to(monkeypatch):
    def fail(args):
        raise errors.DataError("no data")

    monkeypatch.setattr("model_compression.cli.data.run", fail)
    with pytest.raises(errors.DataError):
        cli.main(["data", "--debug"])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("\n no connection. \nTraceback", "no connection"),  # a part of a message, which goes on
        ("", "ValueError"),
        ("x" * 500, "x" * 200),
    ],
)
def test_reason_is_a_short_part_of_a_message(said, reason):
    assert errors.reason_of(ValueError(said)) == reason
