"""Silences what the exporters of torch and ONNX Runtime say about themselves."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings, logged ones included, and without progress on stdout. The root logger keeps its handlers."""
    before, handlers = logging.root.manager.disable, [*logging.root.handlers]
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        logging.root.handlers[:] = handlers  # ONNX Runtime's logging.info() gives it one
