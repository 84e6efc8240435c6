"""The public functions: each has an example, which runs as it stands, and the name of the command that calls it."""

import doctest
import inspect
import logging

import numpy as np
import pytest
import torch

import model_compression as mc
from model_compression.cli.main import COMMANDS

FUNCTIONS = (
    "train", "distill", "resume", "evaluate", "prune", "quantize", "export", "verify", "predict", "compress",
    "compare_methods", "reproduce", "search", "report", "measure", "doctor", "push", "pack",
)  # fmt: skip
_SLOW = {"compare_methods", "compress", "prune", "reproduce", "search"}
_CALLED = {"evaluate": "test"}  # function → the command of another name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with the runs "labels" and "distilled", as the examples begin with."""
    path = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        mc.train("lenet", "synthetic", epochs=2, run_dir="runs/labels", precision="fp32")
        mc.distill("runs/labels", "lenet", "synthetic", epochs=1, run_dir="runs/distilled", precision="fp32")
        mc.export("runs/labels", "student.onnx")
    return path


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in _SLOW else ()) for name in FUNCTIONS]
)
def test_example_of_a_function_runs_as_it_stands(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    (found,) = doctest.DocTestFinder(recurse=False).find(getattr(mc, name), name, globs={"mc": mc, "torch": torch})
    assert found.examples
    runner = doctest.DocTestRunner(optionflags=options)
    said = []
    runner.run(found, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_documented(name):
    function = getattr(mc, name)
    text = inspect.getdoc(function)
    for argument in inspect.signature(function).parameters:
        assert f"\n    {argument}: " in text, argument


def test_each_function_has_the_name_of_its_command():
    assert {_CALLED.get(name, name).replace("_", "-") for name in FUNCTIONS} <= COMMANDS.keys()


def test_wrong_call_names_the_function():
    for call in (lambda: mc.evaluate("lenet", "synthetic", image_size=32), lambda: mc.prune("runs/labels"), mc.export):
        with pytest.raises(TypeError, match=r"^(evaluate|prune|export)\(\) (got an unexpected|missing a required)"):
            call()


def test_finished_run_names_the_call_that_trains_it_for_more_epochs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(mc.ModelCompressionError, match=r"model_compression\.train\('runs/labels', data, epochs=N\)$"):
        mc.resume("runs/labels")
    with pytest.raises(mc.ModelCompressionError, match=r"\.distill\(teacher, 'runs/distilled', data, epochs=N\)$"):
        mc.resume("runs/distilled")


def test_exporting_leaves_the_root_logger_without_handlers(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(logging.root, "handlers", [])  # as in a program that sets up no logging
    mc.quantize("runs/labels", max_drop=100.0)
    assert logging.root.handlers == []


def test_report_is_printed_in_one_short_line(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert repr(mc.report("runs/labels")) == "<report: lenet on synthetic, labels only, 2 epochs, 1 run>"


def test_report_on_no_runs_is_refused():
    with pytest.raises(mc.ModelCompressionError, match="needs at least one run folder"):
        mc.report([])


class Coded(torch.nn.Module):
    """Reads the class from the first pixel, as it expects it, in the given order."""

    def __init__(self, order, bounds):
        super().__init__()
        self.order, self.bounds = torch.tensor(order), bounds
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images):
        code = sum((images[:, 0, 0, 0] > bound).long() for bound in self.bounds)
        return 9 * torch.nn.functional.one_hot(self.order[code], 3).float() * self.weight


@pytest.mark.parametrize(
    ("order", "bounds", "said"),
    [
        ([0, 1, 2], (0.25, 0.75), "normalisation of the module"),  # it wants 0 to 1, as it comes
        ([1, 2, 0], (-0.6, 0.6), "class order of the module"),
        ([0, 1, 2], (-0.6, 0.6), ""),
    ],
)
def test_module_with_other_pixels_or_classes_is_not_measured_in_silence(order, bounds, said, caplog):
    labels = np.arange(120) % 3
    images = np.zeros((120, 3, 4, 4), dtype=np.uint8)
    images[:, 0] = np.array([0, 128, 255], dtype=np.uint8)[labels][:, None, None]
    found = mc.evaluate(Coded(order, bounds), (images, labels, images, labels), progress=False)
    assert (found.value == 1.0) == (not said)
    assert (said in caplog.text) if said else not caplog.text
