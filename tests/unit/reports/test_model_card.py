"""The model card: the hub's own client reads its front matter, and what it says are the run's figures."""

import json

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import load_file
from written_runs import write_run

from model_compression.reports.model_card import model_card
from model_compression.reports.run_files import read_run

METRICS = {"test_nll": 0.7654, "test_ece": 0.0321}


@pytest.fixture
def written(tmp_path):
    """Function that writes a run and gives its card, and the shares of each class that are right."""

    def build(method="kd", **options):
        folder = write_run(tmp_path / "run", method, **options)
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps({**metrics, **METRICS}))
        found = load_file(folder / "predictions.safetensors")
        right = found["student_logits"].argmax(1) == found["targets"]
        return model_card(read_run(folder)), [right[found["targets"] == number].mean() for number in range(4)]

    return build


def test_front_matter_is_what_the_hub_reads(written, tmp_path):
    card, _ = written(data="cifar10")
    data = ModelCard(card).data
    accuracy = json.loads((tmp_path / "run" / "metrics.json").read_text())["test_accuracy"]
    assert data.library_name == "model-compression"
    assert data.pipeline_tag == "image-classification"
    assert "knowledge-distillation" in data.tags
    assert data.datasets == ["uoft-cs/cifar10"]
    (result,) = data.eval_results
    assert (result.dataset_type, result.dataset_split, result.metric_type) == ("uoft-cs/cifar10", "test", "accuracy")
    assert result.metric_value == accuracy


@pytest.mark.parametrize(
    ("name", "listed"),
    [("hf:me/birds,split=test", ["me/birds"]), ("hf:/data/birds", None), ("folder:birds", None)],
)
def test_data_sets_are_named_where_the_hub_has_them(written, name, listed):
    card, _ = written(data=name)
    assert getattr(ModelCard(card).data, "datasets", None) == listed
    assert "/data" not in card  # no folder of the machine


def test_text_has_the_figures_of_the_run(written, tmp_path):
    card, shares = written()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    of_teacher = [f"{100 * metrics[key]:.2f} %" for key in ("teacher_test_accuracy", "teacher_agreement")]
    for wanted in ("0.7654", "3.21 %", *of_teacher, "1,234", "5 kB", "ant, bee, cat, dog", "seed 0"):
        assert wanted in card, wanted
    assert f"recognises {100 * min(shares):.2f} % of {['ant', 'bee', 'cat', 'dog'][int(np.argmin(shares))]}" in card
    assert "from its mistakes as well" in card
    assert "model-compression distill --config config.json" in card


def test_card_of_labels_alone_has_no_teacher(written):
    card, _ = written(None)
    assert "teacher" not in card
    assert "model-compression train --config config.json" in card
    assert "knowledge-distillation" not in ModelCard(card).data.tags


def test_class_names_cannot_become_markup(written):
    card, _ = written(classes=("<script>", "a|b", "*c*", "[d](e)"))
    for markup in ("<script>", "a|b", "*c*", "[d](e)"):
        assert markup not in card
