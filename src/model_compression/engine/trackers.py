"""Where else the curves of a run go while it trains: TensorBoard's logs, or Weights & Biases; both are extras."""

import os
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from model_compression.core import processes
from model_compression.core.config import TrainConfig
from model_compression.core.config_json import to_dict
from model_compression.core.errors import MissingExtraError, UsageError, reason_of
from model_compression.core.files import write_atomically

_PROJECT = re.compile(r"([\w.-]+/)?[\w.-]{1,128}", re.ASCII)
_MODES = ("online", "offline", "disabled", "shared")
_PATIENCE_S = 20.0  # for the connection


class Tracker(Protocol):
    """Takes the numbers of a run as they come."""

    def epoch(self, event: dict[str, Any]) -> None:
        """An epoch is done; ``event`` is its line in events.jsonl."""

    def close(self, metrics: dict[str, Any] | None) -> None:
        """No more comes: the run is finished with ``metrics``, or stopped (None)."""


class TensorBoard:
    """Logs in ``folder``/tensorboard; curves lose what they have of ``first_epoch`` and later."""

    def __init__(self, folder: Path, first_epoch: int):
        self._writer = _summary_writer()(str(folder / "tensorboard"), purge_step=first_epoch)

    def epoch(self, event: dict[str, Any]) -> None:
        """Adds the numbers of an epoch's event."""
        for name, value in _numbers(event).items():
            self._writer.add_scalar(name, value, event["epoch"])
        self._writer.flush()

    def close(self, metrics: dict[str, Any] | None) -> None:
        """Closes the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of a project on Weights & Biases; when the folder's run is resumed it goes on.

    With WANDB_MODE=offline it is stored in ``folder``/wandb, to be sent by `wandb sync`.
    """

    def __init__(
        self, project: str, folder: Path, config: TrainConfig, report: Callable[[str], None], *, is_tried: bool = False
    ):
        wandb = _wandb()
        entity, _, name = project.rpartition("/")
        mode = {"mode": "disabled"} if is_tried else {}
        settings = wandb.Settings(
            silent=True, console="off", save_code=False, disable_git=True, init_timeout=_PATIENCE_S, **mode
        )
        self._run = wandb.init(
            entity=entity or None,
            project=name,
            name=folder.name,
            id=_own_id(folder / "wandb-id.txt"),
            resume="allow",
            dir=str(folder),
            config=to_dict(config),
            settings=settings,
        )
        if is_tried:
            return
        stored = f"offline; send it with: wandb sync {Path(self._run.dir).parent}"
        report(f"Weights & Biases: {stored if self._run.offline else self._run.url}")

    def epoch(self, event: dict[str, Any]) -> None:
        """Adds the numbers of an epoch's event."""
        self._run.log(_numbers(event), step=event["epoch"])

    def close(self, metrics: dict[str, Any] | None) -> None:
        """Sends what is left; ``metrics`` become the run's summary."""
        self._run.summary.update(metrics or {})
        self._run.finish(exit_code=0 if metrics else 1)


class _Guarded:
    """A tracker whose errors, of its client, the disk or the network, are said and are no reason to end the run."""

    def __init__(self, tracker: Tracker, name: str, report: Callable[[str], None]):
        self._tracker, self._name, self._report = tracker, name, report

    def epoch(self, event: dict[str, Any]) -> None:
        """Passes the event on."""
        with self._guard():
            self._tracker.epoch(event)

    def close(self, metrics: dict[str, Any] | None) -> None:
        """Passes the end on."""
        with self._guard():
            self._tracker.close(metrics)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._report(f"{self._name} did not take the numbers, the run goes on: {reason_of(error)}")


def check_trackers(config: TrainConfig) -> None:
    """Raises MissingExtraError for a package that is missing, UsageError without an account."""
    if config.tensorboard:
        _summary_writer()
    if config.wandb:
        wandb = _wandb()
        if not _PROJECT.fullmatch(config.wandb):
            raise UsageError(
                f"a project on Weights & Biases is PROJECT or ENTITY/PROJECT, of letters, digits, '-', '_' and '.', "
                f"got {config.wandb!r}"
            )
        mode = os.environ.get("WANDB_MODE", "online")
        if mode not in _MODES:
            raise UsageError(f"WANDB_MODE must be one of {', '.join(_MODES)}, got {mode!r}")
        if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.api.api_key:
            raise UsageError(
                "Weights & Biases knows no account here; log in with `wandb login`, or keep the run on this machine "
                "with WANDB_MODE=offline"
            )


@contextmanager
def open_trackers(
    config: TrainConfig, folder: Path, first_epoch: int, report: Callable[[str], None], *, are_tried: bool = False
) -> Iterator[Sequence[Tracker]]:
    """The trackers of a run that begins with ``first_epoch``; they are closed as stopped unless they were before.

    ``are_tried``: nothing leaves this machine.
    """
    makers: dict[str, Callable[[], Tracker]] = {}
    if config.tensorboard:
        makers["TensorBoard"] = lambda: TensorBoard(folder, first_epoch)
    if config.wandb:
        makers["Weights & Biases"] = lambda: WeightsAndBiases(config.wandb, folder, config, report, is_tried=are_tried)
    trackers = list[Tracker]()
    for name, make in makers.items() if processes.is_main() else ():
        try:
            trackers.append(_Guarded(make(), name, report))
        except Exception as error:  # of a client, the disk or the network: no reason not to train
            report(f"{name} is not reached, the run goes on without it: {reason_of(error)}")
    try:
        yield trackers
    except BaseException:
        for tracker in trackers:
            tracker.close(None)
        raise


def rehearse_trackers(
    config: TrainConfig, folder: Path, metrics: dict[str, Any], report: Callable[[str], None]
) -> None:
    """Passes an epoch and ``metrics`` to each tracker, in a temporary ``folder``; says what fails before training."""
    event = {"epoch": 1, "train_loss": 1.0, "terms": {"labels": 1.0}}
    with open_trackers(
        config, folder, 1, lambda line: report(f"tried before training: {line}"), are_tried=True
    ) as all_:
        for tracker in all_:
            tracker.epoch(event)
            tracker.close(metrics)


def _own_id(path: Path) -> str:
    """The run's on Weights & Biases, drawn once: a run that is resumed is the same one."""
    if not path.exists():
        write_atomically(path, uuid.uuid4().hex[:16].encode())
    return path.read_text()


def _numbers(event: dict[str, Any]) -> dict[str, float]:
    terms = {f"terms/{name}": value for name, value in event["terms"].items()}
    return {name: value for name, value in event.items() if isinstance(value, float)} | terms


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("tensorboard", "tensorboard", "writing TensorBoard logs") from None
    return SummaryWriter


def _wandb() -> Any:
    try:
        import wandb
    except ImportError:
        raise MissingExtraError("wandb", "wandb", "logging to Weights & Biases") from None
    return wandb
