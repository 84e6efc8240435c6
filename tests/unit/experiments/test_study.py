"""The trials of a search in a shared storage: a known optimum is found, processes join, and the dead are replaced."""

import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from model_compression.core.errors import ModelCompressionError, UsageError
from model_compression.experiments import study as studies
from model_compression.experiments.search_space import Tuned
from model_compression.experiments.study import Study, number_of

SPACE = [
    Tuned(name="lr", place="optim.lr", kind=float, low=1e-5, high=1.0, log=True),
    Tuned(name="batch_size", place="batch_size", kind=int, choices=(16, 32, 64)),
]
DEFAULTS = {"lr": 1e-4, "batch_size": 16}


def opened(storage, wanted, seed=0, space=SPACE):
    return Study("made-up", str(storage), space, DEFAULTS, wanted, seed)


def score(params):
    """Highest, 0, at a rate of 0.01 and a batch size of 32."""
    return -((math.log10(params["lr"]) + 2) ** 2) - 0.3 * (params["batch_size"] != 32)


def metrics(params):
    return {"validation_accuracy": score(params)}


def work(study):
    """Makes all trials; returns what was tried."""
    tried = []
    while (trial := study.claim()) is not None:
        tried.append(dict(trial.params))
        study.complete(trial, metrics(trial.params))
    return tried


@pytest.fixture(params=["journal", "sqlite"])
def storage(request, tmp_path):
    return str(tmp_path / "study.journal") if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"


def test_known_optimum_is_found_and_the_first_trial_is_the_defaults(tmp_path):
    study = opened(tmp_path / "s", 40)
    tried = work(study)
    assert len(tried) == len(study.trials) == 40
    assert tried[0] == DEFAULTS
    best = max(study.trials, key=lambda trial: trial.score)
    assert best.settings["batch_size"] == 32
    assert 0.003 < best.settings["lr"] < 0.03
    # of values drawn at random, all over five decades and three sizes, the mean would be near −2.4
    assert sum(trial.score for trial in study.trials[-15:]) / 15 > -1.0


def test_metric_whose_lowest_value_is_best_is_searched_downwards(tmp_path):
    study = opened(tmp_path / "s", 3)
    metric = {"name": "mae", "label": "MAE", "plural": "MAEs", "higher_is_better": False}
    for error in (3.0, 1.0, 2.0):
        study.complete(study.claim(), {"validation_mae": error, "primary_metric": metric})
    best = max(study.trials, key=lambda trial: trial.score)
    assert (best.number, best.metric.gain(best.score, 0.0)) == (1, 1.0)


def test_search_that_is_continued_proposes_what_the_uninterrupted_one_does(tmp_path):
    whole = work(opened(tmp_path / "whole", 16))
    parts = [params for wanted in (4, 5, 16) for params in work(opened(tmp_path / "parts", wanted))]
    assert parts == whole
    assert work(opened(tmp_path / "other", 16, seed=1)) != whole


@pytest.mark.parametrize("done", [0, 2, 11])
@pytest.mark.parametrize("writes", [2, 3])
def test_search_whose_process_dies_while_it_claims_a_trial_proposes_the_same(tmp_path, monkeypatch, done, writes):
    """The trial has its number and owner by then, and none or one of its settings."""
    whole = work(opened(tmp_path / "whole", 16))
    study = opened(tmp_path / "s", 16)
    for params in whole[:done]:
        trial = study.claim()
        assert trial.params == params
        study.complete(trial, metrics(params))
    storage, written = study._study._storage, []

    def dying(real):
        def write(*arguments):
            if len(written) == writes:
                raise SystemExit
            written.append(real)
            real(*arguments)

        return write

    for name in ("set_trial_user_attr", "set_trial_param"):
        monkeypatch.setattr(storage, name, dying(getattr(storage, name)))
    with monkeypatch.context() as patch:
        patch.setattr(studies, "_me", lambda: {**ME, "pid": 2**22 + 1})
        with pytest.raises(SystemExit):
            study.claim()
    rest = opened(tmp_path / "s", 16)
    assert work(rest) == whole[done:]
    assert [trial.number for trial in rest.trials] == list(range(16))


ME = studies._me()


def test_default_outside_of_the_range_becomes_the_nearest_value(tmp_path):
    space = [
        Tuned(name="lr", place="optim.lr", kind=float, low=1e-3, high=1.0, log=True),
        Tuned(name="batch_size", place="batch_size", kind=int, choices=(24, 64)),
    ]
    assert opened(tmp_path / "s", 2, space=space).claim().params == {"lr": 1e-3, "batch_size": 24}


CHILD = """
import json, os, sys
sys.path.insert(0, {folder!r})
import test_study
study = test_study.opened({storage!r}, {wanted})
trial = study.claim() if {dies} else None
print(json.dumps([dict(trial.params)] if {dies} else test_study.work(study)), flush=True)
if {dies}:
    trial.report(0.5, 1)
    os.kill(os.getpid(), 9)
"""


def child(storage, wanted, dies=False):
    code = textwrap.dedent(
        CHILD.format(folder=str(Path(__file__).parent), storage=str(storage), wanted=wanted, dies=dies)
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_share_the_trials_of_one_study(storage):
    opened(storage, 12)
    processes = [child(storage, 12), child(storage, 12)]
    tried = [params for process in processes for params in json.loads(process.communicate(timeout=600)[0])]
    study = opened(storage, 12)
    assert len(tried) == len(study.trials) == 12
    assert sorted(trial.settings["lr"] for trial in study.trials) == sorted(params["lr"] for params in tried)
    assert len({trial.number for trial in study.trials}) == 12
    assert study.is_done
    assert study.claim() is None


def test_trial_of_a_killed_process_is_made_again_with_its_settings_and_number(storage):
    opened(storage, 3)
    (lost,) = json.loads(child(storage, 3, dies=True).communicate(timeout=600)[0])
    study = opened(storage, 3)
    assert not study.is_done
    trial = study.claim()
    assert (number_of(trial), dict(trial.params)) == (0, lost)
    study.complete(trial, metrics(trial.params))
    work(study)
    assert study.is_done
    assert [trial.number for trial in study.trials] == [0, 1, 2]


def test_trial_that_lives_on_another_machine_is_left_to_it_until_it_is_silent(storage, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(studies.time, "monotonic", lambda: now[0])
    other, study = opened(storage, 2), opened(storage, 2)
    with monkeypatch.context() as patch:
        patch.setattr(studies, "_me", lambda: {"host": "elsewhere", "pid": 1, "started": "1"})
        trial = other.claim()
    mine = study.claim()
    assert number_of(mine) != number_of(trial)
    study.complete(mine, metrics(mine.params))
    for _ in range(5):
        now[0] += 100
        other.beat(trial)
        assert study.claim() is None
    now[0] += 100
    assert study.claim() is None
    now[0] += 100
    again = study.claim()
    assert (number_of(again), again.params) == (number_of(trial), trial.params)


def test_interrupted_trial_is_the_next_one_again(tmp_path):
    study = opened(tmp_path / "s", 2)
    first = study.claim()
    study.release(first)
    again = study.claim()
    assert (number_of(again), again.params) == (0, first.params)


def test_pruned_and_failed_trials_count_and_are_never_the_best(tmp_path):
    study = opened(tmp_path / "s", 3)
    pruned, failed, done = (study.claim() for _ in range(3))
    pruned.report(9.0, 1)
    study.prune(pruned)
    study.prune(failed, failed="the loss exploded")
    study.complete(done, {"validation_accuracy": 0.1})
    assert study.is_done
    assert [(trial.state, trial.score, trial.epochs, trial.reason) for trial in study.trials] == [
        ("pruned", 9.0, 1, ""),
        ("failed", None, 0, "the loss exploded"),
        ("complete", 0.1, 0, ""),
    ]


def test_trial_far_below_the_others_is_to_be_pruned_and_one_above_is_not(tmp_path):
    study = opened(tmp_path / "s", 9)
    for value in range(6):
        trial = study.claim()
        trial.report(0.5 + 0.01 * value, 1)
        study.complete(trial, {"validation_accuracy": 0.5})
    bad, good = study.claim(), study.claim()
    bad.report(0.1, 1)
    good.report(0.9, 1)
    assert (bad.should_prune(), good.should_prune()) == (True, False)


@pytest.mark.parametrize("address", ["sqlite:////not/there/x.db", "nonsense://me:secret@host/x"])
def test_storage_that_cannot_be_opened_is_one_line_without_the_password(address):
    with pytest.raises(UsageError) as caught:
        opened(address, 2)
    assert "cannot be opened" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(ModelCompressionError, match=f"^cannot write {tmp_path}/results/s/study.journal: "):
        opened(tmp_path / "results/s/study.journal", 2)
