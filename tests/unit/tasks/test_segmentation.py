"""Segmentation: figures against scikit-learn, the loss against a float64 formula, and what is seen of a teacher."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score

from model_compression.core.errors import UsageError
from model_compression.core.masks import IGNORE, coloured, palette
from model_compression.data.batches import Mixed
from model_compression.data.dataset import Dataset
from model_compression.models.create import create_model
from model_compression.tasks import TASKS
from model_compression.tasks.segmentation.findings import examine_answers

TASK = TASKS.create("segmentation")
NAMES = ("sky", "road", "tree", "car")


def answers(seed, count=6, classes=4, size=(7, 9)):
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, 3, (count, *size)).astype(np.uint8)  # the last class is in no mask
    masks[rng.random(masks.shape) < 0.3] = IGNORE
    return torch.from_numpy(rng.normal(size=(count, classes, *size)).astype(np.float32)), torch.from_numpy(masks)


def dataset(masks, names=NAMES):
    images = np.zeros((len(masks), 3, *masks.shape[1:]), dtype=np.uint8)
    return Dataset(
        name="scenes", samples=images, labels=np.asarray(masks), class_names=names, mean=(0.5,) * 3, std=(0.2,) * 3,
        task="segmentation",
    )  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
def test_figures_are_those_of_scikit_learn(seed):
    logits, masks = answers(seed)
    valid = masks != IGNORE
    found, truth = logits.argmax(dim=1)[valid].numpy(), masks[valid].numpy()
    expected = {"miou": jaccard_score(truth, found, average="macro"), "pixel_accuracy": accuracy_score(truth, found)}
    assert TASK.figures(logits, masks) == pytest.approx(expected)
    assert TASK.figures(TASK.kept(logits), masks) == TASK.figures(logits, masks)


def test_miou_is_over_the_classes_that_occur():
    masks = torch.tensor([[[0, 0], [1, IGNORE]]], dtype=torch.uint8)
    assert TASK.figures(masks.clamp(max=1), masks)["miou"] == 1
    assert TASK.figures(torch.zeros_like(masks), masks)["miou"] == pytest.approx((2 / 3 + 0) / 2)
    assert TASK.figures(torch.zeros_like(masks), torch.full_like(masks, IGNORE))["miou"] == 0


def test_score_sums_the_miou_of_each_image():
    logits, masks = answers(3)
    expected = sum(TASK.value(one[None], mask[None]) for one, mask in zip(logits, masks, strict=True))
    assert float(TASK.score(logits, masks)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mixes", [False, True])
def test_label_loss_is_the_mean_over_the_pixels_that_count(smoothing, mixes):
    logits, masks = answers(4)
    others, share = answers(5)[1], torch.linspace(0.2, 0.9, 6)
    log_p = logits.double().log_softmax(dim=1).numpy()

    def entropy(truth):
        kept = np.where(truth == IGNORE, 0, truth)[:, None].astype(int)
        own = -np.take_along_axis(log_p, kept, axis=1)[:, 0]
        return np.where(truth == IGNORE, 0, (1 - smoothing) * own - smoothing * log_p.mean(axis=1))

    expected = entropy(masks.numpy())
    if mixes:
        part = share.numpy()[:, None, None]
        expected = part * expected + (1 - part) * entropy(others.numpy())
    mixed = Mixed(targets=others, share=share) if mixes else None
    found = TASK.label_loss(logits, masks, mixed, smoothing)
    assert float(found) == pytest.approx(expected.sum() / (masks.numpy() != IGNORE).sum(), rel=1e-5)


def test_agreement_is_the_share_of_equal_pixels():
    one, other = answers(6)[0], answers(7)[0]
    expected = (one.argmax(dim=1) == other.argmax(dim=1)).double().mean()
    assert TASK.agreement(one, other) == pytest.approx(float(expected))
    assert TASK.agreement(TASK.kept(one), TASK.kept(other)) == TASK.agreement(one, other)


def test_an_image_changes_when_over_one_percent_of_its_pixels_do():
    masks = torch.zeros(3, 20, 20, dtype=torch.uint8)
    other = masks.clone()
    other[1, 0, :4], other[2, 0, :5] = 1, 1
    assert TASK.changes(other, masks, 0.1).others == (2,)


def test_mistakes_are_the_images_with_most_wrong_pixels_and_more_than_the_teachers():
    truth = torch.zeros(3, 4, 4, dtype=torch.uint8)
    found, teacher = truth.clone(), truth.clone()
    found[1, 0], found[2, :2] = 1, 1
    assert TASK.surest_mistakes(found, None, truth).tolist() == [2, 1]
    teacher[2, :3] = 1
    assert TASK.surest_mistakes(found, teacher, truth).tolist() == [1]


def test_a_network_that_gives_each_pixel_one_class_is_guessing():
    truth = np.zeros((4, 8, 8), dtype=np.uint8)
    truth[:, :2] = 1
    data = dataset(truth)
    same = TASK.value(torch.zeros(4, 8, 8, dtype=torch.uint8), torch.from_numpy(truth))
    assert same == pytest.approx(0.75 / 2)
    assert "no better than one class" in TASK.guessing_fault(same, data)
    assert TASK.guessing_fault(same + 0.01, data) is None


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4), "expected logits of each pixel, \\(2, 4, 7, 9\\): choose a network for segmentation"),
        ((2, 3, 7, 9), "answers with 3 classes, but the data \\(scenes\\) have 4"),
        ((2, 4, 14, 18), "answers with 14 × 18 pixels, and masks have 7 × 9: leave its size out"),
    ],
)
def test_networks_that_answer_otherwise_are_refused(shape, message):
    data = dataset(answers(0)[1])
    with pytest.raises(UsageError, match=message):
        TASK.check_answer("student", create_model("unet", num_classes=4), data, torch.zeros(shape))


def test_teacher_with_classes_in_another_order_untrained_or_of_one_class_is_found():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.repeat(rng.integers(0, 4, (80, 4, 4)), 4, axis=1), 4, axis=2).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = IGNORE
    data = dataset(truth)
    noisy = np.where(rng.random(truth.shape) < 0.2, rng.integers(0, 4, truth.shape), truth).astype(np.uint8)

    def fault(of):
        """What is found when the teacher answers the samples, whose pixels all differ, with masks of ``of``."""

        def predict(sample):
            rows = [np.flatnonzero((truth == one).all(axis=(1, 2)))[0] for one in sample.labels]
            return torch.from_numpy(of[rows])

        return TASK.teacher_fault(create_model("unet", num_classes=4), data, predict, "look at its head")

    assert fault(np.where(noisy == IGNORE, 0, noisy).astype(np.uint8)) is None
    turned = np.array([1, 2, 3, 0, *[0] * 252], dtype=np.uint8)[noisy]
    assert "has its classes in another order than scenes" in fault(turned)
    assert "know nothing of them" in fault(rng.integers(0, 4, truth.shape).astype(np.uint8))
    assert "one and the same class to all" in fault(np.zeros_like(truth))


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], "4 classes, all with training and test pixels"),
        ([0, 1, 2], [0, 1, 2, 3], "no training pixels of car"),
        ([0, 1, 2, 3], [0, 1], "no test pixels of tree, car"),
        ([1], [1], "all training pixels are of one class"),
    ],
)
def test_data_findings_name_classes_without_pixels(train, test, said):
    sets = [dataset(np.array(classes, dtype=np.uint8).repeat(30).reshape(1, -1, 10)) for classes in (train, test)]
    assert next(TASK.data_findings(*sets)).text == said


def test_palette_is_that_of_pascal_voc_and_ignored_pixels_are_white():
    assert palette(256)[[0, 1, 2, 3, 8, 20, 21]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [64, 0, 0], [0, 64, 128], [128, 64, 128],
    ]  # fmt: skip
    assert len({*map(tuple, palette(256).tolist())}) == 256
    assert coloured(np.array([[IGNORE, 1]], dtype=np.uint8)).tolist() == [[[255] * 3, [128, 0, 0]]]


def test_doctor_says_how_good_a_teachers_masks_are_and_what_is_wrong():
    truth = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 4, (80, 4, 4)), 4, axis=1), 4, axis=2)
    data = dataset(truth.astype(np.uint8))
    good = examine_answers(data.labels, data, 1.0)
    assert (good.level, good.text) == ("ok", "mIoU 100.0% on 80 test images")
    turned = examine_answers(((data.labels + 1) % 4).astype(np.uint8), data, 0.0)
    assert turned.level == "fail"
    assert "has its classes in another order than scenes" in turned.text
    assert "rows of its last layer" in turned.remedy
