"""Stored answers in blocks: shared by processes, kept when one is killed, and made again where they are damaged."""

import dataclasses
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import ModelCompressionError
from model_compression.data.loader import ResidentLoader
from model_compression.distillation.teachers import row_reader, shards
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.distillation.teachers.fingerprint import FORMAT, fingerprint
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.distillation.teachers.store import AnswerStore
from model_compression.models import create_model

CPU = torch.device("cpu")
DATA = DataConfig(name="tiny", augmentation="flip", views=2)


@pytest.fixture
def small_blocks(monkeypatch):
    """22 images in eight blocks of three shards."""
    monkeypatch.setattr(shards, "BLOCK", 3)
    monkeypatch.setattr(shards, "SHARD", 3)


@pytest.fixture
def made(tiny, tmp_path, watcher):
    """Function that makes a cached teacher on the tiny data; ``made.watcher`` has its messages."""

    def build(topk=0, device=CPU, **settings):
        dataset = tiny.data()[0]
        live = LiveTeacher([create_model("tiny", seed=0)], device, torch.float32, **settings)
        kept = {"teacher_cache_topk": topk} if topk else {}
        identity = fingerprint(live, dataset, DATA, "fp16", **kept)
        store = AnswerStore(tmp_path / f"store-{topk}")
        store.claim(identity, {"teacher": "tiny", "data": dataclasses.asdict(DATA)})
        loader = ResidentLoader(dataset, DATA, device)
        return CachedTeacher(live, loader, store, build.watcher.teacher_answered, build.watcher.message)

    build.watcher = watcher()
    return build


def everything(teacher, view):
    return teacher.view(view)["logits"][torch.arange(22)]


def live_answers(teacher, view):
    return torch.cat([teacher.live.answer(b).logits for b in teacher._loader.in_order(view=view, batch_size=3)])


def test_answers_of_several_shards_are_those_of_the_teacher(small_blocks, made):
    teacher = made()
    expected = live_answers(teacher, 1).half().float()
    assert torch.equal(everything(teacher, 1), expected)
    assert sorted(path.name for path in teacher.store.folder.glob("view-*")) == [
        f"view-1-shard-{number}.safetensors" for number in range(3)
    ]
    ids = torch.tensor([21, 0, 9, 8, 8, 10, 20])
    assert torch.equal(made().view(1)["logits"][ids], expected[ids])
    assert torch.equal(teacher.answer(teacher._loader.batch(ids, view=1)).logits, expected[ids])
    with safe_open(teacher.store.folder / "view-1-shard-1.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("logits").float(), expected[9:18])


def test_largest_logits_of_several_shards_are_those_of_the_teacher(small_blocks, made):
    teacher = made(topk=1)
    whole, found = live_answers(teacher, 1), everything(teacher, 1)
    assert torch.equal(found.argmax(dim=1), whole.argmax(dim=1))
    assert (found.max(dim=1).values - whole.max(dim=1).values).abs().max() < 2e-3
    assert (found.logsumexp(dim=1) - whole.logsumexp(dim=1)).abs().max() < 2e-3
    assert made.watcher.messages == []
    assert torch.equal(everything(made(topk=1), 1), found)


def test_blocks_can_be_filled_in_any_order_and_once(small_blocks, made):
    teacher = made()
    assert teacher.missing_blocks(0) == list(range(8))
    assert teacher.fill_blocks(0, [7, 2]) == [7, 2]
    assert not teacher.store.is_stored(0, ["logits"])
    other = made()
    assert other.missing_blocks(0) == [0, 1, 3, 4, 5, 6]
    assert other.fill_blocks(0, range(8)) == [0, 1, 3, 4, 5, 6]
    assert teacher.missing_blocks(0) == []
    assert torch.equal(everything(teacher, 0), live_answers(teacher, 0).half().float())
    assert not [path for path in teacher.store.folder.iterdir() if path.name.startswith(".block")]


def test_block_of_another_process_is_left_to_it(small_blocks, made):
    teacher = made()
    lock = made().store.claim_block(0, 5)
    assert teacher.fill_blocks(0, range(8)) == [0, 1, 2, 3, 4, 6, 7]
    assert teacher.fill_blocks(0, [5]) == []
    lock.release()
    assert teacher.fill_blocks(0, [5]) == [5]


def test_damage_in_a_block_is_found_and_only_that_block_is_made_again(small_blocks, made):
    teacher = made()
    expected = everything(teacher, 0)
    path = teacher.store.folder / "view-0-shard-1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of the shard's last block, number 5
    path.write_bytes(content)
    made.watcher.answered.clear()
    assert torch.equal(everything(made(), 0), expected)
    assert made.watcher.answered == [(22, 22)]
    assert made.watcher.messages == [
        f"{path} is damaged: the answers to samples 15 to 17 have another digest; the teacher's answers are computed "
        "anew"
    ]
    content[-1] ^= 1
    assert path.read_bytes() == content


def test_damage_in_a_header_costs_its_shard_only(small_blocks, made):
    teacher = made()
    expected = everything(teacher, 0)
    path = teacher.store.folder / "view-0-shard-1.safetensors"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"block", b"clock"))
    other = made()
    assert other.missing_blocks(0) == [3, 4, 5]
    assert torch.equal(everything(other, 0), expected)
    assert {line.partition(";")[0] for line in made.watcher.messages} == {f"{path} is damaged"}
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [None, "a bit flipped", "fewer"])
def test_answers_of_earlier_versions_are_read_or_made_again(small_blocks, made, damage):
    """Versions before stored a view in one file, with the digest of its bytes in the header."""
    teacher = made()
    whole = live_answers(teacher, 0).half()
    stored = whole[:-1] if damage == "fewer" else whole
    path = teacher.store.folder / "view-0.safetensors"
    save_file({"logits": stored.clone()}, path, {FORMAT: hashlib.sha256(stored.numpy().tobytes()).hexdigest()})
    if damage == "a bit flipped":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert teacher.store.views() == [0]
    assert torch.equal(everything(teacher, 0), whole.float())
    assert [line.partition(";")[0] for line in made.watcher.messages] == ([f"{path} is damaged"] if damage else [])
    assert path.exists() == (damage is None)
    assert made.watcher.answered == ([] if damage is None else [(3 * n if n < 8 else 22, 22) for n in range(1, 9)])


@pytest.mark.parametrize("mode", ["r+b", "rb"])
def test_disk_that_fails_is_named_in_writing_and_made_good_in_reading(small_blocks, made, monkeypatch, mode):
    teacher = made()
    expected = everything(teacher, 0)
    kept_open, failing = Path.open, [True]

    def fail(path, *arguments, **options):
        if arguments[:1] == (mode,) and path.name == "view-1-shard-1.safetensors" and failing:
            raise OSError(errno.ENOSPC if mode == "r+b" else errno.EIO, "out of order")
        return kept_open(path, *arguments, **options)

    if mode == "rb":
        assert everything(teacher, 1).shape == expected.shape
    monkeypatch.setattr(Path, "open", fail)
    if mode == "r+b":
        with pytest.raises(
            ModelCompressionError, match=r"cannot write .*view-1-shard-1\.safetensors: the disk is full"
        ):
            teacher.view(1)
    else:
        assert made().missing_blocks(1) == [3, 4, 5]
    failing.clear()
    assert torch.equal(everything(made(), 1), live_answers(teacher, 1).half().float())


def test_other_answers_with_good_digests_are_made_again_also_where_some_are_missing(small_blocks, made):
    teacher = made()
    expected = everything(teacher, 0)
    rows = made()._rows_of(0)["logits"]
    for block in (0, 3):
        rows.write(block, expected[[21, 20, 19]], teacher.store.making)
    path = teacher.store.folder / "view-0-shard-2.safetensors"
    path.unlink()
    assert torch.equal(everything(made(), 0), expected)
    assert [line.partition("; ")[0] for line in made.watcher.messages] == [
        f"{path.with_name('view-0-shard-0.safetensors')} holds other answers than this teacher gives to these images"
    ]


class Elsewhere(RuntimeError):
    pass


def test_filling_that_is_stopped_goes_on_where_it_was(small_blocks, made):
    teacher = made()
    count = iter(range(9))

    def stop():
        if next(count) == 3:
            raise Elsewhere

    teacher.between_blocks = stop
    with pytest.raises(Elsewhere):
        teacher.view(0)
    assert made().missing_blocks(0) == [4, 5, 6, 7]
    assert torch.equal(everything(made(), 0), live_answers(teacher, 0).half().float())


def test_waiting_for_a_block_of_another_process_is_said_once_and_can_be_stopped(small_blocks, made, monkeypatch):
    monkeypatch.setattr("model_compression.distillation.teachers.cache.WAIT_S", 0.01)
    lock, teacher = made().store.claim_block(0, 5), made()
    count = iter(range(99))

    def stop():
        if next(count) == 10:  # 7 blocks of its own, then it waits
            raise Elsewhere

    teacher.between_blocks = stop
    with pytest.raises(Elsewhere):
        teacher.view(0)
    assert made.watcher.messages == ["another run stores these answers: waiting for it"]
    teacher.between_blocks = lock.release  # as if the other one were done, or dead
    assert torch.equal(everything(teacher, 0), live_answers(teacher, 0).half().float())


PROCESS = """
import json, os, sys, time, torch
from pathlib import Path
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import ModelCompressionError
from model_compression.data.loader import ResidentLoader
from model_compression.data.synthetic import load_synthetic
from model_compression.models import create_model
from model_compression.distillation.teachers import cache, shards
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.distillation.teachers.fingerprint import fingerprint
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.distillation.teachers.store import AnswerStore

torch.set_num_threads(1)
shards.BLOCK, shards.SHARD = 20, 16
stall = int(sys.argv[2])
dataset, data, cpu = load_synthetic()[0], DataConfig(), torch.device("cpu")

class Slow(LiveTeacher):
    answered = 0
    def answer(self, batch):
        self.answered += 1
        if self.answered == stall:
            print("stalled", flush=True)
            time.sleep(600)
        time.sleep(0.01)
        return super().answer(batch)

live = Slow([create_model("lenet-caffe", seed=0)], cpu, torch.float32)
identity = fingerprint(live, dataset, data, "fp16", teacher_cache_topk=3)
store = AnswerStore(Path(sys.argv[1]))
sys.stdin.readline()
store.claim(identity, {})
teacher = CachedTeacher(live, ResidentLoader(dataset, data, cpu), store, lambda *_: None, lambda line: None)
view = teacher.view(0)["logits"]
print(json.dumps([live.answered - 1, view[torch.arange(1000)].double().sum().item()]))  # one to compare
"""


def started(folder, stall=0):
    command = [sys.executable, "-c", PROCESS, str(folder), str(stall)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write("go\n")
    process.stdin.flush()
    return process


def result(process):
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
def test_two_processes_share_the_blocks_of_a_view(tmp_path):
    shared = [result(process) for process in [started(tmp_path / "shared") for _ in range(2)]]
    alone = result(started(tmp_path / "alone"))
    assert alone[0] == 50
    assert sum(blocks for blocks, _ in shared) == 50
    assert min(blocks for blocks, _ in shared) > 0
    assert shared[0][1] == shared[1][1] == alone[1]
    for number in range(4):
        one, other = (tmp_path / name / f"view-0-shard-{number}.safetensors" for name in ("shared", "alone"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_killed_process_loses_only_the_block_that_it_was_in(tmp_path):
    folder = tmp_path / "store"
    victim = started(folder, stall=21)
    assert victim.stdout.readline() == "stalled\n"  # 20 blocks are stored, and more are claimed
    waiting = started(folder, stall=0)
    time.sleep(1)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    blocks, total = result(waiting)
    assert blocks == 30
    assert total == result(started(tmp_path / "alone"))[1]
    assert result(started(folder))[0] == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", [0, 1 << 30])
@pytest.mark.parametrize("topk", [0, 1])
def test_answers_on_a_gpu_are_those_in_the_files(small_blocks, made, monkeypatch, resident, topk):
    monkeypatch.setattr(row_reader, "_RESIDENT_BYTES", resident)
    gpu, ids = torch.device("cuda"), torch.tensor([21, 0, 9, 8, 8])
    expected = made(topk=topk).view(1)["logits"][ids]
    found = made(topk=topk).view(1)["logits"].on(gpu)[ids.to(gpu)]
    assert found.device.type == "cuda"
    assert (found.cpu() - expected).abs().max() < 1e-6
