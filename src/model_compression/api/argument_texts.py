"""The arguments that several public functions share, each described once; docstrings name this file."""

import re
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

TEXTS = {
    "student": (
        'a network\'s name, as "resnet20", "timm:resnet18" or "mypackage.nets:build", or any module that answers '
        "normalised images (B, C, H, W) with logits (B, K). Modules are copied; yours stay as they are. A "
        "`ModelConfig` gives options, normalisation and size beside the name."
    ),
    "data": (
        'a dataset\'s name, "folder:PATH" or "hf:NAME"; a pair (training, test) of `Dataset`, of PyTorch datasets '
        "whose items are (PIL image or uint8 tensor (C, H, W), class number), or of DataLoaders; or four arrays: "
        "training images (N, C, H, W) uint8, training labels (N,), or None where there are none, test images, test "
        "labels; or four lists: training texts, or lists of words, their labels, or lists of tags, test texts, "
        "labels. Modules get pixels normalised by the training images' mean and deviation. DataLoaders are taken as "
        "they are: both networks see the float images of their batches, nothing of the teacher's is stored, and a run "
        "that is resumed does not end with the same weights."
    ),
    "tune": (
        'what is tuned. Texts, as "lr", "batch_size=32,64,128", "weight_decay=1e-6:1e-2:log", or a dictionary, as '
        '``{"batch_size": [32, 64], "weight_decay": (1e-6, 1e-2, "log")}``. A name without values has those of its '
        "option. Names are settings, parameters of the method, and weights.TERM. By default lr, and the method's "
        "temperature and weights."
    ),
    "steps": "cuts, each with its repair.",
    "step_epochs": "epochs of the repairs before the last.",
    "epochs": "passes over the training images.",
    "seed": "of the order of the images, and of the initial weights of a student that is named.",
    "run_dir": "a folder that does not exist; by default runs/DATA-STUDENT-METHOD-1, or the next number that is free.",
    "resume": "whether to go on with the run in ``run_dir`` that was stopped, with the same arguments as then.",
    "config": (
        "where to start from; its networks, method, epochs and seed are replaced. Without it optimiser, rate, weight "
        "decay, schedule, batch size and augmentation are chosen by data and student where they are not given."
    ),
    "runs": "where run folders go.",
    "jobs": "runs at once, each on a GPU of its own where there are several.",
    "executor": '"local", or "ray" or "ray:ADDRESS" for processes of a Ray cluster.',
    "device": '"auto", "cpu", "cuda" or "mps".',
    "precision": '"auto", "fp32" or "bf16".',
    "observer": "who watches; takes the place of ``progress``.",
    "progress": (
        "whether a bar and messages are shown on stderr, as the command shows them. By default they are on a terminal "
        'and in a notebook; elsewhere messages are warnings of the logger "model_compression".'
    ),
    "trust": (
        "whether code that a stranger's file names is imported, as a weights file or the run that is resumed. What you "
        "name yourself always is, and so is what your own runs on this machine name."
    ),
    "strict": "whether a warning about data or teacher stops the run before its first step.",
    "settings": (
        "anything else of `TrainConfig`, `DataConfig` or `OptimConfig`, as ``batch_size=64, lr=1e-3, "
        'augmentation="flip", image_size=64``.'
    ),
}

_LINE = re.compile(r"^( +)([\w, ]+): `api\.argument_texts`\.$", re.MULTILINE)
_WIDTH = 120


def described(function: F) -> F:
    """Decorator: puts `TEXTS` into the docstring, where a line "NAME, NAME: `api.argument_texts`." names arguments."""
    if function.__doc__ is not None:
        function.__doc__ = _LINE.sub(_described, function.__doc__)
    return function


def _described(line: re.Match[str]) -> str:
    indent, names = line[1], line[2].split(", ")
    wrap = textwrap.TextWrapper(
        _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}    ", break_on_hyphens=False, break_long_words=False
    )
    return "\n".join(wrap.fill(f"{name}: {TEXTS[name]}") for name in names)
