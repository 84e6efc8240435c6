"""Configurations: frozen, keyword-only dataclasses with an exact JSON round trip. Knows nothing of torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from model_compression.core.config_values import Config, PathText
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.core.optim_config import OptimConfig
from model_compression.core.options import LARGEST_SEED, SHARE, Option, option, setting

Precision = Literal["auto", "native", "fp32", "bf16", "fp16"]
TeacherPrecision = Literal["auto", "fp32", "bf16", "fp16"]
UNDECIDED = ("auto", "native")
"""Precisions that a run decides when it begins; its config.json then has the one that it took."""
Compile = Literal["auto", "on", "off"]
CacheDtype = Literal["fp16", "fp32"]
TeacherAnswers = Literal["logits", "probabilities", "sigmoid"]
TeacherTta = Literal["none", "flip"]
TeacherView = Literal["same", "plain"]

_MAX_SIDE = 16_384  # pixels


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

    layers: list[int] | None = option(
        None, help="blocks of {whose} transformer to keep, counted from 0 (default: all)", metavar="A,B,C"
    )
    classes: PathText | None = option(
        None, help="which of {whose} classes are the data's: names (by name) or a JSON file", metavar="WHERE"
    )

    def check(self) -> None:
        """Checks what goes together."""
        if self.size is not None and (len(self.size) != 2 or not all(1 <= side <= _MAX_SIDE for side in self.size)):
            raise UsageError(
                f"size of {self.name} must be (height, width), each from 1 to {_MAX_SIDE} pixels, got {self.size}"
            )
        if (self.mean is None) != (self.std is None):
            raise UsageError(f"mean and std of {self.name} go together; got {self.mean} and {self.std}")
        if self.mean == []:
            raise UsageError(f"mean and std of {self.name} must have a number for each channel; got none")


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
        None,
        help="weight of the label loss (default: the method's)",
        minimum=0,
        metavar="W",
        search=(0.0, 1.0),
    )
    warmup: float | None = option(
        None,
        help="share of the steps in which the method's weights rise (default: the method's)",
        flag="method-warmup",
        **SHARE,
    )

    def check(self) -> None:
        """Checks the weights of terms."""
        object.__setattr__(self, "name", self.name.replace("+", ","))  # of one thing, one spelling
        for term, weight in self.weights.items():
            Option(minimum=0).check(f"weights.{term}", weight)


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
    accumulate: int = option(
        1, help="parts of a batch that go through the networks in turn, to save memory", minimum=1, metavar="N"
    )
    checkpoint_activations: bool = option(
        False, help="compute activations of the student again for gradients, to save memory", affects="speed"
    )
    sync_batchnorm: bool = option(
        False, help="of several processes: BatchNorm takes mean and variance of the global batch"
    )
    epochs: int = option(30, help="passes over the training images; 0: only evaluate", minimum=0)
    patience: int = option(
        0, help="epochs without a better result on held-out images after which training ends; 0: all", minimum=0
    )
    batch_size: int = option(256, help="images per step", minimum=1, search=(16, 512, "log"))
    seed: int = option(
        0, help="seed of the initial weights and of the order of images", minimum=0, maximum=LARGEST_SEED
    )
    label_smoothing: float = option(
        0.0, help="label smoothing, 0 to 1; harmful in a teacher", **SHARE, of="method", search=(0.0, 0.3)
    )
    huber: float = option(
        0.0, help="width of regression's Huber loss, in deviations of the targets; 0: squared error", minimum=0
    )
    class_weights: PathText = option(
        "none", help="weights of classes in the label loss: none, balanced or a JSON file", metavar="WEIGHTS"
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
        "auto", help="precision of the teacher's answers: auto, fp32, bf16 or fp16", of="teacher", answers=False
    )
    compile: Compile = option("auto", help="compile the student's step: auto (if it pays), on or off", affects="speed")
    device: str = option("auto", help="device to compute on: auto, cpu, cuda or mps", affects="speed")
    evaluate_every: int = option(
        0, help="epochs between evaluations, which draw the curve; 0: last only", affects="place", minimum=0
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
    teacher_cache_topk: int = option(
        0, help="logits to store of an answer, the largest; 0: all", minimum=0, of="teacher", metavar="K"
    )
    shard_teacher: bool = option(
        False, help="of several processes: each keeps a part of the teacher's weights", affects="speed", of="teacher"
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
    left_open: list[str] = option(default_factory=list, affects="place")
    """Places of options, as "optim.lr", that a run chooses when it begins; its config.json then has the values."""
    tensorboard: bool = option(False, help="write TensorBoard logs (extra: tensorboard)", affects="place")
    wandb: str = option("", help="project on Weights & Biases for the curves (extra: wandb)", affects="place")

    def check(self) -> None:
        """Checks what goes together."""
        user_path(self.teacher_cache)
        if self.teacher_view == "plain" and (self.data.mixes or not self.data.has_views):
            reason = "a mixed image has no answer to the plain one" if self.data.mixes else "all images are plain"
            raise UsageError(f"teacher_view plain needs {setting('augmentation')} without mixup and cutmix: {reason}")
        if self.patience and not self.data.validation:
            raise UsageError(
                f"{setting('patience', self.patience)} needs training images that are held out, as "
                f"{setting('validation', 1000)}: test images choose nothing"
            )
        if self.optim.freeze_epochs and self.peers is not None:
            raise UsageError("freeze_epochs has no effect on peers, which learn from the first step: leave it out")
        if self.teacher is not None and self.method is None:
            raise UsageError("a teacher needs a method: give both, or neither to train on labels")
        if self.peers is not None and (self.method is None or self.teacher is not None):
            raise UsageError("peers teach each other: they need a method, and no teacher beside them")


def usual_methods(task: str) -> list[str]:
    """The methods that are compared for ``task`` where none is named."""
    own = {"embedding": "align,lightly", "regression": "logits,bound", "multi-label": "kd,logits"}
    return own.get(task, "kd,dkd,logit_std").split(",")


def default_method(task: str) -> str:
    """The method that a run for ``task`` takes where none is named: the first of the `usual_methods`."""
    return usual_methods(task)[0]


def check_side(name: str, side: int) -> None:
    """Raises UsageError unless ``side`` is that of an image, in pixels."""
    Option(minimum=1, maximum=_MAX_SIDE).check(name, side)
