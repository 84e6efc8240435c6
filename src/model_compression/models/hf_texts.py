"""Text and token classifiers of transformers, which take token numbers and an attention mask by name."""

import importlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from model_compression.core.errors import FileFormatError, UsageError
from model_compression.core.files import read_json, user_path
from model_compression.core.hub_connection import quick_without_network
from model_compression.core.registry import unknown_name
from model_compression.models.bounded import bounded_by_memory
from model_compression.models.hf_networks import ON_THE_HUB, build_hf, load_pretrained, quiet, refuse_foreign_attention
from model_compression.models.libraries import Built, library

TASK = "task"
"""The option that says which head a network of transformers has; images' networks have none."""
_HEADS = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
}
_ENDINGS = {"ForSequenceClassification": "text-classification", "ForTokenClassification": "token-classification"}


class OfTokens(nn.Module):
    """``model`` of transformers, called with {"input_ids", "attention_mask"} (B, L); logits (B, K), or (B, L, K).

    Logits of padding are 0. A batch is cut to its longest text where each token is answered, and filled up again.
    """

    def __init__(self, model: nn.Module, *, per_token: bool):
        super().__init__()
        self.model, self.per_token = model, per_token

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        if not self.per_token:
            logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
            return logits
        length = ids.shape[1]
        if not (torch.compiler.is_exporting() or torch.compiler.is_compiling()):
            longest = int(mask.sum(dim=1).max())
            ids, mask = ids[:, :longest], mask[:, :longest]
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        logits = logits * mask.unsqueeze(2).to(logits.dtype)
        if logits.shape[1] == length:
            return logits
        return nn.functional.pad(logits, (0, 0, 0, length - logits.shape[1]))


def is_architecture(name: str) -> bool:
    """Whether "hf:NAME" is a kind of network, as "hf:bert", and no folder or model of the hub."""
    rest = name.removeprefix("hf:")
    return name.startswith("hf:") and "/" not in rest and not user_path(rest).exists()


def build_any_hf(name: str, options: Mapping[str, Any]) -> Built:
    """A classifier of texts where the option ``task``, or the folder, says so; else of images, see `build_hf`."""
    task = options.get(TASK) or _declared(name, options)
    return build_hf(name, options) if task is None else _build(name, str(task), options)


def _declared(name: str, options: Mapping[str, Any]) -> str | None:
    """The task whose head the configuration names, of a local folder."""
    config, file = options.get("config"), user_path(name) / "config.json"
    try:
        values = config if isinstance(config, Mapping) else read_json(file) if file.is_file() else {}
    except FileFormatError:
        return None  # which is said where the network is built
    declared = " ".join(map(str, values.get("architectures") or ()))
    return next((task for ending, task in _ENDINGS.items() if ending in declared), None)


def _build(name: str, task: str, options: Mapping[str, Any]) -> Built:
    """A network of transformers with the head of ``task``.

    Options as those of `build_hf`. ``name`` may be an architecture, as "bert", which has fresh weights: its options are
    those of its configuration, as hidden_size and num_hidden_layers.
    """
    if task not in _HEADS:
        raise unknown_name(f"task of hf:{name}:", task, list(_HEADS))
    transformers = library("transformers", "hf")
    folder, own = user_path(name), ("pretrained", "num_classes", "config", TASK)
    rest = {key: value for key, value in options.items() if key not in own}
    fresh = is_architecture(f"hf:{name}") and "config" not in options
    pretrained = bool(options.get("pretrained", not fresh))
    if pretrained and fresh:
        raise UsageError(f"hf:{name} is an architecture without weights; name a folder, or USER/NAME on the hub")
    is_here = folder.is_dir() or fresh or ("config" in options and not pretrained)
    if not (is_here or ON_THE_HUB.fullmatch(name)):
        raise UsageError(f"hf:{name} is no folder here, and networks on the hub are named USER/NAME")
    with quiet(transformers), nullcontext() if is_here else quick_without_network():
        config = _config(transformers, name, options, rest)
        refuse_foreign_attention(config, name)
        head_is_new = options.get("num_classes", config.num_labels) != config.num_labels
        if "num_classes" in options:
            config.num_labels = options["num_classes"]
        classifier = getattr(transformers, _HEADS[task])
        if pretrained:
            complete = "" if "num_classes" in options else "classifier"
            module = load_pretrained(classifier, config, name, head_is_new=head_is_new, complete=complete)
        else:
            with bounded_by_memory(f"hf:{name}", rest):
                module = classifier.from_config(config, trust_remote_code=False).float()
    facts: dict[str, Any] = {}
    names = [config.id2label[number] for number in range(config.num_labels)]
    if pretrained and not head_is_new and names[0] != "LABEL_0":
        facts["class_names"] = names
    values = {"config": json.loads(config.to_json_string(use_diff=False)), TASK: task}
    return Built(module=OfTokens(module, per_token=task == "token-classification"), options=values, facts=facts)


def _config(transformers: Any, name: str, options: Mapping[str, Any], rest: Mapping[str, Any]) -> Any:
    """The configuration that ``options`` hold, of an architecture, or of a folder or the hub, changed by ``rest``."""
    if "config" in options:
        config, unused = transformers.AutoConfig.for_model(**options["config"]), dict(rest)
    elif is_architecture(f"hf:{name}"):
        known = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING_NAMES
        if name not in known:
            raise unknown_name("architecture hf:", name, list(known))
        plain = transformers.AutoConfig.for_model(name)
        unused = {key: value for key, value in rest.items() if not hasattr(plain, key)}
        config = plain if unused else transformers.AutoConfig.for_model(name, **rest)
    else:
        path = str(user_path(name)) if user_path(name).is_dir() else name
        config, unused = transformers.AutoConfig.from_pretrained(
            path, return_unused_kwargs=True, trust_remote_code=False, **rest
        )
    if unused:
        raise unknown_name(f"option of hf:{name}:", next(iter(unused)), sorted(config.to_dict()))
    return config
