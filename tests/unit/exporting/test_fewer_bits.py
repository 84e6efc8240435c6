"""Files in fewer bits, held against roundings written out, and training that sees the very same roundings."""

from collections import OrderedDict
from functools import partial

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import nn
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode

from model_compression.core.errors import ModelCompressionError, UnknownNameError, UsageError
from model_compression.exporting import images_in_parts
from model_compression.exporting.fewer_bits import CALIBRATIONS, to_half, to_int8, to_int8_weights
from model_compression.exporting.runtimes import open_file
from model_compression.exporting.write import write_unverified
from model_compression.models.base import Network
from model_compression.models.quantization_aware import _QuantizationAware, rounded_input, rounded_weight


def network(middle=lambda: nn.Conv2d(16, 8, 3)):
    torch.manual_seed(0)
    layers = OrderedDict(conv=nn.Conv2d(3, 16, 3), relu=nn.ReLU(), conv2=middle(), flatten=nn.Flatten())
    return Network(layers | {"head": nn.Linear(128, 10)}).eval()


class Standardised(nn.Conv2d):
    """Computes its weights from its parameters in each call."""

    def forward(self, images):
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(images, centred / centred.std((1, 2, 3), keepdim=True), self.bias)


MIDDLES = {
    "plain": lambda: nn.Conv2d(16, 8, 3),
    "standardised": lambda: Standardised(16, 8, 3),
    "weight-normed": lambda: parametrizations.weight_norm(nn.Conv2d(16, 8, 3)),
}


PIXELS = np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)


def written(model, encode, path):
    write_unverified(model, path, (3, 8, 8), preprocessing=True)
    path.write_bytes(encode(onnx.load(path)).SerializeToString())
    return onnx.load(path), open_file(path).run(PIXELS)


def exact(model):
    with torch.no_grad():
        return model(model.preprocessing(torch.from_numpy(PIXELS))).numpy()


def four_bits(weight):
    """Steps −7…7 and the size of a step for each output channel, in float64."""
    channels = weight.detach().double().flatten(1).numpy()
    reach = np.minimum(np.abs(channels).max(axis=1), 2.5 * np.sqrt((channels**2).mean(axis=1)))
    scale = reach / 7
    return np.clip(np.round(channels / scale[:, None]), -7, 7).reshape(weight.shape), scale


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_int4_stores_what_training_sees_two_to_a_byte_and_the_outer_layers_as_int8(calibration, tmp_path):
    model = network()
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = 5.0  # clipped
    graph, _ = written(model, lambda one: to_int8(one, PIXELS, calibration, weight_bits=4), tmp_path / "a.onnx")
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    stored, steps = tensors["network.conv2.weight_quantized_int4"], four_bits(model.conv2.weight)
    assert (stored.data_type, len(stored.raw_data)) == (onnx.TensorProto.INT4, model.conv2.weight.numel() // 2)
    assert np.array_equal(numpy_helper.to_array(stored).astype(np.float64), steps[0])
    scale = numpy_helper.to_array(tensors["network.conv2.weight_scale"])
    np.testing.assert_allclose(scale, steps[1], rtol=1e-6)
    seen = rounded_weight(model.conv2.weight, 4).detach().numpy()
    np.testing.assert_allclose(seen, steps[0] * steps[1][:, None, None, None], atol=1e-6)
    for outer in ("conv", "head"):
        assert np.abs(numpy_helper.to_array(tensors[f"network.{outer}.weight_quantized"])).max() == 64


class AnyOrder(nn.Module):
    """Layers that compute in another order than they are registered in: one not at all, one twice, one in tokens."""

    def __init__(self):
        super().__init__()
        self.twice, self.last, self.unused = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(16, 10), nn.Linear(3, 3)
        self.first, self.tokens = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 16)

    def forward(self, images):
        maps = self.twice(self.twice(self.first(images).relu()).relu())
        return self.last(self.tokens(maps.flatten(2).transpose(1, 2)).relu().mean(dim=1))


def test_four_bits_are_those_of_the_same_layers_in_file_and_training_whatever_the_order(tmp_path):
    torch.manual_seed(0)
    model = Network(OrderedDict(net=AnyOrder())).eval()
    graph, answers = written(model, lambda one: to_int8(one, PIXELS, "minmax", 4), tmp_path / "a.onnx")
    stored = [tensor for tensor in graph.graph.initializer if tensor.data_type == onnx.TensorProto.INT4]
    steps = [four_bits(layer.weight)[0] for layer in (model.net.twice, model.net.tokens)]
    assert np.array_equal(numpy_helper.to_array(stored[0]).astype(np.float64), steps[0])
    assert np.array_equal(numpy_helper.to_array(stored[1]).astype(np.float64), steps[1].T)
    assert len(stored) == 2
    aware = _QuantizationAware(model, 4).train()
    aware.get_submodule("network").net.twice.eval()
    images = aware.preprocessing(torch.from_numpy(PIXELS))
    aware(images)
    bits = {"net.twice": 4, "net.tokens": 4, "net.first": 8, "net.last": 8, "net.unused": 8}
    assert aware._bits == bits
    assert [module.training for module in (model.net.twice, model.net.last)] == [False, True]
    with torch.no_grad():
        assert np.abs(aware.eval()(images).numpy() - answers).max() < 0.02 * np.ptp(answers)


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 8, 3)

    def forward(self, maps):
        return self.last(self.second(self.first(maps).relu()).relu())


@pytest.mark.parametrize("middle", [*MIDDLES.values(), Twice], ids=[*MIDDLES, "twice"])
def test_every_layer_learns_through_its_roundings_and_keeps_its_weights(middle):
    model = network(middle)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    aware, seen = _QuantizationAware(model).train(), []

    class Watched(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is F.conv2d:
                seen.append(args[1].detach())
            return func(*args, **(kwargs or {}))

    with Watched():
        aware(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert len(seen) == 2 + 2 * (middle is Twice)
    for weight in seen:
        torch.testing.assert_close(weight, rounded_weight(weight))
        assert len(weight[0].unique()) <= min(129, weight[0].numel())
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert all(bool(weight.grad.any()) for weight in model.parameters())


def test_clipping_to_four_bits_costs_a_normal_law_less_than_its_largest_weight():
    weight = torch.randn(16, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = weight.abs().amax(dim=1, keepdim=True) / 7
    unclipped = ((weight / scale).round() * scale - weight).square().mean()
    assert float((rounded_weight(weight, 4) - weight).square().mean()) < 0.7 * float(unclipped)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_int8_answers_nearly_alike_with_the_weights_that_training_sees(calibration, tmp_path, capfd):
    model = network()
    graph, answers = written(model, lambda one: to_int8(one, PIXELS, calibration), tmp_path / "a.onnx")
    expected = exact(model)
    assert 0 < np.abs(answers - expected).max() < 0.05 * np.ptp(expected)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            continue
        steps, scale = values[f"network.{name}_quantized"], values[f"network.{name}_scale"]
        assert (steps.dtype, np.abs(steps).max(), len(scale)) == (np.int8, 64, len(weight))
        shape = (-1, *[1] * (weight.ndim - 1))
        np.testing.assert_allclose(steps * scale.reshape(shape), rounded_weight(weight).detach().numpy(), atol=1e-6)
    assert capfd.readouterr().out == ""


class Clipped(nn.Module):
    def __init__(self, low, high):
        super().__init__()
        self.conv, self.low, self.high = nn.Conv2d(16, 8, 3), low, high
        nn.init.normal_(self.conv.weight, std=3)  # far beyond the limits

    def forward(self, maps):
        return self.conv(maps).clamp(self.low, self.high)


@pytest.mark.parametrize(("low", "high", "kept"), [(0.0, 6.0, 0), (-1.0, 1.0, 0), (0.0, None, 0), (0.5, 6.0, 1)])
def test_what_is_clipped_is_rounded_within_the_limits(low, high, kept, tmp_path):
    """As of ReLU6: steps of all that a convolution answers would be several times as coarse."""
    model = network(lambda: Clipped(low, high))
    graph, answers = written(model, lambda one: to_int8(one, PIXELS, "minmax"), tmp_path / "a.onnx")
    assert sum(node.op_type in ("Clip", "Relu") for node in graph.graph.node) == kept
    expected = exact(model)
    assert 0 < np.abs(answers - expected).max() < 0.05 * np.ptp(expected)


def ranges(graph):
    """Low and high of the quantised activations, in order: of every layer's input, and of the answers."""
    values = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in graph.graph.initializer}
    nodes = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    # A tensor that is reshaped is quantised twice, with the same step.
    steps = {node.input[1]: (values[node.input[1]], values[node.input[2]]) for node in nodes}.values()
    return torch.tensor(np.array([[-zero * scale, (255 - zero) * scale] for scale, zero in steps])).float()


def test_weights_that_a_network_computes_are_stored_as_small_as_others(tmp_path):
    encodes = (partial(to_int8, images=PIXELS, calibration="minmax"), to_int8_weights, to_half)
    sizes = {}
    for name, middle in MIDDLES.items():
        path = tmp_path / f"{name}.onnx"
        write_unverified(network(middle), path, (3, 8, 8), preprocessing=True)
        expected, found = exact(network(middle)), []
        for encode in encodes:
            (tmp_path / "a.onnx").write_bytes(encode(onnx.load(path)).SerializeToString())
            answers = open_file(tmp_path / "a.onnx").run(PIXELS)
            assert np.abs(answers - expected).max() < 0.05 * np.ptp(expected)
            found.append((tmp_path / "a.onnx").stat().st_size)
        sizes[name] = found
    assert sizes["standardised"] == pytest.approx(sizes["plain"], rel=0.03)
    assert sizes["weight-normed"] == pytest.approx(sizes["plain"], rel=0.03)


def test_a_file_whose_weights_stay_wide_is_refused(tmp_path):
    torch.manual_seed(0)
    layers = OrderedDict(conv=nn.Conv2d(3, 16, 3), up=nn.ConvTranspose2d(16, 16, 3), pool=nn.AdaptiveAvgPool2d(1))
    model = Network(layers | {"flatten": nn.Flatten(), "head": nn.Linear(16, 10)}).eval()
    path, size = tmp_path / "a.onnx", 4 * 16 * 16 * 9
    with pytest.raises(ModelCompressionError, match=rf"{size:,} of {size:,} bytes .* \(16, 16, 3, 3\): .*try int8-wei"):
        written(model, lambda one: to_int8(one, PIXELS, "minmax"), path)
    path.write_bytes(to_int8_weights(onnx.load(path)).SerializeToString())
    assert np.abs(open_file(path).run(PIXELS) - exact(model)).max() < 0.05 * np.ptp(exact(model))


@pytest.mark.parametrize(("middle", "bits"), [*((middle, 8) for middle in MIDDLES), ("plain", 4), ("standardised", 4)])
def test_file_is_what_the_network_that_is_trained_for_it_answers(tmp_path, middle, bits):
    model = network(MIDDLES[middle])
    graph, answers = written(model, lambda one: to_int8(one, PIXELS, "minmax", bits), tmp_path / "a.onnx")
    aware = _QuantizationAware(model, bits)
    images = aware.preprocessing(torch.from_numpy(PIXELS))
    aware.train()(images)  # sees the ranges, of inputs that are rounded: the file's are of inputs that are not
    *inputs, output = ranges(graph)
    np.testing.assert_allclose(aware.ranges, torch.stack(inputs), rtol=0.01, atol=0.02)
    aware.ranges.copy_(torch.stack(inputs))
    with torch.no_grad():
        simulated = rounded_input(aware.eval()(images), output).numpy()  # the file rounds its answers too
    step = float(output[1] - output[0]) / 255
    assert np.abs(simulated - answers).max() < 1.01 * step
    assert (np.abs(simulated - answers) < 0.01 * step).mean() > 0.9


def test_half_and_int8_weights_are_those_roundings(tmp_path):
    half, by_channel = network(), network()
    with torch.no_grad():
        for weight in half.parameters():
            if weight.numel() >= 1024:
                weight.copy_(weight.half().float())
        for weight in by_channel.parameters():
            if weight.numel() >= 1024:
                scale = weight.abs().flatten(1).amax(dim=1).view(-1, *[1] * (weight.ndim - 1)) / 127
                weight.copy_((weight / scale).round() * scale)
    plain = tmp_path / "plain.onnx"
    write_unverified(network(), plain, (3, 8, 8), preprocessing=True)
    for encode, model, share in ((to_half, half, 0.75), (to_int8_weights, by_channel, 0.65)):
        _, answers = written(network(), encode, tmp_path / "a.onnx")
        np.testing.assert_allclose(answers, exact(model), rtol=1e-4, atol=1e-5)
        assert (tmp_path / "a.onnx").stat().st_size < share * plain.stat().st_size


def test_rounded_inputs_are_255_steps_within_the_limits():
    values, limits = torch.linspace(-3, 5, 4000, dtype=torch.float64).requires_grad_(), torch.tensor([-1.0, 2.0])
    rounded = rounded_input(values, limits.double())
    scale, zero = 3 / 255, 85
    expected = (np.clip(np.round(values.detach().numpy() / scale) + zero, 0, 255) - zero) * scale
    np.testing.assert_allclose(rounded.detach().numpy(), expected, atol=1e-9)
    rounded.sum().backward()
    inside = (values.detach() >= -1) & (values.detach() <= 2)
    assert torch.equal(values.grad, inside.double())
    assert rounded_input(values, torch.zeros(2)) is values


def test_averaged_copies_keep_ranges_of_their_own():
    import copy

    aware = _QuantizationAware(network())
    other = copy.deepcopy(aware)
    aware.train()(torch.randn(4, 3, 8, 8))
    assert bool((aware.ranges != 0).any())
    assert not bool((other.ranges != 0).any())
    assert aware.deployed().state_dict().keys() == network().state_dict().keys()


def test_what_cannot_be_quantised_is_said(tmp_path):
    plain = tmp_path / "plain.onnx"
    write_unverified(network(), plain, (3, 8, 8), preprocessing=True)
    with pytest.raises(UnknownNameError, match="unknown calibration 'minmx'; did you mean 'minmax'"):
        to_int8(onnx.load(plain), PIXELS, "minmx")
    two = Network(OrderedDict(conv=nn.Conv2d(3, 16, 3), flatten=nn.Flatten(), head=nn.Linear(576, 10)))
    write_unverified(two, plain, (3, 8, 8), preprocessing=True)
    with pytest.raises(UsageError, match="has no layer between its first and its last"):
        to_int8(onnx.load(plain), PIXELS, "minmax", 4)
    pool = Network(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))
    write_unverified(pool, plain, (3, 8, 8), preprocessing=True)
    with pytest.raises(UsageError, match="has no convolution and no inner product"):
        to_int8(onnx.load(plain), PIXELS, "minmax")


@pytest.mark.parametrize("bits", [8, 4])
def test_channel_of_zeros_stays_so(bits):
    """Pretrained networks have some, as EfficientNet-Lite0: their weights have no largest one to round by."""
    weight = torch.tensor([[0.0, 0.0], [0.5, -1.0]])
    rounded = rounded_weight(weight, bits)
    torch.testing.assert_close(rounded[0], torch.zeros(2))
    assert (rounded[1] - weight[1]).abs().max() <= 1 / {8: 64, 4: 7}[bits]


def test_ranges_are_seen_in_parts_whose_activations_fit_in_memory(tmp_path, monkeypatch):
    """Of every part, within the limit; the ranges of a minimum and maximum are those of all images at once."""
    write_unverified(network(), tmp_path / "a.onnx", (3, 8, 8), preprocessing=True)
    model, pixels = onnx.load(tmp_path / "a.onnx"), np.concatenate([PIXELS[::-1], 255 - PIXELS])
    whole = {name: to_int8(onnx.load(tmp_path / "a.onnx"), pixels, name) for name in CALIBRATIONS}
    layers = 4 * (16 * 6 * 6 * 2 + 8 * 4 * 4 * 2)  # bytes of both convolutions, ReLU and what is flattened, of an image
    held = images_in_parts._activation_bytes(model, (3, 8, 8))
    assert layers <= held < layers + 4 * (3 * 8 * 8 * 4)  # and of what is done to pixels before
    monkeypatch.setattr(images_in_parts, "_MOST_HELD", 70 * held)
    reader, sizes = images_in_parts.ImagesInParts(model, pixels), []
    for part in range(len(reader)):
        reader.set_range(part, part + 1)
        sizes.append(sum(len(batch["images"]) for batch in iter(reader.get_next, None)))
    assert sizes == [64, 64]
    for name, expected in whole.items():
        found = to_int8(onnx.load(tmp_path / "a.onnx"), pixels, name)
        scales, others = (
            {one.name: numpy_helper.to_array(one) for one in graph.graph.initializer if one.name.endswith("_scale")}
            for graph in (found, expected)
        )
        assert scales.keys() == others.keys()
        assert sum(scale.ndim == 0 for scale in scales.values()) >= 4  # those of activations
        for key, scale in scales.items():
            assert scale == pytest.approx(others[key], rel=0 if name == "minmax" else 0.1), (name, key)
