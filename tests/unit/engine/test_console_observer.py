"""The console estimates the time of a long run from the steps that it has done, and names its samples."""

from types import SimpleNamespace

import pytest
import torch

from model_compression.engine import console_observer
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.engine.contracts import Progress


class Texts(list):
    noun = "texts"


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, ["about 8 min"]), (0.05, [])])
def test_a_long_run_is_estimated_once_from_its_own_steps(tiny, monkeypatch, capsys, seconds, expected):
    clock = [100.0]
    monkeypatch.setattr(console_observer, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(console_observer, "most_memory_bytes", lambda: 1_100_000_000)
    trainer = SimpleNamespace(
        config=tiny.config(epochs=100),
        runtime=SimpleNamespace(precision=torch.float32),
        loader=Texts(range(50)),
        steps_per_epoch=10,
        device=torch.device("cpu"),
        compiled=False,
        total_steps=1000,
        step=20,
        task=SimpleNamespace(metric=console_observer.DEFAULT_METRIC),
    )
    observer = ConsoleObserver()
    observer.started(trainer, "test")
    for step in range(21, 60):
        clock[0] += 30 * seconds if step < 23 else seconds  # the first steps are slow, and not counted
        observer.stepped(Progress(epoch=step // 10, step=step, steps_per_epoch=10, sums=torch.ones(3)))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("about")]
    assert lines == [f"{line}, 1.1 GB of memory" for line in expected]
