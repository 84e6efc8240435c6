"""Configurations: frozen, keyword-only dataclasses with an exact JSON round trip. Knows nothing of torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from model_compression.core.config_values import Config, PathText
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.core.fitting import SMALLEST_SHARE, WHOLE, Fit, Fitting, Interpolation
from model_compression.core.optim_config import OptimConfig
from model_compression.core.options import Option, answer_settings, option, setting
from model_compression.core.table_config import TableConfig

Augmentation = Literal["none", "flip", "shift", "flip_shift", "photo", "randaugment", "trivialaugment"]
CROPPING = ("photo", "randaugment", "trivialaugment")
"""Augmentations that cut a random part out of the original image, of a file before it is scaled."""
Precision = Literal["auto", "native", "fp32", "bf16", "fp16"]
TeacherPrecision = Literal["auto", "fp32", "bf16", "fp16"]
UNDECIDED = ("auto", "native")
"""Precisions that a run decides when it begins; its config.json then has the one that it took."""
Compile = Literal["auto", "on", "off"]
CacheDtype = Literal["fp16", "fp32"]
TeacherAnswers = Literal["logits", "probabilities", "sigmoid"]
TeacherTta = Literal["none", "flip"]
TeacherView = Literal["same", "plain"]
Sampling = Literal["uniform", "balanced"]
Resident = Literal["auto", "on", "off"]

_MAX_SIDE = 16_384  # pixels
_LARGEST_SEED = 2**63 - 1
_SHARE: dict[str, Any] = {"minimum": 0, "maximum": 1}
_PHOTO, _CROPPED = {"augmentation": ("photo",)}, {"augmentation": CROPPING}
# Where views differ.
_DRAWN: dict[str, tuple[str, ...]] = {"augmentation": (), "mixup": (), "cutmix": (), "mask_tokens": ()}


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """What is trained on."""

    name: str = option(
        "cifar10",
        help="cifar10, cifar100, synthetic, folder:PATH, csv:FILE, tar:PATH or hf:NAME",
        answers=False,
        flag="data",
    )
    data_dir: PathText | None = option(
        None, help="folder of the dataset, which is stored there if it is missing", affects="place", metavar="DIR"
    )
    image_size: int = option(0, help="side to scale images of files to; 0: none", minimum=0, answers=False)
    task: str = option(
        "",
        help="embedding, or what labels are: multi-label, regression (default: by the data)",
        answers=False,
        metavar="TASK",
    )
    table: TableConfig = option(default_factory=TableConfig, answers=False)
    mask_folders: str = option(
        "images,masks", help="of folder:, names of the folders of images and of masks", metavar="A,B", answers=False
    )
    ignore_index: int = option(
        255, help="number in masks of pixels that do not count; -1: none", minimum=-1, maximum=65_535, answers=False
    )
    fit: Fit | None = option(
        None, help="how photographs become square: crop, pad or squash (default: the weights', or crop)"
    )
    crop_share: float | None = option(
        None,
        help="share of the shorter side to keep, as 0.875 (default: the weights', or 1)",
        minimum=SMALLEST_SHARE,
        maximum=1,
        search=(0.75, 1.0),
    )
    interpolation: Interpolation | None = option(
        None, help="filter that scales images, as bilinear (default: the weights', or bicubic)"
    )
    unlabelled: str = option(
        "", help="samples to train on instead, without labels: folder:PATH, csv:FILE, …", answers=False
    )
    sampling: Sampling = option(
        "uniform", help="uniform: each sample once an epoch; balanced: each class equally often", answers=False
    )
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
    augmentation: Augmentation = option(
        "none",
        help="none, flip, shift, flip_shift, photo, randaugment or trivialaugment: random changes of each image",
    )
    shift: int = option(
        4,
        help="largest shift of shift and flip_shift, in pixels",
        minimum=0,
        needs={"augmentation": ("shift", "flip_shift")},
        search=(1, 8),
    )
    cutout: int = option(
        0, help="side of a hole in each augmented image, in pixels; 0: none", minimum=0, needs={"augmentation": ()}
    )
    erasing: float = option(0.0, help="probability of erasing a random box of an augmented image", **_SHARE)
    crop_area: float = option(
        0.35,
        help="smallest share of an image that a random crop shows",
        above=0,
        maximum=1,
        needs=_CROPPED,
        search=(0.08, 1.0),
    )
    crop_ratio: float = option(
        1.33,
        help="largest width / height of random crops; the smallest is 1 / X",
        minimum=1,
        maximum=10,
        needs=_CROPPED,
    )
    color_jitter: float = option(
        0.4, help="photo: largest relative change of brightness, contrast, saturation", needs=_PHOTO, **_SHARE
    )
    hue: float = option(0.0, help="photo: largest turn of the hue, in turns", minimum=0, maximum=0.5, needs=_PHOTO)
    grey: float = option(0.0, help="photo: probability of an image without colour", needs=_PHOTO, **_SHARE)
    randaugment_ops: int = option(
        2,
        help="operations of randaugment on each image",
        minimum=1,
        maximum=8,
        needs={"augmentation": ("randaugment",)},
    )
    randaugment_magnitude: int = option(
        9,
        help="strength of the operations of randaugment, 0 to 30",
        minimum=0,
        maximum=30,
        needs={"augmentation": ("randaugment",)},
        search=(3, 15),
    )
    mixup: float = option(
        0.0,
        help="blend each image with another, share from Beta(X, X), as 0.2; 0: none",
        minimum=0,
        maximum=100,
        search=(0.0, 1.0),
    )
    cutmix: float = option(
        0.0,
        help="paste a box of another image, share from Beta(X, X), as 1; 0: none",
        minimum=0,
        maximum=100,
        search=(0.0, 1.0),
    )
    tokenizer: PathText = option(
        "", help="tokenizer of texts: folder, file or hub name (default: the network's)", answers=False, metavar="WHERE"
    )
    max_length: int = option(
        128, help="tokens of a text; longer texts are cut", minimum=2, maximum=2**20, answers=False
    )
    mask_tokens: float = option(
        0.0, help="share of a text's tokens that each view masks; 0: none", minimum=0, below=1, search=(0.0, 0.3)
    )
    views: int = option(
        0, help="augmented views shown in turn; 0: a fresh one each epoch", minimum=0, needs=_DRAWN, answers=False
    )
    view_seed: int = option(0, help="seed of the augmentation", minimum=0, maximum=_LARGEST_SEED, needs=_DRAWN)
    thresholds: int = option(
        0, help="training samples to hold out to choose thresholds of multi-label classes", minimum=0, answers=False
    )
    validation: int = option(
        0, help="training images to hold out for tuning; the test set stays untouched", minimum=0, answers=False
    )

    def check(self) -> None:
        """Checks what goes together."""
        if self.data_dir is not None:
            user_path(self.data_dir)
        for name in ("cutout", "erasing"):
            if getattr(self, name) and self.augmentation == "none":
                raise UsageError(
                    f"{setting(name)} {getattr(self, name)} needs {setting('augmentation')} flip, flip_shift, photo or "
                    "another, got none"
                )
        if self.crop_share not in (None, 1) and self.fit == "pad":
            raise UsageError(
                f"{setting('crop_share')} is for {setting('fit', 'crop')} and squash, got {setting('fit', self.fit)}"
            )
        given = [name for name, value in self.fitting.to_dict().items() if value != WHOLE.to_dict()[name]]
        if given and not self.image_size:
            raise UsageError(f"{setting(given[0])} needs {setting('image_size')}, the side that images get, as 224")

    @property
    def fitting(self) -> Fitting:
        """How images of files get ``image_size``."""
        return Fitting(self.fit or "crop", self.crop_share or 1.0, self.interpolation or "bicubic")

    @property
    def fitting_given(self) -> dict[str, Any]:
        """The options that say how images of files get ``image_size``, by place in a run."""
        return {f"data.{name}": getattr(self, name) for name in WHOLE.to_dict()}

    @property
    def crops(self) -> bool:
        """Whether each view shows a random part of an image."""
        return self.augmentation in CROPPING

    @property
    def plain(self) -> "DataConfig":
        """The same samples as a network is evaluated on them: not augmented, and none held out."""
        names = (
            "name", "image_size", "fit", "crop_share", "interpolation", "data_dir", "task", "table", "mask_folders",
            "ignore_index", "tokenizer", "max_length",
        )  # fmt: skip
        return DataConfig(**{name: getattr(self, name) for name in names})

    @property
    def mixes(self) -> bool:
        """Whether an image is shown with another in it."""
        return bool(self.mixup or self.cutmix)

    @property
    def has_views(self) -> bool:
        """Whether one view shows an image otherwise than another."""
        return self.augmentation != "none" or self.mixes or self.mask_tokens > 0

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
        **_SHARE,
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
        0, help="seed of the initial weights and of the order of images", minimum=0, maximum=_LARGEST_SEED
    )
    label_smoothing: float = option(
        0.0, help="label smoothing, 0 to 1; harmful in a teacher", **_SHARE, of="method", search=(0.0, 0.3)
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


def default_method(task: str) -> str:
    """The method that a run for ``task`` takes where none is named."""
    return "align" if task == "embedding" else "kd"


def check_side(name: str, side: int) -> None:
    """Raises UsageError unless ``side`` is that of an image, in pixels."""
    Option(minimum=1, maximum=_MAX_SIDE).check(name, side)
