"""F1 by class of texts and of words: against scikit-learn, in findings and on the page."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.metrics import f1_score, precision_recall_fscore_support
from written_runs import logits_for, write_run

from model_compression.cli.main import main
from model_compression.core.text import percent
from model_compression.reports.sections import section_named

NAMES = ("glad", "<i>odd</i>", "sad", "never true", "nowhere")


def written(folder, task):
    """A run of 5 classes: the fourth is only predicted, the fifth not at all; ids of (targets, student, teacher)."""
    write_run(folder, images=60, classes=NAMES)
    rng = np.random.default_rng(4)
    targets = rng.integers(0, 3, 60)
    student, teacher = logits_for(targets, 4, 0.6, 1), logits_for(targets, 3, 0.9, 2)
    student, teacher = (np.pad(one, ((0, 0), (0, 5 - one.shape[1])), constant_values=-9) for one in (student, teacher))
    values = {"student_logits": student, "teacher_logits": teacher, "targets": targets}
    if task == "token-classification":  # 12 texts of 5 words, behind each a token that is none
        values = {key: one.reshape(12, 5, *one.shape[1:]) for key, one in values.items()}
        pads = {key: [(0, 0), (0, 1), *[(0, 0)] * (one.ndim - 2)] for key, one in values.items()}
        values = {key: np.pad(one, pads[key], constant_values=-100) for key, one in values.items()}
        values = {key: np.ascontiguousarray(one) for key, one in values.items()}
    count = len(values["targets"])
    values["excerpt_rows"] = np.arange(count)
    facts = {"class_names": json.dumps(NAMES), "excerpts": json.dumps(["one two three four five"] * count)}
    save_file(values, folder / "predictions.safetensors", facts)
    accuracies = [float(np.mean(one.argmax(axis=1) == targets)) for one in (student, teacher)]
    agreement = float(np.mean(student.argmax(axis=1) == teacher.argmax(axis=1)))
    kept = json.loads((folder / "metrics.json").read_text())
    own = dict(zip(("test_accuracy", "teacher_test_accuracy"), accuracies, strict=True))
    (folder / "metrics.json").write_text(json.dumps(kept | own | {"task": task, "teacher_agreement": agreement}))
    return targets, student.argmax(axis=1), teacher.argmax(axis=1)


@pytest.mark.parametrize(("task", "noun"), [("text-classification", "texts"), ("token-classification", "words")])
def test_f1_by_class_is_that_of_scikit_learn_and_on_the_page(tmp_path, task, noun):
    targets, student, teacher = written(tmp_path / "run", task)
    options = {"labels": [0, 1, 2, 3], "zero_division": 0.0}
    precision, recall, f1, count = precision_recall_fscore_support(targets, student, **options)
    taught = f1_score(targets, teacher, average=None, labels=[0, 1, 2], zero_division=0.0)
    order = np.argsort(f1, kind="stable")
    assert order[0] == 3

    section = section_named(task)
    found = section.examine(section.read(tmp_path / "run" / "predictions.safetensors", "moods"))
    assert list(found.f1) == [NAMES[number] for number in order]
    assert list(found.f1.values()) == pytest.approx(f1[order])
    assert found.columns["F1"] == percent(f1.mean())

    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    part = page.partition("<h3>F1 by class</h3>")[2].partition("</section>")[0]
    assert f"n = 60 {noun}" in part
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(<td>.*?)</tr>", part)]
    assert [row[0] for row in rows] == [NAMES[n].replace("<", "&lt;").replace(">", "&gt;") for n in order]
    for row, number in zip(rows, order, strict=True):
        values = [precision[number], recall[number] if count[number] else None, f1[number]]
        values.append(taught[number] if number < 3 else None)
        shown = ["–" if value is None else percent(value, 1) for value in values]
        assert row[1:] == [str(count[number]), *shown]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("text-classification", "on the same 60 texts the networks"),
        ("token-classification", "several common seeds are needed: no test shows which is better"),
    ],
)
def test_words_of_one_text_are_no_independent_samples_of_a_test(tmp_path, capsys, task, said):
    """The report says so, and `compare` counted them all."""
    for name in ("a", "b"):
        written(tmp_path / name, task)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    found = capsys.readouterr().out
    assert said in found
    assert ("McNemar" in found) == (task == "text-classification")
    assert "images" not in found


def test_page_of_images_has_no_f1(tmp_path):
    write_run(tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    assert "F1 by class" not in (tmp_path / "page.html").read_text()
