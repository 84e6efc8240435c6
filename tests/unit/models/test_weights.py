"""Weights files: exact round trips, and every way in which a file can be wrong."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model_compression.core.checksummed import seal
from model_compression.core.errors import (
    FileFormatError,
    NumericalError,
    UnknownNameError,
    UsageError,
    WeightsMismatchError,
)
from model_compression.models import Preprocessing, create_model
from model_compression.models.loading import load_model, read_model
from model_compression.models.weights import FORMAT, load_tensors, read_header, save_weights


@pytest.fixture
def model():
    return create_model("lenet-caffe", seed=1, num_classes=4)


@pytest.fixture
def saved(tmp_path, model):
    save_weights(tmp_path / "net.safetensors", model, facts={"test_accuracy": 0.5})
    return tmp_path / "net.safetensors"


@pytest.fixture
def rewritten(saved):
    """Function of changes to tensors and header that writes the file again and returns it."""

    def rewrite(tensors=(), text=None, **header):
        with safe_open(saved, framework="pt") as file:
            values = {**json.loads(file.metadata()["model_compression"]), **header}
        content = {**load_file(saved), **dict(tensors)}
        content = {name: tensor.contiguous() for name, tensor in content.items() if tensor is not None}
        values = {key: value for key, value in values.items() if value is not None}
        values.pop("sha256")
        if text is None:
            saved.write_bytes(seal(content, "model_compression", values))
        else:
            save_file(content, saved, {"model_compression": text})
        return saved

    return rewrite


def test_weights_round_trip_is_exact(model, saved):
    again = read_model(saved)
    assert (again.name, again.options) == ("lenet-caffe", {"num_classes": 4})
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert read_header(saved)["facts"] == {"test_accuracy": 0.5}
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(again(again.preprocessing(images)), model(model.preprocessing(images)))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_the_rounded_ones_in_half_the_bytes(tmp_path, model, saved, kind):
    save_weights(tmp_path / "half.safetensors", model, dtype=kind)
    again = read_model(tmp_path / "half.safetensors")
    for name, tensor in model.state_dict().items():
        assert again.state_dict()[name].dtype == torch.float32
        assert torch.equal(again.state_dict()[name], tensor.to(kind).float())
    assert (tmp_path / "half.safetensors").stat().st_size < 0.51 * saved.stat().st_size


def test_weights_keep_options_preprocessing_and_counters(tmp_path):
    model = create_model("whitening-cnn", seed=0, widths=[24, 24, 32])
    mean_image = torch.rand(3, 32, 32) * 255
    model.preprocessing = Preprocessing(std=(0.1, 0.2, 0.3), channel_order="bgr", mean_image=mean_image)
    model.block1.bn1.num_batches_tracked.fill_(2**40 + 1)
    save_weights(tmp_path / "net.safetensors", model, dtype=torch.float16)
    again = read_model(tmp_path / "net.safetensors")
    assert again.options == {"widths": [24, 24, 32]}
    assert torch.equal(again.preprocessing.mean_image, mean_image)
    assert again.preprocessing.to_dict() == model.preprocessing.to_dict()
    assert again.block1.bn1.num_batches_tracked == 2**40 + 1


@pytest.mark.parametrize("old", [True, False])
def test_weights_file_of_torch_is_told_what_to_name_beside_it(tmp_path, old):
    torch.save({"a": torch.ones(2)}, tmp_path / "teacher.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(FileFormatError, match=r"not say of which network; .*teacher_weights='.*teacher.pt'$"):
        read_model(tmp_path / "teacher.pt")


def test_weights_file_of_others_and_an_exported_one_are_told_what_they_are(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(FileFormatError, match=r"not say of which network; .*teacher_weights='.*model.safetensors'$"):
        read_model(tmp_path / "model.safetensors")
    (tmp_path / "student.onnx").write_bytes(b"onnx")
    with pytest.raises(FileFormatError, match=r"an exported network, .* give the run"):
        read_model(tmp_path / "student.onnx")


def test_weights_of_a_training_form_are_those_of_its_deployed_form(tmp_path):
    save_weights(tmp_path / "net.safetensors", create_model("nin-bn", seed=0, num_classes=3))
    assert read_model(tmp_path / "net.safetensors").name == "nin"


def test_weights_mismatches_are_all_named_and_nothing_is_loaded(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrong = {name: tensor + 1 for name, tensor in before.items()}
    del wrong["conv1.bias"]
    wrong |= {
        "ip2.weight": torch.zeros(7, 500),
        "ip1.bias": torch.zeros(500, dtype=torch.int32),
        "a\x1b[2J": torch.ones(1),
    }
    with pytest.raises(WeightsMismatchError) as caught:
        load_tensors(model, wrong, "x.safetensors")
    message = str(caught.value)
    assert message.startswith("x.safetensors does not fit the model: ")
    for part in (
        "conv1.bias: missing, expected (20,)",
        "ip2.weight: found (7, 500), expected (4, 500)",
        "ip1.bias: found torch.int32, expected torch.float32",
        r"'a\x1b[2J': unknown to the model",
    ):
        assert part in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_with_nan_or_infinity_are_refused(model, rewritten, bad):
    weights = model.conv2.weight.detach().clone()
    weights[3, 2, 1, 0] = bad
    path = rewritten({"conv2.weight": weights})
    with pytest.raises(FileFormatError, match=r"net.safetensors: conv2.weight holds NaN or infinity"):
        read_model(path)


def test_weights_with_nan_are_not_written(tmp_path, model, saved):
    before = saved.read_bytes()
    for value, kind in ((float("nan"), torch.float32), (1e5, torch.float16)):
        model.ip1.bias.data[0] = value
        with pytest.raises(NumericalError, match=r"is not written: ip1.bias holds NaN or infinity as torch.float"):
            save_weights(saved, model, dtype=kind)
    assert saved.read_bytes() == before
    assert list(tmp_path.iterdir()) == [saved]


def test_weights_cut_anywhere_are_refused(saved):
    whole = saved.read_bytes()
    for length in (0, 1, 7, 8, 50, 400, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"net.safetensors"):
            read_model(saved)


def test_weights_of_other_formats_are_refused_by_name(tmp_path, rewritten):
    for found in ("model_compression.weights/3", "pt"):
        with pytest.raises(FileFormatError, match=f"format is '{found}', expected '{FORMAT}'; .*import"):
            read_model(rewritten(format=found))


@pytest.mark.parametrize(
    "header",
    [
        {"options": [1]},
        {"options": None},
        {"options": {"seed": 3}},
        {"options": {"num_classes": "x"}},
        {"options": {"colour": 1}},
        {"model": None},
        {"model": "resnet"},
        {"preprocessing": {}},
        {"preprocessing": 3},
        {"preprocessing": {"mean": [0, 0], "std": [1, 1, 1], "channel_order": "rgb"}},
        {"preprocessing": {"mean": [0], "std": ["a"], "channel_order": "rgb"}},
        {"facts": 3},
        {"text": "{"},
        {"text": "3"},
        {"text": "[" * 20_000},
    ],
    ids=str,
)
def test_weights_with_a_damaged_header_are_refused(rewritten, header):
    with pytest.raises(FileFormatError, match=r"net.safetensors"):
        read_model(rewritten(**header))


def test_weights_with_a_damaged_mean_image_are_refused(rewritten):
    for image in (torch.zeros(3, 4), torch.full((3, 32, 32), float("nan"))):
        with pytest.raises(FileFormatError, match="the preprocessing in the header is damaged: the mean image must be"):
            read_model(rewritten({"preprocessing.mean_image": image}))


def test_load_model_takes_names_files_and_run_folders(tmp_path, saved):
    assert load_model("lenet-caffe", {"num_classes": 3}, seed=0)(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert load_model(str(saved)).options == {"num_classes": 4}
    saved.rename(tmp_path / "student.safetensors")
    assert load_model(str(tmp_path)).name == "lenet-caffe"


def test_load_model_says_what_a_name_could_have_meant(tmp_path, saved):
    with pytest.raises(UnknownNameError, match="unknown model 'lenett'; did you mean 'lenet"):
        load_model("lenett")
    with pytest.raises(FileFormatError, match=r"is a folder without student.safetensors"):
        load_model(str(tmp_path))
    for missing in ("no/such.safetensors", "missing.safetensors"):
        with pytest.raises(FileFormatError, match=f"{missing} does not exist; expected a .safetensors file"):
            load_model(missing)
    with pytest.raises(UsageError, match="are for a model built anew"):
        load_model(str(saved), {"num_classes": 3})
    with pytest.raises(UsageError, match="seed is not an option of a network"):
        load_model("lenet", {"seed": 3})


def test_preprocessing_of_a_model_is_its_own(model):
    other = create_model("lenet-caffe")
    model.preprocessing = Preprocessing(mean=(0.0,) * 3)
    assert other.preprocessing.mean == Preprocessing().mean


def test_weights_of_the_first_format_had_no_digests(saved, model):
    tensors = load_file(saved)
    header = read_header(saved) | {"format": "model_compression.weights/1"}
    save_file(tensors, saved, {"model_compression": json.dumps(header)})
    assert torch.equal(read_model(saved).conv1.weight, model.conv1.weight)
    save_file(tensors, saved, {"model_compression": json.dumps(header | {"format": FORMAT})})
    with pytest.raises(FileFormatError, match="the header is damaged: 'sha256'"):
        read_model(saved)


def test_numbers_that_float32_does_not_have_are_refused(model, tmp_path):
    state = {name: tensor.double() * 1e300 for name, tensor in model.state_dict().items()}
    torch.save(state, tmp_path / "large.pt")
    with pytest.raises(FileFormatError, match="holds NaN or infinity"):
        load_model("lenet-caffe", {"num_classes": 4}, weights=tmp_path / "large.pt")


def test_tensors_that_are_no_plain_numbers_are_no_weights(model, tmp_path):
    state = model.state_dict()
    for odd in (
        state["conv1.weight"].to(torch.float8_e4m3fn),
        state["conv1.weight"].to_sparse(),
        torch.empty(20, device="meta"),
    ):
        torch.save({**state, "conv1.weight": odd}, tmp_path / "odd.pt")
        with pytest.raises(FileFormatError, match=r"conv1\.weight"):
            load_model("lenet-caffe", {"num_classes": 4}, weights=tmp_path / "odd.pt")
