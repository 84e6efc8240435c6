"""A file cannot ask for more memory than what stands in it fills."""

import io
import json
import pickle
import resource
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from model_compression.core.checksummed import seal
from model_compression.core.errors import FileFormatError, ModelCompressionError, UsageError
from model_compression.models.bounded import bounded_by
from model_compression.models.create import create_model
from model_compression.models.foreign_weights import own_tensors
from model_compression.models.loading import load_model, read_model
from model_compression.models.preprocessing import Preprocessing
from model_compression.models.weights import FORMAT, save_weights

ALLOWED_MIB = 300


def weights(path, model, options=(), tensors=None, **header):
    plain = {"format": FORMAT, "model": model, "options": dict(options), "facts": {}}
    plain["preprocessing"] = {"mean": [0.5], "std": [0.5], "channel_order": "rgb"}
    path.write_bytes(seal(tensors or {"w": torch.zeros(3)}, "model_compression", plain | header))
    return path


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("lenet", {"num_classes": 3_000_000}),
        ("lenet", {"num_classes": 90_000}),
        ("nin-ip", {"hidden": 10**9}),
        ("whitening-cnn", {"widths": [64, 10**5, 10**5]}),
        ("pruned", {"body": "lenet", "widths": {"conv1": 10**6}}),
        ("sparse", {"body": "lenet", "body_options": {"num_classes": 10**9}}),
        ("quantization-aware", {"body": "lenet", "num_classes": 90_000}),
        ("timm:resnet18", {"num_classes": 10**9}),
        ("timm:vit_tiny_patch16_224", {"img_size": 100_000}),
        ("timm:vit_tiny_patch16_224", {"depth": 10**5}),
        ("timm:vit_tiny_patch16_224", {"depth": 10**5, "embed_dim": 3, "num_heads": 1}),
        ("torchvision:resnet18", {"num_classes": 90_000, "width_per_group": 10**5}),
        ("hf:x", {"config": {"model_type": "vit", "num_labels": 10**9}}),
        ("hf:x", {"config": {"model_type": "vit", "hidden_size": 99_996}}),
        ("hf:x", {"config": {"model_type": "resnet", "depths": [10**5], "hidden_sizes": [1], "embedding_size": 1}}),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of libraries, while they are imported
def test_header_that_claims_a_huge_network_is_refused_in_little_memory(tmp_path, model, options):
    path, before = weights(tmp_path / "evil.safetensors", model, options), peak_mib()
    with pytest.raises(ModelCompressionError, match=r"far larger than its [\d,]+ bytes|must|width|unknown"):
        read_model(path)
    assert peak_mib() < before + ALLOWED_MIB


@pytest.fixture(scope="module")
def hf_folder(tmp_path_factory):
    """A small classifier of transformers, as its authors save one; its libraries are imported then."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("hf") / "vit"
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=10)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    assert load_model(f"hf:{folder}").preprocessing.size == (32, 32)
    return folder


@pytest.mark.parametrize(
    ("file", "fields", "fault"),
    [
        ("config.json", {"hidden_size": 60_000}, r"far larger than its [\d,]+ bytes"),
        ("config.json", {"num_hidden_layers": 10_000}, r"far larger than its [\d,]+ bytes"),
        ("config.json", {"intermediate_size": 10**8}, r"far larger than its [\d,]+ bytes"),
        ("config.json", {"image_size": 200_000}, r"far larger than its [\d,]+ bytes"),
        ("config.json", {"num_channels": 10**6}, r"far larger than its [\d,]+ bytes"),
        (
            "config.json",
            {"hidden_size": 16},
            r"do not fit its config.json: classifier.weight: found \(10, 8\), expected \(10, 16\)",
        ),
        ("preprocessor_config.json", {"size": {"height": 50_000, "width": 50_000}}, "from 1 to 2048 pixels"),
        (
            "preprocessor_config.json",
            {"size": {"shortest_edge": 10**6}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
            "from 1 to 2048 pixels",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_folder_of_transformers_that_claims_more_than_its_weights_is_refused_in_little_memory(
    tmp_path, hf_folder, file, fields, fault
):
    folder = shutil.copytree(hf_folder, tmp_path / "evil")
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | fields))
    before = peak_mib()
    with pytest.raises(ModelCompressionError, match=fault):
        load_model(f"hf:{folder}")
    assert peak_mib() < before + ALLOWED_MIB


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("lenet", {"num_classes": 10**8}),
        ("timm:vit_tiny_patch16_224", {"img_size": 10**6}),
        ("torchvision:resnet18", {"num_classes": 10**8}),
        ("hf:x", {"pretrained": False, "config": {"model_type": "vit", "hidden_size": 600_000}}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_options_of_a_configuration_take_no_more_than_half_of_the_free_memory(model, options, monkeypatch):
    monkeypatch.setattr("model_compression.models.bounded.available_memory_bytes", lambda: 2**30)
    before = peak_mib()
    with pytest.raises(UsageError, match=r"more than half of the 1\.1 GB of memory"):
        load_model(model, options)
    assert peak_mib() < before + 512 + ALLOWED_MIB


def test_honest_networks_are_read_as_ever_and_draw_the_same_weights(tmp_path):
    network = create_model("resnet20", seed=3)
    save_weights(tmp_path / "honest.safetensors", network, dtype=torch.float16)
    with bounded_by(tmp_path / "honest.safetensors", {}):
        again = create_model("resnet20", seed=3)
    pairs = zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert read_model(tmp_path / "honest.safetensors").name == "resnet20"


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(10**10),
        lambda: torch.arange(10**10),
        lambda: torch.zeros(10**5)[:, None] + torch.zeros(10**5),
        lambda: torch.zeros(10).repeat(10**9),
        lambda: torch.eye(10**5),
        lambda: [torch.zeros(10**6) for _ in range(10**4)],
    ],
)
def test_whatever_makes_a_large_tensor_is_stopped_before_it_has_memory(tmp_path, make):
    (tmp_path / "small").write_bytes(b"x" * 524)
    before = peak_mib()
    with bounded_by(tmp_path / "small", {}), pytest.raises(FileFormatError, match="made to take all memory"):
        make()
    assert peak_mib() < before + ALLOWED_MIB


@pytest.mark.parametrize("size", [(2049, 32), (32, 10**9), (0, 32)])
def test_size_that_no_image_has_is_refused(tmp_path, size):
    with pytest.raises(UsageError, match="from 1 to 2048 pixels"):
        Preprocessing(size=size)
    network = create_model("lenet", seed=0)
    network.facts = {"image_shape": [3, *size]}
    assert network.image_shape == (3, 32, 32)


class Buffer:
    def __reduce__(self):
        return bytearray, (2 * 10**9,)


def test_pt_file_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    content, packed, buffer = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"w": torch.zeros(10**6)}, content)
    with zipfile.ZipFile(content) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    torch.save({"w": torch.zeros(1), "b": Buffer()}, buffer)
    before = peak_mib()
    for made, reason in [(packed, "compressed, which PyTorch never writes"), (buffer, "asks for a buffer")]:
        (tmp_path / "evil.pt").write_bytes(made.getvalue())
        with pytest.raises(FileFormatError, match=reason):
            own_tensors(tmp_path / "evil.pt", {"w": torch.zeros(1)})
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Buffer(), protocol=2))  # as before PyTorch 1.6
    with pytest.raises(FileFormatError):
        own_tensors(tmp_path / "evil.pt", {"w": torch.zeros(1)})
    assert peak_mib() < before + ALLOWED_MIB


def test_file_that_names_itself_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = weights(Path("itself.safetensors"), "quantization-aware", {"body": "itself.safetensors"})
    with pytest.raises(FileFormatError, match="give the weights of a plain one"):
        read_model(path)
