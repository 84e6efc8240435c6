"""Configurations: frozen, keyword-only dataclasses with an exact JSON round trip. Knows nothing of torch."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from model_compression.core import trust
from model_compression.core.config_values import Config, PathText
from model_compression.core.config_values import from_dict as from_dict  # which other modules import from here
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.core.registry import unknown_name

C = TypeVar("C")
V = TypeVar("V")

HERE = "here:"
"""Before a name that is relative to the folder of its file, so that a folder with several runs can be moved."""

GIVEN = "python:"
"""What the name of data or of a network begins with that was given as an object, and that no name brings back."""
LOADERS = f"{GIVEN}dataloaders"
"""The name of data that come as batches of floats, already normalised."""

Augmentation = Literal["none", "flip", "flip_shift"]
Optimizer = Literal["sgd", "adam", "adamw", "muon"]
Schedule = Literal["constant", "step", "one_cycle"]
Precision = Literal["auto", "native", "fp32", "bf16", "fp16"]
TeacherPrecision = Literal["auto", "fp32", "bf16", "fp16"]
UNDECIDED = ("auto", "native")
"""Precisions that a run decides when it begins; its config.json then has the one that it took."""
Compile = Literal["auto", "on", "off"]
CacheDtype = Literal["fp16", "fp32"]
TeacherAnswers = Literal["logits", "probabilities", "sigmoid"]
TeacherTta = Literal["none", "flip"]
TeacherView = Literal["same", "plain"]
Resident = Literal["auto", "on", "off"]

_MAX_SIDE = 16_384  # pixels


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """What is trained on: ``validation`` training images are held out for tuning; 0 trains on all of them."""

    name: str = "cifar10"
    """A registered data set, folder:PATH, a folder of class folders, or hf:NAME, of the Hugging Face hub."""
    data_dir: PathText | None = None
    image_size: int = 0
    """Of folder:PATH and hf:NAME: the side to which images are scaled and cropped; 0 takes them as they are."""
    unlabelled: str = ""
    """folder:PATH of images without classes that are trained on in the place of the data set's training images."""
    resident: Resident = "auto"
    """Whether decoded images are held in memory; "auto" where they take a quarter of what is free at most."""
    workers: int | None = None
    """Processes that decode images which are not held in memory; None: one fewer than processors, 8 at most."""
    augmentation: Augmentation = "none"
    shift: int = 4
    """Largest shift in pixels, each way, of ``flip_shift``."""
    cutout: int = 0
    """Side in pixels of a hole in each augmented image; 0: none."""
    mixup: float = 0.0
    """Each image is blended with another, with a share from Beta(mixup, mixup); 0: none."""
    cutmix: float = 0.0
    """A box of another image is pasted into each, what is left with a share from Beta(cutmix, cutmix); 0: none."""
    views: int = 0
    """Epoch e shows view e mod ``views``; 0 shows a fresh view each epoch."""
    view_seed: int = 0
    validation: int = 0

    def check(self) -> None:
        """Checks the values."""
        if self.data_dir is not None:
            user_path(self.data_dir)
        _at_least("image_size", self.image_size, 0)
        if self.workers is not None:
            _between("workers", self.workers, 0, 1024)
        _at_least("shift", self.shift, 0)
        _at_least("cutout", self.cutout, 0)
        if self.cutout and self.augmentation == "none":
            raise UsageError(f"cutout {self.cutout} needs augmentation flip or flip_shift, got none")
        for name in ("mixup", "cutmix"):
            _between(name, getattr(self, name), 0, 100)
        _at_least("views", self.views, 0)
        _between("view_seed", self.view_seed, 0, 2**63 - 1)
        _at_least("validation", self.validation, 0)

    @property
    def mixes(self) -> bool:
        """Whether an image is shown with another in it."""
        return bool(self.mixup or self.cutmix)

    @property
    def has_views(self) -> bool:
        """Whether one view shows an image otherwise than another."""
        return self.augmentation != "none" or self.mixes


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """A network: a registered name, a library's or a builder's, a shipped one or a weights file; and its options."""

    name: PathText
    options: dict[str, Any] = field(default_factory=dict)
    """Of its builder."""
    weights: PathText | None = None
    """A file with weights for a network that is built anew."""
    mean: list[float] | None = None
    """Per channel, 1 = white, in the place of what the network declares, or of the data set's; as ``std``."""
    std: list[float] | None = None
    size: list[int] | None = None
    """(height, width) to which images are scaled for it."""

    def check(self) -> None:
        """Checks the values."""
        if self.size is not None and (len(self.size) != 2 or not all(1 <= side <= _MAX_SIDE for side in self.size)):
            raise UsageError(
                f"size of {self.name} must be (height, width), each from 1 to {_MAX_SIDE} pixels, got {self.size}"
            )
        if (self.mean is None) != (self.std is None):
            raise UsageError(f"mean and std of {self.name} go together; got {self.mean} and {self.std}")


@dataclass(frozen=True, kw_only=True)
class MethodConfig(Config):
    """How the student learns from the teacher. ``weights`` override the method's default weight of a term."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    pairs: dict[str, str] = field(default_factory=dict)
    """Layers that are compared, student's → teacher's, for methods that need features; empty: chosen by stage."""
    first_stage_epochs: int = 1
    """Epochs of the stage before training, in which a method that has one trains its own part on the teacher alone."""
    label_weight: float | None = None
    """Weight of the cross-entropy with the labels; None takes the method's default."""
    warmup: float | None = None
    """Share of the steps in which the weights of the method's terms rise from 0, linearly; None: the method's own."""

    def check(self) -> None:
        """Checks the values."""
        object.__setattr__(self, "name", self.name.replace("+", ","))  # of one thing, one spelling
        for term, weight in self.weights.items():
            _at_least(f"weights.{term}", weight, 0)
        _at_least("first_stage_epochs", self.first_stage_epochs, 1)
        if self.label_weight is not None:
            _at_least("label_weight", self.label_weight, 0)
        if self.warmup is not None:
            _between("warmup of the method", self.warmup, 0, 1)


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Config):
    """The optimiser and its schedule, which is a function of the share of training that is done."""

    optimizer: Optimizer = "adam"
    lr: float = 1e-3
    """The schedule's largest rate."""
    weight_decay: float = 0.0
    """Decoupled for adamw and muon; on weights of two or more dimensions only, never on biases and norms."""
    momentum: float = 0.9
    """Of sgd and muon, with Nesterov's correction."""
    bias_lr_scale: float = 1.0
    """Multiplies the rate of biases of normalisation layers."""
    schedule: Schedule = "constant"
    step_at: float = 0.8
    """``step``: the share of the epochs after which the rate falls, at int(step_at · epochs)."""
    step_factor: float = 0.1
    warmup: float = 0.25
    """``one_cycle``: the share of the steps in which the rate rises, linearly; then it falls linearly to zero."""

    def check(self) -> None:
        """Checks the values."""
        _above("lr", self.lr, 0)
        _at_least("weight_decay", self.weight_decay, 0)
        _between("momentum", self.momentum, 0, 1)
        _above("bias_lr_scale", self.bias_lr_scale, 0)
        _between("step_at", self.step_at, 0, 1)
        _above("step_factor", self.step_factor, 0)
        _between("warmup", self.warmup, 0, 1)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """One run, whole: the same config gives the same weights on the same machine."""

    student: ModelConfig
    teacher: ModelConfig | None = None
    method: MethodConfig | None = None
    peers: ModelConfig | None = None
    """Networks that learn beside the student, each from the others, with commas between several names."""
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    epochs: int = 30
    batch_size: int = 256
    seed: int = 0
    label_smoothing: float = 0.0
    ema: float = 0.0
    """Decay per step of the average of the weights that is evaluated and saved; 0 keeps the weights themselves."""
    precision: Precision = "auto"
    """``auto``: the one in which a few steps of this network are fastest here. ``native``: bf16 where the processor
    computes in it, else fp32. A run's config.json has the one that was taken."""
    teacher_precision: TeacherPrecision = "auto"
    """Of the teacher's answers. ``auto``: ``precision`` where that is named, else the native one, so that stored
    answers serve every student."""
    compile: Compile = "auto"
    """Whether the student's training step is compiled; "auto" where that has been seen to pay."""
    device: str = "auto"
    evaluate_every: int = 0
    """Epochs between records of the accuracy for the curve; 0 evaluates the last epoch only."""
    checkpoint_every: int = 1
    """Epochs between saves of the resumable state."""
    keep_every: int = 0
    """Epochs between weights files that are kept, student-N.safetensors; 0 keeps the last only."""
    teacher_cache: PathText = "auto"
    """Where a teacher's answers are stored, each computed once: "auto" in the user's cache, "off" nowhere, a folder."""
    teacher_cache_dtype: CacheDtype = "fp16"
    allow_weak_teacher: bool = False
    """Whether to go on with a teacher that is seen to answer at random, in another order of classes, or far worse than
    its file states."""
    teacher_answers: TeacherAnswers = "logits"
    """What the teacher answers with: logits; ``probabilities`` of a softmax, of which the logarithm is taken; or
    ``sigmoid``, numbers between 0 and 1, of which the inverse of the sigmoid is taken."""
    teacher_tta: TeacherTta = "none"
    """``flip``: the teacher's answer is the mean of those to the image and to its mirror image."""
    teacher_view: TeacherView = "same"
    """``same``: the teacher answers the view that the student is shown. ``plain``: the image as it is, once for all
    views; a short run pays for one view and shows many."""
    tensorboard: bool = False
    wandb: str = ""
    """A project on Weights & Biases, where the curves go as well; empty: none."""

    def check(self) -> None:
        """Checks the values."""
        user_path(self.teacher_cache)
        _at_least("epochs", self.epochs, 1)
        _at_least("batch_size", self.batch_size, 1)
        _between("seed", self.seed, 0, 2**63 - 1)
        _between("label_smoothing", self.label_smoothing, 0, 1)
        _at_least("ema", self.ema, 0)
        if self.ema >= 1:
            raise UsageError(f"ema must be below 1, got {self.ema}; 0.999 averages about 1,000 steps, 0 none")
        if self.teacher_view == "plain" and (self.data.mixes or not self.data.has_views):
            reason = "a mixed image has no answer to the plain one" if self.data.mixes else "all images are plain"
            raise UsageError(f"teacher_view plain needs --augmentation without mixup and cutmix: {reason}")
        _at_least("evaluate_every", self.evaluate_every, 0)
        _at_least("checkpoint_every", self.checkpoint_every, 1)
        _at_least("keep_every", self.keep_every, 0)
        if self.teacher is not None and self.method is None:
            raise UsageError("a teacher needs a method: give both, or neither to train on labels")
        if self.peers is not None and (self.method is None or self.teacher is not None):
            raise UsageError("peers teach each other: they need a method, and no teacher beside them")


def with_settings(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """``config`` with values by name, as ``batch_size=64, lr=1e-3, augmentation="flip"``, wherever they belong.

    Names are those of the fields of `TrainConfig`, `DataConfig` and `OptimConfig` that are no configurations
    themselves. Raises UsageError for others, with near matches.
    """
    places = {field.name: "" for field in dataclasses.fields(TrainConfig)} | {
        field.name: part for part in ("data", "optim") for field in dataclasses.fields(type(getattr(config, part)))
    }
    for name in ("student", "teacher", "method", "peers", "data", "optim", "name"):
        del places[name]
    for name, value in settings.items():
        if name not in places:
            raise unknown_name("setting", name, list(places))
        part = places[name]
        config = (
            dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **{name: value})})
            if part
            else dataclasses.replace(config, **{name: value})
        )
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values of a config, nested."""
    return dataclasses.asdict(config)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under names with dots, as "optim.lr"; what is None is left out."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def is_given(recipe: Mapping[str, Any]) -> bool:
    """Whether of a flat configuration data or a network were given as objects: no command repeats such a run."""
    return any(str(recipe.get(key, "")).startswith(GIVEN) for key in ("data.name", "teacher.name", "student.name"))


def given_values(config: Any) -> dict[str, Any]:
    """Plain values of a config, nested, without the defaults: an option that is added later changes nothing."""
    values = {}
    for entry in dataclasses.fields(config):
        value, factory = getattr(config, entry.name), entry.default_factory
        default = entry.default if factory is dataclasses.MISSING else factory()
        if value != default:
            values[entry.name] = given_values(value) if dataclasses.is_dataclass(value) else value
    return values


def located(value: V, folder: Path) -> V:
    """``value``, a configuration or plain values, of a file in ``folder``, with names after `HERE` as whole paths."""
    if isinstance(value, str) and value.startswith(HERE):
        return typing.cast(V, str((folder / value.removeprefix(HERE)).resolve()))
    if isinstance(value, Mapping):
        return typing.cast(V, {key: located(entry, folder) for key, entry in value.items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        changed = {name: found for name, own in fields.items() if (found := located(own, folder)) != own}
        return typing.cast(V, dataclasses.replace(value, **changed)) if changed else value
    return value


def to_json(config: Any) -> str:
    """JSON text of a config; `from_json` gives an equal one back."""
    return json.dumps(to_dict(config), indent=2, sort_keys=True) + "\n"


def from_json(kind: type[C], text: str, source: str = "config") -> C:
    """The config of ``kind`` in the text of the file ``source``.

    Names of code in it are followed only where `trust` finds the file to be the user's. Raises UsageError for bad JSON,
    unknown keys and impossible values.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also of an integer of thousands of digits
        raise UsageError(f"{source} is not JSON: {error}") from None
    trust.read(values, source, text.encode(errors="surrogatepass"))
    return from_dict(kind, values, source)


def check_side(name: str, side: int) -> None:
    """Raises UsageError unless ``side`` is that of an image, in pixels."""
    _between(name, side, 1, _MAX_SIDE)


def _at_least(name: str, value: float, bound: float) -> None:
    if not bound <= value:
        raise UsageError(f"{name} must be a finite number of at least {bound}, got {value}")


def _above(name: str, value: float, bound: float) -> None:
    if not bound < value:
        raise UsageError(f"{name} must be a finite number above {bound}, got {value}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} must lie between {low} and {high}, got {value}")
