"""Which device and which precision a run uses."""

import contextlib
import ctypes
import os
import platform
import shutil
from collections.abc import Iterator

import torch

from model_compression.core.config import UNDECIDED
from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.core.registry import unknown_name

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_COMPILE_PAYS_FROM = 5_000  # steps: compiling takes some 40 s
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of mallopt(3)


def choose_device(name: str) -> torch.device:
    """The device that "auto", "cpu", "cuda" or "mps" names. Raises UsageError when it is not there."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if name not in available:
        raise UsageError(f"device must be auto, cpu, cuda or mps, got {name!r}")
    if not available[name]:
        raise UsageError(f"device {name!r} is not available here; use {setting('device', 'cpu')} or auto")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """float32, bfloat16 or float16 by name.

    "native" takes bfloat16 where the processor computes in it, else float32, and so does "auto" where nothing is
    trained that could be measured.
    """
    if name in PRECISIONS:
        return PRECISIONS[name]
    if name not in UNDECIDED:
        raise unknown_name("precision", name, [*UNDECIDED, *PRECISIONS])
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def lacks_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` is a processor that is known to compute bfloat16 in steps of float32."""
    known = device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
    return known and choose_precision("native", device) == torch.float32


def precision_name(precision: torch.dtype) -> str:
    """Inverse of `choose_precision`, as "bf16"."""
    return next(name for name, kind in PRECISIONS.items() if kind == precision)


def choose_compile(name: str, device: torch.device, steps: int) -> bool:
    """Whether "auto", "on" or "off" compiles a run of ``steps`` steps; "auto" does for long runs on a GPU.

    On a processor the convolutions are oneDNN's either way, and what is compiled around them has been slower
    (LeNet at batch 256: 1,430 images/s against 1,630). Raises UsageError where there is no C++ compiler to do it with.
    """
    if name == "off" or (name == "auto" and (device.type != "cuda" or steps < _COMPILE_PAYS_FROM)):
        return False
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), None)
    if compiler is None or not shutil.which(compiler):
        if name == "auto":
            return False
        raise UsageError(
            f"{setting('compile', 'on')} needs a C++ compiler, and none was found; install g++, or use "
            f"{setting('compile', 'auto')}"
        )
    return True


@contextlib.contextmanager
def autocast(device: torch.device, precision: torch.dtype) -> Iterator[None]:
    """Mixed precision where ``precision`` is not float32."""
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        yield


def seed_device(device: torch.device, seed: int) -> None:
    """Seeds the generators that computations on ``device`` draw from, and no other's, as torch.manual_seed would."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def keep_freed_memory(device: torch.device) -> None:
    """Makes glibc keep what the tensors of a step leave for those of the next one.

    By default it gives tensors of 32 MB and more back to the kernel, which clears their pages anew in every step: an
    eighth of the time of NIN's. The process keeps the memory of its largest step until it ends. Does nothing where
    there is no glibc, or where a GPU trains.
    """
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_freed_memory_back(device: torch.device) -> None:
    """Undoes `keep_freed_memory`, once memory has run out: what a smaller step does not need is the system's again."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 65_536)  # glibc's own values
        libc.mallopt(_M_MMAP_THRESHOLD, 128 * 1024)
        libc.mallopt(_M_TRIM_THRESHOLD, 128 * 1024)
        libc.malloc_trim(0)
