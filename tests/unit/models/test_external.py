"""Networks of libraries and of one's own code: built by name, with their preprocessing, and built again from a file."""

import json
import os
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model_compression.core.errors import (
    FileFormatError,
    MissingExtraError,
    ModelCompressionError,
    UnknownNameError,
    UntrustedCodeError,
    UsageError,
)
from model_compression.models import create_model
from model_compression.models.external import External, is_external
from model_compression.models.loading import load_model, read_model
from model_compression.models.weights import FORMAT, read_header, save_weights

NETS = """
from torch import nn

def build(num_classes=10, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

class Small(nn.Sequential):
    def __init__(self, classes=3):
        super().__init__(nn.Flatten(), nn.Linear(192, classes))

ready = Small()
number = 5

def seven():
    return 7

def wrong():
    raise KeyError("what is it")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A working folder with nets_of_mine.py in it; the name of that module."""
    (tmp_path / "nets_of_mine.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    yield "nets_of_mine"
    sys.modules.pop("nets_of_mine", None)


@pytest.fixture
def vit(tmp_path):
    """The folder of a tiny Hugging Face classifier of three classes, and the model."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16,
            patch_size=8, num_labels=3,
        )
    )  # fmt: skip
    model.save_pretrained(tmp_path / "vit")
    size = {"height": 16, "width": 16}
    ViTImageProcessor(size=size, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]).save_pretrained(
        tmp_path / "vit"
    )
    return tmp_path / "vit", model.eval()


def images(count=2, side=16):
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("timm:resnet18", True),
        ("hf:user/model", True),
        ("nets.of.mine:build", True),
        ("resnet20", False),
        ("folder/net.safetensors", False),
        ("timm:", False),
        ("a:b:c", False),
    ],
)
def test_names_of_other_origin_are_told_from_files(name, is_one):
    assert is_external(name) is is_one


def test_timm_network_is_timms_own_with_the_seed_and_options():
    import timm

    found = load_model("timm:test_resnet", {"num_classes": 7}, seed=3).eval()
    torch.manual_seed(3)
    expected = timm.create_model("test_resnet", num_classes=7).eval()
    with torch.no_grad():
        assert torch.equal(found(images().float()), expected(images().float()))
    assert not found.declares_preprocessing
    assert found.preprocessing.size is None  # it takes any


def test_timm_network_of_one_size_asks_for_it():
    assert load_model("timm:test_vit").preprocessing.size == (160, 160)
    assert load_model("timm:test_vit", {"img_size": 32, "patch_size": 8}).preprocessing.size == (32, 32)


def test_timm_weights_bring_the_preprocessing_that_timm_declares(monkeypatch):
    import timm

    original, asked = timm.create_model, []

    def create(name, pretrained, **options):  # what the hub would give
        asked.append(pretrained)
        return original(name, **options)

    monkeypatch.setattr(timm, "create_model", create)
    found = load_model("timm:test_efficientnet.r160_in1k", {"pretrained": True})
    declared = timm.data.resolve_model_data_config(found.body)
    assert asked == [True]
    assert (found.preprocessing.mean, found.preprocessing.std) == (declared["mean"], declared["std"])
    assert found.preprocessing.size == declared["input_size"][1:]
    assert found.declares_preprocessing
    assert found.options == {}  # what builds it again fetches nothing


def test_torchvision_network_and_its_weights(monkeypatch):
    import torchvision
    from torchvision.models import SqueezeNet1_1_Weights

    torch.manual_seed(1)
    donor = torchvision.models.squeezenet1_1()
    monkeypatch.setattr(SqueezeNet1_1_Weights, "get_state_dict", lambda self, **options: donor.state_dict())
    whole = load_model("torchvision:squeezenet1_1", {"pretrained": True})
    assert all(torch.equal(tensor, donor.state_dict()[name]) for name, tensor in whole.body.state_dict().items())
    assert whole.preprocessing.mean == (0.485, 0.456, 0.406)
    assert whole.preprocessing.size == (224, 224)
    fitted = load_model("torchvision:squeezenet1_1", {"pretrained": "IMAGENET1K_V1", "num_classes": 4}, seed=0)
    kept = [name for name, tensor in fitted.body.state_dict().items() if tensor.equal(donor.state_dict()[name])]
    assert set(donor.state_dict()) - set(kept) == {"classifier.1.weight", "classifier.1.bias"}
    assert fitted.body.classifier[1].out_channels == 4
    with pytest.raises(UnknownNameError, match="'IMAGENET1K_V9'; known: DEFAULT, IMAGENET1K_V1"):
        load_model("torchvision:squeezenet1_1", {"pretrained": "IMAGENET1K_V9"})


def test_hf_classifier_answers_as_transformers_does(vit):
    folder, model = vit
    found = load_model(f"hf:{folder}").eval()
    with torch.no_grad():
        answers = found(found.preprocessing(images()))
        pixels = images().double() / 255
        pixels = (pixels - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
        expected = model(pixel_values=pixels.float()).logits
    torch.testing.assert_close(answers, expected, rtol=1e-5, atol=1e-6)
    assert found.preprocessing.size == (16, 16)
    assert found.declares_preprocessing


def test_hf_image_processor_is_read_as_it_computes(vit):
    folder, _ = vit
    values = {"do_rescale": True, "rescale_factor": 0.5, "do_normalize": False, "do_flip_channel_order": True}
    values |= {"image_processor_type": "MobileViTImageProcessor"}
    values |= {"size": {"shortest_edge": 40}, "crop_size": {"height": 24, "width": 20}, "do_center_crop": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    own = load_model(f"hf:{folder}").preprocessing
    given = images(1, 4)
    found = own(given.repeat_interleave(6, 2).repeat_interleave(5, 3))
    expected = given.double().flip(1).repeat_interleave(6, 2).repeat_interleave(5, 3) * 0.5
    assert own.size == (24, 20)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


PROCESSORS = {
    "ViT": {},
    "EfficientNet": {"size": {"height": 16, "width": 16}, "include_top": True, "rescale_offset": False},
    "EfficientNet, one division": {"size": {"height": 16, "width": 16}, "include_top": False},
    "EfficientNet, offset": {
        "size": {"height": 16, "width": 16}, "rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": True,
        "do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
    },
    "MobileViT": {"size": {"shortest_edge": 16}, "crop_size": {"height": 20, "width": 20}},
    "ConvNext": {"size": {"shortest_edge": 16}, "crop_pct": 0.875},
    "Levit": {},
}  # fmt: skip


@pytest.mark.parametrize("kind", PROCESSORS)
def test_hf_preprocessing_gives_what_the_processor_itself_gives(vit, kind):
    import transformers

    folder, _ = vit
    name = kind.partition(",")[0]
    processor = getattr(transformers, f"{name}ImageProcessor")(**PROCESSORS[kind])
    processor.save_pretrained(folder)
    own = load_model(f"hf:{folder}").preprocessing
    plain = torch.tensor([[10, 200, 90], [255, 0, 31]], dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 40, 40)
    theirs = processor(images=list(plain), return_tensors="pt")["pixel_values"]
    side = theirs.shape[-1] // 2
    torch.testing.assert_close(own(plain)[:, :, side, side], theirs[:, :, side, side], rtol=0.01, atol=0.01)


def test_hf_processor_that_means_something_else_is_refused(vit, monkeypatch):
    import transformers

    folder, _ = vit
    transformers.ViTImageProcessor().save_pretrained(folder)
    own = transformers.ViTImageProcessor.__call__
    twice = lambda *given, **options: {"pixel_values": 2 * own(*given, **options)["pixel_values"]}  # noqa: E731
    monkeypatch.setattr(transformers.ViTImageProcessor, "__call__", twice)
    with pytest.raises(
        UsageError, match=r"its image processor \(ViTImageProcessor\) makes 1\.14, -0\.118, -1\.37 of a pixel"
    ):
        load_model(f"hf:{folder}")


def test_hf_student_is_fresh_and_has_as_many_classes_as_are_asked_for(vit):
    folder, model = vit
    first, again = (load_model(f"hf:{folder}", {"pretrained": False, "num_classes": 5}, seed=2) for _ in range(2))
    assert first.body.classifier.out_features == 5
    trained = model.state_dict()
    for name, tensor in first.body.state_dict().items():
        assert torch.equal(tensor, again.body.state_dict()[name])
        if tensor.ndim > 1 and "classifier" not in name:
            assert not torch.equal(tensor, trained[name])
    tuned = load_model(f"hf:{folder}", {"pretrained": True, "num_classes": 5})
    assert torch.equal(tuned.body.vit.layers[1].mlp.fc1.weight, model.vit.layers[1].mlp.fc1.weight)
    assert tuned.body.classifier.out_features == 5


def test_hf_model_without_a_trained_classifier_is_refused(vit):
    folder, model = vit
    tensors = {name: tensor for name, tensor in model.state_dict().items() if "classifier" not in name}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        UsageError, match=r"no weights for classifier.bias, classifier.weight: it is no trained classif"
    ):
        load_model(f"hf:{folder}")


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_hf_weights_that_would_execute_are_refused_without_the_advice_to_do_so(vit, tmp_path):
    folder, _ = vit
    (folder / "model.safetensors").unlink()
    torch.save({"w": Touch(str(tmp_path / "trace"))}, folder / "pytorch_model.bin")
    with pytest.raises(FileFormatError, match=r"more than tensors and plain values, and is not read") as caught:
        load_model(f"hf:{folder}")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "trace").exists()


def test_own_builder_is_found_in_the_working_folder(own):
    found = load_model(f"{own}:build", {"num_classes": 5, "width": 6}, seed=1)
    assert [layer.out_features for layer in found.modules() if isinstance(layer, nn.Linear)] == [5]
    assert found.options == {"num_classes": 5, "width": 6}
    assert own not in sys.path
    ready, other = load_model(f"{own}:ready"), load_model(f"{own}:ready")
    ready.body[1].bias.data.add_(1)
    assert torch.equal(other.body[1].bias + 1, ready.body[1].bias)  # each its own copy


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nets_of_mine:biuld", {}, "unknown attribute of nets_of_mine: 'biuld'; did you mean 'build'"),
        (
            "nets_of_mine:build",
            {"wdith": 3},
            "unknown option of builder 'nets_of_mine:build': 'wdith'; did you mean 'w",
        ),
        ("nets_of_mine:number", {}, "nets_of_mine:number is a int; expected a function or class that gives a network"),
        ("nets_of_mine:seven", {}, "nets_of_mine:seven returned a int; expected a torch.nn.Module"),
        (
            "nets_of_mine:ready",
            {"classes": 3},
            r"is a network and no builder, so it takes no options; got \['classes'\]",
        ),
        ("nets_of_mine:wrong", {}, "cannot be built with no options: KeyError: 'what is it'"),
        (
            "nets_of_mine:build",
            {"width": -1},
            "'nets_of_mine:build' cannot be built with options {'width': -1}: Runtime",
        ),
        ("nets_of_yours:build", {}, "cannot import 'nets_of_yours' of 'nets_of_yours:build': ModuleNotFoundError"),
        ("nets_of_mine:build", {"seed": 1}, "seed is not an option of a network"),
        ("nets_of_mine.py:build", {}, "nets_of_mine.py:build is to be written as nets_of_mine:build"),
        ("./nets_of_mine.py:build", {}, "names no module; what a/nets.py builds is written a.nets:builder"),
    ],
)
@pytest.mark.usefixtures("own")
def test_own_builder_that_is_wrong_is_named(name, options, message):
    with pytest.raises(UsageError, match=message):
        load_model(name, options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "timm:test_resnte",
            {},
            r"unknown timm model 'test_resnte'; did you mean .*'test_resnet'.*list_models\(\) lists",
        ),
        ("timm:test_resnet.nope", {}, "'timm:test_resnet.nope' cannot be built with no options: RuntimeError: Invalid"),
        ("timm:test_resnet", {"wdith": 1}, r"cannot be built with options \{'wdith': 1\}: TypeError: .*'wdith'"),
        ("torchvision:resnet81", {}, "unknown torchvision model 'resnet81'; did you mean 'resnet18'"),
    ],
)
def test_library_network_that_is_not_there_is_named(name, options, message):
    with pytest.raises(UsageError, match=message):
        load_model(name, options)


def test_hf_option_that_its_configuration_lacks_is_named(vit):
    with pytest.raises(UnknownNameError, match="'hidden_sizes'; did you mean 'hidden_size'"):
        load_model(f"hf:{vit[0]}", {"hidden_sizes": 8})


def test_weights_that_cannot_be_fetched_are_an_error_that_says_so(monkeypatch):
    import timm

    def create(name, pretrained):
        raise FileNotFoundError("An error happened while trying to locate the file on the Hub\nand more")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(ModelCompressionError) as caught:
        load_model("timm:test_resnet", {"pretrained": True})
    assert not isinstance(caught.value, UsageError)
    assert str(caught.value) == (
        "timm:test_resnet cannot be read or fetched: An error happened while trying to locate the file on the Hub; "
        "check the name and the connection, or give a weights file that you have"
    )


@pytest.mark.parametrize(("name", "package", "extra"), [("timm:a", "timm", "timm"), ("hf:a", "transformers", "hf")])
def test_library_that_is_not_installed_is_named_with_its_extra(monkeypatch, name, package, extra):
    def gone(wanted, *rest):
        raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted)

    monkeypatch.setattr("model_compression.models.libraries.importlib.import_module", gone)
    with pytest.raises(MissingExtraError, match=rf"'{package}', .*pip install 'model-compression\[{extra}\]'"):
        load_model(name)


@pytest.mark.parametrize("name", ["my-vit", "./nets/vit", "/data/nets/vit", "a/b/c"])
def test_folder_that_is_not_there_is_said_to_be_none_before_a_hub_is_asked(name):
    with pytest.raises(UsageError, match=f"hf:{name} is no folder here, and networks on the hub are named USER/NAME"):
        load_model(f"hf:{name}")


def test_library_that_does_not_start_is_one_line(monkeypatch):
    def broken(wanted, *rest):
        raise RuntimeError("operator torchvision::nms does not exist\nin many lines")

    monkeypatch.setattr("model_compression.models.libraries.importlib.import_module", broken)
    with pytest.raises(
        ModelCompressionError, match=r"timm is installed and cannot be imported: operator .* exist; torch "
    ):
        load_model("timm:test_resnet")


@pytest.mark.parametrize("which", ["timm", "hf", "own", "class"])
def test_weights_file_builds_its_network_again_from_itself_alone(which, tmp_path, vit, own):
    folder, _ = vit
    name, options = {
        "timm": ("timm:test_resnet", {"num_classes": 3}),
        "hf": (f"hf:{folder}", {"pretrained": False, "num_classes": 4}),
        "own": (f"{own}:build", {"num_classes": 3}),
        "class": (f"{own}:Small", {}),
    }[which]
    model = load_model(name, options, seed=0).eval()
    save_weights(tmp_path / "net.safetensors", model)
    for path in folder.iterdir():
        path.unlink()  # the file says all
    again = read_model(tmp_path / "net.safetensors").eval()
    side = 8 if which == "class" else 16
    with torch.no_grad():
        assert torch.equal(again(images(2, side).float()), model(images(2, side).float()))
    assert (again.name, again.options) == (name, model.options)
    save_weights(tmp_path / "again.safetensors", again)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "net.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("subprocess:check_output", {"args": ["touch", "pwned"]}),
        ("os:system", {"command": "touch pwned"}),
        ("torch.hub:load", {"repo_or_dir": ".", "model": "x", "source": "local"}),
        ("borrowed:check_output", {"args": ["touch", "pwned"]}),
        ("borrowed:ready_made", {}),
    ],
)
def test_weights_file_cannot_call_what_it_likes(tmp_path, monkeypatch, name, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "borrowed.py").write_text(
        "import functools, os\nfrom subprocess import check_output\nready_made = functools.partial(os.mkdir, 'pwned')\n"
    )
    header = {"format": FORMAT, "model": name, "options": options, "facts": {}}
    header["preprocessing"] = create_model("lenet").preprocessing.to_dict()
    save_file({"w": torch.zeros(1)}, tmp_path / "evil.safetensors", {"model_compression": json.dumps(header)})
    with pytest.raises(UntrustedCodeError, match=r"evil\.safetensors names the code"):
        load_model(str(tmp_path / "evil.safetensors"))
    assert "borrowed" not in sys.modules
    with pytest.raises(FileFormatError, match=r"not called because a file says so|part of Python's own"):
        load_model(str(tmp_path / "evil.safetensors"), trust=True)
    assert not (tmp_path / "pwned").exists()
    sys.modules.pop("borrowed", None)


def test_module_that_is_given_keeps_its_layers_names(own):
    network = External(load_model(f"{own}:build", seed=0).body)
    assert dict(network.body.named_children()).keys() == {"0", "1", "2", "3"}
    assert read_header_of(network)["model"] == "torch.nn.modules.container:Sequential"


def read_header_of(network):
    save_weights("here.safetensors", network)
    return read_header("here.safetensors")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm:resnet18", {"checkpoint_path": "evil.pth"}, "checkpoint_path is no option"),
        ("timm:resnet18", {"pretrained": True, "pretrained_cfg": {"file": "evil.pth"}}, "pretrained_cfg is no option"),
        (
            "hf:x",
            {"config": {"model_type": "vit", "attn_implementation": "evil/code"}, "pretrained": False},
            "never run",
        ),
    ],
)
def test_options_that_would_run_or_unpickle_what_they_name_are_refused(name, options, message):
    with pytest.raises(ModelCompressionError, match=message):
        load_model(name, options)
