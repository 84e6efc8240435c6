"""train(), distill() and evaluate() on texts in lists: the datasets and weights of the same texts in a file."""

import numpy as np
import pytest
import tiny_texts
from safetensors.numpy import load_file

import model_compression as mc
from model_compression.api.given_data import given_data
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.data.sources import load_dataset
from model_compression.data.tokenizers import TokenizerChoice
from model_compression.engine.observer import Silent

MOODS = tiny_texts.make_texts(12, seed=1)
TAGGED = tiny_texts.make_tagged(12, seed=1)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_texts.make_tokenizer(tmp_path / "bert")


def lists(pairs, split=8):
    """Training texts, their labels, test texts, their labels."""
    texts, labels = ([pair[side] for pair in pairs] for side in (0, 1))
    return [texts[:split], labels[:split], texts[split:], labels[split:]]


def write_rows(folder, pairs, keys):
    """rows.jsonl: the same texts, which say of themselves what they are for."""
    rows = [dict(zip(keys, pair, strict=True)) for pair in pairs]
    splits = [{"split": "test" if number >= 8 else "train"} for number in range(len(rows))]
    tiny_texts.write_jsonl(folder / "rows.jsonl", [row | own for row, own in zip(rows, splits, strict=True)])


def datasets(data, **options):
    return given_data(data, DataConfig(tokenizer="bert", max_length=16, **options), Silent())[0]


def content(sets):
    return [(one.task, one.class_names, one.labels.tolist(), one.samples.digest(one.labels)) for one in sets]


@pytest.mark.parametrize(("pairs", "keys"), [(MOODS, ("text", "label")), (TAGGED, ("tokens", "tags"))])
def test_lists_are_the_datasets_of_the_same_texts_in_a_file(tmp_path, pairs, keys):
    write_rows(tmp_path, pairs, keys)
    expected = content(load_dataset("jsonl:rows.jsonl", tokens=TokenizerChoice(name="bert", max_length=16)))
    data = lists(pairs)
    assert content(datasets(data)) == expected
    assert content(datasets([tuple(part) for part in data])) == expected
    if pairs is MOODS:
        assert content(datasets([np.array(part) for part in data])) == expected
        numbers = [[sorted(tiny_texts.MOODS).index(mood) for mood in part] for part in (data[1], data[3])]
        found = datasets([data[0], numbers[0], data[2], numbers[1]])
        assert [one.labels.tolist() for one in found] == [one[2] for one in expected]
        assert found[0].class_names == ("0", "1", "2")


def test_labels_of_texts_are_several_classes_and_numbers_as_those_of_images():
    texts, _, others, _ = lists(MOODS)
    rows = np.eye(3, dtype=bool)
    several = datasets([texts, rows[np.arange(8) % 3], others, rows[np.arange(4) % 3]])
    assert (several[0].task, several[0].labels.shape) == ("multi-label", (8, 3))
    numbers = datasets([texts, [0.5, 1, 2, 3, 4, 5, 6, 7], others, [1.5, 2, 3, 4]])
    assert (numbers[1].task, numbers[1].labels.ravel().tolist()) == ("regression", [1.5, 2.0, 3.0, 4.0])


def test_lists_train_distil_and_evaluate_as_a_file_does(tmp_path):
    tiny_texts.make_network(tmp_path / "bert", layers=2)
    data = lists(MOODS)
    options = {"max_length": 16, "batch_size": 4, "precision": "fp32", "device": "cpu", "lr": 5e-3, "epochs": 2}
    options |= {"tokenizer": "bert"}
    student = mc.ModelConfig(name="hf:bert", options={"pretrained": True})
    teacher = mc.train(student, data, run_dir="runs/lists", **options)
    write_rows(tmp_path, MOODS, ("text", "label"))
    mc.train(student, "jsonl:rows.jsonl", run_dir="runs/file", **options)
    one, other = (load_file(tmp_path / "runs" / name / "student.safetensors") for name in ("lists", "file"))
    assert all(np.array_equal(one[name], value) for name, value in other.items())
    found = mc.evaluate("runs/lists", data, device="cpu", precision="fp32")  # cut by the run's tokenizer
    assert found.value == teacher.metrics["test_accuracy"]
    unlabelled = [data[0], None, *data[2:]]
    method = mc.MethodConfig(name="kd", label_weight=0)
    options |= {"method": method, "allow_weak_teacher": True}
    taught = mc.distill("runs/lists", "runs/lists", unlabelled, run_dir="runs/taught", **options)
    assert 0 <= taught.metrics["test_accuracy"] <= 1
    with pytest.raises(UsageError, match="texts need a tokenizer, which a module does not bring"):
        mc.evaluate(teacher.student, data)


def changed(data, part, value):
    """``data`` with another value at index 2 of one of its parts."""
    data[part] = [*data[part][:2], value, *data[part][3:]]
    return data


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        (0, " ", "training text 2: the text is empty"),
        (0, 7, "training text 2 is the int 7; expected a str"),
        (2, None, "test text 2 is the NoneType None; expected a str"),
        (3, "merry", "test text 2: the label 'merry' is of no training text; known: glad, odd, sad"),
        (1, None, r"a label is None beside texts \(training text 2\)"),
        (1, 4, r"a label is 4 beside texts \(training text 2\)"),
    ],
)
def test_text_or_label_that_cannot_be_is_named_by_its_index(part, value, said):
    with pytest.raises(UsageError, match=said):
        datasets(changed(lists(MOODS), part, value))


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        (0, "the sun", "training text 2 is the str 'the sun'; expected a list of words"),
        (2, [], "test text 2 has no words"),
        (0, ["sun", 3], "training text 2, word 1 is the int 3; expected a str"),
        (1, ["O"], r"training text 2: \d+ words have 1 tags; expected as many"),
        (3, "O", "the labels of test text 2 are the str 'O'; expected a list of tags"),
        (1, [None], r"the labels of training text 2 are the list \[None\]; expected a list of tags"),
    ],
)
def test_words_or_tags_that_cannot_be_are_named_by_their_index(part, value, said):
    with pytest.raises(UsageError, match=said):
        datasets(changed(lists(TAGGED), part, value))


def test_lists_that_do_not_fit_each_other_are_refused():
    texts, labels, others, moods = lists(MOODS)
    for data, options, said in (
        ([texts, labels[:-1], others, moods], {}, "there are 8 training texts and the labels are 7; expected one each"),
        ([texts, labels, others, None], {}, "the test labels are None"),
        ([texts, labels, [], moods], {}, "the test texts are a list of 0; expected a list of at least two"),
        ([texts, labels, others, moods], {"task": "token-classification"}, "training text 0 is the str .* of words"),
        ([texts, labels, others, moods], {"task": "regression"}, "expected numbers"),
        ([texts, [[1, 0]] * 7 + [[1]], others, moods], {}, "training text 7 has 1 labels, and the first has 2"),
    ):
        with pytest.raises(UsageError, match=said):
            datasets(data, **options)
    with pytest.raises(UsageError, match="data has texts, and no network here brings a tokenizer"):
        given_data([texts, labels, others, moods], DataConfig(), Silent())
