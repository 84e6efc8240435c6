"""TensorBoard's logs of a run, an extra."""

from pathlib import Path
from typing import Any

from model_compression.errors import MissingExtraError


def open_board(folder: Path, first_epoch: int) -> Any:
    """A writer into ``folder``/tensorboard; its curves lose what they have of ``first_epoch`` and later."""
    return summary_writer()(str(folder / "tensorboard"), purge_step=first_epoch)


def summary_writer() -> Any:
    """TensorBoard's writer, a class. Raises MissingExtraError."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("tensorboard", "tensorboard", "writing TensorBoard logs") from None
    return SummaryWriter


def write_event(board: Any, event: dict[str, Any]) -> None:
    """Adds the numbers of an epoch's event."""
    for name, value in event.items():
        if isinstance(value, float):
            board.add_scalar(name, value, event["epoch"])
    for name, value in event["terms"].items():
        board.add_scalar(f"terms/{name}", value, event["epoch"])
    board.flush()
