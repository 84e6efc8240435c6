"""Classify images with an exported ONNX file: ONNX Runtime alone, without torch."""

import argparse

from model_compression.core.console import json_text, one_line

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
    """Predicts; returns the exit code."""
    from model_compression.api.prediction import predict

    for found in predict(args.file, args.images, top=args.top):
        image = str(found.image)
        if args.json and found.classes:
            classes = [{"name": name, "probability": probability} for name, probability in found.classes]
            print(json_text({"image": image, "classes": classes}))
        elif args.json:
            print(json_text({"image": image, "answer": found.numbers}))
        else:
            texts = [f"{name} {probability:.1%}" for name, probability in found.classes]
            print(f"{one_line(image)}   " + "   ".join(texts or [f"{number:.6g}" for number in found.numbers]))
    return 0
