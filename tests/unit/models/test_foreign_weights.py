"""Weights files as people have them: whatever is around them, the tensors arrive, or an error says why not."""

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from model_compression.core.errors import FileFormatError, UsageError, WeightsMismatchError
from model_compression.models.foreign_weights import find_own_weights
from model_compression.models.loading import load_model, load_own_weights
from model_compression.models.weights import save_weights


def network(seed=0, width=4):
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, width, 3), bn=nn.BatchNorm2d(width), flatten=nn.Flatten(), head=nn.Linear(16, 3))
    )


TRAINED = network(1)
STATE = TRAINED.state_dict()


def checkpoint():
    optimizer = torch.optim.Adam(TRAINED.parameters())
    TRAINED(torch.ones(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    return {"epoch": 3, "net": copy.deepcopy(STATE), "optimizer": optimizer.state_dict(), "args": {"lr": 0.1}}


WRAPPED = {
    "plain": lambda: STATE,
    "state_dict": lambda: {"state_dict": STATE, "epoch": 7},
    "a name that nobody thought of": lambda: {"checkpoint": {"the_best": {"weights": STATE}}},
    "DataParallel": lambda: {"model": nn.DataParallel(TRAINED).state_dict()},
    "compiled and parallel": lambda: {f"module._orig_mod.{name}": tensor for name, tensor in STATE.items()},
    "averaged": lambda: AveragedModel(TRAINED).state_dict(),
    "Lightning": lambda: {"state_dict": {f"model.{name}": tensor for name, tensor in STATE.items()}},
    "wrappers in a wrapper": lambda: {f"module.student.backbone.{name}": tensor for name, tensor in STATE.items()},
    "parts compiled": lambda: {name.replace("bn.", "bn._orig_mod."): tensor for name, tensor in STATE.items()},
    "teacher and student": lambda: {
        **{f"student.{name}": tensor for name, tensor in STATE.items()},
        **{f"teacher.{name}": tensor for name, tensor in network(5, width=9).state_dict().items()},
        "criterion.weight": torch.ones(3),
    },
    "with plain values beside": lambda: {**STATE, "epoch": 3},
    "half precision": lambda: {name: t.half() if t.is_floating_point() else t for name, t in STATE.items()},
    "before there were counters": lambda: {name: t for name, t in STATE.items() if "num_batches" not in name},
    "the same twice": lambda: {"model": STATE, "ema": copy.deepcopy(STATE)},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_own_weights_arrive_whatever_they_are_wrapped_in(how, tmp_path):
    expected = {name: tensor.clone() for name, tensor in STATE.items()}
    torch.save(WRAPPED[how](), tmp_path / "own.pt")
    found = network()
    load_own_weights(found, tmp_path / "own.pt")
    tolerance = 1e-3 if how == "half precision" else 0
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=tolerance, atol=tolerance)


def test_own_weights_of_a_part_fill_a_network_that_wraps_it(tmp_path):
    torch.save(STATE, tmp_path / "own.pt")
    wrapping = nn.ModuleDict({"net": nn.ModuleDict({"body": network()})})
    load_own_weights(wrapping, tmp_path / "own.pt")
    assert all(torch.equal(tensor, STATE[name[9:]]) for name, tensor in wrapping.state_dict().items())


def test_own_weights_of_two_networks_that_fit_are_told_apart_by_a_key(tmp_path):
    both = {"teacher": network(5).state_dict(), "student": STATE}
    flat = {f"{who}.{name}": tensor for who, state in both.items() for name, tensor in state.items()}
    torch.save({"epoch": 1, "state_dict": flat}, tmp_path / "own.pt")
    found = network()
    with pytest.raises(
        UsageError, match=r"fit: 'state_dict.teacher', 'state_dict.student'; name one, as .*#state_dict"
    ):
        load_own_weights(found, tmp_path / "own.pt")
    load_own_weights(found, f"{tmp_path / 'own.pt'}#state_dict.student")
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in found.state_dict().items())


def test_own_weights_of_another_network_are_refused_in_a_short_line(tmp_path):
    torch.save({f"layer.{number}": torch.ones(2) for number in range(400)}, tmp_path / "own.pt")
    with pytest.raises(WeightsMismatchError, match=r"no name in common: .*; and 404 more$") as caught:
        load_own_weights(network(), tmp_path / "own.pt")
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_own_weights_of_a_training_state_are_the_networks(tmp_path):
    content = checkpoint()
    torch.save(content, tmp_path / "own.ckpt")
    found = network()
    load_own_weights(found, tmp_path / "own.ckpt")
    assert all(torch.equal(tensor, content["net"][name]) for name, tensor in found.state_dict().items())


def test_own_weights_of_safetensors(tmp_path):
    save_file({f"module.{name}": tensor for name, tensor in STATE.items()}, tmp_path / "own.safetensors")
    found = network()
    load_own_weights(found, str(tmp_path / "own.safetensors"))
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in found.state_dict().items())


def test_own_weights_that_are_two_are_chosen_by_their_key(tmp_path):
    other = network(5).state_dict()
    torch.save({"model": STATE, "state": {"ema": other}}, tmp_path / "own.pt")
    found = network()
    with pytest.raises(UsageError, match=r"sets of weights that fit: 'model', 'state.ema'; name one, as .*#model"):
        load_own_weights(found, tmp_path / "own.pt")
    load_own_weights(found, f"{tmp_path / 'own.pt'}#state.ema")
    assert all(torch.equal(tensor, other[name]) for name, tensor in found.state_dict().items())
    with pytest.raises(UsageError, match=r"no tensors under 'ema'; expected one of 'model', 'state.ema'"):
        load_own_weights(found, f"{tmp_path / 'own.pt'}#ema")


def test_own_weights_that_do_not_fit_name_every_tensor_and_change_none(tmp_path):
    wrong = {**STATE, "head.weight": torch.zeros(5, 16), "extra": torch.zeros(2)}
    del wrong["conv.bias"]
    torch.save({"model": {f"module.{name}": tensor for name, tensor in wrong.items()}, "step": {"a": torch.ones(1)}},
               tmp_path / "own.pt")  # fmt: skip
    found = network()
    before = copy.deepcopy(found.state_dict())
    with pytest.raises(WeightsMismatchError) as caught:
        load_own_weights(found, tmp_path / "own.pt")
    assert str(caught.value) == (
        f"{tmp_path / 'own.pt'} does not fit the model: conv.bias: missing, expected (4,); 'extra': unknown to the "
        "model; head.weight: found (5, 16), expected (3, 16)"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in found.state_dict().items())


class Evil:
    def __reduce__(self):
        return (open, ("pwned", "w"))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: torch.save(TRAINED, path), "is not read: it asks for torch.nn.modules.container.Sequential"),
        (lambda path: torch.save({"state_dict": STATE, "x": Evil()}, path), "it asks for (_io|io).open; save the"),
        (lambda path: path.write_bytes(pickle.dumps(Evil())), "is not read: its pickle is of another kind"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no dictionary of tensors; save one with torch.save"),
        (lambda path: torch.save([1, 2], path), "holds no dictionary of tensors"),
        (lambda path: path.write_bytes(b"hello"), r"it is damaged \(KeyError\)"),
        (lambda path: path.write_bytes(b""), r"it is damaged \(EOFError\)"),
        (lambda path: torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(path), "is a TorchScript archive"),
        (lambda path: path.mkdir(), "is a folder; expected a weights file"),
        (lambda path: None, "is not there; expected a weights file"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_own_weights_that_cannot_be_read_are_named(tmp_path, monkeypatch, write, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "own.pt")
    with pytest.raises(FileFormatError, match=message) as caught:
        load_own_weights(network(), tmp_path / "own.pt")
    assert str(tmp_path / "own.pt") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_own_weights_fill_this_packages_networks(tmp_path):
    trained = load_model("resnet8", {"num_classes": 3}, seed=4)
    torch.save({"model": trained.state_dict()}, tmp_path / "own.pt")
    found = load_model("resnet8", {"num_classes": 3}, weights=tmp_path / "own.pt")
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in found.state_dict().items())
    assert not found.declares_preprocessing
    save_weights(tmp_path / "ours.safetensors", trained, facts={"test_accuracy": 0.9})
    found = load_model("resnet8", {"num_classes": 3}, weights=tmp_path / "ours.safetensors")
    assert found.declares_preprocessing  # this file says it
    assert found.facts == {"test_accuracy": 0.9}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nin-cifar10", {}, "are for a network that is built anew, as resnet20; 'nin-cifar10' has its own"),
        ("timm:test_resnet", {"pretrained": True}, "pretrained and the weights .* both say which weights"),
    ],
)
def test_own_weights_beside_other_weights_are_refused(tmp_path, name, options, message):
    torch.save(STATE, tmp_path / "own.pt")
    with pytest.raises(UsageError, match=message):
        load_model(name, options, weights=tmp_path / "own.pt")


@pytest.mark.parametrize("source", ["#", "#model", "nosuch/#model"])
def test_a_key_without_a_file_is_wrong_usage(source):
    with pytest.raises(UsageError, match=f"'{source}' names no file before its #; expected FILE#KEY"):
        find_own_weights(source)
