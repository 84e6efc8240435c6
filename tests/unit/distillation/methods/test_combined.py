"""Several methods at once are the sum of what they are alone."""

import pytest
import torch

from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import METHODS, create
from model_compression.distillation.methods.base import Method


class Doubled(Method):
    """A method whose term is called as one of `kd`."""

    needs = frozenset({"embedding"})
    min_pairs = 2
    default_weights = {"kd": 7.0, "own": 2.0}
    default_label_weight = 0.5

    def forward(self, student, teacher, targets, context=None):
        return {"kd": student.logits.sum(), "own": student.logits.square().sum()}


@pytest.fixture
def _doubled(monkeypatch):
    monkeypatch.setitem(METHODS._entries, "doubled", Doubled)


def test_combined_terms_are_those_of_each_method(pair, evaluate):
    together = create("kd,logits", **{"kd.temperature": 2.0})
    values, gradients = evaluate(together, *pair)
    kd, kd_gradient = evaluate(create("kd", temperature=2.0), *pair)
    logits, logits_gradient = evaluate(create("logits"), *pair)
    assert values == {**kd, **logits}
    for name, gradient in {**kd_gradient, **logits_gradient}.items():
        assert (gradients[name] == gradient).all()
    assert dict(together.default_weights) == {"kd": 0.9, "logits": 1.0}
    assert together.default_label_weight == create("kd").default_label_weight


@pytest.mark.usefixtures("_doubled")
def test_combined_terms_of_one_name_say_whose_they_are():
    together = create("kd, doubled")
    assert dict(together.default_weights) == {"kd.kd": 0.9, "doubled.kd": 7.0, "own": 2.0}
    assert together.needs == {"logits", "embedding"}
    assert together.min_pairs == 2


def test_parameters_of_combined_methods_must_say_whose_they_are():
    with pytest.raises(UsageError, match=r"parameter 'temperature' of 'kd,logits' must say whose it is, as kd\.temp"):
        create("kd,logits", temperature=2.0)
    with pytest.raises(UnknownNameError, match="unknown option of method 'kd': 'temp'; did you mean 'temperature'"):
        create("kd,logits", **{"kd.temp": 2.0})
    with pytest.raises(UnknownNameError, match="unknown method 'dk'"):
        create("kd,dk")
    with pytest.raises(UsageError, match="names one of its methods twice"):
        create("kd,kd")


def features(seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"a": (5, 4, 8, 8), "b": (5, 6, 4, 4), "c": (5, 6, 2, 2)}
    return Outputs(
        logits=torch.randn(5, 10, generator=generator),
        features={name: torch.randn(*size, generator=generator) for name, size in sizes.items()},
    )


def test_combined_methods_compare_the_pairs_that_are_theirs():
    student, teacher = features(0), features(1)
    shapes = {"student": student.shapes(), "teacher": teacher.shapes()}
    norm = (torch.ones(6), torch.zeros(6))
    shapes["teacher"]["batch_norm"] = {"b": norm}
    together = create("at,nst,ofd,kd")
    together.setup({**shapes, "parts": {"at": (0, 1), "nst": (2,), "ofd": (1,)}}, 5, 10)
    found = together(student, teacher, torch.arange(5))

    def alone(name, *taps):
        method = create(name)
        own = [Outputs(logits=o.logits, features={tap: o.features[tap] for tap in taps}) for o in (student, teacher)]
        norms = {"batch_norm": {"b": norm}} if name == "ofd" else {}
        method.setup({"student": own[0].shapes(), "teacher": own[1].shapes() | norms}, 5, 10)
        if name == "ofd":
            method.load_state_dict(together.methods["ofd"].state_dict())
        return method(*own, torch.arange(5))

    expected = {**alone("at", "a", "b"), **alone("nst", "c"), **alone("ofd", "b"), **alone("kd")}
    assert {key: term.item() for key, term in found.items()} == {key: term.item() for key, term in expected.items()}
