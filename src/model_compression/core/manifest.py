"""The SHA-256 of every result file of a finished folder: a file that changed afterwards is found by whoever reads it.

The digests find damage and edits, not somebody who writes them anew on purpose. manifest.json is the last file that a
run writes: a folder without one is not finished, or was made before there were manifests.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from model_compression.core.errors import FileFormatError
from model_compression.core.files import read_json, write_json

FILE = "manifest.json"
_FORMAT = "model_compression.manifest/1"
_DIGEST = "sha256"
_REMEDY = "put back the file of then, or make the folder's content again elsewhere"


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Writes the digests of the files ``names`` in ``folder``; those that are not there are left out."""
    digests = {name: _digest_of_file(folder / name) for name in sorted(names) if (folder / name).is_file()}
    write_json(folder / FILE, with_digest({"format": _FORMAT, "files": digests}))


def check_manifest(folder: Path, names: Collection[str] | None = None, may_lack: Collection[str] = ()) -> bool:
    """Whether ``folder`` has a manifest, all of whose files, or those of ``names``, are as they were.

    Raises FileFormatError that names the first file which is missing, unless in ``may_lack``, or was changed.
    """
    path = folder / FILE
    if not path.exists():
        return False
    for name, expected in _digests(path).items():
        if names is not None and name not in names:
            continue
        file = folder / name
        try:
            found = _digest_of_file(file)
        except FileNotFoundError:
            if name in may_lack:
                continue
            raise FileFormatError(f"{file} is missing, which {path} lists; {_REMEDY}") from None
        except OSError as error:
            raise FileFormatError(f"{file} cannot be read: {error.strerror}") from None
        if found != expected:
            raise FileFormatError(f"{file} was changed after it was finished (SHA-256 in {FILE}); {_REMEDY}")
    return True


def begin_again(folder: Path) -> None:
    """Takes the manifest away, before the results that it lists are made anew."""
    (folder / FILE).unlink(missing_ok=True)


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain ``values`` with their own SHA-256, which `without_digest` checks."""
    return {**values, _DIGEST: _digest_of_values(values)}


def without_digest(values: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """``values`` as they were given to `with_digest`; those that never had a digest are returned as they are.

    Raises FileFormatError, naming ``source``, when they were changed.
    """
    rest = {key: value for key, value in values.items() if key != _DIGEST}
    if _DIGEST in values and values[_DIGEST] != _digest_of_values(rest):
        raise FileFormatError(f"{source} was changed after it was written (its own SHA-256 differs)")
    return rest


def _digests(path: Path) -> dict[str, str]:
    values = without_digest(read_json(path), path)
    files = values.get("files")
    if values.get("format") != _FORMAT or not isinstance(files, dict):
        raise FileFormatError(f"{path} is damaged: format is {values.get('format')!r}, expected {_FORMAT!r}")
    return files


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_values(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
