"""A model card, in the hub's format: what a network is, how good, how it was made, what it is for and where it ends.

The values in its front matter are JSON, which YAML takes as it is.
"""

import json
from typing import Any

from model_compression.core.config import GIVEN, LOADERS, is_given
from model_compression.core.text import escape_markdown, markdown_table, size
from model_compression.core.trust import names_of_code
from model_compression.reports.answers import accuracy, by_class
from model_compression.reports.groups import is_path, method_name, run_recipe, short
from model_compression.reports.page_parts import SPACE, interval_text, percent
from model_compression.reports.predictions import Predictions
from model_compression.reports.run_files import RunFiles
from model_compression.reports.words import environment_in_words, recipe_in_words, sentence

_ON_THE_HUB = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
_NAMED_CLASSES = 100  # with more, their number is said alone


def model_card(run: RunFiles) -> str:
    """The card of a finished run."""
    recipe = run_recipe(run)
    assert run.metrics is not None
    assert run.predictions is not None
    title = f"{short(recipe['student.name'])} on {short(recipe['data.name'])}, {method_name(recipe)}"
    parts = [
        _front_matter(run, recipe, title),
        f"# {escape_markdown(title)}",
        f"{escape_markdown(sentence(recipe))}; seed {run.seed}, the weights of the last epoch.",
        _use(recipe),
        f"## Accuracy\n\n{_figures(run)}",
        f"## How it was made\n\n{_recipe(run, recipe)}",
        f"## What it is for\n\n{_purpose(run.predictions, recipe)}",
        f"## Limits\n\n{_limits(run.predictions, run.eval_set)}",
    ]
    return "\n\n".join(parts).replace(SPACE, " ") + "\n"


def _use(recipe: dict[str, Any]) -> str:
    last = "logits = network(network.preprocessing(images))  # images (B, C, H, W) uint8, as they are"
    if recipe["data.name"] == LOADERS:
        last = "logits = network(images)  # (B, C, H, W) float32, normalised as the training DataLoader's batches were"
    return f"""```python
import model_compression as mc

network = mc.load_model("student.safetensors").eval()  # or "hub:USER/REPO", where this page is on the hub
{last}
```"""


def _front_matter(run: RunFiles, recipe: dict[str, Any], title: str) -> str:
    name = str(recipe["data.name"])
    source = _ON_THE_HUB.get(name, name.removeprefix("hf:").partition(",")[0] if name.startswith("hf:") else "")
    on_the_hub = bool(source) and not source.startswith((".", "/", "~"))
    measured = {"type": "accuracy", "value": run.accuracy, "name": f"{run.eval_set} accuracy"}
    dataset = {"name": short(name), "type": source if on_the_hub else short(name), "split": run.eval_set}
    values: dict[str, Any] = {
        "library_name": "model-compression",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "pytorch", *(["knowledge-distillation"] if "method.name" in recipe else [])],
        "metrics": ["accuracy"],
        **({"datasets": [source]} if on_the_hub else {}),
        "model-index": [
            {
                "name": title,
                "results": [
                    {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": [measured]},
                ],
            }
        ],
    }
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---"])


def _figures(run: RunFiles) -> str:
    metrics, found, kind = run.metrics, run.predictions, run.eval_set
    assert metrics is not None
    assert found is not None
    own = accuracy(found.student, found.targets)
    held_out = "held-out training images" if kind == "validation" else "test images"
    rows = [
        (
            f"accuracy on {own.total:,} {held_out}",
            f"{percent(own.share)} (95 % interval {interval_text(own.interval)})",
        ),
        ("negative log-likelihood", f"{metrics[f'{kind}_nll']:.4f}"),
        ("expected calibration error, 15 bins", percent(metrics[f"{kind}_ece"])),
    ]
    if "teacher_agreement" in metrics:
        rows += [
            ("accuracy of the teacher", percent(metrics[f"teacher_{kind}_accuracy"])),
            ("same class as the teacher", percent(metrics["teacher_agreement"])),
        ]
    rows.append(("parameters", f"{metrics['parameters']:,}"))
    if run.student_bytes:
        rows.append(("student.safetensors", size(run.student_bytes)))
    note = (
        "The interval is for other images of the same kind (Wilson). It is one run: another seed gives another figure."
    )
    return f"{_table(rows)}\n\n{note}"


def _recipe(run: RunFiles, recipe: dict[str, Any]) -> str:
    verb = "distill" if "method.name" in recipe else "train"
    command = f"model-compression {verb} --config config.json --out runs/again"
    rows = [*recipe_in_words(recipe), *environment_in_words(run.environment)]
    if is_given(recipe):
        return (
            f"{_table(rows)}\n\nData or networks were given from Python: `model_compression.distill` with the same "
            "objects and config.json makes it again."
        )
    again = "The same command on the same kind of machine gives the same weights"
    own = [part for part in ("student", "teacher") if _is_file(recipe, part)]
    if own:
        verb = "is" if len(own) == 1 else "are"
        again = f"The same command gives the same weights where the {' and the '.join(own)} of config.json {verb} there"
    if names_of_code(recipe):
        again = f"config.json names code, which must be there and is imported with --trust only. {again}"
    if "optim.lr_changed_to" in recipe:
        again = "The same recipe but for the rate, which was changed while it ran"
    return f"{_table(rows)}\n\n{again}:\n\n```sh\n{command}\n```"


def _is_file(recipe: dict[str, Any], part: str) -> bool:
    return f"{part}.start" in recipe or is_path(recipe.get(f"{part}.name", ""))


def _purpose(found: Predictions, recipe: dict[str, Any]) -> str:
    classes = found.student.shape[1]
    named = found.class_names if classes <= _NAMED_CLASSES else ()
    names = f": {', '.join(map(escape_markdown, named))}" if named else ""
    name = str(recipe["data.name"])
    source = "that it was trained on" if name.startswith(GIVEN) else f"of {escape_markdown(short(name))}"
    return f"Images like those {source}, into {classes} classes{names}."


def _limits(found: Predictions, kind: str) -> str:
    lines = ["An image of none of these classes is given one of them all the same, and may be so with confidence."]
    classes = [one for one in by_class(found) if one.student.total]
    worst = min(classes, key=lambda one: one.student.share)
    best = max(classes, key=lambda one: one.student.share)
    if worst.student.share < best.student.share:
        lines.append(
            f"Classes differ: {percent(worst.student.share)} of {escape_markdown(worst.name)} are found, "
            f"{percent(best.student.share)} of {escape_markdown(best.name)} ({kind} images)."
        )
    if found.teacher is not None:
        lines.append("It learned from a teacher's answers, and so from its mistakes as well.")
    lines.append("Nothing is known of images from elsewhere, with other light, noise or compression: measure on yours.")
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: list[tuple[str, str]]) -> str:
    return markdown_table(["", ""], [[*map(escape_markdown, row)] for row in rows], left=2)
