"""What an answer is, and how it is judged, is written where a task or a source of images is, and nowhere else."""

import io
import re
import tokenize
from pathlib import Path

import pytest

import model_compression

PACKAGE = Path(model_compression.__file__).parent
WORDS = re.compile(r"accurac|argmax|class_names|confusion", re.IGNORECASE)
# Parts whose subject is images with one class each, or that hold the names of files and flags which stay as they are.
OWN = ("tasks/", "classic/", "reports/sections/")
ALLOWED = {
    "api/compression.py": "min_accuracy, which bounds the primary metric of any task",
    "api/given_data.py": "arrays of images with class names, and what to do with one-hot labels",
    "cli/compress.py": "--min-accuracy",
    "cli/compression_reports.py": "--min-accuracy",
    "cli/data.py": "how many images each class has",
    "compression/config.py": "--min-accuracy",
    "compression/pipeline.py": "--min-accuracy",
    "core/metric.py": "the default metric, which results of earlier versions have",
    "data/": "sources of images with classes",
    "distillation/methods/base.py": "what to do with one-hot labels",
    "experiments/recipes.py": "recipes for CIFAR-10",
    "exporting/classify.py": "the answer to an image by class",
    "exporting/metadata.py": "keys of exported files, which stay readable",
    "exporting/verify.py": "the class names of file and data are held against each other",
    "exporting/write.py": "keys of exported files",
    "models/hf_texts.py": "what a configuration of transformers calls its classes",
    "reports/answers.py": "the analyses of `reports/sections/classification.py`",
    "reports/mask_predictions.py": "the file that it reads",
    "reports/predictions.py": "the file that it reads",
}


def code_of(source):
    """Names and texts of a module, without docstrings and comments: (line, text)."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    before = tokenize.NEWLINE
    for token in tokens:
        if token.type in (
            tokenize.NAME,
            tokenize.STRING,
            tokenize.FSTRING_MIDDLE if hasattr(tokenize, "FSTRING_MIDDLE") else -1,
        ):
            is_docstring = token.type == tokenize.STRING and before in (
                tokenize.NEWLINE,
                tokenize.INDENT,
                tokenize.DEDENT,
            )
            if not is_docstring:
                yield token.start[0], token.string
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            before = token.type


def allowed(module):
    return module.startswith(OWN) or any(
        module == name or (name.endswith("/") and module.startswith(name)) for name in ALLOWED
    )


MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", [module for module in MODULES if not allowed(module)])
def test_code_outside_tasks_asks_the_task(module):
    source = (PACKAGE / module).read_text(encoding="utf-8")
    found = [(line, text) for line, text in code_of(source) if WORDS.search(text)]
    assert found == [], f"{module} says what only a task knows: ask the task, its metric or its section"


def test_each_allowed_place_is_there_and_uses_its_leave():
    for name in ALLOWED:
        sources = [
            path.read_text(encoding="utf-8")
            for path in ([PACKAGE / name] if name.endswith(".py") else (PACKAGE / name).rglob("*.py"))
        ]
        assert any(WORDS.search(text) for source in sources for _, text in code_of(source)), name


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('x = found["test_accuracy"]\n', [1]),
        ("def f(logits):\n    return logits.argmax(dim=1)\n", [2]),
        ('"""The accuracy."""\n', []),
        ('def f():\n    """Accuracy."""\n    return 1  # argmax\n', []),
        ('x = f"the {y} accuracy"\n', [1]),
    ],
)
def test_words_are_seen_in_code_and_not_in_docstrings(source, lines):
    assert [line for line, text in code_of(source) if WORDS.search(text)] == lines
