"""The datasets by name. A loader is imported when it is asked for: listing the names costs nothing."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

from model_compression.core.config_json import GIVEN
from model_compression.core.data_config import DataConfig, Resident
from model_compression.core.errors import GivenAsObjectError, UsageError
from model_compression.core.files import user_path
from model_compression.core.fitting import WHOLE, Fitting
from model_compression.core.masks import IGNORE
from model_compression.core.options import setting
from model_compression.core.registry import Registry, unknown_name
from model_compression.core.table_config import TableConfig
from model_compression.data.dataset import Dataset
from model_compression.data.placement import place_images
from model_compression.data.row_files import CONLL, CSV, FORMS, JSONL
from model_compression.data.task_views import EMBEDDING, as_task
from model_compression.data.tokenizers import TokenizerChoice

# A loader takes (data_dir, report, allow_download), as load_cifar10 does, and returns (training set, test set).
Loader = Callable[..., tuple[Dataset, Dataset]]
PathLike = str | os.PathLike[str]

DATASETS: Registry[Loader] = Registry("dataset", "model_compression.datasets")


@DATASETS.register("cifar10")
def cifar10(
    data_dir: PathLike | None = None, report: Callable[[str], None] | None = None, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """CIFAR-10, see data.cifar.load_cifar10."""
    from model_compression.data.cifar import load_cifar10, print_to_stderr

    return load_cifar10(data_dir, report or print_to_stderr, allow_download)


@DATASETS.register("cifar100")
def cifar100(
    data_dir: PathLike | None = None, report: Callable[[str], None] | None = None, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """CIFAR-100 with fine labels, see data.cifar.load_cifar100."""
    from model_compression.data.cifar import load_cifar100, print_to_stderr

    return load_cifar100(data_dir, report or print_to_stderr, allow_download)


@DATASETS.register("synthetic")
def synthetic(
    data_dir: PathLike | None = None, report: Callable[[str], None] | None = None, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """Small coloured patterns for trials, see data.synthetic.load_synthetic."""
    from model_compression.data.synthetic import load_synthetic

    return load_synthetic(data_dir, report, allow_download)


FOLDER, HUGGING_FACE, TAR = "folder:", "hf:", "tar:"
MAX_IMAGE_SIZE = 2048


@dataclass(frozen=True)
class _Reading:
    """How files are read; see `load_dataset`. ``masks`` are the names of two folders, and the value that counts not."""

    report: Callable[[str], None] | None
    image_size: int
    fit: Fitting
    masks: tuple[str, int]
    table: TableConfig
    tokens: TokenizerChoice
    task: str
    needs_labels: bool

    def say(self, text: str) -> None:
        """Reports ``text`` if anybody listens."""
        if self.report is not None:
            self.report(text)


def load_dataset(
    name: str,
    data_dir: PathLike | None = None,
    report: Callable[[str], None] | None = None,
    image_size: int = 0,
    *,
    unlabelled: str = "",
    resident: Resident = "auto",
    workers: int | None = None,
    task: str = "",
    table: TableConfig | None = None,
    mask_folders: str = "images,masks",
    ignore_index: int = IGNORE,
    fit: Fitting | None = None,
    crops: bool = False,
    tokens: TokenizerChoice | None = None,
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of a registered dataset, of "folder:PATH", "csv:FILE", "jsonl:FILE", "conll:FILE",
    "hf:NAME" or "tar:PATH".

    ``unlabelled``, of any of these forms, are samples that take the place of the training samples. ``resident``,
    ``workers`` and ``crops`` are those of `place_images`. ``task`` says what labels are, where the data do not, or
    "embedding"; ``table`` how a table is read; ``fit`` how images of files become square, None where they are. A
    folder that holds the ``mask_folders`` has a class for each pixel, but for those that are ``ignore_index``. Texts
    are cut by the tokenizer of ``tokens``.

    Raises UnknownNameError with near matches, UsageError for options that the dataset has no use for, DataError.
    """
    embeds, table = task == EMBEDDING, table or TableConfig()
    how = _Reading(
        report=report,
        image_size=image_size,
        fit=fit or WHOLE,
        masks=(mask_folders, ignore_index),
        table=table,
        tokens=tokens or TokenizerChoice(),
        task="" if embeds else task,
        needs_labels=not embeds,
    )
    _check_table(name, unlabelled, table)
    train, test = _load(name, data_dir, how)
    if task and not embeds and task != train.task:
        raise UsageError(f"{setting('task')} {task!r} does not fit {name}, whose task is {train.task}; leave it out")
    if unlabelled:
        train = samples_of(unlabelled, train, report, fit or WHOLE, table)
    if fit is not None and train.holds_images:
        train, test = replace(train, fit=fit), replace(test, fit=fit)
    train, test = place_images(train, test, resident, workers, report, crops=crops)
    return as_task((train, test), task)


def samples_of(
    unlabelled: str,
    like: Dataset,
    report: Callable[[str], None] | None = None,
    fit: Fitting = WHOLE,
    table: TableConfig | None = None,
) -> Dataset:
    """The samples of ``unlabelled`` as `load_unlabelled` gives them, also of a registered dataset."""
    from model_compression.data.unlabelled import load_unlabelled

    def registered(name: str) -> Dataset | None:
        return DATASETS.get(name)(None, report)[0] if name in DATASETS else None

    return load_unlabelled(unlabelled, like, registered, report, fit, table)


def _check_table(name: str, unlabelled: str, table: TableConfig) -> None:
    """Raises UsageError for options of tables beside data that are none; text files have an encoding."""
    given = [field.name for field in fields(table) if getattr(table, field.name)]
    if given == ["encoding"] and any(one.startswith(FOLDER) for one in (name, unlabelled)):
        return
    if given and not any(one.startswith(FORMS) for one in (name, unlabelled)):
        expected = " or ".join(f"{form}FILE" for form in FORMS)
        raise UsageError(f"{setting(given[0])} is for {expected}, got the data {name}; leave it out")


def _load(name: str, data_dir: PathLike | None, how: _Reading) -> tuple[Dataset, Dataset]:
    """The files of a prefix of `_SOURCES`, or a registered dataset."""
    if name.startswith(GIVEN):
        raise GivenAsObjectError(f"the data {name.removeprefix(GIVEN)!r}", f"name a dataset with {setting('data')}")
    prefix = next(filter(name.startswith, _SOURCES), None)
    if prefix is not None:
        _check_path(name, prefix, data_dir, how.image_size)
        return _SOURCES[prefix].read(name.removeprefix(prefix), how)
    if name not in DATASETS:
        if user_path(name).is_dir():
            raise UsageError(
                f"{name} is a folder, not a dataset's name; write {setting('data', f'folder:{name}')}, or hf:{name}"
            )
        raise unknown_name("dataset", name, [*DATASETS, *(source.form for source in _SOURCES.values())])
    loader = DATASETS.get(name)
    if how.image_size:
        raise UsageError(
            f"{setting('image_size')} is for folder:PATH, csv:FILE, tar:PATH and hf:NAME; the images of {name} "
            "have a size of their own"
        )
    return loader(data_dir, how.report)


def _check_path(name: str, prefix: str, data_dir: PathLike | None, image_size: int) -> None:
    """Raises UsageError for what no source of files takes."""
    if not name.removeprefix(prefix).strip():
        source = _SOURCES[prefix]
        raise UsageError(f"{prefix} names no {source.what}; expected {source.form}{source.or_else}")
    if image_size != 0 and not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise UsageError(
            f"{setting('image_size')} must lie between 1 and {MAX_IMAGE_SIZE}, got {image_size}; 32 to 256 are usual"
        )
    if data_dir is not None:
        raise UsageError(f"{setting('data_dir')} has no effect with {name}, which says where the images are")


def _read_folder(path: str, how: _Reading) -> tuple[Dataset, Dataset]:
    from model_compression.data.folder import load_folder
    from model_compression.data.mask_folder import folder_names, has_masks, load_mask_folder
    from model_compression.data.text_folder import is_of_texts, load_text_folder

    names = folder_names(how.masks[0])
    if has_masks(path, names):
        return load_mask_folder(path, names, how.masks[1], how.image_size, how.report, how.fit)
    if is_of_texts(path, how.task):
        return load_text_folder(path, how.tokens, how.table.encoding, how.say)
    if how.table.encoding:
        raise UsageError(f"{setting('encoding')} is for texts, and {path} has none: leave it out")
    return load_folder(path, how.image_size, how.report, how.fit, needs_labels=how.needs_labels)


def _read_rows(form: str, path: str, how: _Reading) -> tuple[Dataset, Dataset]:
    from model_compression.data.labelled_table import divide
    from model_compression.data.table_images import load_table_images
    from model_compression.data.table_texts import holds_texts, load_table_texts

    found = divide(path, form, how.table, how.say)
    if not holds_texts(found, how.task):
        return load_table_images(found, how.image_size, how.say, how.table, how.task, how.fit)
    if how.image_size:
        raise UsageError(f"{setting('image_size')} is for images, and {form}{path} has texts: leave it out")
    return load_table_texts(found, how.tokens, how.table, how.task, how.say)


def _read_tar(path: str, how: _Reading) -> tuple[Dataset, Dataset]:
    from model_compression.data.tar import load_tar

    return load_tar(path, how.image_size, how.report, how.fit)


def _read_hub(name: str, how: _Reading) -> tuple[Dataset, Dataset]:
    from model_compression.data.hugging_face import load_hugging_face

    return load_hugging_face(name, how.image_size, how.report, how.fit, how.tokens, how.task, how.masks[1])


@dataclass(frozen=True)
class _Source:
    """Files that a prefix names: how they are read, and what errors say of the ``form`` of their names."""

    form: str
    read: Callable[[str, _Reading], tuple[Dataset, Dataset]]
    or_else: str = ""
    what: str = "path"


# A new source of files is a line here, with a function that imports its file when it is called.
_SOURCES = {
    FOLDER: _Source("folder:PATH", _read_folder),
    CSV: _Source("csv:FILE", partial(_read_rows, CSV), ", a .csv or .tsv file"),
    JSONL: _Source("jsonl:FILE", partial(_read_rows, JSONL)),
    CONLL: _Source("conll:FILE", partial(_read_rows, CONLL)),
    HUGGING_FACE: _Source("hf:NAME", _read_hub, " or hf:PATH", what="dataset"),
    TAR: _Source("tar:PATH", _read_tar, " or tar:PATTERN"),
}


def stated_task(data: DataConfig) -> str:
    """The task that ``data`` name, or that masks or the labels of a table are of; "" where it takes more to know it.

    No samples are read. Raises what `load_dataset` raises for the rows of a table.
    """
    form = next(filter(data.name.startswith, (FOLDER, *FORMS)), "")
    path = data.name.removeprefix(form)
    if data.task or not form:
        return data.task
    if form == FOLDER:
        from model_compression.data.mask_folder import folder_names, has_masks

        return "segmentation" if has_masks(path, folder_names(data.mask_folders)) else ""
    from model_compression.data.labelled_table import divide
    from model_compression.data.table_targets import kind_of
    from model_compression.data.table_texts import holds_tags

    found = divide(path, form, data.table, lambda text: None)
    cells = [[one.column(column) for column in found.columns] for one in found.tables]
    return "token-classification" if holds_tags(found, "") else kind_of(cells, data.table.label_separator)


def is_of_files(name: str) -> bool:
    """Whether ``name`` is that of files, as "folder:PATH", and not of a registered dataset."""
    return name.startswith(tuple(_SOURCES))
