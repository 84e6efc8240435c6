"""A task of texts that is made up here: ragged rows of tokens, two inputs by name. All but pruning serves it."""

import dataclasses
import hashlib
import json
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from torch import nn

from model_compression.cli.main import main
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.errors import DataError, Interrupted, UsageError
from model_compression.core.metric import DEFAULT_METRIC, Metric
from model_compression.core.optim_config import OptimConfig
from model_compression.data.dataset import Dataset
from model_compression.data.samples import Samples
from model_compression.data.sources import DATASETS
from model_compression.distillation.teachers.store import stores
from model_compression.engine.runs import resume_run, start_run
from model_compression.exporting.classify import describe
from model_compression.models.base import MODELS, Network
from model_compression.models.create import create_model
from model_compression.models.loading import load_model
from model_compression.models.preprocessing import AS_IT_IS
from model_compression.models.weights import save_weights
from model_compression.reports.rows import Tile
from model_compression.reports.sections import SECTIONS, Findings, Section
from model_compression.tasks import TASKS, Task

WORDS = 20
MOODS = ("sad", "glad", "odd")


class Moods(Task):
    """One of three moods for each text."""

    name = "moods"
    answer = "categorical"
    metric = Metric(
        name="hits", label="hit rate", plural="hit rates", unit="‰", gain_unit="‰", digits=1, factor=1000.0,
        higher_is_better=True, lowest=0.0, highest=1.0,
    )  # fmt: skip

    def label_loss(self, logits, targets, mixed, label_smoothing):
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)

    def score(self, logits, targets):
        return (logits.argmax(dim=1) == targets).sum()

    def as_targets(self, logits, targets):
        return logits.argmax(dim=1)

    def mean_of(self, answers):
        return torch.stack([answer.detach() for answer in answers]).mean(dim=0)

    def figures(self, logits, targets):
        return {"hits": float((logits.argmax(dim=1) == targets).double().mean())}

    def agreement(self, logits, others):
        return float((logits.argmax(dim=1) == others.argmax(dim=1)).double().mean())

    def guessing_fault(self, value, dataset):
        return None

    def surest_mistakes(self, logits, others, targets):
        return (logits.argmax(dim=1) != targets).nonzero().flatten()

    def check_answer(self, role, model, dataset, answer):
        if answer.shape[1:] != (dataset.num_classes,):
            raise UsageError(f"the {role} answers with {tuple(answer.shape)}; expected {dataset.num_classes} moods")

    def facts(self, dataset):
        return {"class_names": list(dataset.class_names)}


class Texts(Samples):
    """Rows of token numbers of different lengths, padded to the longest of a batch."""

    noun = "texts"
    signature = {"input_ids": ("length",), "attention_mask": ("length",)}

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def take(self, rows):
        texts = [self.rows[row] for row in rows]
        shape = (len(texts), max(map(len, texts)))
        ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = text, 1
        return {"input_ids": ids, "attention_mask": mask}

    def subset(self, rows):
        return Texts([self.rows[row] for row in rows])

    def digest(self, targets):
        return hashlib.sha256(json.dumps([self.rows, targets.tolist()]).encode()).hexdigest()


class MeanOfWords(nn.Module):
    """The mean of the embeddings of the words that there are."""

    def __init__(self, width):
        super().__init__()
        self.table = nn.Embedding(WORDS, width)
        self.drop = nn.Dropout(0.2)

    def forward(self, inputs):
        mask = inputs["attention_mask"].unsqueeze(2)
        words = self.drop(self.table(inputs["input_ids"])) * mask
        return words.sum(dim=1) / mask.sum(dim=1)


def bag(num_classes=3, width=6):
    network = Network(OrderedDict(bag=MeanOfWords(width), relu=nn.ReLU(), head=nn.Linear(width, num_classes)))
    network.preprocessing = AS_IT_IS
    return network


def moods(data_dir=None, report=None, allow_download=True):
    rng = np.random.default_rng(7)
    sets = []
    for name, count in (("moods", 61), ("moods-test", 24)):
        labels = np.arange(count, dtype=np.int64) % 3
        rows = [
            (rng.integers(0, WORDS // 3, rng.integers(2, 9)) * 3 + label).clip(0, WORDS - 1).tolist()
            for label in labels
        ]
        sets.append(Dataset(name=name, samples=Texts(rows), labels=labels, class_names=MOODS, task="moods"))
    return tuple(sets)


@pytest.fixture(autouse=True)
def _task(monkeypatch, tmp_path):
    monkeypatch.setitem(TASKS._entries, "moods", Moods)
    monkeypatch.setitem(DATASETS._entries, "moods", moods)
    monkeypatch.setitem(MODELS._entries, "bag", bag)
    monkeypatch.chdir(tmp_path)
    wide = create_model("bag", seed=3, width=16)
    save_weights(tmp_path / "teacher.safetensors", wide)


def config_of(method=None, **options):
    """A run on the texts, from the wide network that was never trained."""
    kept = {"teacher": ModelConfig(name="teacher.safetensors"), "allow_weak_teacher": True} if method else {}
    return TrainConfig(
        student=ModelConfig(name="bag"),
        method=method and (MethodConfig(name=method) if isinstance(method, str) else method),
        data=dataclasses.replace(TrainConfig(student=ModelConfig(name="bag")).data, name="moods"),
        optim=OptimConfig(lr=3e-2),
        epochs=4,
        batch_size=8,
        **(kept | options),
    )


def test_texts_are_learned_and_a_run_resumes_to_the_same_bits(watcher, tmp_path):
    config = config_of(MethodConfig(name="kd", label_weight=1.0))
    whole = start_run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", watcher([11]))
    assert resume_run(tmp_path / "run") == whole | {"seconds": pytest.approx(whole["seconds"], abs=60)}
    for name in ("student.safetensors", "events.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    found = load_file(tmp_path / "run" / "predictions.safetensors")
    assert whole["test_hits"] == np.mean(found["student_logits"].argmax(axis=1) == moods()[1].labels) > 0.6
    assert set(found) == {"student_logits", "teacher_logits", "targets"}


def test_padding_changes_no_answer(tmp_path):
    """A text alone has the answer that it has in a batch of longer ones."""
    start_run(config_of(precision="fp32"), tmp_path / "run")
    network = load_model(tmp_path / "run" / "student.safetensors").eval()
    logits = load_file(tmp_path / "run" / "predictions.safetensors")["student_logits"]
    texts = moods()[1].samples
    for row in range(len(texts)):
        taken = {name: torch.from_numpy(array) for name, array in texts.take(np.array([row])).items()}
        with torch.no_grad():
            assert torch.allclose(network(network.preprocessing(taken))[0], torch.from_numpy(logits[row]), atol=1e-5)


def test_stored_answers_are_those_of_the_live_teacher(tmp_path):
    """Also of the embedding; a second run finds them."""
    method = MethodConfig(name="kd,rkd")
    for name, cache in (("stored", "auto"), ("live", "off"), ("again", "auto")):
        start_run(config_of(method, teacher_cache=cache, teacher_cache_dtype="fp32"), tmp_path / name)
    (store,) = stores()
    assert (store.usage.filled, store.usage.found) == (1, 1)
    weights = [load_file(tmp_path / name / "student.safetensors") for name in ("stored", "live", "again")]
    for name, tensor in weights[0].items():
        assert np.array_equal(tensor, weights[2][name])
        assert np.allclose(tensor, weights[1][name], atol=1e-5)


def test_runs_are_listed_reported_and_compared_by_their_metric(tmp_path, capsys):
    for seed in (0, 1):
        start_run(config_of("kd", seed=seed), tmp_path / "runs" / f"distilled-{seed}")
        start_run(config_of(seed=seed), tmp_path / "runs" / f"labels-{seed}")
    assert main(["runs", "runs"]) == 0
    assert "‰" in capsys.readouterr().out
    for kind in ("md", "html", "json"):
        assert main(["report", "runs", "--out", f"report.{kind}"]) == 0
        text = (tmp_path / f"report.{kind}").read_text()
        assert "hit rate" in text or kind == "json"
        assert "accuracy" not in text.lower()
        assert kind == "html" or " image" not in text.lower()
    assert main(["compare", "runs/distilled-0", "runs/labels-0"]) == 0
    assert "‰" in capsys.readouterr().out
    assert main(["test", "--model", "runs/labels-0", "--data", "moods"]) == 0, capsys.readouterr().err
    assert "‰" in capsys.readouterr().out


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_network_is_exported_with_any_length_and_verified(to, tmp_path, capsys):
    from model_compression.exporting.runtimes import open_file

    metrics = start_run(config_of(precision="fp32"), tmp_path / "run")
    file = tmp_path / f"moods{'.onnx' if to == 'onnx' else '.pt2'}"
    assert main(["export", "run", "--out", str(file), "--to", to]) == 0, capsys.readouterr().err
    assert main(["verify", str(file), "--model", "run", "--json"]) == 0, capsys.readouterr().err
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["hits"] == pytest.approx(metrics["test_hits"])
    opened = open_file(file)
    logits = load_file(tmp_path / "run" / "predictions.safetensors")["student_logits"]
    alone = opened.run(moods()[1].samples.take(np.array([4])))
    assert np.allclose(alone[0], logits[4], atol=1e-4)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["prune", "run", "--params", "0.5", "--method", "kd", "--out", "x"], "moods has texts, and this serves"),
        (["quantize", "run", "--out", "x"], "int8 finds ranges on images, and moods-test has texts; use --to int8-d"),
        (["measure", "run"], "takes no images, and this serves images only"),
        (["train", "--student", "bag", "--data", "moods", "--augmentation", "flip", "--out", "x"],
         "augmentation, mixup and cutmix are for images, and these samples are texts"),
        (["train", "--student", "bag", "--data", "moods", "--student-size", "8,8", "--out", "x"],
         "mean, std and size are of images, and moods has texts"),
        (["train", "--student", "lenet", "--data", "moods", "--out", "x"], "the student cannot take texts"),
        (["distill", "--student", "bag", "--data", "moods", "--teacher", "teacher.safetensors", "--teacher-tta", "flip",
          "--out", "x"], "is for images only; leave it out"),
    ],
)  # fmt: skip
def test_what_serves_images_only_refuses_in_a_line(command, said, tmp_path, capsys):
    start_run(config_of(), tmp_path / "run")
    capsys.readouterr()
    assert main(command) != 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]
    assert said in line
    assert not (tmp_path / "x").exists()


def test_network_of_texts_is_pruned_halved_packed_and_examined(tmp_path, capsys):
    start_run(config_of(), tmp_path / "run")
    commands = [
        ["data", "moods"],
        ["doctor", "--data", "moods", "--student", "bag", "--teacher", "run"],
        ["prune", "run", "--sparsity", "0.3", "--steps", "1", "--method", "kd", "--epochs", "1", "--out", "pruned"],
        ["quantize", "run", "--to", "half", "--max-drop", "100", "--out", "small"],
        ["pack", "run", "--out", "packed.safetensors"],
        ["test", "--model", "packed.safetensors", "--data", "moods"],
    ]
    for command in commands:
        capsys.readouterr()
        assert main(command) == 0, capsys.readouterr()
    assert "‰" in capsys.readouterr().out
    assert (tmp_path / "small" / "student.onnx").stat().st_size > 0


class MoodFindings(Findings):
    template = "<h3>Moods</h3><p>{{ found.sad }} sad of {{ found.detail.samples }}</p>"

    def __init__(self, logits, targets):
        self.logits, self.targets = logits, targets
        self.right = logits.argmax(axis=1) == targets

    samples = property(lambda self: len(self.targets))
    value = property(lambda self: float(self.right.mean()))
    interval = property(lambda self: (self.value - 0.1, self.value + 0.1))
    teacher_interval = None
    columns = property(lambda self: {"sad ones": str(int((self.targets == 0).sum()))})

    def tiles(self, of_seed, of_run):
        return [Tile(name="Sad ones", value=self.columns["sad ones"], note="of all")]

    def page_values(self, series):
        return {"sad": self.columns["sad ones"]}

    def to_plain(self):
        return {"sad": self.columns["sad ones"]}


class MoodSection(Section):
    columns = ("sad ones",)
    note = "sad ones are those whose mood is sad"
    gains_note = "with one seed of the same texts"

    def read(self, path, data):
        found = load_file(path)
        return MoodFindings(found["student_logits"], found["targets"])

    def figures(self, found, kind):
        return {f"{kind}_hits": found.value}

    def right(self, found):
        return found.right

    def are_same_samples(self, found, other):
        return np.array_equal(found.targets, other.targets)

    def agreement(self, found, other):
        return None

    def examine(self, found):
        return found

    def decode(self, logits, names):
        return [(names[logits.argmax()], 1.0)]

    def card_figures(self, metrics, found, kind):
        return [("sad ones", found.columns["sad ones"])]

    def purpose(self, found, source):
        return f"Moods of texts like those {source}."

    def limits(self, found, kind):
        return ["It knows three moods."]


def test_an_answer_is_decoded_as_the_section_of_its_task_does(monkeypatch):
    file = SimpleNamespace(metadata=SimpleNamespace(task="moods", class_names=MOODS, facts={}))
    logits = np.array([0.0, 2.0, 1.0])
    assert list(describe(file, logits).classes) == []
    monkeypatch.setitem(SECTIONS._entries, "moods", MoodSection)
    assert list(describe(file, logits).classes) == [("glad", 1.0)]


def test_a_task_brings_its_section_of_the_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(SECTIONS._entries, "moods", MoodSection)
    for name, method in (("distilled", "kd"), ("labels", None)):
        start_run(config_of(method), tmp_path / "runs" / name)
    card = (tmp_path / "runs/labels/README.md").read_text()
    assert "Moods of texts like those of moods." in card
    assert "It knows three moods." in card
    for kind in ("md", "html", "json"):
        assert main(["report", "runs", "--out", f"report.{kind}"]) == 0, capsys.readouterr().err
    assert "<h3>Moods</h3><p>8 sad of 24</p>" in (tmp_path / "report.html").read_text()
    assert "sad ones are those whose mood is sad" in (tmp_path / "report.md").read_text()
    (tmp_path / "plain.json").write_text((tmp_path / "report.json").read_text())
    assert {group["detail"]["sad"] for group in json.loads((tmp_path / "plain.json").read_text())["groups"]} == {"8"}
    assert main(["compare", "runs/distilled", "runs/labels"]) == 0
    assert "on the same 24" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "runs/labels/metrics.json").read_text())
    (tmp_path / "runs/labels/manifest.json").unlink(missing_ok=True)
    metrics["test_hits"] = 1 - metrics["test_hits"]
    (tmp_path / "runs/labels/metrics.json").write_text(json.dumps(metrics))
    assert main(["report", "runs/labels", "--out", "again.md"]) != 0


def test_a_task_with_the_default_metric_is_not_taken_for_images(tmp_path, capsys, monkeypatch):
    class Right(Moods):
        metric = DEFAULT_METRIC

        def figures(self, logits, targets):
            return {"accuracy": super().figures(logits, targets)["hits"]}

    monkeypatch.setitem(TASKS._entries, "moods", Right)
    start_run(config_of(), tmp_path / "run")
    assert json.loads((tmp_path / "run/metrics.json").read_text())["task"] == "moods"
    for kind in ("md", "html"):
        assert main(["report", "run", "--out", f"report.{kind}"]) == 0, capsys.readouterr().err
    assert "Confusion" not in (tmp_path / "report.html").read_text()


def test_empty_samples_and_nan_targets_are_refused():
    with pytest.raises(DataError, match="there are no texts"):
        Dataset(name="none", samples=Texts([]), labels=np.zeros(0, np.int64), class_names=MOODS, task="moods")
    targets = np.array([[0.0, 1.0], [np.nan, 0.0]])
    with pytest.raises(DataError, match="the target of sample 1 is NaN"):
        Dataset(name="bad", samples=Texts([[1], [2]]), labels=targets, task="moods")
