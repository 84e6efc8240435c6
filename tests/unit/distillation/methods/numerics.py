"""What the tests of methods compare with: maps, layers written out in NumPy, gradients by central differences."""

import numpy as np
import torch

from model_compression.core.outputs import Outputs

SHAPES = [(1, 2), (1, 10), (3, 7), (64, 10), (5, 100)]


def random_logits(shape):
    """Logits of student and teacher (B, K) and targets (B,), as float64 arrays."""
    rng = np.random.default_rng(sum(shape))
    student, teacher = rng.normal(size=(2, *shape)) * 4
    return student, teacher, rng.integers(0, shape[1], shape[0])


def maps(shape, seed, scale=1.0):
    """Random values, float64."""
    return np.random.default_rng(seed).normal(size=shape) * scale


def slope(function, values, step=1e-6):
    """Gradient of function(values), a number or an array of them, by central differences: (*answer, *values) long."""
    found = []
    for place in np.ndindex(values.shape):
        nudge = np.zeros_like(values)
        nudge[place] = step
        found.append((function(values + nudge) - function(values - nudge)) / (2 * step))
    return np.stack(found, axis=-1).reshape(*np.shape(found[0]), *values.shape)


def pooled(values, size):
    """Average pooling of (B, C, H, W) to any size: window i covers floor(i H / h) to ceil((i + 1) H / h)."""
    height, width = values.shape[2:]
    found = np.zeros((*values.shape[:2], *size))
    for row, column in np.ndindex(*size):
        rows = slice(row * height // size[0], -(-(row + 1) * height // size[0]))
        columns = slice(column * width // size[1], -(-(column + 1) * width // size[1]))
        found[:, :, row, column] = values[:, :, rows, columns].mean(axis=(2, 3))
    return found


def convolved(values, layer):
    """A convolution of stride 1 that keeps the size, kernel place by kernel place."""
    weight = layer.weight.detach().numpy()
    reach = weight.shape[2] // 2
    padded = np.pad(values, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    height, width = values.shape[2:]
    found = np.zeros((len(values), len(weight), height, width))
    for row, column in np.ndindex(weight.shape[2:]):
        window = padded[:, :, row : row + height, column : column + width]
        found += np.einsum("oc,bchw->bohw", weight[:, :, row, column], window)
    return found if layer.bias is None else found + layer.bias.detach().numpy()[:, None, None]


def normalised(values, layer):
    """BatchNorm in training, by its definition."""
    mean = values.mean(axis=(0, 2, 3), keepdims=True)
    variance = ((values - mean) ** 2).mean(axis=(0, 2, 3), keepdims=True)
    weight, bias = (part.detach().numpy()[:, None, None] for part in (layer.weight, layer.bias))
    return (values - mean) / np.sqrt(variance + layer.eps) * weight + bias


def answers(maps, dtype=torch.float64):
    """Outputs with these maps (B, C, H, W) as features, and the tensors, which want gradients."""
    tensors = [torch.tensor(values, dtype=dtype, requires_grad=True) for values in maps]
    features = {f"layer{number}": tensor for number, tensor in enumerate(tensors)}
    return Outputs(logits=torch.zeros(len(maps[0]), 2), features=features), tensors


def ready(method, student, teacher, **of_teacher):
    """The method in float64, set up for lists of maps; its random initialisation is always the same.

    ``of_teacher`` are shapes that the teacher has besides.
    """
    shapes = {
        side: {"logits": (1, 2), "features": {f"layer{i}": (1, *x.shape[1:]) for i, x in enumerate(of_side)}}
        for side, of_side in (("student", student), ("teacher", teacher))
    }
    shapes["teacher"] |= of_teacher
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method.setup(shapes, 50, 2)
    return method.double()


def evaluate(method, student, teacher, dtype=torch.float64, context=None):
    """The one term's value and its gradients for the student's maps, of lists of maps; the teacher gets none."""
    (s, inputs), (t, answered) = answers(student, dtype), answers(teacher, dtype)
    terms = method.to(dtype)(s, t, torch.zeros(len(student[0]), dtype=torch.int64), context)
    assert list(terms) == list(method.default_weights)
    (term,) = terms.values()
    assert term.shape == ()
    found = torch.autograd.grad(term, inputs + answered, retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in found[len(inputs) :])
    unused = [np.zeros(values.shape) for values in student]
    gradients = [zero if g is None else g.double().numpy() for zero, g in zip(unused, found, strict=False)]
    return term.item(), gradients


def softmax(logits, temperature=1.0):
    """Over the last axis."""
    exponentials = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def random_pair(batch, student_width, teacher_width, scale=1.0):
    """Embeddings (B, D) of student and teacher."""
    rng = np.random.default_rng(batch)
    return rng.normal(size=(batch, student_width)) * scale, rng.normal(size=(batch, teacher_width)) * scale


def evaluate_embeddings(method, student, teacher, dtype=torch.float64):
    """({term: value}, {term: gradient for the student's embedding}); the teacher gets none."""
    s = torch.tensor(student, dtype=dtype, requires_grad=True)
    t = torch.tensor(teacher, dtype=dtype, requires_grad=True)
    logits, targets = torch.zeros(len(s), 2), torch.zeros(len(s), dtype=torch.int64)
    terms = method(Outputs(logits=logits, embedding=s), Outputs(logits=logits, embedding=t), targets)
    assert list(terms) == list(method.default_weights)
    gradients = {}
    for name, term in terms.items():
        assert term.shape == ()
        gradients[name], of_teacher = torch.autograd.grad(term, (s, t), retain_graph=True, allow_unused=True)
        assert of_teacher is None
    return {name: term.item() for name, term in terms.items()}, {k: g.numpy() for k, g in gradients.items()}
