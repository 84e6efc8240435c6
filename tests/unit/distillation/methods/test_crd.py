"""crd against the noise-contrastive loss in loops; its draws, its memories, and what a saved state carries."""

import numpy as np
import pytest
import torch

import model_compression.distillation.methods.relation  # noqa: F401  (registers)
from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create
from model_compression.distillation.methods.relation.crd import draw_negatives

NUM_SAMPLES, STUDENT_WIDTH, TEACHER_WIDTH = 12, 3, 5
INDICES, TARGETS = [4, 0, 7, 11], [1, 0, 1, 2]


def built(num_samples=NUM_SAMPLES, **options):
    method = create("crd", **{"dim": 4, "num_negatives": 6, **options})
    shapes = {"student": {"embedding": (1, STUDENT_WIDTH)}, "teacher": {"embedding": (1, TEACHER_WIDTH)}}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method.setup(shapes, num_samples, 3)
    return method.double()


def embeddings(batch=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, STUDENT_WIDTH)), rng.normal(size=(batch, TEACHER_WIDTH))


def answer(embedding, dtype=torch.float64):
    embedding = torch.tensor(embedding, dtype=dtype, requires_grad=True)
    return Outputs(logits=torch.zeros(len(embedding), 3), embedding=embedding)


def stepped(method, context, student, teacher, indices=INDICES, targets=TARGETS, step=0):
    """The term of a step."""
    terms = method(answer(student), answer(teacher), torch.tensor(targets), context(indices, step=step))
    assert list(terms) == ["crd"]
    assert terms["crd"].shape == ()
    return terms["crd"]


def arrays(method):
    return {name: tensor.detach().numpy().copy() for name, tensor in method.state_dict().items()}


def projected(state, side, embedding):
    rows = embedding @ state[f"{side}_projection.weight"].T + state[f"{side}_projection.bias"]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def expected(state, student, teacher, picks, temperature=0.07, normalisers=None):
    """(loss, Z of both sides) from the state before the step; Z is estimated unless given."""
    num_samples, total, found = len(state["labels"]), 0.0, []
    sides = (("student", student, "teacher"), ("teacher", teacher, "student"))
    for number, (side, embedding, other) in enumerate(sides):
        anchors, memory = projected(state, side, embedding), state[f"{other}_memory"]
        exponentials = [
            [np.exp(anchor @ memory[pick] / temperature) for pick in row]
            for anchor, row in zip(anchors, picks, strict=True)
        ]
        z = np.mean(exponentials) * num_samples if normalisers is None else normalisers[number]
        found.append(z)
        for row in exponentials:
            noise = (len(row) - 1) / num_samples
            total -= np.log(row[0] / z / (row[0] / z + noise))
            total -= sum(np.log(noise / (value / z + noise)) for value in row[1:])
    return total / len(picks), found


def picked(method, context, labels, indices=INDICES, targets=TARGETS, step=0):
    return method._picks(torch.as_tensor(labels), torch.tensor(targets), context(indices, step=step))[0].numpy()


def labels_after(state, indices=INDICES, targets=TARGETS):
    labels = state["labels"].copy()
    labels[indices] = targets
    return labels


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"num_negatives": 1}, {"dim": 7, "num_negatives": 99}])
def test_crd_is_the_noise_contrastive_loss_of_both_sides(context, options):
    method, (student, teacher) = built(**options), embeddings()
    temperature, before, z = options.get("temperature", 0.07), arrays(method), None
    for step in range(3):  # Z is the first batch's in all of them
        picks = picked(method, context, labels_after(before), step=step)
        assert picks.shape == (4, 1 + min(options.get("num_negatives", 6), NUM_SAMPLES))
        value, z = expected(before, student, teacher, picks, temperature, z)
        assert stepped(method, context, student, teacher, step=step).item() == pytest.approx(value, rel=1e-9)
        np.testing.assert_allclose(np.exp(method.log_normalisers.numpy()), z, rtol=1e-9)
        before = arrays(method)


def test_crd_gradient_is_that_of_the_formula_with_z_and_memories_held(context):
    method, (student, teacher) = built(), embeddings()
    stepped(method, context, student, teacher)  # fixes Z, without which its share in the slope would count
    state = arrays(method)
    picks, z = picked(method, context, labels_after(state), step=1), np.exp(state["log_normalisers"])
    answers = answer(student), answer(teacher)
    method(*answers, torch.tensor(TARGETS), context(INDICES, step=1))["crd"].backward()

    def slope(change, at, step=1e-6):
        gradient = np.zeros_like(at)
        for place in np.ndindex(at.shape):
            moved = np.zeros_like(at)
            moved[place] = step
            gradient[place] = (change(at + moved) - change(at - moved)) / (2 * step)
        return gradient

    def loss(state=state, student=student):
        return expected(state, student, teacher, picks, normalisers=z)[0]

    by_differences = slope(lambda e: loss(student=e), student)
    np.testing.assert_allclose(answers[0].embedding.grad.numpy(), by_differences, rtol=1e-5, atol=1e-7)
    assert answers[1].embedding.grad is None  # the teacher is not trained, its projection is
    for name, parameter in method.named_parameters():
        by_differences = slope(lambda weights, name=name: loss(state={**state, name: weights}), state[name])
        np.testing.assert_allclose(parameter.grad.numpy(), by_differences, rtol=1e-5, atol=1e-7)
        assert parameter.grad.any()


def test_crd_holds_z_constant_in_the_gradient_of_the_first_batch(context):
    method, other, (student, teacher) = built(), built(), embeddings()
    first, again = answer(student), answer(student)
    method(first, answer(teacher), torch.tensor(TARGETS), context(INDICES))["crd"].backward()
    other.load_state_dict(method.state_dict())  # Z is known now; memories and weights go back
    for name in ("student_memory", "teacher_memory"):
        getattr(other, name).copy_(getattr(built(), name))
    other(again, answer(teacher), torch.tensor(TARGETS), context(INDICES))["crd"].backward()
    np.testing.assert_allclose(first.embedding.grad, again.embedding.grad, rtol=1e-12)


def test_crd_memories_move_to_the_projections_of_the_batch_alone(context):
    method, (student, teacher) = built(momentum=0.3), embeddings()
    before = arrays(method)
    np.testing.assert_allclose(np.linalg.norm(before["student_memory"], axis=1), 1)
    stepped(method, context, student, teacher)
    after = arrays(method)
    others = np.setdiff1d(np.arange(NUM_SAMPLES), INDICES)
    for side, embedding in (("student", student), ("teacher", teacher)):
        mixed = 0.3 * before[f"{side}_memory"][INDICES] + 0.7 * projected(before, side, embedding)
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        np.testing.assert_allclose(after[f"{side}_memory"][INDICES], mixed, rtol=1e-12)
        np.testing.assert_array_equal(after[f"{side}_memory"][others], before[f"{side}_memory"][others])
    assert after["labels"][INDICES].tolist() == TARGETS
    assert set(after["labels"][others]) == {-1}


def test_crd_remembers_nothing_in_eval_mode(context):
    method = built().eval()
    before = arrays(method)
    stepped(method, context, *embeddings())
    for name, tensor in arrays(method).items():
        np.testing.assert_array_equal(tensor, before[name])


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_negatives_are_never_of_the_samples_own_class_and_evenly_of_all_others(num_classes):
    rng = np.random.default_rng(num_classes)
    labels, draws = rng.integers(-1, num_classes, 40), 100_000
    targets = torch.arange(num_classes)
    bits = torch.tensor(rng.integers(0, 2**31, (num_classes, draws)))
    drawn, usable = draw_negatives(torch.tensor(labels), targets, bits)
    assert usable.all()
    for target, numbers in enumerate(drawn.numpy()):
        candidates = np.flatnonzero(labels != target)
        counts = np.bincount(numbers, minlength=len(labels))
        assert counts.sum() == counts[candidates].sum() == draws
        mean = draws / len(candidates)
        np.testing.assert_allclose(counts[candidates], mean, atol=6 * np.sqrt(mean))


def test_negatives_exclude_the_sample_itself_and_its_class_in_training(context):
    method = built(num_negatives=5000, num_samples=300)
    classes = np.random.default_rng(0).integers(0, 3, 300)
    for step in range(3):
        indices = np.arange(step * 100, step * 100 + 100)
        targets = classes[indices].tolist()
        labels = labels_after(arrays(method), indices, targets)
        picks = picked(method, context, labels, indices, targets, step)
        np.testing.assert_array_equal(picks[:, 0], indices)
        known = labels[picks[:, 1:]]
        assert not (known == classes[indices][:, None]).any()
        assert (known == -1).any() == (step < 2)  # samples that no batch has had yet stand for no class
        stepped(method, context, *embeddings(100, step), indices, targets, step)


def test_negatives_are_a_function_of_seed_step_and_index_alone(context):
    method, labels = built(num_negatives=50, num_samples=100), np.arange(100) % 3

    def picks(indices, **key):
        targets = torch.tensor([labels[index] for index in indices])
        return method._picks(torch.tensor(labels), targets, context(indices, **key))[0]

    whole = picks(range(40))
    assert torch.equal(picks([39, 5, 17]), whole[[39, 5, 17]])
    for other in ({"seed": 4}, {"step": 12}):
        assert not torch.equal(picks(range(40), **other)[:, 1:], whole[:, 1:])
    assert len({tuple(row) for row in whole[:, 1:].tolist()}) == 40


def test_crd_continues_from_a_saved_state_as_if_uninterrupted(context):
    method, other = built(), built()
    for step in range(2):
        stepped(method, context, *embeddings(seed=step), step=step)
    other.load_state_dict(method.state_dict())
    for step in range(2, 4):
        indices, targets = [1, 4, 9, 3], [0, 1, 2, 2]
        values = [stepped(each, context, *embeddings(seed=step), indices, targets, step) for each in (method, other)]
        assert values[0].item() == values[1].item()
    for name, tensor in arrays(method).items():
        np.testing.assert_array_equal(arrays(other)[name], tensor)


def test_crd_memory_takes_what_its_documentation_says():
    method = built(num_samples=1000, dim=128).float()
    size = sum(getattr(method, name).nbytes for name in ("student_memory", "teacher_memory"))
    assert size == 2 * 1000 * 128 * 4
    assert {name for name, _ in method.named_buffers()} == {
        "student_memory",
        "teacher_memory",
        "labels",
        "log_normalisers",
    }


def test_crd_without_samples_of_another_class_keeps_the_positive_term(context):
    method, (student, teacher) = built(num_samples=2), embeddings(2)
    value = stepped(method, context, student, teacher, [0, 1], [0, 0])
    state, z = arrays(built(num_samples=2)), np.exp(method.log_normalisers.numpy())
    hand = 0.0
    for number, (side, embedding, other) in enumerate(
        (("student", student, "teacher"), ("teacher", teacher, "student"))
    ):
        positive = np.exp((projected(state, side, embedding) * state[f"{other}_memory"]).sum(axis=1) / 0.07) / z[number]
        hand -= np.log(positive / (positive + 2 / 2)).mean()
    assert value.item() == pytest.approx(hand, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("embedding", [-1e4, 0.0, 1e4, 1e30])
@pytest.mark.parametrize("batch", [1, 4])
def test_crd_takes_extremes_identical_embeddings_and_a_batch_of_one(context, embedding, batch, dtype):
    method = built(temperature=0.02).to(dtype)
    for step in range(3):
        student, teacher = (
            answer(np.full((batch, width), embedding), dtype) for width in (STUDENT_WIDTH, TEACHER_WIDTH)
        )
        term = method(student, teacher, torch.tensor(TARGETS[:batch]), context(INDICES[:batch], step=step))["crd"]
        term.backward()
        assert term.isfinite()
        assert student.embedding.grad.isfinite().all()
    assert all(tensor.isfinite().all() for tensor in method.state_dict().values())


def test_crd_of_half_precision_equals_its_float32_value(context):
    methods, (student, teacher) = (built(), built()), embeddings()
    values = []
    for method, dtype in zip(methods, (torch.float32, torch.bfloat16), strict=True):
        terms = method.float()(answer(student, dtype), answer(teacher, dtype), torch.tensor(TARGETS), context(INDICES))
        assert terms["crd"].dtype == torch.float32
        values.append(terms["crd"].item())
    assert values[1] == pytest.approx(values[0], rel=1e-2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dim": 0}, r"crd: dim must be a whole number of at least 1 \(published: 128\), got 0"),
        ({"dim": 1.5}, "crd: dim must be a whole number .* got 1.5"),
        ({"num_negatives": 0}, r"crd: num_negatives must be a whole number of at least 1 \(published: 16384\), got 0"),
        ({"num_negatives": "all"}, "crd: num_negatives must be .* got 'all'"),
        ({"temperature": 0}, r"crd: temperature must be a number of at least 0.001 \(published: 0.02 to 0.3\), got 0"),
        ({"temperature": float("nan")}, "crd: temperature must be .* got nan"),
        ({"momentum": 1}, r"crd: momentum must be a number from 0, below 1 \(published: 0.5\), got 1"),
        ({"momentum": -0.1}, "crd: momentum must be .* got -0.1"),
    ],
    ids=str,
)
def test_crd_refuses_impossible_values(wrong, message):
    with pytest.raises(UsageError, match=message):
        create("crd", **wrong)


def test_crd_has_the_defaults_of_the_paper():
    method = create("crd")
    assert (dict(method.default_weights), method.default_label_weight) == ({"crd": 0.8}, 1.0)
    assert (method.dim, method.num_negatives, method.temperature, method.momentum) == (128, 16384, 0.07, 0.5)
