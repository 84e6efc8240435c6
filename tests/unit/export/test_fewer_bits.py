"""Files in fewer bits, held against roundings written out, and training that sees the very same roundings."""

from collections import OrderedDict

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from model_compression.errors import UnknownNameError, UsageError
from model_compression.export.fewer_bits import CALIBRATIONS, to_half, to_int8, to_int8_weights
from model_compression.export.runtimes import open_file
from model_compression.export.write import write_unverified
from model_compression.models.base import Network
from model_compression.models.quantization_aware import _QuantizationAware, rounded_input, rounded_weight


def network():
    torch.manual_seed(0)
    layers = OrderedDict(conv=nn.Conv2d(3, 16, 3), relu=nn.ReLU(), conv2=nn.Conv2d(16, 8, 3), flatten=nn.Flatten())
    return Network(layers | {"head": nn.Linear(128, 10)}).eval()


PIXELS = np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)


def written(model, encode, path):
    write_unverified(model, path, (3, 8, 8), preprocessing=True)
    path.write_bytes(encode(onnx.load(path)).SerializeToString())
    return onnx.load(path), open_file(path).run(PIXELS)


def exact(model):
    with torch.no_grad():
        return model(model.preprocessing(torch.from_numpy(PIXELS))).numpy()


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


def test_int8_is_what_the_network_that_is_trained_for_it_answers(tmp_path):
    model = network()
    _, answers = written(model, lambda one: to_int8(one, PIXELS, "minmax"), tmp_path / "a.onnx")
    aware = _QuantizationAware(network())
    images = aware.preprocessing(torch.from_numpy(PIXELS))
    aware.train()(images)  # sees the ranges
    with torch.no_grad():
        logits = aware.eval()(images)
    limits = torch.from_numpy(np.array([exact(model).min(), exact(model).max()]))
    simulated = rounded_input(logits, limits).numpy()  # the file rounds its answers too
    step = float(limits[1] - limits[0]) / 255
    assert np.abs(simulated - answers).max() < 1.01 * step
    assert (np.abs(simulated - answers) < 0.01 * step).mean() > 0.5


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
    values, limits = torch.linspace(-3, 5, 4001, dtype=torch.float64).requires_grad_(), torch.tensor([-1.0, 2.0])
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
    pool = Network(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))
    write_unverified(pool, plain, (3, 8, 8), preprocessing=True)
    with pytest.raises(UsageError, match="has no convolution and no inner product"):
        to_int8(onnx.load(plain), PIXELS, "minmax")
