"""compare-methods as a person types it, on the tiny data, with its runs made in this process."""

import json
import os
import re
import shlex
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from model_compression.cli import compare_methods
from model_compression.cli.main import Parser, main
from model_compression.core.errors import Interrupted
from model_compression.data.sources import DATASETS
from model_compression.distillation.methods import METHODS
from model_compression.experiments import executor
from model_compression.experiments import worker as run_worker
from model_compression.experiments.processes import RunError

DOCS = Path(__file__).parents[3] / "docs"


def blocks(page):
    """The commands of a page."""
    return re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)


FAST = ["--student", "tiny", "--data", "tiny", "--epochs", "2", "--batch-size", "8", "--precision", "fp32"]
FAST += ["--device", "cpu", "--optimizer", "adamw", "--lr", "5e-3"]
COMPARE = ["compare-methods", *FAST, "--teacher", "TEACHER", "--out", "results/r", "--seeds", "1"]


@pytest.fixture
def command(tiny, tmp_path, monkeypatch, capsys):
    """Function that runs a command in a folder of its own; returns (exit code, stdout, stderr). TEACHER is one.

    ``command.made`` are the runs that were made, by folder; ``command.errors`` makes the errors of some.
    """
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(tiny.teacher) if argument == "TEACHER" else str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    def in_this_process(task, watch, stopped, *, debug, environment):
        said = []
        if task["task"] == "prepare":
            return run_worker._prepare(task, said.append)
        run.made.append(name := task["folder"].rpartition("/")[2])
        if name in run.errors:
            raise run.errors[name]()
        return run_worker._train(task, said.append)

    run.made, run.errors = [], {}
    monkeypatch.setattr(executor, "run_isolated", in_this_process)
    return run


def read(path):
    return json.loads(path.read_text())


def test_each_method_has_the_run_that_distill_and_train_make(command, tmp_path):
    code, out, _ = command(*COMPARE, "--methods", "kd,at+kd", "--seed", 3)
    assert code == 0
    assert command.made == ["labels-seed3", "kd-seed3", "at+kd-seed3"]
    assert command("train", *FAST, "--seed", 3, "--out", "own/labels-seed3")[0] == 0
    for name, method in (("kd", "kd"), ("at+kd", "at,kd")):
        options = [*FAST, "--teacher", "TEACHER", "--method", method, "--seed", 3, "--out", f"own/{name}-seed3"]
        assert command("distill", *options)[0] == 0
    for name in command.made:
        for file in ("student.safetensors", "events.jsonl"):
            assert (tmp_path / "runs/r" / name / file).read_bytes() == (tmp_path / "own" / name / file).read_bytes()
        record, metrics = read(tmp_path / f"results/r/{name}.json"), read(tmp_path / "own" / name / "metrics.json")
        assert record["metrics"]["test_accuracy"] == metrics["test_accuracy"]
        assert record["peak_memory_bytes"] > 50 * 2**20
        assert record["seconds_per_epoch"] > 0
        assert len(record["events"]) == 2
    assert "tiny learns from teacher: tiny, 2 epochs" in out
    assert "over label-only" in out
    assert out.splitlines()[-2:] == ["results/r/table.md", "results/r/comparison.png"]


def test_runs_without_options_share_one_recipe_which_table_and_records_name(command, tmp_path):
    """Beyond 16 epochs a student of a teacher sees 16 views in turn: labels too, as runs are compared in pairs."""
    plain = ["compare-methods", *FAST[:4], "--epochs", "17", *FAST[8:10], "--device", "cpu", "--teacher", "TEACHER"]
    plain += ["--seeds", "1", "--out", "results/r"]
    code, _, err = command(*plain, "--methods", "kd,tf_kd")
    assert code == 0, err
    recipes = []
    for name in command.made:
        config = read(tmp_path / "runs/r" / name / "config.json")
        recipes.append([config["optim"], config["data"], config["batch_size"]])
        recorded = read(tmp_path / f"results/r/{name}.json")["config"]
        assert [recorded["optim"], recorded["data"], recorded["batch_size"]] == recipes[-1]
    assert len(recipes) == 3
    assert recipes[0] == recipes[1] == recipes[2]
    assert recipes[0][1]["views"] == 16
    table = (tmp_path / "results/r/table.md").read_text()
    assert f"batch {recipes[0][2]}; adamw, rate {recipes[0][0]['lr']:g}, one_cycle, weight decay 0.02" in table
    assert command(*plain, "--methods", "kd,tf_kd,logits")[0] == 0  # the records are of this recipe
    code, _, err = command(*plain, "--methods", "kd,dkd", "--lr", "0.1")
    assert (code, "with another optim.lr" in err) == (1, True)


def test_what_is_recorded_is_not_run_again_and_more_methods_and_seeds_are_added(command, tmp_path):
    assert command(*COMPARE, "--methods", "kd")[0] == 0
    before = (tmp_path / "results/r/kd-seed0.json").read_bytes()
    command.made.clear()
    assert command(*COMPARE, "--methods", "kd")[0] == 0
    assert command.made == []
    code, out, _ = command(*COMPARE, "--methods", "kd,logits", "--seeds", 2, "--json")
    assert command.made == ["logits-seed0", "labels-seed1", "kd-seed1", "logits-seed1"]
    assert (tmp_path / "results/r/kd-seed0.json").read_bytes() == before
    content = json.loads(out)
    assert (code, content["results"], {row["arm"]: row["seeds"] for row in content["rows"]}) == (
        0,
        "results/r",
        {"labels": [0, 1], "kd": [0, 1], "logits": [0, 1]},
    )
    assert {(gain["arm"], gain["baseline"]) for gain in content["gains"]} == {
        ("kd", "labels"), ("logits", "labels"), ("logits", "kd"),
    }  # fmt: skip


def test_failed_run_is_a_row_and_is_tried_again(command):
    command.errors["logits-seed0"] = lambda: RunError("its process was killed")
    code, out, err = command(*COMPARE, "--methods", "logits,kd")
    assert code == 1
    assert "logits, seed 0: failed: its process was killed" in out
    assert "[2/3] logits, seed 0: failed: its process was killed" in err
    assert "\nkd " in out
    command.errors.clear()
    command.made.clear()
    code, out, _ = command(*COMPARE, "--methods", "logits,kd")
    assert (code, command.made) == (0, ["logits-seed0"])
    assert "failed" not in out


def test_method_that_cannot_run_on_the_pair_is_listed_and_the_others_run(command):
    code, out, _ = command(*COMPARE, "--methods", "fsp,kd", "--seeds", 2)
    assert code == 0
    assert command.made == ["labels-seed0", "kd-seed0", "labels-seed1", "kd-seed1"]
    assert "fsp: not run: method 'fsp' needs at least 2 pairs of layers" in out


def test_parameters_and_weights_reach_their_method_only(command, tmp_path):
    options = ["--method-param", "kd.temperature=2", "--method-weight", "kd.kd=0.7", "--method-weight", "kd.label=0.3"]
    options += ["--method-param", "at+kd.kd.temperature=3", "--pairs", "conv1=conv1", "--label-smoothing", "0.1"]
    assert command(*COMPARE, "--methods", "kd,logits,at+kd", *options)[0] == 0
    configs = {arm: read(tmp_path / f"results/r/{arm}-seed0.json")["config"] for arm in ("kd", "logits", "at+kd")}
    kd, logits, both = (configs[arm]["method"] for arm in configs)
    assert (kd["params"], kd["weights"], kd["label_weight"], kd["pairs"]) == ({"temperature": 2}, {"kd": 0.7}, 0.3, {})
    assert (logits["params"], logits["weights"], logits["label_weight"]) == ({}, {}, None)
    assert (both["name"], both["params"], both["pairs"]) == ("at,kd", {"kd.temperature": 3}, {"conv1": "conv1"})
    records = {arm: read(tmp_path / f"results/r/{arm}-seed0.json") for arm in ("kd", "logits", "at+kd")}
    last = records["kd"]["events"][-1]["terms"]
    expected = 0.3 * last["label"] / (0.3 * last["label"] + 0.7 * last["kd"])
    assert records["kd"]["label_share"] == pytest.approx(expected, rel=1e-4)
    assert records["logits"]["label_share"] == 0.0
    smoothing = {arm: config["label_smoothing"] for arm, config in configs.items()}
    assert smoothing == {"kd": 0.1, "logits": 0.0, "at+kd": 0.1}  # logits has no label loss to smooth


def test_label_only_has_its_agreement_with_the_teacher_as_well(command, tmp_path):
    assert command(*COMPARE, "--methods", "kd")[0] == 0
    record = read(tmp_path / "results/r/labels-seed0.json")
    student = load_file(tmp_path / "runs/r/labels-seed0/predictions.safetensors")["student_logits"]
    teacher = load_file(tmp_path / "runs/r/kd-seed0/predictions.safetensors")["teacher_logits"]
    expected = sum(np.argmax(s) == np.argmax(t) for s, t in zip(student, teacher, strict=True)) / 13
    assert record["metrics"]["teacher_agreement"] == pytest.approx(expected)


def test_runs_of_another_recipe_are_not_mixed_in(command):
    assert command(*COMPARE, "--methods", "kd")[0] == 0
    command.made.clear()
    for change in (["--lr", "1e-2"], ["--augmentation", "flip"], ["--label-smoothing", "0.2"]):
        code, _, err = command(*COMPARE, "--methods", "at", "--seed", 7, *change)
        assert (code, err.count("\n")) == (1, 1)
        assert "results/r holds runs with another " in err
    code, _, err = command(*COMPARE, "--methods", "kd", "--method-param", "kd.temperature=2")
    assert code == 1
    assert "kd-seed0.json was made with another method.params.temperature; choose another --out" in err
    assert command.made == []


def test_runs_on_data_that_changed_are_not_mixed_in(command, monkeypatch):
    """Their mean over seeds and their interval would be of two test sets."""
    assert command(*COMPARE, "--methods", "kd")[0] == 0
    command.made.clear()
    with monkeypatch.context() as patch:
        relabelled = [replace(one, labels=(one.labels + 1) % 3, digest="") for one in DATASETS.get("tiny")()]
        patch.setitem(DATASETS._entries, "tiny", lambda *_, **__: relabelled)
        code, _, err = command(*COMPARE, "--methods", "kd", "--seeds", 2)
    assert (code, command.made) == (1, [])
    assert "the data changed since the results in results/r were made" in err
    assert command(*COMPARE, "--methods", "kd", "--seeds", 2)[0] == 0


def test_interrupted_comparison_says_how_to_go_on_and_keeps_what_is_done(command, tmp_path):
    def stop():
        os.kill(os.getpid(), signal.SIGTERM)
        return Interrupted("stopped")

    command.errors["kd-seed0"] = stop
    code, out, err = command(*COMPARE, "--methods", "kd")
    assert (code, out) == (143, "")
    assert err.splitlines()[-1] == (
        "model-compression compare-methods: stopped in kd, seed 0; what is done is saved; the same command goes "
        "on from there"
    )
    command.errors.clear()
    command.made.clear()
    assert command(*COMPARE, "--methods", "kd")[0] == 0
    assert command.made == ["kd-seed0"]


def test_method_that_breaks_while_it_is_set_up_is_listed_as_not_run(command, monkeypatch):
    def broken(self, shapes, num_samples, num_classes):
        raise RuntimeError("shapes cannot be multiplied\nand more")

    monkeypatch.setattr(METHODS.get("dkd"), "setup", broken)
    _, out, err = command(*COMPARE, "--methods", "dkd,kd")
    assert command.made == ["labels-seed0", "kd-seed0"]
    assert "method 'dkd' fails in setup(shapes, num_samples, num_classes): RuntimeError: shapes cannot be" in " ".join(
        (out + err).split()
    )


@pytest.mark.parametrize("text", blocks("comparing.md"))
def test_commands_of_the_page_are_ones_that_there_are(text):
    program, name, *arguments = shlex.split(text.replace("\\\n", " "))
    parser = Parser(prog=name)
    compare_methods.configure(parser)
    args = parser.parse_args(arguments)
    assert (program, name, args.student) == ("model-compression", "compare-methods", "resnet8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "kdd"], "unknown method 'kdd'; did you mean 'kd'"),
        (["--methods", "kd+att"], "unknown method 'att'; did you mean 'at'"),
        (["--methods", "kd,,at"], "--methods must be all, or names with commas between them, got 'kd,,at'"),
        (["--seeds", "0"], "--seeds must be at least 1 and at most 1,000, got 0"),
        (["--methods", "kd", "--method-param", "dkd.beta=1"], "which is none of --methods: 'dkd'; did you mean 'kd'"),
        (["--methods", "kd", "--method-param", "temperature=1"], "--method-param must be METHOD.KEY=VALUE"),
        (["--methods", "kd", "--method-param", "kd.temp=1"], "unknown option of method 'kd': 'temp'"),
        (["--methods", "at", "--method-weight", "at.kd=1"], "unknown term of method 'at': 'kd'"),
        (["--methods", "kd", "--augmentation", "flip", "--cutout", "9"], "cutout must be at most the images' 8 pixels"),
        (["--methods", "kd,fsp", "--teacher", "tiny-teacher"], "network 'tiny-teacher' has no weights"),
    ],
    ids=lambda value: " ".join(map(str, value[-2:])) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_leaves_nothing(command, tmp_path, arguments, message):
    code, out, err = command(*COMPARE, *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert message in err
    assert not list(tmp_path.glob("*"))
