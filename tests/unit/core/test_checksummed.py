"""Sealed files: whatever happens to a byte of one is found."""

import hashlib
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load, save

from model_compression.core.checksummed import save_in_order, seal, unseal
from model_compression.core.errors import FileFormatError

TENSORS = {
    "weights": torch.linspace(-1, 1, 24).reshape(2, 3, 4),
    "count": torch.tensor(2**40),
    "half": torch.ones(3).bfloat16(),
    "none": torch.zeros(0, 2),
    "mask": torch.tensor([True, False]),
}
SEALED = seal(TENSORS, "key", {"step": 7, "text": 'é \\ "'})


def test_seal_and_unseal_give_everything_back(tmp_path):
    (tmp_path / "file").write_bytes(SEALED)
    tensors, header = unseal(tmp_path / "file", "key")
    assert header == {"step": 7, "text": 'é \\ "'}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_equal_contents_have_equal_files():
    turned = dict(reversed(TENSORS.items()))
    assert seal(turned, "key", {"step": 7, "text": 'é \\ "'}) == SEALED


def test_layout_in_memory_does_not_matter():
    image = torch.rand(2, 3, 4, 4)
    assert seal({"a": image}, "key", {}) == seal({"a": image.to(memory_format=torch.channels_last)}, "key", {})


def test_digests_are_those_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(SEALED)
    with safe_open(tmp_path / "file", framework="pt") as file:
        digests = json.loads(file.metadata()["key"])["sha256"]
    assert SEALED.count(digests["whole"].encode()) == 1
    blank = SEALED.replace(digests["whole"].encode(), b"0" * 64)
    assert hashlib.sha256(blank).hexdigest() == digests["whole"]
    expected = hashlib.sha256(b"torch.float32 (2, 3, 4)\n" + TENSORS["weights"].numpy().tobytes()).hexdigest()
    assert digests["tensors"]["weights"] == expected


def test_a_flipped_bit_anywhere_is_found(tmp_path):
    for bit in range(0, 8 * len(SEALED), 9):  # each byte, its bits in turn
        damaged = bytearray(SEALED)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "file").write_bytes(damaged)
        with pytest.raises(FileFormatError):
            unseal(tmp_path / "file", "key")


def test_a_cut_anywhere_is_found(tmp_path):
    for length in range(len(SEALED)):
        (tmp_path / "file").write_bytes(SEALED[:length])
        with pytest.raises(FileFormatError, match="is damaged"):
            unseal(tmp_path / "file", "key")


@settings(max_examples=200, deadline=None)
@given(payload=st.binary(max_size=200))
def test_anything_else_is_refused(tmp_path_factory, payload):
    path = tmp_path_factory.mktemp("sealed") / "file"
    path.write_bytes(payload)
    with pytest.raises(FileFormatError):
        unseal(path, "key")


def test_the_damaged_tensor_is_named(tmp_path):
    place = SEALED.index(TENSORS["weights"].numpy().tobytes())
    damaged = SEALED[:place] + b"\x01" + SEALED[place + 1 :]
    (tmp_path / "file").write_bytes(damaged)
    with pytest.raises(FileFormatError, match="the content of 'weights' is not what was written"):
        unseal(tmp_path / "file", "key")


def test_another_key_and_no_digests_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(SEALED)
    with pytest.raises(FileFormatError, match="format is 'key', expected 'other'"):
        unseal(tmp_path / "file", "other")
    tensors = load(SEALED)
    (tmp_path / "file").write_bytes(save(tensors, {"key": "{}"}))
    with pytest.raises(FileFormatError, match="the header is damaged: 'sha256'"):
        unseal(tmp_path / "file", "key")
    assert unseal(tmp_path / "file", "key", sealed=False)[1] == {}
    for text in ("{", "[]", "7", '{"sha256": {}}', '{"sha256": {"whole": "0", "tensors": 1}}', "[" * 10**5):
        (tmp_path / "file").write_bytes(save(tensors, {"key": text}))
        with pytest.raises(FileFormatError):
            unseal(tmp_path / "file", "key")


def test_metadata_of_several_keys_have_one_order(tmp_path):
    tensors, metadata = {"a": torch.arange(3.0), "é": torch.eye(2)}, {f"key {n}": str(n) for n in range(9)}
    (content,) = {save_in_order(tensors, metadata) for _ in range(5)}
    (tmp_path / "a.safetensors").write_bytes(content)
    with safe_open(tmp_path / "a.safetensors", "pt") as found:
        assert found.metadata() == metadata
        assert all(torch.equal(found.get_tensor(name), tensor) for name, tensor in tensors.items())
