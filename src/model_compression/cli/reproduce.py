"""Repeat the classic experiment of 2016: a LeNet on labels alone and with three ways to learn from the teacher.

Each finished run leaves a record in the results folder; what has a record is not run again, and what was interrupted
goes on where it stopped: give the same command again.
"""

import argparse
from pathlib import Path

EXAMPLES = """examples:
  model-compression reproduce
  model-compression reproduce --seeds 3 --epochs 100 --teacher nin-cifar10
  model-compression reproduce --epochs 2 --arms labels kd --out results/trial
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each arm (default: 1)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="S", help="the first seed (default: 0)")
    parser.add_argument("--epochs", type=int, default=100, metavar="E", help="of each run (default: 100)")
    parser.add_argument("--teacher", default="nin-cifar10", metavar="MODEL", help="default: nin-cifar10")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="some of the arms only (default: all)")
    parser.add_argument("--data", default="cifar10", metavar="NAME", help="data set (default: cifar10)")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data set is, or is to be stored")
    parser.add_argument("--out", metavar="FOLDER", help="results folder (default: results/classic-E-epochs)")
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where the run folders go (default: runs)")


def run(args: argparse.Namespace) -> int:
    """Runs what has no record yet; returns the exit code."""
    from model_compression.cli.run_reports import ConsoleObserver
    from model_compression.config import DataConfig, to_dict
    from model_compression.errors import UsageError
    from model_compression.files import write_atomically
    from model_compression.models.weights import find_weights
    from model_compression.recipes import classic_protocol
    from model_compression.registry import unknown_name
    from model_compression.report.classic_table import ARMS, write_report
    from model_compression.train.runs import finish_run

    if args.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {args.seeds}")
    arms = args.arms or list(ARMS)
    for arm in arms:
        if arm not in ARMS:
            raise unknown_name("arm", arm, list(ARMS))
    if arms != ["labels"]:
        find_weights(args.teacher)  # before an hour goes into the students that need none
    out = Path(args.out or f"results/classic-{args.epochs}-epochs")
    data = DataConfig(name=args.data, data_dir=args.data_dir)
    title = f"The classic experiment, {args.epochs} epochs"
    table = ""
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        configs = classic_protocol(teacher=args.teacher, epochs=args.epochs, seed=seed, data=data)
        for arm in arms:
            record = out / f"{arm}-seed{seed}.json"
            if _recorded(record, configs[arm]):
                continue
            folder = Path(args.runs) / out.name / f"{arm}-seed{seed}"
            with ConsoleObserver() as observer:
                observer.message(f"{arm}, seed {seed} → {folder}")
                metrics = finish_run(configs[arm], folder, observer)
            content = {"arm": arm, "config": to_dict(configs[arm]), "metrics": metrics, **_logs(folder)}
            write_atomically(record, _json(content))
            table = write_report(out, title)
    table = table or write_report(out, title)
    print(f"{table}\n{out / 'table.md'}\n{out / 'curves.png'}")
    return 0


def _recorded(path: Path, config: object) -> bool:
    """Whether the run has its record; raises RunFolderError when that is of another configuration."""
    import json

    from model_compression.config import to_dict
    from model_compression.errors import FileFormatError, RunFolderError

    if not path.exists():
        return False
    try:
        recorded, wanted = json.loads(path.read_text())["config"], to_dict(config)
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path} is damaged ({error}); delete it and its run is made again") from None
    # Where things lie is of no matter, nor is an option that there was not when the record was made.
    compared = [key for key in wanted if key in recorded and key not in ("data", "teacher_cache")]
    differing = [key for key in compared if recorded[key] != wanted[key]]
    if differing:
        raise RunFolderError(f"{path} was made with another {', '.join(differing)}; choose another --out")
    return True


def _logs(folder: Path) -> dict[str, object]:
    import json

    from model_compression.train.events import read_events
    from model_compression.train.run_folder import RunFolder

    run = RunFolder(folder)
    return {"environment": json.loads(run.environment.read_text()), "events": read_events(run.events)}


def _json(content: object) -> bytes:
    import json

    return (json.dumps(content) + "\n").encode()
