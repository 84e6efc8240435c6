"""A slice of the sweep of wrong values: each call is refused by one clear line, with nothing written."""

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import sweep

import model_compression as mc
from model_compression.cli.main import COMMANDS
from model_compression.core.config_values import Config


def whole(kind):
    """The package's configurations that are no part of another one; tests make some of their own."""
    owns = [own for own in kind.__subclasses__() if own.__module__.startswith("model_compression.")]
    return {leaf for own in owns for leaf in whole(own)} or {kind}


def test_what_is_added_to_the_package_is_swept():
    assert set(sweep.BASES) == set(COMMANDS)
    public = {name: getattr(mc, name) for name in mc.__all__ if not name.startswith("__")}
    others = {name for name, one in public.items() if isinstance(one, type) and issubclass(one, Config | Exception)}
    assert set(sweep.FUNCTIONS) == set(public) - others
    kinds = {kind.__name__ for kind in whole(Config)}
    assert {name.removeprefix("mc.") for name in sweep.CONFIGS} == kinds


def test_hundreds_of_calls_with_wrong_values_are_refused():
    command = [sys.executable, "-W", "ignore", "-m", "fuzz", "cli", "--calls", "300", "--seed", "1"]
    done = subprocess.run(command, cwd=Path(sweep.__file__).parents[1], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 calls of seed 1" in done.stdout
    assert ": 0 failures" in done.stdout


@pytest.mark.parametrize(
    ("code", "out", "err", "is_fault"),
    [
        (2, "", "model-compression train: error: lr must be a number, got 'x'\n", False),
        (1, "", "teacher: run\nmodel-compression train: error: no such file\n", False),
        (0, "fine\n", "", True),
        (70, "", "model-compression train: internal error: KeyError: 'x'\n", True),
        (-6, "", "", True),
        (2, "", "", True),
        (1, "", "Traceback (most recent call last):\nmodel-compression train: error: x\n", True),
        (2, "", "model-compression train: error: x\nmodel-compression train: error: y\n", True),
        (2, "", "model-compression train: error: x\nand another line\n", True),
        (2, "", f"model-compression train: error: {'x' * 2000}\n", True),
    ],
)
def test_ends_of_calls_are_judged(code, out, err, is_fault):
    call = sweep.Call(arguments=["train", "--lr=x"], wrong=True)
    assert bool(sweep.fault_on_the_command_line(call, code, out, err)) == is_fault


def test_a_call_can_be_pasted_and_is_the_same_each_time():
    calls = sweep.Calls(3, {"student": {"name": "lenet"}, "epochs": 3})
    assert [calls[number] for number in range(20)] == [calls[number] for number in range(20)]
    for number in range(20):
        compile(calls[number].pasteable(), "call", "exec")
