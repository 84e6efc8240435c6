"""Curves elsewhere: TensorBoard's and Weights & Biases' own readers find in their files what events.jsonl has."""

import json
import sys
import time
from typing import ClassVar

import pytest

from model_compression.core.errors import Interrupted, MissingExtraError, UsageError
from model_compression.engine import trackers
from model_compression.engine.runs import resume_run, start_run


def events_of(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_tensorboard_curves_of_a_resumed_run_have_each_epoch_once(tmp_path, tiny, watcher):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny.config(tensorboard=True, checkpoint_every=2, evaluate_every=1)
    seen = watcher([7])
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", seen)
    seen = watcher()
    resume_run(tmp_path / "run", seen)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    curves = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for name in ("train_loss", "test_accuracy"):
        expected = [(event["epoch"], pytest.approx(event[name])) for event in events]
        assert [(point.step, point.value) for point in curves.Scalars(name)] == expected


def leveldb_records(content):
    """The records of a log in LevelDB's format: blocks of 32 KiB, in which parts have a header of 7 bytes."""
    place, record = 7, b""  # behind W&B's own header
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        if place + 7 + length > len(content):
            return  # is still being written
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def wandb_records(path):
    """What a .wandb file holds: numbers by step, the summary and the configuration."""
    from wandb.proto.wandb_internal_pb2 import Record

    steps, summary, config = {}, {}, {}
    for content in leveldb_records(path.read_bytes()):
        record = Record.FromString(content)
        if record.HasField("history"):
            steps[record.history.step.num] = values(record.history.item)
        summary |= values(record.summary.update)
        config |= values(record.run.config.update)
    return steps, summary, config


def values(items):
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def test_wandb_has_the_curves_of_both_parts_of_a_resumed_run_and_its_result(tmp_path, tiny, watcher, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(trackers, "_PATIENCE_S", 120.0)  # a busy machine starts its client slowly
    config, seen = tiny.config("kd", wandb="mine", evaluate_every=1), watcher([7])
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", seen)
    resumed = watcher()
    metrics = resume_run(tmp_path / "run", resumed)
    assert not [message for message in resumed.messages if "the run goes on" in message]
    parts = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert f"Weights & Biases: offline; send it with: wandb sync {parts[0].parent}" in seen.messages
    assert len({part.name for part in parts}) == 1  # the same run, gone on with
    deadline = time.monotonic() + 60
    while True:  # its process may still be writing, on a machine that is busy
        read = [wandb_records(part) for part in parts]
        found = read[0][0] | read[1][0]
        if "test_nll" in read[1][1] or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    for event in events_of(tmp_path / "run"):
        for name in ("train_loss", "test_accuracy"):
            assert found[event["epoch"]][name] == pytest.approx(event[name])
        assert found[event["epoch"]]["terms/kd"] == pytest.approx(event["terms"]["kd"])
    assert sorted(found) == [1, 2, 3]
    assert read[-1][1]["test_accuracy"] == metrics["test_accuracy"]
    assert read[0][2]["method"]["name"] == "kd"


def test_wandb_without_an_account_is_refused_before_anything_is_made(tmp_path, tiny, watcher, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UsageError, match=r"knows no account here; log in with `wandb login`, or .* WANDB_MODE=offline"):
        start_run(tiny.config(wandb="mine"), tmp_path / "run", watcher())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("project", "mode", "message"),
    [
        ("a/b#c", "offline", "is PROJECT or ENTITY/PROJECT, .*, got 'a/b#c'"),
        ("a/b/c", "offline", "is PROJECT or ENTITY/PROJECT"),
        ("mine", "nonsense", "WANDB_MODE must be one of online, offline, disabled, shared, got 'nonsense'"),
    ],
)
def test_wandb_names_that_cannot_be_are_refused_before_anything_is_made(
    tmp_path, tiny, watcher, monkeypatch, project, mode, message
):
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(UsageError, match=message):
        start_run(tiny.config(wandb=project), tmp_path / "run", watcher())
    assert list(tmp_path.iterdir()) == []


def test_wandb_that_is_not_reached_does_not_keep_from_training(tmp_path, tiny, watcher, monkeypatch):
    import wandb

    def unreachable(**options):
        raise wandb.errors.CommError("no route\nto host")

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", unreachable)
    seen = watcher()
    start_run(tiny.config(wandb="me/mine", epochs=1), tmp_path / "run", seen)
    assert "Weights & Biases is not reached, the run goes on without it: no route" in seen.messages
    assert (tmp_path / "run" / "metrics.json").exists()


def test_wandb_that_fails_on_the_way_does_not_end_the_run(tmp_path, tiny, watcher, monkeypatch):
    import wandb

    class Failing:
        offline, dir = True, str(tmp_path / "wandb" / "files")
        summary: ClassVar = {}

        def log(self, numbers, step):
            raise wandb.errors.UsageError("the run is gone\nfor good")

        def finish(self, exit_code):
            raise OSError("no route")

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", lambda **options: Failing())
    seen = watcher()
    start_run(tiny.config(wandb="mine", epochs=2), tmp_path / "run", seen)
    said = "Weights & Biases did not take the numbers, the run goes on: "
    assert seen.messages[-3:] == [said + "the run is gone", said + "the run is gone", said + "no route"]
    assert (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("package", "extra", "option"),
    [("torch.utils.tensorboard", "tensorboard", {"tensorboard": True}), ("wandb", "wandb", {"wandb": "mine"})],
)
def test_tracker_that_is_not_installed_is_named_and_nothing_is_made(
    tmp_path, tiny, watcher, monkeypatch, package, extra, option
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'model-compression\[{extra}\]'"):
        start_run(tiny.config(**option), tmp_path / "run", watcher())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["epoch", "close"])
def test_tracker_that_would_fail_is_said_before_the_first_step(tmp_path, tiny, watcher, monkeypatch, part):
    def failing(self, *_):
        raise ValueError("no such luck")

    monkeypatch.setattr(trackers.TensorBoard, part, failing)
    seen = watcher()
    heard = []
    seen.message = lambda text: heard.append((len(seen.steps), text))
    start_run(tiny.config(tensorboard=True, epochs=1), tmp_path / "run", seen)
    early = [text for steps, text in heard if steps == 0 and "no such luck" in text]
    assert early == ["tried before training: TensorBoard did not take the numbers, the run goes on: no such luck"]
    assert (tmp_path / "run" / "metrics.json").exists()
