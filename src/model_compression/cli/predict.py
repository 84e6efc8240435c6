"""Classify images with an exported ONNX file: ONNX Runtime alone, without torch."""

import argparse

from model_compression.core.console import json_text, one_line
from model_compression.core.files import user_path

EXAMPLES = """examples:
  model-compression predict student.onnx cat.png
  model-compression predict student.onnx photos/*.jpg --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("file", metavar="FILE", help="what `export` has written")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, as .png or .npy, or folders of them")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="how many classes are shown (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object an image on stdout")


def run(args: argparse.Namespace) -> int:
    """Classifies; returns the exit code."""
    from pathlib import Path

    from model_compression.core.errors import NotThereError, UsageError
    from model_compression.data.image_files import find_images
    from model_compression.exporting.classify import answer, classify
    from model_compression.exporting.runtimes import open_file

    if args.top < 1:
        raise UsageError(f"--top must be at least 1, got {args.top}")
    file = open_file(user_path(args.file))
    paths: list[Path] = []
    for given in map(Path, args.images):
        if not given.exists():
            raise NotThereError(f"{given} does not exist; expected an image, or a folder of images")
        paths += find_images(given).files if given.is_dir() else [given]
    if not file.metadata.class_names:
        for path in paths:
            numbers = answer(file, path).tolist()
            if args.json:
                print(json_text({"image": str(path), "answer": numbers}))
            else:
                print(f"{one_line(str(path))}   " + "   ".join(f"{number:.6g}" for number in numbers))
        return 0
    for path in paths:
        image, ranked = str(path), classify(file, path)[: args.top]
        if args.json:
            print(json_text({"image": image, "classes": [{"name": n, "probability": p} for n, p in ranked]}))
        else:
            print(f"{one_line(image)}   " + "   ".join(f"{name} {probability:.1%}" for name, probability in ranked))
    return 0
