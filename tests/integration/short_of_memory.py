"""Trains under a limit of memory: python short_of_memory.py FOLDER STUDENT BATCH MIB.

That many MiB are left for the steps; 0: no limit. Prints, as JSON lines, what the run says.
"""

import ctypes
import json
import resource
import sys
from pathlib import Path

import torch

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import ModelCompressionError
from model_compression.core.optim_config import OptimConfig
from model_compression.data.synthetic import load_synthetic
from model_compression.engine.observer import Silent
from model_compression.engine.parts import Parts
from model_compression.engine.runs import start_run
from model_compression.models import create_model
from model_compression.models.weights import save_weights


class Limiting(Silent):
    """Leaves ``mib`` of address space for the steps, once everything is loaded."""

    def __init__(self, mib):
        self.mib = mib

    def started(self, trainer, eval_set):
        torch.nn.Linear(1, 1)(torch.ones(2, 1)).sum().backward()  # its thread has a heap of its own, which is large
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before, as by the rehearsal, would serve the steps
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        if self.mib:
            resource.setrlimit(resource.RLIMIT_AS, (used + self.mib * 2**20, resource.RLIM_INFINITY))

    def epoch_done(self, event):
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def message(self, text):
        print(json.dumps({"message": text}), flush=True)


def main(folder, student, batch_size, mib):
    """One epoch of 512 images."""
    torch.set_num_threads(1)
    train, test = load_synthetic(None, None, True)
    teacher = folder.parent / "teacher.safetensors"
    if not teacher.exists():
        save_weights(teacher, create_model("lenet-caffe", seed=9))
    config = TrainConfig(
        student=ModelConfig(name=student),
        teacher=ModelConfig(name=str(teacher)),
        method=MethodConfig(name="kd"),
        data=DataConfig(name="synthetic"),
        optim=OptimConfig(optimizer="sgd", lr=0.01),
        epochs=1,
        batch_size=batch_size,
        precision="fp32",
        device="cpu",
        teacher_cache="off",
        allow_weak_teacher=True,
    )
    try:
        parts = Parts(data=(train.subset(range(512)), test.subset(range(64))))
        start_run(config, folder, Limiting(mib), parts=parts)
    except ModelCompressionError as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}))
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
