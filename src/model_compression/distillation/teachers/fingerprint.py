"""What a teacher's answers depend on, as plain values that can be compared."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from model_compression.core.config import CacheDtype
from model_compression.core.data_config import DataConfig
from model_compression.data.batches import to_tensors
from model_compression.data.dataset import Dataset
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.models.base import Network
from model_compression.models.external import External

FORMAT = "model_compression.teacher_cache/3"
_PROBED = 4  # samples


def fingerprint(
    live: LiveTeacher, data: Dataset, config: DataConfig, dtype: CacheDtype, **settings: Any
) -> dict[str, Any]:
    """Everything that the stored answers to ``data`` depend on, as plain values.

    ``settings`` are options of the teacher beyond what ``live`` and ``dtype`` came to, see `answer_settings`.
    """
    networks = [
        {
            "model": model.name,
            "weights_sha256": weights_digest(model),
            "preprocessing": model.preprocessing.to_dict(),
            **(_of_other_code(model, live, data) if isinstance(model, External) else {}),
        }
        for model in live.models
    ]
    return {
        "format": FORMAT,
        "networks": networks,
        "tta": live.tta,
        **({} if live.answers == "logits" else {"answers": live.answers}),
        "data_sha256": data.digest,
        "precision": str(live.precision).removeprefix("torch."),
        "dtype": dtype,
        **config.drawing,
        **settings,
    }


def _of_other_code(model: External, live: LiveTeacher, data: Dataset) -> dict[str, Any]:
    """What tells networks apart that have the same name and weights and compute otherwise.

    Its options, and a digest of its answers to a few samples, in float32 where it allows that, rounded: another number
    of threads changes them in their last digits.
    """
    inputs = to_tensors(data.first(_PROBED), live.device)
    with torch.no_grad():
        answers = model(model.preprocessing(inputs)).double().cpu().nan_to_num()
    step = 2.0 ** (answers.abs().max().clamp(min=1e-30).log2().floor() - 8)
    rounded = (answers / step).round().to(torch.int64)
    options = {"options": model.options} if model.options else {}
    return {**options, "answers_sha256": hashlib.sha256(rounded.numpy().tobytes()).hexdigest()}


def differences(stored: Any, wanted: Any, place: str = "") -> list[str]:
    """What differs between two fingerprints, a line each, as "shift is 4 there, 2 here"."""
    if isinstance(stored, list) and isinstance(wanted, list):
        if len(stored) != len(wanted):
            return [f"{place} are {len(stored)} there, {len(wanted)} here"]
        stored, wanted = dict(enumerate(stored)), dict(enumerate(wanted))
    if not (isinstance(stored, dict) and isinstance(wanted, dict)):
        return [] if stored == wanted else [f"{place} is {_short(stored)} there, {_short(wanted)} here"]
    return [
        line
        for key in {**stored, **wanted}
        for line in differences(stored.get(key), wanted.get(key), f"{place}.{key}" if place else str(key))
    ]


def weights_digest(model: Network) -> str:
    """SHA-256 of the names and bytes of everything in the state of ``model``, and of its mean image."""
    digest = hashlib.sha256()
    tensors = dict(sorted(model.state_dict().items()))
    if model.preprocessing.mean_image is not None:
        tensors["mean_image"] = model.preprocessing.mean_image
    for name, tensor in tensors.items():
        digest.update(name.encode())
        for part in _bytes_of(tensor):
            digest.update(part)
    return digest.hexdigest()


def _bytes_of(value: Any) -> Iterator[bytes]:
    """The bytes of a tensor; a quantised network's state has integers with scales, tuples and types as well."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _bytes_of(part)
    elif not isinstance(value, Tensor):
        yield repr(value).encode()
    elif value.is_quantized:
        yield from _bytes_of([value.int_repr(), value.dequantize()])
    else:
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def digest_of(models: Sequence[Network]) -> str:
    """One digest for the networks that answer together."""
    digests = [weights_digest(model) for model in models]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _short(value: Any) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
