"""`export` and `verify`: a file for another runtime, proven on every image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.api.argument_texts import described
from model_compression.api.inputs import Data, Model, give_names, load_datasets, load_network, watched
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.core.options import setting
from model_compression.distillation.teachers.fingerprint import digest_of
from model_compression.engine.observer import Observer
from model_compression.exporting import verify as verification
from model_compression.exporting import write
from model_compression.exporting.runtimes import RUNTIMES, names_by_suffix, open_file
from model_compression.exporting.verify import BOUND, Verification

_MAX_DROP = 0.5  # points


@dataclass(frozen=True, kw_only=True, repr=False)
class Exported:
    """A file for another runtime, and how it answers beside its network."""

    path: Path
    size_bytes: int
    verification: Verification
    facts: dict[str, Any]
    """What the network's own file states."""
    exact: bool = True
    """Whether the file computes in float32, and must answer as the network does but for rounding."""
    fault: str | None = None
    """What is wrong; None where the file answers as the network does."""

    def __repr__(self) -> str:
        found = self.verification
        value = f"{found.metric.label} {found.metric.text(found.value)}"
        said = f"not verified: {self.fault}" if self.fault else f"verified on {found.images:,} {found.noun}"
        return f"<{self.path}: {self.size_bytes:,} bytes, {value}, {said}>"


@described
@checked_arguments
def export(
    model: Model,
    out: str | Path,
    data: Data = None,
    *,
    to: str | None = None,
    preprocessing: bool = True,
    force: bool = False,
    observer: Observer | None = None,
    progress: bool | None = None,
    trust: bool = False,
) -> Exported:
    """Writes a network for another runtime, and proves on every test image that the file answers alike.

    Example:
        >>> mc.export("runs/labels", "small.onnx")
        <small.onnx: ... bytes, accuracy ...%, verified on ... images>

    Args:
        model: as `evaluate` takes it.
        out: the file; its ending says for which runtime, as .onnx or .pt2.
        data: as `evaluate` takes it.
        to: the runtime's name, where the ending does not tell.
        preprocessing: whether the file takes uint8 RGB pixels; else normalised float32 images.
        force: whether an existing file is replaced.
        observer, progress, trust: `api.argument_texts`.

    Raises:
        UsageError: another ending, or ``out`` exists.
        NotVerifiedError: the file does not answer as the network does; it is not written.
        MissingExtraError: what writes or runs such files is not installed.
    """
    path, kinds = user_path(str(out)), names_by_suffix()
    if to is None and path.suffix not in kinds:
        raise UsageError(f"{setting('out')} must end in {' or '.join(kinds)}, got {out}")
    kind = to or kinds[path.suffix]
    RUNTIMES.create(kind).check()
    if path.exists() and not force:
        raise UsageError(f"{path} exists; choose another {setting('out')}, or replace it with {setting('force', True)}")
    give_names(model, data)
    with watched(observer, progress, trust) as watcher:
        _, test = load_datasets(data, model, watcher)
        network = load_network(model, test, watcher)
        watcher.message(f"writing {path}, and comparing its answers to {len(test):,} {test.noun} with the network's")
        found = write.export(network, path, test, to=kind, preprocessing=preprocessing, report=watcher.message)
    return Exported(path=path, size_bytes=path.stat().st_size, verification=found, facts=network.facts)


@described
@checked_arguments
def verify(
    file: str | Path,
    model: Model,
    data: Data = None,
    *,
    bound: float | None = None,
    max_drop: float | None = None,
    observer: Observer | None = None,
    progress: bool | None = None,
    trust: bool = False,
) -> Exported:
    """Compares an exported file with the network that it was made of, on every test image, in the file's own runtime.

    Example:
        >>> mc.verify("student.onnx", "runs/labels").fault is None
        True

    Args:
        file: what `export`, `quantize` or `compress` wrote.
        model: the network, as `evaluate` takes it.
        data: as `evaluate` takes it.
        bound: largest difference of a logit as a share of their range, for a file in float32 (default: 1e-4).
        max_drop: points of accuracy that a file of fewer bits may lose (default: 0.5).
        observer, progress, trust: `api.argument_texts`.

    Raises:
        UsageError: an argument that does not go with the file, or data of other classes.
        FileFormatError: the file was not written by this package.
    """
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise UsageError(f"{setting('max_drop')} must lie between 0 and 100 points, got {max_drop}; 0.5 is usual")
    if bound is not None and not 0 < bound < 1:
        raise UsageError(f"{setting('bound')} must lie between 0 and 1, got {bound}; 1e-4 is usual")
    give_names(model, data)
    path = user_path(str(file))
    with watched(observer, progress, trust) as watcher:
        known = open_file(path).metadata
        exact = known.precision == "float32"
        if (max_drop if exact else bound) is not None:
            useless, used = ("max_drop", "bound") if exact else ("bound", "max_drop")
            raise UsageError(
                f"{setting(useless)} has no effect on a file of {known.precision}, which is held to {setting(used)}; "
                "leave it out"
            )
        _, test = load_datasets(data, model, watcher)
        network = load_network(model, test, watcher)
        found = verification.verify(path, network, test)
    fault = found.fault(bound or BOUND) if exact else found.drop_fault(_MAX_DROP if max_drop is None else max_drop)
    if not exact and digest_of([write.freeze(network)]) not in (known.weights_sha256, known.reference_sha256):
        fault = "it was made of other weights; give the run or file that it was made of"
    size = path.stat().st_size
    return Exported(path=path, size_bytes=size, verification=found, facts=network.facts, exact=exact, fault=fault)
