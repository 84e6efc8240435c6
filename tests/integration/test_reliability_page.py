"""docs/reliability.md names tests that exist, and all fuzzing targets."""

import ast
import re
from pathlib import Path

import pytest
from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def test_page_names_a_test_for_every_row_of_its_fault_tables():
    assert len(NAMED) > 50
    rows = [line for line in PAGE.partition("## Fuzzing")[0].splitlines() if line.startswith("| ")]
    assert [row for row in rows if "`tests/" not in row and not row.startswith("| fault |")] == []


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED}))
def test_named_tests_exist(path):
    functions = {node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert [name for of, name in NAMED if of == path and name not in functions] == []


def test_page_names_every_fuzzing_target():
    rows = PAGE.partition("## Fuzzing")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", rows, flags=re.MULTILINE) == sorted(TARGETS)
