"""Figures, losses and checks of numbers with units, against scikit-learn and plain float64 formulas."""

import dataclasses
import types

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch, Mixed
from model_compression.data.dataset import Dataset
from model_compression.reports.values import (
    figures_by_name,
    largest_errors,
    name_and_unit,
    r_squared_interval,
    value_figures,
)
from model_compression.tasks import task_of
from model_compression.tasks.regression.findings import check_scale
from model_compression.tasks.regression.task import Regression

RNG = np.random.default_rng(5)
MEAN, STD = (1000.0, -3.0), (50.0, 0.5)
ANSWERS = RNG.normal(size=(200, 2)).astype(np.float32)
TARGETS = ((ANSWERS + 0.3 * RNG.normal(size=(200, 2))) * STD + MEAN).astype(np.float32)
NAMES = ("height [mm]", "pH")


def dataset(targets=TARGETS, mean=MEAN, std=STD):
    images = np.zeros((len(targets), 3, 2, 2), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(len(targets)) % 256, np.arange(len(targets)) // 256
    return Dataset(
        name="d", samples=images, labels=targets, mean=(0.5,) * 3, std=(0.5,) * 3, task="regression",
        target_names=NAMES[: targets.shape[1]], target_mean=mean, target_std=std,
    )  # fmt: skip


def config(**options):
    return TrainConfig(student=ModelConfig(name="lenet"), **options)


def network(**facts):
    return types.SimpleNamespace(name="t", facts=facts)


def test_figures_are_those_of_scikit_learn_in_units():
    found = task_of(dataset()).figures(torch.from_numpy(ANSWERS), torch.from_numpy(TARGETS))
    values = ANSWERS.astype(np.float64) * STD + MEAN
    assert list(found) == [
        "r2", "r2 height", "mae height [mm]", "rmse height [mm]", "r2 pH", "mae pH", "rmse pH"
    ]  # fmt: skip
    assert found["r2"] == pytest.approx(r2_score(TARGETS, values), abs=1e-9)
    for number, (name, unit) in enumerate((("height", " [mm]"), ("pH", ""))):
        own = TARGETS[:, number].astype(np.float64), values[:, number]
        assert found[f"mae {name}{unit}"] == pytest.approx(mean_absolute_error(*own))
        assert found[f"rmse {name}{unit}"] == pytest.approx(root_mean_squared_error(*own))
        assert found[f"r2 {name}"] == pytest.approx(r2_score(*own), abs=1e-9)
    single = task_of(dataset(TARGETS[:, :1], MEAN[:1], STD[:1]))
    assert list(single.figures(torch.from_numpy(ANSWERS[:, :1]), torch.from_numpy(TARGETS[:, :1]))) == [
        "r2",
        "mae",
        "rmse",
    ]


def test_constant_targets_have_no_variance_to_explain():
    alike = figures_by_name(np.array([[1.0, 2], [2, 5]]), np.array([[1.0, 2], [2, 4]]), ["side [mm]", "side (mm)"])
    assert (alike["mae side [mm]"], alike["mae side (mm)"]) == (0, 0.5)
    (found,) = value_figures(np.full((4, 1), 2.0), np.full((4, 1), 2.0), ["x"])
    (other,) = value_figures(np.full((4, 1), 2.5), np.full((4, 1), 2.0), ["x"])
    assert (found.r2, other.r2, other.mae) == (1.0, 0.0, 0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a [mm]", ("a", "mm")),
        ("a (kg/m)", ("a", "kg/m")),
        ("a", ("a", "")),
        ("f(x) [s]", ("f(x)", "s")),
        ("[m]", ("[m]", "")),
    ],
)
def test_unit_is_what_stands_in_brackets(text, expected):
    assert name_and_unit(text) == expected


def test_label_loss_is_the_squared_error_in_deviations_or_hubers():
    task, logits, targets = task_of(dataset()), torch.from_numpy(ANSWERS), torch.from_numpy(TARGETS)
    error = ANSWERS - (TARGETS.astype(np.float64) - MEAN) / STD
    assert task.label_loss(logits, targets, None, 0.0).item() == pytest.approx(np.mean(error**2), rel=1e-5)
    huber = task.learning(config(huber=0.3), dataset())
    expected = np.where(np.abs(error) <= 0.3, error**2 / 2, 0.3 * (np.abs(error) - 0.15))
    assert huber.label_loss(logits, targets, None, 0.0).item() == pytest.approx(expected.mean(), rel=1e-5)
    share = torch.rand(200, generator=torch.Generator().manual_seed(0))
    mixed = Mixed(targets=targets.flip(0), share=share)
    other = ANSWERS - (TARGETS[::-1].astype(np.float64) - MEAN) / STD
    both = share.numpy() * (error**2).mean(axis=1) + (1 - share.numpy()) * (other**2).mean(axis=1)
    assert task.label_loss(logits, targets, mixed, 0.0).item() == pytest.approx(both.mean(), rel=1e-5)


def test_options_of_classes_are_refused():
    with pytest.raises(UsageError, match="label_smoothing is for classes"):
        task_of(dataset()).learning(config(label_smoothing=0.1), dataset())
    with pytest.raises(UsageError, match="class_weights has no effect on the task 'regression'"):
        task_of(dataset()).learning(config(class_weights="balanced"), dataset())


def test_score_is_r_squared_where_mean_and_deviation_are_those_of_the_samples():
    data = dataset(mean=tuple(TARGETS.mean(axis=0).tolist()), std=tuple(TARGETS.std(axis=0).tolist()))
    answers = torch.from_numpy(((TARGETS - data.target_mean) / data.target_std + 0.2).astype(np.float32))
    found = task_of(data).score(answers, torch.from_numpy(TARGETS)).item() / 200
    assert found == pytest.approx(task_of(data).value(answers, torch.from_numpy(TARGETS)), abs=1e-4)


def test_rows_and_targets_change_between_units_and_deviations():
    task, logits = task_of(dataset()), torch.from_numpy(ANSWERS)
    batch = Batch(inputs=logits, targets=torch.from_numpy(TARGETS), ids=torch.arange(200), view=0)
    rows = task.rows(Outputs(logits=logits), None, batch)
    assert np.allclose(rows.targets.numpy(), (TARGETS - np.array(MEAN)) / STD, atol=1e-4)
    assert np.allclose(task.as_targets(rows.targets, batch.targets).numpy(), TARGETS, rtol=1e-6)
    assert Regression().as_targets(logits, batch.targets) is logits


def test_agreement_is_the_explained_variance_of_the_other_answers():
    a, b = torch.from_numpy(ANSWERS), torch.from_numpy(ANSWERS + 0.5 * RNG.normal(size=(200, 2)).astype(np.float32))
    assert Regression().agreement(a, b) == pytest.approx(r2_score(b.numpy().astype(np.float64), a.numpy()), abs=1e-9)
    assert Regression().agreement(-a, a) == 0.0


def test_interval_holds_the_value_and_narrows_with_more_samples():
    values = ANSWERS * np.array(STD) + MEAN
    low, high = r_squared_interval(values, TARGETS)
    assert low < r2_score(TARGETS, values) < high
    less = r_squared_interval(values[:50], TARGETS[:50])
    assert high - low < less[1] - less[0]
    assert r_squared_interval(values[:5], TARGETS[:5]) is None
    assert r_squared_interval(values, TARGETS) == (low, high)


def test_largest_errors_come_first_less_those_of_the_teacher():
    targets = np.zeros((3, 1))
    assert largest_errors(np.array([[1.0], [3.0], [-2.0]]), None, targets).tolist() == [1, 2, 0]
    assert largest_errors(np.array([[1.0], [3.0], [-2.0]]), np.array([[0.0], [3.0], [0.0]]), targets).tolist() == [
        2,
        0,
        1,
    ]


def fault_of(answers, data=None, **facts):
    data = data or dataset()
    rows = {bytes(image): n for n, image in enumerate(data.samples)}

    def answer(part):
        return torch.from_numpy(answers[[rows[bytes(image)] for image in part.samples]])

    return task_of(data).teacher_fault(network(**facts), data, answer, "look")


def test_teacher_in_other_units_order_or_untrained_is_found():
    assert fault_of(ANSWERS) is None
    in_units = (ANSWERS * np.array(STD) + MEAN).astype(np.float32)
    assert "answers in the targets' units" in fault_of(in_units)
    assert fault_of(in_units).endswith("give target_mean='0,0', target_std='1,1'")
    assert "answers in other units: height [mm] is about 10.03" in fault_of(0.1 * in_units)
    shrunk = fault_of(0.25 * ANSWERS, target_mean=list(MEAN), target_std=list(STD))  # half trained, not in other units
    slope, offset = np.polyfit(0.25 * ANSWERS[:, 0] * STD[0] + MEAN[0], TARGETS[:, 0], 1)
    assert f"were height [mm] {slope:.3g} · answer {offset:+.3g}: train it longer" in shrunk
    assert "in another order than d: they look like pH, height [mm]" in fault_of(ANSWERS[:, ::-1].copy())
    assert "with the best scale for its answers; look" in fault_of(RNG.normal(size=ANSWERS.shape).astype(np.float32))
    given = dataclasses.replace(dataset(), target_mean=(0.0, 0.0), target_std=(1.0, 1.0))
    assert fault_of(in_units, given) is None


def test_network_of_another_scale_or_order_is_refused_with_the_remedy():
    data, answer = dataset(), torch.zeros(2, 2)
    known = {"target_names": list(NAMES), "target_mean": list(MEAN), "target_std": list(STD)}
    check_scale("teacher", network(**known), data, answer)
    with pytest.raises(UsageError, match=r"give target_mean='1000,-2', target_std='50,0\.5'"):
        check_scale("teacher", network(**known | {"target_mean": [1000.0, -2.0]}), data, answer)
    metres = {"target_names": ["height [m]", "pH"], "target_mean": [MEAN[0] / 1000, MEAN[1]]}  # which no scale mends
    with pytest.raises(UsageError, match=r"; bring the data into its units$"):
        check_scale("teacher", network(**known | metres), data, answer)
    with pytest.raises(UsageError, match=r"numbers in another order than d: pH, height \[mm\]"):
        check_scale("model", network(**known | {"target_names": list(NAMES[::-1])}), data, answer)
    with pytest.raises(UsageError, match=r"answers two images with \(2, 3\); expected 2 numbers for each"):
        check_scale("student", network(), data, torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (["height [m]", "pH"], "its number 0 is 'height [m]', the data's 'height [mm]'; they are taken for the same"),
        (["height [mm]", "acid"], "its number 1 is 'acid', the data's 'pH'; they are taken for the same"),
        (list(NAMES), None),
        (["value 1", "value 2"], None),  # of arrays, which have no names
    ],
)
def test_other_unit_or_name_is_told(own, told):
    line = [] if told is None else [f"the network learned other numbers than d has: {told}"]
    assert Regression().differences(network(target_names=own), dataset()) == line
    said = Regression().teacher_findings(network(target_names=own), dataset(), None, torch.device("cpu"))
    assert list(said) == []


def test_guess_of_the_mean_is_no_better_than_guessing():
    assert "no better than the mean" in Regression().guessing_fault(0.0, dataset())
    assert Regression().guessing_fault(0.3, dataset()) is None


def test_slip_of_the_decimal_point_and_test_values_beyond_are_found():
    wrong = TARGETS.copy()
    wrong[7, 0] *= 100
    found = {one.subject: one for one in Regression().data_findings(dataset(wrong), dataset())}
    assert "height [mm] of training sample 7 is" in found["outliers"].text
    beyond = {one.subject for one in Regression().data_findings(dataset(), dataset(TARGETS + np.float32(300)))}
    assert beyond == {"targets", "range"}


def test_number_that_does_not_vary_is_told():
    level = TARGETS.copy()
    level[:, 1] = np.median(TARGETS[:, 1])
    found = [one.text for one in Regression().data_findings(dataset(), dataset(level)) if one.level == "warn"]
    assert found == ["all test images have the same pH"]
    assert not [one for one in Regression().data_findings(dataset(), dataset()) if one.level == "warn"]
