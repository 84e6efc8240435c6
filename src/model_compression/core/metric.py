"""The primary metric: the one figure that networks are compared by, with its unit, direction and texts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

RECORDED = "primary_metric"
"""The key of metrics.json and stages.json under which the fields of a metric other than accuracy stand."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How the figure ``name`` is written and compared.

    Args:
        name: part of the key in metrics.json, as "accuracy" in "test_accuracy".
        label: what texts call one value.
        plural: what texts call several values.
        unit: stands behind a value, as "%"; empty for a bare number.
        gain_unit: stands behind a difference of two values, as "points".
        factor: a recorded value times this is the number that is shown: 100 for a share in percent.
        digits: decimals of a shown value; bounds of an interval have one less.
        higher_is_better: the direction. A gain is positive where a network is better, in either direction.
        lowest: the smallest value that is possible; None without a bound.
        highest: the largest value that is possible; None without a bound.
    """

    name: str
    label: str
    plural: str
    unit: str = ""
    gain_unit: str = ""
    factor: float = 1.0
    digits: int = 2
    higher_is_better: bool = True
    lowest: float | None = None
    highest: float | None = None

    @property
    def title(self) -> str:
        """The label as a heading: with a capital, unless it has one already, as mIoU."""
        return self.label if self.label != self.label.lower() else self.label.capitalize()

    def key(self, eval_set: str) -> str:
        """The key in metrics.json of the value on ``eval_set``, "test" or "validation"."""
        return f"{eval_set}_{self.name}"

    @property
    def is_share(self) -> bool:
        """Whether its values are shares, 0 to 1."""
        return (self.lowest, self.highest) == (0.0, 1.0)

    @property
    def axis(self) -> str:
        """The label of an axis or of a column: label and unit."""
        return ", ".join(filter(None, (self.label, self.unit)))

    @property
    def best_word(self) -> str:
        """How the best value is called: highest or lowest."""
        return "highest" if self.higher_is_better else "lowest"

    @property
    def bound_word(self) -> str:
        """What stands before a bound that a value must keep: at least or at most."""
        return "at least" if self.higher_is_better else "at most"

    def order(self, value: float) -> float:
        """The sort key that puts the best value first."""
        return -value if self.higher_is_better else value

    def gain(self, value: float, baseline: float) -> float:
        """By how much ``value`` is better than ``baseline``; below zero where it is worse."""
        return value - baseline if self.higher_is_better else baseline - value

    def is_possible(self, value: Any) -> bool:
        """Whether ``value`` is a finite number within the bounds."""
        if type(value) not in (int, float) or not abs(value) < 1e18:
            return False
        return not (
            (self.lowest is not None and value < self.lowest) or (self.highest is not None and value > self.highest)
        )

    def bounded(self, low: float, high: float) -> tuple[float, float]:
        """An interval without what lies beyond the bounds."""
        low = low if self.lowest is None else max(self.lowest, low)
        return low, high if self.highest is None else min(self.highest, high)

    def number(self, value: float, digits: int | None = None, sign: str = "") -> str:
        """The shown number without its unit, as "75.87"; with ``sign`` "+" as "+75.87"."""
        return f"{self.factor * value:{sign},.{self.digits if digits is None else digits}f}"

    def text(self, value: float, digits: int | None = None, half_width: float | None = None, space: str = "") -> str:
        """The value as "75.87%", "75.87 ± 0.41%" or "1.25 mm".

        ``half_width`` is that of an interval; ``space`` is put before the unit, by default none before "%".
        """
        return self._with_unit(f"{self.number(value, digits)}{self.spread(half_width)}", space)

    def spread(self, half_width: float | None) -> str:
        """The half-width of an interval, to stand behind a number, as " ± 0.76"; empty for None."""
        return "" if half_width is None else f" ± {self.number(half_width)}"

    def interval(self, interval: tuple[float, float], digits: int | None = None, space: str = "") -> str:
        """An interval as "75.0 to 76.7%"."""
        low, high = (self.number(end, max(self.digits - 1, 0) if digits is None else digits) for end in interval)
        return self._with_unit(f"{low} to {high}", space)

    def points(self, gain: float, half_width: float | None = None) -> str:
        """A gain as "+4.88 ± 0.41 points"."""
        return f"{self.number(gain, sign='+')}{self.spread(half_width)} {self.gain_unit}".rstrip()

    def _with_unit(self, number: str, space: str) -> str:
        if not self.unit:
            return number
        return f"{number}{space or ('' if self.unit == '%' else ' ')}{self.unit}"


def share_metric(name: str, label: str, plural: str) -> Metric:
    """The metric of a share, 0 to 1, which is shown in percent and whose gains are points."""
    return Metric(
        name=name, label=label, plural=plural, unit="%", gain_unit="points", factor=100.0, lowest=0.0, highest=1.0
    )


ACCURACY = share_metric("accuracy", "accuracy", "accuracies")
DEFAULT_METRIC = ACCURACY
"""What results are of that record no metric."""


def recorded(metric: Metric) -> dict[str, Any]:
    """What results record of their metric, which `primary_metric` reads: nothing for the default one."""
    return {} if metric == DEFAULT_METRIC else {RECORDED: asdict(metric)}


def primary_metric(values: Mapping[str, Any] | None) -> Metric:
    """The metric that the metrics of a run, or other results, record; accuracy where they record none.

    Raises ValueError for a record that is no metric.
    """
    recorded = (values or {}).get(RECORDED)
    if recorded is None:
        return DEFAULT_METRIC
    known = {field.name: field.type for field in fields(Metric)}
    kinds = {str: str, bool: bool, int: int, float: int | float, float | None: int | float | None}
    if not isinstance(recorded, Mapping) or not {"name", "label", "plural"} <= {*recorded} <= {*known}:
        raise ValueError(f"{RECORDED} is {recorded!r}; expected name, label, plural and other fields of a metric")
    for name, value in recorded.items():
        if not isinstance(value, kinds[known[name]]):  # type: ignore[index]
            raise ValueError(f"{name} of {RECORDED} is {value!r}")
    return Metric(**recorded)
