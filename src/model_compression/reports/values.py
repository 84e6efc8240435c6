"""Figures of answers that are numbers with units: of values (N, D) against targets (N, D), in float64."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_RESAMPLES, _MOST = 1000, 100_000


@dataclass(frozen=True, kw_only=True)
class ValueFigures:
    """Of one number: mean absolute and root mean square error in its ``unit``, and R², at most 1."""

    name: str
    unit: str
    mae: float
    rmse: float
    r2: float


def name_and_unit(text: str) -> tuple[str, str]:
    """("weight", "g") of "weight [g]" or "weight (g)"; the unit is empty where there is none."""
    found = re.fullmatch(r"(.*\S)\s*(?:\[([^\[\]]+)\]|\(([^()]+)\))", text.strip())
    return (found[1], found[2] or found[3]) if found else (text.strip(), "")


def names_or_numbers(names: Sequence[str], count: int) -> list[str]:
    """The names, or "value 1" and so on where there are none."""
    return list(names) or [f"value {number}" for number in range(1, count + 1)]


def in_units(answers: npt.NDArray[np.floating], mean: Sequence[float], std: Sequence[float]) -> Floats:
    """answer · std + mean, (N, D); as they are without a scale."""
    wide = answers.astype(np.float64)
    if not len(mean):
        return wide
    found: Floats = wide * np.asarray(std) + np.asarray(mean)
    return found


def r_squared(values: Floats, targets: npt.NDArray[np.floating]) -> Floats:
    """(D,) 1 − Σ(value − target)² / Σ(target − mean)²; of targets that are all equal 1 for no error, else 0."""
    wide = targets.astype(np.float64)
    error, spread = np.square(values - wide).sum(axis=0), np.square(wide - wide.mean(axis=0)).sum(axis=0)
    found: Floats = np.where(spread > 0, 1 - error / np.where(spread > 0, spread, 1.0), 1.0 * (error == 0))
    return found


def value_figures(values: Floats, targets: npt.NDArray[np.floating], names: Sequence[str]) -> list[ValueFigures]:
    """The figures of each number."""
    errors, r2 = values - targets.astype(np.float64), r_squared(values, targets)
    rows = []
    for number, text in enumerate(names_or_numbers(names, values.shape[1])):
        name, unit = name_and_unit(text)
        own = errors[:, number]
        rows.append(
            ValueFigures(
                name=name, unit=unit, mae=float(np.abs(own).mean()), rmse=float(np.sqrt(np.square(own).mean())),
                r2=float(r2[number]),
            )
        )  # fmt: skip
    return rows


def figures_by_name(values: Floats, targets: npt.NDArray[np.floating], names: Sequence[str]) -> dict[str, float]:
    """ "r2", the mean over numbers, "mae" and "rmse"; of several numbers also each figure with its name."""
    rows = value_figures(values, targets, names)
    if len({row.name for row in rows}) < len(rows):  # which units alone tell apart
        rows = [replace(row, name=text, unit="") for row, text in zip(rows, names, strict=True)]
    found = {"r2": float(np.mean([row.r2 for row in rows]))}
    if len(rows) == 1:
        return found | {"mae": rows[0].mae, "rmse": rows[0].rmse}
    for row in rows:
        unit = f" [{row.unit}]" if row.unit else ""
        found |= {f"r2 {row.name}": row.r2, f"mae {row.name}{unit}": row.mae, f"rmse {row.name}{unit}": row.rmse}
    return found


def r_squared_interval(values: Floats, targets: npt.NDArray[np.floating]) -> tuple[float, float] | None:
    """95 % of the mean R² for other samples of the same kind: percentile bootstrap of 1,000 resamples, always the same.

    None for fewer than ten samples; of more than 100,000 the first.
    """
    count = min(len(values), _MOST)
    if count < 10:
        return None
    wide, generator = targets[:count].astype(np.float64), np.random.Generator(np.random.PCG64(0))
    wide = wide - wide.mean(axis=0)
    errors = np.square(values[:count] - targets[:count].astype(np.float64))
    found = []
    for _ in range(_RESAMPLES if count <= 10_000 else _RESAMPLES // 5):
        times = np.bincount(generator.integers(0, count, count), minlength=count).astype(np.float64)
        spread = times @ np.square(wide) - np.square(times @ wide) / count
        found.append(float(np.mean(1 - (times @ errors) / np.maximum(spread, 1e-300))))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def largest_errors(
    student: npt.NDArray[np.floating],
    teacher: npt.NDArray[np.floating] | None,
    targets: Floats,
) -> npt.NDArray[np.int64]:
    """The samples by their squared error, less the teacher's where there is one, the largest first.

    All are scaled alike, as networks see them.
    """
    errors = np.square(student.astype(np.float64) - targets).sum(axis=1)
    if teacher is not None:
        errors = errors - np.square(teacher.astype(np.float64) - targets).sum(axis=1)
    return np.argsort(-errors, kind="stable")
