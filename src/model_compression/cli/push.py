"""Upload a finished run to the Hugging Face hub: its network, model card and figures, and the files exported into it.

There `hub:USER/REPO` names the network wherever this package takes one, also as a teacher.
"""

import argparse

from model_compression.core.console import json_text, table
from model_compression.core.files import user_path

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
    from model_compression.core.errors import NotThereError, RunFolderError
    from model_compression.core.files import write_text
    from model_compression.models import hub
    from model_compression.reports.model_card import model_card
    from model_compression.reports.run_files import read_run

    folder = user_path(args.run)
    if (folder / "final" / "config.json").is_file():  # of a network that was pruned
        folder = folder / "final"
        hub.refuse_links([folder])
    if not folder.exists():
        raise NotThereError(f"{folder} is not there; expected the folder of a run, as runs/distilled")
    if not (folder / "config.json").is_file():
        raise RunFolderError(f"{folder} is no run folder: it has no config.json; give a run's, as runs/distilled")
    run = read_run(folder)
    if run.result is None or run.student_bytes is None:
        raise RunFolderError(f"{folder}: the run is not finished; continue it with: model-compression resume {folder}")
    hub.check_repository(args.repo)
    if not (folder / "README.md").exists():  # of a run that was made before there were model cards
        write_text(folder / "README.md", model_card(run))
    files = hub.uploaded_files(folder)
    sizes = {path.name: path.stat().st_size for path in files}
    address = None
    if not args.dry_run:
        message = f"{run.eval_set} {run.metric.label} {run.metric.text(run.result)}, seed {run.seed}"
        address = hub.upload(folder, args.repo, private=args.private, message=message)
    if args.json:
        print(json_text({"repo": args.repo, "address": address, "files": sizes}))
        return 0
    print(table([(file, f"{size:,} bytes") for file, size in sizes.items()]))
    print(
        f"nothing was uploaded to {args.repo}" if args.dry_run else f"uploaded to {address}; load it as hub:{args.repo}"
    )
    return 0
