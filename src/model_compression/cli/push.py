"""Upload a finished run to the Hugging Face hub: its network, model card and figures, and the files exported into it.

There `hub:USER/REPO` names the network wherever this package takes one, also as a teacher.
"""

import argparse

from model_compression.core.console import json_text, table

EXAMPLES = """examples:
  hf auth login
  model-compression push runs/distilled me/lenet-cifar10 --private
  model-compression test --model hub:me/lenet-cifar10
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("run", metavar="RUN", help="a finished run's folder")
    parser.add_argument("repo", metavar="USER/REPO", help="the repository; it is made unless it is there")
    parser.add_argument("--private", action="store_true", help="make it a private one")
    parser.add_argument("--dry-run", action="store_true", help="list what would be uploaded, and upload nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Uploads; returns the exit code."""
    from model_compression.api.sharing import push

    pushed = push(args.run, args.repo, private=args.private, dry_run=args.dry_run)
    if args.json:
        print(json_text({"repo": args.repo, "address": pushed.address, "files": pushed.files}))
        return 0
    print(table([(file, f"{size:,} bytes") for file, size in pushed.files.items()]))
    done = f"uploaded to {pushed.address}; load it as hub:{args.repo}"
    print(f"nothing was uploaded to {args.repo}" if args.dry_run else done)
    return 0
