"""Whether a network knows the tokens that a dataset's texts were cut into."""

from typing import Any

import numpy as np
from torch import nn

from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset
from model_compression.data.texts import Texts
from model_compression.models.base import Network

TOKENIZER = "tokenizer_sha256"
"""The fact by which a network names the tokenizer that it was trained with."""


def tokenizer_facts(dataset: Dataset) -> dict[str, Any]:
    """What a weights file says of the tokenizer."""
    samples = dataset.samples
    return {TOKENIZER: samples.tokenizer.sha256} if isinstance(samples, Texts) else {}


def check_tokenizer(role: str, model: Network, dataset: Dataset) -> None:
    """Raises UsageError for a trained network of another tokenizer, or of fewer tokens than the texts have."""
    samples = dataset.samples
    if not isinstance(samples, Texts):
        return
    table = next((one for one in model.modules() if isinstance(one, nn.Embedding)), None)
    largest = int(np.max(samples.tokens.values, initial=0))
    remedy = f"give the tokenizer that it was trained with ({setting('tokenizer')})"
    if table is not None and table.num_embeddings <= largest:
        raise UsageError(
            f"the {role} {model.name} knows {table.num_embeddings:,} tokens, and {dataset.name} has token {largest:,}: "
            f"{remedy}"
        )
    own = model.facts.get(TOKENIZER)
    if own is not None and own != samples.tokenizer.sha256:
        raise UsageError(
            f"the {role} {model.name} was trained with another tokenizer than {dataset.name} is cut by; {remedy}"
        )
