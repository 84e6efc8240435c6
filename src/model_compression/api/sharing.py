"""`pack` and `push`: a finished run as a small file, or on the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path

import torch

from model_compression.api.argument_texts import described
from model_compression.api.evaluation import Evaluation, evaluate_on
from model_compression.api.inputs import Data, load_datasets, load_network, watched
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config_json import to_dict
from model_compression.core.device import choose_device
from model_compression.core.errors import NotThereError, RunFolderError, UsageError
from model_compression.core.files import read_json, user_path, write_text
from model_compression.core.options import setting
from model_compression.engine.observer import Observer
from model_compression.engine.run_folder import RunFolder
from model_compression.models import hub
from model_compression.models.loading import read_model
from model_compression.models.weights import save_weights
from model_compression.reports.model_card import model_card
from model_compression.reports.run_files import read_run
from model_compression.tasks import task_of


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A half-precision weights file, and how good the network in it is."""

    path: Path
    size_bytes: int
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What was uploaded, as file name → bytes; ``address`` is None after a dry run."""

    repo: str
    address: str | None
    files: dict[str, int]


@described
@checked_arguments
def pack(
    run_dir: str | Path,
    out: str | Path,
    data: Data = None,
    *,
    force: bool = False,
    observer: Observer | None = None,
    progress: bool | None = None,
    trust: bool = False,
) -> Packed:
    """Writes a run's network as a half-precision weights file, and measures the network that the file holds.

    Example:
        >>> mc.pack("runs/labels", "small.safetensors")
        Packed(path=PosixPath('small.safetensors'), size_bytes=..., evaluation=<accuracy ...%, ...>)

    Args:
        run_dir: a finished run.
        out: the .safetensors file.
        data: as `evaluate` takes it.
        force: whether an existing file is replaced.
        observer, progress, trust: `api.argument_texts`.

    Raises:
        UsageError: ``out`` exists or has another ending.
        RunFolderError: the run is not finished.
    """
    path = user_path(out)
    if path.suffix != ".safetensors":
        raise UsageError(f"{setting('out')} must end in .safetensors, got {path}")
    if path.exists() and not force:
        raise UsageError(f"{path} exists; choose another {setting('out')}, or replace it with {setting('force', True)}")
    folder = RunFolder(run_dir)
    config, metrics = folder.read_config(), folder.read_metrics()
    with watched(observer, progress, trust) as watcher:
        network = read_model(folder.student)
        for parameter in network.state_dict().values():
            parameter.copy_(parameter.half())  # what is measured is what the file holds
        _, test = load_datasets(data, run_dir, watcher)
        network = load_network(network, test, watcher)
        # In float32 the figures are the same on any machine.
        found = evaluate_on(network, test, choose_device("auto"), torch.float32, watcher, "test")
    facts = {
        **{f"test_{key}": value for key, value in found.figures.items()},
        "precision": "float32",
        **task_of(test).facts(test),
        **({"image_shape": list(test.image_shape)} if test.holds_images else {}),
        "config": to_dict(config),
        "environment": read_json(folder.environment),
        "training_seconds": metrics["seconds"],
    }
    save_weights(path, network, dtype=torch.float16, facts=facts)
    return Packed(path=path, size_bytes=path.stat().st_size, evaluation=found)


@checked_arguments
def push(run_dir: str | Path, repo: str, *, private: bool = False, dry_run: bool = False) -> Pushed:
    """Uploads a finished run to the Hugging Face hub: network, model card, figures, and files exported into it.

    Example:
        >>> mc.push("runs/distilled", "user/small-net", dry_run=True)
        Pushed(repo='user/small-net', address=None, files={'README.md': ..., ...})

    Args:
        run_dir: a finished run, or the folder of a pruning.
        repo: USER/REPO; it is made unless it is there.
        private: whether a new repository is private.
        dry_run: whether files are listed only.

    Raises:
        RunFolderError: the run is not finished, or holds symbolic links.
        ModelCompressionError: the hub does not take it.
    """
    folder = user_path(str(run_dir))
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
    hub.check_repository(repo)
    if not (folder / "README.md").exists():  # of a run that was made before there were model cards
        write_text(folder / "README.md", model_card(run))
    files = hub.uploaded_files(folder)
    sizes = {path.name: path.stat().st_size for path in files}
    address = None
    if not dry_run:
        message = f"{run.eval_set} {run.metric.label} {run.metric.text(run.result)}, seed {run.seed}"
        address = hub.upload(folder, repo, private=private, message=message)
    return Pushed(repo=repo, address=address, files=sizes)
