"""`predict`: what an exported file answers to images. Torch is not imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_compression.core.argument_checks import checked_arguments
from model_compression.core.errors import NotThereError, UsageError
from model_compression.core.files import user_path
from model_compression.core.options import setting
from model_compression.data.image_files import find_images
from model_compression.exporting.classify import answer, classify
from model_compression.exporting.runtimes import open_file


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer to one image: ``classes`` as (name, probability), the most likely first, or else ``numbers``."""

    image: Path
    classes: tuple[tuple[str, float], ...] = ()
    numbers: tuple[float, ...] = ()


@checked_arguments
def predict(file: str | Path, images: str | Path | Sequence[str | Path], *, top: int = 3) -> list[Prediction]:
    """Answers images with an exported file, in ONNX Runtime or torch.export.

    Example:
        >>> from PIL import Image
        >>> Image.new("RGB", (32, 32), "red").save("red.png")
        >>> mc.predict("student.onnx", "red.png", top=1)
        [Prediction(image=PosixPath('red.png'), classes=(('...', ...),), numbers=())]

    Args:
        file: what `export` wrote.
        images: image files, as .png or .npy, or folders of them.
        top: how many classes are given.

    Raises:
        NotThereError: an image or the file does not exist.
        DataError: a file is no image.
        FileFormatError: the file was not written by `export`.
    """
    if top < 1:
        raise UsageError(f"{setting('top')} must be at least 1, got {top}")
    opened = open_file(user_path(str(file)))
    given = [images] if isinstance(images, str | Path) else images
    paths: list[Path] = []
    for one in map(Path, given):
        if not one.exists():
            raise NotThereError(f"{one} does not exist; expected an image, or a folder of images")
        paths += find_images(one).files if one.is_dir() else [one]
    if not opened.metadata.class_names:
        return [Prediction(image=path, numbers=tuple(answer(opened, path).tolist())) for path in paths]
    return [Prediction(image=path, classes=tuple(classify(opened, path)[:top])) for path in paths]
