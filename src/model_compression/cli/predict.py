"""Answer images or texts with an exported ONNX file: ONNX Runtime alone, without torch."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_compression.core.console import json_text, one_line
from model_compression.core.errors import UsageError

if TYPE_CHECKING:
    from model_compression.api.prediction import Prediction, TextPrediction
    from model_compression.core.masks import Masks

EXAMPLES = """examples:
  model-compression predict student.onnx cat.png
  model-compression predict student.onnx photos/*.jpg --json
  model-compression predict exported/ "Win a prize now"
  model-compression predict masks.onnx street.jpg --full-size windows --out masks
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("file", metavar="FILE", help="what `export` has written, or the folder with it")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="image files, as .png or .npy, or folders of them; or texts"
    )
    parser.add_argument("--top", type=int, default=3, metavar="N", help="how many classes are shown (default: 3)")
    parser.add_argument(
        "--full-size",
        choices=("whole", "windows"),
        default="",
        help="segmentation: answer images at their own size, whole or in windows that overlap (default: scaled)",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="folder for NAME.mask.png of a segmentation (default: the image's)"
    )
    parser.add_argument("--force", action="store_true", help="replace masks that are there")
    parser.add_argument("--json", action="store_true", help="print one JSON object an image or text on stdout")


def run(args: argparse.Namespace) -> int:
    """Predicts; returns the exit code."""
    from model_compression.api.prediction import TextPrediction, predict

    answers = predict(args.file, args.images, top=args.top, full_size=args.full_size)
    masks = _mask_paths(answers, args.out, args.force)
    for number, found in enumerate(answers, start=1):
        if isinstance(found, TextPrediction) and os.path.isfile(found.text):  # noqa: PTH113 - of any length
            print(f"text {number} is the name of a file: the name is answered, not what it holds", file=sys.stderr)
        if getattr(found, "is_cut", False):
            print(f"text {number} is too long for the file: only its beginning counts", file=sys.stderr)
        kind, sample = ("text", found.text) if isinstance(found, TextPrediction) else ("image", str(found.image))
        mask = _written_mask(found, masks)
        if args.json:
            print(json_text({kind: sample, **_plain(found), **({"mask": mask} if mask else {})}))
        else:
            print(f"{one_line(sample)}   {_text(found)}{f'   {one_line(mask)}' if mask else ''}")
    return 0


def _mask_paths(answers: "Sequence[Prediction | TextPrediction]", folder: Path | None, force: bool) -> dict[Path, Path]:
    """Where the mask of each image goes. Raises UsageError, before one is written, for two masks of one name."""
    from model_compression.core.masks import PREDICTED

    masked = (found for found in answers if getattr(found, "mask", None) is not None)
    images: dict[Path, None] = dict.fromkeys(found.image for found in masked)  # type: ignore[union-attr]
    by_mask: dict[Path, Path] = {}
    for image in images:
        path = (folder or image.parent) / f"{image.stem}{PREDICTED}"
        if path.exists() and not force:
            raise UsageError(f"{path} exists; choose another folder with --out, or replace it with --force")
        other = by_mask.setdefault(path, image)
        if other != image:
            raise UsageError(f"{other} and {image} would both have the mask {path}; answer them apart")
    return {image: path for path, image in by_mask.items()}


def _written_mask(found: "Prediction | TextPrediction", paths: dict[Path, Path]) -> str:
    """Writes the mask, if there is one, as a palette PNG whose pixels hold their class numbers; returns its path."""
    from model_compression.core.files import write_atomically
    from model_compression.core.masks import mask_png

    mask: Masks | None = getattr(found, "mask", None)
    if mask is None:
        return ""
    path = paths[found.image]  # type: ignore[union-attr]
    write_atomically(path, mask_png(mask))
    return str(path)


def _plain(found: "Prediction | TextPrediction") -> dict[str, Any]:
    words = getattr(found, "words", ())
    if words:
        return {"words": [{"word": word, "tag": tag, "probability": probability} for word, tag, probability in words]}
    if found.values:
        return {"values": dict(found.values)}
    if not found.classes:
        return {"answer": found.numbers}
    share = "probability" if getattr(found, "mask", None) is None else "share"
    classes = [{"name": name, share: value} for name, value in found.classes]
    return {"classes": classes} | ({} if found.present is None else {"present": list(found.present)})


def _text(found: "Prediction | TextPrediction") -> str:
    """Of several classes a sample those that it has; of numbers each with its name, whose unit it keeps."""
    words = getattr(found, "words", ())
    if words:
        return one_line(" ".join(f"{word}/{tag}" for word, tag, _ in words))
    classes = [one for one in found.classes if found.present is None or one[0] in found.present]
    texts = [f"{name} {probability:.1%}" for name, probability in classes]
    texts += [f"{name} {value:.5g}" for name, value in found.values] + [f"{number:.6g}" for number in found.numbers]
    return one_line("   ".join(texts or ["none of its classes"]))
