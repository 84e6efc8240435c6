"""logit_std against z-scores by hand, and every method it can wrap."""

import numpy as np
import pytest
import torch
from numerics import SHAPES, random_logits

from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import METHODS, Context, Method, create

BASES = ["kd", "logits", "dkd", "nkd", "dist", "mlkd", "ctkd", "wsld", "noisy_teacher"]
CONTEXT = Context(ids=torch.arange(64), epoch=4, step=2, seed=1)


@pytest.fixture(params=[(1, 3), *SHAPES[1:]], ids=str)
def pair(request):
    """As other methods' but without two classes, whose z-scores say nothing."""
    return random_logits(request.param)


def z_scores(logits):
    rows = []
    for row in logits:
        mean = sum(row) / len(row)
        deviation = (sum((x - mean) ** 2 for x in row) / (len(row) - 1)) ** 0.5
        rows.append([(x - mean) / (deviation + 1e-7) for x in row])
    return np.array(rows)


def kd(student, teacher, temperature):
    p, q = (np.exp(z_scores(x) / temperature) for x in (teacher, student))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    return temperature**2 * (p * np.log(p / q)).sum() / len(student)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_logit_std_is_kd_on_z_scores(pair, evaluate, temperature):
    student, teacher, targets = pair
    values, _ = evaluate(create("logit_std", temperature=temperature), student, teacher, targets)
    assert values == {"kd": pytest.approx(kd(student, teacher, temperature), rel=1e-9, abs=1e-13)}


@pytest.mark.parametrize("shape", [(1, 3), (3, 7), (4, 10)])
def test_logit_std_has_the_gradient_through_the_z_scores(evaluate, shape):
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, *shape)) * 3
    _, gradients = evaluate(create("logit_std"), student, teacher, [0] * shape[0])
    expected = np.zeros(shape)
    for index in np.ndindex(shape):
        step = np.zeros(shape)
        step[index] = 1e-5
        expected[index] = (kd(student + step, teacher, 2.0) - kd(student - step, teacher, 2.0)) / 2e-5
    np.testing.assert_allclose(gradients["kd"], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("base", BASES)
def test_logit_std_hands_z_scores_to_any_logit_method(pair, evaluate, base):
    student, teacher, targets = pair
    temperature = {"temperature": 2.0} if base in {"kd", "dkd", "nkd", "dist", "wsld"} else {}
    plain, wrapped = create(base, **temperature), create("logit_std", base=base)
    context = Context(ids=torch.arange(len(student)), epoch=4, step=2, seed=1)
    expected, _ = evaluate(plain, z_scores(student), z_scores(teacher), targets, context)
    if base == "mlkd":  # as the authors' code has it
        as_they_are, _ = evaluate(plain, student, teacher, targets, context)
        expected |= {name: as_they_are[name] for name in ("batch", "class")}
    values, _ = evaluate(wrapped, student, teacher, targets, context)
    assert values == {name: pytest.approx(value, rel=1e-6, abs=1e-10) for name, value in expected.items()}
    assert wrapped.default_weights == {name: 9 * weight for name, weight in plain.default_weights.items()}
    assert wrapped.default_label_weight == plain.default_label_weight
    assert dict(wrapped.named_parameters()).keys() == {f"method.{name}" for name, _ in plain.named_parameters()}


def test_logit_std_ignores_shift_and_scale_of_either_side(pair, evaluate):
    student, teacher, targets = pair
    plain, _ = evaluate(create("logit_std"), student, teacher, targets)
    moved, gradients = evaluate(create("logit_std"), 30 * student + 5, 0.5 * teacher - 7, targets)
    assert moved["kd"] == pytest.approx(plain["kd"], rel=1e-5, abs=1e-9)
    same, _ = evaluate(create("logit_std"), 3 * teacher + 1, teacher, targets)
    assert same["kd"] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose((gradients["kd"] * student).sum(axis=1), 0, atol=1e-6)  # nothing along the logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("student", [[1e4, -1e4, 0.0], [0.0, 0.0, 0.0], [1e4, 1e4, 1e4]])
@pytest.mark.parametrize("teacher", [[-1e4, 1e4, 0.0], [5.0, 5.0, 5.0]])
def test_logit_std_is_finite_for_extreme_and_equal_logits(evaluate, dtype, student, teacher):
    values, gradients = evaluate(create("logit_std"), [student], [teacher], [0], dtype=dtype)
    assert np.isfinite(values["kd"])
    assert np.isfinite(gradients["kd"]).all()


def test_logit_std_passes_parameters_to_its_base():
    method = create("logit_std", base="dkd", alpha=0.5, beta=2.0, temperature=3.0)
    assert method.default_weights == {"tckd": 4.5, "nckd": 18.0}
    assert method.method.temperature == 3.0
    assert create("logit_std", base="mlkd", temperatures=[2]).method.temperatures == (2,)
    assert create("logit_std", variant="historic").default_weights == {"kd": 9 * 0.7, "sigmoid_labels": 9 * 0.3}


def test_logit_std_trains_the_parameters_of_its_base():
    method = create("logit_std", base="ctkd")
    method.setup({}, 10, 5)
    student, teacher = torch.randn(2, 64, 5, generator=torch.Generator().manual_seed(0))
    method(Outputs(logits=student), Outputs(logits=teacher), torch.zeros(64, dtype=torch.int64), CONTEXT)[
        "ctkd"
    ].backward()
    assert [parameter.grad.isfinite().item() for parameter in method.parameters()] == [True]
    assert not method.has_first_stage


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, r"logit_std: temperature must be a number from 0.01 to 1000 \(published: 2\), got 0"),
        ({"base": "logit_std"}, "base must be another method, got 'logit_std'"),
        ({"base": "tf_kd"}, "base must learn from a teacher, got 'tf_kd', which has none"),
    ],
)
def test_logit_std_refuses_impossible_parameters(options, message):
    with pytest.raises(UsageError, match=message):
        create("logit_std", **options)


def test_logit_std_sets_its_base_up_and_gives_it_z_scores_first(monkeypatch, pair):
    class Staged(Method):
        default_weights = {"a": 1.0}
        default_label_weight = 1.0

        def setup(self, shapes, num_samples, num_classes):
            self.given = (shapes, num_samples, num_classes)

        def first_stage(self, teacher):
            return teacher.logits

    monkeypatch.setitem(METHODS._entries, "staged", Staged)
    method = create("logit_std", base="staged")
    method.setup({"student": {}}, 50, 10)
    assert method.has_first_stage
    assert method.method.given == ({"student": {}}, 50, 10)
    found = method.first_stage(Outputs(logits=torch.tensor(pair[1])))
    np.testing.assert_allclose(found.numpy(), z_scores(pair[1]), rtol=1e-9, atol=1e-12)


def test_logit_std_refuses_a_base_that_needs_features(monkeypatch):
    class Deep(Method):
        needs = frozenset({"features"})

    monkeypatch.setitem(METHODS._entries, "deep", Deep)
    with pytest.raises(UsageError, match=r"base must need logits alone, got 'deep', which needs \['features'\]"):
        create("logit_std", base="deep")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "kdd"}, "unknown method 'kdd'; did you mean 'kd'"),
        ({"base": "dkd", "alfa": 1}, "unknown option of method 'dkd': 'alfa'; did you mean 'alpha'"),
        ({"base": "kd", "alpha": 1}, "unknown option of method 'kd': 'alpha'"),
        ({"base": "mlkd", "temperature": 3}, "unknown option of method 'mlkd': 'temperature'"),
    ],
)
def test_logit_std_refuses_options_that_its_base_lacks(options, message):
    with pytest.raises(UnknownNameError, match=message):
        create("logit_std", **options)


def test_logit_std_refuses_two_classes(evaluate):
    with pytest.raises(UsageError, match="z-scores of 2 classes are the same whatever the network answers"):
        create("logit_std").setup({}, 100, 2)
    with pytest.raises(UsageError, match="z-scores of 2 classes"):
        evaluate(create("logit_std"), [[1.0, 2.0]], [[2.0, 1.0]], [0])


def test_logit_std_leaves_flat_logits_to_the_labels(evaluate):
    teacher = [[3.0, 1.0, -2.0]] * 3
    student = [[0.0, 0.0, 0.0], [0.004, 0.0, -0.004], [0.4, 0.0, -0.4]]
    values, gradients = evaluate(create("logit_std"), student, teacher, [0, 0, 0])
    assert values["kd"] == pytest.approx(kd(student, teacher, 2.0), rel=1e-9)
    assert (gradients["kd"][:2] == 0).all()
    assert np.abs(gradients["kd"][2]).max() > 0


def test_logit_std_trains_a_head_that_starts_at_zero():
    """With gradients of 1e7 in its first step Adam would hardly move it for thousands of others."""
    generator = torch.Generator().manual_seed(0)
    images, weights = torch.randn(256, 20, generator=generator), torch.randn(20, 10, generator=generator)
    teacher = images @ weights
    head = torch.zeros(20, 10, requires_grad=True)
    method, optimizer = create("logit_std"), torch.optim.Adam([head], lr=1e-2)
    for _ in range(150):
        student = images @ head
        loss = method(Outputs(logits=student), Outputs(logits=teacher), teacher.argmax(1))["kd"]
        loss = 8.1 * loss + 0.1 * torch.nn.functional.cross_entropy(student, teacher.argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((images @ head).argmax(1) == teacher.argmax(1)).float().mean() > 0.9
