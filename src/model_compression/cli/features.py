"""List the layers of a network that a method can compare, with shapes; a star marks those of each stage."""

import argparse

from model_compression.core.console import json_text, table

EXAMPLES = """examples:
  model-compression features lenet
  model-compression features nin-cifar10 --json
  model-compression features timm:resnet18 --size 224
"""

_NOTES = """
* Compared unless --pairs names others. Some methods take the values before the last
activation: NAME:input is the input of a layer. Maps are channels × height × width,
tokens are length × width."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("model", metavar="MODEL", help="name of a network, a weights file or a run")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="option of the builder")
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side of the images (default: that of the network, else 32)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Prints the layers; returns the exit code."""
    import torch

    from model_compression.core.argument_types import parse_pairs
    from model_compression.core.config import check_side
    from model_compression.core.errors import UsageError
    from model_compression.models.features import layers
    from model_compression.models.loading import build_model
    from model_compression.models.stages import stages

    if args.size is not None:
        check_side("--size", args.size)
    model = build_model(args.model, parse_pairs(args.option, "--option"))
    channels, height, width = model.image_shape
    shape = (channels, args.size or height, args.size or width)
    try:
        found = layers(model.body, torch.zeros(2, *shape))
    except Exception as error:  # a foreign network refuses shapes in its own way
        raise UsageError(f"{args.model} cannot take images of {' × '.join(map(str, shape))}: {error}") from error
    chosen = {layer.name for layer in stages(found)}
    if args.json:
        entries = [
            {"name": layer.name, "kind": layer.kind, "shape": layer.shape[1:], "stage": layer.name in chosen}
            for layer in found
        ]
        print(json_text({"model": args.model, "layers": entries}))
        return 0
    rows = [
        ("*" if layer.name in chosen else "", layer.name, " × ".join(map(str, layer.shape[1:])), layer.kind)
        for layer in found
    ]
    print(table(rows, ("", "layer", "output", "kind"), left=4))
    print(_NOTES)
    return 0
