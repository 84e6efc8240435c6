"""List the distillation methods, or describe one: paper, requirements, terms, weights and parameters."""

import argparse
import inspect
import re
import sys
import textwrap
from typing import Any

from model_compression.core.console import json_text, table
from model_compression.core.text import markdown_table

EXAMPLES = """examples:
  model-compression methods
  model-compression methods kd
"""

_FAMILIES = {
    "logit": "Compare predictions: for any two networks; the teacher's can be stored",
    "feature": "Compare features of layers, in pairs of teacher and student (see `features`)",
    "relation": "Compare relations between images",
    "embedding": "Match embeddings of networks without a head (see `distill --task embedding`)",
    "plug-in": "From other packages",
}
_WIDTH = 80


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="method to describe (default: list all)")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/methods.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Prints the list or the method; returns the exit code."""
    from model_compression.distillation.methods import METHODS

    if args.name is not None:
        METHODS.get(args.name)  # raises, with near matches
    facts = [_facts(name) for name in ([args.name] if args.name else METHODS.names())]
    if args.json:
        print(json_text(facts[0] if args.name else {"methods": facts}))
    elif args.markdown:
        print(_markdown(facts))
    elif args.name:
        print(_text(facts[0]))
    else:
        print(_list(facts))
        for reason in METHODS.broken.values():
            print(reason, file=sys.stderr)
        print("\nStart with kd. `methods NAME` describes a method; `--method a,b` adds two.")
    return 0


def _facts(name: str) -> dict[str, Any]:
    from model_compression.distillation.methods import METHODS, Method, create

    kind, method = METHODS.get(name), create(name)
    module = inspect.getdoc(sys.modules[kind.__module__]) or ""
    parameters = inspect.signature(kind).parameters.values()
    return {
        "name": name,
        "family": family if (family := kind.__module__.split(".")[-2:][0]) in _FAMILIES else "plug-in",
        "paper": " ".join(module.partition("\n\n")[0].split()),
        "needs": sorted(method.needs),
        "needs_teacher": method.needs_teacher,
        "weights": dict(method.default_weights),
        "warmup": method.default_warmup,
        "label_weight": method.default_label_weight,
        "parameters": {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD},
        "description": _own_doc(kind, Method),
        "terms": _own_doc(kind.forward, Method.forward),  # type: ignore[attr-defined]
    }


def _own_doc(what: object, base: object) -> str:
    """Its docstring or that of a parent; empty where it is that of ``base``, which addresses authors of methods."""
    text = inspect.getdoc(what) or ""
    return "" if text == inspect.getdoc(base) else text


def _list(facts: list[dict[str, Any]]) -> str:
    """The methods by family: each with what it does and its paper."""
    parts = []
    for family, title in _FAMILIES.items():
        own = sorted((fact for fact in facts if fact["family"] == family), key=lambda fact: fact["name"])
        rows = [(f"  {fact['name']}", f"{_what(fact)}\n{_short(fact['paper'])}") for fact in own]
        parts += [f"{textwrap.fill(title, _WIDTH)}\n{table(rows, left=2)}"] if own else []
    return "\n\n".join(parts)


def _what(fact: dict[str, Any]) -> str:
    """The first paragraph of its description, on one line."""
    return " ".join(fact["description"].partition("\n\n")[0].split())


def _markdown(facts: list[dict[str, Any]]) -> str:
    rows = []
    for fact in sorted(facts, key=lambda fact: ([*_FAMILIES].index(fact["family"]), fact["name"])):
        authors = re.match(r"[^(]*\(([^)]*?\b\d{4})", fact["paper"])
        number = re.search(r"arXiv (\d+\.\d+)", fact["paper"])
        paper = authors.group(1) if authors else fact["paper"]
        if number:
            paper = f"[{paper}](https://arxiv.org/abs/{number.group(1)})"
        weights = f"{_weights(fact)}; {fact['label_weight']:g}"
        rows.append((f"`{fact['name']}`", _what(fact), paper, _needs(fact), weights))
    return markdown_table(("method", "what it does", "paper", "needs", "weights; labels"), rows, left=5)


def _needs(fact: dict[str, Any]) -> str:
    return ", ".join(fact["needs"]) + ("" if fact["needs_teacher"] else ", no teacher")


def _weights(fact: dict[str, Any]) -> str:
    return ", ".join(f"{term} {weight:g}" for term, weight in fact["weights"].items())


def _short(paper: str) -> str:
    """As "Knowledge distillation (Hinton et al. 2015)"."""
    found = re.match(r"[^(]*\([^)]*?\b\d{4}", paper)
    return f"{found.group()})" if found else paper


def _text(fact: dict[str, Any]) -> str:
    parameters = ", ".join(f"{name}={value!r}" for name, value in fact["parameters"].items()) or "none"
    rising = f", rising over the first {fact['warmup']:.0%} of the steps" if fact["warmup"] else ""
    rows = {
        "terms": fact["terms"] or ", ".join(fact["weights"]),
        "weights": f"{_weights(fact)}{rising}; labels {fact['label_weight']:g}",
        "needs": _needs(fact),
        "parameters": parameters,
    }
    paper, description = (
        fact["paper"] or "its file has no docstring",
        fact["description"] or "Its class has no docstring.",
    )
    lines = [*_wrap(f"{fact['name']}: {paper}", indent=2), "", *_reflow(description), ""]
    described = table([(name, " ".join(text.split())) for name, text in rows.items()], left=2)
    return "\n".join([*lines, described])


def _reflow(docstring: str) -> list[str]:
    """Paragraphs, and arguments with hanging indents, within 80 columns."""
    lines: list[str] = []
    block = ""
    for line in [*docstring.splitlines(), ""]:
        is_item = re.match(r" {4}\S", line)
        if block and (is_item or not line or block == "Args:"):
            lines += _wrap(block, indent=8 if block.startswith(" ") else 0)
            block = ""
        if not line:
            lines.append("")
        block = f"{block} {line.strip()}" if block else line
    return lines[:-1]


def _wrap(text: str, indent: int) -> list[str]:
    """Lines of 80 columns at most, all but the first indented; a name that is longer stays whole."""
    return textwrap.wrap(text, _WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
