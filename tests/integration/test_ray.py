"""Runs on a Ray cluster of two machines, which are two sets of processes here."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from model_compression.models import create_model
from model_compression.models.weights import save_weights

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def cluster():
    """The address of a cluster whose two machines have a processor each."""
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    machines.add_node(num_cpus=1)
    try:
        yield machines.address
    finally:
        ray.shutdown()
        machines.shutdown()


@pytest.fixture
def command(tmp_path):
    """Function of more arguments: starts a comparison in ``tmp_path``."""
    save_weights(tmp_path / "teacher.safetensors", create_model("lenet-caffe", seed=9))
    options = ["--student", "lenet-caffe", "--data", "synthetic", "--epochs", "3", "--batch-size", "8", "--seeds", "1"]
    options += ["--precision", "fp32", "--device", "cpu", "--teacher", "teacher.safetensors", "--allow-weak-teacher"]
    options += ["--methods", "kd", "--json"]

    def start(name, *more):
        arguments = ["compare-methods", *options, "--out", name, *more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        program = [sys.executable, "-m", "model_compression", *arguments]
        return subprocess.Popen(program, cwd=tmp_path, env=ENVIRONMENT, **pipes)

    return start


def workers_in(folder):
    """The processes of runs whose working folder is ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if (entry / "cwd").resolve() == folder and b"experiments.worker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_for(path, process):
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_runs_on_a_cluster_are_those_of_this_machine_also_when_their_processes_are_killed(cluster, command, tmp_path):
    process = command("far", "--executor", f"ray:{cluster}", "--jobs", "2")
    wait_for(tmp_path / "runs/far/labels-seed0/events.jsonl", process)
    wait_for(tmp_path / "runs/far/kd-seed0/config.json", process)
    for number in workers_in(tmp_path):
        os.kill(number, signal.SIGKILL)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "it is made again from its saved state" in err
    assert not json.loads(out)["failed"]
    near = command("near")
    near.communicate(timeout=400)
    assert near.returncode == 0
    for name in ("labels-seed0", "kd-seed0"):
        here, there = ((tmp_path / "runs" / out / name / "student.safetensors").read_bytes() for out in ("near", "far"))
        assert here == there


def test_cluster_that_is_not_there_is_said(command):
    process = command("out", "--executor", "ray:127.0.0.1:1")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    said = "model-compression compare-methods: error: no Ray cluster answers at 127.0.0.1:1: "
    assert err.splitlines()[-1].startswith(said)
