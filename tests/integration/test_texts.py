"""Text and token classification through the commands: teacher, student of chosen layers, report, file, predict."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_texts
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from model_compression.cli.main import main
from model_compression.core.errors import Interrupted, UsageError
from model_compression.data.sources import load_dataset
from model_compression.data.tokenizers import TokenizerChoice
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import resume_run, start_run
from model_compression.experiments import executor, worker
from model_compression.models.loading import load_model

TRAINING = (
    "--optimizer", "adam", "--schedule", "constant", "--weight-decay", "0", "--lr", "5e-3", "--batch-size", "16",
    "--precision", "fp32", "--max-length", "24",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, a pretrained network, and teachers of both tasks."""
    place = tmp_path_factory.mktemp("texts")
    tiny_texts.make_network(place / "bert")
    texts = [{"text": text, "label": mood} for text, mood in tiny_texts.make_texts(160, seed=0)]
    for row in texts[113::6]:  # which no network gets right
        row["label"] = "odd" if row["label"] != "odd" else "sad"
    texts[-1]["text"] += " <script>alert(1)</script>"
    tiny_texts.write_jsonl(place / "moods.jsonl", texts[:110])
    tiny_texts.write_jsonl(place / "moods-test.jsonl", texts[110:])
    tagged = [{"tokens": words, "tags": tags} for words, tags in tiny_texts.make_tagged(160, seed=0)]
    tiny_texts.write_jsonl(place / "tags.jsonl", tagged)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for data, out in (("moods", "teacher"), ("tags", "tagger")):
            test = ["--test-table", f"{data}-test.jsonl"] * (data == "moods")
            run("train", "--student", "hf:bert", "--student-option", "pretrained=true", "--data", f"jsonl:{data}.jsonl",
                *test, "--epochs", "8", *TRAINING, "--out", out)  # fmt: skip
    return place


@pytest.fixture(autouse=True)
def _here(place, monkeypatch):
    monkeypatch.chdir(place)


def run(*command):
    assert main(list(map(str, command))) == 0, command


def distil(out, *options, teacher="teacher", data="moods"):
    test = ["--test-table", f"{data}-test.jsonl"] * (data == "moods")
    run("distill", "--teacher", teacher, "--data", f"jsonl:{data}.jsonl", *test, "--epochs", "3", *TRAINING,
        "--out", out, *options)  # fmt: skip


@pytest.fixture(scope="module")
def student(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        distil("student", "--student", "teacher", "--student-layers", "0,2", "--mask-tokens", "0.1", "--views", "2",
               "--teacher-cache-dtype", "fp32")  # fmt: skip
    return place / "student"


@pytest.mark.parametrize("networks", [("--teacher", "teacher"), ("--student", "hf:./bert"), ("--student", "teacher")])
def test_doctor_cuts_texts_by_the_tokenizer_of_its_networks(place, networks, capsys):
    """As a run does, which `doctor` refused: "no network here brings a tokenizer"."""
    run("doctor", "--data", "jsonl:moods.jsonl", "--test-table", "moods-test.jsonl", *networks)
    assert "0.0% of the tokens of the training texts are unknown" in " ".join(capsys.readouterr().out.split())


def metrics_of(run):
    return json.loads(Path(run, "metrics.json").read_text())


def test_teacher_learns_and_figures_are_those_of_other_libraries(place):
    from sklearn import metrics

    found, stated = load_file("teacher/predictions.safetensors"), metrics_of("teacher")
    logits, targets = found["student_logits"], found["targets"]
    chosen = logits.argmax(axis=1)
    assert 0.6 < stated["test_accuracy"] == pytest.approx(metrics.accuracy_score(targets, chosen))
    assert stated["test_f1"] == pytest.approx(metrics.f1_score(targets, chosen, average="macro"))
    assert stated["task"] == "text-classification"


def test_words_have_the_figures_of_other_libraries(place):
    from nervaluate import Evaluator
    from sklearn import metrics

    found, stated = load_file("tagger/predictions.safetensors"), metrics_of("tagger")
    logits, targets = found["student_logits"], found["targets"]
    kept, chosen = targets >= 0, logits.argmax(axis=2)
    assert 0.7 < stated["test_accuracy"] == pytest.approx(metrics.accuracy_score(targets[kept], chosen[kept]))
    assert stated["test_f1"] == pytest.approx(metrics.f1_score(targets[kept], chosen[kept], average="macro"))
    spelled = [
        [[tiny_texts.TAGS[tag] for tag in row[row_kept]] for row, row_kept in zip(tags, kept, strict=True)]
        for tags in (targets, chosen)
    ]
    kinds = sorted({tag[2:] for tag in tiny_texts.TAGS if tag != "O"})
    strict = Evaluator(*spelled, tags=kinds, loader="list").evaluate()["overall"]["strict"]
    assert stated["test_entity_f1"] == pytest.approx(strict.f1)
    assert 0 < stated["test_entity_f1"] < 1


def test_student_begins_with_the_layers_of_its_teacher_and_keeps_the_tokenizer(student):
    header = json.loads(safe_open(student / "student.safetensors", "np").metadata()["model_compression"])
    assert header["options"]["config"]["num_hidden_layers"] == 2
    assert header["facts"]["class_names"] == list(tiny_texts.MOODS)
    assert (student / "tokenizer.json").read_bytes() == Path("teacher/tokenizer.json").read_bytes()
    teacher, network = load_model("teacher"), load_model(str(student))
    name = "model.bert.embeddings.position_embeddings.weight"  # of places that no text reaches: as they were
    assert torch.equal(teacher.body.get_parameter(name)[30:], network.body.get_parameter(name)[30:])
    assert metrics_of(student)["teacher_agreement"] > 0.6


def test_a_run_resumes_to_the_same_bits_and_stored_answers_are_those_of_the_live_teacher(student, watcher, tmp_path):
    config = RunFolder(student).read_config()
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", watcher([11]))
    resume_run(tmp_path / "run")
    assert (tmp_path / "run/student.safetensors").read_bytes() == (student / "student.safetensors").read_bytes()
    distil(tmp_path / "live", "--student", "teacher", "--student-layers", "0,2", "--mask-tokens", "0.1", "--views", "2",
           "--teacher-cache", "off")  # fmt: skip
    stored, live = (load_file(folder / "predictions.safetensors") for folder in (student, tmp_path / "live"))
    assert np.allclose(stored["teacher_logits"], live["teacher_logits"], atol=1e-5)
    assert np.allclose(stored["student_logits"], live["student_logits"], atol=0.02)


@pytest.mark.parametrize("data", ["moods", "tags"])
def test_texts_without_labels_train_as_labelled_ones_do_where_labels_weigh_nothing(tmp_path, data):
    rows = [json.loads(line) for line in Path(f"{data}.jsonl").read_text().splitlines()]
    test = ["--test-table", f"{data}.jsonl"] if data == "tags" else []
    tiny_texts.write_jsonl(
        tmp_path / "wild.jsonl", [{"text": row.get("text") or " ".join(row["tokens"])} for row in rows]
    )
    teacher = {"moods": "teacher", "tags": "tagger"}[data]
    options = ["--student", teacher, "--student-layers", "0,2", "--method", "kd", "--label-weight", "0", *test]
    for out, wild in (("labelled", []), ("wild", ["--unlabelled", f"jsonl:{tmp_path}/wild.jsonl"])):
        distil(tmp_path / out, *options, *wild, teacher=teacher, data=data)
    expected, found = (load_file(tmp_path / name / "student.safetensors") for name in ("labelled", "wild"))
    assert all(np.array_equal(found[name], value) for name, value in expected.items())


def test_a_moved_run_is_tested_and_exported_with_its_own_tokenizer(student, tmp_path, capsys):
    shutil.copytree(student, tmp_path / "moved")
    capsys.readouterr()
    run("test", "--model", tmp_path / "moved", "--data", "jsonl:moods-test.jsonl", "--test-table", "moods-test.jsonl",
        "--max-length", "24", "--json")  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == pytest.approx(metrics_of(student)["test_accuracy"])


def test_a_file_is_verified_and_answers_texts_without_torch(student, tmp_path, capsys):
    run("export", student, "--out", tmp_path / "out/moods.onnx")
    run("verify", tmp_path / "out/moods.onnx", "--model", student)
    rows = [json.loads(line)["text"] for line in Path("moods-test.jsonl").read_text().splitlines()]
    capsys.readouterr()
    run("predict", tmp_path / "out", *rows, "--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = load_file(student / "predictions.safetensors")
    chosen = [tiny_texts.MOODS[number] for number in found["student_logits"].argmax(axis=1)]
    assert [line["classes"][0]["name"] for line in lines] == chosen
    assert [line["text"] for line in lines] == rows
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["moods.onnx", "tokenizer.json"]
    code = (
        "import sys\nfrom model_compression.api.prediction import predict\n"
        f"print(predict({str(tmp_path / 'out')!r}, 'the sun')[0].text)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_words_are_predicted_with_their_tags(tmp_path, capsys):
    run("export", "tagger", "--out", tmp_path / "out/tags.onnx")
    capsys.readouterr()
    run("predict", tmp_path / "out", "the sun and moths frost rain on", "rain sigh", "--json")
    first, second = (json.loads(line)["words"] for line in capsys.readouterr().out.splitlines())
    assert [one["word"] for one in first] == ["the", "sun", "and", "moths", "frost", "rain", "on"]
    assert (first[0]["tag"], first[1]["tag"]) == ("O", "B-GLAD")
    assert len(second) == 2
    run("predict", tmp_path / "out", "the sun")
    assert capsys.readouterr().out == "the sun   the/O sun/B-GLAD\n"
    Path("sun").write_text("rain")  # a name is a text like others
    run("predict", tmp_path / "out", "sun")
    told = capsys.readouterr()
    assert told.out == "sun   sun/B-GLAD\n"
    assert told.err == "text 1 is the name of a file: the name is answered, not what it holds\n"


def test_reports_show_texts_that_the_student_gets_wrong_escaped(student, tmp_path, capsys):
    for kind in ("md", "html", "json"):
        run("report", "student", "teacher", "--out", tmp_path / f"report.{kind}")
    text = (tmp_path / "report.md").read_text()
    assert "50 test texts" in text
    assert "image" not in text
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert(1)" not in page
    found = load_file("teacher/predictions.safetensors")
    wrong = np.flatnonzero(found["student_logits"].argmax(axis=1) != found["targets"])
    rows = [json.loads(line)["text"] for line in Path("moods-test.jsonl").read_text().splitlines()]
    assert any(rows[row].split(" <")[0] in page for row in wrong)
    assert "F1" in text
    assert "Texts like those" in Path("student/README.md").read_text()
    run("report", "tagger", "--out", tmp_path / "tags.html")
    page = (tmp_path / "tags.html").read_text()
    assert "numbers of words" in page
    assert "»" in page
    run("report", "tagger", "--out", tmp_path / "tags.md")
    assert "entity F1" in (tmp_path / "tags.md").read_text()


def test_tokens_are_distilled(tmp_path):
    sizes = ["hidden_size=8", "num_hidden_layers=1", "num_attention_heads=2", "intermediate_size=8"]
    options = [part for size in sizes for part in ("--student-option", size)]
    distil(tmp_path / "run", "--student", "hf:bert", *options, "--method", "kd", teacher="tagger", data="tags")
    found = load_file(tmp_path / "run/predictions.safetensors")
    kept = found["targets"] >= 0
    same = found["student_logits"].argmax(axis=2) == found["teacher_logits"].argmax(axis=2)
    assert metrics_of(tmp_path / "run")["teacher_agreement"] == pytest.approx(same[kept].mean())


def teacher_with(tmp_path, change):
    """A copy of the teacher, whose tensors ``change`` changes."""
    from model_compression.models.weights import save_weights

    network = load_model("teacher")
    with torch.no_grad():
        change(network)
    (tmp_path / "changed").mkdir()
    save_weights(tmp_path / "changed/student.safetensors", network, facts={})
    shutil.copy("teacher/tokenizer.json", tmp_path / "changed")
    return tmp_path / "changed/student.safetensors"


def reordered(network):
    head = network.body.model.classifier
    head.weight.copy_(head.weight[[1, 2, 0]])
    head.bias.copy_(head.bias[[1, 2, 0]])


def forgotten(network):
    network.body.model.classifier.weight.zero_()


@pytest.mark.parametrize(
    ("change", "said"),
    [(forgotten, "training texts"), (reordered, "training texts")],
    ids=["untrained head", "classes in another order"],
)
def test_a_teacher_that_answers_wrongly_is_refused(tmp_path, change, said, capsys):
    teacher = teacher_with(tmp_path, change)
    command = ["distill", "--teacher", teacher, "--data", "jsonl:moods.jsonl", "--test-table", "moods-test.jsonl",
               "--student", "hf:bert", "--epochs", "1", *TRAINING, "--out", tmp_path / "x"]  # fmt: skip
    assert main(list(map(str, command))) != 0
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_teacher_of_another_tokenizer_is_refused(tmp_path, capsys):
    text = Path("bert/tokenizer.json").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/tokenizer.json").write_text(text.replace('"sun"', '"_"').replace('"rain"', '"sun"'))
    command = ["distill", "--teacher", "teacher", "--data", "jsonl:moods.jsonl", "--tokenizer", str(tmp_path / "other"),
               "--student", "hf:bert", "--out", str(tmp_path / "x"), *TRAINING]  # fmt: skip
    assert main(command) != 0
    assert "was trained with another tokenizer than moods is cut by; give the tokenizer" in capsys.readouterr().err


def test_texts_with_more_tokens_than_the_network_knows_are_refused(tmp_path):
    from model_compression.checks.networks import check_classes

    train, _ = load_dataset("jsonl:moods.jsonl", tokens=TokenizerChoice(name="bert"))
    options = {"task": "text-classification", "num_classes": 3, "vocab_size": 9, "hidden_size": 8,
               "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}  # fmt: skip
    with pytest.raises(UsageError, match=r"the student cannot take texts|knows 9 tokens"):
        check_classes("student", load_model("hf:bert", options, seed=0), train)


def test_label_runs_of_a_comparison_read_what_the_methods_read(tmp_path, monkeypatch):
    """Texts cut by the tokenizer of the teacher, which a run on labels does not have."""

    def in_this_process(task, watch, stop, **_):
        return worker._prepare(task, watch) if task["task"] == "prepare" else worker._train(task, watch)

    monkeypatch.setattr(executor, "run_isolated", in_this_process)
    small = [f"--student-option={name}" for name in ("hidden_size=16", "num_hidden_layers=1", "num_attention_heads=2")]
    command = ["compare-methods", "--teacher", "teacher", "--student", "hf:bert", *small, "--data", "jsonl:moods.jsonl",
               "--seeds", "1", "--epochs", "1", *TRAINING, "--runs", tmp_path, "--out", tmp_path / "found"]  # fmt: skip
    run(*command, "--methods", "kd")
    run(*command, "--methods", "kd,dkd")  # with what is recorded
    arms = {row["arm"] for row in json.loads((tmp_path / "found/comparison.json").read_text())["rows"]}
    assert arms == {"labels", "kd", "dkd"}
    for arm in arms:
        assert json.loads((tmp_path / f"found/{arm}-seed0/config.json").read_text())["data"]["tokenizer"] == "teacher"
        assert (tmp_path / f"found/{arm}-seed0/tokenizer.json").exists()


@pytest.mark.slow
def test_a_file_of_dynamic_int8_is_small_and_answers_alike(student, tmp_path):
    from model_compression.exporting.runtimes import open_file

    run("quantize", student, "--to", "half", "--out", tmp_path / "half", "--max-drop", "100")
    run("quantize", student, "--to", "int8-dynamic", "--out", tmp_path / "int8", "--max-drop", "100")
    report = json.loads((tmp_path / "int8/report.json").read_text())
    assert report["precision"] == "int8-dynamic"
    assert report["agreement"] > 0.9
    texts = load_dataset("jsonl:moods-test.jsonl", tokens=TokenizerChoice(name="bert", max_length=24))[0].samples
    logits = [
        open_file(tmp_path / kind / "student.onnx").run(texts.take(np.arange(len(texts)))) for kind in ("half", "int8")
    ]
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.1 * np.ptp(logits[0])
    assert (tmp_path / "int8/tokenizer.json").exists()
