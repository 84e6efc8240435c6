"""A run from its configuration to its folder: new, resumed after an interruption, or repeated."""

import copy
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from model_compression.config import DataConfig, ModelConfig, TrainConfig, given_values
from model_compression.data.dataset import Dataset, hold_out
from model_compression.data.opaque import OpaqueImages
from model_compression.data.streaming import loader_for
from model_compression.errors import Interrupted, RunFolderError, UsageError
from model_compression.files import write_atomically
from model_compression.models.base import Network
from model_compression.models.external import External
from model_compression.models.preprocessing import Preprocessing
from model_compression.models.weights import save_weights
from model_compression.teachers.fingerprint import digest_of
from model_compression.teachers.live import LiveTeacher
from model_compression.train.board import open_board, summary_writer, write_event
from model_compression.train.checkpoint import State, delete_states, load_state, save_state
from model_compression.train.checks import check_classes, check_teachers_answers
from model_compression.train.device import choose_device, choose_precision, keep_freed_memory
from model_compression.train.evaluate import agreement, figures, predict
from model_compression.train.events import EventLog
from model_compression.train.mutual import Peers, peer_configs
from model_compression.train.networks import check_student, check_teachers, load_student, load_teachers
from model_compression.train.objective import create_method
from model_compression.train.observer import Observer, Silent
from model_compression.train.reused_classifier import num_parameters, with_teachers_classifier
from model_compression.train.run_folder import RunFolder
from model_compression.train.stop_requests import stop_requests
from model_compression.train.taps import NO_TAPS, Taps, check_teacher, choose_taps
from model_compression.train.teachers import cached_teacher, load_data
from model_compression.train.trainer import Progress, Teacher, Trainer


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is given as objects in the place of what a configuration names."""

    student: nn.Module | None = None
    teacher: nn.Module | None = None
    data: tuple[Dataset, Dataset] | None = None


def start_run(
    config: TrainConfig,
    folder: str | Path,
    observer: Observer | None = None,
    *,
    parts: Parts | None = None,
    finished: Callable[[Network], None] = lambda network: None,
) -> dict[str, Any]:
    """Trains as ``config`` says, into a new ``folder``; returns the run's metrics.

    ``parts`` take the place of what ``config`` names; ``finished`` is given the trained network.

    Raises RunFolderError when the folder is taken, Interrupted after a signal (the state is saved), and what the data,
    the models and the method raise.
    """
    run = RunFolder(folder)
    run.check_free()
    observer = observer or Silent()
    prepared = _Prepared(config, observer, parts or Parts())  # before the folder: a usage error leaves nothing behind
    run.create(config)
    try:
        metrics = _train(config, prepared, run, observer, None)
        finished(prepared.trainer.network.deployed())
        return metrics
    finally:
        run.unlock()


def resume_run(folder: str | Path, observer: Observer | None = None, *, parts: Parts | None = None) -> dict[str, Any]:
    """Continues an interrupted run to the weights that it would have reached; returns its metrics.

    ``parts`` are those that it was started with.

    Raises RunFolderError when there is nothing to continue, or when config, data or teacher are no longer the run's.
    """
    run = RunFolder(folder)
    observer, config = observer or Silent(), run.read_config()
    run.lock()
    try:
        run.mend()
        if run.metrics.exists():  # seen under the lock: another process may just have finished it
            raise RunFolderError(
                f"{run.path} is finished: there is nothing to resume; its figures are in {run.metrics}"
            )
        state = load_state(run.state, observer.message)
        prepared = _Prepared(config, observer, parts or Parts())
        if state is not None:
            _check_unchanged(run, prepared.identity, state)
        return _train(config, prepared, run, observer, state)
    finally:
        run.unlock()


def check_run(config: TrainConfig, parts: Parts | None = None) -> Trainer:
    """Raises what `start_run` would before it makes its folder; returns what would train. Nothing is computed yet."""
    return _Prepared(config, Silent(), parts or Parts()).trainer


def finish_run(config: TrainConfig, folder: str | Path, observer: Observer) -> dict[str, Any]:
    """The metrics of a run that is finished, resumed or made anew, whichever ``folder`` asks for.

    Raises RunFolderError when the folder holds a run of another configuration.
    """
    run = RunFolder(folder)
    if not run.config.exists():
        return start_run(config, folder, observer)
    if run.read_config() != config:
        raise RunFolderError(f"{run.path} holds a run of another configuration; choose another --out, or delete it")
    return run.read_metrics() if run.metrics.exists() else resume_run(folder, observer)


class _Prepared:
    """Data, networks and trainer of a run, all checked before anything is written."""

    def __init__(self, config: TrainConfig, observer: Observer, parts: Parts):
        if config.method is not None:
            create_method(config.method)  # names and values, before minutes go into data and teacher
        if config.tensorboard:
            summary_writer()
        self.device = choose_device(config.device)
        keep_freed_memory(self.device)
        self.precision = choose_precision(config.precision, self.device)
        if parts.student is None:
            check_student(config.student)
        if config.teacher and parts.teacher is None:
            check_teachers(config.teacher)
        full_train, test = parts.data or load_data(config.data, observer.message)
        self.train_set, self.eval_set, self.eval_name = full_train, test, "test"
        if config.data.validation and not full_train.labelled:
            raise UsageError(f"{full_train.name} has no labels: leave --validation out, images held out need them")
        if config.data.validation:
            self.train_set, self.eval_set = hold_out(full_train, config.data.validation, seed=0)
            self.eval_name = "validation"
        normalised = Preprocessing(mean=full_train.mean, std=full_train.std)
        teachers: list[Network] = []
        if parts.teacher is not None:
            teachers = [External(copy.deepcopy(parts.teacher), normalised)]
        elif config.teacher is not None:
            teachers = load_teachers(config.teacher, self.train_set)
        if parts.student is not None:
            student: Network = External(copy.deepcopy(parts.student), normalised)
        else:
            student = load_student(config.student, self.train_set, config.seed)
        if isinstance(full_train.images, OpaqueImages):
            for network in (student, *teachers):
                network.preprocessing = normalised  # whatever it was: the batches are taken as they are
        check_classes("student", student, self.train_set)
        for teacher in teachers:
            check_classes("teacher", teacher, self.train_set)
        if parts.student is None:
            self._prepare(student, config.student)
        taps = NO_TAPS
        self.live: LiveTeacher | None = None
        if config.method is not None:
            check_teacher(config.method, given=bool(teachers) or config.peers is not None)
        if teachers:
            student, taps = self._taps(config, student, teachers[0], observer)
            self.live = LiveTeacher(
                teachers,
                self.device,
                self.precision,
                config.teacher_tta,
                features=taps.teacher,
                embedding=taps.embedding,
            )
            check_teachers_answers(config, self.live, self.train_set, observer.message)
        self.between_answers: Callable[[], None] = lambda: None  # while they are stored, which can take minutes
        self.peers = Peers(self._peers(config)) if config.peers is not None else None
        answers = self.peers or self._teacher(config, taps, observer)
        self.trainer = Trainer(config, student, answers, self.train_set, self.device, self.precision, taps)

    def _taps(
        self, config: TrainConfig, student: Network, teacher: Network, observer: Observer
    ) -> tuple[Network, Taps]:
        """What is tapped, and the student that is trained, which ends in the teacher's classifier for some methods."""
        assert config.method is not None
        method, images = create_method(config.method), torch.from_numpy(self.train_set.images[:2])
        taps = choose_taps(config.method, method, student, teacher, images)
        if taps.student:
            observer.message(f"features that are compared, student = teacher: {taps}")
        if not method.reuses_classifier:
            return student, taps
        return with_teachers_classifier(student, teacher, taps, images, config.seed, observer)

    def _prepare(self, network: Network, config: ModelConfig) -> None:
        """Gives a fresh network what it computes from the training images."""
        if network.num_prepared and not (network.declares_preprocessing or config.weights):
            stride = max(1, len(self.train_set) // network.num_prepared)
            network.prepare(torch.from_numpy(self.train_set.images[::stride]))

    def _peers(self, config: TrainConfig) -> Iterator[Trainer]:
        """What trains each of the networks that learn beside the student."""
        assert config.method is not None
        if create_method(config.method).needs != {"logits"}:
            raise UsageError(f"peers learn by methods that need logits only, and {config.method.name!r} needs more")
        for own in peer_configs(config):
            check_student(own.student)
            network = load_student(own.student, self.train_set, own.seed)
            check_classes(f"peer {own.student.name}", network, self.train_set)
            self._prepare(network, own.student)
            yield Trainer(own, network, None, self.train_set, self.device, self.precision)

    def _teacher(self, config: TrainConfig, taps: Taps, observer: Observer) -> Teacher | None:
        if self.live is None or config.teacher_cache == "off":
            return self.live
        if taps:
            observer.message("features and embeddings are not stored: the teacher answers live")
            return self.live

        def progress(done: int, total: int) -> None:
            observer.teacher_answered(done, total)
            self.between_answers()

        return cached_teacher(config, self.live, self.train_set, progress, observer.message) or self.live

    @cached_property
    def identity(self) -> dict[str, str]:
        """Digests of what a run must find unchanged to be continued; where the data lies may change."""
        config = self.trainer.config
        data = dataclasses.replace(config.data, data_dir=None, resident="auto", workers=None)
        config = dataclasses.replace(config, data=data, teacher_cache="auto")
        digests = {
            "config_sha256": hashlib.sha256(json.dumps(given_values(config), sort_keys=True).encode()).hexdigest(),
            "data_sha256": self.train_set.digest,
        }
        return digests if self.live is None else digests | {"teacher_sha256": digest_of(self.live.models)}

    def teacher_answers(self) -> Tensor:
        """The teacher's logits (N, K) for the images that the student is evaluated on, on the CPU."""
        assert self.live is not None
        loader = loader_for(self.eval_set, DataConfig(name=self.eval_set.name), self.device)
        batches = loader.in_order(view=0, batch_size=500)
        return torch.cat([self.live.answer(batch).logits.cpu() for batch in batches])


def _check_unchanged(run: RunFolder, identity: dict[str, str], state: State) -> None:
    for key, digest in identity.items():
        if state.progress.get(key, digest) != digest:
            what = key.removesuffix("_sha256")
            raise RunFolderError(f"the {what} of {run.path} has changed since its state was saved; start a new run")


def _train(
    config: TrainConfig, prepared: _Prepared, run: RunFolder, observer: Observer, state: State | None
) -> dict[str, Any]:
    trainer = prepared.trainer
    progress: dict[str, Any] = {"events": 0, "timing": 0, "seconds": 0.0} if state is None else state.progress
    if state is not None:
        trainer.restore(state)
    events, timing = EventLog(run.events, progress["events"]), EventLog(run.timing, progress["timing"])
    begun = time.monotonic() - progress["seconds"]
    board = open_board(run.path, trainer.epoch + 1) if config.tensorboard else None

    def save() -> None:
        counts = {"events": events.count, "timing": timing.count, "seconds": time.monotonic() - begun}
        facts = {"step": trainer.step, **prepared.identity, **counts}
        save_state(run.state, State(tensors=trainer.state(), progress=facts))

    with stop_requests() as stopped:

        def stop() -> None:
            save()
            raise Interrupted(
                f"stopped at step {trainer.step} of {trainer.total_steps}, state saved; "
                f"continue with: model-compression resume {run.path}",
                exit_code=128 + stopped[0],
            )

        def watch(progress: Progress) -> None:
            observer.stepped(progress)
            if stopped and trainer.step % trainer.steps_per_epoch:  # after its last step an epoch is recorded first
                stop()

        def watch_answers() -> None:
            if stopped:
                stop()

        def watch_first_stage() -> None:
            if stopped:  # nothing is saved: the stage is short, and begins anew
                raise Interrupted(
                    f"stopped before the first step; continue with: model-compression resume {run.path}",
                    exit_code=128 + stopped[0],
                )

        prepared.between_answers = watch_answers
        observer.started(trainer, prepared.eval_name)
        trainer.run_first_stage(watch_first_stage)
        while trainer.step < trainer.total_steps:
            epoch_begun = time.monotonic()
            event = trainer.run_epoch(watch)
            seconds = time.monotonic() - epoch_begun
            last = event["epoch"] == config.epochs
            if config.evaluate_every and (event["epoch"] % config.evaluate_every == 0 or last):
                event[f"{prepared.eval_name}_accuracy"] = trainer.evaluate(prepared.eval_set)
            events.append(event)
            timing.append({"epoch": event["epoch"], "seconds": round(seconds, 3)})
            if board is not None:
                write_event(board, event)
            if config.keep_every and event["epoch"] % config.keep_every == 0:
                save_weights(run.path / f"student-{event['epoch']}.safetensors", trainer.network)
            observer.epoch_done(event)
            if stopped:
                stop()
            if event["epoch"] % config.checkpoint_every == 0 or last:
                save()
        if board is not None:
            board.close()
        return _finish(config, prepared, run, time.monotonic() - begun)  # a signal that comes now changes nothing


def _finish(config: TrainConfig, prepared: _Prepared, run: RunFolder, seconds: float) -> dict[str, Any]:
    """Evaluates the last epoch's network, as it is saved, and writes weights, predictions and metrics."""
    network = prepared.trainer.network.deployed().to(prepared.device)
    targets = torch.from_numpy(prepared.eval_set.labels)
    logits = predict(network, prepared.eval_set, prepared.device, prepared.precision)
    name = prepared.eval_name
    metrics: dict[str, Any] = {f"{name}_{key}": value for key, value in figures(logits, targets).items()}
    tensors = {"student_logits": logits, "targets": targets}
    tensors["thumbnails"] = torch.from_numpy(prepared.eval_set.thumbnails(100))
    if prepared.live is not None:
        answers = prepared.teacher_answers()
        tensors["teacher_logits"] = answers
        metrics[f"teacher_{name}_accuracy"] = figures(answers, targets)["accuracy"]
        metrics["teacher_agreement"] = agreement(logits, answers)
    metrics |= {
        "epochs": config.epochs,
        "seed": config.seed,
        "precision": str(prepared.precision).removeprefix("torch."),
        "device": prepared.device.type,
        "compiled": prepared.trainer.compiled,
        "parameters": num_parameters(network),
    }
    for number, peer in enumerate(prepared.peers.networks if prepared.peers else (), start=1):
        of_peer = predict(peer.deployed().to(prepared.device), prepared.eval_set, prepared.device, prepared.precision)
        metrics[f"peer_{number}_{name}_accuracy"] = figures(of_peer, targets)["accuracy"]
        save_weights(run.path / f"peer-{number}.safetensors", peer)
    write_atomically(run.predictions, save(tensors))
    save_weights(run.student, network, facts=metrics)  # without the time: a repeated run has the same file
    metrics["seconds"] = round(seconds, 1)
    run.write_json(run.metrics, metrics)
    delete_states(run.state)
    return metrics
