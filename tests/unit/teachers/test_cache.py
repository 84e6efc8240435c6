"""Stored answers: equal to live ones, never those of something else, and computed anew when they are damaged."""

import dataclasses
import json
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load, save_file

from model_compression.config import DataConfig
from model_compression.data.loader import ResidentLoader
from model_compression.errors import ModelCompressionError
from model_compression.models import Preprocessing, create_model
from model_compression.teachers import cache
from model_compression.teachers.cache import FORMAT, CachedTeacher, cache_folder, fingerprint
from model_compression.teachers.live import LiveTeacher

CPU = torch.device("cpu")
DATA = DataConfig(name="tiny", augmentation="flip_shift", shift=2, views=4)


class CountingTeacher(LiveTeacher):
    """A live teacher that counts the images it answers for."""

    answered = 0

    def answer(self, batch):
        self.answered += len(batch.targets)
        return super().answer(batch)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_COMPRESSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "teachers"


@pytest.fixture
def made(tiny, watcher):
    """Function that makes a cached teacher on the tiny data, which reports to ``made.watcher``."""

    def build(seed=0, precision=torch.float32, data=DATA):
        dataset = tiny.data()[0]
        live = CountingTeacher(create_model("tiny", seed=seed), CPU, precision)
        loader = ResidentLoader(dataset, data, CPU)
        identity = fingerprint(live.model, dataset.digest, data, precision)
        return CachedTeacher(live, loader, identity, build.watcher.teacher_answered, build.watcher.message)

    build.watcher = watcher()
    return build


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_cached_answers_are_the_live_ones(made, precision):
    teacher = made(precision=precision)
    for epoch in range(6):
        for batch in teacher._loader.epoch(epoch=epoch, seed=1, batch_size=5):
            live, cached = teacher._live.answer(batch).logits, teacher.answer(batch).logits
            assert cached.dtype == torch.float32
            tolerance = 1e-5 if precision == torch.float32 else 2e-2
            assert (live - cached).abs().max() <= tolerance * (live.max() - live.min())


def test_cached_answers_are_stored_once_and_read_by_later_teachers(made, folder):
    first = made()
    views = [first.view(view) for view in (0, 3)]
    assert sorted(path.name for path in first.folder.iterdir()) == [
        ".lock", "fingerprint.json", "view-0.safetensors", "view-3.safetensors",
    ]  # fmt: skip
    assert made.watcher.answered == [(22, 22), (22, 22)]
    second = made()
    assert torch.equal(second.view(0), views[0])
    assert second._live.answered == cache._SAMPLE  # a few are computed again, to compare
    assert made.watcher.answered == [(22, 22), (22, 22)]
    assert first.folder.parent == folder
    assert json.loads((first.folder / "fingerprint.json").read_text())["augmentation"] == "flip_shift"


def test_cached_answers_do_not_depend_on_who_asks_first(made, folder, monkeypatch):
    monkeypatch.setattr(cache, "_BLOCK", 7)
    teacher = made()
    batch = teacher._loader.batch(torch.tensor([3, 20, 1]), view=2)
    teacher.answer(batch)
    assert made.watcher.answered == [(7, 22), (14, 22), (21, 22), (22, 22)]
    blocks = [teacher._live.answer(block).logits for block in teacher._loader.in_order(view=2, batch_size=7)]
    assert torch.equal(teacher.view(2), torch.cat(blocks))


def identity(dataset, model=None, data=DATA, precision=torch.float32):
    return fingerprint(model or create_model("tiny-teacher", seed=0), dataset.digest, data, precision)


def test_fingerprint_changes_with_all_that_answers_depend_on(tiny):
    train, test = tiny.data()
    base = identity(train)
    assert identity(train) == base
    moved, imaged, nudged = (create_model("tiny-teacher", seed=0) for _ in range(3))
    moved.preprocessing = Preprocessing(mean=(0.1, 0.1, 0.1))
    imaged.preprocessing = Preprocessing(mean_image=torch.ones(3, 8, 8))
    with torch.no_grad():
        nudged.ip1.bias[0] += 1e-6
    others = [
        identity(test),
        *(identity(train, model) for model in (moved, imaged, nudged, create_model("tiny-teacher", seed=1))),
        identity(train, precision=torch.bfloat16),
        *(
            identity(train, data=dataclasses.replace(DATA, **change))
            for change in ({"augmentation": "flip"}, {"augmentation": "none"}, {"shift": 1}, {"view_seed": 1})
        ),
    ]
    assert len({json.dumps(other, sort_keys=True) for other in [base, *others]}) == len(others) + 1


def test_fingerprint_does_not_change_with_what_answers_do_not_depend_on(tiny):
    train, _ = tiny.data()
    for change in ({"views": 9}, {"data_dir": "elsewhere"}, {"validation": 5}, {"name": "copy"}):
        assert identity(train, data=dataclasses.replace(DATA, **change)) == identity(train)
    still = dataclasses.replace(DATA, augmentation="none")
    assert identity(train, data=dataclasses.replace(still, shift=1, view_seed=4)) == identity(train, data=still)


def damaged_answers(path, kind):
    content = path.read_bytes()
    logits = load(content)["logits"]
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "a bit flipped":
        path.write_bytes(content[:-14] + bytes([content[-14] ^ 1]) + content[-13:])  # of an image that is no sample
    else:
        logits = {"fewer": logits[:-1], "permuted": logits.roll(5, dims=0), "NaN": logits * torch.nan}[
            kind
        ].contiguous()
        save_file({"logits": logits}, path, {FORMAT: cache._digest(logits)})


@pytest.mark.parametrize("kind", ["cut", "empty", "a bit flipped", "fewer", "permuted", "NaN"])
def test_damaged_answers_are_computed_anew_and_it_is_said(made, kind):
    first = made()
    expected, path = first.view(1), first.folder / "view-1.safetensors"
    before = path.read_bytes()
    damaged_answers(path, kind)
    assert torch.equal(made().view(1), expected)
    assert path.read_bytes() == before
    (message,) = made.watcher.messages
    assert str(path) in message
    assert message.endswith("; the teacher's answers are computed anew")


def test_cache_is_filled_once_when_two_ask_at_once(made):
    teachers = [made() for _ in range(2)]
    answers = [None, None]

    def ask(number):
        answers[number] = teachers[number].view(0)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(*answers)
    assert made.watcher.answered == [(22, 22)]


PROCESS = """
import sys, torch
from model_compression.config import DataConfig
from model_compression.data.loader import ResidentLoader
from model_compression.data.synthetic import load_synthetic
from model_compression.models import create_model
from model_compression.teachers.cache import CachedTeacher, fingerprint
from model_compression.teachers.live import LiveTeacher

dataset, data, kind = load_synthetic()[0], DataConfig(), torch.float32
live = LiveTeacher(create_model("lenet-caffe", seed=0), torch.device("cpu"), kind)
loader = ResidentLoader(dataset, data, torch.device("cpu"))
filled = []
identity = fingerprint(live.model, dataset.digest, data, kind)
teacher = CachedTeacher(live, loader, identity, lambda done, total: filled.append(done), print)
sys.stdin.readline()
print(len(filled), teacher.view(0).sum().item(), len(filled))
"""


@pytest.mark.slow
def test_cache_is_filled_once_by_two_processes_at_once(folder):
    command = [sys.executable, "-c", PROCESS]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0][1] == outputs[1][1]
    assert sorted(output[2] for output in outputs) == ["0", "2"]  # one filled in two blocks of 500, the other read


def test_cache_folder_is_the_users_or_the_one_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("MODEL_COMPRESSION_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "teachers"
    monkeypatch.delenv("MODEL_COMPRESSION_CACHE")
    assert cache_folder().parts[-2:] == ("model-compression", "teachers")


def test_cache_in_a_place_that_cannot_be_written_is_one_clear_error(made, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODEL_COMPRESSION_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelCompressionError, match=r"cannot write .*: a part of the path is a file"):
        made()
