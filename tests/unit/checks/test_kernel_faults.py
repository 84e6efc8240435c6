"""Where torch's bfloat16 kernel is wrong, a run computes in float32; where it is right, it does not."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import model_compression as mc
from model_compression.checks.kernel_faults import faulty_convolution, kernel_fault
from model_compression.core.errors import UsageError
from model_compression.models.external import External
from model_compression.models.preprocessing import Preprocessing

CPU = torch.device("cpu")
SIZES = [*itertools.product((3, 5), (1, 2, 3), (1, 2, 3, 4), (1, 4))]


def network(kernel, stride, padding):
    conv = nn.Conv2d(3, 16, kernel, stride=stride, padding=padding, bias=False)
    return External(nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()), Preprocessing())


def gradient(conv, maps, precision):
    """Of the weights, in memory that holds NaN before."""
    conv.zero_grad()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        answer = conv(maps)
    spoilt = [torch.full((size,), float("nan")) for size in (256, 1024, 4096, 16384) for _ in range(20)]
    del spoilt
    answer.float().square().sum().backward()
    return conv.weight.grad.clone()


@pytest.mark.parametrize(("kernel", "stride", "height", "width"), SIZES)
def test_gradient_in_bfloat16_is_right_wherever_it_is_not_said_to_be_wrong(kernel, stride, height, width):
    torch.manual_seed(0)
    model, images = (
        network(kernel, stride, kernel // 2),
        torch.randint(0, 256, (4, 3, height, width), dtype=torch.uint8),
    )
    if faulty_convolution(model, images) is not None:
        assert stride > min(height, width)
        return
    conv, maps = model.body[0].to(memory_format=torch.channels_last), model.preprocessing(images)
    expected = gradient(conv, maps, torch.float32)
    torch.testing.assert_close(gradient(conv, maps, torch.bfloat16), expected, rtol=0, atol=0.05 * expected.abs().max())


def test_layer_is_named_on_a_processor_alone():
    images = torch.zeros(2, 3, 1, 1, dtype=torch.uint8)
    assert "module.0, a convolution with stride 2 on maps of 1 × 1" in kernel_fault(CPU, network(3, 2, 1), images)
    assert kernel_fault(torch.device("cuda"), network(3, 2, 1), images) is None
    assert kernel_fault(CPU, network(3, 1, 1), images) is kernel_fault(CPU, network(1, 2, 0), images) is None


def test_run_with_such_a_layer_computes_in_float32_and_is_refused_in_bfloat16(tmp_path, monkeypatch, watcher):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 3, 1, 1), dtype=np.uint8), np.arange(40) % 2
    data, watch = (images, labels, images[:10], labels[:10]), watcher()
    options = {"method": "tf_kd", "epochs": 2, "batch_size": 20, "device": "cpu"}
    runs = [mc.distill(None, "resnet8", data, run_dir=tmp_path / n, observer=watch, **options) for n in "ab"]
    assert runs[0].metrics["precision"] == "float32"
    assert runs[0].metrics["test_nll"] == runs[1].metrics["test_nll"]
    assert any("this run computes in float32" in line for line in watch.messages)
    with pytest.raises(UsageError, match=r"on maps of 1 × 1: give precision='fp32'"):
        mc.distill(None, "resnet8", data, run_dir=tmp_path / "c", precision="bf16", **options)
