"""The command with a fault in one of its processes, by the environment: FAULT=KIND:RANK:STEP. It is no test.

KIND is "memory", when more than three samples go through a network at once, "nan", or "kill", by signal 9.
"""

import os
import signal
import sys

import torch

from model_compression.cli.main import main
from model_compression.core import processes
from model_compression.engine.gradients import Gradients


def break_one_process():
    """Makes the step of one process fail."""
    kind, rank, step = os.environ["FAULT"].split(":")
    backward, made = Gradients._backward, []

    def faulty(self, batch, teacher, context, *args, **kwargs):
        args = (teacher, context, *args)
        if processes.rank() != int(rank) or context.step < int(step):
            return backward(self, batch, *args, **kwargs)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "memory" and len(batch.targets) > 3:
            made.append(len(batch.targets))
            if len(made) % 2:  # in its middle, when gradients of some layers have been sent off
                self._step.student.register_full_backward_hook(_no_memory)
                return backward(self, batch, *args, **kwargs)
            raise torch.OutOfMemoryError("out of memory")
        if kind == "nan":
            with torch.no_grad():
                next(self._step.student.parameters()).mul_(float("nan"))
        return backward(self, batch, *args, **kwargs)

    Gradients._backward = faulty


def _no_memory(module, inputs, outputs):
    module._backward_hooks.clear()
    raise torch.OutOfMemoryError("out of memory")


if __name__ == "__main__":
    if "FAULT" in os.environ:
        break_one_process()
    sys.exit(main())
