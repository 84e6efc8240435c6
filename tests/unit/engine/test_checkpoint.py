"""The resumable state: exact, never half-written, refused when it is damaged."""

import pytest
import torch
from safetensors.torch import save_file

from model_compression.core.errors import FileFormatError, ModelCompressionError
from model_compression.engine.checkpoint import (
    FORMAT,
    State,
    delete_states,
    load_state,
    optimizer_tensors,
    previous,
    restore_optimizer,
    save_state,
)
from model_compression.engine.muon import MuonWithAdamW


@pytest.fixture
def path(tmp_path):
    tensors = {"a": torch.rand(3, 4, 5, 5).to(memory_format=torch.channels_last), "b.count": torch.tensor(2**40)}
    save_state(tmp_path / "state.safetensors", State(tensors=tensors, progress={"step": 7, "seconds": 0.1 + 0.2}))
    return tmp_path / "state.safetensors"


def test_state_round_trip_is_exact(tmp_path):
    tensors = {
        "weights": torch.rand(3, 4, 5, 5, dtype=torch.float64).to(memory_format=torch.channels_last),
        "half": torch.rand(3).bfloat16(),
        "count": torch.tensor(2**40),
        "part": torch.arange(10)[::2],
    }
    progress = {"step": 7, "seconds": 0.1 + 0.2, "name": "é"}
    save_state(tmp_path / "state", State(tensors=tensors, progress=progress))
    again = load_state(tmp_path / "state")
    assert again.progress == progress
    assert again.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again.tensors[name].dtype == tensor.dtype
        assert torch.equal(again.tensors[name], tensor)


def test_without_a_state_there_is_none(tmp_path):
    assert load_state(tmp_path / "state.safetensors") is None


@pytest.mark.parametrize("fault", ["cut", "empty", "a bit", "missing"])
def test_the_state_before_serves_when_the_last_one_does_not(path, fault):
    save_state(path, State(tensors={"a": torch.ones(2)}, progress={"step": 8}))
    whole = path.read_bytes()
    if fault == "missing":
        path.unlink()  # killed between two renames
    else:
        faults = {"cut": whole[:-1], "empty": b"", "a bit": whole[:-1] + bytes([whole[-1] ^ 1])}
        path.write_bytes(faults[fault])
    said = []
    state = load_state(path, said.append)
    assert state.progress["step"] == 7
    assert state.tensors.keys() == {"a", "b.count"}
    assert ("is missing" if fault == "missing" else "is damaged") in said[0]
    assert said[0].endswith("continuing from the state before it, of step 7")
    delete_states(path)
    assert not list(path.parent.iterdir())


def test_two_generations_are_kept_and_no_more(path):
    for step in (8, 9, 10):
        save_state(path, State(tensors={"a": torch.zeros(1)}, progress={"step": step}))
    assert [entry.name for entry in sorted(path.parent.iterdir())] == [
        "state-previous.safetensors",
        "state.safetensors",
    ]
    assert load_state(path).progress["step"] == 10
    assert load_state(previous(path)).progress["step"] == 9


def test_state_that_is_damaged_without_another_is_refused(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileFormatError, match=r"state.safetensors is damaged"):
        load_state(path)


def test_state_of_another_format_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    newer = FORMAT.replace("/2", "/3")
    for header in ({newer: "{}"}, {"format": "pt"}, None):
        save_file({"a": torch.ones(1)}, path, header)
        with pytest.raises(
            FileFormatError, match=r"state.safetensors: format is .*, expected 'model_compression.state"
        ):
            load_state(path)


def test_failed_save_keeps_the_old_state(path, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(ModelCompressionError, match="the disk is full"):
        save_state(path, State(tensors={"a": torch.zeros(1)}, progress={"step": 8}))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def trained(kind, steps, optimizer_state=None):
    """A convolution and its optimiser after steps with fixed gradients; goes on from a state when one is given."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    optimizer = kind(layer.parameters())
    if optimizer_state is not None:
        weights, tensors = optimizer_state
        layer.load_state_dict(weights)
        restore_optimizer(optimizer, tensors)
    for step in steps:
        images = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        layer(images).square().mean().backward()
        optimizer.step()
    return layer, optimizer


KINDS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "sgd without momentum": lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "muon": lambda p: MuonWithAdamW([{"params": list(p), "lr": 0.1, "weight_decay": 0.1}], momentum=0.9),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.torch("2.9") if k == "muon" else ()) for k in KINDS]
)
def test_optimizer_goes_on_to_the_bit(tmp_path, kind):
    whole, _ = trained(KINDS[kind], range(6))
    half, optimizer = trained(KINDS[kind], range(3))
    tensors = optimizer_tensors(optimizer)
    save_state(tmp_path / "state", State(tensors=tensors, progress={}))
    loaded = load_state(tmp_path / "state").tensors
    again, other = trained(KINDS[kind], range(3, 6), (half.state_dict(), loaded))
    assert torch.equal(again.weight, whole.weight)
    assert torch.equal(again.bias, whole.bias)
    expected = {
        "sgd": ["momentum_buffer"] * 2,
        "sgd without momentum": [],
        "muon": ["momentum_buffer", "exp_avg"],  # of the weight and of the bias
    }.get(kind, ["exp_avg"] * 2)
    assert all(f"{number}.{name}" in optimizer_tensors(other) for number, name in enumerate(expected))
