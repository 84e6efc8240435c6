"""Stored answers: equal to live ones, never those of something else, and computed anew when they are damaged."""

import dataclasses
import hashlib
import threading

import pytest
import torch
from safetensors.torch import load, safe_open, save_file

from model_compression.core.data_config import DataConfig
from model_compression.data.loader import ResidentLoader
from model_compression.distillation.teachers import cache, shards
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.distillation.teachers.fingerprint import fingerprint
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.distillation.teachers.store import store_for
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

    def build(seed=0, precision=torch.float32, data=DATA, dtype="fp32", embedding=False, at_once=500, **settings):
        dataset = tiny.data()[0]
        live = CountingTeacher([create_model("tiny", seed=seed)], CPU, precision, embedding=embedding)
        loader = ResidentLoader(dataset, data, CPU)
        identity = fingerprint(live, dataset, data, dtype, **settings)
        store = store_for(identity)
        store.claim(identity, {"teacher": "tiny", "data": dataclasses.asdict(data)})
        return CachedTeacher(live, loader, store, build.watcher.teacher_answered, build.watcher.message, at_once)

    build.watcher = watcher()
    return build


def everything(teacher, view, field="logits"):
    """All answers of a view."""
    reader = teacher.view(view)[field]
    return reader[torch.arange(len(reader))]


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


def test_a_block_is_answered_a_few_samples_at_a_time(made, monkeypatch):
    sizes, real = [], CountingTeacher.answer
    monkeypatch.setattr(CountingTeacher, "answer", lambda self, b: sizes.append(len(b.targets)) or real(self, b))
    teacher = made(embedding=True, at_once=8)
    reader = teacher.view(1)["embedding"]
    assert sizes == [8, 8, 6, 8]  # of 22 samples; then those that are compared
    batch = teacher._loader.batch(torch.arange(22), 1)
    torch.testing.assert_close(reader[torch.arange(22)], real(teacher.live, batch).embedding)


def test_cached_answers_are_stored_once_and_read_by_later_teachers(made, folder):
    first = made()
    views = [everything(first, view) for view in (0, 3)]
    assert sorted(path.name for path in first.store.folder.iterdir()) == [
        ".lock", ".usage.lock", "fingerprint.json", "usage.json", "view-0-shard-0.safetensors",
        "view-3-shard-0.safetensors",
    ]  # fmt: skip
    assert made.watcher.answered == [(22, 22), (22, 22)]
    second = made()
    assert torch.equal(everything(second, 0), views[0])
    assert second.live.answered == cache._SAMPLE  # a few are computed again, to compare
    assert made.watcher.answered == [(22, 22), (22, 22)]
    assert first.store.folder.parent == folder
    assert (second.store.usage.found, second.store.usage.filled) == (1, 2)
    assert second.store.usage.hit_rate == pytest.approx(1 / 3)


def test_cached_answers_do_not_depend_on_who_asks_first(made, folder, monkeypatch):
    monkeypatch.setattr(shards, "BLOCK", 7)
    teacher = made()
    batch = teacher._loader.batch(torch.tensor([3, 20, 1]), view=2)
    teacher.answer(batch)
    assert made.watcher.answered == [(7, 22), (14, 22), (21, 22), (22, 22)]
    blocks = [teacher.live.answer(block).logits for block in teacher._loader.in_order(view=2, batch_size=7)]
    assert torch.equal(everything(teacher, 2), torch.cat(blocks))


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
    logits = everything(plain, 1)
    embedding = made(embedding=True)
    assert not embedding.store.is_stored(1, ["logits", "embedding"])
    assert torch.equal(everything(embedding, 1), logits)
    assert plain.store.folder == embedding.store.folder
    later = made()
    assert list(later.view(1)) == ["logits"]
    assert later.live.answered == cache._SAMPLE
    assert (plain.store.views(), plain.store.views("embedding")) == ([1], [1])
    embedding.store.clear()
    assert not plain.store.folder.exists()


def shard(teacher, view, field="logits"):
    """The file of a view of the tiny data."""
    return teacher._rows_of(view)[field].path(0)


def damaged_answers(path, kind, field="logits"):
    content = path.read_bytes()
    answers = load(content)[field]
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "a bit flipped":
        path.write_bytes(content[:-14] + bytes([content[-14] ^ 1]) + content[-13:])  # of an image that is no sample
    elif kind == "fewer":
        save_file({field: answers[:-1].clone()}, path, facts)
    else:
        numbers = {"permuted": answers.roll(5, dims=0), "NaN": answers * torch.nan}[kind].contiguous()
        digest = hashlib.sha256(numbers.numpy().tobytes()).hexdigest()
        header = content[: -numbers.nbytes].replace(facts["sha256"].encode(), digest.encode())
        path.write_bytes(header + numbers.numpy().tobytes())


KINDS = ["cut", "empty", "a bit flipped", "fewer", "permuted", "NaN"]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_embeddings_are_computed_anew_and_it_is_said(made, kind):
    first = made(embedding=True)
    expected, path = everything(first, 1, "embedding"), shard(first, 1, "embedding")
    before = path.read_bytes()
    damaged_answers(path, kind, "embedding")
    assert torch.equal(everything(made(embedding=True), 1, "embedding"), expected)
    assert path.read_bytes() == before
    (message,) = made.watcher.messages
    assert str(first.store.folder) in message
    assert message.endswith("; the teacher's answers are computed anew")


def test_answers_that_are_all_the_same_can_be_stored(made, monkeypatch):
    teacher = made()
    for parameter in teacher.live.models[0].parameters():
        parameter.data.zero_()
    assert not everything(teacher, 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_answers_are_computed_anew_and_it_is_said(made, kind):
    first = made()
    expected, path = everything(first, 1), shard(first, 1)
    before = path.read_bytes()
    damaged_answers(path, kind)
    assert torch.equal(everything(made(), 1), expected)
    assert path.read_bytes() == before
    (message,) = made.watcher.messages
    assert str(path) in message
    assert message.endswith("; the teacher's answers are computed anew")


def test_cache_is_filled_once_when_two_ask_at_once(made):
    teachers = [made() for _ in range(2)]
    answers = [None, None]

    def ask(number):
        answers[number] = everything(teachers[number], 0)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(*answers)
    assert made.watcher.answered == [(22, 22)]


PROCESS = """
import sys, torch
from model_compression.core.data_config import DataConfig
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
print(len(filled), teacher.view(0)["logits"][torch.arange(1000)].sum().item(), teacher.store.usage.filled)
"""
