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
    {"classic"},
    {"api"},
    {"diagnosis", "experiments"},
    {"compression"},
    {"exporting"},
    {"engine"},
    {"checks"},
    {"distillation"},
    {"tasks"},
    {"models"},
    {"data", "reports"},
    {"core"},
    {"_version"},
)
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}


def imported_modules(source):
    """The modules of the package that a module imports anywhere in it, also inside functions and for types only."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: the package imports by full names"
            if node.module.partition(".")[0] == "model_compression":
                whole = [f"{node.module}.{alias.name}".partition(".")[2] for alias in node.names]
                modules |= {name if name in NAMES else name.rpartition(".")[0] for name in whole}
        elif isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[2] for alias in node.names if "model_compression." in alias.name}
    return modules - {""}


def forbidden_imports(part, source):
    """What a module of ``part`` imports and may not."""
    others = {module.partition(".")[0] for module in imported_modules(source)} - {part}
    if part == "reports":  # which read run folders, without torch
        return sorted(others - {"core", "_version"})
    return sorted(other for other in others if other not in RANK or RANK[other] <= RANK[part])


MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
NAMES = {module.removesuffix(".py").removesuffix("/__init__").replace("/", "."): module for module in MODULES}


def test_every_part_has_a_place_in_the_order():
    parts = {Path(module).parts[0].removesuffix(".py") for module in MODULES} - {"__init__"}
    assert parts <= RANK.keys()


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__.py"])
def test_imports_point_one_way(module):
    part = Path(module).parts[0].removesuffix(".py")
    assert forbidden_imports(part, (PACKAGE / module).read_text(encoding="utf-8")) == []


def test_no_modules_import_each_other_in_a_circle():
    left = {name: imported_modules((PACKAGE / module).read_text("utf-8")) for name, module in NAMES.items()}
    left.pop("__init__")
    while free := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


@pytest.mark.parametrize(
    ("part", "source", "forbidden"),
    [
        ("distillation", "from model_compression.engine.trainer import Trainer", ["engine"]),
        ("distillation", "def f():\n    import model_compression.engine.trainer", ["engine"]),
        ("data", "from model_compression import models", ["models"]),
        ("data", "from model_compression.models.base import Network", ["models"]),
        ("engine", "from model_compression.classic import npy", ["classic"]),
        ("reports", "from model_compression.data.dataset import Dataset", ["data"]),
        ("core", "from model_compression.data import dataset", ["data"]),
        ("distillation", "from model_compression.data.batches import Batch", []),
        ("reports", "from model_compression.core.config import TrainConfig", []),
        ("experiments", "from model_compression.engine import runs\nimport torch", []),
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
    names = [path.stem for path in (PACKAGE / "reports").glob("*.py")]
    code = "\n".join(f"import model_compression.reports.{name}" for name in names if name != "__init__")
    _, loaded = modules_loaded_by(code or "import model_compression.reports")
    assert "model_compression.reports" in loaded
    assert "torch" not in loaded
