"""Devices and precisions by name."""

import subprocess
import sys

import pytest
import torch

from model_compression.core.device import autocast, choose_compile, choose_device, choose_precision, seed_device
from model_compression.core.errors import UsageError

CPU = torch.device("cpu")


def test_device_is_what_is_asked_for_or_the_best_there_is():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cuda", "mps", "cpu")


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_device_that_is_not_there_is_refused(kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    with pytest.raises(UsageError, match=f"device '{kind}' is not available here; use device='cpu' or auto"):
        choose_device(kind)


def test_device_of_an_unknown_name_is_refused():
    with pytest.raises(UsageError, match="device must be auto, cpu, cuda or mps, got 'gpu'"):
        choose_device("gpu")


@pytest.mark.parametrize("fast", [True, False])
def test_precision_is_bfloat16_where_the_processor_computes_in_it(monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    assert choose_precision("auto", CPU) == (torch.bfloat16 if fast else torch.float32)
    assert choose_precision("native", CPU) == choose_precision("auto", CPU)
    assert choose_precision("fp32", CPU) == torch.float32
    assert choose_precision("bf16", CPU) == torch.bfloat16
    assert choose_precision("fp16", CPU) == torch.float16


def test_autocast_is_off_in_float32():
    weights = torch.ones(2, 2)
    for kind in (torch.float32, torch.bfloat16):
        with autocast(CPU, kind):
            assert (weights @ weights).dtype == kind
    assert (weights @ weights).dtype == torch.float32


def test_seed_device_is_manual_seed_for_the_cpu():
    seed_device(CPU, 2**62 + 3)
    found = torch.rand(4)
    torch.manual_seed(2**62 + 3)
    assert torch.equal(found, torch.rand(4))


_FAULTS = """
import ctypes, resource, sys, torch
from model_compression.core.device import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory(torch.device("cpu"))
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(64 << 20))
    libc.memset(block, 1, 64 << 20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
pages(), pages()
print(max(pages() for _ in range(5)))
"""


def test_compiling_is_for_long_runs_on_a_gpu_or_when_it_is_asked_for(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setenv("CXX", sys.executable)  # any program that is there
    assert not choose_compile("auto", CPU, 10**6)
    assert not choose_compile("auto", cuda, 100)
    assert choose_compile("auto", cuda, 10**6)
    assert choose_compile("on", CPU, 1)
    assert not choose_compile("off", cuda, 10**6)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not choose_compile("auto", cuda, 10**6)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler, and none was found"):
        choose_compile("on", CPU, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_freed_memory_is_kept_for_the_next_one():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, check=True).stdout)
        for how in ("kept", "given_back")
    }
    assert faults["given_back"] > 1000  # 16,384 pages of 4 kB, some of them cleared several at once
    assert faults["kept"] < 20
