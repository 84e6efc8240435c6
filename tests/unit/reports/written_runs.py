"""Run folders as training leaves them, written in a moment."""

import json

import numpy as np
from safetensors.numpy import save_file

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.config_json import to_dict
from model_compression.core.data_config import DataConfig

CLASSES = ("ant", "bee", "cat", "dog")


def logits_for(targets, classes, share, seed):
    """(N, K) float32 of which about ``share`` are right."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(targets), classes)).astype(np.float32)
    chosen = np.where(rng.random(len(targets)) < share, targets, rng.integers(0, classes, len(targets)))
    logits[np.arange(len(targets)), chosen] += 3
    return logits


def config_of(method="kd", seed=0, **options):
    """A configuration; ``method`` None is labels only, ``views`` are of mirrored images."""
    views = {"augmentation": "flip", "views": options.pop("views")} if "views" in options else {}
    return TrainConfig(
        student=options.pop("student", ModelConfig(name="lenet")),
        teacher=ModelConfig(name="nin-cifar10") if method else None,
        method=MethodConfig(name=method, params=options.pop("params", {})) if method else None,
        data=DataConfig(name=options.pop("data", "animals"), **views),
        **{"seed": seed, "epochs": 4, "evaluate_every": 1, **options},
    )


def write_run(folder, method="kd", seed=0, *, share=0.6, images=200, classes=CLASSES, done=4, side=8, **options):
    """Writes a run of ``done`` epochs of 4, without results if they are fewer; returns ``folder``."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_dict(config_of(method, seed, **options))))
    environment = {"model_compression": "0.1.0", "torch": "2.13.0", "processor": "abacus", "threads": 2, "gpu": None}
    (folder / "environment.json").write_text(json.dumps(environment))
    events = [
        {"epoch": epoch, "train_loss": 2.0 / epoch, "test_accuracy": share * epoch / 4} for epoch in range(1, done + 1)
    ]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if done < 4:
        return folder
    rng = np.random.default_rng(100)
    targets = rng.integers(0, len(classes), images)
    student = logits_for(targets, len(classes), share, seed)
    tensors = {"student_logits": student, "targets": targets.astype(np.int64)}
    tensors["thumbnails"] = rng.integers(0, 256, (min(50, images), 3, side, side), dtype=np.uint8)
    metrics = {"test_accuracy": float(np.mean(student.argmax(1) == targets)), "seconds": 61.0, "parameters": 1234}
    if method:
        teacher = tensors["teacher_logits"] = logits_for(targets, len(classes), 0.9, 999)
        metrics["teacher_test_accuracy"] = float(np.mean(teacher.argmax(1) == targets))
        metrics["teacher_agreement"] = float(np.mean(teacher.argmax(1) == student.argmax(1)))
    save_file(tensors, folder / "predictions.safetensors", {"class_names": json.dumps(classes)})
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_weights(folder, 5000)
    return folder


def write_weights(folder, num_bytes):
    """Writes a weights file of that size, which no network fits."""
    save_file({"weight": np.zeros(num_bytes - 72, dtype=np.uint8)}, folder / "student.safetensors")


def write_compression(folder, **changes):
    """Writes what `compress` leaves: a run that is distilled, and stages of growing cheapness; returns ``folder``."""
    write_run(folder / "distilled")
    stages = [
        {"name": name, "runtime": runtime, "size_bytes": number, "parameters": 1234, "macs": 5678, "accuracy": share,
         "interval": [share - 0.01, share + 0.01], "median_ms": time, "p95_ms": 2 * time}
        for name, runtime, number, share, time in (
            ("distilled", "PyTorch", 5000, 0.6, 0.4), ("pruned", "PyTorch", 2500, 0.58, 0.41),
            ("int8", "ONNX Runtime", 700, 0.57, 0.1))
    ]  # fmt: skip
    values = {"threads": 2, "stages": stages, "budget": {}, "teacher_accuracy": 0.9, "broken": []}
    (folder / "stages.json").write_text(json.dumps(values | changes))
    return folder


def measured(milliseconds):
    """What `measure --json` prints."""
    latency = [
        {"runtime": runtime, "batch": 1, "threads": 2, "calls": 20, "median_ms": factor * milliseconds, "p95_ms": 9.0}
        for runtime, factor in (("PyTorch", 2.0), ("ONNX Runtime", 1.0))
    ]
    return json.dumps({"model": "lenet", "parameters": 1234, "latency": latency})
