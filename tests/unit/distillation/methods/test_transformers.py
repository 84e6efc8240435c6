"""Methods for transformers against their formulas in float64, written out token by token; padding changes nothing."""

import math

import numpy as np
import pytest
import tiny_texts
import torch

from model_compression.core.config import MethodConfig
from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create
from model_compression.distillation.taps import choose_taps
from model_compression.models.features import Tapped
from model_compression.models.loading import load_model

LENGTHS = [5, 2, 7]


def tokens(width, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(3, 7, width)) * scale


def outputs(*features, masked=True):
    mask = (torch.arange(7) < torch.tensor(LENGTHS)[:, None]).long() if masked else None
    named = {str(n): torch.from_numpy(one).requires_grad_() for n, one in enumerate(features)}
    return Outputs(logits=torch.zeros(3, 2), features=named, mask=mask)


def made(name, *sides, **options):
    method = create(name, **options)
    shapes = {side: {"features": {str(n): (1, *one.shape[1:]) for n, one in enumerate(features)}}
              for side, features in zip(("student", "teacher"), sides, strict=True)}  # fmt: skip
    torch.manual_seed(0)
    method.setup(shapes, 3, 2)
    return method.double()


def term(method, student, teacher, **options):
    (value,) = method(outputs(*student, **options), outputs(*teacher, **options), torch.zeros(3).long()).values()
    return value


def mean_by_text(value_of):
    """Mean over texts of the mean over their tokens of ``value_of(row, token)``."""
    return np.mean([np.mean([value_of(row, token) for token in range(n)]) for row, n in enumerate(LENGTHS)])


@pytest.mark.parametrize("widths", [(4, 6), (5, 5)])
def test_hidden_is_the_squared_distance_after_a_projection(widths):
    student, teacher = (
        [tokens(width, seed) for seed in seeds] for width, seeds in zip(widths, [(0, 1), (2, 3)], strict=True)
    )
    method = made("hidden", student, teacher)
    weights = [layer.weight.detach().numpy() for layer in method.projections]
    expected = sum(
        mean_by_text(lambda row, k, s=s, t=t, w=w: np.mean([(sum(w[i, j] * s[row, k, j] for j in range(widths[0]))
                                                             - t[row, k, i]) ** 2 for i in range(widths[1])]))
        for s, t, w in zip(student, teacher, weights, strict=True)
    )  # fmt: skip
    assert term(method, student, teacher).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("widths", [(4, 6), (5, 5)])
def test_cosine_is_one_less_the_cosine(widths):
    s, t = tokens(widths[0], 0), tokens(widths[1], 1)
    method = made("cosine", [s], [t])
    project = method.projections[0].weight.detach().numpy() if widths[0] != widths[1] else np.eye(widths[0])

    def value(row, k):
        a, b = project @ s[row, k], t[row, k]
        return 1 - (a @ b) / math.sqrt((a @ a) * (b @ b))

    assert term(method, [s], [t]).item() == pytest.approx(mean_by_text(value), rel=1e-12)


def test_attention_is_the_squared_distance_of_scores():
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(3, 2, 7, 7)), rng.normal(size=(3, 2, 7, 7))
    other = rng.normal(size=(3, 5, 7, 7))
    found = term(made("attention", [s], [t]), [s], [t]).item()
    expected = np.mean([((s - t) ** 2)[row, :, :n, :n].mean() for row, n in enumerate(LENGTHS)])
    assert found == pytest.approx(expected, rel=1e-12)
    found = term(made("attention", [s], [other]), [s], [other]).item()
    means = (s.mean(axis=1) - other.mean(axis=1)) ** 2
    assert found == pytest.approx(np.mean([means[row, :n, :n].mean() for row, n in enumerate(LENGTHS)]), rel=1e-12)


def softmax(values):
    exponents = np.exp(values - values.max())
    return exponents / exponents.sum()


@pytest.mark.parametrize(("widths", "given", "heads"), [((4, 6), 0, 2), ((6, 6), 3, 3), ((4, 8), 1, 1)])
def test_minilm_is_the_divergence_of_relations(widths, given, heads):
    student, teacher = (
        [tokens(width, seed, 2.0) for seed in range(first, first + 3)]
        for first, width in zip((0, 3), widths, strict=True)
    )

    def relation(vectors, row, k, head):
        size = vectors.shape[2] // heads
        own = vectors[row, :, head * size : (head + 1) * size]
        return softmax(np.array([own[k] @ own[j] / math.sqrt(size) for j in range(LENGTHS[row])]))

    def value(row, k):
        total = 0.0
        for s, t in zip(student, teacher, strict=True):
            for head in range(heads):
                q, p = relation(s, row, k, head), relation(t, row, k, head)
                total += (p * np.log(p / q)).sum() / heads
        return total

    method = made("minilm", student, teacher, relation_heads=given)
    assert term(method, student, teacher).item() == pytest.approx(mean_by_text(value), rel=1e-10)


def test_minilm_refuses_heads_that_do_not_divide():
    with pytest.raises(UsageError, match="relation_heads must divide the widths 4 and 6, got 3"):
        term(made("minilm", [tokens(4, 0)], [tokens(6, 1)], relation_heads=3), [tokens(4, 0)], [tokens(6, 1)])
    with pytest.raises(UsageError, match="relation_heads must be an integer of at least 0, got -1"):
        create("minilm", relation_heads=-1)


@pytest.mark.parametrize("name", ["hidden", "cosine", "minilm", "attention"])
def test_padding_has_no_value_and_no_gradient(name):
    shape = (3, 2, 7, 7) if name == "attention" else (3, 7, 4)
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=shape), rng.normal(size=shape)
    method, student = made(name, [s], [t]), outputs(s)
    (value,) = method(student, outputs(t), torch.zeros(3).long()).values()
    value.backward()
    gradient = student.features["0"].grad
    for row, length in enumerate(LENGTHS):
        kept = gradient[row, :, :length, :length] if name == "attention" else gradient[row, :length]
        rest = gradient[row].clone()
        (rest[:, :length, :length] if name == "attention" else rest[:length]).zero_()
        assert kept.abs().sum() > 0
        assert not rest.any()
    same = term(method, [t], [t]).item() if name in ("attention", "minilm", "cosine") else 0.0
    assert same == pytest.approx(0, abs=1e-12)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    place = tmp_path_factory.mktemp("networks")
    tiny_texts.make_network(place / "student", layers=2, width=8)
    tiny_texts.make_network(place / "teacher", layers=5, width=16)
    options = {"task": "text-classification", "num_classes": 3}
    found = [load_model(f"hf:{place / side}", options, seed=0).eval() for side in ("student", "teacher")]
    for network in found:
        network.preprocessing = lambda inputs: inputs
    return found


INPUTS = {
    "input_ids": torch.tensor([[2, 8, 9, 3], [2, 7, 3, 0]]),
    "attention_mask": torch.tensor([[1] * 4, [1] * 3 + [0]]),
}


def taps_of(name, networks, **pairs):
    config = MethodConfig(name=name, **pairs)
    return choose_taps(config, create(name), *networks, INPUTS)


def test_blocks_are_paired_evenly_with_embeddings_before_them(networks):
    taps = taps_of("hidden", networks)
    block = "model.bert.encoder.layer."
    assert taps.student == (f"{block}0:input", f"{block}0", f"{block}1")
    assert taps.teacher == (f"{block}0:input", f"{block}2", f"{block}4")
    tapped = Tapped(networks[1].body, taps.teacher)
    theirs = networks[1].body.model(**INPUTS, output_hidden_states=True).hidden_states
    for found, expected in zip(tapped(INPUTS).features.values(), (theirs[0], theirs[3], theirs[5]), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)
    tapped.remove()
    assert taps_of("cosine", networks).teacher == (f"{block}4",)


def test_attention_taps_are_the_scores_of_transformers(networks):
    import transformers

    taps = taps_of("attention", networks, pairs={"model.bert.encoder.layer.1": "model.bert.encoder.layer.3"})
    assert taps.teacher == ("model.bert.encoder.layer.3:attention",)
    teacher = networks[1].body.model
    tapped = Tapped(networks[1].body, taps.teacher)
    (scores,) = tapped(INPUTS).features.values()
    tapped.remove()
    eager = transformers.BertForSequenceClassification(teacher.config).eval()
    eager.load_state_dict(teacher.state_dict())
    eager.set_attn_implementation("eager")
    expected = eager(**INPUTS, output_attentions=True).attentions[3]
    hidden = scores.masked_fill(INPUTS["attention_mask"][:, None, None, :] == 0, -torch.inf)
    assert torch.allclose(hidden.softmax(dim=3), expected, atol=1e-6)


def test_minilm_taps_queries_keys_and_values_of_the_last_blocks(networks):
    taps = taps_of("minilm", networks)
    block = "model.bert.encoder.layer.4.attention.self."
    assert taps.teacher == (f"{block}query", f"{block}key", f"{block}value")


def test_a_network_without_blocks_is_refused(networks):
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    convolutional = [load_model("resnet8", seed=0) for _ in range(2)]
    with pytest.raises(UsageError, match="the student has no blocks of a transformer, whose attention is compared"):
        choose_taps(MethodConfig(name="attention"), create("attention"), *convolutional, images)
    assert choose_taps(MethodConfig(name="hidden"), create("hidden"), *convolutional, images).student
