"""The one door to code that is imported by its name: whose names are followed, and whose are not."""

import json
import stat
import sys
from pathlib import Path

import pytest

from model_compression.core import trust
from model_compression.core.errors import UntrustedCodeError, UsageError
from model_compression.core.user_code import import_own

VALUES = {"student": {"name": "mynets:small"}, "data": {"name": "folder:photos"}, "method": {"name": "kd+losses:Mine"}}
CONTENT = json.dumps(VALUES).encode()


def sealed(monkeypatch):
    """Seals CONTENT, and forgets in this process that its names are the user's."""
    with trust.command(["--student", "mynets:small", "--method=kd+losses:Mine"]):
        trust.seal(VALUES, CONTENT)
    monkeypatch.setattr(trust, "_state", trust._State())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("mynets:small", {"mynets:small"}),
        ("a.b:c,d:e", {"a.b:c", "d:e"}),
        ("kd+losses:Mine", {"losses:Mine"}),
        ("--student=mynets:small", {"mynets:small"}),
        ('body={"name": "mynets:small"}', {"mynets:small"}),
        ([{"a": ("x:y", 3)}, None], {"x:y"}),
        ("runs/a:b", set()),
        ("C:/photos", set()),
        ("python:mynets:Small", set()),
        ("https://a.b/c", set()),
    ],
)
def test_names_are_found_in_all_that_holds_them(text, names):
    assert trust.names_in(text) == names


def test_command_follows_what_was_typed_and_nothing_else():
    with trust.command(["test", "--model", "mynets:small"]):
        assert trust.check("mynets:small")
        with pytest.raises(UntrustedCodeError, match=r"a file names the code mynets:other.*add trust=True"):
            trust.check("mynets:other")
    assert trust.check("mynets:other")  # Python: whoever calls with a name has given it


def test_files_whose_names_a_shell_puts_in_the_place_of_a_star_are_not_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("os:system").touch()
    with trust.command(["report", "os:system"]), pytest.raises(UntrustedCodeError):
        trust.check("os:system")


@pytest.mark.parametrize("in_command", [True, False])
def test_sealed_file_is_followed_wherever_it_lies_and_a_changed_one_is_not(monkeypatch, in_command):
    sealed(monkeypatch)
    if in_command:
        monkeypatch.setattr(trust, "_state", trust._State(is_command=True))
    trust.read(VALUES, "edited.json", CONTENT + b" ")
    with pytest.raises(UntrustedCodeError, match=r"edited\.json names the code mynets:small"):
        trust.check("mynets:small")
    trust.read(VALUES, "moved/config.json", CONTENT)
    assert trust.check("mynets:small")
    assert trust.check("losses:Mine")
    with pytest.raises(UntrustedCodeError):
        trust.check("folder:photos")  # data: it was no name of code when the file was sealed


def test_a_file_that_names_what_was_not_followed_is_not_sealed(monkeypatch):
    with trust.command(["--student", "mynets:small"]):
        trust.read(VALUES, "strangers.json", CONTENT)
        trust.seal(VALUES, CONTENT)  # losses:Mine came from the stranger
    with trust.command([]):
        trust.read(VALUES, "config.json", CONTENT)
        with pytest.raises(UntrustedCodeError):
            trust.check("mynets:small")


def test_what_was_trusted_once_and_followed_is_sealed_in_what_is_written_then(capsys):
    with trust.command([], trusts_all=True):
        trust.read(VALUES, "strangers.json", CONTENT)
        assert not trust.check("mynets:small")
        assert not trust.check("losses:Mine")
        trust.check("losses:Mine")
        trust.seal(VALUES, b"written")
    assert capsys.readouterr().err == (
        "importing mynets:small, which strangers.json names (trust)\n"
        "importing losses:Mine, which strangers.json names (trust)\n"
    )
    with trust.command([]):
        trust.read(VALUES, "config.json", b"written")
        assert trust.check("losses:Mine")


def test_seals_are_the_users_alone_and_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    sealed(monkeypatch)
    assert stat.S_IMODE(trust._seals().stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    trust.seal(VALUES, CONTENT)
    trust.read(VALUES, "config.json", CONTENT)
    with pytest.raises(UntrustedCodeError):
        trust.check("mynets:small")


def test_process_that_is_started_follows_what_this_one_does():
    with trust.command(["mynets:small"], trusts_all=True):
        told = json.loads(json.dumps(trust.for_child()))
    with trust.command(told["own"], trusts_all=told["trusts_all"]):
        assert trust.check("mynets:small")
        assert not trust.check("other:one")


@pytest.mark.parametrize("module", ["test.__main__", "model_compression.__main__", "a.__main__.b"])
def test_programs_are_never_imported(module):
    with pytest.raises(UsageError, match="names a program"):
        import_own(module, f"{module}:x")


def test_refusal_comes_before_the_import(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("never_here.py").write_text("open('pwned', 'w')")
    with trust.command([]), pytest.raises(UntrustedCodeError):
        import_own("never_here", "never_here:x")
    assert "never_here" not in sys.modules
    assert not Path("pwned").exists()
