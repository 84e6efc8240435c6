"""OpenCV's Caffe importer, which shares no code with ours, computes the same logits from the same files."""

import cv2
import numpy as np
import pytest
import torch

from model_compression.classic.caffe_weights import import_model
from model_compression.models import create_model

HEAD = 'name: "net" input: "data" input_shape { dim: 1 dim: 3 dim: 32 dim: 32 }\n'


class Prototxt:
    """A chain of layers in Caffe's text format, each on top of the last."""

    def __init__(self):
        self.text, self.top = HEAD, "data"

    def add(self, name, kind, parameters="", in_place=False):
        top = self.top if in_place else name
        self.text += f'layer {{ name: "{name}" type: "{kind}" bottom: "{self.top}" top: "{top}" {parameters} }}\n'
        self.top = top
        return self

    def conv(self, name, width, kernel, pad=0):
        return self.add(
            name, "Convolution", f"convolution_param {{ num_output: {width} kernel_size: {kernel} pad: {pad} }}"
        )

    def pool(self, name, method, kernel, stride):
        return self.add(name, "Pooling", f"pooling_param {{ pool: {method} kernel_size: {kernel} stride: {stride} }}")

    def ip(self, name, width):
        return self.add(name, "InnerProduct", f"inner_product_param {{ num_output: {width} }}")

    def relu(self, name):
        return self.add(name, "ReLU", in_place=True)


def lenet_prototxt(first, second, hidden):
    net = Prototxt().conv("conv1", first, 5).pool("pool1", "MAX", 2, 2).conv("conv2", second, 5)
    return net.pool("pool2", "MAX", 2, 2).ip("ip1", hidden).relu("relu1").ip("ip2", 10).text


def nin_prototxt(hidden=None):
    net = Prototxt()
    blocks = ((192, 5), (160, 1), (96, 1)), ((192, 5), (192, 1), (192, 1)), ((192, 3), (192, 1))
    names = ("conv1", "cccp1", "cccp2"), ("conv2", "cccp3", "cccp4"), ("conv3", "cccp5")
    for block, layer_names, pool in zip(blocks, names, ("MAX", "AVE", None), strict=True):
        for (width, kernel), name in zip(block, layer_names, strict=True):
            net.conv(name, width, kernel, kernel // 2).relu(f"relu_{name}")
        if pool:  # 32 -> 16 -> 8: Caffe rounds up, and its average leaves out what lies outside
            net.pool(f"pool_{name}", pool, 3, 2).add(f"drop_{name}", "Dropout", in_place=True)
    if hidden:
        return net.ip("ip1", hidden).relu("relu_ip1").ip("ip2", 10).text
    return net.conv("cccp6", 10, 1).relu("relu_cccp6").pool("pool3", "AVE", 8, 1).text


@pytest.fixture
def caffe_files(tmp_path, wire, model_arrays):
    """Function that writes a .caffemodel of seeded weights, with biases that matter, and a mean.binaryproto (BGR)."""

    def write(model_name, legacy, **options):
        state = create_model(model_name, seed=1, **options).state_dict()
        generator = torch.Generator().manual_seed(2)
        state = {k: torch.rand(v.shape, generator=generator) - 0.3 if v.ndim == 1 else v for k, v in state.items()}
        (tmp_path / "net.caffemodel").write_bytes(wire.network(model_arrays(state), legacy=legacy))
        mean = np.random.default_rng(3).uniform(90, 150, (3, 32, 32)).astype(np.float32)
        (tmp_path / "mean.binaryproto").write_bytes(wire.blob(mean[None] if legacy else mean, legacy=legacy))
        return tmp_path / "net.caffemodel", tmp_path / "mean.binaryproto", mean

    return write


@pytest.mark.parametrize("legacy", [False, True], ids=["current", "legacy"])
@pytest.mark.parametrize(
    ("model_name", "options", "prototxt"),
    [
        ("lenet", {}, lenet_prototxt(64, 128, 1024)),
        ("lenet-caffe", {}, lenet_prototxt(20, 50, 500)),
        ("nin", {}, nin_prototxt()),
        ("nin-ip", {"hidden": 17}, nin_prototxt(17)),
    ],
)
def test_imported_model_on_rgb_gives_the_logits_of_opencv_on_bgr(
    tmp_path, caffe_files, model_name, options, prototxt, legacy
):
    weights_file, mean_file, mean = caffe_files(model_name, legacy, **options)
    model = import_model(weights_file, model_name, mean=mean_file, scale=0.02)
    images = np.random.default_rng(4).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)  # RGB
    with torch.no_grad():
        found = model(model.preprocessing(torch.from_numpy(images))).numpy()

    (tmp_path / "net.prototxt").write_text(prototxt)
    net = cv2.dnn.readNetFromCaffe(str(tmp_path / "net.prototxt"), str(weights_file))
    expected = []
    for image in images:  # one at a time: the prototxt's input has a batch of 1
        net.setInput(((image[::-1].astype(np.float32) - mean) * np.float32(0.02))[None])
        expected.append(net.forward().reshape(-1))
    spread = np.ptp(expected)
    assert spread > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * spread)
