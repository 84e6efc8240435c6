"""What the tests of the network families share: sizes counted from a list of convolutions, and layers as formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode


class Formulas:
    """Layers in eval mode as functions of maps and of the weights that a network has under their names."""

    def __init__(self, model):
        self.state = model.state_dict()

    def conv(self, name, maps, stride=1, groups=1):
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        return F.conv2d(maps, weight, bias, stride, weight.shape[-1] // 2, groups=groups)

    def norm(self, name, maps):
        scale, shift, mean, var = (
            self.state[f"{name}.{part}"].view(-1, 1, 1) for part in ("weight", "bias", "running_mean", "running_var")
        )
        return scale * (maps - mean) / (var + 1e-5).sqrt() + shift

    def head(self, maps):
        return maps.mean(dim=(2, 3)) @ self.state["head.weight"].T + self.state["head.bias"]


@pytest.fixture
def formulas_of():
    """Sets a network to float64 and eval, draws its weights anew, and names its formulas.

    The weights keep the images' differences through all layers, and every bias and normalisation has its own figures.
    """

    def prepare(model):
        generator = torch.Generator().manual_seed(0)
        for name, tensor in model.double().eval().state_dict().items():
            if tensor.ndim > 1:
                tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5, generator=generator)
                tensor -= 1.0 if name.endswith(("bias", "running_mean")) else 0.0
        return Formulas(model)

    return prepare


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def size_of():
    """(parameters, multiply-accumulates for one image) as PyTorch counts them."""

    def count(model):
        with FlopCounterMode(display=False) as counter:
            model.eval()(torch.zeros(1, 3, 32, 32))
        return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() // 2

    return count


@pytest.fixture
def counted():
    """The same from [(channels, width, kernel, groups, side of the answer)] of all convolutions, and the head's sizes.

    Each convolution has a normalisation of its width; ``more`` are parameters that are in none of the two.
    """

    def count(convolutions, embedding, num_classes, more=0):
        weights = [c * w * k * k // g for c, w, k, g, _ in convolutions]
        head = embedding * num_classes
        parameters = sum(weights) + 2 * sum(width for _, width, *_ in convolutions) + head + num_classes + more
        macs = sum(weight * side**2 for weight, (*_, side) in zip(weights, convolutions, strict=True)) + head
        return parameters, macs

    return count


@pytest.fixture
def shapes_of():
    """{layer of the chain: the shape of its answer}, for two images."""

    def run(model):
        maps, shapes = torch.zeros(2, 3, 32, 32), {}
        for name, layer in model.eval().named_children():
            maps = layer(maps)
            shapes[name] = tuple(maps.shape)
        return shapes

    return run
