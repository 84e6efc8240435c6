"""List the layers of a network that a method can compare, with their shapes, and those that are chosen by stage."""

import argparse
import json

EXAMPLES = """examples:
  model-compression features lenet
  model-compression features nin-cifar10 --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("model", metavar="MODEL", help="a registered or a shipped network, a weights file or a run")
    parser.add_argument("--size", type=int, default=32, metavar="PIXELS", help="side of the images (default: 32)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Prints the layers; returns the exit code."""
    import torch

    from model_compression.errors import UsageError
    from model_compression.models.features import layers, stages
    from model_compression.models.weights import load_model

    if args.size < 1:
        raise UsageError(f"--size must be at least 1, got {args.size}")
    try:
        found = layers(load_model(args.model), torch.zeros(2, 3, args.size, args.size))
    except RuntimeError as error:
        raise UsageError(f"{args.model} cannot take images of {args.size} pixels: {error}") from None
    chosen = {layer.name for layer in stages(found)}
    if args.json:
        entries = [
            {"name": layer.name, "kind": layer.kind, "shape": layer.shape[1:], "stage": layer.name in chosen}
            for layer in found
        ]
        print(json.dumps({"model": args.model, "layers": entries}))
        return 0
    width = max((len(layer.name) for layer in found), default=0)
    for layer in found:
        shape = " × ".join(map(str, layer.shape[1:]))
        print(f"{'*' if layer.name in chosen else ' '} {layer.name:<{width}}  {shape:<16}  {layer.kind}")
    print("\n* compared unless --pairs names others; a map is channels × height × width, tokens are length × width")
    return 0
