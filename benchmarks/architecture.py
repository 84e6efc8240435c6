"""Draws the parts of the package, each above all that it imports: python -m benchmarks.architecture

Writes docs/pictures/architecture.svg from the imports and from the first line of each __init__.py.
"""

import ast
import re
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "model_compression"
OUT = ROOT / "docs" / "pictures" / "architecture.svg"
_WIDTH, _HEIGHT, _GAP = 10.0, 0.78, 0.12  # inches


def parts() -> dict[str, set[str]]:
    """The folders of the package, each with those that it imports."""
    names = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    found: dict[str, set[str]] = {}
    for name in sorted(names):
        sources = [path.read_text(encoding="utf-8") for path in (PACKAGE / name).rglob("*.py")]
        imported = {part for text in sources for part in re.findall(r"\bmodel_compression\.(\w+)", text)}
        found[name] = (imported & names) - {name}
    return found


def layers(imports: dict[str, set[str]]) -> list[list[str]]:
    """The parts in rows, from the bottom up; a part is in the lowest row that is above all that it imports."""
    rows: list[list[str]] = []
    left = dict(imports)
    while left:
        free = sorted(name for name, needed in left.items() if not needed & left.keys())
        assert free, f"a circle among {sorted(left)}"
        rows.append(free)
        for name in free:
            del left[name]
    return rows


def description(name: str) -> str:
    """The first sentence of what the part says of itself."""
    text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8"))) or ""
    return re.split(r"\.(?:\s|$)", text, maxsplit=1)[0].replace("`", "")


def main() -> None:
    """Draws."""
    rows = layers(parts())
    plt.rcParams.update({"svg.hashsalt": "architecture", "svg.fonttype": "none"})  # the same picture, the same file
    figure, axes = plt.subplots(figsize=(_WIDTH, _HEIGHT * len(rows)))
    for height, row in enumerate(rows):
        width = _WIDTH / len(row)
        for place, name in enumerate(row):
            left, bottom = place * width + _GAP / 2, height * _HEIGHT + _GAP / 2
            box = plt.Rectangle(
                (left, bottom), width - _GAP, _HEIGHT - _GAP, facecolor="#eef3f8", edgecolor="#34648c", linewidth=1
            )
            axes.add_patch(box)
            axes.text(left + 0.12, bottom + 0.48, name, fontsize=11, weight="bold", va="center", color="#1c3d57")
            wrapped = textwrap.fill(description(name), round(width * 15) - 3)
            axes.text(left + 0.12, bottom + 0.2, wrapped, fontsize=7.5, va="center", color="#222222", linespacing=1.15)
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(0, _HEIGHT * len(rows))
    axes.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    figure.savefig(OUT, metadata={"Date": None})
    print(OUT.relative_to(ROOT))


if __name__ == "__main__":
    main()
