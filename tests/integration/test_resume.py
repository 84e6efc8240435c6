"""A run that was interrupted, anywhere, once or more often, ends as if it had not been: to the bit."""

import dataclasses
import errno
import hashlib
import json
import os
import signal

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load

from model_compression.core.config import MethodConfig, ModelConfig
from model_compression.core.config_json import given_values
from model_compression.core.errors import (
    FileFormatError,
    FinishedError,
    Interrupted,
    ModelCompressionError,
    NumericalError,
    RunFolderError,
)
from model_compression.data.sources import DATASETS
from model_compression.data.synthetic import load_synthetic
from model_compression.distillation.teachers import shards
from model_compression.engine.checkpoint import State, load_state, previous, save_state
from model_compression.engine.runs import resume_run, start_run
from model_compression.engine.trainer_state import state_of
from model_compression.engine.training import Training

FLIP = {"augmentation": "flip_shift"}
SGD = {"optimizer": "sgd", "lr": 0.1, "weight_decay": 1e-3, "bias_lr_scale": 4.0, "schedule": "one_cycle"}
STEP = {"optimizer": "adam", "lr": 1e-2, "schedule": "step", "step_at": 0.5}
MUON = {"optimizer": "muon", "lr": 1e-2, "weight_decay": 0.1, "schedule": "one_cycle"}
ADAMW = {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 0.1, "schedule": "one_cycle"}

KINDS = {
    "labels, sgd, one cycle, averaged": {"data": FLIP, "optim": SGD, "ema": 0.9, "evaluate_every": 1},
    "labels, adam, step": {"optim": STEP, "evaluate_every": 2, "keep_every": 2},
    "labels, adamw, smoothed": {"optim": ADAMW, "label_smoothing": 0.1, "data": {**FLIP, "views": 2}},
    "kd, cached teacher": {"method": "kd", "optim": STEP, "data": {**FLIP, "views": 2}, "evaluate_every": 1},
    "kd, live teacher, averaged": {
        "method": "kd",
        "optim": ADAMW,
        "data": FLIP,
        "ema": 0.8,
        "teacher_cache": "off",
        "teacher_tta": "flip",
    },
    "kd, muon, averaged": {"method": "kd", "optim": MUON, "data": FLIP, "ema": 0.8},
    "noisy teacher": {"method": "noisy_teacher", "optim": SGD, "data": FLIP},
    "kd, mixed images": {"method": "kd", "optim": SGD, "data": {**FLIP, "views": 2, "mixup": 0.5, "cutmix": 1.0}},
    "kd of 2016, validation": {
        "method": MethodConfig(name="kd", params={"variant": "historic"}),
        "data": {"validation": 4},
        "evaluate_every": 1,
        "batch_size": 4,
    },
    "float16, cosine after a warm-up, clipped": {
        "precision": "fp16",
        "data": FLIP,
        "optim": {"optimizer": "sgd", "lr": 0.1, "schedule": "cosine", "warmup_steps": 4, "clip_grad_norm": 0.5},
    },
    "kd, frozen at first, slower below": {
        "method": "kd",
        "optim": {**ADAMW, "freeze_epochs": 1, "backbone_lr_scale": 0.1},
        "ema": 0.8,
    },
    "float16": {"precision": "fp16", "data": FLIP, "optim": ADAMW},
    "bfloat16, rare saves": {"precision": "bf16", "data": FLIP, "checkpoint_every": 3, "ema": 0.5},
}
EACH = [pytest.param(kind, marks=pytest.mark.torch("2.9") if "muon" in kind else ()) for kind in KINDS]
INTERRUPTIONS = [(3,), (5,), (1, 14), (2, 5, 6, 15)]  # the first, the middle and the last steps of epochs of five


def finished(folder):
    """Everything that a run left, without times."""
    assert not (folder / "state.safetensors").exists()
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.pop("seconds") >= 0
    timing = [json.loads(line)["epoch"] for line in (folder / "timing.jsonl").read_text().splitlines()]
    files = sorted(path.name for path in folder.iterdir())
    contents = {
        name: (folder / name).read_bytes()
        for name in files
        if name.endswith(("safetensors", "jsonl")) and name != "timing.jsonl"
    }
    return files, metrics, timing, contents


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory, watcher):
    """Function of a kind of run → (config, the uninterrupted run's folder contents, its last trainer's state)."""
    done = {}

    def run(kind):
        if kind not in done:
            options = dict(KINDS[kind])
            config = tiny.config(options.pop("method", None), **options)
            folder, seen = tmp_path_factory.mktemp("whole") / "run", watcher()
            start_run(config, folder, seen)
            done[kind] = config, finished(folder), state_of(seen.trainer)
        return done[kind]

    return run


def interrupted(config, folder, watcher, steps):
    """Runs into ``folder``, stopped by a signal after each of ``steps``; returns the last observer."""
    seen = watcher([steps[0]])
    for number, step in enumerate(steps):
        with pytest.raises(Interrupted, match=f"stopped at step {step} of 15, state saved; continue with: .* resume"):
            start_run(config, folder, seen) if number == 0 else resume_run(folder, seen)
        assert not (folder / "metrics.json").exists()
        seen = watcher(steps[number + 1 : number + 2])
    resume_run(folder, seen)
    return seen


@pytest.mark.parametrize("steps", INTERRUPTIONS, ids=str)
@pytest.mark.parametrize("kind", EACH)
def test_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path, whole, watcher, kind, steps):
    config, expected, state = whole(kind)
    seen = interrupted(config, tmp_path / "run", watcher, steps)
    files, metrics, timing, contents = finished(tmp_path / "run")
    assert files == expected[0]
    assert metrics == expected[1]
    assert timing == expected[2] == [1, 2, 3]
    for name, content in expected[3].items():
        assert contents[name] == content, name
    found = state_of(seen.trainer)
    assert found.keys() == state.keys()
    for name, tensor in state.items():  # weights, optimiser, averages, sums
        assert torch.equal(found[name], tensor), name


def test_a_run_that_ends_early_ends_there_when_it_is_resumed(tmp_path, tiny, watcher):
    # The rate is so low that no answer changes: epoch 1 stays the best, and two more are no better.
    config = tiny.config(data={"validation": 4}, patience=2, optim={"lr": 1e-12}, batch_size=6, epochs=9)
    seen = watcher()
    metrics = start_run(config, tmp_path / "whole", seen)
    events = (tmp_path / "whole" / "events.jsonl").read_text().splitlines()
    assert (metrics["epochs"], len(events), len(seen.events)) == (3, 3, 3)
    assert all("validation_accuracy" in json.loads(event) for event in events)
    assert any(
        "stopped after epoch 3 of 9: 2 epochs without a better accuracy on validation data" in line
        for line in seen.messages
    )
    seen = watcher([7])
    with pytest.raises(Interrupted, match="stopped at step 7 of 27"):
        start_run(config, tmp_path / "resumed", seen)
    resume_run(tmp_path / "resumed", watcher())
    assert finished(tmp_path / "resumed") == finished(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("kind", EACH)
def test_run_resumes_from_every_step(tmp_path, whole, watcher, kind):
    config, expected, _ = whole(kind)
    for step in range(1, 16):
        interrupted(config, tmp_path / str(step), watcher, (step,))
        assert finished(tmp_path / str(step)) == expected


def test_network_in_network_resumes_to_the_bit(tmp_path, tiny, watcher, monkeypatch):
    few = load_synthetic()[0].subset(range(8)), load_synthetic()[1].subset(range(4))
    monkeypatch.setitem(DATASETS._entries, "few", lambda data_dir, report: few)
    config = tiny.config(
        student=ModelConfig(name="nin-bn", options={"dropout": 0.3}),
        data={"name": "few", "augmentation": "flip_shift"},
        optim=SGD,
        ema=0.5,
        batch_size=3,
        epochs=2,
    )
    states = []
    for stops in ((), (1, 3), (4,)):
        folder, seen = tmp_path / str(stops), watcher(stops)
        for attempt in range(len(stops) + 1):
            try:
                start_run(config, folder, seen) if attempt == 0 else resume_run(folder, seen)
            except Interrupted:
                seen = watcher([stop for stop in stops if stop > seen.trainer.step])
        states.append((state_of(seen.trainer), (folder / "student.safetensors").read_bytes()))
    for state, student in states[1:]:
        assert student == states[0][1]
        assert all(torch.equal(tensor, states[0][0][name]) for name, tensor in state.items())


@pytest.mark.parametrize("answered", [0, 3, 4, 7])
def test_run_that_is_stopped_while_answers_are_stored_goes_on_to_the_bit(
    tmp_path, tiny, watcher, monkeypatch, answered
):
    monkeypatch.setattr(shards, "BLOCK", 7)  # a view in four blocks
    config = tiny.config("kd", data={**FLIP, "views": 2}, optim=STEP)

    class Stopping(watcher):
        def teacher_answered(self, done, total):
            super().teacher_answered(done, total)
            if len(self.answered) == answered + 1:
                os.kill(os.getpid(), signal.SIGTERM)

    states = []
    for kind in (watcher, Stopping):
        monkeypatch.setenv("MODEL_COMPRESSION_CACHE", str(tmp_path / f"cache of {kind.__name__}"))
        folder, seen = tmp_path / kind.__name__, kind()
        if kind is Stopping:
            with pytest.raises(Interrupted, match=f"stopped at step {0 if answered < 4 else 5} of 15, state saved"):
                start_run(config, folder, seen)
            resume_run(folder, seen := watcher())
        else:
            start_run(config, folder, seen)
        states.append(finished(folder))
    assert states[0] == states[1]


class Crash(Exception):
    """Stands for the power going out."""


@pytest.mark.parametrize("step", [1, 4, 5, 8, 15])
@pytest.mark.parametrize("kind", ["labels, sgd, one cycle, averaged", "bfloat16, rare saves"])
def test_crashed_run_goes_on_from_its_last_saved_state(tmp_path, whole, watcher, kind, step):
    config, expected, _ = whole(kind)

    class Crashing(watcher):
        def stepped(self, progress):
            if progress.step == step:
                raise Crash

    folder = tmp_path / "run"
    with pytest.raises(Crash):
        start_run(config, folder, Crashing())
    assert (folder / "state.safetensors").exists() == (step > 5 * config.checkpoint_every)
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"epoch": 9, "half a li')
    seen = watcher()
    resume_run(folder, seen)
    assert finished(folder) == expected
    assert seen.steps[0] == (step - 1) // (5 * config.checkpoint_every) * 5 * config.checkpoint_every + 1


def test_run_that_diverged_keeps_the_last_good_state(tmp_path, tiny, watcher):
    config = tiny.config(optim={"optimizer": "sgd", "lr": 1e-3})
    folder = tmp_path / "run"

    class Poisoning(watcher):
        def stepped(self, progress):
            super().stepped(progress)
            if progress.step == 12:
                self.trainer.student.ip1.weight.data.fill_(float("nan"))

    for stop in ((), (12,)):  # with and without a signal in the very step
        with pytest.raises(NumericalError, match=r"became NaN or infinite (at|by) step 1[23]; lower the learning rate"):
            start_run(config, folder, Poisoning(stop))
        tensors = load((folder / "state.safetensors").read_bytes())
        assert all(tensor.isfinite().all() for tensor in tensors.values())
        assert not (folder / "student.safetensors").exists()
        seen = watcher()
        resume_run(folder, seen)
        assert seen.steps[0] == 11
        folder = tmp_path / "again"


def changed_config(folder, tiny):
    config = json.loads((folder / "config.json").read_text())
    config["optim"]["lr"] = 0.5
    (folder / "config.json").write_text(json.dumps(config))


def changed_data(folder, tiny):
    state = load_state(folder / "state.safetensors")
    train, _ = tiny.data()
    assert state.progress["data_sha256"] == train.digest
    progress = state.progress | {"data_sha256": "0" * 64}
    save_state(folder / "state.safetensors", State(tensors=state.tensors, progress=progress))


def changed_naming(folder, tiny):
    state = load_state(folder / "state.safetensors")
    names, others = (hashlib.sha256(f'{{"class_names": [{n}]}}'.encode()).hexdigest() for n in ('"a", "b", "c"', '"a"'))
    assert state.progress["naming_of_labels_sha256"] == names
    progress = state.progress | {"naming_of_labels_sha256": others}
    save_state(folder / "state.safetensors", State(tensors=state.tensors, progress=progress))


def changed_teacher(folder, tiny):
    from model_compression.models import create_model
    from model_compression.models.weights import save_weights

    save_weights(
        json.loads((folder / "config.json").read_text())["teacher"]["name"], create_model("tiny-teacher", seed=8)
    )


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("config", changed_config),
        ("data", changed_data),
        ("naming of labels", changed_naming),
        ("teacher", changed_teacher),
    ],
)
def test_run_is_not_resumed_with_another_config_data_or_teacher(tmp_path, tiny, watcher, what, change):
    config = tiny.config("kd")
    teacher = tmp_path / "teacher.safetensors"
    teacher.write_bytes(tiny.teacher.read_bytes())
    config = dataclasses.replace(config, teacher=ModelConfig(name=str(teacher)))
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", watcher([7]))
    change(tmp_path / "run", tiny)
    before = (tmp_path / "run" / "state.safetensors").read_bytes()
    with pytest.raises(
        RunFolderError, match=f"the {what} of .* has changed since its state was saved; start a new run"
    ):
        resume_run(tmp_path / "run", watcher())
    assert (tmp_path / "run" / "state.safetensors").read_bytes() == before


def test_state_of_before_whose_digest_has_the_device_as_well_is_resumed(tmp_path, tiny, watcher):
    """Data and cache aside, it was over all of the configuration: device, evaluations and logs too."""
    config, folder = tiny.config("kd", evaluate_every=1), tmp_path / "run"
    with pytest.raises(Interrupted):
        start_run(config, folder, watcher([7]))
    state, values = load_state(folder / "state.safetensors"), given_values(config)
    own = {"data": values.pop("data"), **values, "device": "cpu", "evaluate_every": 1}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    assert state.progress["config_sha256"] != digest
    progress = state.progress | {"config_sha256": digest}
    save_state(folder / "state.safetensors", State(tensors=state.tensors, progress=progress))
    assert resume_run(folder, watcher())["epochs"] == 3


def test_run_of_before_that_says_how_its_images_fit_is_resumed(tmp_path, tiny, watcher):
    """Both were defaults, which its configuration has and the digest in its state has not."""
    config, folder = tiny.config("kd"), tmp_path / "run"
    with pytest.raises(Interrupted):
        start_run(config, folder, watcher([7]))
    values = json.loads((folder / "config.json").read_text())
    values["data"] |= {"fit": "crop", "crop_share": 1.0}
    (folder / "config.json").write_text(json.dumps(values))
    assert resume_run(folder, watcher())["epochs"] == 3


def test_run_goes_on_on_another_device_and_with_other_data_dir_if_it_is_asked_for_again(tmp_path, tiny, watcher):
    config, folder = tiny.config("kd"), tmp_path / "run"
    with pytest.raises(Interrupted):
        start_run(config, folder, watcher([7]))
    other = dataclasses.replace(config, device="auto", evaluate_every=1, checkpoint_every=2)
    seen = watcher()
    assert Training(other, folder, seen).finish()["epochs"] == 3
    assert seen.steps[0] == 8
    with pytest.raises(RunFolderError, match=r"holds a run of another configuration .batch_size 5 there, 6 here"):
        Training(dataclasses.replace(other, batch_size=6), folder, watcher()).finish()


def test_run_is_not_resumed_from_damaged_states(tmp_path, tiny, watcher):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        start_run(tiny.config(), folder, watcher([12]))
    state = folder / "state.safetensors"
    content, older = state.read_bytes(), previous(state).read_bytes()
    state.write_bytes(content[:1000])
    previous(state).write_bytes(older[:1000])
    with pytest.raises(FileFormatError, match=r"state.safetensors is damaged"):
        resume_run(folder, watcher())
    state.write_bytes(content)
    previous(state).write_bytes(older)
    assert resume_run(folder, watcher())["epochs"] == 3


def test_run_goes_on_from_the_state_before_a_damaged_one(tmp_path, whole, watcher):
    config, expected, _ = whole("labels, sgd, one cycle, averaged")
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        start_run(config, folder, watcher([13]))  # saved after step 10, the second epoch's last, and now
    content = bytearray((folder / "state.safetensors").read_bytes())
    content[-5] ^= 8
    (folder / "state.safetensors").write_bytes(content)
    seen = watcher()
    resume_run(folder, seen)
    assert seen.steps[0] == 11
    assert any("is damaged" in message and "of step 10" in message for message in seen.messages)
    assert finished(folder) == expected


def test_finished_and_missing_runs_are_not_resumed(tmp_path, tiny, watcher):
    start_run(tiny.config(epochs=1), tmp_path / "run", watcher())
    with pytest.raises(RunFolderError, match="is finished: there is nothing to resume"):
        resume_run(tmp_path / "run", watcher())
    with pytest.raises(RunFolderError, match="elsewhere is not there"):
        resume_run(tmp_path / "elsewhere", watcher())
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_whose_states_are_gone_is_not_begun_anew(tmp_path, tiny, watcher):
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        start_run(tiny.config(), folder, watcher([12]))
    lines = (folder / "events.jsonl").read_text()
    (folder / "state.safetensors").unlink()
    seen = watcher()
    with pytest.raises(Interrupted):
        resume_run(folder, watcher([14]))  # from the state before
    previous(folder / "state.safetensors").unlink()
    (folder / "state.safetensors").unlink()
    with pytest.raises(RunFolderError, match=r"has done 2 epochs, and its state.safetensors is gone: it cannot go on"):
        resume_run(folder, seen)
    assert (folder / "events.jsonl").read_text() == lines


def test_a_finished_run_in_a_folder_that_can_only_be_read_is_said_to_be_finished(tiny, tmp_path, monkeypatch):
    start_run(tiny.config(None, epochs=1), tmp_path / "run")

    def refused(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(FileLock, "acquire", refused)
    with pytest.raises(FinishedError, match="is finished: there is nothing to resume"):
        resume_run(tmp_path / "run")
    for name in ("manifest.json", "metrics.json"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(ModelCompressionError, match=r"cannot write .*lock: the folder is not writable"):
        resume_run(tmp_path / "run")
