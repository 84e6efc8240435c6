"""Configurations: frozen, keyword-only dataclasses with an exact JSON round trip. Knows nothing of torch."""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from model_compression.core import trust
from model_compression.core.config_values import Config, PathText, options_of
from model_compression.core.config_values import from_dict as from_dict  # which other modules import from here
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.core.options import Option, answer_settings, option, option_of, setting
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
_LARGEST_SEED = 2**63 - 1
_DRAWN: dict[str, tuple[str, ...]] = {"augmentation": (), "mixup": (), "cutmix": ()}  # where views differ


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """What is trained on."""

    name: str = option(
        "cifar10",
        help="cifar10, cifar100, folder:PATH, hf:NAME, or synthetic for a quick trial",
        answers=False,
        flag="data",
    )
    data_dir: PathText | None = option(
        None, help="folder of the dataset, which is stored there if it is missing", affects="place", metavar="DIR"
    )
    image_size: int = option(
        0, help="side to scale images of folder:PATH and hf:NAME to; 0: none", minimum=0, answers=False
    )
    unlabelled: str = option("", help="folder:PATH of images without labels to train on instead", answers=False)
    resident: Resident = option(
        "auto", help="hold decoded images in memory: auto (if they fit), on or off", affects="speed"
    )
    workers: int | None = option(
        None,
        help="processes that decode images not held in memory (default: one fewer than processors)",
        affects="speed",
        minimum=0,
        maximum=1024,
        needs={"resident": ("auto", "off")},
    )
    augmentation: Augmentation = option("none", help="random changes of each image: none, flip or flip_shift")
    shift: int = option(
        4, help="largest shift of flip_shift, in pixels", minimum=0, needs={"augmentation": ("flip_shift",)}
    )
    cutout: int = option(
        0,
        help="side of a hole in each augmented image, in pixels; 0: none",
        minimum=0,
        needs={"augmentation": ("flip", "flip_shift")},
    )
    mixup: float = option(
        0.0, help="blend each image with another, share from Beta(X, X), as 0.2; 0: none", minimum=0, maximum=100
    )
    cutmix: float = option(
        0.0, help="paste a box of another image, share from Beta(X, X), as 1; 0: none", minimum=0, maximum=100
    )
    views: int = option(
        0, help="augmented views shown in turn; 0: a fresh one each epoch", minimum=0, needs=_DRAWN, answers=False
    )
    view_seed: int = option(0, help="seed of the augmentation", minimum=0, maximum=_LARGEST_SEED, needs=_DRAWN)
    validation: int = option(
        0,
        help="training images to hold out for tuning, as 5000; the test set stays untouched",
        minimum=0,
        answers=False,
    )

    def check(self) -> None:
        """Checks what goes together."""
        if self.data_dir is not None:
            user_path(self.data_dir)
        if self.cutout and self.augmentation == "none":
            raise UsageError(f"cutout {self.cutout} needs augmentation flip or flip_shift, got none")

    @property
    def mixes(self) -> bool:
        """Whether an image is shown with another in it."""
        return bool(self.mixup or self.cutmix)

    @property
    def has_views(self) -> bool:
        """Whether one view shows an image otherwise than another."""
        return self.augmentation != "none" or self.mixes

    @property
    def drawing(self) -> dict[str, Any]:
        """All that a view of a given image depends on."""
        return {"augmentation": self.augmentation} | answer_settings(self)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """A network: a registered name, a library's or a builder's, a shipped one or a weights file; and its options."""

    name: PathText
    options: dict[str, Any] = option(
        default_factory=dict, help="of {whose} builder, as pretrained=true", flag="option", metavar="KEY=VALUE"
    )
    weights: PathText | None = option(
        None, help="{whose} weights, .pt or .safetensors; FILE#KEY: those under a key", metavar="FILE"
    )
    mean: list[float] | None = option(
        None, help="mean of {whose} pixels, 1 = white (default: its own, or the data's)", metavar="A,B,C"
    )
    std: list[float] | None = option(
        None, help="std of {whose} pixels, 1 = white (default: its own, or the data's)", metavar="A,B,C"
    )
    size: list[int] | None = option(
        None, help="height and width to scale {whose} images to (default: its own)", metavar="H,W"
    )

    def check(self) -> None:
        """Checks what goes together."""
        if self.size is not None and (len(self.size) != 2 or not all(1 <= side <= _MAX_SIDE for side in self.size)):
            raise UsageError(
                f"size of {self.name} must be (height, width), each from 1 to {_MAX_SIDE} pixels, got {self.size}"
            )
        if (self.mean is None) != (self.std is None):
            raise UsageError(f"mean and std of {self.name} go together; got {self.mean} and {self.std}")


@dataclass(frozen=True, kw_only=True)
class MethodConfig(Config):
    """How the student learns from the teacher. ``weights`` override the method's default weight of a term."""

    name: str = option(help="the distillation method; a+b adds two")
    params: dict[str, Any] = option(default_factory=dict, help="of the method, as temperature=2")
    weights: dict[str, float] = option(default_factory=dict, help="weight of a term of the method")
    pairs: dict[str, str] = option(
        default_factory=dict, help="layers to compare, student's = teacher's (default: by stage)"
    )
    first_stage_epochs: int = option(
        1, help="epochs before training, in which ft trains on the teacher's features", minimum=1
    )
    label_weight: float | None = option(
        None, help="weight of the label loss (default: the method's)", minimum=0, metavar="W"
    )
    warmup: float | None = option(
        None,
        help="share of the steps in which the method's weights rise (default: the method's)",
        minimum=0,
        maximum=1,
        flag="method-warmup",
    )

    def check(self) -> None:
        """Checks the weights of terms."""
        object.__setattr__(self, "name", self.name.replace("+", ","))  # of one thing, one spelling
        for term, weight in self.weights.items():
            Option(minimum=0).check(f"weights.{term}", weight)


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Config):
    """The optimiser and its schedule, which is a function of the share of training that is done."""

    optimizer: Optimizer = option("adam", help="optimiser: sgd, adam, adamw or muon")
    lr: float = option(1e-3, help="largest learning rate of the schedule", above=0)
    weight_decay: float = option(
        0.0, help="weight decay, never on biases and norms; decoupled for adamw, muon", minimum=0
    )
    momentum: float = option(
        0.9,
        help="momentum of sgd and muon, with Nesterov's correction",
        minimum=0,
        maximum=1,
        needs={"optimizer": ("sgd", "muon")},
    )
    bias_lr_scale: float = option(1.0, help="factor of the rate for biases of normalisation layers", above=0)
    schedule: Schedule = option("constant", help="schedule of the learning rate: constant, step or one_cycle")
    step_at: float = option(
        0.8,
        help="share of the epochs after which the step schedule lowers the rate",
        minimum=0,
        maximum=1,
        needs={"schedule": ("step",)},
    )
    step_factor: float = option(
        0.1, help="factor by which the step schedule lowers the rate", above=0, needs={"schedule": ("step",)}
    )
    warmup: float = option(
        0.25,
        help="share of the steps in which the one_cycle rate rises",
        minimum=0,
        maximum=1,
        needs={"schedule": ("one_cycle",)},
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """One run, whole: the same config gives the same weights on the same machine."""

    student: ModelConfig
    teacher: ModelConfig | None = option(None, of="teacher", answers=False)
    method: MethodConfig | None = option(None, of="method")
    peers: ModelConfig | None = None
    """Networks that learn beside the student, each from the others, with commas between several names."""
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    epochs: int = option(30, help="passes over the training images", minimum=1)
    batch_size: int = option(256, help="images per step", minimum=1)
    seed: int = option(
        0, help="seed of the initial weights and of the order of images", minimum=0, maximum=_LARGEST_SEED
    )
    label_smoothing: float = option(
        0.0, help="label smoothing, 0 to 1; harmful in a teacher", minimum=0, maximum=1, of="method"
    )
    ema: float = option(
        0.0,
        help="decay per step of the averaged weights that are saved; 0: none",
        minimum=0,
        below=1,
        remedy="0.999 averages about 1,000 steps, 0 none",
    )
    precision: Precision = option("auto", help="number format: auto (measured), native, fp32, bf16 or fp16")
    teacher_precision: TeacherPrecision = option(
        "auto",
        help="precision of the teacher's answers: auto, fp32, bf16 or fp16",
        of="teacher",
        answers=False,
    )
    compile: Compile = option("auto", help="compile the student's step: auto (if it pays), on or off", affects="speed")
    device: str = option("auto", help="device to compute on: auto, cpu, cuda or mps", affects="speed")
    evaluate_every: int = option(
        0, help="epochs between points of the accuracy curve; 0: last only", affects="place", minimum=0
    )
    checkpoint_every: int = option(1, help="epochs between saves of the state to resume", affects="place", minimum=1)
    keep_every: int = option(
        0, help="epochs between weights files that are kept; 0: last only", affects="place", minimum=0
    )
    teacher_cache: PathText = option(
        "auto",
        help="where to store the answers: auto (user's cache), off, or a folder",
        affects="place",
        of="teacher",
        metavar="WHERE",
    )
    teacher_cache_dtype: CacheDtype = option(
        "fp16", help="number format of stored answers: fp16 or fp32", of="teacher", answers=False
    )
    allow_weak_teacher: bool = option(
        False, help="accept a teacher that seems to answer at random", affects="consent", of="teacher"
    )
    teacher_answers: TeacherAnswers = option(
        "logits", help="what the teacher answers with: logits, probabilities or sigmoid", of="teacher", answers=False
    )
    teacher_tta: TeacherTta = option(
        "none", help="none, or flip: average the answers to image and mirror image", of="teacher", answers=False
    )
    teacher_view: TeacherView = option(
        "same",
        help="same: the teacher sees the student's view; plain: the unaugmented image",
        of="teacher",
        answers=False,
    )
    tensorboard: bool = option(False, help="write TensorBoard logs (extra: tensorboard)", affects="place")
    wandb: str = option("", help="project on Weights & Biases for the curves (extra: wandb)", affects="place")

    def check(self) -> None:
        """Checks what goes together."""
        user_path(self.teacher_cache)
        if self.teacher_view == "plain" and (self.data.mixes or not self.data.has_views):
            reason = "a mixed image has no answer to the plain one" if self.data.mixes else "all images are plain"
            raise UsageError(f"teacher_view plain needs {setting('augmentation')} without mixup and cutmix: {reason}")
        if self.teacher is not None and self.method is None:
            raise UsageError("a teacher needs a method: give both, or neither to train on labels")
        if self.peers is not None and (self.method is None or self.teacher is not None):
            raise UsageError("peers teach each other: they need a method, and no teacher beside them")


OPTIONS = options_of(TrainConfig)
"""What is said of each option of a run, by its place, as "optim.lr"."""


def result_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """All that a result depends on, by place, of plain values, with the defaults of what they do not have."""
    defaults = to_dict(TrainConfig(student=ModelConfig(name="")))
    for part, kind in (("teacher", ModelConfig), ("method", MethodConfig), ("peers", ModelConfig)):
        if values.get(part):
            defaults[part] = to_dict(kind(name=""))
    found = {**flat(defaults), **flat(values)}
    return {place: value for place, value in found.items() if OPTIONS.get(place, Option()).affects == "result"}


def options_for(*parts: str) -> set[str]:
    """The fields of a run that are of ``parts``, "teacher" or "method", themselves included."""
    return {entry.name for entry in dataclasses.fields(TrainConfig) if option_of(entry).of in parts}


def with_values(config: C, values: Mapping[str, Any]) -> C:
    """``config`` with ``values`` by place, as "optim.lr", all of them at once."""
    changed = {place: value for place, value in values.items() if "." not in place}
    for part in dict.fromkeys(place.partition(".")[0] for place in values if "." in place):
        own = {place.partition(".")[2]: value for place, value in values.items() if place.startswith(f"{part}.")}
        changed[part] = with_values(getattr(config, part), own)
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]


def with_settings(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """``config`` with values by name, as ``batch_size=64, lr=1e-3, augmentation="flip"``, wherever they belong.

    Names are those of the fields of `TrainConfig`, `DataConfig` and `OptimConfig` that are no configurations
    themselves. Raises UsageError for others, with near matches.
    """
    places = {
        place.rpartition(".")[2]: place
        for place in OPTIONS
        if "." not in place or (place.startswith(("data.", "optim.")) and place != "data.name")
    }
    for name in settings:
        if name not in places:
            raise unknown_name("setting", name, list(places))
    return with_values(config, {places[name]: value for name, value in settings.items()})


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


def config_digest(config: Any) -> str:
    """SHA-256 of its `given_values`."""
    return hashlib.sha256(json.dumps(given_values(config), sort_keys=True).encode()).hexdigest()


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
    Option(minimum=1, maximum=_MAX_SIDE).check(name, side)
