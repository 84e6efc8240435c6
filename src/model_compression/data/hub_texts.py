"""Texts of Hugging Face datasets: one class each, or a tag for each word."""

from collections.abc import Mapping
from typing import Any

from model_compression.core.errors import UsageError
from model_compression.data.dataset import Dataset
from model_compression.data.hub_splits import choose
from model_compression.data.labelled_table import TEXTS, WORDS
from model_compression.data.text_datasets import Part, tagged_datasets, text_dataset
from model_compression.data.tokenizers import TokenizerChoice


def text_column(split: Any, options: Mapping[str, str], name: str, label: str) -> str:
    """The column of texts: the named one, else the one called so, else the only one of texts beside the ``label``."""
    import datasets

    kinds = split.features.items()
    found = [column for column, kind in kinds if isinstance(kind, datasets.Value) and "string" in kind.dtype]
    if "text" in options:
        return choose("text column", options["text"], found, name)
    called = [column for column in found if column.lower() in TEXTS]
    others = called or [column for column in found if column != label]
    if len(others) != 1:
        listed = ", ".join(others)
        raise UsageError(
            f"{name} has {f'the text columns {listed}' if others else 'no column of texts or images'}; expected one: "
            f"{f'name it, as ,text={others[0]}' if others else 'its columns are ' + ', '.join(split.features)}"
        )
    column: str = others[0]
    return column


def words_column(split: Any) -> str | None:
    """The column of lists of words; None where there is none."""
    return next((column for column in split.features if column.lower() in WORDS and _inner(split, column)), None)


def labelled_texts(
    parts: Mapping[str, Any], columns: Mapping[str, str], labels: Any, classes: tuple[str, ...], choice: TokenizerChoice
) -> list[Dataset]:
    """Datasets of the splits ``parts`` by title, of texts in ``columns`` with class numbers ``labels`` of each."""
    tokenizer = choice.load(next(iter(parts)))
    return [
        text_dataset(_part(title, [text or "" for text in split[columns[title]]]), tokenizer, own, classes)
        for (title, split), own in zip(parts.items(), labels, strict=True)
    ]


def tagged_texts(parts: Mapping[str, Any], options: Mapping[str, str], choice: TokenizerChoice) -> list[Dataset]:
    """Datasets of the splits ``parts`` by title, whose words have tags."""
    title, split = next(iter(parts.items()))
    words = words_column(split)
    assert words is not None
    lists = [column for column in split.features if column != words and _inner(split, column)]
    tags = options.get("label") or (lists[0] if len(lists) == 1 else "")
    if tags not in lists:
        raise UsageError(
            f"{title} has the lists {', '.join(lists) or 'none'} beside {words}; expected one with a tag for each "
            "word: name it, as ,label=ner_tags"
        )
    names = getattr(_inner(split, tags), "names", None)
    spelled = [[[names[tag] if names else str(tag) for tag in row] for row in split[tags]] for split in parts.values()]
    made = [_part(title, list(split[words])) for title, split in parts.items()]
    return tagged_datasets(made, choice.load(title), spelled)


def unlabelled_part(title: str, split: Any, options: Mapping[str, str]) -> tuple[Part, bool]:
    """(texts or lists of words of a split, whether it has more than them)."""
    column = words_column(split) or text_column(split, options, title, "")
    texts = [text or "" for text in split.select_columns([column])[column]]
    return _part(title, texts), len(split.features) > 1


def _inner(split: Any, column: str) -> Any:
    """What the lists of a column are of; None for a column of other things."""
    import datasets

    kind = split.features[column]
    if isinstance(kind, list):
        return kind[0]
    return kind.feature if isinstance(kind, datasets.List | datasets.LargeList) else None


def _part(title: str, texts: Any) -> Part:
    return Part(name=title, texts=texts, where=lambda row: f"{title}, row {row}", source="Hugging Face")
