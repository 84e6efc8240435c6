"""What a run leaves: weights, predictions, figures and the model card of its last epoch."""

import json
from typing import Any

import torch
from safetensors.torch import save

from model_compression.core.config import TrainConfig
from model_compression.core.files import write_atomically, write_text
from model_compression.core.metric import recorded
from model_compression.data.dataset import Dataset
from model_compression.engine.observer import Observer, left_out
from model_compression.engine.reused_classifier import num_parameters
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.setup import Prepared, teacher_answers
from model_compression.models.prediction import predict
from model_compression.models.weights import save_weights
from model_compression.reports.model_card import model_card
from model_compression.reports.run_files import read_run
from model_compression.tasks import Task

_FIRST_SHOWN, _MISTAKES_SHOWN = 100, 24  # images that go into the run folder, to be looked at


def _rows_to_show(task: Task, logits: torch.Tensor, answers: torch.Tensor | None, eval_set: Dataset) -> torch.Tensor:
    """The first images, by which a report tells whether two runs answered the same, and the surest mistakes."""
    viewable = eval_set.num_viewable
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
    logits = predict(network, eval_set, device, precision)
    metrics: dict[str, Any] = {f"{name}_{key}": value for key, value in task.figures(logits, targets).items()}
    tensors = {"student_logits": logits, "targets": targets}
    answers: torch.Tensor | None = None
    if prepared.teacher.live is not None:
        answers = teacher_answers(prepared.teacher.live, eval_set)
        tensors["teacher_logits"] = answers
        metrics[f"teacher_{name}_{task.metric.name}"] = task.value(answers, targets)
        metrics["teacher_agreement"] = task.agreement(logits, answers)
    rows = _rows_to_show(task, logits, answers, eval_set)
    thumbnails = eval_set.thumbnails(rows.numpy())
    tensors |= {"thumbnail_rows": rows, "thumbnails": torch.from_numpy(thumbnails).contiguous()}
    metrics |= {
        "epochs": config.epochs,
        "seed": config.seed,
        "precision": str(precision).removeprefix("torch."),
        "device": device.type,
        "compiled": trainer.compiled,
        "parameters": num_parameters(network),
    }
    metrics |= recorded(task.metric)
    if trainer.lr != config.optim.lr:
        metrics["lr_changed_to"] = trainer.lr
    for number, peer in enumerate(prepared.teacher.peers.networks if prepared.teacher.peers else (), start=1):
        of_peer = predict(peer.deployed().to(device), eval_set, device, precision)
        metrics[f"peer_{number}_{name}_{task.metric.name}"] = task.value(of_peer, targets)
        save_weights(run.path / f"peer-{number}.safetensors", peer)
    facts = task.facts(eval_set)
    write_atomically(run.predictions, save(tensors, metadata={key: json.dumps(value) for key, value in facts.items()}))
    own = facts | {"image_shape": list(eval_set.image_shape)}
    save_weights(run.student, network, facts=metrics | own)  # without the time: a repeated run has the same file
    metrics["seconds"] = round(seconds, 1)
    with left_out(f"the model card {run.card}", observer.message):
        write_text(run.card, model_card(read_run(run.path, metrics)))
    run.finish(metrics)
    return metrics
