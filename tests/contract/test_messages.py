"""The library names options as Python has them; only the command line, by one function, turns them into flags."""

import ast
import re
from pathlib import Path

import pytest

import model_compression

ROOT = Path(model_compression.__file__).parent
OWN = ("cli", "classic")  # what has flags
COMMANDS = re.compile(r"model-compression [a-zX-]+ .*?--|pip install --|var\(--")  # whole ones, as they are typed
OTHERS = {"data/cifar_sources.py"}  # calls npm


def texts(tree):
    """All texts of a module but its docstrings; the parts of an f-string are one."""
    nodes = list(ast.walk(tree))
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    inside |= {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.rglob("*.py")) if path.relative_to(ROOT).parts[0] not in OWN],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_module_of_the_library_names_a_flag(path):
    if path.relative_to(ROOT).as_posix() in OTHERS:
        return
    named = [
        f"line {line}: {text}"
        for line, text in texts(ast.parse(path.read_text(encoding="utf-8")))
        if re.search(r"(?<![\w-])--[a-z]", text) and not COMMANDS.search(text)
    ]
    assert named == []
