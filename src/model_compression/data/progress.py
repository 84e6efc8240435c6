"""A progress bar on stderr for people; nothing where stderr is a file or a pipe."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from model_compression.core.console import console


@contextmanager
def shown(label: str, total_bytes: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows ``label`` while the block runs and yields a function that takes how many bytes are done so far.

    Without a total a spinner turns. On anything but a terminal nothing is shown.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.progress import (  # here: most runs show no bar
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    shown_on = console(stderr=True)
    if total_bytes is None:
        with shown_on.status(label):
            yield lambda done: None
        return
    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(*columns, TimeRemainingColumn(), console=shown_on, transient=True) as bar:
        task = bar.add_task(label, total=total_bytes)
        yield lambda done: bar.update(task, completed=done)
