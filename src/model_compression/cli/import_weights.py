"""Turn weights that Caffe or caffe-tensorflow left behind into a model of this package.

FILE is a `.caffemodel` (current or legacy format) or a caffe-tensorflow `.npy` dictionary. Nothing in it is executed.
Every layer must fit the model; what does not is listed. The saved model takes RGB images and brings its preprocessing.
"""

import argparse
from pathlib import Path

from model_compression.core.console import json_text, table
from model_compression.core.errors import UsageError

EXAMPLES = """examples:
  model-compression import nin.caffemodel --model nin --out nin.safetensors
  model-compression import a.npy --model nin-ip --mean m.npy --out a.safetensors
  model-compression import b.npy --model lenet --scale 0.004 --out b.safetensors
  model-compression test --model nin.safetensors
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="a .caffemodel or a caffe-tensorflow .npy file")
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="what the weights are for, as lenet, nin, nin-ip"
    )
    parser.add_argument("--out", required=True, metavar="X.safetensors", type=Path, help="where the model is saved")
    parser.add_argument(
        "--channel-order",
        choices=("bgr", "rgb"),
        default="bgr",
        help="of the images the file's network was trained on, and of --mean (default: bgr, as Caffe's tools make "
        "them; Caffe's own CIFAR-10 example keeps rgb)",
    )
    parser.add_argument(
        "--mean", metavar="FILE", type=Path, help="mean image or mean per channel, .npy or .binaryproto"
    )
    parser.add_argument(
        "--scale",
        metavar="S",
        type=float,
        default=1.0,
        help="what pixels of 0 to 255 are multiplied by after the mean is subtracted (default: 1)",
    )
    parser.add_argument("--num-classes", metavar="K", type=int, default=10, help="of the file's network (default: 10)")
    parser.add_argument("--force", action="store_true", help="replace an existing --out")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    if args.out.exists() and not args.force:
        raise UsageError(f"{args.out} exists; choose another --out, or replace it with --force")
    from model_compression.classic.caffe_weights import import_model
    from model_compression.models.weights import save_weights

    model = import_model(
        args.file,
        args.model,
        channel_order=args.channel_order,
        mean=args.mean,
        scale=args.scale,
        num_classes=args.num_classes,
    )
    done = {
        "imported_from": args.file.name,
        "channel_order": args.channel_order,
        "mean": args.mean.name if args.mean else None,
        "scale": args.scale,
    }
    save_weights(args.out, model, facts=done)
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    num_parameters = sum(tensor.numel() for tensor in model.state_dict().values())
    if args.json:
        done |= {"out": str(args.out), "model": model.name, "options": model.options}
        print(json_text(done | {"num_parameters": num_parameters, "shapes": shapes}))
        return 0
    print(table([(name, " × ".join(map(str, shape))) for name, shape in shapes.items()], left=2))
    subtracted = f"minus {args.mean.name}" if args.mean else "no mean subtracted (--mean gives one)"
    print(f"pixels 0 to 255, {subtracted}, times {args.scale:g}; channels {args.channel_order} in the file, rgb now")
    print(f"{args.out}: {args.model}, {num_parameters:,} parameters")
    return 0
