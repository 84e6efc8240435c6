"""The Hugging Face hub as a place for networks of this package: hub:USER/REPO or hub:USER/REPO@REVISION.

What is there was uploaded by `push`. Networks of the library transformers, on the same hub, are named hf:NAME.
"""

import glob
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from model_compression.core.errors import (
    FileFormatError,
    MissingExtraError,
    ModelCompressionError,
    RunFolderError,
    UsageError,
)
from model_compression.core.hub_connection import is_reached

PREFIX = "hub:"
WEIGHTS = "student.safetensors"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_UPLOADED = ("README.md", WEIGHTS, "config.json", "metrics.json", "environment.json", "*.onnx", "*.pt2")


def is_hub(name: str) -> bool:
    """Whether ``name`` is of the form hub:…"""
    return name.startswith(PREFIX)


def fetch(name: str) -> Path:
    """The weights file that ``name`` means, downloaded into the hub client's cache; where no hub is, that copy serves.

    Raises UsageError for another form of name, MissingExtraError, FileFormatError where no such network is, and
    ModelCompressionError when the hub is not reached.
    """
    found = _NAME.fullmatch(name.removeprefix(PREFIX))
    if found is None:
        raise UsageError(f"{name!r} names no network on the hub; expected hub:USER/REPO or hub:USER/REPO@REVISION")
    hub = _client()
    endpoint = hub.constants.ENDPOINT
    reached = is_reached()
    try:
        path = hub.hf_hub_download(found["repo"], WEIGHTS, revision=found["revision"], local_files_only=not reached)
    except hub.errors.LocalEntryNotFoundError:
        raise ModelCompressionError(f"{name}: {endpoint} is not reached, and no copy is in its cache here") from None
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError, hub.errors.EntryNotFoundError):
        raise FileFormatError(
            f"{name}: there is no {WEIGHTS} there that can be read; look at the name, or log in with `hf auth login` "
            "where the repository is private"
        ) from None
    except Exception as error:  # the client raises its own errors and those of its HTTP library
        raise ModelCompressionError(f"{name} could not be downloaded: {_line(error)}") from error
    return Path(path)


def check_repository(repo: str) -> None:
    """Raises UsageError unless ``repo`` is USER/REPO, MissingExtraError without the client."""
    found = _NAME.fullmatch(repo)
    if found is None or found["revision"]:
        raise UsageError(f"a repository on the hub is named USER/REPO, got {repo!r}")
    _client()


def uploaded_files(folder: Path) -> list[Path]:
    """The files of a run folder that `upload` takes.

    Raises RunFolderError for a symbolic link among them: in a stranger's run folder it may lead to any file.
    """
    found = sorted(path for pattern in _UPLOADED for path in folder.glob(pattern))
    refuse_links(found)
    return [path for path in found if path.is_file()]


def refuse_links(paths: Iterable[Path]) -> None:
    """Raises RunFolderError that names the first symbolic link in ``paths``."""
    for path in paths:
        if path.is_symlink():
            raise RunFolderError(
                f"{path} is a symbolic link, which push does not follow; put what it means in its place"
            )


def upload(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Uploads a run folder's files as one commit; the repository is made unless it is there. Returns its address.

    Raises ModelCompressionError when the hub does not take them; then the repository is as it was.
    """
    hub = _client()
    if not is_reached():
        raise ModelCompressionError(f"{hub.constants.ENDPOINT} is not reached; look at the connection, then push again")
    names = [glob.escape(path.name) for path in uploaded_files(folder)]  # a file may be called "*.onnx"
    try:
        api = hub.HfApi(endpoint=hub.constants.ENDPOINT, library_name="model-compression")
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=names, commit_message=message)
    except Exception as error:  # as in `fetch`
        raise ModelCompressionError(f"the hub did not take {repo}: {_line(error)}") from error
    return str(address)


def _client() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants  # no attributes of the package until they are imported
        import huggingface_hub.errors
    except ImportError:
        raise MissingExtraError("huggingface_hub", "hub", "the Hugging Face hub") from None
    return huggingface_hub


def _line(error: BaseException) -> str:
    """What it says in a line, and what caused it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "it does not know you, or you may not write there; log in with `hf auth login`"
    lines = [line for line in str(error).splitlines() if line.strip()]
    said = (lines[0] if lines else type(error).__name__)[:200]
    return said if error.__cause__ is None else f"{said} ({_line(error.__cause__)})"
