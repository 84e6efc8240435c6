"""Draw a network: its layers as slabs in rows, and below them a list of their operations, shapes and costs.

The file is SVG. The same network gives the same bytes.
"""

import argparse
import dataclasses
from pathlib import Path

from model_compression.core.console import json_text
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.core.text import short_count

EXAMPLES = """examples:
  model-compression draw lenet                            writes lenet.svg
  model-compression draw nin --out docs/nin.svg --force  over the old one
  model-compression draw runs/cifar10-lenet-kd-seed0 --out student.svg
  model-compression draw lenet --json | jq '.layers[] | {name, shape, macs}'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("model", metavar="MODEL", help="name of a network, a .safetensors file, or a run folder")
    parser.add_argument(
        "--out", metavar="FILE.svg", type=Path, help="file to write (default: MODEL.svg, in this folder)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--json", action="store_true", help="print the layers and totals as JSON")


def run(args: argparse.Namespace) -> int:
    """Draws; returns the exit code."""
    title = _title(args.model)
    out = args.out or Path(f"{title.replace(':', '-')}.svg")
    if out.suffix.lower() != ".svg":
        raise UsageError(f"--out must end in .svg, got {out}")
    if out.exists() and not args.force:
        raise UsageError(f"{out} exists; choose another --out, or replace it with --force")
    from model_compression.core.files import write_atomically
    from model_compression.models.drawing import draw
    from model_compression.models.loading import build_model
    from model_compression.models.summary import summarize

    model = build_model(args.model, seed=0)
    summary = summarize(model)
    other = next((layer for layer in summary.layers if len(layer.shape) not in (1, 3)), None)
    if other is not None:
        raise UsageError(
            f"layer {other.name} of {args.model} answers with {other.shape}; the picture shows maps and vectors only; "
            "`model-compression features` lists the layers of any network"
        )
    heading = title if title == model.name else f"{title} ({model.name})"
    write_atomically(out, draw(summary, heading))
    if args.json:
        print(json_text({"out": str(out), "model": model.name} | dataclasses.asdict(summary)))
        return 0
    parts = f"{len(summary.layers)} layers, {summary.parameters:,} parameters, {short_count(summary.macs)} MACs"
    print(f"{out}: {heading}, {parts}")
    return 0


def _title(model: str) -> str:
    """A name as it is; of a file or folder the last part."""
    path = user_path(model)
    if path.is_dir():
        return path.resolve().name
    return path.stem if path.suffix == ".safetensors" else path.name
