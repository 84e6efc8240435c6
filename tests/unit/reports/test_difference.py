"""Whether A is better than B: counts by hand, intervals and tests against other formulas, options that differ."""

import json
import math
import re

import numpy as np
import pytest
from scipy.stats import chi2, ttest_rel
from written_runs import write_run

from model_compression.cli.main import main
from model_compression.core.errors import UsageError
from model_compression.reports.difference import difference
from model_compression.reports.paired_images import OnImages


def right(folder):
    """Of each image, whether the run's student is right on it."""
    from safetensors.numpy import load_file

    found = load_file(folder / "predictions.safetensors")
    return found["student_logits"].argmax(1) == found["targets"]


def test_one_run_each_is_compared_on_their_images(tmp_path):
    a, b = write_run(tmp_path / "a", share=0.8), write_run(tmp_path / "b", None, share=0.4)
    found = difference(str(a), str(b))
    assert found.over_seeds is None
    assert found.on_images == OnImages(
        count=200, only_first=int((right(a) & ~right(b)).sum()), only_second=int((right(b) & ~right(a)).sum())
    )
    assert found.on_images.difference == pytest.approx(right(a).mean() - right(b).mean())
    assert found.is_significant


@pytest.mark.parametrize(("first", "second"), [(30, 10), (3, 9), (5, 5), (700, 640)])
def test_exact_test_is_the_binomial_sum_and_near_the_chi_square_of_many(first, second):
    found = OnImages(count=2000, only_first=first, only_second=second)
    n, k = first + second, min(first, second)
    tail = sum(math.comb(n, i) for i in range(k + 1)) * 2 / 2**n
    assert found.p_value == pytest.approx(min(1.0, tail))
    if n > 1000:
        corrected = (abs(first - second) - 1) ** 2 / n  # Edwards' correction for continuity
        assert found.p_value == pytest.approx(chi2.sf(corrected, 1), rel=0.02)


def test_interval_holds_the_true_difference_in_95_of_100_samples():
    rng, held = np.random.default_rng(0), 0
    cells = np.array([0.55, 0.15, 0.10, 0.20])  # both right, only the first, only the second, none
    for _ in range(1000):
        _, first, second, _ = rng.multinomial(150, cells)
        low, high = OnImages(count=150, only_first=int(first), only_second=int(second)).interval
        held += low <= 0.05 <= high
    assert 930 <= held <= 970  # 950 ± 3 standard deviations


def test_nothing_differs_is_no_evidence():
    found = OnImages(count=100, only_first=0, only_second=0)
    low, high = found.interval
    assert found.p_value == 1.0
    assert low == -high
    assert 0.01 < high < 0.05


def test_seeds_are_paired(tmp_path):
    for seed in (0, 1, 2):
        write_run(tmp_path / "a" / f"seed{seed}", seed=seed, share=0.7)
        write_run(tmp_path / "b" / f"seed{seed}", None, seed=seed, share=0.5)
    write_run(tmp_path / "b" / "seed7", None, seed=7)
    found = difference(str(tmp_path / "a"), str(tmp_path / "b"))
    ours, theirs = ([right(tmp_path / arm / f"seed{seed}").mean() for seed in (0, 1, 2)] for arm in "ab")
    assert found.seeds == [0, 1, 2]
    assert found.over_seeds.mean == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert found.p_value == pytest.approx(ttest_rel(ours, theirs).pvalue)


def test_options_that_differ_are_listed_without_the_defaults_of_what_one_lacks(tmp_path):
    a = write_run(tmp_path / "a", params={"temperature": 3.0}, batch_size=64)
    b = write_run(tmp_path / "b", None)
    assert difference(str(a), str(b)).options == [
        ("batch_size", 64, 256),
        ("method.name", "kd", None),
        ("method.params.temperature", 3.0, None),
        ("teacher.name", "nin-cifar10", None),
    ]


def test_other_images_cannot_be_compared(tmp_path):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", side=6)
    found = difference(str(a), str(b))
    assert (found.on_images, found.is_significant) == (None, None)


def test_answers_that_were_deleted_are_not_taken_for_other_images(tmp_path, capsys):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", None)
    (b / "predictions.safetensors").unlink()
    assert main(["compare", str(a), str(b)]) == 0
    text = capsys.readouterr().out
    assert "B has no predictions.safetensors: no test shows which is better" in text
    assert "different images" not in text


def test_seeds_on_other_images_give_no_verdict(tmp_path, capsys):
    for seed in (0, 1, 2):
        write_run(tmp_path / "a" / f"seed{seed}", seed=seed, share=0.9)
        write_run(tmp_path / "b" / f"seed{seed}", None, seed=seed, share=0.3, images=150)
    found = difference(str(tmp_path / "a"), str(tmp_path / "b"))
    assert found.over_seeds.p_value < 0.05
    assert found.is_significant is None
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    text = capsys.readouterr().out
    assert "on different images: no test shows which is better" in text
    assert "significant" not in text


def test_folders_that_cannot_be_compared_are_refused(tmp_path):
    write_run(tmp_path / "two" / "final")  # as of a pruning
    write_run(tmp_path / "two" / "step-1", None)
    going = write_run(tmp_path / "going", done=2)
    done = write_run(tmp_path / "done")
    for first, message in (
        (tmp_path / "two", "has runs of 2 recipes, .*; give a run, as .*/two/final, or"),
        (going, "has no finished run"),
        (tmp_path / "absent", "is not there"),
    ):
        with pytest.raises(UsageError, match=message):
            difference(str(first), str(done))


def test_command_prints_a_verdict_and_json_with_the_same_figures(tmp_path, capsys):
    a, b = write_run(tmp_path / "a", share=0.8), write_run(tmp_path / "b", None, share=0.4)
    assert main(["compare", str(a), str(b)]) == 0
    text = capsys.readouterr().out
    assert "significant for these two networks: chance in the images seldom gives such a difference" in text
    assert "another seed may give another difference" in text
    assert re.search(r"^method\.name +kd +none$", text, re.MULTILINE)
    assert main(["compare", str(a), str(b), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["significant"] is True
    assert values["on_images"]["difference"] == pytest.approx(right(a).mean() - right(b).mean())
    assert values["differs"]["teacher.name"] == ["nin-cifar10", None]
    assert main(["compare", str(a), str(a)]) == 0
    text = capsys.readouterr().out
    assert "not significant" in text
    assert "the same recipe" in text
