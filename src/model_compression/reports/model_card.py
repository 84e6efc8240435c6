"""A model card in the format of the hub: the network, its results, how it was made, its purpose and its limits.

The values in its front matter are JSON, which YAML takes as it is.
"""

import json
from typing import Any

from model_compression.core.config_json import GIVEN, LOADERS, is_given
from model_compression.core.text import NO_BREAK, escape_markdown, markdown_table, percent, size
from model_compression.core.trust import names_of_code
from model_compression.reports.groups import is_path, method_name, run_recipe, short
from model_compression.reports.run_files import RunFiles
from model_compression.reports.words import environment_in_words, recipe_in_words, sentence

_ON_THE_HUB = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}


def model_card(run: RunFiles) -> str:
    """The card of a finished run."""
    recipe = run_recipe(run)
    assert run.metrics is not None
    title = f"{short(recipe['student.name'])} on {short(recipe['data.name'])}, {method_name(recipe)}"
    parts = [
        _front_matter(run, recipe, title),
        f"# {escape_markdown(title)}",
        f"{escape_markdown(sentence(recipe))}; seed {run.seed}, the weights of the last epoch.",
        _use(run, recipe),
        f"## {run.metric.title}\n\n{_figures(run)}",
        f"## How it was made\n\n{_recipe(run, recipe)}",
        f"## What it is for\n\n{_purpose(run, recipe)}",
        f"## Limits\n\n{_limits(run)}",
    ]
    return "\n\n".join(parts).replace(NO_BREAK, " ") + "\n"


def _use(run: RunFiles, recipe: dict[str, Any]) -> str:
    if run.section is not None and run.section.noun in ("texts", "words"):
        return _USE_OF_TEXTS
    last = "logits = network(network.preprocessing(images))  # images (B, C, H, W) uint8, as they are"
    if recipe["data.name"] == LOADERS:
        last = "logits = network(images)  # (B, C, H, W) float32, normalised as the training DataLoader's batches were"
    return f"""```python
import model_compression as mc

network = mc.load_model("student.safetensors").eval()  # or "hub:USER/REPO", where this page is on the hub
{last}
```"""


_USE_OF_TEXTS = """```sh
model-compression export . --out exported/model.onnx
model-compression predict exported "a text"
```"""


def _front_matter(run: RunFiles, recipe: dict[str, Any], title: str) -> str:
    name = str(recipe["data.name"])
    source = _ON_THE_HUB.get(name, name.removeprefix("hf:").partition(",")[0] if name.startswith("hf:") else "")
    on_the_hub = bool(source) and not source.startswith((".", "/", "~"))
    measured = {"type": run.metric.name, "value": run.result, "name": f"{run.eval_set} {run.metric.label}"}
    dataset = {"name": short(name), "type": source if on_the_hub else short(name), "split": run.eval_set}
    task = run.section.hub_task if run.section else "other"
    values: dict[str, Any] = {
        "library_name": "model-compression",
        **({"pipeline_tag": task} if task != "other" else {}),
        "tags": [task, "pytorch", *(["knowledge-distillation"] if "method.name" in recipe else [])],
        "metrics": [run.metric.name],
        **({"datasets": [source]} if on_the_hub else {}),
        "model-index": [
            {
                "name": title,
                "results": [
                    {"task": {"type": task}, "dataset": dataset, "metrics": [measured]},
                ],
            }
        ],
    }
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---"])


def _figures(run: RunFiles) -> str:
    metrics, found, metric, kind = run.metrics, run.predictions, run.metric, run.eval_set
    assert metrics is not None
    assert run.result is not None
    noun = run.section.noun if run.section else "images"
    images = f"{'held-out training' if kind == 'validation' else 'test'} {noun}"
    rows = [(f"{metric.label} on {images}", metric.text(run.result, space=NO_BREAK))]
    note = "It is one run: another seed gives another figure."
    section = run.section
    if section is not None and found is not None:
        own = section.examine(found)
        value = metric.text(own.value, space=NO_BREAK)
        if own.interval:
            value += f" (95 % interval {metric.interval(own.interval, space=NO_BREAK)})"
            by = f" ({section.interval_by})" if section.interval_by else ""
            note = f"The interval is for other {noun} of the same kind{by}. {note}"
        rows = [(f"{metric.label} on {own.samples:,} {images}", value)]
    rows += section.card_figures(metrics, found, kind) if section else []
    if f"teacher_{metric.key(kind)}" in metrics:
        of_teacher = metric.text(metrics[f"teacher_{metric.key(kind)}"], space=NO_BREAK)
        rows.append((f"{metric.label} of the teacher", of_teacher))
    if "teacher_agreement" in metrics:
        rows.append(("agreement with the teacher", percent(metrics["teacher_agreement"])))
    rows.append(("parameters", f"{metrics['parameters']:,}"))
    if run.student_bytes:
        rows.append(("student.safetensors", size(run.student_bytes)))
    return f"{_table(rows)}\n\n{note}"


def _recipe(run: RunFiles, recipe: dict[str, Any]) -> str:
    verb = "distill" if "method.name" in recipe else "train"
    command = f"model-compression {verb} --config config.json --out runs/again"
    rows = [*recipe_in_words(recipe), *environment_in_words(run.environment)]
    if is_given(recipe):
        return (
            f"{_table(rows)}\n\nData or networks were given from Python: repeat the run by `model_compression.distill` "
            "with the same objects and config.json."
        )
    again = "The same command on the same kind of machine gives the same weights"
    own = [part for part in ("student", "teacher") if _is_file(recipe, part)]
    if own:
        again = f"The same command gives the same weights if it finds the {' and the '.join(own)} of config.json"
    if names_of_code(recipe):
        again = f"config.json names code, which must be installed and is imported only if you trust it. {again}"
    if "optim.lr_changed_to" in recipe:
        again = "The same recipe, except for the learning rate, which was changed during the run"
    return f"{_table(rows)}\n\n{again}:\n\n```sh\n{command}\n```"


def _is_file(recipe: dict[str, Any], part: str) -> bool:
    return f"{part}.start" in recipe or is_path(recipe.get(f"{part}.name", ""))


def _purpose(run: RunFiles, recipe: dict[str, Any]) -> str:
    name = str(recipe["data.name"])
    source = "that it was trained on" if name.startswith(GIVEN) else f"of {escape_markdown(short(name))}"
    if run.section is None or run.predictions is None:
        return f"Inputs like those {source}."
    return run.section.purpose(run.predictions, source)


def _limits(run: RunFiles) -> str:
    known = run.section is not None and run.predictions is not None
    lines = run.section.limits(run.predictions, run.eval_set) if run.section and known else []
    if run.config.get("teacher"):
        lines.append("It learned from a teacher's predictions, and so from its mistakes as well.")
    noun = run.section.noun if run.section else "images"
    others = "of other light, noise or compression" if noun == "images" else "of other authors, topics or times"
    lines.append(f"It was not tested with {noun} from elsewhere, {others}: test yours.")
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: list[tuple[str, str]]) -> str:
    return markdown_table(["", ""], [[*map(escape_markdown, row)] for row in rows], left=2)
