"""Checks before training: they find what is wrong, name it, and leave every teacher alone that could be good."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from model_compression.checks.networks import check_classes, check_teachers_answers
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.data.dataset import Dataset
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.models.external import External
from model_compression.models.preprocessing import Preprocessing
from model_compression.tasks.image_classification.class_names import other_classes
from model_compression.tasks.image_classification.teacher_faults import better_order, weakness

NAMES = ("apple", "fig", "kiwi", "lemon", "pear")
CONFIG = TrainConfig(
    student=ModelConfig(name="x"), teacher=ModelConfig(name="y"), method=MethodConfig(name="kd"), data=DataConfig()
)


def drawn(count, num_classes, accuracy, seed=0):
    """Labels, and answers that are right with that probability, else any class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, count)
    return np.where(rng.random(count) < accuracy, labels, rng.integers(0, num_classes, count)), labels


class Coded(nn.Module):
    """Reads the class from the first pixel of an image, as its answer, through ``order``."""

    def __init__(self, order, wanted=None):
        super().__init__()
        self.order, self.wanted = torch.as_tensor(order), wanted
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        if self.wanted and images.shape[2:] != self.wanted:
            raise AssertionError("Input height doesn't match model")
        return 9.0 * nn.functional.one_hot(self.order[images[:, 0, 0, 0].round().long()], len(self.order)).float()


def coded_data(count=600, wrong=0.0):
    """Images whose first pixel is their class, but for a share of ``wrong`` ones."""
    answers, labels = drawn(count, 5, 1 - wrong)
    images = np.zeros((count, 3, 4, 4), dtype=np.uint8)
    images[:, 0, 0, 0] = answers
    return Dataset(name="fruit", samples=images, labels=labels, class_names=NAMES, mean=(0.5,) * 3, std=(0.5,) * 3)


def checked(order, dataset, *, facts=(), config=CONFIG):
    network = External(Coded(order), Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3))
    network.facts = dict(facts)
    said = []
    live = LiveTeacher([network], torch.device("cpu"), torch.float32)
    check_teachers_answers(config, live, dataset, said.append)
    return said


def test_good_teacher_is_left_alone():
    assert checked([0, 1, 2, 3, 4], coded_data(wrong=0.3), facts={"test_accuracy": 0.8}) == []


def test_teacher_in_another_order_of_classes_is_named_with_the_order():
    with pytest.raises(UsageError) as caught:
        checked([0, 4, 2, 3, 1], coded_data(wrong=0.2))
    message = str(caught.value)
    assert "in another order than fruit, or is not trained: it says 'fig' for 'pear', 'pear' for 'fig'; " in message
    assert "put the rows of its last layer (rows [0, 4, 2, 3, 1])" in message
    assert message.endswith("; allow_weak_teacher=True goes on nevertheless")


def test_rows_that_the_message_names_mend_the_order():
    wrong = np.array([1, 2, 3, 4, 0])  # what the teacher says for each class
    answers = wrong[np.arange(500) % 5]
    order = better_order(answers, np.arange(500) % 5, 5)
    rows = np.argsort(order)
    logits = np.eye(5)[answers]
    np.testing.assert_array_equal(logits[:, rows].argmax(1), np.arange(500) % 5)


def test_teacher_far_below_its_stated_accuracy_is_named():
    with pytest.raises(UsageError, match=r"is right on 5\d\.\d% of 600 training images, and its file states 95.0%"):
        checked([0, 1, 2, 3, 4], coded_data(wrong=0.5), facts={"test_accuracy": 0.95})


def test_teacher_of_other_data_is_said_to_be_one():
    facts = {"test_accuracy": 0.95, "config": {"data": {"name": "fruit"}}}
    with pytest.raises(UsageError, match=r"trained on fruit: unless cifar10 has the same classes, train a teacher on"):
        checked([0, 1, 2, 3, 4], coded_data(wrong=0.5), facts=facts)


def test_teacher_near_chance_is_named_with_what_to_look_at_or_only_mentioned():
    data = coded_data(wrong=1.0)
    with pytest.raises(UsageError, match=r"would be on 20\.\d%; look at its normalisation \(mean 0, 0, 0; std 0.00392"):
        checked([0, 1, 2, 3, 4], data)
    said = checked([0, 1, 2, 3, 4], data, config=dataclasses.replace(CONFIG, allow_weak_teacher=True))
    assert len(said) == 1
    assert said[0].endswith("; going on, because a weak teacher is allowed")


def test_teacher_of_a_builder_without_weights_is_told_that_none_were_given():
    named = dataclasses.replace(CONFIG, teacher=ModelConfig(name=External(Coded([0])).name))
    expected = (
        r"no weights were given: give them with teacher_weights; if \S+:Coded loads them itself, look at its norm"
    )
    with pytest.raises(UsageError, match=expected):
        checked([0, 1, 2, 3, 4], coded_data(wrong=1.0), config=named)


def test_constant_answers_on_unequal_classes_are_seen_through():
    labels = np.repeat([0, 1, 2, 3], [500, 170, 165, 165])
    answers = np.zeros(1000, dtype=np.int64)
    answers[-1] = 1
    assert "would be on 50.0%" in weakness(answers, labels)  # though half of them are right


def test_one_class_for_all_images_is_named_unless_nearly_all_are_of_it():
    answers, labels = np.ones(50, dtype=np.int64), np.repeat([0, 1], [20, 30])
    assert weakness(answers, labels) == "gives one and the same class to all of 50 training images"
    assert weakness(answers, np.repeat([0, 1], [4, 46])) is None


def test_handful_of_images_proves_nothing():
    assert checked([1, 2, 3, 4, 0], coded_data(49), facts={"test_accuracy": 0.9}) == []
    with pytest.raises(UsageError, match="another order"):
        checked([1, 2, 3, 4, 0], coded_data(50))


@pytest.mark.parametrize(("num_classes", "count"), [(2, 1024), (10, 256), (10, 1024), (100, 1024)])
def test_answers_at_random_are_found_and_weak_ones_pass(num_classes, count):
    """Of teachers without knowledge most are found; of those with a kappa of 0.2 fewer than one in a hundred."""
    found = sum(weakness(*drawn(count, num_classes, 0.0, seed)) is not None for seed in range(300))
    false = sum(weakness(*drawn(count, num_classes, 0.2, seed)) is not None for seed in range(300))
    orders = sum(better_order(*drawn(count, num_classes, 0.2, seed), num_classes) is not None for seed in range(30))
    assert found > 150
    assert false <= 3
    assert orders == 0


def test_stated_accuracy_is_missed_beyond_bad_luck_only():
    answers, labels = drawn(400, 5, 0.6)
    accuracy = (answers == labels).mean()
    high = binomtest(int((answers == labels).sum()), 400, alternative="less").proportion_ci(0.99).high
    assert weakness(answers, labels, high + 0.099) is None
    assert f"is right on {accuracy:.1%} of 400" in weakness(answers, labels, high + 0.101)


@pytest.mark.parametrize("num_classes", [2, 5, 50])
def test_another_order_is_found_with_all_its_classes(num_classes):
    truth = np.roll(np.arange(num_classes), 1)
    answers, labels = drawn(100 * num_classes, num_classes, 0.7)
    order = better_order(truth[answers], labels, num_classes)
    np.testing.assert_array_equal(order[truth], np.arange(num_classes))


def test_teacher_of_other_classes_that_gains_by_another_order_is_not_said_to_be_in_order():
    truth = np.roll(np.arange(10), 1)
    answers, labels = drawn(1000, 10, 0.35)
    assert better_order(truth[answers], labels, 10) is None
    assert "would be on" in weakness(truth[answers], labels)


def test_class_that_is_confused_is_no_other_order():
    labels = np.arange(1000) % 10
    answers = np.where((labels == 3) & (np.arange(1000) % 3 > 0), 5, labels)  # most cats are called dogs
    assert better_order(answers, labels, 10) is None


def test_network_of_other_classes_is_said_to_be_one_unless_they_are_numbers():
    network, data = External(Coded(range(5), (8, 8))), coded_data(10)
    for own, said in (
        (list(data.class_names), False),
        (["0", "1", "2", "3", "4"], False),
        (["cat", *data.class_names[1:]], True),
    ):
        network.facts = {"class_names": own}
        lines = other_classes(network, data)
        assert [f"its class 0 is 'cat', the data's {data.class_names[0]!r}" in line for line in lines] == [True] * said


def test_images_that_a_network_cannot_take_are_named_with_the_remedy():
    network = External(Coded(range(5), (8, 8)))
    with pytest.raises(
        UsageError, match=r"the teacher cannot take images of \(3, 4, 4\), as fruit has: Input .*teacher_size"
    ):
        check_classes("teacher", network, coded_data(10))
    network.preprocessing = Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3, size=(8, 8))
    check_classes("teacher", network, coded_data(10))
