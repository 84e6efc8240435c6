"""The options of the data: what is trained on, and how samples are shown."""

from dataclasses import dataclass
from typing import Any, Literal

from model_compression.core.config_values import Config, PathText
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.core.fitting import SMALLEST_SHARE, WHOLE, Fit, Fitting, Interpolation
from model_compression.core.options import LARGEST_SEED, SHARE, answer_settings, option, setting
from model_compression.core.table_config import TableConfig

Augmentation = Literal["none", "flip", "shift", "flip_shift", "photo", "randaugment", "trivialaugment"]
CROPPING = ("photo", "randaugment", "trivialaugment")
"""Augmentations that cut a random part out of the original image, of a file before it is scaled."""
Sampling = Literal["uniform", "balanced"]
Resident = Literal["auto", "on", "off"]

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
    erasing: float = option(0.0, help="probability of erasing a random box of an augmented image", **SHARE)
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
        0.4, help="photo: largest relative change of brightness, contrast, saturation", needs=_PHOTO, **SHARE
    )
    hue: float = option(0.0, help="photo: largest turn of the hue, in turns", minimum=0, maximum=0.5, needs=_PHOTO)
    grey: float = option(0.0, help="photo: probability of an image without colour", needs=_PHOTO, **SHARE)
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
    view_seed: int = option(0, help="seed of the augmentation", minimum=0, maximum=LARGEST_SEED, needs=_DRAWN)
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
