"""Thousands of calls with wrong values: every option of every command, every field, every public function.

Options are found by walking the parsers, fields and functions by walking the package: what is added is swept. Each
call, made in this process, must be refused by one clear line and exit code 1 or 2, in Python by an error of this
package, with nothing written; a value that is right after all is let through until work would begin. The handler of
unforeseen errors counts as a failure.
"""
# ruff: noqa: E501  (lines of values)

import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import model_compression as mc
from fuzz import wrong_values
from fuzz.sandbox import CHEAP, Sandbox, WorkBegan, without_work

SECONDS = 30  # that a call may take
_LONGEST = 1700  # characters of a line of an error
_WEIGHTED = ["--allow-weak-teacher", "--teacher", "teacher"]
_DATA = ["--data", "folder:images", "--image-size", "8"]
# What is right for each command. An option's wrong value comes after it, and so in its place.
BASES: dict[str, list[str]] = {
    "cache": ["build", *CHEAP, "--teacher", "teacher"],
    "compare": ["run", "teacher"],
    "compare-methods": [*CHEAP, *_WEIGHTED, "--student", "resnet8", "--methods", "kd,at", "--out", "new", "--runs", "new-runs"],
    "search": [*CHEAP, *_WEIGHTED, "--student", "resnet8", "--validation", "2", "--trials", "1", "--out", "new", "--runs", "new-runs"],
    "compress": [*CHEAP, *_WEIGHTED, "--student", "resnet8", "--out", "new"],
    "data": ["folder:images", "--image-size", "8"],
    "demo": ["--data", "folder:images", "--teacher", "teacher", "--epochs", "1", "--out", "new"],
    "distill": [*CHEAP, *_WEIGHTED, "--student", "resnet8", "--out", "new"],
    "doctor": [*_DATA, "--teacher", "teacher", "--student", "resnet8"],
    "draw": ["run", "--out", "new.svg"],
    "embed": ["run", *_DATA, "--out", "new.parquet"],
    "export": ["run", *_DATA, "--out", "new.onnx"],
    "export-npy": ["lenet-cifar10", "--out", "new.npy"],
    "features": ["run"],
    "import": ["weights.npy", "--model", "lenet", "--out", "new.safetensors"],
    "measure": ["run", "--size", "8", "--seconds", "0.01", "--batch-size", "1", "--threads", "1"],
    "methods": ["kd"],
    "pack": ["run", "--out", "new.safetensors"],
    "predict": ["student.onnx", "image.png"],
    "prune": ["run", *CHEAP, "--params", "0.5", "--steps", "1", "--out", "new"],
    "push": ["run", "me/it", "--dry-run"],
    "quantize": ["run", *CHEAP, "--out", "new"],
    "report": ["run", "--out", "new.html"],
    "reproduce": [*CHEAP[:4], "--seeds", "1", "--epochs", "1", "--out", "new", "--runs", "new-runs"],
    "resume": ["pending"],
    "runs": ["."],
    "test": ["--model", "run", *_DATA],
    "train": [*CHEAP, "--student", "resnet8", "--out", "new"],
    "verify": ["student.onnx", "--model", "run", *_DATA],
}  # fmt: skip
_RUN = "mc.TrainConfig(student=mc.ModelConfig(name='resnet8'), teacher=mc.ModelConfig(name='teacher'), method=mc.MethodConfig(name='kd'), data=mc.DataConfig(name='folder:images', image_size=8), epochs=1, allow_weak_teacher=True)"
_SCHEME = f"mc.SchemeConfig(scheme='self', run={_RUN}, generations=2)"
# Every public function with what is right for its arguments, as source text; positional ones under their numbers
FUNCTIONS: dict[str, dict[int | str, str]] = {
    "Outputs": {"logits": "torch.ones(2, 3)", "embedding": "None", "features": "{}"},
    "Tapped": {0: "mc.create_model('resnet8', seed=0)", 1: "()", "embedding": "False"},
    "compare_methods": {
        **{0: "'teacher'", 1: "'resnet8'", 2: "'folder:images'", "methods": "['kd']", "seeds": "1", "epochs": "1", "out": "'new'"},
        **{"runs": "'new-runs'", "config": "None", "observer": "None", "progress": "None", "image_size": "8"},
    },
    "search": {
        **{0: "'resnet8'", 1: "'folder:images'", "teacher": "'teacher'", "method": "'kd'", "tune": "['lr']", "trials": "1"},
        **{"final_seeds": "0", "epochs": "1", "storage": "None", "out": "'new'", "runs": "'new-runs'", "jobs": "1"},
        **{"config": "None", "observer": "None", "progress": "None", "image_size": "8", "validation": "2"},
    },
    "compress": {
        **{0: "'teacher'", 1: "'resnet8'", 2: "'folder:images'", "max_bytes": "0", "max_latency_ms": "0.0", "min_accuracy": "0.0"},
        **{"to": "'int8'", "max_drop": "0.5", "method": "'kd'", "steps": "1", "step_epochs": "1", "epochs": "1", "seed": "0"},
        **{"config": "None", "run_dir": "'new'", "image_size": "8", "batch_size": "4", "allow_weak_teacher": "True"},
    },
    "create_method": {0: "'kd'", "temperature": "4.0"},
    "create_model": {0: "'resnet8'", "seed": "0", "num_classes": "3"},
    "distill": {
        **{0: "'teacher'", 1: "'resnet8'", 2: "'folder:images'", "method": "'kd'", "params": "None", "epochs": "1", "seed": "0"},
        **{"teacher_weights": "None", "run_dir": "'new'", "resume": "False", "config": "None", "observer": "None", "image_size": "8"},
        **{"allow_weak_teacher": "True", "batch_size": "4", "lr": "1e-3"},
    },
    "doctor": {"teacher": "'teacher'", "student": "None", "data": "mc.DataConfig(name='folder:images', image_size=8)", "method": "'kd'", "device": "'cpu'", "runs": "'new-runs'"},
    "embed": {0: "'run'", 1: "'new.parquet'", 2: "'folder:images'", "split": "'test'", "device": "'cpu'", "force": "False"},
    "evaluate": {0: "'run'", 1: "None", "split": "'test'", "device": "'cpu'", "precision": "'fp32'", "observer": "None", "trust": "False"},
    "export": {0: "'run'", 1: "'new.onnx'", 2: "None", "to": "None", "preprocessing": "True", "force": "False"},
    "load_cifar10": {0: "'nosuch'", "report": "print", "allow_download": "False"},
    "load_model": {0: "'run'", 1: "None", "seed": "0", "weights": "None"},
    "measure": {0: "'run'", "batch_size": "1", "threads": "0", "seconds": "0.1", "size": "None"},
    "pack": {0: "'run'", 1: "'new.safetensors'", 2: "None", "force": "False", "trust": "False"},
    "predict": {0: "'student.onnx'", 1: "'image.png'", "top": "1"},
    "prune": {
        **{0: "'run'", 1: "0.5", "resource": "'params'", "steps": "1", "step_epochs": "1", "low_rank": "False", "method": "None"},
        **{"config": "None", "run_dir": "'new'", "epochs": "1", "batch_size": "4"},
    },
    "push": {0: "'run'", 1: "'user/name'", "private": "False", "dry_run": "True"},
    "quantize": {
        **{0: "'run'", "to": "'int8'", "calibration": "'minmax'", "max_drop": "0.5", "method": "None", "config": "None"},
        **{"run_dir": "'new'", "epochs": "1", "batch_size": "4"},
    },
    "report": {0: "['run']", 1: "'new.html'"},
    "reproduce": {
        **{0: "'classic'", "seeds": "1", "first_seed": "0", "epochs": "1", "teacher": "'teacher'", "arms": "['labels']"},
        **{"data": "mc.DataConfig(name='folder:images', image_size=8)", "out": "'new'", "runs": "'new-runs'"},
    },
    "resume": {0: "'pending'", "lr": "None", "observer": "None", "trust": "False"},
    "resume_run": {0: "'pending'", 1: "None", "parts": "None", "lr": "None", "finished": "print"},
    "resume_scheme": {0: "'scheme'", 1: "None"},
    "run_scheme": {0: _SCHEME, 1: "'new'", 2: "None"},
    "start_run": {0: _RUN, 1: "'new'", 2: "None", "parts": "None", "finished": "print"},
    "train": {
        **{0: "'resnet8'", 1: "'folder:images'", "epochs": "1", "seed": "0", "run_dir": "'new'", "resume": "False", "config": "None"},
        **{"observer": "None", "progress": "None", "image_size": "8", "batch_size": "4", "lr": "1e-3"},
    },
    "verify": {0: "'student.onnx'", 1: "'run'", 2: "None", "bound": "None", "max_drop": "None"},
}  # fmt: skip
# Every configuration with what is right for its fields that have no default
CONFIGS: dict[str, dict[str, str]] = {
    "mc.DataConfig": {},
    "mc.MethodConfig": {"name": "'kd'"},
    "mc.ModelConfig": {"name": "'resnet8'"},
    "mc.OptimConfig": {},
    "mc.SchemeConfig": {"scheme": "'self'", "run": _RUN, "generations": "2"},
    "mc.TrainConfig": {"student": "mc.ModelConfig(name='resnet8')"},
    "Budget": {},
    "CompressConfig": {"run": _RUN, "budget": "Budget()"},
    "PruneConfig": {"model": "'run'", "run": _RUN, "share": "0.5"},
    "TableConfig": {},
    "QuantizeConfig": {"model": "'run'", "run": _RUN},
}
_IMPORTS = (
    "from pathlib import Path; import numpy as np; import torch; import model_compression as mc; "
    "from model_compression.compression.config import Budget, CompressConfig, PruneConfig, QuantizeConfig; "
    "from model_compression.core.config_json import from_json, to_json; "
    "from model_compression.core.table_config import TableConfig; "
)


@dataclass(kw_only=True)
class Call:
    """One call: ``arguments`` of the command line, or ``source`` in Python; ``files`` are written before it."""

    arguments: list[str] | None = None
    source: str = ""
    files: dict[str, str] = field(default_factory=dict)
    wrong: bool = False
    """Whether a value is wrong in any case, so that exit code 0 is a failure."""

    def pasteable(self) -> str:
        """A Python program that makes the call, in a folder like the sandbox."""
        writes = "".join(f"Path({name!r}).write_text({text!r}); " for name, text in self.files.items())
        if self.arguments is None:
            return f"{_IMPORTS}{writes}{self.source}"
        path = "from pathlib import Path; " if writes else ""
        return f"from model_compression.cli.main import main; {path}{writes}raise SystemExit(main({self.arguments!r}))"


class TooLong(BaseException):
    """A call took longer than it may."""


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command as the command line builds it."""
    from model_compression.cli.main import COMMANDS, Parser

    module = importlib.import_module(f"model_compression.cli.{COMMANDS[command][0]}")
    parser = Parser(prog=command)
    module.configure(parser)
    return parser


def actions_of(parser: argparse.ArgumentParser) -> list[tuple[list[str], argparse.Action]]:
    """All options and positionals, each with the subcommands that lead to it."""
    found: list[tuple[list[str], argparse.Action]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.append(([], action))
            found += [([name], inner) for name, sub in action.choices.items() for _, inner in actions_of(sub)]
        elif not isinstance(action, argparse._HelpAction):
            found.append(([], action))
    return found


class Calls:
    """Call number n of a seed, for every n: the same each time."""

    def __init__(self, seed: int, config: dict[str, Any]):
        from model_compression.cli.main import COMMANDS

        self.seed, self._config = seed, config
        self._options = [(name, *found) for name in COMMANDS for found in actions_of(parser_of(name))]

    def __getitem__(self, number: int) -> Call:
        rng = random.Random(f"{self.seed}-{number}")
        kind = rng.random()
        if kind < 0.68:
            return self._option(rng)
        if kind < 0.82:
            return self._file(rng)
        return _function(rng) if kind < 0.92 else _configuration(rng)

    def _option(self, rng: random.Random) -> Call:
        command, path, action = rng.choice(self._options)
        base, options = BASES[command], []
        wrong = False
        if path and path[0] != base[0]:
            base = path
        actions = [action]
        if rng.random() < 0.15:  # two at once
            others = [one for name, way, one in self._options if name == command and way == path and one.option_strings]
            actions += [rng.choice(others)] if others else []
        for one in actions:
            value, is_wrong = wrong_values.for_option(one, rng)
            wrong |= is_wrong
            if not one.option_strings:
                base = _with_positional(base, command, one, value)
            elif one.nargs == 0:
                wrong |= bool(rng.random() < 0.5)
                options += [f"{one.option_strings[-1]}={value}"] if wrong else [one.option_strings[-1]]
            elif isinstance(one.nargs, str) or (rng.random() < 0.2 and not value.startswith("-")):
                options += [one.option_strings[-1], value]
            else:
                options += [f"{one.option_strings[-1]}={value}" if rng.random() < 0.97 else one.option_strings[-1]]
        wrong = wrong and len(actions) == 1 and bool(action.option_strings) and not isinstance(action.nargs, str)
        return Call(arguments=[command, *base, *options], wrong=wrong and not _is_repeated(action))

    def _file(self, rng: random.Random) -> Call:
        """A configuration file, or what a folder of several stages holds, with one wrong value."""
        config = self._config
        whole: dict[str, tuple[list[str], Any]] = {
            "given.json": (["train", "--config", "given.json", "--out", "new"], {**config, "teacher": None, "method": None}),
            "other.json": (["distill", "--config", "other.json", "--out", "new"], config),
            "pending/config.json": (["resume", "pending"], config),
            "scheme/scheme.json": (["resume", "scheme"], {"scheme": "self", "run": config, "generations": 2, "assistants": ""}),
            "pruning/prune.json": (["resume", "pruning"], {"model": "run", "run": config, "share": 0.5, "steps": 1, "low_rank": False, "resource": "params", "round_to": 4, "step_epochs": 1}),
            "quantising/quantize.json": (["resume", "quantising"], {"model": "run", "run": config, "to": "int8", "calibration": "auto", "images": 4, "max_drop": 0.5}),
            "compressing/compress.json": (["resume", "compressing"], {"run": config, "budget": {"max_bytes": 0, "max_latency_ms": 0.0, "min_accuracy": 0.0}, "share": 0.5, "steps": 1, "step_epochs": 1, "to": "int8"}),
        }  # fmt: skip
        name = rng.choice(sorted(whole))
        arguments, values = whole[name]
        text = json.dumps(wrong_values.in_json(values, rng))
        if rng.random() < 0.05:
            text = rng.choice(("", "{", "[]", "null", "3", text[: len(text) // 2], "[" * 5000))
        return Call(arguments=arguments, files={name: text})


def _is_repeated(action: argparse.Action) -> bool:
    return isinstance(action, argparse._AppendAction)


def _with_positional(base: list[str], command: str, action: argparse.Action, value: str) -> list[str]:
    """``base`` with ``value`` instead of a positional; positionals come before all options there."""
    names = [one for one in parser_of(command)._actions if not one.option_strings]
    place = next((number for number, one in enumerate(names) if one.dest == action.dest), None)
    if place is None or command == "cache":
        return [*base[:1], value]
    if place < len(base) and not base[place].startswith("--"):
        return [*base[:place], value, *base[place + 1 :]]
    return [value, *base]


def _call_source(name: str, values: dict[Any, str]) -> str:
    positional = [values[key] for key in sorted(key for key in values if isinstance(key, int))]
    return f"{name}({', '.join([*positional, *(f'{k}={v}' for k, v in values.items() if isinstance(k, str))])})"


def _function(rng: random.Random) -> Call:
    name = rng.choice(sorted(FUNCTIONS))
    values = dict(FUNCTIONS[name])
    values[rng.choice(list(values))] = rng.choice(wrong_values.PYTHON)
    return Call(source=_call_source(f"mc.{name}", values))


def _configuration(rng: random.Random) -> Call:
    name = rng.choice(sorted(CONFIGS))
    kind: Any = _namespace_value(name)
    values: dict[Any, str] = dict(CONFIGS[name])
    values[rng.choice([one.name for one in dataclasses.fields(kind)])] = rng.choice(wrong_values.PYTHON)
    made = _call_source(name, values)
    return Call(source=f"config = {made}; assert from_json({name}, to_json(config)) == config, 'not as it was'")


_NAMESPACE: dict[str, Any] = {}


def _namespace_value(name: str) -> Any:
    if not _NAMESPACE:
        exec(_IMPORTS, _NAMESPACE)
    return eval(name, _NAMESPACE)


def fault_of(call: Call, box: Sandbox) -> tuple[str, str]:
    """("" or what is wrong with how the call ended, its outcome in a word)."""
    for name, text in call.files.items():
        Path(name).write_text(text, encoding="utf-8", errors="surrogatepass")
    before = box.changes()
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    started = time.monotonic()
    fault, outcome, code = "", "", None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _limited(), without_work():
            if call.arguments is None:
                outcome = _in_python(call)
            else:
                code = _on_the_command_line(call.arguments)
                outcome = f"exit code {code}"
    except WorkBegan:
        outcome = "work begins"
        fault = "work begins with a value that is wrong" if call.wrong else ""
    except TooLong:
        fault = f"takes longer than {SECONDS} s"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{type(error).__name__}: {str(error)[:300]} ({place.filename}:{place.lineno})"
    stdout, stderr = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err))  # type: ignore[attr-defined]
    if code is not None:
        assert call.arguments is not None
        fault = fault_on_the_command_line(call, code, stdout, stderr)
    changes = [name for name in box.changes() if name not in before]
    if changes and not fault and outcome not in ("work begins", "exit code 0", "accepted"):
        fault = f"refused, but written: {', '.join(changes[:5])}"
    if changes or before:
        box.restore()
    torch.set_num_threads(1)
    seconds = time.monotonic() - started
    return (f"{fault}  [{seconds:.1f} s]" if fault else ""), outcome or "failure"


def _in_python(call: Call) -> str:
    try:
        exec(call.source, _NAMESPACE)
    except mc.ModelCompressionError as error:
        if len(str(error)) > _LONGEST:
            raise ValueError(f"an error of {len(str(error))} characters") from error
        return type(error).__name__
    return "accepted"


def _on_the_command_line(arguments: list[str]) -> int:
    from model_compression.cli.main import main

    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 99


def fault_on_the_command_line(call: Call, code: int, stdout: str, stderr: str) -> str:
    """What is wrong with an exit code and what was printed; "" if nothing is."""
    assert call.arguments is not None
    lines = [line for line in stderr.splitlines() if line.startswith("model-compression")]
    last = stderr.rstrip("\n").rpartition("\n")[2]
    if code not in (0, 1, 2):
        return f"exit code {code}: {last[:400]}"
    if "Traceback (most recent" in stdout + stderr or "Warning:" in stderr:
        return f"a traceback or a warning: {stderr[-400:]}"
    if code == 0:
        return f"exit code 0 with a value that is wrong: {stdout[:100]}" if call.wrong else ""
    if code == 1 and call.arguments[0] == "doctor" and not stderr:
        return ""  # what it found is on stdout
    if len(lines) != 1 or last != lines[0]:
        return f"exit code {code} and {len(lines)} lines of an error, the last {last[:300]!r}"
    if len(last) > _LONGEST or "\x1b" in last or not last.partition(": ")[2].strip():
        return f"a line of {len(last)} characters, or unclear: {last[:200]!r}"
    return ""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main(arguments: list[str]) -> int:
    """Makes the calls and prints each that fails; returns 1 if there was one."""
    parser = argparse.ArgumentParser(prog="python -m fuzz cli", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, metavar="N", help="default: 10,000")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the number of the first call (default: 0)")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    np.seterr(all="raise")
    np.seterr(under="ignore")
    _namespace_value("mc")
    outcomes: Counter[str] = Counter()
    failures, started = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            box = Sandbox(Path(folder))
        calls = Calls(args.seed, box.config)
        ready = time.monotonic()
        for number in range(args.first, args.first + args.calls):
            call = calls[number]
            fault, outcome = fault_of(call, box)
            outcomes["failure" if fault else outcome] += 1
            if fault:
                failures += 1
                print(
                    f"--seed {args.seed} --first {number} --calls 1: {fault}\n  python -c {call.pasteable()[:1500]!r}"
                )
                sys.stdout.flush()
        os.chdir(Path(__file__).parent)  # out of the sandbox, which is deleted
    seconds = time.monotonic() - ready
    print(
        f"{args.calls:,} calls of seed {args.seed} in {seconds:.0f} s (set-up {ready - started:.0f} s): {failures} failures"
    )
    for outcome, count in outcomes.most_common():
        print(f"{count:>8,}  {outcome}")
    return 1 if failures else 0
