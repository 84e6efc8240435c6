"""Whether the Hugging Face hub is reached: where it is not, its clients answer from their cache at once."""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TIMEOUT_S = 3.0


def is_reached() -> bool:
    """Whether the hub answers within a few seconds; its client would try for half a minute."""
    hub, constants = importlib.import_module("huggingface_hub"), importlib.import_module("huggingface_hub.constants")
    try:
        hub.get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception:  # of the client's HTTP library
        return False
    return True


@contextmanager
def quick_without_network() -> Iterator[None]:
    """Inside, transformers and datasets take what is in their caches, and fail at once, if the hub is not reached."""
    if importlib.util.find_spec("huggingface_hub") is None or is_reached():
        yield
        return
    names = [name for name in ("huggingface_hub.constants", "datasets.config") if _is_there(name)]
    modules: list[Any] = [importlib.import_module(name) for name in names]
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name.partition(".")[0]) is not None
