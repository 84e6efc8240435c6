import math

import numpy as np
import pytest
from scipy import stats

from model_compression.reports.statistics import (
    OF_TWO,
    holm,
    needed_statistic,
    paired_gain,
    sign_test_floor,
    summarise,
)


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


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_paired_gain_is_the_paired_t_test_with_its_interval(n):
    rng = np.random.default_rng(n)
    values, baseline = rng.normal(0.75, 0.01, n), rng.normal(0.74, 0.01, n)
    gain, expected = paired_gain(values.tolist(), baseline.tolist()), stats.ttest_rel(values, baseline)
    interval = expected.confidence_interval(0.95)
    assert (gain.n, gain.p_value) == (n, pytest.approx(expected.pvalue, rel=1e-9))
    assert gain.mean == pytest.approx(np.mean(values - baseline))
    assert gain.mean - gain.half_width == pytest.approx(interval.low)
    assert gain.mean + gain.half_width == pytest.approx(interval.high)


def test_paired_gain_of_one_seed_has_neither_interval_nor_p():
    gain = paired_gain([0.75], [0.70])
    assert (gain.n, gain.mean, gain.half_width, gain.p_value) == (1, pytest.approx(0.05), None, None)


def test_paired_gain_that_is_the_same_with_all_seeds_is_not_called_certain():
    # Equal but for rounding: 0.1 + 0.2 style differences must not become a huge t.
    gain = paired_gain([0.7097, 0.6597, 0.8097], [0.7096, 0.6596, 0.8096])
    assert gain.mean == pytest.approx(1e-4)
    assert gain.p_value is None
    assert paired_gain([0.7, 0.6], [0.7, 0.6]).p_value == 1.0


def test_paired_gain_refuses_other_numbers_of_values():
    with pytest.raises(ValueError, match="shorter"):
        paired_gain([0.1, 0.2], [0.1])


def test_holm_is_what_a_pencil_gives():
    # in order 0.005·4, 0.01·3, 0.03·2, 0.04·1, the last raised to the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_holm_rejects_what_the_step_down_procedure_rejects():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p_values = rng.beta(0.3, 3, size=rng.integers(1, 9))
        for level in (0.01, 0.05, 0.2):
            rejected = set()
            for step, index in enumerate(np.argsort(p_values)):  # until the first that is not below its own level
                if p_values[index] >= level / (len(p_values) - step):
                    break
                rejected.add(index)
            corrected = holm(p_values.tolist())
            assert {index for index, p in enumerate(corrected) if p < level} == rejected


@pytest.mark.parametrize(("n", "comparisons"), [(2, 1), (3, 11), (5, 51)])
def test_needed_statistic_is_where_the_clearest_of_many_becomes_significant(n, comparisons):
    statistic = needed_statistic(n, comparisons)
    for factor, significant in ((1.001, True), (0.999, False)):
        p = 2 * stats.t(df=n - 1).sf(factor * statistic)
        assert (holm([p, *[1.0] * (comparisons - 1)])[0] < 0.05) == significant


@pytest.mark.parametrize("n", [1, 2, 3, 6, 10])
def test_sign_test_floor_is_the_binomial_tests_smallest_p(n):
    assert sign_test_floor(n) == pytest.approx(stats.binomtest(n, n).pvalue)
    assert math.isclose(sign_test_floor(6), 0.03125)
