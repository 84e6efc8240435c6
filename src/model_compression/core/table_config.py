"""The options of csv:FILE: which columns of a table hold what, and how the file is written."""

from dataclasses import dataclass

from model_compression.core.config_values import Config, PathText
from model_compression.core.errors import UsageError
from model_compression.core.options import option, setting


@dataclass(frozen=True, kw_only=True)
class TableConfig(Config):
    """How csv:FILE is read."""

    input_column: str = option("", help="column of csv: with paths or texts (default: by its name)", metavar="NAME")
    label_columns: str = option("", help="columns of csv: with labels (default: all others)", metavar="A,B,C")
    label_separator: str = option(
        "", help="sign between the labels in one cell of csv: (default: ; | or ,)", metavar="SIGN"
    )
    split_column: str = option(
        "", help="column of csv: that says train or test (default: split, if there)", metavar="NAME"
    )
    test_table: PathText = option(
        "", help="file of the test rows of csv: (default: split, or held out)", metavar="FILE"
    )
    image_root: PathText = option("", help="folder that paths of csv: start from (default: the table's)", metavar="DIR")
    encoding: str = option("", help="encoding of csv:, as cp1252 (default: utf-8, or by its mark)", metavar="NAME")
    delimiter: str = option("", help="sign between cells of csv: (default: by header)", metavar="SIGN")
    target_mean: str = option(
        "", help="means that regression targets are scaled by (default: the training data's)", metavar="A,B,C"
    )
    target_std: str = option(
        "", help="deviations that regression targets are scaled by (default: the data's)", metavar="A,B,C"
    )

    def check(self) -> None:
        """Checks what goes together."""
        if self.split_column and self.test_table:
            raise UsageError(
                f"{setting('split_column')} and {setting('test_table')} both say which rows are tested; give one"
            )
        if bool(self.target_mean) != bool(self.target_std):
            raise UsageError(f"{setting('target_mean')} and {setting('target_std')} go together; got one of them")
