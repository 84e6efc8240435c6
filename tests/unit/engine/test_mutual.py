"""Deep mutual learning against a loop over two networks in float64, and three by the paper's sum of divergences."""

import copy
import dataclasses

import pytest
import torch

from model_compression.core.config import ModelConfig
from model_compression.data.loader import ResidentLoader
from model_compression.engine.mutual import METHOD, Peers, peer_configs
from model_compression.engine.runtime import Runtime
from model_compression.engine.trainer import Trainer
from model_compression.models import create_model
from model_compression.tasks import TASKS

CPU = torch.device("cpu")
RUNTIME = Runtime(device=CPU, precision=torch.float32)
SGD = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.0}


def config_of(tiny, peers, **options):
    config = tiny.config(optim=SGD, **options)
    return dataclasses.replace(config, method=METHOD, peers=ModelConfig(name=peers))


def mutual(tiny, networks):
    """The trainer of the first network with the others as its peers."""
    config = config_of(tiny, ",".join(["tiny"] * (len(networks) - 1)), data={"augmentation": "flip_shift"})
    student, *others = networks
    owns = zip(peer_configs(config), others, strict=True)
    peers = Peers([Trainer(own, network, None, tiny.data()[0], RUNTIME) for own, network in owns])
    return Trainer(config, student, peers, tiny.data()[0], RUNTIME)


def networks(count):
    others = [create_model("tiny", seed=seed, dropout=0.0) for seed in range(1, count)]
    return [create_model("tiny-teacher", seed=0), *others]


def independent_steps(models, batches, rate):
    """Cross-entropy plus the mean of KL(p_other ‖ p_own) over the others; all answer, then all step."""
    models = [copy.deepcopy(model).double().train() for model in models]
    for batch in batches:
        logits = [model(model.preprocessing(batch.inputs).double()) for model in models]
        p = [torch.exp(z) / torch.exp(z).sum(dim=1, keepdim=True) for z in logits]
        steps = []
        for own, model in enumerate(models):
            loss = -p[own][torch.arange(len(batch.targets)), batch.targets].log().mean()
            for other in range(len(models)):
                if other != own:
                    target = p[other].detach()
                    divergence = (target * (target / p[own]).log()).sum(dim=1).mean()
                    loss = loss + divergence / (len(models) - 1)
            steps.append(torch.autograd.grad(loss, list(model.parameters()), retain_graph=True))
        for model, gradients in zip(models, steps, strict=True):
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.data -= rate * gradient
    return models


@pytest.mark.parametrize("count", [2, 3])
def test_mutual_steps_are_those_of_an_independent_loop(tiny, count):
    trainer = mutual(tiny, networks(count))
    loader = ResidentLoader(tiny.data()[0], trainer.config.data, CPU)
    batches = [batch for epoch in (0, 1) for batch in loader.epoch(epoch=epoch, seed=0, batch_size=5)]
    expected = independent_steps(networks(count), batches, rate=0.1)
    for _ in (0, 1):
        trainer.run_epoch(lambda progress: None)
    for found, model in zip([trainer.student, *trainer.peers.networks], expected, strict=True):
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name].double(), tensor.double(), rtol=1e-4, atol=1e-6)


def test_terms_of_two_networks_are_the_papers(tiny):
    student, peer = networks(2)
    trainer = mutual(tiny, [student, peer])
    batch = next(trainer.loader.epoch(epoch=0, seed=0, batch_size=22))
    with torch.no_grad():
        own, other = (model(model.preprocessing(batch.inputs)).double().log_softmax(dim=1) for model in (student, peer))
    trainer.learn(batch, 0, trainer.answer(batch), trainer.teacher.answer(batch))
    assert trainer.sums.terms["kd"].item() / 22 == pytest.approx(
        (other.exp() * (other - own)).sum(dim=1).mean().item(), rel=1e-5
    )


def mean_of(logits):
    return TASKS.create("image-classification").mean_of(logits)


def test_common_answer_is_the_mean_of_probabilities_and_of_one_network_its_own():
    logits = [torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) * 5 for seed in range(3)]
    common = mean_of([one.requires_grad_() for one in logits])
    torch.testing.assert_close(common.softmax(dim=1), sum(one.softmax(dim=1) for one in logits).detach() / 3)
    assert not common.requires_grad
    assert torch.equal(mean_of([logits[0]]), logits[0].detach())
    extreme = mean_of([torch.tensor([[size, 0.0, -size]]) for size in (1e4, -1e4)])
    assert extreme.isfinite().all()


def test_peers_are_numbered_networks_with_seeds_of_their_own(tiny):
    config = config_of(tiny, "tiny, tiny-teacher", seed=3)
    assert [(own.student.name, own.seed, own.peers) for own in peer_configs(config)] == [
        ("tiny", 1003, None),
        ("tiny-teacher", 2003, None),
    ]
