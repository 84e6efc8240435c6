"""What a measurement was taken on, and where it is written."""

import datetime
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from model_compression.core.files import write_atomically

FOLDER = Path("results/benchmarks")
_PACKAGES = ("torch", "torchvision", "torchdistill", "numpy", "safetensors")


def surroundings(device: torch.device, *packages: str) -> dict[str, Any]:
    """Date, hardware and versions, those of further ``packages`` as well."""
    facts: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in (*_PACKAGES, *packages) if _installed(name)},
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def write(name: str, content: dict[str, Any], text: str, folder: Path = FOLDER) -> None:
    """Writes NAME.json and NAME.md in ``folder``."""
    for suffix, payload in ((".json", json.dumps(content, indent=1) + "\n"), (".md", text)):
        write_atomically(folder / f"{name}{suffix}", payload.encode())
        print(folder / f"{name}{suffix}")


def line(facts: dict[str, Any]) -> str:
    """`surroundings` in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    where = facts.get("gpu") or f"{facts['cores']} cores of {facts['processor']}"
    return f"{facts['date']}, {where}, Python {facts['python']}, {versions}"


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    """The model's name, with the family and model number where a virtual machine hides the rest."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return f"{facts.get('model name', '')} (family {facts.get('cpu family')}, model {facts.get('model')})"
