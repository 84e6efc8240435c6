"""simkd against its projector written out, and what it says that ships."""

import copy

import numpy as np
import pytest
import torch

import model_compression.methods.feature.simkd  # noqa: F401  registers it
from model_compression.methods import create
from model_compression.outputs import Outputs


def answers(maps, dtype=torch.float64):
    """Outputs with these maps (B, C, H, W) as features, and the tensors, which want gradients."""
    tensors = [torch.tensor(values, dtype=dtype, requires_grad=True) for values in maps]
    features = {f"layer{number}": tensor for number, tensor in enumerate(tensors)}
    return Outputs(logits=torch.zeros(len(maps[0]), 2), features=features), tensors


def built(student, teacher):
    """The method for maps of these shapes, in float64, its initialisation always the same."""
    method = create("simkd")
    shapes = {
        side: {"logits": (1, 2), "features": {f"layer{i}": (1, *m.shape[1:]) for i, m in enumerate(maps)}}
        for side, maps in (("student", student), ("teacher", teacher))
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method.setup(shapes, 50, 2)
    return method.double()


def slope(function, values, step=1e-5):
    """Gradient of a function of one array by central differences."""
    found = np.zeros_like(values)
    for place in np.ndindex(values.shape):
        moved = [values.copy(), values.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        found[place] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found


def pooled(values, size):
    """Average pooling of (B, C, H, W) to a size that divides."""
    batch, channels, height, width = values.shape
    blocks = values.reshape(batch, channels, size[0], height // size[0], size[1], width // size[1])
    return blocks.mean(axis=(3, 5))


def convolved(values, layer):
    """A convolution that keeps the size, kernel place by kernel place."""
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


def expected(method, s, t):
    size = tuple(np.minimum(s.shape[2:], t.shape[2:]))
    s, t = pooled(s, size), pooled(t, size)
    layers = [layer for layer in method.projector if list(layer.parameters())]
    for convolution, norm in zip(layers[::2], layers[1::2], strict=True):
        s = np.maximum(normalised(convolved(s, convolution), norm), 0)
    return ((s - t) ** 2).mean()


SHAPES = [
    ([(3, 4, 4, 4)], [(3, 4, 4, 4)]),
    ([(2, 3, 4, 4)], [(2, 5, 2, 2)]),
    ([(2, 3, 2, 2)], [(2, 1, 4, 4)]),
    ([(2, 2, 4, 4), (2, 3, 4, 2)], [(2, 5, 4, 4), (2, 6, 2, 4)]),
]


@pytest.mark.parametrize(("student_shapes", "teacher_shapes"), SHAPES)
def test_simkd_is_the_squared_error_of_the_projected_last_map_and_its_gradient(student_shapes, teacher_shapes):
    rng = np.random.default_rng(0)
    student, teacher = ([rng.normal(size=shape) * 2 for shape in shapes] for shapes in (student_shapes, teacher_shapes))
    method = built(student, teacher)
    (s, inputs), (t, answered) = answers(student), answers(teacher)
    terms = method(s, t, torch.zeros(1))
    assert list(terms) == ["simkd"]
    assert terms["simkd"].item() == pytest.approx(expected(method, student[-1], teacher[-1]), rel=1e-9)
    terms["simkd"].backward()
    last = slope(lambda values: expected(method, values, teacher[-1]), student[-1])
    np.testing.assert_allclose(inputs[-1].grad.numpy(), last, rtol=1e-4, atol=1e-8)
    assert all(tensor.grad is None for tensor in (*inputs[:-1], *answered))  # the last pair alone


def test_simkd_projector_is_a_bottleneck_of_three_convolutions():
    projector = built([np.zeros((2, 6, 4, 4))], [np.zeros((2, 10, 4, 4))]).projector
    convolutions = [layer for layer in projector if isinstance(layer, torch.nn.Conv2d)]
    shapes = [tuple(convolution.weight.shape) for convolution in convolutions]
    assert shapes == [(5, 6, 1, 1), (5, 5, 3, 3), (10, 5, 1, 1)]


def test_simkd_projector_alone_turns_the_students_map_into_what_the_teachers_classifier_takes():
    """What ships is the student's body, the projector and the teacher's classifier: nothing else of the method."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = np.zeros((2, 3, 8, 8)), np.zeros((2, 6, 4, 4))
    method = built([student], [teacher]).eval()
    maps = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    shipped = copy.deepcopy(method.projector)
    target = shipped(maps).detach()
    assert target.shape == (2, 6, 4, 4)
    s = Outputs(logits=torch.zeros(2, 2), features={"layer0": maps})
    t = Outputs(logits=torch.zeros(2, 2), features={"layer0": target})
    assert method(s, t, torch.zeros(2))["simkd"].item() == 0
    assert torch.nn.Linear(6, 10).double()(target.mean(dim=(2, 3))).shape == (2, 10)


def test_simkd_says_what_ships_and_leaves_the_labels_alone():
    method = create("simkd")
    assert type(method).deploys_projector is True
    assert "What ships" in type(method).__doc__
    assert (dict(method.default_weights), method.default_label_weight) == ({"simkd": 1.0}, 0.0)
    assert method.needs == {"features", "logits"}


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 2, 2), (4, 3, 1, 1)])
def test_simkd_takes_extremes_and_a_single_value_per_channel(value, shape):
    maps = [np.full(shape, value)]
    method = built(maps, maps).float()
    (s, inputs), (t, _) = answers(maps, torch.float32), answers(maps, torch.float32)
    term = method(s, t, torch.zeros(len(maps[0])))["simkd"]
    term.backward()
    assert term.isfinite()
    assert all(tensor.grad.isfinite().all() for tensor in (*inputs, *method.parameters()))
