"""A folder with a tiny dataset, networks and runs, in which wrong calls are made; nothing outside of it is reached."""

import contextlib
import json
import multiprocessing.process
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image

from model_compression.compression import measure

CHEAP = [
    "--data",
    "folder:images",
    "--image-size",
    "8",
    "--epochs",
    "1",
    "--batch-size",
    "4",
    "--device",
    "cpu",
    "--compile",
    "off",
]


class WorkBegan(BaseException):
    """A call was accepted: it trains, or starts a process. The sweep ends it there."""


def began(*_: object, **__: object) -> NoReturn:
    """What training and starting a process are replaced by."""
    raise WorkBegan


def no_network(*_: object, **__: object) -> NoReturn:
    """What connecting to a server is replaced by."""
    raise ConnectionRefusedError(111, "the sweep has no network")


class Sandbox:
    """``folder``/work is where calls are made; `changes` says what one wrote, `restore` undoes it."""

    def __init__(self, folder: Path):
        self.folder, self.work, self._pristine = folder / "box", folder / "box" / "work", folder / "pristine"
        self.work.mkdir(parents=True)
        (self.folder / "home").mkdir()
        os.environ |= {
            "HOME": str(self.folder / "home"),
            "XDG_CACHE_HOME": str(self.folder / "home" / "cache"),
            "HF_HOME": str(self.folder / "home" / "hf"),
            "MODEL_COMPRESSION_CACHE": str(self.folder / "answers"),
            "MODEL_COMPRESSION_DATA": str(self.folder / "data"),
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "offline",
            "COLUMNS": "120",
        }
        os.chdir(self.work)
        self._fill()
        shutil.copytree(self.folder, self._pristine, symlinks=True)
        self._known = self._state()

    def _fill(self) -> None:
        from model_compression.cli.main import main

        rng = np.random.default_rng(0)
        for part, count in (("train", 4), ("test", 2)):
            for name in "abc":
                folder = self.work / "images" / part / name
                folder.mkdir(parents=True)
                for number in range(count):
                    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        shutil.copy(self.work / "images" / "train" / "a" / "0.png", "image.png")
        for name in ("txt", "onnx", "safetensors", "pt", "npy", "png", "json"):
            Path(f"text.{name}").write_text("no such thing\n")
        Path("binary.bin").write_bytes(bytes(range(256)) * 8)
        Path("empty").mkdir()
        Path("locked").mkdir(mode=0)
        Path("loop").symlink_to("loop")
        Path("broken-link").symlink_to("nosuch")
        runs = (
            ["train", *CHEAP, "--student", "resnet8", "--out", "teacher"],
            ["distill", *CHEAP, "--student", "resnet8", "--teacher", "teacher", "--allow-weak-teacher", "--out", "run"],
            ["export", "run", "--out", "student.onnx", "--data", "folder:images", "--image-size", "8"],
            ["export-npy", "lenet-cifar10", "--out", "weights.npy"],
        )
        for arguments in runs:
            if main(arguments):
                raise SystemExit(f"the sweep cannot be set up: {' '.join(arguments)} failed")
        self.config: dict[str, Any] = json.loads(Path("run/config.json").read_text())
        for name in ("pending", "pruning", "quantising", "compressing", "scheme"):
            Path(name).mkdir()
        Path("pending/config.json").write_text(json.dumps(self.config))
        shutil.copy("run/environment.json", "pending/environment.json")  # which `resume` writes if it lacks

    def _state(self) -> dict[str, tuple[int, int]]:
        state, open_folders = {}, [str(self.folder)]
        while open_folders:
            for entry in os.scandir(open_folders.pop()):
                found = entry.stat(follow_symlinks=False)
                is_folder = entry.is_dir(follow_symlinks=False)
                open_folders += [entry.path] if is_folder else []
                name = os.path.relpath(entry.path, self.folder)
                state[name] = (0, 0) if is_folder else (found.st_size, found.st_mtime_ns)
        return state

    def changes(self) -> list[str]:
        """Names of files and folders that are new, other or gone; locks, which hold nothing, do not count."""
        now = self._state()
        names = sorted(name for name in now.keys() | self._known.keys() if now.get(name) != self._known.get(name))
        return [name for name in names if not name.endswith((".lock", "__pycache__", ".pyc"))]

    def restore(self) -> None:
        """Everything is as it was in the beginning."""
        shutil.rmtree(self.folder)
        shutil.copytree(self._pristine, self.folder, symlinks=True)
        os.chdir(self.work)
        self._known = self._state()


@contextlib.contextmanager
def without_work() -> Iterator[None]:
    """Inside, training, processes and the network end a call at once; what it takes to get there is real."""
    places: tuple[tuple[Any, str, Any], ...] = (
        (torch.Tensor, "backward", began),
        (torch.autograd, "backward", began),
        (subprocess.Popen, "__init__", began),
        (multiprocessing.process.BaseProcess, "start", began),
        (torch.onnx, "export", began),
        (measure, "latency", began),
        (socket.socket, "connect", no_network),
        (socket, "getaddrinfo", no_network),
    )
    before = [getattr(owner, name) for owner, name, _ in places]
    for owner, name, other in places:
        setattr(owner, name, other)
    try:
        yield
    finally:
        for (owner, name, _), own in zip(places, before, strict=True):
            setattr(owner, name, own)
