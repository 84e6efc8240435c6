"""Configurations: frozen, keyword-only dataclasses with an exact JSON round trip. Knows nothing of torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from model_compression.core.config_values import Config, PathText
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.core.options import Option, answer_settings, option, setting

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
_SHARE: dict[str, Any] = {"minimum": 0, "maximum": 1}
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
        0, help="side of a hole in each augmented image, in pixels; 0: none", minimum=0, needs={"augmentation": ()}
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
        0, help="training images to hold out for tuning; the test set stays untouched", minimum=0, answers=False
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

    name: str
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
        flag="method-warmup",
        **_SHARE,
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
        0.9, help="momentum of sgd and muon, with Nesterov's correction", needs={"optimizer": ("sgd", "muon")}, **_SHARE
    )
    bias_lr_scale: float = option(1.0, help="factor of the rate for biases of normalisation layers", above=0)
    schedule: Schedule = option("constant", help="schedule of the learning rate: constant, step or one_cycle")
    step_at: float = option(
        0.8,
        help="share of the epochs after which the step schedule lowers the rate",
        needs={"schedule": ("step",)},
        **_SHARE,
    )
    step_factor: float = option(
        0.1, help="factor by which the step schedule lowers the rate", above=0, needs={"schedule": ("step",)}
    )
    warmup: float = option(
        0.25, help="share of the steps in which the one_cycle rate rises", needs={"schedule": ("one_cycle",)}, **_SHARE
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
    label_smoothing: float = option(0.0, help="label smoothing, 0 to 1; harmful in a teacher", **_SHARE, of="method")
    ema: float = option(
        0.0,
        help="decay per step of the averaged weights that are saved; 0: none",
        minimum=0,
        below=1,
        remedy="0.999 averages about 1,000 steps, 0 none",
    )
    precision: Precision = option("auto", help="number format: auto (measured), native, fp32, bf16 or fp16")
    teacher_precision: TeacherPrecision = option(
        "auto", help="precision of the teacher's answers: auto, fp32, bf16 or fp16", of="teacher", answers=False
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
        help="store the answers in: auto (user's cache), off, or a folder",
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


def check_side(name: str, side: int) -> None:
    """Raises UsageError unless ``side`` is that of an image, in pixels."""
    Option(minimum=1, maximum=_MAX_SIDE).check(name, side)
