"""The teacher: whether it answers alike each time, and what its task sees of its answers."""

from collections.abc import Iterator

import numpy as np
import torch

from model_compression.checks.networks import ENOUGH
from model_compression.core.finding import Finding
from model_compression.core.inputs import map_inputs
from model_compression.data.batches import to_tensors
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.models.eval_mode import evaluating
from model_compression.tasks import task_of

_SAMPLE = 1000  # test images
_FEW = 256  # training images, before a run
_ALIKE = 1e-3  # of the range of the answers


def examine_before_run(model: Network, train: Dataset, device: torch.device) -> Iterator[Finding]:
    """What is cheap to see of a teacher in eval mode on ``device``, from a few training images.

    Whether it is weak is seen by `check_teachers_answers`, which refuses some.
    """
    yield _constancy(model, train, device)
    known = train.has_ids and train.labelled and len(train) >= ENOUGH
    yield from task_of(train).teacher_findings(model, train, _sample(train, _FEW) if known else None, device)


def examine_teacher(model: Network, train: Dataset, test: Dataset, device: torch.device) -> Iterator[Finding]:
    """Findings on one teacher, in eval mode on ``device``, from a sample of the test images."""
    task, known = task_of(test), test.has_ids
    yield from task.answer_findings(model, to_tensors(test.first(8), device))
    yield _constancy(model, test, device)
    yield from task.teacher_findings(model, train, _sample(test, _SAMPLE) if known else None, device, thorough=True)


def _sample(dataset: Dataset, count: int) -> Dataset:
    return dataset.subset(np.random.Generator(np.random.PCG64(0)).permutation(len(dataset))[:count])


@torch.no_grad()
def _constancy(model: Network, test: Dataset, device: torch.device) -> Finding:
    """Dropout and BatchNorm that are not in eval mode answer otherwise to the same sample."""
    inputs = to_tensors(test.first(8), device)
    with evaluating(model):
        first, again = (model(model.preprocessing(inputs)) for _ in range(2))
        alone = model(model.preprocessing(map_inputs(lambda tensor: tensor[:1], inputs)))
    span = float(first.max() - first.min())
    text = "the same answers each time, alone and in a batch: dropout and BatchNorm are in eval mode"
    remedy = ""
    if float((again - first).abs().max()) > _ALIKE * span:
        text = "answers differently each time: something draws random numbers, as dropout that ignores eval mode"
        remedy = "make its forward() use self.training, as nn.Dropout does"
    elif float((alone - first[:1]).abs().max()) > _ALIKE * span:
        text = "answers a sample alone otherwise than in a batch, as BatchNorm without running statistics does"
        remedy = "give BatchNorm track_running_stats=True, and weights with running_mean and running_var"
    return Finding(area="teacher", subject="eval mode", level="fail" if remedy else "ok", text=text, remedy=remedy)
