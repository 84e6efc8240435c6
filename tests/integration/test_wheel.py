"""A wheel that is built from the tree works outside it, with the weights inside."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from written_runs import write_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools leaves its own folders in the tree, and takes what it finds in old ones."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    build = [*PIP, "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", out, tree]
    subprocess.run(build, check=True, stdin=subprocess.DEVNULL)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel's content; its requirements are those of the tests' own environment."""
    target = tmp_path_factory.mktemp("site")
    install = [*PIP, "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(install, check=True, stdin=subprocess.DEVNULL)
    return target


def run_outside(installed, folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_types_licence_and_all_weights(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    weights = {path.name for path in (ROOT / "src/model_compression/weights").glob("*.safetensors")}
    assert "model_compression/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {Path(name).name for name in names if name.endswith(".safetensors")} == weights
    assert not [name for name in names if name.startswith(("tests", "src"))]


def test_wheel_is_what_runs_outside_the_tree(installed, tmp_path):
    code = "import model_compression; print(model_compression.__file__)"
    assert Path(run_outside(installed, tmp_path, "-c", code).strip()).is_relative_to(installed)


def test_wheel_shows_help(installed, tmp_path):
    shown = run_outside(installed, tmp_path, "-m", "model_compression.cli.main", "--help")
    assert "usage: model-compression" in shown


def test_wheel_loads_every_shipped_network(installed, tmp_path):
    code = """
import json, torch
from model_compression.models.loading import load_model
from model_compression.models.weights import shipped_weights
shapes = {}
for name in shipped_weights():
    model = load_model(name).eval()
    with torch.no_grad():
        shapes[name] = list(model(model.preprocessing(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))).shape)
print(json.dumps(shapes))
"""
    shapes = json.loads(run_outside(installed, tmp_path, "-c", code))
    weights = sorted((ROOT / "src/model_compression/weights").glob("*.safetensors"))
    assert shapes == {path.stem: [2, 10] for path in weights}


def test_wheel_writes_a_report(installed, tmp_path):
    write_run(tmp_path / "run")
    run_outside(installed, tmp_path, "-m", "model_compression.cli.main", "report", "run")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_wheel_draws_a_network(installed, tmp_path):
    run_outside(installed, tmp_path, "-m", "model_compression.cli.main", "draw", "lenet")
    assert (tmp_path / "lenet.svg").is_file()
