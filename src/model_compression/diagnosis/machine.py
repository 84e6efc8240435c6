"""The machine: versions, processor, memory and disks."""

import importlib
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from model_compression.core.device import autocast
from model_compression.core.errors import reason_of
from model_compression.core.finding import Finding, Level
from model_compression.core.free_memory import available_memory_bytes
from model_compression.core.options import setting
from model_compression.distillation.teachers.store import cache_folder

_GIB = 2**30
_MEMORY = (1 * _GIB, 4 * _GIB)  # too little, little
_DISK = (_GIB // 2, 5 * _GIB)
_EXTRA = re.compile(r"([A-Za-z0-9._-]+).*;\s*extra == .(\w+)")
_FOR_DEVELOPERS = ("test", "bench", "fuzz", "dev")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*>=\s*([0-9.]+)$")


def examine_machine(device: torch.device, runs: Path) -> Iterator[Finding]:
    """Findings on this machine; runs are to be written below ``runs``."""
    yield _versions()
    yield _extras()
    yield _threads() if device.type == "cpu" else _gpu(device)
    yield _bfloat16(device)
    free = available_memory_bytes()
    yield Finding(
        area="machine",
        subject="memory",
        level=_enough(free, _MEMORY),
        text=f"{free / _GIB:.1f} GiB are free",
        remedy=""
        if free >= _MEMORY[1]
        else f"end other programs, or take a smaller {setting('batch_size')} and {setting('resident', 'off')}",
    )
    yield _disk("disk, answers", cache_folder(), "MODEL_COMPRESSION_CACHE names another folder")
    yield _disk("disk, runs", runs, f"{setting('out')} names another folder")


def _versions() -> Finding:
    """Those of the packages that this one needs, as its metadata have them."""
    try:
        needed = metadata.requires("model-compression") or []
    except metadata.PackageNotFoundError:
        needed = []
    bounds = [found.groups() for line in needed if (found := _REQUIREMENT.fullmatch(line))]
    old = [f"{name} {metadata.version(name)} (needs {low})" for name, low in bounds if is_older(name, low)]
    if old:
        return Finding(
            area="machine",
            subject="versions",
            level="fail",
            text=f"too old: {', '.join(old)}",
            remedy="pip install --upgrade model-compression",
        )
    broken = _broken([name for name, _ in bounds])
    if broken:
        return Finding(
            area="machine",
            subject="versions",
            level="fail",
            text=f"installed, but cannot be imported: {'; '.join(broken)}",
            remedy="pip install --force-reinstall model-compression",
        )
    return Finding(
        area="machine",
        subject="versions",
        level="ok",
        text=f"torch {torch.__version__}, {len(bounds)} packages as needed",
    )


def _extras() -> Finding:
    """The packages of this one's extras that are installed: a broken one is missed only when a run needs it."""
    lines = metadata.requires("model-compression") or [] if _is_installed("model-compression") else []
    named = {found[1] for line in lines if (found := _EXTRA.match(line)) and found[2] not in _FOR_DEVELOPERS}
    installed = sorted(name for name in named - {"model-compression"} if _is_installed(name))
    broken = _broken(installed)
    return Finding(
        area="machine",
        subject="extras",
        level="warn" if broken else "ok",
        text=f"installed, but cannot be imported: {'; '.join(broken)}" if broken else ", ".join(installed) or "none",
        remedy="install versions that fit each other, as: pip install --force-reinstall 'model-compression[all]'"
        if broken
        else "",
    )


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _broken(packages: Iterable[str]) -> list[str]:
    """Those that raise when they are imported, each with its error in a line."""
    modules = metadata.packages_distributions()
    found = []
    for package in packages:
        own = [
            module
            for module, owners in modules.items()
            if _plain(package) in map(_plain, owners) and not module.startswith("_")
        ]
        name = package.replace("-", "_")
        module = name if name in own else next(iter(own), None)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of theirs, about themselves
                importlib.import_module(module or name)
        except Exception as error:  # they can raise anything
            found.append(f"{package} ({type(error).__name__}: {reason_of(error)})")
    return found


def _plain(package: str) -> str:
    """Its name as indexes compare names: metadata may spell it with other signs."""
    return re.sub(r"[-_.]+", "-", package).lower()


def is_older(name: str, low: str) -> bool:
    """Whether the installed package ``name`` is older than ``low``, by the numbers of both."""
    return _numbers(metadata.version(name)) < _numbers(low)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _threads() -> Finding:
    threads = torch.get_num_threads()
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{threads} to compute with, {processors} processors"
    if threads > processors:
        remedy = f"they hinder each other: set OMP_NUM_THREADS={processors}"
    elif 2 * threads <= processors and "OMP_NUM_THREADS" in os.environ:
        remedy = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} leaves processors idle; unset it for one run alone"
    else:
        remedy = ""
    return Finding(area="machine", subject="threads", level="warn" if remedy else "ok", text=text, remedy=remedy)


def _gpu(device: torch.device) -> Finding:
    if device.type != "cuda":
        return Finding(area="machine", subject="device", level="ok", text=device.type)
    free, total = torch.cuda.mem_get_info()
    text = f"{torch.cuda.get_device_name()}, {free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    crowded = free < total / 2
    remedy = "another program holds its memory: see nvidia-smi" if crowded else ""
    return Finding(area="machine", subject="device", level="warn" if crowded else "ok", text=text, remedy=remedy)


def _bfloat16(device: torch.device) -> Finding:
    """How much faster it is where the precision "auto" takes it unmeasured."""
    seconds = {kind: _step_seconds(device, kind) for kind in (torch.float32, torch.bfloat16)}
    gain = seconds[torch.float32] / seconds[torch.bfloat16]
    text = (
        f"a step of two convolutions in bfloat16 is {gain:.2g} times as fast as in float32; "
        f"{setting('precision', 'auto')} measures the network that is trained"
    )
    return Finding(area="machine", subject="bfloat16", level="ok", text=text)


def _step_seconds(device: torch.device, kind: torch.dtype) -> float:
    """Least time of a forward and backward pass of two convolutions: what else runs only adds to it.

    Nine passes, fewer where they take long, as in bfloat16 on a processor without it.
    """
    batch, width = (8, 32) if device.type == "cpu" else (32, 64)
    with torch.random.fork_rng(devices=[]):
        layers = nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        model = nn.Sequential(*layers).to(device)
        images = torch.rand(batch, 3, 32, 32, device=device)
    times: list[float] = []
    while len(times) < 2 or (len(times) < 9 and sum(times) < 0.3):
        begun = time.perf_counter()
        with autocast(device, kind):
            loss = model(images).float().square().mean()
        loss.backward()
        float(loss.detach())  # waits for the device
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def _disk(subject: str, folder: Path, elsewhere: str) -> Finding:
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Finding(
            area="machine",
            subject=subject,
            level="fail",
            text=f"nothing can be written to {there}",
            remedy=f"change its permissions; {elsewhere}",
        )
    free = shutil.disk_usage(there).free
    level = _enough(free, _DISK)
    remedy = "" if level == "ok" else f"free some space; {elsewhere}"
    return Finding(
        area="machine", subject=subject, level=level, text=f"{free / _GIB:.1f} GiB free below {there}", remedy=remedy
    )


def _enough(free: int, bounds: tuple[int, int]) -> Level:
    return "fail" if free < bounds[0] else "warn" if free < bounds[1] else "ok"
