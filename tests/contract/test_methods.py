"""What every registered method keeps to; a new one is picked up by itself."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch
from model_compression.distillation.methods import METHODS, Context, Method, create
from model_compression.distillation.objective import Objective, check_topk
from model_compression.tasks import TASKS

NAMES = pytest.mark.parametrize("name", METHODS.names())
NUM_CLASSES, NUM_SAMPLES = 10, 50
# Maps of other widths and sizes on the two sides, and tokens: what a pair of real networks brings.
MAPS, IMAGES = (1, NUM_CLASSES, 8, 8), (1, 3, 8, 8)
CONVOLUTIONAL = (
    {"logits": (1, NUM_CLASSES), "embedding": (1, 12), "features": {"a": (1, 4, 8, 8), "b": (1, 6, 4, 4)}},
    {"logits": (1, NUM_CLASSES), "embedding": (1, 20), "features": {"c": (1, 5, 8, 8), "d": (1, 9, 2, 2)}},
)
TOKENS = (
    {"logits": (1, NUM_CLASSES), "embedding": (1, 12), "features": {"a": (1, 17, 8), "b": (1, 17, 8)}},
    {"logits": (1, NUM_CLASSES), "embedding": (1, 16), "features": {"c": (1, 16, 16), "d": (1, 5, 16)}},
)
NETWORKS = pytest.mark.parametrize("networks", [CONVOLUTIONAL, TOKENS], ids=["convolutional", "tokens"])


def with_classifier(networks):
    """The networks, the student's last features as wide as the teacher's, as a student's with its classifier are."""
    student, teacher = networks
    (name, maps), wide = list(student["features"].items())[-1], list(teacher["features"].values())[-1]
    projected = (1, wide[1], *maps[2:]) if len(maps) == 4 else (1, maps[1], wide[2])
    return {**student, "features": {**student["features"], name: projected}}, teacher


def built(name, networks=CONVOLUTIONAL):
    """The method, ready for a pair of networks; its random initialisation is always the same."""
    method = create(name)
    method.kind = kind_of(method)
    networks = with_classifier(networks) if method.reuses_classifier else networks
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student, teacher = networks
        shapes = {"student": {**student, "inputs": IMAGES}, "teacher": teacher}
        method.setup(shapes, NUM_SAMPLES, NUM_CLASSES)
    return method


def kind_of(method):
    """The kind of answers that it is tested with."""
    return "categorical" if "categorical" in method.answers else min(method.answers)


def targets_for(method, numbers):
    """Class numbers (B,), or as many numbers (B, K) as answers where it compares no classes."""
    return numbers if method.kind == "categorical" else torch.eye(NUM_CLASSES)[numbers]


def outputs(shapes, batch, seed):
    """Random answers (B, …) of a network; tensors that want a gradient, logits first."""
    generator = torch.Generator().manual_seed(seed)

    def tensor(shape):
        return torch.randn(batch, *shape[1:], generator=generator).requires_grad_()

    return Outputs(
        logits=tensor(shapes["logits"]),
        embedding=tensor(shapes["embedding"]),
        features={name: tensor(shape) for name, shape in shapes["features"].items()},
        maps=tensor(MAPS),
        inputs=tensor(IMAGES).detach(),
    )


def tensors(answers):
    return [answers.logits, answers.embedding, *answers.features.values(), answers.maps]


def answered(method, batch, networks=CONVOLUTIONAL, epoch=1):
    """Student's and teacher's outputs and the method's terms for a batch."""
    networks = with_classifier(networks) if method.reuses_classifier else networks
    student, teacher = (outputs(shapes, batch, seed) for seed, shapes in enumerate(networks))
    targets = targets_for(method, torch.arange(batch) % NUM_CLASSES)
    context = Context(ids=torch.arange(batch), epoch=epoch, step=7, seed=0)
    terms = method(student, teacher, targets, context)
    return SimpleNamespace(student=student, teacher=teacher, terms=terms)


@NAMES
def test_method_states_its_weights_and_needs(name):
    method = create(name)
    assert isinstance(method, Method)
    assert method.needs <= {"logits", "embedding", "features"}
    assert method.needs
    assert method.default_weights
    assert all(weight > 0 for weight in method.default_weights.values())
    assert method.default_label_weight >= 0


@NAMES
@NETWORKS
@pytest.mark.parametrize("batch", [1, 2, 13, NUM_SAMPLES])
def test_method_returns_finite_scalars_under_the_names_of_its_weights(name, networks, batch):
    found = answered(built(name, networks), batch, networks)
    assert found.terms.keys() == dict(create(name).default_weights).keys()
    assert all(term.shape == () and term.dtype == torch.float32 for term in found.terms.values())
    assert all(term.isfinite() and term.requires_grad for term in found.terms.values())
    sum(found.terms.values()).backward()
    gradients = [tensor.grad for tensor in tensors(found.student) if tensor.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    if batch > 2:  # a relation within a batch of one is zero
        assert any(gradient.any() for gradient in gradients)
    assert all(tensor.grad is None for tensor in tensors(found.teacher))


@NAMES
def test_method_trains_all_its_parameters(name):
    method = built(name)
    found = answered(method, 13)
    loss = sum(found.terms.values())
    (loss + method.first_stage(found.teacher) if method.has_first_stage else loss).backward()
    unused = [key for key, parameter in method.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not unused


@NAMES
def test_method_computes_in_float32_under_autocast(name):
    exact = answered(built(name), 13).terms
    with torch.autocast("cpu", torch.bfloat16):
        found = answered(built(name), 13).terms
    assert {key: term.item() for key, term in found.items()} == {key: term.item() for key, term in exact.items()}


@NAMES
def test_method_takes_answers_in_half_precision(name):
    exact = answered(built(name), 13).terms
    method = built(name)
    networks = with_classifier(CONVOLUTIONAL) if method.reuses_classifier else CONVOLUTIONAL
    student, teacher = (outputs(shapes, 13, seed) for seed, shapes in enumerate(networks))
    context = Context(ids=torch.arange(13), epoch=1, step=7, seed=0)

    def half(answers):
        return Outputs(
            logits=answers.logits.bfloat16(),
            embedding=answers.embedding.bfloat16(),
            features={key: value.bfloat16() for key, value in answers.features.items()},
            maps=answers.maps.bfloat16(),
            inputs=answers.inputs.bfloat16(),
        )

    with torch.autocast("cpu", torch.bfloat16):
        terms = method(half(student), half(teacher), targets_for(method, torch.arange(13) % NUM_CLASSES), context)
    for key, term in terms.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(exact[key].item(), rel=1e-2, abs=1e-3)


@NAMES
def test_method_state_is_saved_and_restored(name):
    method, other = built(name), built(name)
    answered(method, 7)  # a memory, if there is one, is no longer what it was
    other.load_state_dict(method.state_dict())
    expected = {key: value.item() for key, value in answered(method, 5).terms.items()}
    assert {key: value.item() for key, value in answered(other, 5).terms.items()} == expected


@NAMES
def test_method_does_not_touch_the_global_generator(name):
    method = built(name)
    before = torch.get_rng_state()
    answered(method, 5)
    assert torch.equal(torch.get_rng_state(), before)


@NAMES
def test_method_documents_its_parameters(name):
    assert METHODS.get(name).__doc__


@NAMES
@pytest.mark.parametrize("changed", ["targets", "ids"])
def test_method_says_whether_it_uses_classes_and_indices(name, changed):
    """Images without labels, and batches of a plain DataLoader, are refused by what a method says of itself."""

    def terms(**change):
        method = built(name)
        networks = with_classifier(CONVOLUTIONAL) if method.reuses_classifier else CONVOLUTIONAL
        student, teacher = (outputs(shapes, 6, seed) for seed, shapes in enumerate(networks))
        given = {"targets": torch.arange(6), "ids": torch.arange(6)} | change
        context = Context(ids=given["ids"], epoch=1, step=7, seed=0)
        return method(student, teacher, targets_for(method, given["targets"]), context)

    before, after = terms(), terms(**{changed: torch.tensor([9, 7, 5, 3, 1, 0])})
    differs = any(not torch.equal(before[term], after[term]) for term in before)
    assert getattr(create(name), f"uses_{changed}") == differs


def test_wrapped_and_added_methods_use_what_their_parts_use():
    for name, params, expected in (
        ("logit_std", {"base": "dkd"}, (True, False)),
        ("logit_std", {}, (False, False)),
        ("kd", {"variant": "historic"}, (True, False)),
        ("kd,noisy_teacher", {}, (False, True)),
        ("at,crd", {}, (True, True)),
    ):
        method = create(name, **params)
        assert (method.uses_targets, method.uses_ids) == expected, name
    for name, params, expected in (
        ("logit_std", {"base": "dkd"}, True),
        ("logit_std", {"base": "dist"}, False),
        ("kd,at", {}, True),
        ("kd,rkd", {}, False),
    ):
        assert create(name, **params).per_sample == expected, name


@pytest.mark.parametrize("name", [name for name in METHODS.names() if not create(name).needs_teacher])
def test_method_that_needs_no_teacher_looks_at_none(name):
    method = built(name)
    beside = answered(method, 5)
    context = Context(ids=torch.arange(5), epoch=1, step=7, seed=0)
    alone = method(beside.student, None, torch.arange(5), context)
    assert method.needs == {"logits"}
    assert {key: term.item() for key, term in alone.items()} == {key: t.item() for key, t in beside.terms.items()}


@NAMES
def test_soft_labels_are_refused_by_methods_that_use_classes_alone(name):
    method = built(name)
    networks = with_classifier(CONVOLUTIONAL) if method.reuses_classifier else CONVOLUTIONAL
    student, teacher = (outputs(shapes, 6, seed) for seed, shapes in enumerate(networks))
    context = Context(ids=torch.arange(6), epoch=1, step=7, seed=0)
    soft = torch.eye(NUM_CLASSES)[:6]
    if method.uses_targets and method.kind == "categorical":
        with pytest.raises(UsageError, match=r"needs class numbers \(B,\) as targets, got float32 of shape \(6, 10\)"):
            method(student, teacher, soft, context)
    else:
        assert all(bool(term.isfinite()) for term in method(student, teacher, soft, context).values())


@NAMES
def test_a_missing_context_is_one_error_and_of_methods_that_use_it_alone(name):
    method = built(name)
    networks = with_classifier(CONVOLUTIONAL) if method.reuses_classifier else CONVOLUTIONAL
    student, teacher = (outputs(shapes, 6, seed) for seed, shapes in enumerate(networks))
    if method.uses_context:
        with pytest.raises(UsageError, match=r"call it with Context\(ids=…, epoch=…, step=…, seed=…\)"):
            method(student, teacher, targets_for(method, torch.arange(6)))
    else:
        assert method(student, teacher, targets_for(method, torch.arange(6)))


@NAMES
@NETWORKS
@pytest.mark.parametrize("seed", range(3))
def test_no_method_is_taken_for_one_that_sums_over_the_batch(name, networks, seed):
    networks = with_classifier(networks) if create(name).reuses_classifier else networks
    config = TrainConfig(student=ModelConfig(name="lenet"), method=MethodConfig(name=name))
    shapes = {"student": {**networks[0], "inputs": IMAGES}, "teacher": networks[1]}
    kind, made, of_maps = kind_of(create(name)), map(TASKS.create, TASKS.names()), create(name).compares_maps
    task = next(one for one in made if one.answer == kind and (one.has_maps if of_maps else one.one_row_each))
    objective = Objective(config, task, NUM_SAMPLES, NUM_CLASSES, shapes)
    student, teacher = (outputs(shapes, 2, seed + 7 * side) for side, shapes in enumerate(networks))
    targets = targets_for(objective.method, torch.tensor([1, 8]))
    if of_maps:
        student, teacher = (replace(one, logits=one.maps, maps=None) for one in (student, teacher))
        targets = targets[:, None, None].expand(2, *MAPS[2:])
    batch = Batch(inputs=torch.zeros(2, 3, 8, 8), targets=targets, ids=torch.arange(2), view=0)
    objective.check(student, teacher, batch)


@NAMES
def test_method_says_whether_parts_of_a_batch_add_up_to_its_gradient(name):
    """A batch that memory does not take is split only where a method says so of itself."""

    def gradients(sizes):
        method = built(name).double()
        networks = with_classifier(CONVOLUTIONAL) if method.reuses_classifier else CONVOLUTIONAL
        student, teacher = (wide(outputs(shapes, 6, seed)) for seed, shapes in enumerate(networks))
        start = 0
        for size in sizes:
            rows = slice(start, start + size)
            context = Context(ids=torch.arange(6)[rows], epoch=1, step=7, seed=0)
            terms = method(
                part(student, rows), part(teacher, rows), targets_for(method, torch.arange(6)[rows]), context
            )
            (sum(terms.values()) * (size / 6)).backward()
            start += size
        found = [*tensors(student), *method.parameters()]
        return [tensor.grad for tensor in found if tensor.grad is not None]

    def wide(answers):
        features = {key: leaf(value) for key, value in answers.features.items()}
        more = {"maps": leaf(answers.maps), "inputs": answers.inputs.double()}
        return Outputs(logits=leaf(answers.logits), embedding=leaf(answers.embedding), features=features, **more)

    def leaf(tensor):
        return tensor.detach().double().requires_grad_()

    def part(answers, rows):
        return answers.rows(rows)

    whole = gradients([6])
    adds_up = all(
        torch.allclose(one, other, rtol=1e-6, atol=1e-9 * float(one.abs().max()))
        for one, other in zip(whole, gradients([3, 2, 1]), strict=True)
    )
    assert create(name).per_sample == adds_up


def compares_probabilities(method, shapes):
    """Whether its terms are those of the teacher's softmax: the same when logits shift, others when they are scaled."""
    student, teacher = (outputs(side, batch=6, seed=seed) for seed, side in enumerate(shapes))
    targets, context = targets_for(method, torch.arange(6)), Context(ids=torch.arange(6), epoch=1, step=1, seed=0)

    def terms(scale=1, shift=0):
        logits = scale * teacher.logits.detach() + shift * torch.arange(6.0)[:, None]
        maps = scale * teacher.maps.detach() + shift * torch.arange(6.0)[:, None, None, None]
        return torch.stack([*method(student, replace(teacher, logits=logits, maps=maps), targets, context).values()])

    return torch.allclose(terms(), terms(shift=1), rtol=1e-4) and not torch.allclose(terms(), terms(2), rtol=1e-2)


@NAMES
def test_method_that_compares_all_logits_refuses_the_largest_only(name):
    """By name and with the remedy; what needs no logits, or whose teacher answers live, is let pass."""
    method = built(name)
    config = TrainConfig(student=ModelConfig(name="s"), method=MethodConfig(name=name), teacher_cache_topk=3)
    whole = "logits" in method.needs and "features" not in method.needs and method.needs_teacher
    if whole and not compares_probabilities(method, CONVOLUTIONAL):
        with pytest.raises(UsageError, match=rf"method '{name}' compares all logits as they are.* leave that out, or"):
            check_topk(config)
    else:
        assert method.serves_topk == whole
        check_topk(config)


@pytest.mark.parametrize(
    ("method", "params", "refused"),
    [
        ("kd", {"variant": "historic"}, "kd"),
        ("rkd,logits", {}, "logits"),
        ("kd,rkd", {}, None),
        ("logits,at", {}, None),  # its teacher answers live
    ],
)
def test_largest_logits_serve_what_all_parts_of_a_method_compare(method, params, refused):
    config = TrainConfig(
        student=ModelConfig(name="s"), method=MethodConfig(name=method, params=params), teacher_cache_topk=3
    )
    if refused is None:
        check_topk(config)
    else:
        with pytest.raises(UsageError, match=f"method '{refused}' compares all logits as they are"):
            check_topk(config)
    check_topk(TrainConfig(student=config.student, method=config.method, teacher_cache_topk=3, teacher_cache="off"))
