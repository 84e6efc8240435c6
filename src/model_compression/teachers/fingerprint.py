"""What a teacher's answers depend on, as plain values that can be compared."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from model_compression.config import CacheDtype, DataConfig, to_dict
from model_compression.models.base import Network
from model_compression.models.external import External
from model_compression.teachers.live import LiveTeacher

FORMAT = "model_compression.teacher_cache/3"


def fingerprint(live: LiveTeacher, data_digest: str, config: DataConfig, dtype: CacheDtype) -> dict[str, Any]:
    """Everything that the stored answers to a data set depend on, as plain values."""
    keys = ("augmentation", "shift", "cutout", "view_seed")
    view = {key: value for key, value in to_dict(config).items() if key in keys}
    if config.augmentation == "none":
        view = {"augmentation": "none"}
    elif config.augmentation == "flip":
        del view["shift"]
    view |= {key: value for key in ("mixup", "cutmix") if (value := getattr(config, key))}
    if config.mixes:
        view["view_seed"] = config.view_seed
    networks = [
        {
            "model": model.name,
            "weights_sha256": weights_digest(model),
            "preprocessing": model.preprocessing.to_dict(),
            # Of code of others an option may change what it computes, and no weight.
            **({"options": model.options} if isinstance(model, External) and model.options else {}),
        }
        for model in live.models
    ]
    return {
        "format": FORMAT,
        "networks": networks,
        "tta": live.tta,
        "data_sha256": data_digest,
        "precision": str(live.precision).removeprefix("torch."),
        "dtype": dtype,
        **view,
    }


def differences(stored: Any, wanted: Any, place: str = "") -> list[str]:
    """What differs between two fingerprints, a line each, as "shift is 4 there, 2 here"."""
    if isinstance(stored, list) and isinstance(wanted, list) and len(stored) == len(wanted):
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
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def digest_of(models: Sequence[Network]) -> str:
    """One digest for the networks that answer together."""
    digests = [weights_digest(model) for model in models]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def stored_dtype(dtype: CacheDtype) -> torch.dtype:
    """The tensor type in which answers are stored."""
    return {"fp16": torch.float16, "fp32": torch.float32}[dtype]


def _short(value: Any) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
