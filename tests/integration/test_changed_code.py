"""A run whose own method or network was edited while it was interrupted goes on, and says so."""

import hashlib
import sys

import pytest

from model_compression.core.config import MethodConfig
from model_compression.core.errors import Interrupted
from model_compression.core.user_code import digests_of_own_code
from model_compression.engine.checkpoint import load_state
from model_compression.engine.runs import resume_run, start_run

METHOD = """
from model_compression.distillation.methods.base import METHODS, Method, logit_pair

@METHODS.register("edited")
class Edited(Method):
    needs = frozenset({"logits"})
    default_label_weight = 1.0

    def __init__(self):
        super().__init__()
        self.default_weights = {"edited": 1.0}

    def forward(self, student, teacher, targets, context=None):
        s, t = logit_pair(student, teacher)
        return {"edited": (s - t).square().mean()}
"""


@pytest.fixture
def method(tmp_path, monkeypatch):
    """The name of a method in a file edited_losses.py of the working folder."""
    from model_compression.distillation.methods.base import METHODS

    monkeypatch.chdir(tmp_path)
    (tmp_path / "edited_losses.py").write_text(METHOD)
    yield "edited_losses:edited"
    sys.modules.pop("edited_losses", None)
    METHODS._entries.pop("edited", None)


@pytest.mark.parametrize("change", ["", "\n# mended"])
def test_a_change_of_a_methods_file_is_said_when_the_run_goes_on(tmp_path, tiny, watcher, method, change):
    config = tiny.config(MethodConfig(name=method))
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", watcher([7]))
    (tmp_path / "edited_losses.py").write_text(METHOD + change)
    resume_run(tmp_path / "run", seen := watcher())
    said = [text for text in seen.messages if text.startswith("edited_losses changed since the state of ")]
    assert len(said) == bool(change)


def test_a_state_knows_the_files_of_a_run_by_their_digests(tmp_path, tiny, watcher, method):
    with pytest.raises(Interrupted):
        start_run(tiny.config(MethodConfig(name=method)), tmp_path / "run", watcher([7]))
    state = load_state(tmp_path / "run" / "state.safetensors")
    assert state.progress["code"] == {"edited_losses": hashlib.sha256(METHOD.encode()).hexdigest()}


def test_installed_code_and_our_own_are_no_users_code():
    import torch

    from model_compression.models import create_model

    assert digests_of_own_code([torch.nn.Linear(1, 1), create_model("lenet"), {}, object()]) == {}
