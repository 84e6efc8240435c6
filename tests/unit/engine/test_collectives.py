"""BatchNorm of the global batch against torch's own, in float64, and how batches are shared out."""

import os
import pickle
from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from model_compression.data.batches import Batch, slice_bounds
from model_compression.engine.collectives import SynchronizedBatchNorm
from model_compression.engine.micro_batches import split


@pytest.fixture
def alone(tmp_path):
    """A group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("shape", [(16, 8, 6, 5), (14, 8)])
def test_batch_norm_of_the_global_batch_is_torchs_with_its_gradients_and_statistics(alone, shape):
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(*size, dtype=torch.float64, generator=generator) for size in (shape, (8,), (8,), shape)]
    found = []
    for synchronized in (False, True):
        inputs, weight, bias = (tensor.clone().requires_grad_() for tensor in given[:3])
        mean, variance = torch.zeros(8, dtype=torch.float64), torch.ones(8, dtype=torch.float64)
        if synchronized:
            with SynchronizedBatchNorm():
                answer = F.batch_norm(inputs, mean, variance, weight, bias, training=True, momentum=0.3)
        else:
            answer = F.batch_norm(inputs, mean, variance, weight, bias, training=True, momentum=0.3)
        (answer * given[3]).sum().backward()
        found.append((answer, inputs.grad, weight.grad, bias.grad, mean, variance))
    for own, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(own, expected, atol=1e-12, rtol=1e-12)


def test_batch_norm_that_does_not_train_is_left_alone(alone):
    inputs, mean, variance = torch.randn(2, 3), torch.zeros(3), torch.ones(3)
    with SynchronizedBatchNorm():
        answer = F.batch_norm(inputs, mean, variance)
    torch.testing.assert_close(answer, F.batch_norm(inputs, mean, variance))


def test_slices_cover_a_batch_and_differ_by_one_at_most():
    for total in range(1, 40):
        for parts in range(1, 9):
            bounds = slice_bounds(total, parts)
            lengths = [end - start for start, end in pairwise(bounds)]
            assert (bounds[0], bounds[-1]) == (0, total)
            assert max(lengths) - min(lengths) <= 1


def test_all_processes_split_their_slices_into_as_many_parts():
    for longest in range(2, 30):
        for size in range(1, longest):
            counts = []
            for count in (longest, longest - 1):
                ids = torch.arange(count)
                batch = Batch(inputs=ids, targets=ids, ids=ids, view=0)
                parts = split(batch, longest, size)
                assert torch.equal(torch.cat([part.ids for part in parts]), ids)
                assert max(len(part.ids) for part in parts) <= size
                counts.append(len(parts))
            assert counts[0] == counts[1]


def test_an_error_of_the_first_process_is_raised_in_all_whatever_it_is_made_of(monkeypatch):
    from model_compression.core import errors, processes

    raised = [
        errors.MissingExtraError("optuna", "search", "a search"),
        errors.Interrupted("stopped", exit_code=143),
        errors.GivenAsObjectError("the student", "give its name"),
        OSError(28, "full", "/x"),
    ]
    monkeypatch.setattr(processes, "world_size", lambda: 2)

    def fail():
        raise error

    for error in raised:
        sent = []
        monkeypatch.setattr(processes, "is_main", lambda: True)
        monkeypatch.setattr(processes, "same", lambda value, sent=sent: sent.append(pickle.dumps(value)) or value)
        with pytest.raises(type(error)):
            processes.on_main(fail)
        monkeypatch.setattr(processes, "is_main", lambda: False)
        monkeypatch.setattr(processes, "same", lambda value, sent=sent: pickle.loads(sent[0]))
        with pytest.raises(type(error)) as found:
            processes.on_main(fail)
        assert str(found.value) == str(error)
        assert vars(found.value) == vars(error)


def test_variables_that_are_no_numbers_are_refused(monkeypatch):
    from model_compression.core import processes
    from model_compression.core.errors import UsageError

    assert os.environ.get("WORLD_SIZE") is None
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="WORLD_SIZE must be a number, got 'two'"):
        processes.world_size()
