"""From file to model: colours, flattening, preprocessing, round trips, and everything that does not fit."""

import math

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from model_compression.classic.caffe_layers import CaffeLayer
from model_compression.classic.caffe_weights import export_npy, import_model
from model_compression.classic.mean import read_mean
from model_compression.classic.npy import write_npy
from model_compression.core.errors import FileFormatError, UnknownNameError, UsageError, WeightsMismatchError
from model_compression.models import create_model
from model_compression.models.loading import read_model
from model_compression.models.weights import save_weights


def tensorflow_lenet(content, images):
    """Logits in float64 of LeNet on images (B, H, W, C), with caffe-tensorflow's arrays as they are."""

    def conv(x, name):
        weights, biases = (content[name][key].astype(np.float64) for key in ("weights", "biases"))
        height, width = weights.shape[:2]
        windows = sliding_window_view(x, (height, width), axis=(1, 2))  # (B, H', W', C, h, w)
        return np.einsum("bijchw,hwco->bijo", windows, weights, optimize=True) + biases

    def pool(x):
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))

    x = pool(conv(pool(conv(images, "conv1")), "conv2"))
    x = x.reshape(len(x), -1)  # (H, W, C) order
    x = np.maximum(x @ content["ip1"]["weights"].astype(np.float64) + content["ip1"]["biases"], 0)
    return x @ content["ip2"]["weights"].astype(np.float64) + content["ip2"]["biases"]


@pytest.fixture
def lenet_npy(tmp_path):
    """A caffe-tensorflow file of LeNet as drawn, its content, and images (B, H, W, RGB)."""
    rng = np.random.default_rng(0)
    shapes = {"conv1": (5, 5, 3, 20), "conv2": (5, 5, 20, 50), "ip1": (1250, 500), "ip2": (500, 10)}
    content = {}
    for name, shape in shapes.items():
        weights = rng.normal(size=shape) / math.sqrt(math.prod(shape[:-1]))
        biases = rng.normal(size=shape[-1])
        content[name] = {"weights": weights.astype(np.float32), "biases": biases.astype(np.float32)}
    np.save(tmp_path / "lenet.npy", np.array(content, dtype=object), allow_pickle=True)
    return tmp_path / "lenet.npy", content, rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def logits(model, images):
    with torch.no_grad():
        return model(model.preprocessing(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))).numpy()


@pytest.mark.parametrize("channel_order", ["bgr", "rgb"])
@pytest.mark.parametrize("mean_kind", ["none", "image_hwc", "image_chw", "per_channel"])
def test_imported_npy_gives_the_logits_of_the_float64_formula(tmp_path, lenet_npy, channel_order, mean_kind):
    path, content, images = lenet_npy
    mean = np.random.default_rng(1).uniform(80, 160, (32, 32, 3))  # in the file's channel order
    if mean_kind == "none":
        mean = np.zeros(3)
    elif mean_kind == "per_channel":
        mean = mean[0, 0]
    stored = mean.transpose(2, 0, 1) if mean_kind == "image_chw" else mean
    np.save(tmp_path / "mean.npy", stored)
    mean_file = None if mean_kind == "none" else tmp_path / "mean.npy"
    model = import_model(path, "lenet-caffe", channel_order=channel_order, mean=mean_file, scale=1 / 64)

    seen = images[..., ::-1] if channel_order == "bgr" else images
    expected = tensorflow_lenet(content, (seen - mean) / 64)
    np.testing.assert_allclose(logits(model, images), expected, rtol=0, atol=1e-5 * np.ptp(expected))
    assert model.preprocessing.channel_order == "rgb"
    assert not model.training


def test_channel_order_matters(lenet_npy):
    path, _, images = lenet_npy
    bgr, rgb = (import_model(path, "lenet-caffe", channel_order=order) for order in ("bgr", "rgb"))
    assert np.abs(logits(bgr, images) - logits(rgb, images)).max() > 1
    swapped = logits(rgb, images[..., ::-1])
    np.testing.assert_allclose(logits(bgr, images), swapped, rtol=0, atol=1e-5 * np.ptp(swapped))


def test_imported_model_survives_saving(tmp_path, lenet_npy):
    path, _, images = lenet_npy
    np.save(tmp_path / "mean.npy", np.random.default_rng(1).uniform(80, 160, (3, 32, 32)))
    model = import_model(path, "lenet-caffe", mean=tmp_path / "mean.npy", scale=0.5)
    save_weights(tmp_path / "lenet.safetensors", model)
    again = read_model(tmp_path / "lenet.safetensors")
    np.testing.assert_array_equal(logits(again.eval(), images), logits(model, images))


@pytest.mark.parametrize("channel_order", ["bgr", "rgb"])
@pytest.mark.parametrize(
    ("name", "options"), [("lenet", {}), ("lenet-caffe", {}), ("nin", {}), ("nin-ip", {"hidden": 9})]
)
def test_export_and_import_give_back_the_same_weights(tmp_path, name, options, channel_order):
    model = create_model(name, seed=3, **options)
    export_npy(model, tmp_path / "a.npy", channel_order=channel_order)
    again = import_model(tmp_path / "a.npy", name, channel_order=channel_order)
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    export_npy(again, tmp_path / "b.npy", channel_order=channel_order)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_import_sizes_nin_ip_and_classes_by_the_file_and_the_argument(tmp_path):
    export_npy(create_model("nin-ip", seed=0, hidden=7, num_classes=4), tmp_path / "net.npy")
    model = import_model(tmp_path / "net.npy", "nin-ip", num_classes=4)
    assert model.options == {"hidden": 7, "num_classes": 4}
    state = model.state_dict()
    assert [state["ip1.weight"].shape, state["ip2.weight"].shape] == [(7, 12288), (4, 7)]


def test_import_leaves_the_global_generator_alone(lenet_npy):
    before = torch.get_rng_state()
    import_model(lenet_npy[0], "lenet-caffe")
    assert torch.equal(torch.get_rng_state(), before)


def test_import_lists_every_mismatch_at_once(tmp_path, wire):
    arrays = {
        "conv1": (np.ones((64, 3, 3, 3)), np.ones(64)),
        "ip1": (np.ones((1024, 3200)), np.ones(1000)),
        "ip2": (np.ones((10, 1024)), np.ones(10)),
        "ip3": (np.ones((2, 2)), np.ones(2)),
    }
    payload = wire.network(arrays).replace(b"\x0a\x03ip2", b"\x0a\x03ip9")
    (tmp_path / "net.caffemodel").write_bytes(payload)
    with pytest.raises(WeightsMismatchError) as caught:
        import_model(tmp_path / "net.caffemodel", "lenet")
    message = str(caught.value)
    assert message.isprintable()
    for clause in (
        "net.caffemodel does not fit the model 'lenet' with 10 classes",
        "layer 'conv1' weights: found (64, 3, 3, 3), expected (64, 3, 5, 5)",
        "layer 'conv2' is not in the file, expected weights (128, 64, 5, 5)",
        "layer 'ip1' bias: found (1000,), expected (1024,)",
        "layer 'ip2' is not in the file, expected weights (10, 1024)",
        "layer 'ip9' (10, 1024) is not in the model",
        "layer 'ip3' (2, 2) is not in the model",
    ):
        assert clause in message


def test_import_names_a_missing_bias_and_odd_dimensions(tmp_path):
    layers = {
        "conv1": CaffeLayer(weights=np.ones((20, 3, 5, 5), np.float32), bias=None),
        "ip1": CaffeLayer(weights=np.ones((5, 4), np.float32), bias=np.ones((1, 2), np.float32)),
        "ip2": CaffeLayer(weights=np.array(1, np.float32), bias=None),
    }
    write_npy(tmp_path / "net.npy", layers)
    with pytest.raises(WeightsMismatchError, match="'conv1' bias: found no bias, expected") as caught:
        import_model(tmp_path / "net.npy", "lenet-caffe")
    assert "layer 'ip1' weights: found (5, 4), expected (500, 1250)" in str(caught.value)
    assert "layer 'ip1' bias: found (1, 2), expected (500,)" in str(caught.value)
    assert "layer 'ip2' weights: found ()" in str(caught.value)
    with pytest.raises(WeightsMismatchError, match="'ip2' weights: found"):
        import_model(tmp_path / "net.npy", "nin-ip")


def test_import_refuses_impossible_arguments(tmp_path, lenet_npy):
    path = lenet_npy[0]
    with pytest.raises(UnknownNameError, match="lenet"):
        import_model(path, "lenett")
    with pytest.raises(UsageError, match="channel_order must be 'bgr' or 'rgb', got 'gbr'"):
        import_model(path, "lenet", channel_order="gbr")
    with pytest.raises(UsageError, match="channel_order"):
        export_npy(create_model("lenet-caffe", seed=0), tmp_path / "x.npy", channel_order="gbr")
    for scale in (0, -1, math.nan, math.inf):
        with pytest.raises(UsageError, match="scale must be a number > 0"):
            import_model(path, "lenet-caffe", scale=scale)
    with pytest.raises(FileFormatError, match="no such file"):
        import_model(tmp_path / "absent.npy", "lenet")


def test_models_with_other_layers_are_refused_by_name(tmp_path, lenet_npy):
    with pytest.raises(UsageError, match=r"'nin-bn' has layers that .* cannot hold: bn_cccp1"):
        import_model(lenet_npy[0], "nin-bn")
    with pytest.raises(UsageError, match="cannot hold"):
        export_npy(create_model("nin-bn", seed=0), tmp_path / "x.npy")
    assert not (tmp_path / "x.npy").exists()


def test_a_damaged_file_says_so_before_it_says_what_does_not_fit(tmp_path, wire):
    weights = np.full((64, 3, 5, 5), np.nan)
    (tmp_path / "net.caffemodel").write_bytes(wire.network({"conv1": (weights, np.ones(64))}))
    with pytest.raises(FileFormatError, match="layer 'conv1' weights holds 4800 values that are NaN"):
        import_model(tmp_path / "net.caffemodel", "lenet")


@pytest.mark.parametrize(
    "shape", [(3, 4, 5), (4, 5, 3), (1, 3, 4, 5), (1, 4, 5, 3), (3,), (1, 3), (3, 1, 1), (1, 3, 1, 1), (1, 1, 1, 3)]
)
def test_read_mean_takes_every_usual_shape(tmp_path, shape):
    mean = np.random.default_rng(0).uniform(0, 255, shape)
    np.save(tmp_path / "mean.npy", mean)
    expected = mean.reshape([size for size in shape if size > 1]).astype(np.float32)
    expected = expected.transpose(2, 0, 1) if expected.ndim == 3 and shape[-1] == 3 else expected
    np.testing.assert_array_equal(read_mean(tmp_path / "mean.npy", (3, 4, 5)), expected)


def test_read_mean_takes_integers_and_a_grey_image(tmp_path):
    np.save(tmp_path / "mean.npy", np.full((1, 4, 5), 7, np.uint8))
    np.testing.assert_array_equal(read_mean(tmp_path / "mean.npy", (1, 4, 5)), np.full((1, 4, 5), 7))


def test_read_mean_refuses_other_sizes_and_numbers(tmp_path, wire):
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(wire.blob(np.ones((1, 3, 9, 9)), legacy=True))
    with pytest.raises(WeightsMismatchError, match=r"mean has shape \(1, 3, 9, 9\), expected \(3, 4, 5\), \(4, 5, 3\)"):
        read_mean(path, (3, 4, 5))
    path.write_bytes(wire.blob(np.full((3, 4, 5), np.inf)))
    with pytest.raises(FileFormatError, match=r"mean\.binaryproto: the blob holds 60 values"):
        read_mean(path, (3, 4, 5))
    np.save(tmp_path / "mean.npy", np.full((3, 4, 5), np.nan))
    with pytest.raises(FileFormatError, match=r"mean\.npy: the mean holds 60 values"):
        read_mean(tmp_path / "mean.npy", (3, 4, 5))
    np.save(tmp_path / "mean.npy", np.array({"mean": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(FileFormatError, match="holds object; expected an array of numbers"):
        read_mean(tmp_path / "mean.npy", (3, 4, 5))
