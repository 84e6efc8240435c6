"""search as a person types it, on the tiny data, with its runs made in this process."""

import hashlib
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from model_compression.cli.main import main
from model_compression.core.errors import Interrupted
from model_compression.core.options import speaking_flags
from model_compression.data.sources import DATASETS
from model_compression.experiments import executor
from model_compression.experiments import worker as run_worker
from model_compression.experiments.processes import MachineError, RunError
from model_compression.experiments.search_results import judged

SEARCH = ["search", "--student", "tiny", "--data", "tiny", "--validation", "6", "--epochs", "2", "--batch-size", "8"]
SEARCH += ["--precision", "fp32", "--device", "cpu", "--optimizer", "adamw", "--trials", "3", "--out", "results/s"]
SEARCH += ["--tune", "lr=1e-3:1e-1:log", "--tune", "batch_size=4,8"]


@pytest.fixture
def command(tiny, tmp_path, monkeypatch, capsys):
    """Function that runs a command in a folder of its own; returns (exit code, stdout, stderr).

    ``command.made`` are the folders of the runs that were made; ``command.work``, given (task, watch, stop), takes the
    place of a process where it is set.
    """
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(tiny.teacher) if argument == "TEACHER" else str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    def in_this_process(task, watch, stop, *, debug, environment):
        if task["task"] == "prepare":
            return run_worker._prepare(task, watch)
        run.made.append(task["folder"].rpartition("/")[2])
        return (run.work or (lambda task, watch, stop: run_worker._train(task, watch)))(task, watch, stop)

    run.made, run.work = [], None
    monkeypatch.setattr(executor, "run_isolated", in_this_process)
    return run


def made_up(value_of, epochs=2):
    """What a process would do: reports ``value_of`` the configuration after each epoch until it is stopped."""

    def work(task, watch, stop):
        config = task["config"]
        eval_set = "validation" if config["data"]["validation"] else "test"
        value = value_of(config)
        for epoch in range(1, epochs + 1):
            watch({"epoch": epoch, "score": value})
            for _ in range(100 if epoch < epochs else 0):  # a process runs on until it is stopped
                if stop:
                    raise Interrupted("stopped")
                time.sleep(0.002)
        metrics = {f"{eval_set}_accuracy": value, "parameters": 1}
        folder = Path(task["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "environment.json").write_text("{}")
        (folder / "events.jsonl").write_text("")
        return {"metrics": metrics, "seconds_per_epoch": 1.0}

    return work


def test_search_makes_run_folders_on_held_out_images_and_ends_on_the_test_set(command, tmp_path):
    code, out, err = command(*SEARCH, "--final-seeds", "2")
    assert code == 0, err
    trials = command.made[:3]
    assert trials == ["trial-000", "trial-001", "trial-002"]
    content = json.loads((tmp_path / "results/s/search.json").read_text())
    for trial, folder in zip(content["trials"], trials, strict=True):
        run = tmp_path / "runs/s" / folder
        metrics, config = (json.loads((run / f"{name}.json").read_text()) for name in ("metrics", "config"))
        assert trial["score"] == metrics["validation_accuracy"]
        assert not [key for key in metrics if key.startswith("test_")]
        assert trial["settings"] == {"lr": config["optim"]["lr"], "batch_size": config["batch_size"]}
        assert (config["data"]["validation"], config["seed"]) == (6, 0)
    assert content["trials"][0]["settings"] == {"lr": 1e-3, "batch_size": 8}
    final = command.made[3:]
    if content["best"]:
        assert sorted(final) == sorted(
            f"{arm}-seed{seed}" for arm in ("default", f"trial-{content['best']}") for seed in (1, 2)
        )
        config = json.loads((tmp_path / "runs/s/final/default-seed1/config.json").read_text())
        assert config["data"]["validation"] == 0
    assert content["verdict"] in out
    command.made.clear()
    assert command(*SEARCH, "--final-seeds", "2")[:2] == (0, out)
    assert command.made == []


def test_better_settings_are_found_and_proven_on_fresh_seeds(command):
    command.work = made_up(lambda config: 0.5 + 0.1 * (config["batch_size"] == 4) + 0.001 * (config["seed"] % 2))
    code, out, _ = command(*SEARCH, "--json", "--trials", "8")
    content = json.loads(out)
    best = content["trials"][content["best"]]
    assert (code, best["settings"]["batch_size"]) == (0, 4)
    (gain,) = content["final"]["gains"]
    assert (gain["baseline"], gain["gain"]["n"]) == ("default", 3)
    assert content["verdict"] == (
        f"Trial {content['best']} is better than the defaults: +10.00 ± 0.00 points of test accuracy over 3 fresh "
        "seeds, 95 % interval of the paired difference."
    )


def test_luck_on_the_held_out_images_is_not_called_better(command):
    """The trial is better on the images that chose it; on fresh seeds the difference is noise around 0."""
    noise = {("default", 1): 0.01, ("default", 2): 0.0, ("default", 3): 0.03}

    def luck(config):
        arm = "default" if config["batch_size"] == 8 else "other"
        if config["data"]["validation"]:
            return 0.6 if arm == "other" else 0.5
        return 0.5 + noise.get((arm, config["seed"]), 0.015)

    command.work = made_up(luck)
    _, out, _ = command(*SEARCH, "--json", "--trials", "8")
    verdict = json.loads(out)["verdict"]
    assert "is not decided: " in verdict
    assert (
        "the 95 % interval of the paired difference covers 0. Keep the defaults, or give more --final-seeds." in verdict
    )


@pytest.mark.parametrize(
    ("mean", "width", "n", "words"),
    [
        (0.02, 0.01, 3, "Trial 4 is better than the defaults: +2.00 ± 1.00 points"),
        (-0.02, 0.01, 3, "Trial 4 is worse than the defaults: -2.00 ± 1.00 points"),
        (0.02, 0.03, 3, "Whether trial 4 is better than the defaults is not decided: +2.00 ± 3.00 points"),
        (0.0, 0.0, 3, "is not decided"),
        (0.02, None, 1, "One seed gives no interval: give --final-seeds 3."),
    ],
)
def test_verdict_follows_the_interval_of_the_paired_difference(mean, width, n, words):
    gain = {"n": n, "mean": mean, "half_width": width}
    with speaking_flags():
        said = judged({"gains": [{"arm": "trial-4", "baseline": "default", "gain": gain}]}, 4)
    assert words in said
    assert "judged" not in said


def test_defaults_that_no_trial_beats_are_kept_without_final_runs(command):
    command.work = made_up(lambda config: 0.9 if config["optim"]["lr"] == 1e-3 else 0.1)
    code, out, _ = command(*SEARCH)
    assert code == 0
    assert "No trial was better than the defaults on the held-out images: keep the defaults." in out
    assert not [name for name in command.made if "seed" in name]


def test_trial_below_the_median_is_stopped_after_its_first_epoch(command):
    command.work = made_up(lambda config: 0.9 if config["optim"]["lr"] == 1e-3 else 0.5 - config["optim"]["lr"])
    _, out, err = command(*SEARCH, "--json", "--trials", "12")
    trials = json.loads(out)["trials"]
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned
    assert {trial["epochs"] for trial in pruned} == {1}
    assert {trial["epochs"] for trial in trials if trial["state"] == "complete"} == {2}
    assert all(trial["number"] >= 5 for trial in pruned)
    assert err.count("pruned: below the median of the trials so far") == len(pruned)


def test_failed_trial_is_listed_and_the_others_go_on(command):
    value = made_up(lambda config: 0.5)

    def work(task, watch, stop):
        if task["folder"].endswith("001"):
            raise RunError("the loss exploded")
        return value(task, watch, stop)

    command.work = work
    code, out, _ = command(*SEARCH, "--json", "--final-seeds", "0")
    trials = json.loads(out)["trials"]
    assert code == 0
    assert [trial["state"] for trial in trials] == ["complete", "failed", "complete"]
    assert trials[1]["reason"] == "the loss exploded"


def test_a_full_disk_ends_the_search_and_no_trial_counts_as_failed(command):
    def work(task, watch, stop):
        if len(command.made) == 2:
            raise MachineError("the disk is full; free some space")
        return made_up(lambda config: 0.5)(task, watch, stop)

    command.work = work
    code, out, err = command(*SEARCH, "--final-seeds", "0")
    assert (code, out) == (1, "")
    assert "the disk is full; free some space; then give the same command again: it goes on from there" in err
    assert command(*SEARCH, "--final-seeds", "0")[0] == 0
    assert command.made == ["trial-000", "trial-001", "trial-001", "trial-002"]


def test_search_in_which_every_trial_fails_says_why(command):
    def work(task, watch, stop):
        raise RunError("the loss exploded")

    command.work = work
    code, out, _ = command(*SEARCH)
    assert code == 1
    assert "No trial has a result: the loss exploded" in out


def test_interrupted_search_goes_on_with_the_trial_that_it_was_in(command, tmp_path):
    value = made_up(lambda config: 0.5)

    def work(task, watch, stop):
        if task["folder"].endswith("001"):
            os.kill(os.getpid(), signal.SIGTERM)
            while not stop:
                watch({})
            raise Interrupted("stopped")
        return value(task, watch, stop)

    command.work = work
    code, out, err = command(*SEARCH, "--final-seeds", "0")
    assert (code, out) == (143, "")
    assert err.splitlines()[-1].endswith("what is done is saved; the same command goes on from there")
    command.work, command.made[:] = value, []
    code, out, _ = command(*SEARCH, "--final-seeds", "0", "--json")
    assert (code, command.made) == (0, ["trial-001", "trial-002"])
    assert [trial["number"] for trial in json.loads(out)["trials"]] == [0, 1, 2]


def test_trials_at_once_are_the_same_runs_as_trials_in_turn(command):
    command.work = made_up(lambda config: config["optim"]["lr"])  # threads would share torch's generator
    found = []
    for jobs in (1, 3):
        options = [*SEARCH, "--final-seeds", "0", "--json", "--out", f"results/jobs{jobs}", "--jobs", jobs]
        trials = json.loads(command(*options)[1])["trials"]
        assert [trial["number"] for trial in trials] == [0, 1, 2]
        found.append({json.dumps(trial["settings"]): trial for trial in trials})
    in_turn, at_once = found
    assert in_turn.keys() == at_once.keys()  # the first trials are drawn from their numbers alone
    assert len(in_turn) == 3
    for settings, trial in in_turn.items():
        if {trial["state"], at_once[settings]["state"]} == {"complete"}:  # which is pruned depends on who has ended
            assert trial["score"] == at_once[settings]["score"]


def test_method_and_teacher_are_tuned_as_those_of_distill(command, tmp_path):
    code, _, err = command(*SEARCH[:-4], "--teacher", "TEACHER", "--trials", "2", "--final-seeds", "0")
    assert code == 0, err
    config = json.loads((tmp_path / "runs/s/trial-001/config.json").read_text())
    assert config["method"]["name"] == "kd"
    assert 1 <= config["method"]["params"]["temperature"] <= 20
    assert 0.09 <= config["method"]["weights"]["kd"] <= 9


PLAIN = [*SEARCH[: SEARCH.index("--batch-size")], "--precision", "fp32", "--device", "cpu", "--out", "results/s"]


def test_the_first_trial_has_what_a_run_without_options_chooses(command, tmp_path):
    """Not the values of `TrainConfig`, which no such run has; and so has the arm of the defaults in the end."""
    command.work = made_up(lambda config: 1 - config["optim"]["lr"])
    tune = ["--tune", "lr=1e-5:1e-1:log", "--tune", "batch_size=4,32", "--tune", "shift=0,1", "--trials", "3"]
    code, _, err = command(*PLAIN, *tune, "--final-seeds", "1")
    assert code == 0, err
    assert command("train", *PLAIN[1:-2], "--out", "own")[0] == 0
    own = json.loads((tmp_path / "own/config.json").read_text())
    content = json.loads((tmp_path / "results/s/search.json").read_text())
    first = content["trials"][0]["settings"]
    assert (own["optim"]["optimizer"], own["optim"]["lr"]) == ("adamw", pytest.approx(2e-3))
    assert first == {"lr": own["optim"]["lr"], "batch_size": own["batch_size"], "shift": own["data"]["shift"]}
    final = json.loads((tmp_path / "results/s/final/default-seed1.json").read_text())["config"]
    assert final["optim"] == own["optim"]
    assert {**final["data"], "validation": 6} == own["data"]


def test_a_search_of_an_earlier_version_goes_on(command, tmp_path):
    """What its configuration did not have yet had its default; the name of the study is that of before."""
    command.work = made_up(lambda config: 0.5)
    assert command(*SEARCH, "--final-seeds", "0")[0] == 0
    results, journal = tmp_path / "results/s/search.json", tmp_path / "results/s/study.journal"
    content, written = json.loads(results.read_text()), journal.read_text()
    del content["config"]["sync_batchnorm"]
    identity = json.dumps({"config": content["config"], "tune": content["tune"]}, sort_keys=True)
    name = json.loads(written.splitlines()[0])["study_name"]
    before = f"{name.rpartition('-')[0]}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    results.write_text(json.dumps(content))
    journal.write_text(written.replace(name, before))
    command.made.clear()
    assert command(*SEARCH, "--final-seeds", "0", "--trials", "4")[0] == 0
    assert command.made == ["trial-003"]


def test_folder_of_another_search_is_refused(command):
    command.work = made_up(lambda config: 0.5)
    assert command(*SEARCH, "--final-seeds", "0")[0] == 0
    for change, said in ((["--lr", "0.01"], "optim.lr"), (["--tune", "weight_decay"], "--tune (lr=0.001:0.1:log, ")):
        code, _, err = command(*SEARCH, "--final-seeds", "0", *change)
        assert (code, err.count("\n")) == (1, 1)
        assert f"results/s holds a search with another {said}" in err


def test_trials_on_data_that_changed_are_not_mixed_in(command, monkeypatch):
    command.work = made_up(lambda config: 0.5)
    assert command(*SEARCH, "--final-seeds", "0")[0] == 0
    with monkeypatch.context() as patch:
        relabelled = [replace(one, labels=(one.labels + 1) % 3, digest="") for one in DATASETS.get("tiny")()]
        patch.setitem(DATASETS._entries, "tiny", lambda *_, **__: relabelled)
        code, _, err = command(*SEARCH, "--final-seeds", "0", "--trials", "4")
    assert code == 1
    assert "the data changed since the results in results/s were made" in err
    assert command(*SEARCH, "--final-seeds", "0", "--trials", "4")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--validation", "0"], "--validation 5000, or about a tenth of your training images"),
        (["--trials", "0"], "--trials must be at least 1"),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--final-seeds", "-1"], "--final-seeds must be at least 0 and at most 1,000, got -1"),
        (["--tune", "rate"], "unknown name in --tune: 'rate'"),
        (["--param", "temperature=2"], "options of teacher and method have no effect on runs of train: give --teacher"),
        (["--teacher-cache", "off"], "options of teacher and method have no effect on runs of train: give --teacher"),
        (["--validation", "22"], "cannot hold out 22 of 22 images of tiny; choose 1 to 21"),
        (["--storage", "sqlite:////not/there/x.db"], "--storage sqlite:////not/there/x.db cannot be opened"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_leaves_nothing(command, tmp_path, arguments, message):
    code, out, err = command(*SEARCH, *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert message in err
    assert not list(tmp_path.glob("*"))
