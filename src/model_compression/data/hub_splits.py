"""The splits of a dataset of Hugging Face, and the options behind its name."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

from model_compression.core.errors import DataError, MissingExtraError, UsageError
from model_compression.core.files import user_path
from model_compression.core.hub_connection import quick_without_network
from model_compression.core.registry import unknown_name

_KEYS = ("config", "image", "label", "mask", "test", "text", "train")


def training_split(text: str) -> tuple[str, Any, dict[str, str]]:
    """(title, training split, options) of ``text``, of which no labels are wanted."""
    name, options, splits, train_name = opened(text)
    useless = next((key for key in ("label", "mask", "test") if key in options), None)
    if useless:
        raise UsageError(f"hf: {useless}={options[useless]} has no effect on samples without labels; leave it out")
    return f"{name} ({train_name})", splits[train_name], options


def opened(text: str) -> tuple[str, dict[str, str], Mapping[str, Any], str]:
    """(name, options, splits, name of the training split)."""
    name, _, rest = text.partition(",")
    options = _options(rest)
    splits = _splits(name.strip(), options.get("config"))
    return name, options, splits, choose("split", options.get("train", "train"), splits, name)


def _options(text: str) -> dict[str, str]:
    options = {}
    for part in filter(None, map(str.strip, text.split(","))):
        key, equals, value = part.partition("=")
        if not (equals and value):
            raise UsageError(f"hf: options are KEY=VALUE with commas between them, as label=fine_label; got {part!r}")
        if key == "streaming":
            raise UsageError(
                "hf: has no streaming: images are known by their numbers; leave it out, as the files of the set are "
                "mapped into memory and not read as a whole"
            )
        if key not in _KEYS:
            raise unknown_name("option of hf:", key, list(_KEYS))
        options[key] = value
    return options


def _splits(name: str, config: str | None) -> Mapping[str, Any]:
    """The splits by name; a dataset that was saved alone is "train"."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(error.name or "datasets", "hf", "a Hugging Face dataset") from error
    folder = user_path(name)
    saved = any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))
    if saved and config is not None:
        raise UsageError(f"config={config} has no effect: {folder} was saved to disk, with one configuration")
    try:
        if saved:
            loaded = datasets.load_from_disk(str(folder))
        else:
            with nullcontext() if folder.is_dir() else quick_without_network():
                loaded = datasets.load_dataset(name, config)
    except Exception as error:  # the library's own errors, and those of what it reads and downloads with
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise DataError(
            f"hf:{name} cannot be loaded: {reason}; expected a dataset of the hub, a folder that save_to_disk wrote, "
            "or a folder of files that the library reads"
        ) from None
    return loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}


def choose(kind: str, name: str, known: Iterable[str], dataset: str) -> str:
    """``name``, which an option of ``dataset`` gives. Raises UnknownNameError unless it is one of ``known``."""
    if name not in known:
        raise unknown_name(f"{kind} of {dataset}:", name, list(known))
    return name
