"""`predict`: what an exported file answers to images. Torch is not imported."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_compression.core.argument_checks import checked_arguments
from model_compression.core.errors import NotThereError, UsageError
from model_compression.core.files import user_path
from model_compression.core.masks import PREDICTED, Masks
from model_compression.core.options import setting
from model_compression.data.listing import find_images
from model_compression.exporting.answer_texts import TOKENIZER, TextAnswer, answer_texts, tokenizer_of
from model_compression.exporting.classify import FullSize, answer, describe
from model_compression.exporting.runtimes import ExportedFile, names_by_suffix, open_file


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer to one image: ``classes`` as (name, probability), the most likely first, or else ``numbers``.

    ``present`` are the names of the classes that a multi-label image has, by the file's thresholds; else None.
    ``values`` are the numbers of a regression as (name with unit, number). ``mask`` (H, W) uint8 are the classes of the
    pixels of a segmentation, whose ``classes`` come with their shares of the pixels.
    """

    image: Path
    classes: tuple[tuple[str, float], ...] = ()
    numbers: tuple[float, ...] = ()
    present: tuple[str, ...] | None = None
    values: tuple[tuple[str, float], ...] = ()
    mask: Masks | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class TextPrediction:
    """The answer to one text, as that to an image; or ``words``, each with its tag and the probability of it.

    ``is_cut``: whether the text is too long for the file, so that only its beginning counts.
    """

    text: str
    classes: tuple[tuple[str, float], ...] = ()
    numbers: tuple[float, ...] = ()
    present: tuple[str, ...] | None = None
    values: tuple[tuple[str, float], ...] = ()
    words: tuple[tuple[str, str, float], ...] = ()
    is_cut: bool = False


@checked_arguments
def predict(
    file: str | Path, images: str | Path | Sequence[str | Path], *, top: int = 3, full_size: FullSize = ""
) -> Sequence[Prediction | TextPrediction]:
    """Answers images or texts with an exported file, in ONNX Runtime or torch.export.

    Example:
        >>> from PIL import Image
        >>> Image.new("RGB", (32, 32), "red").save("red.png")
        >>> mc.predict("student.onnx", "red.png", top=1)
        [Prediction(image=PosixPath('red.png'), classes=(('...', ...),), numbers=(), present=None, values=())]

    Args:
        file: what `export` wrote, or the folder with it.
        images: image files, as .png or .npy, or folders of them; for a file that takes texts, the texts.
        top: how many classes are given, and all that are present in a multi-label sample.
        full_size: of a segmentation: "whole" answers images at their own size, "windows" in parts of the size of the
            images that the file was proven on, which overlap by half; "" scales images to that size.

    Raises:
        NotThereError: an image or the file does not exist.
        DataError: a file is no image.
        FileFormatError: the file was not written by `export`.
    """
    if top < 1:
        raise UsageError(f"{setting('top')} must be at least 1, got {top}")
    path = _file_in(user_path(str(file)))
    opened, given = open_file(path), [images] if isinstance(images, str | Path) else images
    if TOKENIZER in opened.metadata.facts:
        answers = answer_texts(opened, tokenizer_of(opened, path), [str(text) for text in given])
        return [_of_text(opened, one, top) for one in answers]
    paths: list[Path] = []
    for one in map(Path, given):
        if not one.exists():
            raise NotThereError(f"{one} does not exist; expected an image, or a folder of images")
        inside = [Path(file.path) for file in find_images(one).files] if one.is_dir() else []
        paths += [path for path in inside if not path.name.endswith(PREDICTED)] if one.is_dir() else [one]
    found = []
    for path in paths:
        found.append(Prediction(image=path, **_told(opened, answer(opened, path, full_size), top)))
    return found


def _told(file: ExportedFile, logits: Any, top: int) -> dict[str, Any]:
    """What the file's task says of logits, by the names of fields."""
    told = describe(file, logits)
    numbers = () if told.classes or told.values else tuple(logits.flatten().tolist())
    kept = told.classes[: max(top, len(told.present or ()))]
    mask = {} if told.mask is None else {"mask": told.mask}
    return {"classes": kept, "numbers": numbers, "present": told.present, "values": told.values, **mask}


def _file_in(path: Path) -> Path:
    """The only exported file in a folder; another path as it is. Raises NotThereError where there is not one."""
    if not path.is_dir():
        return path
    found = sorted(file for suffix in names_by_suffix() for file in path.glob(f"*{suffix}"))
    if len(found) != 1:
        there = f"holds {', '.join(file.name for file in found)}" if found else "holds no exported file"
        raise NotThereError(f"{path} {there}; expected one, as `export` writes it: name the file")
    return found[0]


def _of_text(file: ExportedFile, found: TextAnswer, top: int) -> TextPrediction:
    if not found.words:
        return TextPrediction(text=found.text, is_cut=found.is_cut, **_told(file, found.logits, top))
    likeliest = [describe(file, row).classes[0] for row in found.logits]
    words = [(word, *tag) for word, tag in zip(found.words, likeliest, strict=True)]
    return TextPrediction(text=found.text, is_cut=found.is_cut, words=tuple(words))
