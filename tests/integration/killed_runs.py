"""Kills a run at each of its write, fsync and rename calls in turn, and lets it go on: python killed_runs.py FOLDER.

Prints one JSON line a kill: the call, the moment, and whether the run that went on ends as the one that was left alone.
A process that forks, so that torch is loaded once: run it by itself, not within the test process.
"""

import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

import torch

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import RunFolderError
from model_compression.core.manifest import check_manifest
from model_compression.core.optim_config import OptimConfig
from model_compression.data.sources import DATASETS
from model_compression.engine import runs
from model_compression.engine.runs import resume_run, start_run
from model_compression.models.base import MODELS

CALLS = ("fsync", "replace")


def register_tiny():
    """The dataset and the network of conftest.py."""
    spec = importlib.util.spec_from_file_location("conftest_", Path(__file__).parents[1] / "conftest.py")
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    MODELS.register("tiny")(conftest.tiny_student)
    DATASETS.register("tiny")(conftest.tiny_data)
    return TrainConfig(
        student=ModelConfig(name="tiny"),
        data=DataConfig(name="tiny", augmentation="flip_shift", shift=2),
        optim=OptimConfig(optimizer="sgd", lr=0.1, schedule="one_cycle"),
        epochs=3,
        batch_size=5,
        ema=0.9,
        precision="fp32",
        device="cpu",
    )


def forked(task):
    """Runs ``task`` in a child; returns its exit code, negative for a signal."""
    child = os.fork()
    if not child:
        try:
            task()
        except RunFolderError as error:
            print(error, file=sys.stderr)
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def deadly(point):
    """Makes this process kill itself at the ``point``-th moment: before or after a call, or within a write."""
    moments = iter(range(10**6))

    def moment():
        return next(moments) == point

    def wrapped(real):
        def call(*arguments, **options):
            if moment():
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **options)
            if moment():
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    def opened(real):
        def call(*arguments, **options):
            return Dying(real(*arguments, **options), moment)

        return call

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))
    os.fdopen, Path.open = opened(os.fdopen), opened(Path.open)


class Dying:
    """A file whose process ends when half of a write has reached the disk."""

    def __init__(self, file, moment):
        self.file, self.moment = file, moment

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return self.file.__exit__(*exception)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, payload):
        if self.moment():
            self.file.write(payload[: len(payload) // 2])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.file.write(payload)


def contents(folder):
    """What a finished run left, without times."""
    assert check_manifest(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files.pop("manifest.json")  # with the digest of times
    metrics = json.loads(files.pop("metrics.json"))
    metrics.pop("seconds")
    files["timing.jsonl"] = [json.loads(line)["epoch"] for line in files["timing.jsonl"].splitlines()]
    return files, metrics


def main(place):
    """Kills at every point until a run comes through."""
    torch.set_num_threads(1)
    config = register_tiny()
    start_run(config, place / "whole")
    expected = contents(place / "whole")
    for point in range(10**6):
        folder = place / f"killed-{point}"

        def killed(point=point, folder=folder):
            def rehearse(*arguments, real=runs.rehearse):
                real(*arguments)  # in a folder of its own, which a kill leaves without loss
                deadly(point)

            runs.rehearse = rehearse
            start_run(config, folder)

        code = forked(killed)
        if code == 0:
            break
        assert code == -signal.SIGKILL, code
        finished = (folder / "manifest.json").exists()
        how = "finished" if finished else "resumed"
        if forked(lambda folder=folder: resume_run(folder)) != 0 and not finished:
            how = "started again"
            assert forked(lambda folder=folder: start_run(config, folder)) == 0
        print(json.dumps({"point": point, "how": how, "same": contents(folder) == expected}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
