"""Text networks of transformers: the answers of their own classes, and students of chosen layers."""

import numpy as np
import pytest
import tiny_texts
import torch

from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.models.fewer_layers import keep_layers
from model_compression.models.loading import load_model
from model_compression.models.weights import save_weights

HEADS = {"text-classification": "BertForSequenceClassification", "token-classification": "BertForTokenClassification"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny_texts.make_network(folder)
    return folder


def inputs_of(lengths, seed=0):
    rng, longest = np.random.default_rng(seed), max(lengths)
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    return {"input_ids": torch.from_numpy(rng.integers(5, 30, mask.shape)) * mask, "attention_mask": mask}


def built(folder, task="text-classification", **options):
    return load_model(f"hf:{folder}", {"task": task, "num_classes": 3, **options}, seed=0).eval()


@pytest.mark.parametrize("task", HEADS)
@torch.no_grad()
def test_answers_are_those_of_transformers(folder, task, tmp_path):
    import transformers

    network = built(folder, task)
    network.body.model.save_pretrained(tmp_path)
    theirs = getattr(transformers, HEADS[task]).from_pretrained(tmp_path).eval()
    inputs = inputs_of([4, 7, 2])
    expected, found = theirs(**inputs).logits, network(inputs)
    if task == "token-classification":
        expected = expected * inputs["attention_mask"].unsqueeze(2)
    assert torch.allclose(found, expected, atol=1e-6)


@torch.no_grad()
def test_tokens_have_the_same_answers_whatever_they_are_padded_to(folder):
    network, inputs = built(folder, "token-classification"), inputs_of([4, 6])
    wide = {name: torch.nn.functional.pad(tensor, (0, 9)) for name, tensor in inputs.items()}
    found = network(wide)
    assert found.shape == (2, 15, 3)
    assert torch.allclose(found[:, :6], network(inputs), atol=1e-6)
    assert not found[:, 6:].any()
    assert not found[0, 4:].any()
    seen = []
    network.body.model.bert.encoder.layer[0].register_forward_hook(lambda m, i, output: seen.append(output.shape[1]))
    network(wide)
    assert seen == [6]


def test_a_folder_says_which_task_its_weights_are_for(folder, tmp_path):
    built(folder).body.model.save_pretrained(tmp_path)
    network = load_model(f"hf:{tmp_path}")
    assert network(inputs_of([4, 2])).shape == (2, 3)
    assert network.facts == {}
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("LABEL_0", "glad").replace("LABEL_1", "odd"))
    assert load_model(f"hf:{tmp_path}").facts["class_names"] == ["glad", "odd", "LABEL_2"]


def test_a_folder_without_a_head_is_no_trained_classifier(folder):
    with pytest.raises(UsageError, match="no trained classifier; train it as a student first"):
        load_model(f"hf:{folder}", {"task": "text-classification"})


def test_an_architecture_is_built_from_its_options():
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    options = {"task": "text-classification", "num_classes": 5, "vocab_size": 30, **sizes}
    network = load_model("hf:bert", options, seed=3)
    again = load_model("hf:bert", options, seed=3)
    # Embeddings (30 + 512 + 2) · 8 and their norm; blocks of 4 (8 · 8 + 8) + 2 · 8 · 16 + 16 + 8 and two norms; head.
    block = 4 * (8 * 8 + 8) + 2 * 8 * 16 + 16 + 8 + 4 * 8
    assert sum(one.numel() for one in network.parameters()) == 544 * 8 + 16 + 2 * block + 72 + 45
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    with pytest.raises(UnknownNameError, match="unknown option of hf:bert: 'hiden_size'; did you mean 'hidden_size'"):
        load_model("hf:bert", {**options, "hiden_size": 8})
    with pytest.raises(UnknownNameError, match="unknown architecture hf: 'bertt'"):
        load_model("hf:bertt", options)
    with pytest.raises(UsageError, match="is an architecture without weights"):
        load_model("hf:bert", {**options, "pretrained": True})


@torch.no_grad()
def test_a_student_of_some_layers_answers_as_those_layers_do(folder, tmp_path):
    whole, part = built(folder), keep_layers(built(folder), [0, 3])
    skipped = whole.body.model.bert.encoder.layer
    for number in (1, 2):  # without its attention and inner products a block would still normalise: it is passed by
        skipped[number].forward = lambda hidden, *args, **kwargs: hidden
    inputs = inputs_of([5, 3, 6])
    assert torch.allclose(part(inputs), whole(inputs), atol=1e-6)
    save_weights(tmp_path / "part.safetensors", part)
    again = load_model(tmp_path / "part.safetensors").eval()
    assert again.options["config"]["num_hidden_layers"] == 2
    assert torch.equal(again(inputs), part(inputs))


@pytest.mark.parametrize("layers", [[0, 4], [1, 1], [], [-1]])
def test_layers_that_are_not_there_are_refused(folder, layers):
    with pytest.raises(UsageError, match="student_layers must be different numbers from 0 to 3, the blocks of hf:"):
        keep_layers(built(folder), layers)


def test_layers_of_a_network_without_blocks_are_refused():
    with pytest.raises(UsageError, match="student_layers is for transformers hf:NAME, and lenet has no blocks"):
        keep_layers(load_model("lenet", seed=0), [0])
