"""Upload a finished run to the Hugging Face hub: its network, model card and figures, and the files exported into it.

There `hub:USER/REPO` names the network wherever this package takes one, also as a teacher.
"""

import argparse
import json

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
    from model_compression.models import hub
    from model_compression.train.run_folder import RunFolder

    folder = RunFolder(args.run)
    metrics = folder.read_metrics()
    hub.check_repository(args.repo)
    files = hub.uploaded_files(folder.path)
    sizes = {path.name: path.stat().st_size for path in files}
    address = None
    if not args.dry_run:
        name = "validation" if "validation_accuracy" in metrics else "test"
        message = f"{name} accuracy {metrics[f'{name}_accuracy']:.2%}, seed {metrics['seed']}"
        address = hub.upload(folder.path, args.repo, private=args.private, message=message)
    if args.json:
        print(json.dumps({"repo": args.repo, "address": address, "files": sizes}))
        return 0
    for file, size in sizes.items():
        print(f"{file:<24} {size:>12,} bytes")
    print(
        f"nothing was uploaded to {args.repo}" if args.dry_run else f"uploaded to {address}; load it as hub:{args.repo}"
    )
    return 0
