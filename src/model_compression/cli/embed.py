"""Write the embeddings of images as Parquet: a row an image, with split, id, path, label and vector.

A network without a head answers with embeddings; of a classifier the last layer is left out.
"""

import argparse
import dataclasses

from model_compression.cli.model_options import add_model_options, with_model_options
from model_compression.cli.run_data import add_data_options, data_of
from model_compression.core.console import json_text

EXAMPLES = """examples:
  model-compression embed runs/backbone --data folder:photos --image-size 224 --out photos.parquet
  model-compression embed timm:vit_small_patch14_dinov2.lvd142m --data folder:photos \\
      --image-size 518 --out photos.parquet
  model-compression embed timm:resnet18 --weights own.pt --split test --out test.parquet
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("model", metavar="MODEL", help="a run, a weights file, or a network of a library")
    add_model_options(parser)
    add_data_options(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="NAME.parquet")
    parser.add_argument("--split", choices=("both", "train", "test"), default="both", help="images (default: both)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--precision", default="auto", metavar="NAME", help="auto, fp32 or bf16 (default: auto)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Embeds; returns the exit code."""
    from model_compression.api.embedding import embed
    from model_compression.core.config import ModelConfig
    from model_compression.engine.console_observer import ConsoleObserver

    model = with_model_options(ModelConfig(name=args.model), args)
    options = {name: getattr(args, name) for name in ("split", "device", "precision", "force")}
    with ConsoleObserver() as observer:
        found = embed(model, args.out, data_of(args), **options, observer=observer)
    if args.json:
        print(json_text({**dataclasses.asdict(found), "path": str(found.path)}))
        return 0
    print(f"{found.path}   {found.samples:,} embeddings of {found.width} numbers, {found.seconds:.1f} s")
    return 0
