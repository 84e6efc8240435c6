"""Digests of what a fixed set of short runs leaves: they show that a refactoring has changed no result.

Run ``python -m benchmarks.digests`` before and after a change, on one machine with one set of versions. Each run goes
through the command line, on the built-in synthetic images, in a temporary folder. The digests are of tensors, figures
and answers, never of whole files, so that a header or a file name may change.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from benchmarks.record import surroundings

RECORD = Path("results/digests/digests.json")
SHORT = ["--data", "synthetic", "--epochs", "2", "--batch-size", "96", "--optimizer", "adamw", "--lr", "2e-3"]
SHORT += ["--weight-decay", "0", "--schedule", "constant", "--augmentation", "none"]  # nothing is left to choose
TAUGHT = ["distill", "--teacher", "teacher", "--student", "resnet8"]
VIEWS = ["--augmentation", "flip_shift", "--views", "2"]
FP32, BF16 = ["--precision", "fp32"], ["--precision", "bf16"]

# name → arguments of the command, each run after those above it; "teacher" and "labels" are runs of this list
RUNS: dict[str, list[str]] = {
    "teacher": ["train", "--student", "resnet14", *SHORT, "--epochs", "3", *FP32],
    "labels": ["train", "--student", "lenet", *SHORT, *BF16],
    "logits": [*TAUGHT, "--method", "logits", *SHORT, *VIEWS, *FP32],
    "kd-cold": [*TAUGHT, "--method", "kd", *SHORT, *VIEWS, *BF16],
    "kd-warm": [*TAUGHT, "--method", "kd", *SHORT, *VIEWS, *BF16],
    "review_kd": [*TAUGHT, "--method", "review_kd", *SHORT, *FP32],
    "rkd": [*TAUGHT, "--method", "rkd", *SHORT, *FP32],
    "crd": [*TAUGHT, "--method", "crd", *SHORT, *FP32],
    "mixup-ema": [*TAUGHT, "--method", "kd", "--mixup", "0.2", "--ema", "0.9", *SHORT, *FP32],
    "muon": [*TAUGHT, "--method", "kd", *SHORT, "--optimizer", "muon", "--schedule", "one_cycle", *BF16],
    "dml": ["distill", "--scheme", "dml", "--student", "resnet8", *SHORT, *FP32],
    "takd": [*TAUGHT, "--scheme", "takd", "--assistants", "resnet8", *SHORT, *FP32],
    "resumed": [*TAUGHT, "--method", "kd", *SHORT, *VIEWS, "--epochs", "6", *FP32],
    "uninterrupted": [*TAUGHT, "--method", "kd", *SHORT, *VIEWS, "--epochs", "6", *FP32],
    "prune": ["prune", "kd-cold", "--macs", "0.5", "--epochs", "1"],
    "quantize": ["quantize", "kd-cold"],
    "compress": ["compress", *TAUGHT[1:], *SHORT, *VIEWS, "--max-bytes", "80000", "--steps", "2", "--step-epochs", "1",
                 "--precision", "fp32"],
    "export": ["export", "kd-cold", "--out", "export/student.onnx"],
}  # fmt: skip
_FIGURES = ("test_accuracy", "test_nll", "test_ece", "teacher_test_accuracy", "teacher_agreement", "parameters")


def main() -> int:
    """Prints the digests, and what differs from the record; 1 when anything does."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digests", description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write {RECORD} instead of comparing with it")
    parser.add_argument("--against", type=Path, default=RECORD, metavar="FILE", help="the record to compare with")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = dict(_digests(Path(folder)))
    if args.record:
        RECORD.parent.mkdir(parents=True, exist_ok=True)
        RECORD.write_text(json.dumps({"surroundings": _machine(), "digests": found}, indent=1, sort_keys=True) + "\n")
        print(RECORD)
        return 0
    record = json.loads(args.against.read_text())
    if record["surroundings"] != _machine():
        print(f"the record is of another machine or other versions:\n  {record['surroundings']}\n  {_machine()}")
    before = record["digests"]
    changed = sorted(key for key in before | found if before.get(key) != found.get(key))
    for key in changed:
        print(f"{key}: {before.get(key, 'not there')} became {found.get(key, 'not there')}")
    print(f"{len(before | found) - len(changed)} of {len(before | found)} digests are those of {args.against}")
    return int(bool(changed))


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for name, arguments in RUNS.items():
        print(f"{name} ...", file=sys.stderr)
        out = [] if "--out" in arguments else ["--out", name]
        (_interrupted if name == "resumed" else _called)(folder, [*arguments, *out], name)
        yield from _of_folder(folder, name)
    yield from _of_folder(folder, "cache")


def _of_folder(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """Digests of the weights, answers, figures and exported files below ``folder / name``, by relative path."""
    for path in sorted((folder / name).rglob("*")):
        key = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors" and not path.name.startswith("state"):
            digest = _of_tensors(path)
            yield (f"stored answers {digest[:12]}" if name == "cache" else key), digest
        elif path.name == "metrics.json":
            values = json.loads(path.read_text())
            figures = {key: values[key] for key in _FIGURES if key in values}
            yield key, _sha256(json.dumps(figures, sort_keys=True).encode())
        elif path.suffix == ".onnx":
            yield f"{key} answers", _of_file_answers(path)


def _of_tensors(path: Path) -> str:
    digest = hashlib.sha256()
    with safe_open(path, framework="numpy") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tensor.shape} ".encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


def _of_file_answers(path: Path) -> str:
    import onnxruntime

    from model_compression.data.synthetic import load_synthetic

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    _, test = load_synthetic()
    (logits,) = session.run(None, {session.get_inputs()[0].name: test.images[:]})
    return _sha256(np.ascontiguousarray(logits).tobytes())


def _interrupted(folder: Path, arguments: list[str], name: str) -> None:
    """The run, stopped in the middle of an epoch by SIGTERM, and resumed."""
    process = subprocess.Popen(_command(arguments), cwd=folder, env=_environment(folder), stderr=subprocess.PIPE)
    while not (folder / name / "state.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.15)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    if process.returncode != 128 + signal.SIGTERM:
        raise SystemExit(f"{name} was not interrupted but ended with {process.returncode}: {errors.decode()}")
    _called(folder, ["resume", name], name)


def _called(folder: Path, arguments: list[str], name: str) -> None:
    done = subprocess.run(_command(arguments), cwd=folder, env=_environment(folder), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed: {' '.join(arguments)}\n{done.stderr}")


def _command(arguments: list[str]) -> list[str]:
    code = "import sys; from model_compression.cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", code, *arguments]


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "MODEL_COMPRESSION_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def _machine() -> dict[str, Any]:
    import torch

    facts = surroundings(torch.device("cpu"))
    return {key: value for key, value in facts.items() if key != "date"}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
