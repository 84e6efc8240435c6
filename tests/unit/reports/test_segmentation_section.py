"""The report section of segmentation: figures against scikit-learn, the interval, and damaged files."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.metrics import confusion_matrix, jaccard_score

from model_compression.core.errors import FileFormatError
from model_compression.core.masks import IGNORE
from model_compression.reports.masks import bootstrap_interval
from model_compression.reports.sections import section_named

SECTION = section_named("segmentation")
NAMES = ["sky", "<b>road</b>", "tree"]


def tensors(count=30, size=(6, 8)):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, (count, *size)).astype(np.uint8)

    def found(share):
        wrong = rng.random(targets.shape) > share
        return np.where(wrong, rng.integers(0, 3, targets.shape), targets).astype(np.uint8)

    values = {"student_masks": found(0.6), "teacher_masks": found(0.9), "targets": targets}
    values["targets"][rng.random(targets.shape) < 0.1] = IGNORE
    images = rng.integers(0, 256, (5, 3, *size), dtype=np.uint8)
    return values | {"thumbnails": images, "thumbnail_rows": np.array([0, 3, 5, 9, 29])}


def written(path, values):
    save_file(values, path, {"class_names": json.dumps(NAMES)})
    return path


def test_figures_are_those_of_scikit_learn(tmp_path):
    values = tensors()
    found = SECTION.examine(SECTION.read(written(tmp_path / "p.safetensors", values), "scenes"))
    valid = values["targets"] != IGNORE
    truth, student, teacher = (values[key][valid] for key in ("targets", "student_masks", "teacher_masks"))
    plain = found.to_plain()
    assert plain["confusion"] == confusion_matrix(truth, student).tolist()
    assert [one["iou"] for one in plain["classes"]] == pytest.approx(jaccard_score(truth, student, average=None))
    assert [one["teacher_iou"] for one in plain["classes"]] == pytest.approx(
        jaccard_score(truth, teacher, average=None)
    )
    assert found.value == pytest.approx(jaccard_score(truth, student, average="macro"))
    assert found.agreement == pytest.approx(np.mean(values["student_masks"] == values["teacher_masks"]))
    low, high = found.interval
    assert low < found.value < high
    assert found.teacher_interval[0] > high


def test_interval_is_that_of_images_drawn_again():
    """As wide as that of an independent bootstrap, image by image, but for chance."""
    values = tensors()
    student, targets = values["student_masks"], values["targets"]
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(400):
        rows = rng.integers(0, len(targets), len(targets))
        valid = targets[rows] != IGNORE
        drawn.append(jaccard_score(targets[rows][valid], student[rows][valid], average="macro"))
    expected = np.percentile(drawn, (2.5, 97.5))
    assert bootstrap_interval(student, targets, 3) == pytest.approx(expected, abs=0.006)
    assert bootstrap_interval(student, targets, 3) == bootstrap_interval(student, targets, 3)


def test_page_shows_the_most_wrong_masks_first_beside_image_and_truth(tmp_path):
    values = tensors()
    page = SECTION.examine(SECTION.read(written(tmp_path / "p.safetensors", values), "scenes")).page_values(0)
    valid = values["targets"] != IGNORE
    wrong = ((values["student_masks"] != values["targets"]) & valid).sum(axis=(1, 2)) / valid.sum(axis=(1, 2))
    assert [scene["number"] for scene in page["scenes"]] == sorted([0, 3, 5, 9, 29], key=lambda row: -wrong[row])
    assert [name for name, _ in page["scenes"][0]["pictures"]] == ["image", "truth", "teacher", "student"]
    del values["teacher_masks"]
    alone = SECTION.examine(SECTION.read(written(tmp_path / "q.safetensors", values), "scenes"))
    assert [name for name, _ in alone.page_values(0)["scenes"][0]["pictures"]] == ["image", "truth", "student"]


def test_answer_to_an_image_is_the_share_of_each_class():
    logits = np.zeros((3, 4, 5))
    logits[2, :1], logits[1, 1:] = 1, 1
    assert SECTION.decode(logits, NAMES) == [("<b>road</b>", 0.75), ("tree", 0.25)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student_masks": None}, "is damaged: it has no student_masks"),
        ({"targets": np.zeros((30, 48), np.uint8)}, r"expected masks \(N, H, W\)"),
        ({"student_masks": np.full((30, 6, 8), 3, np.uint8)}, "the student masks are uint8 .*; expected class numbers"),
        ({"teacher_masks": np.zeros((30, 6, 8), np.int64)}, "the teacher masks are int64"),
        ({"thumbnail_rows": np.array([0, 1, 2, 3, 30])}, "thumbnails are"),
    ],
)
def test_damaged_files_are_named(tmp_path, change, message):
    values = {key: value for key, value in {**tensors(), **change}.items() if value is not None}
    with pytest.raises(FileFormatError, match=message):
        SECTION.read(written(tmp_path / "p.safetensors", values), "scenes")
