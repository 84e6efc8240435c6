"""Imports point one way, as DESIGN.md has it: upper parts use lower ones, parts beside each other do not meet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import model_compression

PACKAGE = Path(model_compression.__file__).parent
# From the top down; each may import what is in the lines below its own.
ORDER = (
    {"__main__"},
    {"cli"},
    {"recipes", "compress"},
    {"export"},
    {"train", "importers"},
    {"teachers"},
    {"methods", "models", "data", "report"},
    {
        "_version",
        "checked_arguments",
        "checked_config",
        "config",
        "console",
        "counter_random",
        "errors",
        "files",
        "hub_connection",
        "manifest",
        "outputs",
        "own_modules",
        "registry",
        "safe_pickle",
        "sealed",
        "trust",
    },
)
BASE = ORDER[-1]
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}


def imported_parts(source):
    """The parts of the package that a module imports anywhere in it, also inside functions and for types only."""
    parts = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: the package imports by full names"
            if node.module == "model_compression":
                parts |= {alias.name for alias in node.names}
            elif node.module.startswith("model_compression."):
                parts.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            parts |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("model_compression.")}
    return parts


def forbidden_imports(part, source):
    """What a module of ``part`` imports and may not."""
    others = imported_parts(source) - {part}
    if part in BASE or part == "report":
        return sorted(others - BASE)
    return sorted(other for other in others if other not in RANK or RANK[other] <= RANK[part])


MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def test_every_part_has_a_place_in_the_order():
    parts = {Path(module).parts[0].removesuffix(".py") for module in MODULES} - {"__init__"}
    assert parts <= RANK.keys()


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__.py"])
def test_imports_point_one_way(module):
    part = Path(module).parts[0].removesuffix(".py")
    assert forbidden_imports(part, (PACKAGE / module).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("part", "source", "forbidden"),
    [
        ("methods", "from model_compression.models.base import Network", ["models"]),
        ("methods", "def f():\n    import model_compression.train.trainer", ["train"]),
        ("data", "from model_compression import models", ["models"]),
        ("teachers", "from model_compression.importers.npy import read_npy", ["importers"]),
        ("train", "from model_compression.importers import npy", ["importers"]),
        ("report", "from model_compression.data.dataset import Dataset", ["data"]),
        ("config", "from model_compression.data import dataset", ["data"]),
        ("teachers", "from model_compression.data.loader import Batch", []),
        ("report", "from model_compression.config import TrainConfig\nfrom model_compression.files import x", []),
        ("recipes", "from model_compression.train import runs\nimport torch", []),
    ],
)
def test_imports_one_way_is_held_by_the_reader_itself(part, source, forbidden):
    assert forbidden_imports(part, source) == forbidden


def modules_loaded_by(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules), file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, set(done.stderr.split())


def test_help_imports_no_torch():
    shown, loaded = modules_loaded_by("from model_compression.cli.main import main\nassert main(['--help']) == 0")
    assert "usage: model-compression" in shown
    assert "model_compression.cli.main" in loaded
    assert not {"torch", "numpy", "matplotlib"} & loaded


def test_report_imports_no_torch():
    names = [path.stem for path in (PACKAGE / "report").glob("*.py")]
    code = "\n".join(f"import model_compression.report.{name}" for name in names if name != "__init__")
    _, loaded = modules_loaded_by(code or "import model_compression.report")
    assert "model_compression.report" in loaded
    assert "torch" not in loaded
