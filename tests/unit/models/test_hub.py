"""Networks on the hub: what `push` uploads to a stand-in is there, and hub:USER/REPO is the same network."""

import json
import sys

import pytest
import torch

from model_compression.cli.main import main
from model_compression.core.errors import FileFormatError, MissingExtraError, ModelCompressionError, UsageError
from model_compression.engine.runs import start_run
from model_compression.models.hub import fetch
from model_compression.models.loading import load_model

from .fake_hub import COMMIT, TOKEN, serving

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the hub's client uses its HTTP library so


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    with serving() as served:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        template = f"{served.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # that protocol is not the stand-in's
        yield served


@pytest.fixture
def run(tiny, tmp_path):
    start_run(tiny.config(epochs=1), tmp_path / "run")
    (tmp_path / "run" / "student.onnx").write_bytes(b"exported")
    (tmp_path / "run" / "notes.txt").write_text("mine alone")
    return tmp_path / "run"


def same_weights(one, other):
    return all(torch.equal(one.state_dict()[name], tensor) for name, tensor in other.state_dict().items())


def test_pushed_run_is_on_the_hub_and_loads_with_one_call(hub, run, capsys):
    assert main(["push", str(run), "me/tiny", "--private"]) == 0
    assert f"uploaded to {hub.address}/me/tiny; load it as hub:me/tiny" in capsys.readouterr().out
    metrics = json.loads((run / "metrics.json").read_text())
    ((message, files),) = hub.repositories["me/tiny"]["commits"]
    assert message == f"test accuracy {metrics['test_accuracy']:.2%}, seed 0"
    assert hub.repositories["me/tiny"]["private"]
    assert files.keys() >= {"student.safetensors", "metrics.json", "config.json", "environment.json", "student.onnx"}
    assert not files.keys() & {"notes.txt", "predictions.safetensors"}
    for name, content in files.items():
        assert content == (run / name).read_bytes()
    for name in ("hub:me/tiny", "hub:me/tiny@main", f"hub:me/tiny@{COMMIT}"):
        assert same_weights(load_model(name), load_model(str(run)))


def test_second_push_is_another_commit_of_the_same_repository(hub, run):
    assert main(["push", str(run), "me/tiny"]) == 0
    (run / "student.onnx").write_bytes(b"exported anew")
    assert main(["push", str(run), "me/tiny"]) == 0
    assert not hub.repositories["me/tiny"]["private"]
    assert [files["student.onnx"] for _, files in hub.repositories["me/tiny"]["commits"]] == [
        b"exported",
        b"exported anew",
    ]


def test_dry_run_lists_the_files_and_uploads_nothing(hub, run, capsys):
    assert main(["push", str(run), "me/tiny", "--dry-run", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["address"] is None
    assert listed["files"]["student.onnx"] == 8
    assert hub.repositories == {}


def test_fetched_network_serves_where_the_hub_is_not_reached(hub, run, monkeypatch):
    from huggingface_hub import constants

    assert main(["push", str(run), "me/tiny"]) == 0
    fetch("hub:me/tiny")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert same_weights(load_model("hub:me/tiny"), load_model(str(run)))
    with pytest.raises(ModelCompressionError, match=r"hub:me/other: http://127.0.0.1:9 is not reached, and no copy"):
        fetch("hub:me/other")


def test_push_without_the_right_token_says_how_to_log_in(hub, run, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["push", str(run), "me/tiny"]) == 1
    assert "the hub did not take me/tiny: it does not know you" in capsys.readouterr().err
    assert hub.repositories == {}


@pytest.mark.parametrize("repo", ["tiny", "me/tiny/more", "me/tiny@main", "", "me/ti ny"])
def test_push_to_what_is_no_repository_is_refused(hub, run, repo, capsys):
    assert main(["push", str(run), repo]) == 2
    assert f"is named USER/REPO, got {repo!r}" in capsys.readouterr().err


def test_push_of_what_cannot_be_pushed_is_refused(hub, run, tmp_path, capsys):
    metrics = (run / "metrics.json").read_text()
    (run / "metrics.json").write_text('{"test_accuracy": 1.0}')
    assert main(["push", str(run), "me/tiny", "--dry-run"]) == 1
    assert "metrics.json was changed after it was finished" in capsys.readouterr().err
    (run / "metrics.json").unlink()
    assert main(["push", str(run), "me/tiny"]) == 1
    assert "metrics.json is missing" in capsys.readouterr().err
    assert main(["push", str(tmp_path / "none"), "me/tiny"]) == 2
    assert "none is not there; expected the folder of a run" in capsys.readouterr().err
    assert main(["push", str(tmp_path), "me/tiny"]) == 1
    assert "is no run folder" in capsys.readouterr().err
    (run / "metrics.json").write_text(metrics)
    (run / "README.md").unlink()  # as in runs of before
    run.rename(tmp_path / "final")
    assert main(["push", str(tmp_path), "me/tiny"]) == 0  # as `prune` leaves it
    assert b"library_name" in hub.files("me/tiny")["README.md"]


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_push_follows_no_symbolic_link(hub, run, tmp_path, capsys, options):
    (tmp_path / "secret").write_text("of nobody's business")
    (run / "other.onnx").symlink_to(tmp_path / "secret")
    assert main(["push", str(run), "me/tiny", *options]) == 1
    assert f"{run / 'other.onnx'} is a symbolic link, which push does not follow" in capsys.readouterr().err
    (run / "other.onnx").unlink()
    (tmp_path / "pruned").mkdir()
    (tmp_path / "pruned" / "final").symlink_to(run)
    assert main(["push", str(tmp_path / "pruned"), "me/tiny", *options]) == 1
    assert f"{tmp_path / 'pruned' / 'final'} is a symbolic link" in capsys.readouterr().err
    assert hub.repositories == {}


def test_push_takes_the_files_it_lists_and_no_others_by_pattern(hub, run):
    (run / "*.onnx").write_bytes(b"a name that is a pattern")
    (run / "folder").mkdir()
    (run / "folder" / "deeper.onnx").write_bytes(b"stays here")
    assert main(["push", str(run), "me/tiny"]) == 0
    assert {name for name in hub.files("me/tiny") if name.endswith("onnx")} == {"*.onnx", "student.onnx"}


@pytest.mark.parametrize("name", ["hub:", "hub:me/tiny@", "hub:../../etc"])
def test_names_of_another_form_are_refused(hub, name):
    with pytest.raises(UsageError, match="expected hub:USER/REPO or hub:USER/REPO@REVISION"):
        load_model(name)


@pytest.mark.parametrize("name", ["hub:me/absent", "hub:me/empty", "hub:me/empty@v9"])
def test_networks_that_are_not_there_are_named(hub, name):
    hub.repositories["me/empty"] = {"private": False, "commits": [("", {"README.md": b""})]}
    with pytest.raises(FileFormatError, match=rf"^{name}: there is no student.safetensors there"):
        load_model(name)


def test_file_of_a_stranger_is_checked_as_any_other(hub):
    hub.repositories["me/bad"] = {"private": False, "commits": [("", {"student.safetensors": b"no tensors"})]}
    with pytest.raises(FileFormatError, match="is not a readable safetensors file"):
        load_model("hub:me/bad")


def test_missing_client_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'model-compression\[hub\]'"):
        load_model("hub:me/tiny")
