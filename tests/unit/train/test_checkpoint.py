"""The resumable state: exact, never half-written, refused when it is damaged."""

import pytest
import torch
from safetensors.torch import save_file

from model_compression.errors import FileFormatError, ModelCompressionError
from model_compression.train.checkpoint import (
    FORMAT,
    State,
    load_state,
    optimizer_tensors,
    restore_optimizer,
    save_state,
)


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


def test_state_that_was_loaded_does_not_change_with_its_file(path):
    state = load_state(path)
    before = state.tensors["a"].clone()
    path.write_bytes(b"")
    assert torch.equal(state.tensors["a"], before)


def test_state_cut_anywhere_is_refused(path):
    whole = path.read_bytes()
    for length in (0, 5, 8, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"state.safetensors is damaged"):
            load_state(path)


def test_state_of_another_format_or_without_progress_is_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    with pytest.raises(FileFormatError, match="does not exist: there is nothing to continue from"):
        load_state(path)
    newer = FORMAT.replace("/1", "/2")
    for header in ({newer: "{}"}, {"format": "pt"}, None):
        save_file({"a": torch.ones(1)}, path, header)
        with pytest.raises(
            FileFormatError, match=r"state.safetensors: format is .*, expected 'model_compression.state"
        ):
            load_state(path)
    save_file({"a": torch.ones(1)}, path, {FORMAT: "{"})
    with pytest.raises(FileFormatError, match="the header is damaged"):
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
}


@pytest.mark.parametrize("kind", KINDS)
def test_optimizer_goes_on_to_the_bit(tmp_path, kind):
    whole, _ = trained(KINDS[kind], range(6))
    half, optimizer = trained(KINDS[kind], range(3))
    tensors = optimizer_tensors(optimizer)
    save_state(tmp_path / "state", State(tensors=tensors, progress={}))
    loaded = load_state(tmp_path / "state").tensors
    again, other = trained(KINDS[kind], range(3, 6), (half.state_dict(), loaded))
    assert torch.equal(again.weight, whole.weight)
    assert torch.equal(again.bias, whole.bias)
    expected = "" if "without" in kind else {"sgd": "momentum_buffer"}.get(kind, "exp_avg")
    assert all(f"{number}.{expected}" in optimizer_tensors(other) for number in (0, 1) if expected)
