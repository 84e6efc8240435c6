"""Labels of tables: kinds, columns, splits, and the row of what is wrong."""

import numpy as np
import pytest

from model_compression.core.errors import DataError, UsageError
from model_compression.core.table_config import TableConfig
from model_compression.data.labelled_table import divide, labelled
from model_compression.data.row_files import CSV


def read(tmp_path, text, task="", test=None, **options):
    path = tmp_path / "t.csv"
    path.write_text(text)
    if test is not None:
        (tmp_path / "test.csv").write_text(test)
        options["test_table"] = str(tmp_path / "test.csv")
    said = []
    config = TableConfig(**options)
    return labelled(divide(str(path), CSV, config, said.append), config, task, said.append), said


@pytest.mark.parametrize(
    ("text", "options", "kind", "names", "values"),
    [
        ("path,label\na,dog\nb,cat\n", {}, "", ("cat", "dog"), [1, 0]),
        ("path,label\na,1\nb,0\n", {}, "", ("0", "1"), [1, 0]),
        ("path,stars\na,10\nb,2\n", {}, "", ("2", "10"), [1, 0]),  # names, as there is no 0
        ("path,x,y\na,1,0\nb,true,1.0\n", {}, "multi-label", ("x", "y"), [[1, 0], [1, 1]]),
        ("path,tags\na,y;x\nb,\n", {"task": "multi-label"}, "multi-label", ("x", "y"), [[1, 1], [0, 0]]),
        ("path;tags\na;y, x\nb;x\n", {"label_separator": ","}, "multi-label", ("x", "y"), [[1, 1], [1, 0]]),
        ("path,kg\na,1.5\nb,-2e3\n", {}, "regression", ("kg",), [[1.5], [-2000]]),
        ("path,n\na,1\nb,7\n", {"task": "regression"}, "regression", ("n",), [[1], [7]]),
        ("path,x [m],y [m]\na,1,0\nb,3,1\n", {}, "regression", ("x [m]", "y [m]"), [[1, 0], [3, 1]]),
        ("path,w,label\na,12,dog\nb,9,cat\n", {}, "", ("cat", "dog"), [1, 0]),  # the column that is called so
        ("path,w,label\na,1.5,dog\nb,9,cat\n", {"label_columns": "w"}, "regression", ("w",), [[1.5], [9]]),
    ],
)  # fmt: skip
def test_kind_of_labels_is_told_by_the_cells(tmp_path, text, options, kind, names, values):
    task = options.pop("task", "")
    found, said = read(tmp_path, text, task, **options)
    assert (found.targets.kind, found.targets.names) == (kind, names)
    assert np.array_equal(found.targets.values[0], np.array(values, dtype=found.targets.values[0].dtype))
    assert found.inputs(found.train) == ["a", "b"]
    assert "samples in 'path'" in said[0]


def test_split_column_parts_the_rows_and_what_is_left_out_is_said(tmp_path):
    text = "path,label,split\na,x,train\nb,y,test\nc,y,train\nd,x,dev\ne,x,holdout\n"
    found, said = read(tmp_path, text)
    assert (found.inputs(found.train), found.inputs(found.test)) == (["a", "c"], ["b"])
    assert said[0].endswith("not used are the rows whose 'split' is dev, holdout")
    assert [values.tolist() for values in found.targets.values] == [[0, 1], [1]]
    found, _ = read(tmp_path, text.replace("test", "holdout"))
    assert found.inputs(found.test) == ["d"]  # dev, as there is no test
    found, said = read(tmp_path, "path,label,split\na,x,1\nb,y,2\n")
    assert found.test is None
    assert "'split' divides nothing, as it has the values 1, 2" in said[0]


def test_lists_in_json_are_several_classes_and_joined_names_are_pointed_out(tmp_path):
    found, _ = read(tmp_path, 'path\tkinds\na\t["y, z", "x"]\nb\t[7]\nc\t[]\nd\t\n', delimiter="\t")
    assert (found.targets.kind, found.targets.names) == ("multi-label", ("7", "x", "y, z"))
    assert found.targets.values[0].tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    found, said = read(tmp_path, "path,label\na,cat\nb,cat;dog\nc,dog;cow\n")
    assert found.targets.names == ("cat", "cat;dog", "dog;cow")
    assert "'cat;dog' is one class" in said[1]


def test_second_file_holds_the_test_rows(tmp_path):
    found, _ = read(tmp_path, "path,tags\na,x;y\nb,y\n", "multi-label", "tags,path\ny,c\n")
    assert found.inputs(found.test) == ["c"]
    assert found.targets.values[1].tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        ("path,label\na,x\nb,\n", "", "line 3: 'label' is empty; expected a label in every row"),
        ("path,label\na,x\nb,y\npath,label\n", "", "line 4: the header again"),
        ('path,label\na,3\nb,"0,5"\n', "", "line 3: 'label' is '0,5'; expected a point before decimals"),
        (
            "path;tags\na;['x', 'y']\nb;['x']\n",
            "multi-label",
            "line 2: 'tags' is .*; expected a list of classes",
        ),
        ("path;tags\na;[0, 1]\nb;[1, 1]\n", "multi-label", "each 'tags' is a row of 0 and 1"),
        (
            "path;label\na;[1, 2]\nb;[2]\n",
            "image-classification",
            r"'label' is the list '\[1, 2\]'; expected one class",
        ),
        ("path,x,y\na,1,0\nb,,1\n", "multi-label", "line 3: 'x' is ''; expected 0 or 1"),
        ("path,x,y\na,1,0\nb,1,-1\n", "multi-label", "line 3: 'y' is '-1'; expected 0 or 1"),
        ("path,kg\na,1\nb,nan\n", "regression", "line 3: 'kg' is 'nan'; expected a finite number"),
        ("path,kg\na,1\nb,1e99\n", "regression", "line 3: 'kg' is '1e99'; expected a finite number"),
        ('path,kg\na,1\nb,"2,5"\n', "regression", "line 3: 'kg' is '2,5'; expected a finite number, with a point"),
        ("path,tags\na,x\nb,x\n", "multi-label", "'tags' has the labels x; expected at least two"),
    ],
)
def test_bad_label_is_named_with_its_line(tmp_path, text, task, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text, task)


@pytest.mark.parametrize(("task", "test"), [("", "path,tags\nc,cta\n"), ("multi-label", "path,tags\nc,dog;cta\n")])
def test_label_that_the_training_rows_lack_is_named(tmp_path, task, test):
    text = "path,tags\na,cat\nb,dog\n"
    with pytest.raises(DataError, match=r"test.csv, line 2: the label 'cta' is not in .* did you mean 'cat'\?"):
        read(tmp_path, text, task, test)


def test_row_of_a_sample_that_stands_in_another_is_refused(tmp_path):
    found, _ = read(tmp_path, "path,label\na,x\nb,y\na,y\n")
    with pytest.raises(DataError, match=r"line 2 and .*line 4 are both of a; expected one row a sample"):
        found.check_differ()
    found, _ = read(tmp_path, "path,label\na,x\nb,y\n", test="path,label\nb,x\n")
    with pytest.raises(DataError, match=r"t.csv, line 3 and .*test.csv, line 2 are both of b"):
        found.check_differ()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("x,label\na,b\n", {}, "no column could hold the samples; name the one of paths or texts with input_column"),
        ("path,image,label\na,b,c\n", {}, "the columns path, image could hold the samples"),
        ("path,label\na,b\n", {"input_column": "pth"}, "did you mean 'path'"),
        ("path,label\na,b\n", {"label_columns": "label,path"}, "label_columns names 'path', which is another column"),
        ("path,label\na,b\n", {"label_columns": "label,label"}, "label_columns names 'label', which is another"),
        ("path,a,b\na,b,c\n", {}, "has the label columns a, b; expected one for one class a row"),
        ("path\na\n", {}, "has no column but path; expected one of labels"),
        ("path,label\na,1.5\n", {"label_separator": ";"}, "the labels 1.5; expected at least two"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_are_named(tmp_path, text, options, message):
    with pytest.raises((UsageError, DataError), match=message):
        read(tmp_path, text, **options)


def test_options_that_exclude_each_other_are_refused():
    with pytest.raises(UsageError, match="both say which rows are tested"):
        TableConfig(split_column="split", test_table="x.csv")
    with pytest.raises(UsageError, match="go together"):
        TableConfig(target_mean="0")
