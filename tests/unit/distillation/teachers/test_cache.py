"""Stored answers: equal to live ones, never those of something else, and computed anew when they are damaged."""

import dataclasses
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load, save_file

from model_compression.core.config import DataConfig
from model_compression.data.loader import ResidentLoader
from model_compression.distillation.teachers import cache
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.distillation.teachers.fingerprint import FORMAT, fingerprint
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.distillation.teachers.store import _digest, store_for
from model_compression.models import create_model

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

    def build(seed=0, precision=torch.float32, data=DATA, dtype="fp32", embedding=False):
        dataset = tiny.data()[0]
        live = CountingTeacher([create_model("tiny", seed=seed)], CPU, precision, embedding=embedding)
        loader = ResidentLoader(dataset, data, CPU)
        identity = fingerprint(live, dataset, data, dtype)
        store = store_for(identity)
        store.claim(identity, {"teacher": "tiny", "data": dataclasses.asdict(data)})
        return CachedTeacher(live, loader, store, build.watcher.teacher_answered, build.watcher.message)

    build.watcher = watcher()
    return build


@pytest.mark.parametrize("data", [DATA, dataclasses.replace(DATA, mixup=0.5, cutmix=1.0)], ids=["plain", "mixed"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_cached_answers_are_the_live_ones(made, precision, dtype, data):
    teacher = made(precision=precision, dtype=dtype, data=data)
    for epoch in range(6):
        for batch in teacher._loader.epoch(epoch=epoch, seed=1, batch_size=5):
            live, cached = teacher.live.answer(batch).logits, teacher.answer(batch).logits
            assert cached.dtype == torch.float32
            tolerance = {"fp32": 1e-5, "fp16": 5e-4}[dtype] if precision == torch.float32 else 2e-2
            assert (live - cached).abs().max() <= tolerance * (live.max() - live.min())


def test_cached_answers_are_stored_once_and_read_by_later_teachers(made, folder):
    first = made()
    views = [first.view(view) for view in (0, 3)]
    assert sorted(path.name for path in first.store.folder.iterdir()) == [
        ".lock", ".usage.lock", "fingerprint.json", "usage.json", "view-0.safetensors", "view-3.safetensors",
    ]  # fmt: skip
    assert made.watcher.answered == [(22, 22), (22, 22)]
    second = made()
    assert torch.equal(second.view(0)["logits"], views[0]["logits"])
    assert second.live.answered == cache._SAMPLE  # a few are computed again, to compare
    assert made.watcher.answered == [(22, 22), (22, 22)]
    assert first.store.folder.parent == folder
    assert (second.store.usage.found, second.store.usage.filled) == (1, 2)
    assert second.store.usage.hit_rate == pytest.approx(1 / 3)


def test_cached_answers_do_not_depend_on_who_asks_first(made, folder, monkeypatch):
    monkeypatch.setattr(cache, "_BLOCK", 7)
    teacher = made()
    batch = teacher._loader.batch(torch.tensor([3, 20, 1]), view=2)
    teacher.answer(batch)
    assert made.watcher.answered == [(7, 22), (14, 22), (21, 22), (22, 22)]
    blocks = [teacher.live.answer(block).logits for block in teacher._loader.in_order(view=2, batch_size=7)]
    assert torch.equal(teacher.view(2)["logits"], torch.cat(blocks))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_cached_embeddings_are_the_live_ones(made, precision):
    teacher = made(precision=precision, embedding=True)
    for epoch in range(6):
        for batch in teacher._loader.epoch(epoch=epoch, seed=1, batch_size=5):
            live, cached = teacher.live.answer(batch), teacher.answer(batch)
            assert cached.embedding.dtype == torch.float32
            tolerance = 1e-5 if precision == torch.float32 else 2e-2
            for own, stored in ((live.logits, cached.logits), (live.embedding.float(), cached.embedding)):
                assert (own - stored).abs().max() <= tolerance * (own.max() - own.min())


def test_cached_embeddings_lie_beside_logits_that_serve_methods_without_them(made):
    plain = made()
    logits = plain.view(1)["logits"].clone()
    embedding = made(embedding=True)
    assert not embedding.store.is_stored(1, ["logits", "embedding"])
    assert torch.equal(embedding.view(1)["logits"], logits)
    assert plain.store.folder == embedding.store.folder
    later = made()
    assert list(later.view(1)) == ["logits"]
    assert later.live.answered == cache._SAMPLE
    assert (plain.store.views(), plain.store.views("embedding")) == ([1], [1])
    embedding.store.clear()
    assert not plain.store.folder.exists()


def damaged_answers(path, kind, field="logits"):
    content = path.read_bytes()
    logits = load(content)[field]
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
        save_file({field: logits}, path, {FORMAT: _digest(logits)})


KINDS = ["cut", "empty", "a bit flipped", "fewer", "permuted", "NaN"]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_embeddings_are_computed_anew_and_it_is_said(made, kind):
    first = made(embedding=True)
    expected, path = first.view(1)["embedding"].clone(), first.store.path(1, "embedding")
    before = path.read_bytes()
    damaged_answers(path, kind, "embedding")
    assert torch.equal(made(embedding=True).view(1)["embedding"], expected)
    assert path.read_bytes() == before
    (message,) = made.watcher.messages
    assert str(first.store.folder) in message
    assert message.endswith("; the teacher's answers are computed anew")


def test_answers_that_are_all_the_same_can_be_stored(made, monkeypatch):
    teacher = made()
    for parameter in teacher.live.models[0].parameters():
        parameter.data.zero_()
    assert not teacher.view(0)["logits"].any()


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_answers_are_computed_anew_and_it_is_said(made, kind):
    first = made()
    expected, path = first.view(1)["logits"].clone(), first.store.path(1)
    before = path.read_bytes()
    damaged_answers(path, kind)
    assert torch.equal(made().view(1)["logits"], expected)
    assert path.read_bytes() == before
    (message,) = made.watcher.messages
    assert str(path) in message
    assert message.endswith("; the teacher's answers are computed anew")


def test_cache_is_filled_once_when_two_ask_at_once(made):
    teachers = [made() for _ in range(2)]
    answers = [None, None]

    def ask(number):
        answers[number] = teachers[number].view(0)["logits"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(*answers)
    assert made.watcher.answered == [(22, 22)]


PROCESS = """
import sys, torch
from model_compression.core.config import DataConfig
from model_compression.data.loader import ResidentLoader
from model_compression.data.synthetic import load_synthetic
from model_compression.models import create_model
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.distillation.teachers.fingerprint import fingerprint
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.distillation.teachers.store import store_for

dataset, data, kind = load_synthetic()[0], DataConfig(), torch.float32
live = LiveTeacher([create_model("lenet-caffe", seed=0)], torch.device("cpu"), kind)
loader = ResidentLoader(dataset, data, torch.device("cpu"))
filled = []
identity = fingerprint(live, dataset, data, "fp16")
store = store_for(identity)
sys.stdin.readline()
store.claim(identity, {})
count = lambda done, total: filled.append(done) if done else None  # 0 while it waits
teacher = CachedTeacher(live, loader, store, count, lambda text: None)
print(len(filled), teacher.view(0)["logits"].sum().item(), len(filled))
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
