"""Texts from tables, lines of JSON, two columns, folders and Hugging Face datasets; what is wrong has its row."""

import json
import shutil

import numpy as np
import pytest
import tiny_texts

from model_compression.checks.data import examine_data
from model_compression.core.errors import DataError, NotThereError, UsageError
from model_compression.core.table_config import TableConfig
from model_compression.data.sources import load_dataset
from model_compression.data.tokenizers import TokenizerChoice


@pytest.fixture(scope="module")
def choice(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_texts.make_tokenizer(folder)
    return TokenizerChoice(name=str(folder), max_length=16)


@pytest.fixture
def load(choice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(name, task="", tokens=choice, unlabelled="", report=None, **options):
        table = TableConfig(**options)
        return load_dataset(name, report=report, unlabelled=unlabelled, task=task, table=table, tokens=tokens)

    return load


def rows(count=30, seed=0):
    return [{"text": text, "label": mood} for text, mood in tiny_texts.make_texts(count, seed)]


def check_rows(train, test, given, tested):
    assert [train.class_names[label] for label in train.labels] == [row["label"] for row in given]
    assert list(train.samples.texts) == [row["text"] for row in given]
    assert [test.class_names[label] for label in test.labels] == [row["label"] for row in tested]
    assert train.task == test.task == "text-classification"
    assert train.class_names == tiny_texts.MOODS


def test_jsonl_and_csv_and_folders_give_the_same_texts(load, tmp_path):
    given, tested = rows(30), rows(12, seed=1)
    tiny_texts.write_jsonl(tmp_path / "train.jsonl", given)
    tiny_texts.write_jsonl(tmp_path / "test.jsonl", tested)
    from_lines = load("jsonl:train.jsonl", test_table="test.jsonl")
    check_rows(*from_lines, given, tested)
    table = "text;label;split\n" + "".join(f"{row['text']};{row['label']};train\n" for row in given)
    table += "".join(f"{row['text']};{row['label']};test\n" for row in tested)
    (tmp_path / "all.csv").write_text(table, encoding="cp1252")
    from_table = load("csv:all.csv", encoding="cp1252")
    check_rows(*from_table, given, tested)
    for part, part_rows in (("train", given), ("test", tested)):
        for number, row in enumerate(part_rows):
            path = tmp_path / "moods" / part / row["label"] / f"{number:03}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(row["text"])
    from_folder = load("folder:moods")
    ordered = [sorted(one, key=lambda row: row["label"]) for one in (given, tested)]
    check_rows(*from_folder, *ordered)
    assert from_lines[0].digest == from_table[0].digest != from_folder[0].digest


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the library of the hub
def test_texts_without_labels_come_from_every_source(load, tmp_path):
    import datasets

    given, said = rows(12, seed=2), []
    texts = [row["text"] for row in given]
    tiny_texts.write_jsonl(tmp_path / "train.jsonl", rows())
    tiny_texts.write_jsonl(tmp_path / "wild.jsonl", given)
    tiny_texts.write_jsonl(tmp_path / "words.jsonl", [{"tokens": text.split()} for text in texts])
    (tmp_path / "wild.csv").write_text("\n".join(["text", *texts, ""]))
    (tmp_path / "wild.conll").write_text("".join(text.replace(" ", " O\n") + " O\n\n" for text in texts))
    (tmp_path / "inbox" / "old").mkdir(parents=True)
    for number, text in enumerate(texts):
        (tmp_path / "inbox" / ("old" if number > 6 else "") / f"{number:02}.txt").write_text(text)
    datasets.DatasetDict({"mails": datasets.Dataset.from_dict({"text": texts})}).save_to_disk("hub")
    files = ("jsonl:wild.jsonl", "jsonl:words.jsonl", "csv:wild.csv", "conll:wild.conll")
    for source in (*files, "folder:inbox", "hf:hub,train=mails"):
        found = load("jsonl:train.jsonl", unlabelled=source, report=said.append)[0]
        assert found.samples.texts == texts
        assert (found.labelled, found.class_names, found.labels.tolist()) == (False, tiny_texts.MOODS, [0] * 12)
        assert found.samples.tokenizer.sha256 == load("jsonl:train.jsonl")[1].samples.tokenizer.sha256
    assert [line for line in said if "ignored" in line] == [
        f"the labels of {name} are ignored: its texts are trained on without"
        for name in ("jsonl:wild.jsonl", "conll:wild.conll")
    ]


def test_a_text_without_labels_that_cannot_be_is_named(load, tmp_path):
    tiny_texts.write_jsonl(tmp_path / "train.jsonl", rows())
    (tmp_path / "inbox").mkdir()
    with pytest.raises(DataError, match=r"inbox holds no files \.txt; fill it"):
        load("jsonl:train.jsonl", unlabelled="folder:inbox")
    (tmp_path / "inbox/a.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"inbox/a\.txt: the text is empty"):
        load("jsonl:train.jsonl", unlabelled="folder:inbox")
    (tmp_path / "inbox/a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"inbox/a\.txt, line 1: the byte 0xe9 is no text in utf-8"):
        load("jsonl:train.jsonl", unlabelled="folder:inbox")
    assert len(load("jsonl:train.jsonl", unlabelled="folder:inbox", encoding="cp1252")[0]) == 1
    with pytest.raises(UsageError, match=r"unlabelled must be folder:PATH, csv:FILE, .* for texts, got 'tar:x'"):
        load("jsonl:train.jsonl", unlabelled="tar:x")


def test_numbers_and_several_labels_are_other_tasks(load, tmp_path):
    given = [{"text": "sun rain", "glad": 1, "sad": 1}, {"text": "sun", "glad": 1, "sad": 0}] * 3
    tiny_texts.write_jsonl(tmp_path / "a.jsonl", given)
    train, test = load("jsonl:a.jsonl", task="multi-label", test_table="a.jsonl")
    assert train.task == test.task == "multi-label"
    assert train.labels.tolist() == [[1, 1], [1, 0]] * 3
    numbers = [{"text": "sun", "grade": 1.5}, {"text": "rain", "grade": 2.5}] * 3
    tiny_texts.write_jsonl(tmp_path / "b.jsonl", numbers)
    train, _ = load("jsonl:b.jsonl", test_table="b.jsonl")
    assert train.task == "regression"
    assert train.target_names == ("grade",)


def test_without_test_rows_a_fifth_of_each_class_is_held_out(load, tmp_path):
    tiny_texts.write_jsonl(tmp_path / "a.jsonl", rows(60))
    train, test = load("jsonl:a.jsonl")
    assert (len(train), len(test)) == (48, 12)
    assert np.bincount(test.labels).tolist() == [4, 4, 4]


def tagged_rows(count=20, seed=0):
    return [{"tokens": words, "tags": tags} for words, tags in tiny_texts.make_tagged(count, seed)]


def test_tags_belong_to_the_first_token_of_their_word(load, tmp_path):
    given = [{"tokens": ["sun", "suns", "rain"], "tags": ["O", "B-GLAD", "B-SAD"]}, *tagged_rows()]
    tiny_texts.write_jsonl(tmp_path / "a.jsonl", given)
    train, test = load("jsonl:a.jsonl", test_table="a.jsonl")
    assert train.task == "token-classification"
    assert train.class_names == tiny_texts.TAGS
    length = train.samples.take(np.array([0]))["input_ids"].shape[1]
    assert train.labels.shape == (21, length) == (21, int(train.samples.tokens.lengths.max()))
    # [CLS] sun sun ##s rain [SEP], and padding
    assert train.labels[0].tolist() == [-100, 3, 0, -100, 1, *[-100] * (length - 5)]
    assert np.array_equal(train.labels, test.labels)


def test_two_columns_are_read_as_lists_are(load, tmp_path):
    given = tagged_rows(20)
    tiny_texts.write_jsonl(tmp_path / "a.jsonl", given)
    lines = ["-DOCSTART- -X- O", ""]
    for row in given:
        lines += [f"{word} NN {tag}" for word, tag in zip(row["tokens"], row["tags"], strict=True)] + [""]
    (tmp_path / "a.conll").write_text("\n".join(lines))
    assert load("conll:a.conll")[0].digest == load("jsonl:a.jsonl")[0].digest


def test_hugging_face_texts_and_tags(load, tmp_path):
    import datasets

    given = rows(30)
    names = datasets.ClassLabel(names=list(tiny_texts.MOODS))
    columns = {key: [row[key] for row in given] for key in ("text", "label")}
    split = datasets.Dataset.from_dict(columns | {"title": ["t"] * 30}).cast_column("label", names)
    split.save_to_disk(tmp_path / "set")
    train, test = load("hf:set")
    tiny_texts.write_jsonl(tmp_path / "a.jsonl", given)
    expected = load("jsonl:a.jsonl")
    assert (train.digest, test.digest) == (expected[0].digest, expected[1].digest)
    assert train.class_names == tiny_texts.MOODS
    tagged = tagged_rows(20)
    words = datasets.Dataset.from_dict({"tokens": [row["tokens"] for row in tagged], "ner_tags": [
        [tiny_texts.TAGS.index(tag) for tag in row["tags"]] for row in tagged]})  # fmt: skip
    words = words.cast_column("ner_tags", datasets.List(datasets.ClassLabel(names=list(tiny_texts.TAGS))))
    words.save_to_disk(tmp_path / "tags")
    tiny_texts.write_jsonl(tmp_path / "b.jsonl", tagged)
    assert load("hf:tags")[0].digest == load("jsonl:b.jsonl")[0].digest


LINES = [json.dumps(row) for row in rows(6)]
TAGGED = [json.dumps(row) for row in tagged_rows(6)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*LINES, '{"text": " ", "label": "sad"}'], r"a.jsonl, line 7: 'text' is empty"),
        ([*LINES, '{"text": "sun"}'], r"a.jsonl, line 7: the row has no key 'label'"),
        ([*LINES, '{"text": "sun", "label": ""}'], r"a.jsonl, line 7: 'label' is empty; expected a label"),
        ([*LINES, "{"], r"a.jsonl, line 7: this is no JSON: Expecting property name"),
        ([*LINES, "[1]"], r"a.jsonl, line 7: expected an object with keys, got \[1\]"),
        ([*LINES, '{"text": "sun", "label": NaN}'], r"line 7: this is no JSON: NaN is no number of JSON"),
        ([], r"a.jsonl is empty; expected a JSON object a line"),
        ([*TAGGED, '{"tokens": ["sun"], "tags": ["O", "O"]}'], r"a.jsonl, line 7: 1 words have 2 tags"),
        ([*TAGGED, '{"tokens": [], "tags": []}'], r"a.jsonl, line 7: 'tokens' is '\[\]'; expected a list of words"),
        ([*TAGGED, '{"tokens": ["a", " "], "tags": ["O", "O"]}'], r"a.jsonl, line 7: a word is empty"),
        ([*TAGGED, '{"tokens": ["a"], "tags": [0.5]}'], r"line 7: 'tags' is '\[0.5\]'; expected a list of tags"),
    ],
)
def test_a_row_that_cannot_be_is_named(load, tmp_path, lines, said):
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=said):
        load("jsonl:a.jsonl")


def test_a_tag_or_label_of_the_test_rows_alone_is_named(load, tmp_path):
    tiny_texts.write_jsonl(tmp_path / "a.jsonl", tagged_rows())
    tiny_texts.write_jsonl(tmp_path / "b.jsonl", [*tagged_rows(), {"tokens": ["a"], "tags": ["B-ODD"]}])
    with pytest.raises(DataError, match=r"b.jsonl, line 21: the tag 'B-ODD' is in no training text; known: B-GLAD"):
        load("jsonl:a.jsonl", test_table="b.jsonl")
    tiny_texts.write_jsonl(tmp_path / "c.jsonl", rows())
    tiny_texts.write_jsonl(tmp_path / "d.jsonl", [*rows(), {"text": "sun", "label": "gladd"}])
    with pytest.raises(
        DataError, match=r"d.jsonl, line 31: the label 'gladd' is not in the training rows; did you mean"
    ):
        load("jsonl:c.jsonl", test_table="d.jsonl")


def test_a_file_that_cannot_be_decoded_is_named(load, tmp_path):
    for mood in ("glad", "sad"):
        (tmp_path / "moods" / mood).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "moods" / mood / f"{number}.txt").write_text(f"sun {number}")
    (tmp_path / "moods/sad/7.txt").write_bytes("süß\nrain".encode("cp1252"))
    with pytest.raises(DataError, match=r"moods/sad/7.txt, line 1: the byte 0xfc is no text in utf-8; name its encodi"):
        load("folder:moods")
    train, test = load("folder:moods", encoding="cp1252")
    assert "süß\nrain" in [*train.samples.texts, *test.samples.texts]
    (tmp_path / "moods/sad/7.txt").write_bytes("süß rain".encode("utf-16"))
    train, test = load("folder:moods")
    assert "süß rain" in [*train.samples.texts, *test.samples.texts]
    (tmp_path / "moods/sad/8.txt").write_text("  \n")
    with pytest.raises(DataError, match=r"moods/sad/8.txt: the text is empty"):
        load("folder:moods")
    (tmp_path / "moods/sad/8.txt").rename(tmp_path / "moods/sad/8.log")
    assert "1 .log (sad/8.log)" in load("folder:moods")[0].notes[0]
    shutil.rmtree(tmp_path / "moods/glad")
    with pytest.raises(DataError, match="expected a folder of images for each of at least two classes"):
        load("folder:moods")


def test_texts_need_a_tokenizer_that_is_named_or_beside_a_network(load, choice, tmp_path):
    tiny_texts.write_jsonl(tmp_path / "a.jsonl", rows())
    with pytest.raises(UsageError, match=r"a.jsonl has texts, and no network here brings a tokenizer: name one"):
        load("jsonl:a.jsonl", tokens=TokenizerChoice(networks=("hf:bert", "lenet")))
    beside = TokenizerChoice(networks=("lenet", f"hf:{choice.name}"), max_length=16)
    assert load("jsonl:a.jsonl", tokens=beside)[0].digest == load("jsonl:a.jsonl")[0].digest


def test_options_that_do_not_fit_are_refused(load, tmp_path):
    tiny_texts.write_jsonl(tmp_path / "a.jsonl", rows())
    with pytest.raises(DataError, match="line 1: 'label' is 'glad'; expected a finite number"):
        load("jsonl:a.jsonl", task="regression")
    with pytest.raises(UsageError, match="the labels are of text-classification; got task='image-classification'"):
        load("jsonl:a.jsonl", task="image-classification")
    with pytest.raises(UsageError, match=r"image_size is for images, and jsonl:a.jsonl has texts"):
        load_dataset("jsonl:a.jsonl", image_size=32, tokens=TokenizerChoice())
    with pytest.raises(NotThereError, match=r"b.jsonl is not there; expected a file of rows"):
        load("jsonl:b.jsonl")


def test_columns_of_conll_are_tabs_or_blanks_and_all_lines_have_as_many(load, tmp_path):
    path = tmp_path / "a.conll"
    lines = "# id 7\nNew York\tx\tB-LOC\n10\u00a0000\tx\tO\n\n#\tx\tO\n\n"
    path.write_text(lines.replace("\n", "\r"), newline="")
    train, _ = load("conll:a.conll", test_table="a.conll")
    assert list(train.samples.texts) == ["New York 10\u00a0000", "#"]
    assert [[train.class_names[tag] for tag in row[row >= 0]] for row in train.labels] == [["B-LOC", "O"], ["O"]]
    path.write_text("sun x B-A\nrain O\n")
    with pytest.raises(DataError, match="line 2: 2 columns, and the lines before have 3"):
        load("conll:a.conll")
    path.write_text("# text = sun rain\n1\tsun\tB-A\n2\train\tO\n\n1\tsun\tO\n")
    with pytest.raises(DataError, match="line 2: the first column numbers the words"):
        load("conll:a.conll")


def test_half_a_character_is_named_with_its_line(load, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "sun", "label": "x"}\n{"text": "a \\ud83d b", "label": "y"}\n')
    with pytest.raises(DataError, match=r"line 2: the character '\\ud83d' is half of a pair"):
        load("jsonl:a.jsonl")
    (tmp_path / "b.jsonl").write_text('{"tokens": ["sun", "\\ud83d"], "tags": ["A", "O"]}\n' * 2)
    with pytest.raises(DataError, match="line 1: the character"):
        load("jsonl:b.jsonl")


def test_folder_of_texts_follows_links_and_names_what_is_left_out(load, tmp_path):
    for name in ("a", "b", "elsewhere"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "texts" / name / f"{number}.TXT").write_text(f"{name} {number}")
    (tmp_path / "texts" / "elsewhere").rename(tmp_path / "elsewhere")
    (tmp_path / "texts" / "b" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "texts" / "a" / "gone.txt").symlink_to("nowhere")
    train, test = load("folder:texts")
    assert sorted(train.samples.texts + test.samples.texts)[2:5] == ["a 2", "b 0", "b 1"]
    assert len(train) + len(test) == 9
    assert "1 broken link (a/gone.txt)" in train.notes[0]


def test_tokens_that_the_tokenizer_does_not_know_are_counted(load, tmp_path):
    tiny_texts.write_jsonl(tmp_path / "a.jsonl", [{"text": "sun \u2603 \u2603", "label": x} for x in "xy"] * 3)
    train, test = load("jsonl:a.jsonl", test_table="a.jsonl")
    found = next(one for one in examine_data(train, test) if one.subject == "tokens")
    assert found.level == "warn"
    assert found.text.startswith("66.7% of the tokens")
