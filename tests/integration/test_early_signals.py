"""A signal while the command is imported ends the process with a line; one behind its work changes nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODES = {"SIGTERM": 143, "SIGHUP": 129, "SIGINT": 130}
WORDS = {"SIGTERM": "stopped by SIGTERM", "SIGHUP": "stopped by SIGHUP", "SIGINT": "interrupted"}
COMMAND = "import runpy; runpy.run_module('model_compression', run_name='__main__')"
HISTORIC = f"import runpy; runpy.run_path({str(ROOT / 'teacher-student.py')!r}, run_name='__main__')"
WHILE_IMPORTED = """
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "model_compression.core.config":
            os.kill(os.getpid(), signal.NUMBER)
            raise AssertionError("the signal came to nothing")
sys.meta_path.insert(0, Finder)
"""
MEASURE = ["measure", "lenet", "--json"]
BEHIND = "import atexit; atexit.register(os.kill, os.getpid(), signal.NUMBER)"


def process(before, number, arguments, program=COMMAND):
    code = f"import os, signal, sys\n{before.replace('NUMBER', number)}\nsys.argv[1:] = {arguments!r}\n{program}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", CODES)
def test_signal_while_parts_are_imported_ends_with_a_line(number):
    code, out, error = process(WHILE_IMPORTED, number, ["train", "--data", "synthetic"])
    assert (code, out) == (CODES[number], "")
    assert error == f"model-compression train: {WORDS[number]}; nothing was written yet: repeat the command\n"


def test_signal_while_the_historic_script_is_imported_ends_with_a_line():
    code, _, error = process(WHILE_IMPORTED, "SIGTERM", ["--task", "train"], HISTORIC)
    assert code == 143
    assert error == "teacher-student.py: stopped by SIGTERM; nothing was written yet: repeat the command\n"


def test_one_of_several_processes_speaks(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert process(WHILE_IMPORTED, "SIGTERM", ["train"]) == (143, "", "")


def test_nohup_has_sighup_ignored():
    ignored = "signal.signal(signal.SIGHUP, signal.SIG_IGN); os.kill(os.getpid(), signal.NUMBER)"
    code, out, error = process(ignored + "\n" + BEHIND, "SIGHUP", ["--version"])
    assert (code, error) == (0, "")
    assert out.startswith("model-compression ")


def test_signal_behind_the_command_changes_nothing_of_its_end():
    code, out, error = process(BEHIND, "SIGTERM", ["--version"])
    assert (code, error) == (0, "")
    assert out.startswith("model-compression ")
    assert process(BEHIND, "SIGTERM", ["trian"])[0] == 2


TAKEN_DOWN = """
class Last:
    def __del__(self, kill=os.kill, me=os.getpid(), number=signal.NUMBER):
        kill(me, number)
last = Last()
"""


@pytest.mark.parametrize("number", CODES)
def test_signal_while_the_interpreter_takes_itself_down_changes_nothing(number):
    code, out, error = process(TAKEN_DOWN, number, ["--version"])
    assert (code, error) == (0, "")
    assert out.startswith("model-compression ")


def test_signal_while_torch_is_imported_ends_with_a_line():
    code, out, error = process(WHILE_IMPORTED.replace("model_compression.core.config", "torch.nn"), "SIGHUP", MEASURE)
    assert (code, out) == (129, "")
    assert error == "model-compression measure: stopped by SIGHUP; nothing was written yet: repeat the command\n"


def test_the_installed_command_is_the_one_that_hears_early():
    assert 'model-compression = "model_compression.__main__:main"' in (ROOT / "pyproject.toml").read_text("utf-8")
