"""What a run leaves: weights, predictions, figures and the model card of its last epoch."""

import json
from typing import Any

import torch

from model_compression.core import processes
from model_compression.core.checksummed import save_in_order
from model_compression.core.config import TrainConfig
from model_compression.core.files import write_atomically, write_text
from model_compression.core.metric import recorded
from model_compression.data.dataset import Dataset
from model_compression.data.samples import Samples
from model_compression.engine.observer import Observer, left_out
from model_compression.engine.reused_classifier import num_parameters
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.run_teacher import teacher_answers
from model_compression.engine.setup import Prepared
from model_compression.models.weights import save_backbone, save_weights
from model_compression.reports.model_card import model_card
from model_compression.reports.run_files import read_run
from model_compression.reports.sections.base import DEFAULT_TASK, TASK
from model_compression.tasks import Task

_FIRST_SHOWN, _MISTAKES_SHOWN = 100, 24  # images that go into the run folder, to be looked at


def _rows_to_show(task: Task, logits: torch.Tensor, answers: torch.Tensor | None, eval_set: Dataset) -> torch.Tensor:
    """The first images, by which a report tells whether two runs answered the same, and the surest mistakes."""
    viewable = eval_set.num_viewable if eval_set.holds_images else len(eval_set)
    wrong = task.surest_mistakes(logits, answers, torch.from_numpy(eval_set.labels))
    first = torch.arange(min(_FIRST_SHOWN, viewable))
    rows: torch.Tensor = torch.cat([first, wrong[wrong < viewable][:_MISTAKES_SHOWN]]).unique()
    return rows


def write_results(
    config: TrainConfig, prepared: Prepared, run: RunFolder, seconds: float, observer: Observer
) -> dict[str, Any]:
    """Evaluates the last epoch's network, as it is saved, and writes weights, predictions and metrics."""
    trainer, eval_set, name = prepared.trainer, prepared.data.evaluation, prepared.data.evaluation_name
    task, device, precision = trainer.task, trainer.runtime.device, trainer.runtime.precision
    network = trainer.network.deployed().to(device)
    targets = torch.from_numpy(eval_set.labels)
    held_out = prepared.data.thresholds
    if held_out is not None:
        task = task.tuned(trainer.answer_all(network, held_out), torch.from_numpy(held_out.labels))
    logits = trainer.answer_all(network, eval_set)
    figures = task.figures(logits, targets) | task.further_figures(logits, targets, eval_set)
    metrics: dict[str, Any] = {f"{name}_{key}": value for key, value in figures.items()}
    tensors = {f"student_{task.kept_as}": logits, "targets": targets}
    answers = _teacher_answers(prepared)
    if answers is not None:
        tensors[f"teacher_{task.kept_as}"] = answers
        metrics[f"teacher_{name}_{task.metric.name}"] = task.value(answers, targets)
        answered = (task.compared(one, targets) for one in (logits, answers))
        metrics["teacher_agreement"] = task.agreement(*answered)
    rows = _rows_to_show(task, logits, answers, eval_set)
    final = task.final_figures(lambda data: trainer.answer_all(network, data), prepared.data.train, logits, targets)
    metrics |= {f"{name}_{key}": value for key, value in final.items()}
    metrics |= {
        "epochs": trainer.epoch if config.patience else config.epochs,  # it may end early
        "seed": config.seed,
        "precision": str(precision).removeprefix("torch."),
        "device": device.type,
        "compiled": trainer.compiled,
        "parameters": num_parameters(network),
    }
    metrics |= recorded(task.metric) | ({} if task.name == DEFAULT_TASK else {TASK: task.name})
    if trainer.lr != config.optim.lr:
        metrics["lr_changed_to"] = trainer.lr
    for number, peer in enumerate(prepared.teacher.peers.networks if prepared.teacher.peers else (), start=1):
        of_peer = trainer.answer_all(peer.deployed().to(device), eval_set)
        metrics[f"peer_{number}_{name}_{task.metric.name}"] = task.value(of_peer, targets)
        if processes.is_main():
            save_weights(run.path / f"peer-{number}.safetensors", peer)
    if not processes.is_main():
        return metrics
    _save_predictions(run, task, eval_set, tensors, rows)
    facts = task.facts(eval_set) | ({"image_shape": list(eval_set.image_shape)} if eval_set.holds_images else {})
    save_weights(run.student, network, facts=metrics | facts)  # without the time: a repeated run has the same file
    metrics["seconds"] = round(seconds, 1)
    if task.answer == "embedding":
        save_backbone(run.backbone, network)
    with left_out(f"the model card {run.card}", observer.message):
        write_text(run.card, model_card(read_run(run.path, metrics)))
    run.finish(metrics)
    return metrics


def _teacher_answers(prepared: Prepared) -> torch.Tensor | None:
    """What the teacher answers to the samples that the student is evaluated on; None without one."""
    live, eval_set = prepared.teacher.live, prepared.data.evaluation
    if live is None:
        return None
    if live.is_sharded:  # all processes ask it the same
        return teacher_answers(live, eval_set)
    runtime = prepared.trainer.runtime
    return runtime.share_out(len(eval_set), lambda rows: teacher_answers(live, eval_set, rows))


def _save_predictions(
    run: RunFolder, task: Task, eval_set: Dataset, tensors: dict[str, torch.Tensor], rows: torch.Tensor
) -> None:
    """Writes ``tensors``, with what a report shows of the samples at ``rows``, and files that belong to them."""
    samples, said = eval_set.samples, task.facts(eval_set)
    if eval_set.holds_images:
        thumbnails = torch.from_numpy(eval_set.thumbnails(rows.numpy())).contiguous()
        tensors = tensors | {"thumbnail_rows": rows, "thumbnails": thumbnails}
    elif isinstance(samples, Samples) and (excerpts := samples.excerpts(rows.numpy())):
        tensors, said = tensors | {"excerpt_rows": rows}, said | {"excerpts": excerpts}
    write_atomically(run.predictions, save_in_order(tensors, {key: json.dumps(value) for key, value in said.items()}))
    if isinstance(samples, Samples):
        for file, content in samples.companions.items():
            write_atomically(run.path / file, content)
