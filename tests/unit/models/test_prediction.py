"""Predictions do not depend on how they are batched, and leave the network as it is."""

import pytest
import torch

from model_compression.models import create_model, prediction
from model_compression.models.eval_mode import evaluating
from model_compression.models.prediction import predict

CPU = torch.device("cpu")


def test_predict_answers_in_index_order_in_eval_mode_without_augmentation(tiny, monkeypatch):
    monkeypatch.setattr(prediction, "_BATCH", 5)
    _, test = tiny.data()
    model = create_model("tiny", seed=0).train()
    found = predict(model, test, CPU, torch.float32)
    assert model.training
    assert all(module.training for module in model.modules())
    model.eval()
    expected = torch.cat([model(model.preprocessing(torch.from_numpy(image)[None])) for image in test.images])
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)
    assert not found.requires_grad


def test_predict_does_not_change_the_network(tiny):
    model = create_model("tiny", seed=0).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predict(model, tiny.data()[1], CPU, torch.bfloat16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("training", [True, False])
def test_evaluating_puts_the_mode_back_after_an_error(training):
    model = create_model("tiny", seed=0).train(training)

    def failing():
        with evaluating(model):
            assert not model.training
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert model.training is training
