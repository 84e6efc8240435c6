"""A metric writes its values, gains and intervals, and knows which of two values is better."""

from dataclasses import asdict

import pytest

from model_compression.core.metric import ACCURACY, RECORDED, Metric, primary_metric

ERROR = Metric(
    name="error", label="error", plural="errors", unit="mm", gain_unit="mm", digits=3, higher_is_better=False
)


def test_accuracy_is_a_share_written_in_percent():
    assert ACCURACY.key("test") == "test_accuracy"
    assert ACCURACY.axis == "accuracy, %"
    assert ACCURACY.text(0.75875) == f"{0.75875:.2%}"
    assert ACCURACY.text(0.5, 1, space=" ") == "50.0 %"
    assert ACCURACY.interval((0.75, 0.7675)) == "75.0 to 76.8%"
    assert ACCURACY.points(0.0488, 0.0041) == "+4.88 ± 0.41 points"
    assert ACCURACY.points(-0.0488) == "-4.88 points"
    assert ACCURACY.text(0.7587, half_width=0.0041) == "75.87 ± 0.41%"


def test_a_lower_value_of_an_error_is_a_gain():
    assert ERROR.text(1234.5) == "1,234.500 mm"
    assert ERROR.interval((1.0, 2.0)) == "1.00 to 2.00 mm"
    assert ERROR.points(ERROR.gain(1.25, 1.5)) == "+0.250 mm"
    assert ACCURACY.gain(0.5, 0.75) == -0.25
    assert sorted([2.0, 1.0, 3.0], key=ERROR.order)[0] == 1.0
    assert sorted([0.2, 0.1, 0.3], key=ACCURACY.order)[0] == 0.3


def test_a_metric_without_unit_or_bounds():
    loss = Metric(name="loss", label="loss", plural="losses")
    assert (loss.axis, loss.text(1.0), loss.points(1.0)) == ("loss", "1.00", "+1.00")
    assert loss.bounded(-5.0, 7.0) == (-5.0, 7.0)
    assert ACCURACY.bounded(-0.1, 1.1) == (0.0, 1.0)


@pytest.mark.parametrize("value", [None, "0.5", True, float("nan"), float("inf"), 1.5, -0.5])
def test_impossible_values_of_an_accuracy(value):
    assert not ACCURACY.is_possible(value)
    assert ACCURACY.is_possible(1)


def test_accuracy_is_the_metric_of_what_records_none():
    assert primary_metric({"test_accuracy": 0.5}) is primary_metric(None) is ACCURACY
    assert primary_metric({RECORDED: asdict(ERROR)}) == ERROR


@pytest.mark.parametrize(
    "recorded", ["error", {"name": "error"}, {**asdict(ERROR), "digits": "3"}, {**asdict(ERROR), "x": 1}]
)
def test_a_record_that_is_no_metric_is_refused(recorded):
    with pytest.raises(ValueError, match="primary_metric"):
        primary_metric({RECORDED: recorded})
