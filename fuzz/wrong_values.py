"""Values that people and programs give by mistake, by the kind of the place that they are given to."""
# ruff: noqa: E501  (lines of values)

import argparse
import json
import random
from pathlib import Path
from typing import Any

TEXTS = (
    *("", " ", "x", "X" * 300, "a b", "é", "日本", "\udcff", "\x1b[31mred", "a\nb", "\t", "%s", "%d%%", "{0}", "$(x)", "`x`", "*", "?"),
    *("None", "null", "true", "nan", "-1", "0", "1.5", "[", "{", "[]", "{}", '"', "'", "[" * 2000, "9" * 5000, "\\", ";", "&", "|"),
    *("-", "--", "-x", "--x", "---", "=", "a=", "=b", "a=b=c", ",", ",,", "a,", ",a", "a,a", "+", "a+b", ":", "a:", ":a", "a:b", "#", "a#b"),
)  # fmt: skip
PATHS = (
    *("", ".", "..", "~", "~nosuchuser", "~nosuchuser/x", "./~x", "nosuch", "nosuch/x", "text.txt", "text.txt/x", "binary.bin"),
    *("\0", "a\0b", "\udcff", "x" * 255, "x" * 256, "x/" * 2100, "#", "text.txt#", "student.onnx#a", "#key", "images", "images/a"),
    *("empty", "loop", "broken-link", "locked", "text.onnx", "text.safetensors", "text.pt", "text.npy", "text.png", "text.json"),
    *("student.onnx", "teacher", "run", "pending", "run/config.json", "run/student.safetensors", "a\nb", "-", "--", "*.png", "è"),
)  # fmt: skip
NAMES = (
    *("folder:", "folder:nosuch", "folder:~nosuchuser/x", "folder:\0", "folder:text.txt", "folder:empty", "folder:images", "hf:", "hf:x"),
    *("hf:a/b", "hf:~nosuchuser/x", "hub:", "hub:x", "hub:a/b", "timm:", "timm:x", "torchvision:", "torchvision:x", "json:dumps", "no:such"),
    *("python:x", "python:", "x.y:z", "os:", ":os", "lenet", "resnet8", "cifar10", "synthetic", "kd", "kd,at", "kd+at", "kd,kd", "all"),
    *("resnet", "KD", "lenet-cifar10", "resnet8,resnet8", "resnet8,", "self", "auto", "off", "cpu", "cuda:99", "cuda", "meta", "mps"),
)  # fmt: skip
INTEGERS = (
    "-1",
    "0",
    "1",
    "2",
    "7",
    str(2**31),
    str(2**40),
    str(2**62),
    str(2**63 - 1),
    str(-(2**63)),
    str(2**63),
    str(10**20),
)
NUMBERS = ("-1", "-0.0", "0", "1e-300", "1e-320", "0.5", "1", "100", "1e9", "1e38", "1e300", "-1e300", "1e308")
NO_INTEGERS = (
    "x",
    "",
    "1.5",
    "1e3",
    "0x10",
    "nan",
    "inf",
    "1,000",
    "--",
    "True",
    "9" * 5000,
    str(10**20),
    "²",
    "None",
    "[1]",
)
NO_NUMBERS = ("x", "", "nan", "inf", "-inf", "1e999", "1,5", "--", "True", "0x1", "None", "[1]", "½")
JSON = (
    *(None, True, False, -1, 0, 1, 7, 2**31, 2**40, 2**63, 10**20, 10**400, 1.5, -0.5, 1e-320, 1e308, float("nan"), float("inf")),
    *("", "x", "\0", "\ud800", "~nosuchuser/x", "#", "nan", "a" * 300, [], [1], [-1], [0], [1, 2, 3], [1.5], ["x"], [None], [[1]], {}),
    *({"a": 1}, {"": 1}, {"a": None}, {"a": {"a": {}}}, [1e308], [float("nan")], [10**20], [2**40], "images", "auto", "9" * 5000),
)  # fmt: skip
# Python's, as source text: a failing call can be pasted
PYTHON = (
    *("None", "True", "0", "-1", "1", "1.5", "10**20", "10**400", "2**40", "float('nan')", "float('inf')", "1j", "''", "' '", "'x'", "b'x'"),
    *("'a\\0b'", "'\\ud800'", "'~nosuchuser/x'", "'#'", "'x' * 300", "'nosuch/x'", "'text.txt'", "'run'", "'pending'", "'lenet'", "'resnet8'"),
    *("[]", "[1]", "['x']", "()", "(1, 2)", "(1, 2, 3, 4)", "{}", "{'a': 1}", "{1: 2}", "{'a': object()}", "set()", "object()", "len", "int"),
    *("np.int64(3)", "np.float32(0.5)", "np.bool_(True)", "np.zeros(3)", "np.zeros((2, 2), dtype=object)", "np.array('x')", "range(3)"),
    *("torch.tensor(1)", "torch.ones(2)", "torch.float32", "torch.nn.Identity()", "torch.nn.Linear(2, 2)", "torch.nn.Linear", "Path('x')"),
    *("Path('~nosuchuser/x')", "Path('text.txt')", "Path('a\\0b')", "mc", "mc.ModelConfig(name='lenet')", "mc.MethodConfig(name='kd')"),
    *("mc.DataConfig()", "mc.OptimConfig()", "mc.TrainConfig(student=mc.ModelConfig(name='resnet8'))", "lambda: 1", "iter([])", "Exception()"),
)  # fmt: skip


def for_option(action: argparse.Action, rng: random.Random) -> tuple[str, bool]:
    """A value for an option or a positional, and whether it is wrong in any case, by its type or its choices."""
    if action.choices is not None:
        return rng.choice((*TEXTS, *NO_INTEGERS)), True
    if action.type in (int, float):
        wrong = NO_INTEGERS if action.type is int else NO_NUMBERS
        return (
            (rng.choice(wrong), True)
            if rng.random() < 0.4
            else (rng.choice((*INTEGERS, *NUMBERS)[: len(INTEGERS)] if action.type is int else NUMBERS), False)
        )
    if action.metavar == "KEY=VALUE" or (isinstance(action.metavar, str) and "=" in action.metavar):
        return f"{rng.choice(keys())}={json.dumps(rng.choice(JSON))}" if rng.random() < 0.8 else rng.choice(
            TEXTS
        ), False
    if isinstance(action.metavar, str) and "," in action.metavar and rng.random() < 0.5:
        return ",".join(rng.choice((*NUMBERS, *NO_NUMBERS)) for _ in range(rng.choice((1, 2, 3, 4)))), False
    if action.type is Path:
        return rng.choice(PATHS), False
    return rng.choice(rng.choice((TEXTS, PATHS, NAMES))), False


def keys() -> list[str]:
    """Names of the options of all networks and methods here, and some of none."""
    import inspect

    from model_compression.distillation.methods import METHODS
    from model_compression.models import MODELS

    found = {"", "x", "pretrained", "kd.temperature", "at.", "name"}
    for registry in (METHODS, MODELS):
        for name in registry:
            found |= set(inspect.signature(registry.get(name)).parameters)
    return sorted(found)


def in_json(values: Any, rng: random.Random) -> Any:
    """A copy of nested plain ``values`` with one of them, at any depth, replaced, left out, or with an unknown key."""
    changed = json.loads(json.dumps(values))
    place = changed
    while True:
        key = rng.choice(sorted(place))
        if not isinstance(place[key], dict) or not place[key] or rng.random() < 0.2:
            break
        place = place[key]
    change = rng.random()
    if change < 0.05:
        del place[key]
    elif change < 0.1:
        place[rng.choice(("x", "", "nmae", "\x1b[31m"))] = 1
    elif key in ("options", "params", "weights", "pairs") and rng.random() < 0.7:
        place[key] = {rng.choice(keys()): rng.choice(JSON)}
    else:
        place[key] = rng.choice(JSON)
    return changed
