"""A method in a file of one's own: from the command line, with others, after a stop, and with parts forgotten."""

import re
import sys

import pytest

from model_compression.cli.main import main
from model_compression.core.config import MethodConfig
from model_compression.core.errors import Interrupted, UsageError
from model_compression.distillation.methods.base import METHODS
from model_compression.engine.runs import resume_run, start_run

SQUARES = """
from model_compression.distillation.methods.base import METHODS, Method, logit_pair

@METHODS.register("squares")
class Squares(Method):
    '''Squared differences of logits.'''

    default_weights = {"squares": 1.0}
    default_label_weight = 0.5

    def __init__(self, power: int = 2) -> None:
        super().__init__()
        self.power = power

    def forward(self, student, teacher, targets, context=None):
        s, t = logit_pair(student, teacher)
        return {"squares": ((s - t) ** self.power).mean()}
"""


@pytest.fixture
def method(tmp_path, monkeypatch):
    """Writes losses_here.py into the working folder, with changes; gives the method's name."""
    monkeypatch.chdir(tmp_path)

    def write(old="", new=""):
        assert old in SQUARES
        (tmp_path / "losses_here.py").write_text(SQUARES.replace(old, new))
        return "losses_here:squares"

    yield write
    sys.modules.pop("losses_here", None)
    METHODS._entries.pop("squares", None)


def test_named_by_its_module_it_serves_the_commands_and_goes_on_after_a_stop(tiny, method, tmp_path, watcher, capsys):
    name = method()
    assert main(["methods", name]) == 0
    assert "Squared differences of logits" in capsys.readouterr().out
    config = tiny.config(MethodConfig(name=name, params={"power": 4}, weights={"squares": 2.0}))
    whole = start_run(config, "whole")
    with pytest.raises(Interrupted):
        start_run(config, "parts", watcher(stop_after=(7,)))
    METHODS._entries.pop("squares")
    sys.modules.pop("losses_here")  # as in another process
    assert {**resume_run("parts"), "seconds": 0} == {**whole, "seconds": 0}
    assert main(["distill", "--config", "whole/config.json", "--out", "again", "--device", "cpu"]) == 0
    assert (tmp_path / "again/student.safetensors").read_bytes() == (
        tmp_path / "whole/student.safetensors"
    ).read_bytes()


def test_it_combines_with_others_under_its_own_name(tiny, method, watcher):
    config = MethodConfig(name=f"kd,{method()}", params={"squares.power": 4}, weights={"squares": 3.0})
    seen = watcher()
    start_run(tiny.config(config), "run", seen)
    terms, loss = seen.events[0]["terms"], seen.events[0]["train_loss"]
    assert set(terms) == {"label", "kd", "squares"}
    assert loss == pytest.approx(0.1 * terms["label"] + 0.9 * terms["kd"] + 3.0 * terms["squares"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('    default_weights = {"squares": 1.0}\n', "", "must have default_weights, {term: weight}, as a class or"),
        ('{"squares": 1.0}', '["squares"]', "must have default_weights, {term: weight}, as a class or"),
        ('{"squares": 1.0}', '{"squares": "1"}', "must have default_weights, {term: weight}, as a class or"),
        ('"squares": ', '"label": ', "has a term 'label', which is the label loss; give it another name"),
        ("        super().__init__()\n", "", "expected a subclass of Method, whose __init__"),
        ("power: int = 2", "power: int", "cannot be made: TypeError: Squares.__init__() missing"),
        (
            "default_label_weight = 0.5",
            'default_label_weight = 0.5\n    needs = "logits"',
            "has needs 'logits'; expected a set",
        ),
        (
            'return {"squares": ((s - t) ** self.power).mean()}',
            "return (s - t).mean()",
            "returns a Tensor; expected {term: ",
        ),
        ("((s - t) ** self.power).mean()", "1.0", "returns the term 'squares' as a float; expected a tensor"),
        ("((s - t)", "((s.detach() - t)", "returns the term 'squares' without a gradient: nothing would learn from it"),
        (
            'return {"squares": ((s - t) ** self.power).mean()}',
            "return {}",
            "returns no terms; its default_weights has",
        ),
        (
            "    def forward",
            "    def setup(self, shapes):\n        pass\n\n    def forward",
            "fails in setup(shapes, num_samples",
        ),
        ("    default_label_weight = 0.5\n", "", "must have default_label_weight, the weight of the label"),
        (
            '{"squares": 1.0}',
            '{"square": 1.0}',
            "the term 'squares', for which its default_weights has no weight",
        ),
        (
            ".mean()",
            ".mean(dim=1)",
            "the term 'squares' of shape (2,); expected a scalar, its mean",
        ),
        (
            "(s - t)",
            "(s - t[:, :2])",
            "student and teacher answer: RuntimeError: The size of tensor a",
        ),
        ("(s - t)", "teacher.embedding", "cannot compare what student and teacher answer: TypeError"),
        ('register("squares")', 'register("cubes")', "losses_here registers no method 'squares'"),
        (".mean()", ".sum()", "returns the term 'squares' as a sum over the batch: two samples give "),
        ("((s - t) ** self.power).mean()", "((s - t) ** 2).sum() / 10", "the term 'squares' as a sum over the batch"),
        ("import METHODS", "import METHODZ", "cannot import 'losses_here' of 'losses_here:squares': ImportError"),
    ],
)
def test_what_is_commonly_forgotten_is_named_before_the_run_has_a_folder(tiny, method, tmp_path, old, new, message):
    name = method(old, new)
    METHODS._entries.pop("cubes", None)
    with pytest.raises(UsageError, match=re.escape(message)):
        start_run(tiny.config(MethodConfig(name=name)), "run")
    assert not (tmp_path / "run").exists()
    METHODS._entries.pop("cubes", None)
