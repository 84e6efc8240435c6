import math

import pytest

from model_compression.reports.statistics import OF_TWO, summarise


def test_summarise_matches_the_t_interval_of_a_textbook() -> None:
    # 4 values: t(0.975; 3) = 3.182446 from a printed table
    values = [0.70, 0.72, 0.71, 0.75]
    sd = math.sqrt(sum((v - 0.72) ** 2 for v in values) / 3)
    summary = summarise(values)
    assert summary.n == 4
    assert summary.mean == pytest.approx(0.72)
    assert summary.sd == pytest.approx(sd)
    assert summary.half_width == pytest.approx(3.182446 * sd / 2, rel=1e-6)


def test_summarise_of_one_value_has_no_spread() -> None:
    summary = summarise([0.5])
    assert (summary.n, summary.mean, summary.sd, summary.half_width) == (1, 0.5, None, None)


def test_summarise_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        summarise([])


def test_what_is_said_of_two_seeds_is_so() -> None:
    two, three = summarise([0.0, 1.0]), summarise([0.0, 0.5, 1.0])
    assert two.sd is not None
    assert two.half_width is not None
    assert three.sd is not None
    assert three.half_width is not None
    assert f"{two.half_width / two.sd:.0f} standard deviations" in OF_TWO
    assert OF_TWO.endswith(f"{three.half_width / three.sd:.1f}")
