"""How fast a backbone is distilled without labels, against LightlyTrain, in turn, in rounds.

    python -m venv lightly && lightly/bin/pip install 'lightly-train[timm]'
    python -m benchmarks.lightly_train --python lightly/bin/python [--rounds 3] [--images 1000] [--epochs 2]

LightlyTrain has an environment of its own. Both have the same photographs (`benchmarks.photographs`, 224 pixels), the
DINOv2 network ViT-B/14 with random weights as teacher, which is LightlyTrain's default, timm's resnet18 as student,
images of 112 pixels, batch, bfloat16, threads and method ("distillationv1", here `lightly`), and each a process of its
own. LightlyTrain augments and asks the teacher anew in each epoch. Here two views of each image are answered and stored
in the first two epochs, once for all students. Images a second are those of the later epochs, their median; those of
the first two are given too, and LightlyTrain's are without its first steps.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.photographs import write_photographs
from benchmarks.record import line, surroundings, write
from model_compression.engine.events import read_events

RUNS, PHOTOS = Path("runs/lightly-train"), Path("runs/photographs/photos")
SIDE, BATCH, VIEWS = 112, 64, 2
_FIRST = 4  # steps of LightlyTrain that are not counted
_THEIRS = """
import json, sys, time
import lightly_train
from lightly_train._methods.method import Method
from lightly_train._models.dinov2_vit.dinov2_vit_package import DINOv2ViTPackage

photos, out, side, batch, epochs = json.loads(sys.argv[1])
moments, step, built = [], Method.training_step, DINOv2ViTPackage.get_model


def timed(self, *arguments, **options):
    moments.append(time.perf_counter())
    return step(self, *arguments, **options)


def fresh(*arguments, **options):
    return built(*arguments, **{**options, "load_weights": False})


Method.training_step, DINOv2ViTPackage.get_model = timed, staticmethod(fresh)
lightly_train.pretrain(
    out=out, data=photos, model="timm/resnet18", method="distillationv1", epochs=epochs, batch_size=batch,
    method_args={"teacher": "dinov2/vitb14-noreg"}, precision="bf16-mixed", accelerator="cpu",
    transform_args={"image_size": (side, side)}, overwrite=True,
)
print("MOMENTS", json.dumps(moments))
"""


def theirs(python: str, epochs: int) -> dict[str, float]:
    """Images a second of LightlyTrain's steps."""
    given = [str(PHOTOS / "train"), str(RUNS / "theirs"), SIDE, BATCH, epochs]
    done = subprocess.run([python, "-c", _THEIRS, json.dumps(given)], capture_output=True, text=True)
    said = [text for text in done.stdout.splitlines() if text.startswith("MOMENTS ")]
    if not said:
        raise SystemExit(f"LightlyTrain ended with {done.returncode}:\n{done.stderr[-3000:]}")
    moments = json.loads(said[0].removeprefix("MOMENTS "))[_FIRST:]
    return {"images_per_second": BATCH * (len(moments) - 1) / (moments[-1] - moments[0])}


def ours(epochs: int) -> dict[str, float]:
    """Images a second of our epochs with stored answers, and of those in which answers are stored."""
    folder, cache = (RUNS / f"{name}-{time.time_ns()}" for name in ("ours", "cache"))
    command = [
        sys.executable, "-m", "model_compression", "distill", "--task", "embedding", "--method", "lightly",
        "--teacher", "timm:vit_base_patch14_dinov2", "--teacher-option", "pretrained=false",
        "--teacher-option", f"img_size={SIDE}", "--student", "timm:resnet18", "--data", f"folder:{PHOTOS}",
        "--image-size", str(SIDE), "--augmentation", "photo", "--views", str(VIEWS), "--epochs", str(epochs),
        "--batch-size", str(BATCH), "--precision", "bf16", "--teacher-cache", str(cache),
        "--out", str(folder),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"distill ended with {done.returncode}:\n{done.stderr[-3000:]}")
    seconds = [epoch["seconds"] for epoch in read_events(folder / "timing.jsonl")]
    images = sum(1 for _ in (PHOTOS / "train").rglob("*.jpg"))
    first, later = (statistics.median(images / one for one in part) for part in (seconds[:VIEWS], seconds[VIEWS:]))
    return {"images_per_second": later, "while_answers_are_stored": first}


def main() -> None:
    """Measures both in turn, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="the Python of an environment with lightly-train")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=2, help="epochs that count (default: 2)")
    args = parser.parse_args()
    write_photographs(PHOTOS, args.images)
    found: dict[str, list[dict[str, Any]]] = {"theirs": [], "ours": []}
    for _ in range(args.rounds):
        found["theirs"].append(theirs(args.python, args.epochs))
        found["ours"].append(ours(VIEWS + args.epochs))
        print({name: round(values[-1]["images_per_second"], 1) for name, values in found.items()}, flush=True)
    version = subprocess.run(
        [args.python, "-c", "import lightly_train; print(lightly_train.__version__)"], capture_output=True, text=True
    ).stdout.strip()
    where = surroundings(torch.device("cpu"), "timm")
    content = {"surroundings": where, "lightly_train": version, "images": args.images, "epochs": args.epochs, **found}
    write("lightly-train", content, table(content))


def table(content: dict[str, Any]) -> str:
    """Markdown: images a second of each, and the ratio, by round."""
    rates = {name: [one["images_per_second"] for one in content[name]] for name in ("theirs", "ours")}
    ratios = [own / other for own, other in zip(rates["ours"], rates["theirs"], strict=True)]
    stored = statistics.median(one["while_answers_are_stored"] for one in content["ours"])
    lines = [
        "# Distilling a backbone without labels, against LightlyTrain",
        "",
        f"{line(content['surroundings'])}; lightly-train {content['lightly_train']}.",
        "",
        f"`python -m benchmarks.lightly_train --python … --rounds {len(ratios)} --images {content['images']} "
        f"--epochs {content['epochs']}`: ViT-B/14 (DINOv2's, random weights) teaches resnet18; {SIDE} pixels, batch "
        f"{BATCH}, bfloat16, in turn, a process each. Images a second "
        f"while training. The answers of {VIEWS} views are stored in the first {VIEWS} epochs, once for all students, "
        f"at {stored:.0f} images a second.",
        "",
        "| | median | each round |",
        "|---|---:|---|",
    ]
    for name, told in (
        ("theirs", "LightlyTrain: the teacher answers each view"),
        ("ours", "`lightly`, stored answers"),
    ):
        each = ", ".join(f"{rate:.0f}" for rate in rates[name])
        lines.append(f"| {told} | {statistics.median(rates[name]):.0f} | {each} |")
    lines.append(f"| ratio | {statistics.median(ratios):.2f} | {', '.join(f'{one:.2f}' for one in ratios)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
