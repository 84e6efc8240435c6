"""What would fail at the end of a run fails before its first step, and trying it beforehand changes nothing."""

import errno

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from model_compression.core.errors import DataError, ModelCompressionError
from model_compression.core.files import writing_failed
from model_compression.engine import results, runs, trainer
from model_compression.engine.runs import start_run


def failing(error):
    def fail(*arguments, **options):
        raise error

    return fail


@pytest.mark.parametrize(
    ("where", "part"), [(trainer, "predict"), (results, "save_weights"), (results, "_rows_to_show")]
)
def test_what_cannot_be_written_is_said_before_the_first_step(tiny, watcher, tmp_path, monkeypatch, where, part):
    monkeypatch.setattr(where, part, failing(ValueError("no such luck\nand more")))
    seen = watcher()
    with pytest.raises(ModelCompressionError, match="could not be written at its end: ValueError: no such luck; noth"):
        start_run(tiny.config("kd"), tmp_path / "run", seen)
    assert seen.steps == []
    assert not (tmp_path / "run").exists()


def test_want_of_room_elsewhere_stops_no_run(tiny, watcher, tmp_path, monkeypatch):
    full = writing_failed(tmp_path / "x", OSError(errno.ENOSPC, "full"))
    full.__cause__ = OSError(errno.ENOSPC, "full")
    original, calls = results.save_weights, []
    monkeypatch.setattr(
        results,
        "save_weights",
        lambda *a, **k: (failing(full) if calls.append(1) is None and len(calls) == 1 else original)(*a, **k),
    )
    seen = watcher()
    start_run(tiny.config(None), tmp_path / "run", seen)
    assert len(calls) == 2
    assert any("was not tried beforehand: cannot write" in message for message in seen.messages)


def test_rehearsal_changes_no_bit_of_a_run(tiny, tmp_path, monkeypatch):
    config = tiny.config("kd", ema=0.9)
    start_run(config, tmp_path / "rehearsed")
    monkeypatch.setattr(runs, "rehearse", lambda *_: None)
    start_run(config, tmp_path / "plain")
    for name in ("student.safetensors", "predictions.safetensors"):
        first, second = (load_file(tmp_path / run / name) for run in ("rehearsed", "plain"))
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[key], second[key]) for key in first)


def test_test_image_that_cannot_be_decoded_is_named_before_the_first_step(tiny, watcher, tmp_path):
    for part in ("train", "test"):
        for number in range(24):
            path = tmp_path / "set" / part / "abc"[number % 3] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    (tmp_path / "set" / "train" / "a" / "list.csv").write_text("")
    broken = tmp_path / "set" / "test" / "b" / "22.png"
    broken.write_bytes(broken.read_bytes()[:-90])  # its header is whole
    seen = watcher()
    config = tiny.config(None, data={"name": f"folder:{tmp_path / 'set'}", "resident": "off", "workers": 0})
    with pytest.raises(DataError, match=r"test/b/22\.png cannot be read as an image"):
        start_run(config, tmp_path / "run", seen)
    assert seen.steps == []
    assert any("1 .csv (a/list.csv)" in message for message in seen.messages)
