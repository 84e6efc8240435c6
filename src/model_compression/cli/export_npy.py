"""Write a model's weights as a caffe-tensorflow `.npy` dictionary, which `model-compression import` reads back exactly.

The file holds layer → {'weights', 'biases'}: convolutions as (H, W, in, out), inner products as (in, out). It has no
place for the preprocessing, which is printed: who reads the file must do the same to the pixels.
"""

import argparse
from pathlib import Path

from model_compression.core.console import json_text
from model_compression.core.errors import UsageError

EXAMPLES = """examples:
  model-compression export-npy nin-cifar10 --out teacher.npy
  model-compression export-npy a.safetensors --out a.npy --channel-order rgb
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a shipped model, a .safetensors file or a run folder")
    parser.add_argument("--out", required=True, metavar="X.npy", type=Path, help="where the dictionary is written")
    parser.add_argument(
        "--channel-order",
        choices=("bgr", "rgb"),
        default="bgr",
        help="of the images that the written network takes (default: bgr, as Caffe's tools make them)",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing --out")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    if args.out.exists() and not args.force:
        raise UsageError(f"{args.out} exists; choose another --out, or replace it with --force")
    from model_compression.classic.caffe_weights import export_npy
    from model_compression.models import MODELS
    from model_compression.models.loading import read_model
    from model_compression.models.weights import find_weights, shipped_weights

    if args.model in MODELS:
        shipped = ", ".join(shipped_weights()) or "none"
        raise UsageError(f"{args.model!r} has no weights; give a .safetensors file or a shipped model ({shipped})")
    model = read_model(find_weights(args.model))
    export_npy(model, args.out, channel_order=args.channel_order)
    preprocessing = model.preprocessing.to_dict() | {"mean_image": model.preprocessing.mean_image is not None}
    if args.json:
        done = {"out": str(args.out), "model": model.name, "channel_order": args.channel_order}
        print(json_text(done | {"preprocessing": preprocessing}))
        return 0
    mean = "the mean image of the model" if preprocessing["mean_image"] else f"255 · {preprocessing['mean']}"
    print(
        f"pixels 0 to 255, channels {preprocessing['channel_order']}: minus {mean}, over 255 · {preprocessing['std']}"
    )
    print(f"{args.out}: {model.name}, for channels in {args.channel_order} order")
    return 0
