"""A folder of one folder for each class, with text files in them."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from model_compression.core.errors import DataError, NotThereError
from model_compression.core.files import user_path
from model_compression.data.dataset import Dataset
from model_compression.data.folder import TEST, TRAIN, check_same_classes, classes_in, first_of
from model_compression.data.hold_out import hold_out_test
from model_compression.data.image_files import is_image
from model_compression.data.listing import find_files, is_hidden, left_out_note
from model_compression.data.text_datasets import CLASSES, Part, text_dataset
from model_compression.data.text_files import read_text
from model_compression.data.tokenizers import TokenizerChoice

ENDING = ".txt"


def is_of_texts(path: str, task: str) -> bool:
    """Whether ``path`` is a folder of texts: ``task`` says so, or the first file is a .txt file and no image."""
    if task:
        return task == CLASSES
    root = user_path(path)
    first = next((file for file in _files(root) if is_image(file) or _is_text(file.name)), None)
    return first is not None and _is_text(first.name)


def load_text_folder(
    path: str, choice: TokenizerChoice, encoding: str, report: Callable[[str], None]
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of ``path``, which holds train/ and test/ with class folders, or class folders.

    Every file .txt in a class folder, or in folders within it, links followed, is a text; other files are named in the
    dataset's notes. Without a folder for the test a fifth of each class is held out.

    Raises DataError that names the file of what cannot be decoded, or is empty, and what `load_folder` raises.
    """
    root = user_path(path)
    if not root.is_dir():
        raise NotThereError(f"{root} is no folder; expected one that holds a folder of text files for each class")
    tokenizer = choice.load(str(root))
    train_root, test_root = (first_of(root, names) for names in (TRAIN, TEST))
    if train_root is None and test_root is not None:
        raise DataError(f"{root} has {test_root.name}/ but no train/; expected both, or class folders alone")
    folders = [train_root or root] + [test_root] * (test_root is not None)
    classes = [classes_in(folder) for folder in folders if folder is not None]
    if len(classes) == 2:
        assert train_root is not None
        assert test_root is not None
        check_same_classes(classes[0], classes[1], train_root, test_root)
    made: list[Dataset] = []
    for folder in filter(None, folders):
        files, part = read_texts(folder, encoding, classes[0])
        numbers = [classes[0].index(file.relative_to(folder).parts[0]) for file in files]
        part = replace(part, name=root.name + "-test" * bool(made))
        made.append(text_dataset(part, tokenizer, np.array(numbers), classes[0]))
    if len(made) == 2:
        return made[0], made[1]
    return hold_out_test(made[0], f"{root} has no test/ or val/", report)


def read_texts(folder: Path, encoding: str, within: Sequence[str] = ("",)) -> tuple[list[Path], Part]:
    """(files .txt, their texts) of ``folder``, at any depth below the folders ``within`` it."""
    found = [find_files(folder / name, _is_text, f"files {ENDING}") for name in within]
    files = [Path(file.path) for one in found for file in one.files]
    return files, Part(
        name=folder.name,
        texts=[read_text(file, encoding).strip() for file in files],
        where=lambda row: str(files[row]),
        path=folder,
        source="folder",
        notes=tuple(left_out_note(folder, found, f"files {ENDING}")),
    )


def _is_text(name: str) -> bool:
    return name.lower().endswith(ENDING)


def _files(root: Path) -> Iterator[Path]:
    """All files below ``root``, in the order of their paths; hidden ones are none."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(folder) / name for name in sorted(names) if not is_hidden(name))
