"""Images that a table names, with labels of any kind, decoded when they are asked for."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from model_compression.core.errors import DataError, NotThereError, UsageError
from model_compression.core.files import user_path
from model_compression.core.fitting import WHOLE, Fitting
from model_compression.core.options import setting
from model_compression.core.table_config import TableConfig
from model_compression.data.dataset import Dataset, check_pair, check_same_size
from model_compression.data.folder import Form, open_images
from model_compression.data.folder_files import Files
from model_compression.data.hold_out import hold_out_test
from model_compression.data.image_files import ARRAYS, common_suffixes, is_image
from model_compression.data.index import Names
from model_compression.data.labelled_table import DividedTable, inputs_of, labelled
from model_compression.data.on_demand import mean_and_std
from model_compression.data.table import Table
from model_compression.data.table_targets import MULTI_LABEL, REGRESSION
from model_compression.data.target_scale import scaled

_TASKS = ("image-classification", MULTI_LABEL, REGRESSION)
Report = Callable[[str], None]


def load_table_images(
    divided: DividedTable,
    image_size: int,
    report: Report,
    config: TableConfig,
    task: str,
    fit: Fitting = WHOLE,
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of the images that the rows ``divided`` name.

    Paths start from the table's folder, or from that which ``config`` names. The test rows are those that a column
    marks, those of a second file, or a fifth of the rows, the same every time. For ``image_size`` and ``fit`` see
    `load_folder`, for ``task`` `read_targets`.

    Raises DataError with file and line for what is no image, is missing, or stands in two rows; and what `labelled`
    raises.
    """
    found, path = labelled(divided, config, task, report), divided.train.path
    found.check_differ()
    if task not in ("", *_TASKS):
        raise UsageError(f"{path}: {setting('task')} must be {', '.join(_TASKS)} for images, got {task!r}")
    made: list[Dataset] = []
    for table, values in zip(found.tables, found.targets.values, strict=True):
        root = user_path(config.image_root) if config.image_root else table.path.parent
        images = open_images(files_of(table, found.input_column, root), Form(image_size, fit, report))
        mean, std = (made[0].mean, made[0].std) if made else mean_and_std(images.sample())
        names: dict[str, Any] = {
            "target_names" if found.targets.kind == REGRESSION else "class_names": found.targets.names
        }
        made.append(
            Dataset(
                name=table.path.stem + ("-test" if made else ""), samples=images, labels=values, mean=mean, std=std,
                source="table", path=table.path, task=found.targets.kind or _TASKS[0], **names,
            )
        )  # fmt: skip
    train, test = made if len(made) == 2 else hold_out_test(made[0], f"{path} has no test rows", report)
    check_pair(train, test)
    check_same_size(train, test)
    return scaled(train, test, config)


def files_of(table: Table, column: str, root: Path) -> Files:
    """The files that the rows name in ``column``. Raises DataError with the lines of missing ones and of no images."""
    cells = inputs_of(table, column)
    for row, cell in enumerate(cells):
        if not is_image(cell):
            raise DataError(
                f"{table.where(row)}: {cell[:100]!r} in {column!r} is no image that can be read "
                f"({common_suffixes()}); name the column of paths with {setting('input_column')}"
            )
    known, missing = [], []
    for row, cell in enumerate(cells):
        try:
            known.append((root / cell).stat())
        except (OSError, ValueError):
            missing.append(row)
    if missing:
        more = f", and {len(missing) - 1:,} files of other rows," if len(missing) > 1 else ""
        raise NotThereError(
            f"{table.where(missing[0])}: {root / cells[missing[0]]}{more} cannot be opened; expected paths that start "
            f"from {root}: name another folder with {setting('image_root')}"
        )
    return Files(
        root=root,
        names=Names.of(os.fsencode(cell) for cell in cells),
        sizes=np.array([one.st_size for one in known], dtype=np.int64),
        times=np.array([one.st_mtime_ns for one in known], dtype=np.int64),
        counts=(len(cells),),
        num_arrays=sum(cell.lower().endswith(ARRAYS) for cell in cells),
    )
