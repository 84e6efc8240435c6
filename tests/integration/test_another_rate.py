"""A run whose loss exploded keeps the last good state, and goes on from it with another rate."""

import json

import pytest
from safetensors.torch import load

from model_compression.core.config import ModelConfig
from model_compression.core.errors import Interrupted, NumericalError, UsageError
from model_compression.engine.checkpoint import load_state
from model_compression.engine.runs import resume_run, start_run

SGD = {"optimizer": "sgd", "momentum": 0.0}


@pytest.fixture
def exploded(tiny, tmp_path, watcher):
    """(the run's folder, the message): the rate is good for two epochs of five steps, and then is not."""
    config = tiny.config(student=ModelConfig(name="tiny-teacher"), optim={**SGD, "lr": 1e-3}, epochs=8)

    class Raising(watcher):
        def stepped(self, progress):
            super().stepped(progress)
            if progress.step == 10:
                self.trainer.change_lr(1.0)

    with pytest.raises(NumericalError) as caught:
        start_run(config, tmp_path / "run", Raising())
    return tmp_path / "run", str(caught.value)


def test_explosion_keeps_a_state_of_before_and_says_how_to_go_on(exploded):
    folder, message = exploded
    assert message.startswith("the loss exploded: it is ")
    state = load_state(folder / "state.safetensors")
    step = state.progress["step"]
    assert 10 <= step <= 15  # the third epoch may end before the loss is high
    assert message.endswith(
        f"; the state of step {step} is kept; go on from it with: model-compression resume {folder} --lr RATE"
    )
    assert all(tensor.isfinite().all() and tensor.abs().max() < 1e3 for tensor in state.tensors.values())
    assert not (folder / "metrics.json").exists()


def test_resumed_run_has_the_rate_that_was_given_and_says_so(exploded, watcher):
    folder, _ = exploded
    before = len((folder / "events.jsonl").read_text().splitlines())
    metrics = resume_run(folder, watcher(), lr=2e-3)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in events] == list(range(1, 9))
    assert [event["rate"] for event in events][before:] == [2e-3] * (8 - before)
    assert metrics["lr_changed_to"] == 2e-3
    assert json.loads((folder / "config.json").read_text())["optim"]["lr"] == 1e-3  # what the run was started with


def test_rate_that_was_given_is_part_of_the_state(exploded, tmp_path, watcher):
    folder, _ = exploded
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for copy in (whole, stopped):
        copy.mkdir()
        for path in folder.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
    resume_run(whole, watcher(), lr=2e-3)
    with pytest.raises(Interrupted):
        resume_run(stopped, watcher([23]), lr=2e-3)
    resume_run(stopped, watcher())
    for name in ("student.safetensors", "events.jsonl"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(("lr", "match"), [(0.0, "lr must be above 0"), (-1.0, "lr must be")])
def test_impossible_rate_changes_nothing(exploded, lr, match):
    folder, _ = exploded
    before = (folder / "state.safetensors").read_bytes()
    with pytest.raises(UsageError, match=match):
        resume_run(folder, lr=lr)
    assert (folder / "state.safetensors").read_bytes() == before


def test_run_that_saved_nothing_takes_no_other_rate(tiny, tmp_path):
    config = tiny.config(optim={"optimizer": "sgd", "lr": 1e30})
    with pytest.raises(NumericalError, match=r"at step 2; .*; no state was saved yet: start a new run, .*run_dir$"):
        start_run(config, tmp_path / "run")
    with pytest.raises(UsageError, match="has no saved state to go on from with another rate"):
        resume_run(tmp_path / "run", lr=0.1)


@pytest.mark.parametrize(("epochs", "kept"), [(1, "no state was saved yet"), (3, "the state of step 10 is kept")])
def test_run_that_ends_mad_is_not_finished_and_keeps_the_state_before(tiny, tmp_path, epochs, kept):
    config = tiny.config(optim={"optimizer": "sgd", "lr": 10.0}, epochs=epochs)
    with pytest.raises(NumericalError, match=f"(exploded|diverged).* lower the learning rate .*; {kept}"):
        start_run(config, tmp_path / "run")
    assert not (tmp_path / "run/metrics.json").exists()
    assert len((tmp_path / "run/events.jsonl").read_text().splitlines()) == epochs


def test_stop_while_the_loss_explodes_keeps_the_state_of_before(tiny, tmp_path, watcher):
    class Exploding(watcher):
        def stepped(self, progress):
            if progress.step == 13:
                self.trainer.guard.restore(self.trainer.guard.state() + 1)
            super().stepped(progress)

    with pytest.raises(Interrupted, match="stopped at step 13 of 15, its loss being that of an explosion"):
        start_run(tiny.config(), tmp_path / "run", Exploding([13]))
    state = load_state(tmp_path / "run" / "state.safetensors")
    assert state.progress["step"] == 10
    resume_run(tmp_path / "run", watcher(), lr=1e-4)


def test_state_is_not_replaced_while_the_loss_is_high(tiny, tmp_path, watcher):
    """The loss of step 10, the second epoch's last, is high, and those after it are not."""

    class Alarming(watcher):
        def stepped(self, progress):
            super().stepped(progress)
            if progress.step == 10:
                self.trainer.guard.restore(load_state(folder / "state.safetensors").tensors["guard"] + 1)

    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        start_run(tiny.config(), folder, Alarming([13]))
    previous = load((folder / "state-previous.safetensors").read_bytes())
    assert int(previous["optimizer.0.step"]) == 5  # and not 10
