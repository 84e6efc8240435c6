"""A comparison from its records: what is paired, tested and said, and that 28 methods fit into 80 columns."""

import json

import numpy as np
import pytest
from scipy import stats

from model_compression.reports.comparison_notes import notes
from model_compression.reports.comparison_tables import write_comparison
from model_compression.reports.method_comparison import compare
from model_compression.reports.records import record_path

ACCURACIES = {  # by seed
    "labels": {0: 0.700, 1: 0.706, 2: 0.702},
    "kd": {0: 0.741, 1: 0.752, 2: 0.745, 3: 0.990},  # seed 3 has no partner
    "dkd": {0: 0.743, 1: 0.750, 2: 0.749},
    "at": {0: 0.760},
}


def record(arm, seed, accuracy, name="test"):
    teacher = None if arm == "labels" else {"name": "runs/teacher"}
    metrics = {f"{name}_accuracy": accuracy, f"{name}_nll": 0.8, f"{name}_ece": 0.05, "precision": "bfloat16"}
    if teacher:
        metrics |= {f"teacher_{name}_accuracy": 0.93, "teacher_agreement": accuracy + 0.02}
    config = {
        "student": {"name": "resnet8"}, "teacher": teacher, "data": {"name": "cifar10", "augmentation": "none",
        "validation": 0}, "optim": {"optimizer": "adam", "lr": 1e-3, "schedule": "constant", "weight_decay": 0.0},
        "epochs": 5, "batch_size": 256, "seed": seed, "label_smoothing": 0.0,
    }  # fmt: skip
    environment = {"gpu": None, "threads": 2, "processor": "a processor", "torch": "2.13.0"}
    facts = {"metrics": metrics, "environment": environment, "events": [], "peak_memory_bytes": 700 * 2**20}
    return {"arm": arm, "config": config, "seconds_per_epoch": 10.0 + seed, **facts}


def records(accuracies=ACCURACIES, name="test"):
    return [record(arm, seed, a, name) for arm, found in accuracies.items() for seed, a in found.items()]


def without_result(arm, seed, **reason):
    return {"arm": arm, "config": {"seed": seed}, **reason}


def test_rows_are_means_over_the_seeds_best_first():
    comparison = compare(records())
    assert [row.arm for row in comparison.rows] == ["kd", "at", "dkd", "labels"]
    row = comparison.rows[0]
    values = list(ACCURACIES["kd"].values())
    assert (row.seeds, row.values) == ((0, 1, 2, 3), tuple(values))
    low, high = stats.t.interval(0.95, df=3, loc=np.mean(values), scale=stats.sem(values))
    assert row.summary.mean - row.summary.half_width == pytest.approx(low)
    assert row.summary.mean + row.summary.half_width == pytest.approx(high)
    assert row.agreement == pytest.approx(np.mean(values) + 0.02)
    assert (row.seconds_per_epoch, row.peak_memory_bytes) == (11.5, 700 * 2**20)
    assert comparison.rows[-1].agreement is None
    assert comparison.rows[1].summary.half_width is None
    assert (comparison.teacher, comparison.teacher_result) == ("runs/teacher", 0.93)


def test_gains_are_paired_by_seed_and_corrected_over_all_tests():
    comparison = compare(records())
    common = [0, 1, 2]
    tests = {
        (arm, base): stats.ttest_rel(*([ACCURACIES[name][seed] for seed in common] for name in (arm, base))).pvalue
        for arm, base in (("kd", "labels"), ("dkd", "labels"), ("dkd", "kd"))
    }
    order = sorted(tests, key=tests.get)
    expected, largest = {}, 0.0
    for factor, pair in zip((3, 2, 1), order, strict=True):
        largest = expected[pair] = max(largest, min(1.0, factor * tests[pair]))
    assert comparison.num_tests == 3
    found = {(gain.arm, gain.baseline): gain for gain in comparison.gains}
    assert set(found) == {*tests, ("at", "labels"), ("at", "kd")}
    for pair, p in expected.items():
        assert found[pair].corrected_p == pytest.approx(p)
        assert found[pair].significant == (p < 0.05)
    assert found["kd", "labels"].gain.mean == pytest.approx((0.041 + 0.046 + 0.043) / 3)
    assert (found["at", "kd"].gain.mean, found["at", "kd"].corrected_p) == (pytest.approx(0.019), None)
    assert {found[pair].significant for pair in expected} == {True, False}


def test_note_names_methods_that_drown_the_labels():
    arms = records({"labels": {0: 0.70}, "kd": {0: 0.74}, "at": {0: 0.48}, "sp": {0: 0.60}, "logits": {0: 0.5}})
    shares = {"kd": 0.1, "at": 0.09, "sp": 0.8, "logits": 0.0}  # kd is good, sp listens, logits are without labels
    for found in arms:
        if found["arm"] != "labels":
            found["label_share"] = shares[found["arm"]]
    said = [note for note in notes(compare(arms)) if "below label-only" in note]
    assert len(said) == 1
    assert "More than 2 points below label-only" in said[0]
    assert "last epoch: at 9.0%. Their" in said[0]
    assert not any("below label-only" in note for note in notes(compare(records())))


def test_note_names_methods_whose_network_is_larger():
    arms = records({"labels": {0: 0.70}, "simkd": {0: 0.81}, "kd": {0: 0.74}})
    for found in arms:
        found["metrics"]["parameters"] = 230_000 if found["arm"] == "simkd" else 78_042
    said = [note for note in notes(compare(arms)) if "ships" in note]
    assert said == ["simkd is not comparable in size: it ships 230,000 parameters, the student alone 78,042."]
    assert not any("ships" in note for note in notes(compare(records())))


def test_held_out_images_are_what_is_compared_where_there_are_any():
    comparison = compare(records(name="validation"))
    assert comparison.eval_set == "validation"
    assert comparison.rows[0].summary.n == 4


def test_runs_without_a_result_are_listed_with_the_reason():
    found = [
        *records(),
        without_result("fsp", 0, not_run="needs two pairs"),
        without_result("at", 0, not_run="an older reason"),  # by now it runs
        without_result("crd", 1, failed="killed"),
    ]
    comparison = compare(found)
    assert comparison.not_run == {"fsp": "needs two pairs"}
    assert comparison.failed == {"crd, seed 1": "killed"}


def test_notes_say_what_few_seeds_allow():
    one = notes(compare(records({"labels": {0: 0.7}, "kd": {0: 0.8}})))
    assert any(note.startswith("n = 1: no interval and no test") for note in one)
    assert not any("degree" in note for note in one)
    several = "\n".join(notes(compare(records())))
    assert "With n = 3 pairs the t test has 2 degrees of freedom" in several
    assert "from 7.6 standard errors on" in several  # t(1 − 0.05/6; 2) = 7.649, from a printed table of Bonferroni's t
    assert "no p below 0.25" in several
    assert "Rows differ in n" in several
    same = "\n".join(notes(compare(records({"labels": {0: 0.7, 1: 0.6}, "kd": {0: 0.75, 1: 0.65}}))))
    assert "n = 2: the t interval" in same
    assert "n = 2: the t" not in "\n".join(one)
    assert "No p value where all seeds give the same gain, so that its spread is unknown: kd over labels" in same
    assert notes(compare([])) == []


def test_28_methods_fit_into_80_columns_and_the_page_has_the_same(tmp_path):
    rng = np.random.default_rng(0)
    arms = ["labels", "kd", "noisy_teacher+at", *(f"method_{number}" for number in range(25))]
    for arm in arms:
        for seed in range(3):
            path = record_path(tmp_path, arm, seed)
            path.write_text(json.dumps(record(arm, seed, float(rng.normal(0.7, 0.02)))))
    fsp = without_result("fsp", 0, not_run="method 'fsp' needs at least 2 pairs of layers " + "and many words " * 9)
    record_path(tmp_path, "fsp", 0).write_text(json.dumps(fsp))
    text, content = write_comparison(tmp_path, "A title")
    assert max(map(len, text.splitlines())) <= 80
    page = (tmp_path / "table.md").read_text()
    for arm in ("label-only", *arms[1:]):
        assert text.count(f"\n{arm} ") == (1 if arm == "label-only" else 2), arm
        assert f"| {arm} | 3 |" in page
    assert "fsp: not run: method 'fsp' needs" in text
    assert "resnet8 on cifar10; 5 epochs; batch 256; adam, rate 0.001, constant" in page
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert [len({line.count("|") for line in table}) for table in tables] == [1, 1]
    assert json.loads((tmp_path / "comparison.json").read_text()) == json.loads(json.dumps(content))
    assert len(content["gains"]) == 27 + 26
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_comparison_without_a_single_result_has_the_reasons_only(tmp_path):
    record_path(tmp_path, "kd", 0).write_text(json.dumps(without_result("kd", 0, failed="killed")))
    text, _ = write_comparison(tmp_path, "A title")
    assert text == "A title\n\nkd, seed 0: failed: killed"
    assert not (tmp_path / "comparison.png").exists()
