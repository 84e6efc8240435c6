"""From a network to the file that ships: written, proven by its own runtime, and used without torch."""

import json
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from model_compression.cli.main import main
from model_compression.core import trust
from model_compression.core.errors import FileFormatError, ModelCompressionError, UntrustedCodeError, UsageError
from model_compression.data.dataset import Dataset
from model_compression.exporting.runtimes import open_file
from model_compression.exporting.verify import verify
from model_compression.exporting.write import Deployed, export
from model_compression.models import Preprocessing
from model_compression.models.base import Network

OLD_TORCH = not hasattr(torch.optim, "Muon")  # before 2.9, which writes no .pt2 file that could be read safely


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = OrderedDict(
        conv1=nn.Conv2d(3, 4, 3),
        bn1=nn.BatchNorm2d(4),
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(2),
        flatten=nn.Flatten(),
        drop=nn.Dropout(0.5),
        head=nn.Linear(16, 3),
    )
    network = Network(layers).train()  # as it may be when somebody exports it
    network.bn1.running_mean.normal_()
    network.preprocessing = Preprocessing(mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4), channel_order="bgr")
    return network


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (31, 3, 8, 8), dtype=np.uint8), np.arange(31) % 3
    names = ("ant", "bee", "cat")
    return Dataset(name="three", samples=images, labels=labels, class_names=names, mean=(0.5,) * 3, std=(0.2,) * 3)


@pytest.fixture(scope="module")
def files(network, data, tmp_path_factory):
    """Suffix and preprocessing → an exported file."""
    folder = tmp_path_factory.mktemp("files")
    made = {("onnx", True): "a.onnx", ("onnx", False): "bare.onnx"}
    if not OLD_TORCH:
        made["torch-export", True] = "a.pt2"
    for (to, inside), name in made.items():
        found = export(network, folder / name, data, to=to, preprocessing=inside)
        assert (found.images, found.changes.others, found.fault()) == (31, (), None)
    assert sorted(path.name for path in folder.iterdir()) == sorted(made.values())
    return {key: folder / name for key, name in made.items()}


def expected(network, images):
    """Float64, written out: the channels turned, scaled and shifted."""
    pixels = images[:, ::-1].astype(np.float64) / 255
    pixels = (pixels - np.array([0.1, 0.5, 0.9]).reshape(1, 3, 1, 1)) / np.array([0.2, 0.3, 0.4]).reshape(1, 3, 1, 1)
    with torch.no_grad():
        return network.double().eval()(torch.from_numpy(pixels)).numpy(), pixels


@pytest.fixture
def _own(files):
    """The files of all tests are those of this user: .pt2 of strangers are not run."""
    for path in files.values():
        trust.seal_content(path.read_bytes())


@pytest.mark.usefixtures("_own")
def test_files_answer_any_batch_as_the_network_does(files, network, data):
    import copy

    network = copy.deepcopy(network)
    for count in (1, 2, 31):
        logits, pixels = expected(network, data.images[:count])
        for (_, inside), path in files.items():
            answers = open_file(path).run(data.images[:count] if inside else pixels.astype(np.float32))
            assert answers.shape == (count, 3)
            np.testing.assert_allclose(answers, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_own")
def test_files_say_what_they_are(files, data):
    for (_, inside), path in files.items():
        said = open_file(path).metadata
        assert (said.class_names, said.image_shape, said.preprocessing_inside) == (
            ("ant", "bee", "cat"),
            (3, 8, 8),
            inside,
        )
        assert (said.mean, said.std, said.channel_order) == ((0.1, 0.5, 0.9), (0.2, 0.3, 0.4), "bgr")
        assert said.data == "three"
        assert said.accuracy == pytest.approx(verify_accuracy(path, data))


def verify_accuracy(path, data):
    file = open_file(path)
    if not file.metadata.preprocessing_inside:
        return file.metadata.accuracy
    return float((file.run(data.images).argmax(axis=1) == data.labels).mean())


def test_verify_finds_a_network_of_other_weights(files, network, data):
    other = Network(OrderedDict(network.named_children()))
    other.preprocessing = network.preprocessing
    assert verify(files["onnx", True], other, data).fault() is None
    other.preprocessing = Preprocessing()
    assert "at most 1e-04 is accepted" in verify(files["onnx", True], other, data).fault()


def test_a_file_that_answers_otherwise_is_not_written(network, data, tmp_path, monkeypatch):
    right = Deployed.forward
    monkeypatch.setattr(Deployed, "forward", lambda self, images: right(self, images) * 1.001)
    with pytest.raises(ModelCompressionError, match="is not written, as it does not answer as the network does: log"):
        export(network, tmp_path / "a.onnx", data)
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        ModelCompressionError, match="need torch 2.9" if OLD_TORCH else "is not written, as it does not"
    ):
        export(network, tmp_path / "a.pt2", data, to="torch-export")
    assert not list(tmp_path.iterdir())


def test_an_operator_that_onnx_does_not_have_is_named(data, tmp_path):
    class Bessel(nn.Module):
        def forward(self, images):
            return torch.special.bessel_j0(images.mean(dim=(2, 3)))

    unknown = Network(OrderedDict(only=Bessel()))
    with pytest.raises(
        ModelCompressionError, match=r"^torch 2\S+ cannot write this network as ONNX: .*bessel_j0.*; use a"
    ):
        export(unknown, tmp_path / "a.onnx", data)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(OLD_TORCH, reason="no .pt2 are written")
def test_program_of_a_stranger_is_not_run(files, tmp_path):
    path = tmp_path / "theirs.pt2"
    path.write_bytes(files["torch-export", True].read_bytes())
    with pytest.raises(UntrustedCodeError, match=r"theirs\.pt2 was not exported by you on this machine"):
        open_file(path)
    with trust.all_files():
        assert open_file(path).runtime == "torch.export"


def test_wrong_names_and_files_are_refused(files, network, data, tmp_path):
    with pytest.raises(UsageError, match=r"a file for onnx must end in \.onnx, got a\.pt2"):
        export(network, tmp_path / "a.pt2", data)
    with pytest.raises(UsageError, match="unknown export format 'onxx'; did you mean 'onnx'"):
        export(network, tmp_path / "a.onnx", data, to="onxx")
    content = files["onnx", True].read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    (tmp_path / "cut.pt2").write_bytes(b"PK")
    trust.seal_content(b"PK")
    for name in ("cut.onnx", *([] if OLD_TORCH else ["cut.pt2"]), "none.onnx", "a.txt"):
        with pytest.raises(FileFormatError, match=name):
            open_file(tmp_path / name)
    model = onnx.load(files["onnx", True])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(FileFormatError, match="does not say what it is"):
        open_file(tmp_path / "other.onnx")


@pytest.mark.parametrize("trusts", [False, True])
@pytest.mark.parametrize("place", ["../secret", "secret", "/secret"])
def test_onnx_data_outside_of_the_file_are_not_read(files, tmp_path, monkeypatch, place, trusts):
    """Neither beside the file, nor in the working folder, nor elsewhere."""
    model = onnx.load(files["onnx", True])
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    for folder in (tmp_path, tmp_path / "inner"):
        folder.mkdir(exist_ok=True)
        (folder / "secret").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=f"{tmp_path}/secret" if place == "/secret" else place)
    (tmp_path / "inner" / "evil.onnx").write_bytes(model.SerializeToString())
    for folder in (tmp_path, tmp_path / "inner"):
        monkeypatch.chdir(folder)
        with trust.all_files(trusts), pytest.raises(FileFormatError, match="no ONNX file that ONNX Runtime can run"):
            open_file(tmp_path / "inner" / "evil.onnx")


def test_predict_needs_no_torch_and_names_the_class(files, network, data, tmp_path):
    picture = tmp_path / "picture.png"
    Image.fromarray(data.images[5].transpose(1, 2, 0)).save(picture)
    script = (
        "import sys; from model_compression.cli.main import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    for path in (files["onnx", True], files["onnx", False]):
        command = [sys.executable, "-c", script, "predict", path, picture, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        logits = open_file(files["onnx", True]).run(data.images[5:6])[0].astype(np.float64)
        probabilities = np.exp(logits) / np.exp(logits).sum()
        names = [("ant", "bee", "cat")[number] for number in np.argsort(-probabilities)]
        assert [entry["name"] for entry in found["classes"]] == names
        assert [entry["probability"] for entry in found["classes"]] == pytest.approx(
            sorted(probabilities)[::-1], abs=1e-5
        )


def test_the_page_has_what_runs(files, data, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "shipping.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    Image.fromarray(data.images[5].transpose(1, 2, 0)).save(tmp_path / "cat.png")
    (tmp_path / "student.onnx").write_bytes(files["onnx", True].read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    said = capsys.readouterr().out
    assert main(["predict", "student.onnx", "cat.png", "--top", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"cat.png   {said.strip()} ")


def test_predict_refuses_what_is_no_image(files, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"no image")
    assert main(["predict", str(files["onnx", True]), str(tmp_path / "a.png")]) == 1
    assert "a.png cannot be read as an image" in capsys.readouterr().err
    assert main(["predict", str(files["onnx", True]), str(tmp_path / "b.png")]) == 2
    assert "b.png does not exist; expected an image, or a folder of images" in capsys.readouterr().err
    assert main(["predict", str(tmp_path), str(tmp_path / "a.png")]) == 2
    assert (
        f"{tmp_path} holds no exported file; expected one, as `export` writes it: name the file"
        in capsys.readouterr().err
    )


def test_predict_of_a_folder_is_that_of_its_images(files, data, tmp_path, capsys):
    for number in range(3):
        Image.fromarray(data.images[number].transpose(1, 2, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    said = []
    for images in ([str(tmp_path)], paths):
        assert main(["predict", str(files["onnx", True]), *images]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert said[0].count("\n") == 3


OWN = """
from torch import nn

def small(num_classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
"""


def test_export_of_own_code_with_its_weights(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_small_nets.py").write_text(OWN)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    torch.save(module.state_dict(), "own.pt")
    command = ["export", "own_small_nets:small", "--weights", "own.pt", "--data", "tiny", "--out", "own.onnx"]
    assert main(command) == 0, capsys.readouterr().err
    train, test = tiny.data()
    answers = open_file(tmp_path / "own.onnx").run(test.images)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (train.mean, train.std))
    with torch.no_grad():
        expected = module((torch.from_numpy(test.images) / 255 - mean) / std)
    torch.testing.assert_close(torch.from_numpy(answers), expected, rtol=1e-4, atol=1e-4)


def test_measure_of_a_file(files, capsys):
    assert main(["measure", str(files["onnx", True]), "--seconds", "0.01", "--batch-size", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file_bytes"] == files["onnx", True].stat().st_size
    assert [(entry["runtime"], entry["batch"]) for entry in found["latency"]] == [
        ("ONNX Runtime", 1),
        ("ONNX Runtime", 4),
    ]


def test_measure_without_onnx_runtime_says_what_to_install(monkeypatch, capsys):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    assert main(["measure", "resnet8", "--seconds", "0.01", "--batch-size", "2", "--json"]) == 0
    told = capsys.readouterr()
    assert [entry["runtime"] for entry in json.loads(told.out)["latency"]] == ["PyTorch", "PyTorch"]
    assert "pip install 'model-compression[export]'" in told.err


@pytest.mark.slow
def test_the_whole_way_from_a_run_to_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train = ["train", "--student", "resnet8", "--data", "synthetic", "--epochs", "1", "--out", "run"]
    assert main(train) == 0
    assert main(["export", "run", "--out", "a.onnx", "--data", "synthetic"]) == 0
    assert main(["export", "run", "--out", "a.onnx", "--data", "synthetic"]) == 2
    assert main(["verify", "a.onnx", "--model", "run", "--data", "synthetic"]) == 0
    assert main(["verify", "a.onnx", "--model", "run", "--data", "synthetic", "--bound", "1e-12"]) == 1
    capsys.readouterr()
    assert main(["measure", "run", "--seconds", "0.05", "--batch-size", "8"]) == 0
    text = capsys.readouterr().out
    assert "PyTorch, batch 8" in text
    assert "ONNX Runtime, batch 1" in text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ["ant"]},
        {"class_names": ["ant", "bee", "\x1b[31m"]},
        {"preprocessing_inside": False},
        {"image_shape": [3, 9, 9]},
        {"image_shape": [3, 10**5, 10**5]},
        {"mean": ["x", 0, 0]},
    ],
)
def test_a_file_that_does_not_do_what_it_says_is_refused(files, tmp_path, change):
    model = onnx.load(files["onnx", True])
    said = json.loads(model.metadata_props[0].value)
    model.metadata_props[0].value = json.dumps(said | change)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(FileFormatError, match=r"a\.onnx"):
        open_file(tmp_path / "a.onnx")


def test_verify_refuses_data_of_other_classes(files, network, data):
    import dataclasses

    other = dataclasses.replace(data, class_names=("bee", "ant", "cat"))
    with pytest.raises(UsageError, match="knows the classes ant, bee, cat"):
        verify(files["onnx", True], network, other)
