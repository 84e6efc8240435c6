"""Describes a recipe in words for readers who never saw its configuration."""

from collections.abc import Mapping
from typing import Any

from model_compression.core.config_json import is_given
from model_compression.core.text import count, shell_word
from model_compression.reports.groups import Group, method_name, short

_AUGMENTATIONS = {"none": "none", "flip": "mirrored at random"}
_FITS = {"pad": "padded", "squash": "squashed"}
_MIXING = {"mixup": "blended with another image", "cutmix": "a box of another image pasted in"}
_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "muon": "Muon", "sgd": "SGD"}


def recipe_in_words(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(option, words) of a flat recipe, the most important first; options that are off are left out."""
    rows = [
        ("student", _network(recipe, "student")),
        ("teacher", _teacher(recipe)),
        ("learns by", _method(recipe)),
        ("peers", _network(recipe, "peers") if "peers.name" in recipe else ""),
        ("data", _data(recipe)),
        ("augmentation", _augmentation(recipe)),
        ("training", f"{count(recipe['epochs'], 'epoch')} in batches of {recipe['batch_size']}"),
        ("optimiser", _optimizer(recipe)),
        ("schedule", _schedule(recipe)),
        ("besides", _besides(recipe)),
    ]
    return [(name, words) for name, words in rows if words]


def sentence(recipe: Mapping[str, Any]) -> str:
    """A flat recipe as "lenet on cifar10, kd from nin, 4 epochs"."""
    student, data = short(recipe["student.name"]), short(recipe["data.name"])
    teacher = f" from {short(recipe['teacher.name'])}" if "teacher.name" in recipe else ""
    return f"{student} on {data}, {method_name(recipe)}{teacher}, {count(recipe['epochs'], 'epoch')}"


def environment_in_words(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, words) of versions and hardware."""
    hardware = [str(environment[key]) for key in ("gpu", "processor") if environment.get(key)]
    threads = f", {count(environment['threads'], 'thread')}" if environment.get("threads") else ""
    system = [str(environment[key]) for key in ("system", "machine") if environment.get(key)]
    versions = [f"{key} {environment[key]}" for key in ("torch", "numpy", "python") if environment.get(key)]
    rows = [
        ("hardware", " · ".join(hardware) + threads if hardware else ""),
        ("system", ", ".join(system)),
        ("versions", ", ".join([f"model-compression {environment.get('model_compression', '?')}", *versions])),
    ]
    return [(name, words) for name, words in rows if words]


def command(group: Group) -> str:
    """What repeats a group's first run; another seed is an option more.

    Of a run on objects that were given in Python, a comment that says so: no command has them.
    """
    if is_given(group.recipe):
        return "# trained from Python: call model_compression.distill with the same objects and this configuration"
    verb = "distill" if "method.name" in group.recipe else "train"
    folder = group.runs[0].path
    places = [shell_word(str(place)) for place in (folder / "config.json", f"{folder}-again")]
    return f"model-compression {verb} --config {places[0]} --out {places[1]}"


def _options(recipe: Mapping[str, Any], prefix: str) -> str:
    own = {key.removeprefix(prefix): value for key, value in recipe.items() if key.startswith(prefix)}
    return ", ".join(f"{key.replace('_', ' ')} {short(value)}" for key, value in sorted(own.items()))


def _network(recipe: Mapping[str, Any], part: str) -> str:
    options = _options(recipe, f"{part}.options.")
    start = f", starting from {short(recipe[f'{part}.start'])}" if f"{part}.start" in recipe else ""
    return short(recipe[f"{part}.name"]) + (f" ({options})" if options else "") + start


def _teacher(recipe: Mapping[str, Any]) -> str:
    if "teacher.name" not in recipe:
        return ""
    flipped = ", mean of an image and its mirror image" if recipe.get("teacher_tta") == "flip" else ""
    plain = ", which sees each image once, without augmentation" if recipe.get("teacher_view") == "plain" else ""
    return _network(recipe, "teacher") + flipped + plain


def _method(recipe: Mapping[str, Any]) -> str:
    params, weights = _options(recipe, "method.params."), _options(recipe, "method.weights.")
    parts = [params, f"weights: {weights}" if weights else ""]
    parts.append(f"label weight {recipe['method.label_weight']}" if "method.label_weight" in recipe else "")
    parts.append(f"weights rise over {recipe['method.warmup']:.0%} of the steps" if "method.warmup" in recipe else "")
    said = "; ".join(filter(None, parts))
    return method_name(recipe) + (f" ({said})" if said else "")


def _data(recipe: Mapping[str, Any]) -> str:
    held_out = recipe.get("data.validation")
    words = short(recipe["data.name"])
    if held_out:
        words += f", {held_out:,} training images held out for validation"
    if recipe.get("data.fit", "crop") != "crop":
        words += f", images {_FITS[recipe['data.fit']]} to a square"
    if recipe.get("data.crop_share", 1) != 1:
        words += f", the middle {recipe['data.crop_share']:.1%} of each image"
    if recipe.get("data.interpolation", "bicubic") != "bicubic":
        words += f", scaled by the {recipe['data.interpolation']} filter"
    return words + (f", trained on {short(recipe['data.unlabelled'])}" if recipe.get("data.unlabelled") else "")


def _augmentation(recipe: Mapping[str, Any]) -> str:
    kind = recipe["data.augmentation"]
    if kind == "flip_shift":
        parts = [f"mirrored and shifted by up to {recipe.get('data.shift')} pixels at random"]
    else:
        parts = [_AUGMENTATIONS.get(kind) or _crops(recipe, kind)]
    for option, words in _MIXING.items():
        if recipe.get(f"data.{option}"):
            parts.append(f"{words} ({option} {recipe[f'data.{option}']:g})")
    if parts == [_AUGMENTATIONS["none"]]:
        return parts[0]
    if recipe.get("data.cutout"):
        parts.append(f"a hole of {recipe['data.cutout']} pixels")
    if recipe.get("data.erasing"):
        parts.append(f"a box erased with probability {recipe['data.erasing']:g}")
    views = recipe.get("data.views")
    parts.append(f"{count(views, 'view')} in turn" if views else "a fresh view each epoch")
    return ", ".join(part for part in parts if part != _AUGMENTATIONS["none"])


def _crops(recipe: Mapping[str, Any], kind: str) -> str:
    """What `photo`, `randaugment` and `trivialaugment` do."""
    words = f"random crops of {recipe['data.crop_area']:.0%} of the image or more, mirrored at random"
    if kind == "randaugment":
        number, size = recipe["data.randaugment_ops"], recipe["data.randaugment_magnitude"]
        return f"{words}, RandAugment ({count(number, 'operation')} of magnitude {size})"
    if kind == "trivialaugment":
        return f"{words}, TrivialAugment"
    for option, what in (("color_jitter", "colours changed by up to {:.0%}"), ("hue", "hue by up to {:g} turns")):
        if recipe.get(f"data.{option}"):
            words += ", " + what.format(recipe[f"data.{option}"])
    return words + (f", grey with probability {recipe['data.grey']:g}" if recipe.get("data.grey") else "")


def _optimizer(recipe: Mapping[str, Any]) -> str:
    name = recipe["optim.optimizer"]
    words = f"{_OPTIMIZERS.get(name, name)}, rate {recipe['optim.lr']:g}"
    words += f", momentum {recipe['optim.momentum']:g}" if name in ("sgd", "muon") else ""
    if "optim.lr_changed_to" in recipe:
        words += f", changed to {recipe['optim.lr_changed_to']:g} in between, at a resumption"
    decay = recipe.get("optim.weight_decay")
    return words + (f", weight decay {decay:g}" if decay else "")


def _schedule(recipe: Mapping[str, Any]) -> str:
    kind = recipe["optim.schedule"]
    if kind == "step":
        return f"the rate is multiplied by {recipe['optim.step_factor']:g} after {recipe['optim.step_at']:.0%}"
    if kind == "one_cycle":
        return f"one cycle: the rate rises for {recipe['optim.warmup']:.0%} of the steps, then falls to zero"
    return "a constant rate"


def _besides(recipe: Mapping[str, Any]) -> str:
    parts = [f"{_last(key)} {recipe[key]:g}" for key in ("label_smoothing", "ema") if recipe.get(key)]
    if recipe.get("precision", "auto") != "auto":
        parts.append(f"precision {recipe['precision']}")
    return ", ".join(parts)


def _last(key: str) -> str:
    return {"ema": "averaged weights, decay"}.get(key, key.replace("_", " "))
