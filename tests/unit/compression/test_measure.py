"""Sizes by hand, and timings that are those of the calls."""

import time

import pytest
import torch
from torch import nn

from model_compression.compression import measure
from model_compression.compression.measure import in_onnx_runtime, latency, peak_activation_bytes, size_of
from model_compression.core.processor_usage import Usage
from model_compression.models import create_model
from model_compression.models.loading import load_model


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images):
        return images + self.conv(images).relu()


def test_size_of_lenet_caffe_is_that_computed_by_hand():
    size = size_of(create_model("lenet-caffe", seed=0), (3, 32, 32))
    parameters = 20 * (3 * 25 + 1) + 50 * (20 * 25 + 1) + 500 * (50 * 25 + 1) + 10 * 501
    assert size.parameters == parameters
    assert (size.float32_bytes, size.float16_bytes, size.int8_bytes) == (4 * parameters, 2 * parameters, parameters)
    assert size.macs == 20 * 75 * 28**2 + 50 * 500 * 10**2 + 500 * 1250 + 5000


def test_activations_of_a_chain_are_the_largest_neighbours_and_the_image():
    chain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Flatten(), nn.Linear(512, 5))
    image, before, after = 3 * 64, 4 * 64, 8 * 64  # the image is held by the caller
    assert peak_activation_bytes(chain, torch.zeros(1, 3, 8, 8)) == 4 * (image + before + after)
    assert peak_activation_bytes(chain, torch.zeros(2, 3, 8, 8)) == 2 * 4 * (image + before + after)


def test_activations_of_a_residual_hold_what_is_added_later():
    assert peak_activation_bytes(Residual(), torch.zeros(1, 4, 8, 8)) == 4 * 3 * 4 * 64  # image, convolved, rectified


def test_activations_leave_the_network_as_it_was():
    network = nn.Sequential(nn.Dropout(), nn.ReLU(inplace=True)).train()
    assert peak_activation_bytes(network, torch.zeros(1, 10)) == 4 * 10
    assert network.training


def test_latency_is_that_of_the_calls():
    calls = []

    def answer():
        calls.append(1)
        time.sleep(0.02 if len(calls) % 10 == 0 else 0.002)

    found = latency(answer, runtime="PyTorch", batch=4, threads=1, seconds=0.01)
    assert found.calls == 20
    assert len(calls) >= 23
    assert found.median_ms >= 2  # sleep never ends early
    assert found.p95_ms >= 20
    assert found.samples_per_second == pytest.approx(4000 / found.median_ms)


@pytest.mark.parametrize(
    ("taken", "median", "disturbed"),
    [
        ([[1.0] * 20], 1, False),
        ([[*[1.0] * 18, 9.0, 9.0]], 1, False),  # rare pauses are the 95th percentile's
        ([[*[1.0] * 5, *[400.0] * 15], [1.0] * 20], 1, False),  # fast at first: other work came
        ([[*[1.0] * 10, *[3.0] * 10], [*[3.0] * 6, *[1.0] * 14]] * 2, 1, True),  # it changes each time
        ([[7.0, 70.0, 400.0, 452.0] * 5, [5.0, 70.0, 300.0, 352.0] * 5, [9.0, 99.0, 999.0, 999.0] * 5], 185, True),
    ],
)
def test_measurement_that_is_disturbed_is_taken_again_and_else_marked(monkeypatch, taken, median, disturbed):
    answers = iter([[0.0], *taken])
    monkeypatch.setattr(measure, "_timed", lambda *_: [ms / 1000 for ms in next(answers)])
    monkeypatch.setattr(measure.Usage, "is_crowded", lambda *_: False)
    found = latency(lambda: None, runtime="PyTorch", batch=1, threads=1, seconds=1.0)
    assert (found.median_ms, found.disturbed) == (pytest.approx(median), disturbed)


def test_work_of_others_throughout_a_measurement_is_marked(monkeypatch):
    """Equal times show nothing: the processor's own counters do."""
    usage = iter([Usage(wall_s=0, own_s=0, all_s=0), Usage(wall_s=2, own_s=1, all_s=4)] * 3)
    monkeypatch.setattr(measure.Usage, "now", classmethod(lambda cls: next(usage)))
    monkeypatch.setattr(measure, "_timed", lambda *_: [0.001] * 20)
    assert measure.latency(lambda: None, runtime="PyTorch", batch=1, threads=1).disturbed
    usage = iter([Usage(wall_s=0, own_s=0, all_s=0), Usage(wall_s=2, own_s=2, all_s=2.1)])
    assert not measure.latency(lambda: None, runtime="PyTorch", batch=1, threads=1).disturbed


@pytest.mark.parametrize(
    ("own", "everyone", "threads", "cores", "crowded"),
    [
        (2.0, 2.0, 1, 2, False),  # alone
        (1.0, 4.0, 1, 2, True),  # had to wait
        (1.0, None, 1, 2, True),
        (2.0, 3.9, 1, 2, True),  # the other core, which shares its caches, was busy throughout
        (2.0, 2.6, 1, 2, False),  # a little of it
        (2.0, 10.0, 1, 64, False),  # a large machine has room for both
        (16.0, 130.0, 8, 64, True),
        (2.0, None, 1, 2, False),  # a system that does not say what others do
    ],
)
def test_crowding_is_seen_in_the_counters(own, everyone, threads, cores, crowded):
    assert Usage(wall_s=2.0, own_s=own, all_s=everyone).is_crowded(threads, cores) is crowded


def test_waiting_is_seen_on_this_machine():
    before = Usage.now()
    time.sleep(0.3)
    assert Usage.now().since(before).is_crowded(1)


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_size_of_a_network_for_texts_is_that_of_its_products(task):
    length, width, inner, layers, classes = 5, 8, 16, 2, 3
    options = {"task": task, "num_classes": classes, "vocab_size": 20, "hidden_size": width, "num_attention_heads": 2,
               "num_hidden_layers": layers, "intermediate_size": inner}  # fmt: skip
    network = load_model("hf:bert", options, seed=0)
    size = size_of(network, (length,))
    each = 4 * length * width**2 + 2 * length * width * inner + 2 * length**2 * width
    head = length * width * classes if task == "token-classification" else width**2 + width * classes
    assert size.macs == layers * each + head
    assert size.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert in_onnx_runtime(network, (length,)).latency(2, 1, 0.01).samples_per_second > 0
