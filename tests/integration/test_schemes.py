"""Several networks that teach each other, in turn or at once: who teaches whom, and that any interruption is undone."""

import dataclasses
import itertools
import json
import os
import signal

import pytest
import torch

from model_compression.core.config import ModelConfig
from model_compression.core.config_json import locate
from model_compression.core.errors import Interrupted, RunFolderError, UnknownNameError, UsageError
from model_compression.engine import trainer
from model_compression.engine.mutual import METHOD
from model_compression.engine.runs import resume_run, start_run
from model_compression.engine.training import Training
from model_compression.experiments import schemes
from model_compression.experiments.resume import stage_kind
from model_compression.experiments.schemes import SchemeConfig, resume_scheme, run_scheme, stages_of
from model_compression.models import create_model
from model_compression.models.loading import read_model
from model_compression.models.weights import save_weights
from model_compression.reports.run_files import read_run

FILES = ("student.safetensors", "predictions.safetensors", "events.jsonl")
FLIP = {"augmentation": "flip_shift"}


def born_again(tiny, generations=3, **options):
    run = dataclasses.replace(tiny.config("kd", epochs=1, data=FLIP, **options), teacher=None)
    return SchemeConfig(scheme="self", run=run, generations=generations)


def assisted(tiny, assistants="tiny-teacher, tiny"):
    return SchemeConfig(scheme="takd", run=tiny.config("kd", epochs=1), assistants=assistants)


def left(folder, stages):
    return {(stage, name): (folder / stage / name).read_bytes() for stage in stages for name in FILES}


def test_generations_are_taught_by_the_one_before(tiny, tmp_path, watcher):
    seen = watcher()
    metrics = run_scheme(born_again(tiny), tmp_path / "s", seen)
    stages = ["generation-1", "generation-2", "generation-3"]
    assert list(metrics) == stages
    assert "teacher_agreement" not in metrics["generation-1"]  # it learned from labels
    configs = [read_run(tmp_path / "s" / stage).config for stage in stages]
    assert [config["teacher"] and config["teacher"]["name"] for config in configs] == [
        None,
        str(tmp_path / "s" / "generation-1"),
        str(tmp_path / "s" / "generation-2"),
    ]
    assert [config["seed"] for config in configs] == [0, 1000, 2000]
    for before, stage in itertools.pairwise(stages):
        assert metrics[stage]["teacher_test_accuracy"] == metrics[before]["test_accuracy"]
    assert [message for message in seen.messages if "stage" in message][1] == (
        f"generation-2, stage 2 of 3: tiny from {tmp_path / 's' / 'generation-1'}"
    )


def test_signal_that_comes_too_late_for_a_stage_stops_behind_it(tiny, tmp_path, watcher, monkeypatch):
    def answered(*arguments, **rows):
        os.kill(os.getpid(), signal.SIGTERM)
        return predict(*arguments, **rows)

    predict = trainer.predict
    monkeypatch.setattr(trainer, "predict", answered)
    with pytest.raises(Interrupted, match=r"generation-1: stopped behind .*generation-1, which is finished; .* resume"):
        run_scheme(born_again(tiny), tmp_path / "s", watcher())
    monkeypatch.undo()
    assert (tmp_path / "s" / "generation-1" / "metrics.json").exists()
    assert not (tmp_path / "s" / "generation-2").exists()
    resume_scheme(tmp_path / "s")
    whole = run_scheme(born_again(tiny), tmp_path / "whole")
    last = [(tmp_path / name / "generation-3" / "student.safetensors").read_bytes() for name in ("s", "whole")]
    assert list(whole) == ["generation-1", "generation-2", "generation-3"]
    assert len(last[0]) == len(last[1])


def test_stages_are_those_of_runs_made_by_hand(tiny, tmp_path):
    run_scheme(born_again(tiny, 2), tmp_path / "s")
    run = born_again(tiny).run
    start_run(dataclasses.replace(run, method=None), tmp_path / "first")
    teacher = ModelConfig(name=str(tmp_path / "first"))
    start_run(dataclasses.replace(run, teacher=teacher, seed=1000), tmp_path / "second")
    for stage, by_hand in (("generation-1", "first"), ("generation-2", "second")):
        for name in FILES:
            assert (tmp_path / "s" / stage / name).read_bytes() == (tmp_path / by_hand / name).read_bytes()


def test_first_generation_may_have_a_teacher(tiny, tmp_path):
    scheme = dataclasses.replace(born_again(tiny, 2), run=tiny.config("kd"))
    first, second = stages_of(scheme).values()
    assert (first.teacher.name, second.teacher.name) == (str(tiny.teacher), "here:../generation-1")


def test_assistants_pass_on_what_the_teacher_taught(tiny, tmp_path):
    metrics = run_scheme(assisted(tiny), tmp_path / "s")
    assert list(metrics) == ["assistant-1", "assistant-2", "student"]
    assert [read_model(tmp_path / "s" / stage / "student.safetensors").name for stage in metrics] == [
        "tiny-teacher",
        "tiny",
        "tiny",
    ]
    configs = stages_of(assisted(tiny)).values()
    assert [config.seed for config in configs] == [0, 0, 0]
    assert next(iter(configs)).teacher.name == str(tiny.teacher)


class Crash(Exception):
    """Stands for the power going out."""


@pytest.mark.parametrize("where", [("generation-1", 3), ("generation-2", 0), ("generation-2", 2), ("generation-3", 4)])
def test_scheme_goes_on_to_the_bit_from_within_and_between_its_stages(tiny, tmp_path, watcher, where, monkeypatch):
    stages = ["generation-1", "generation-2", "generation-3"]
    for folder in ("part", "whole"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    run_scheme(born_again(tiny), "s")
    monkeypatch.chdir(tmp_path / "part")  # the same relative paths

    class Stopping(watcher):
        def message(self, text):
            super().message(text)
            if text.startswith(where[0]):
                self.stop_after = [where[1]]
                if not where[1]:
                    raise Crash

    with pytest.raises((Interrupted, Crash)) as stopped:
        run_scheme(born_again(tiny), "s", Stopping())
    if where[1]:
        assert str(stopped.value) == (
            f"{where[0]}: stopped at step {where[1]} of 5, state saved; continue with: model-compression resume s"
        )
    with pytest.raises(RunFolderError, match="s is begun already: continue it with: model-compression resume s, or"):
        run_scheme(born_again(tiny), "s")
    (tmp_path / "part" / "s").rename(tmp_path / "moved")  # and resumed from another folder
    seen = watcher()
    metrics = resume_scheme(tmp_path / "moved", seen)
    assert list(metrics) == stages
    assert left(tmp_path / "moved", stages) == left(tmp_path / "whole" / "s", stages)
    assert len(seen.steps) == 15 - 5 * stages.index(where[0]) - where[1]  # what was finished is not trained again
    with pytest.raises(RunFolderError, match=r"moved is finished: there is nothing to resume; its result is .*/gen"):
        resume_scheme(tmp_path / "moved")


def test_scheme_of_before_names_were_relative_goes_on_where_it_is(tiny, tmp_path, watcher, monkeypatch):
    """Its stages name their teachers by whole paths, and its state has the digest of that configuration."""

    def whole_paths(config):
        return {name: locate(run, tmp_path / "s" / name) for name, run in stages_of(config).items()}

    run_scheme(born_again(tiny), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(schemes, "stages_of", whole_paths)

        class Stopping(watcher):
            def message(self, text):
                super().message(text)
                self.stop_after = [2] if text.startswith("generation-2") else self.stop_after

        with pytest.raises(Interrupted):
            run_scheme(born_again(tiny), tmp_path / "s", Stopping())
    assert str(tmp_path) in json.loads((tmp_path / "s" / "generation-2" / "config.json").read_text())["teacher"]["name"]
    stages = list(resume_scheme(tmp_path / "s"))
    assert left(tmp_path / "s", stages) == left(tmp_path / "whole", stages)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"assistants": "tiny,tinyy"}, "unknown model 'tinyy'; did you mean 'tiny'"),
        ({"assistants": "tiny,lenet"}, "student cannot take images"),
        ({"assistants": " "}, "scheme 'takd' needs assistants"),
        ({"generations": 2}, "scheme 'takd' needs assistants, as resnet20,resnet14, and no generations"),
        ({"scheme": "self", "assistants": "", "generations": 1}, "at least 2 generations, and no assistants; got 1"),
        ({"scheme": "dml"}, "unknown scheme 'dml'; known: self, takd"),
    ],
)
def test_wrong_scheme_is_refused_before_anything_is_written(tiny, tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        run_scheme(dataclasses.replace(assisted(tiny), **change), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_stage_that_could_not_begin_is_found_before_the_first(tiny, tmp_path):
    method = dataclasses.replace(tiny.config("kd").method, name="att")
    scheme = dataclasses.replace(born_again(tiny), run=dataclasses.replace(born_again(tiny).run, method=method))
    with pytest.raises(UnknownNameError, match="unknown method 'att'"):  # the first stage has no method
        run_scheme(scheme, tmp_path / "s")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("")
    with pytest.raises(RunFolderError, match="taken exists and is not an empty folder"):
        run_scheme(born_again(tiny), tmp_path / "taken")
    assert not (tmp_path / "s").exists()
    assert stage_kind(tmp_path / "taken") is Training


def mutual(tiny, peers="tiny,tiny-teacher", **options):
    return dataclasses.replace(tiny.config(data=FLIP, **options), method=METHOD, peers=ModelConfig(name=peers))


def test_mutual_run_measures_and_saves_every_network(tiny, tmp_path, watcher):
    seen = watcher()
    metrics = start_run(mutual(tiny, ema=0.5, evaluate_every=1), tmp_path / "run", seen)
    peers = [read_model(tmp_path / "run" / f"peer-{number}.safetensors") for number in (1, 2)]
    assert [peer.name for peer in peers] == ["tiny", "tiny-teacher"]
    assert {"test_accuracy", "peer_1_test_accuracy", "peer_2_test_accuracy"} <= metrics.keys()
    student = read_model(tmp_path / "run" / "student.safetensors")
    assert not torch.equal(student.ip1.weight, peers[0].ip1.weight)
    assert set(seen.events[0]["terms"]) == {"label", "kd"}


@pytest.mark.parametrize("step", [2, 5, 11])
@pytest.mark.parametrize(
    "options", [{"optim": {"optimizer": "adamw", "lr": 0.01}, "ema": 0.8}, {"precision": "fp16"}], ids=["ema", "fp16"]
)
def test_mutual_run_resumes_to_the_bit(tiny, tmp_path, watcher, step, options):
    config = mutual(tiny, **options)
    start_run(config, tmp_path / "whole", watcher())
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "part", watcher([step]))
    resume_run(tmp_path / "part", watcher())
    for name in (*FILES, "peer-1.safetensors", "peer-2.safetensors"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_mutual_run_with_an_impossible_peer_is_refused_before_there_is_a_folder(tiny, tmp_path):
    save_weights(tmp_path / "other.safetensors", create_model("tiny", seed=0, num_classes=5))
    for peers, message in (
        ("tinyy", "unknown model 'tinyy'"),
        (
            str(tmp_path / "other.safetensors"),
            r"peer .*other.safetensors answers with 5 classes, but the data .tiny. have 3",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            start_run(mutual(tiny, peers), tmp_path / "run")
    config = dataclasses.replace(mutual(tiny), method=dataclasses.replace(METHOD, name="at", params={}, weights={}))
    with pytest.raises(UsageError, match="peers learn by methods that need logits only, and 'at' needs more"):
        start_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
