"""A progress bar on stderr for people; nothing where stderr is a file or a pipe."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def shown(label: str, total_bytes: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows ``label`` while the block runs and yields a function that takes how many bytes are done so far.

    Without a total a spinner is shown. On anything but a terminal it shows nothing.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console  # here: most runs show no bar
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total_bytes)
        yield lambda done: bar.update(task, completed=done)
