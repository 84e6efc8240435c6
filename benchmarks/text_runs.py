"""One teacher and its students on texts, over several seeds: the runs with their records, and the table of them."""

import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import line, surroundings
from model_compression.api.compression import quantize
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.files import write_atomically, write_json
from model_compression.core.optim_config import OptimConfig
from model_compression.core.table_config import TableConfig
from model_compression.data.tokenizers import IDS, MASK, load_tokenizer
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.training import Training
from model_compression.exporting.runtimes import open_file
from model_compression.reports.statistics import summarise

TIMED = 100  # texts
TEACHER_SEED = 100
METHODS: dict[str, MethodConfig | None] = {
    "labels only": None,
    "kd": MethodConfig(name="kd", label_weight=0.5, params={"temperature": 2.0}),
    "kd + hidden": MethodConfig(name="kd,hidden", label_weight=0.5, params={"kd.temperature": 2.0}),
}
SMALL = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}


@dataclass(frozen=True, kw_only=True)
class Student:
    """A network that learns, with its learning rate and epochs. ``layers`` of the teacher, or a fresh one if none."""

    layers: Sequence[int] = ()
    lr: float
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A task with its teacher, MiniLM-L6, and students by name.

    ``folder`` is what the folders of records and runs are called, ``length`` the tokens after which a text is cut.
    ``write`` writes train.jsonl and test.jsonl into a folder. ``metric`` and ``other`` are the figures of the table, by
    key and by title.
    """

    folder: str
    title: str
    about: str
    unit: str
    length: int
    write: Callable[[Path], None]
    students: Mapping[str, Student]
    metric: tuple[str, str]
    other: tuple[str, str]

    @property
    def records(self) -> Path:
        """The folder of the records."""
        return Path("results") / self.folder

    @property
    def runs(self) -> Path:
        """The folder of data and runs."""
        return Path("runs") / self.folder

    @property
    def teacher(self) -> Path:
        """The run of the teacher."""
        return self.runs / "teacher"

    def make(self, minilm: Path, seeds: int, only: str) -> None:
        """Makes what has no record yet, of each method or ``only`` of one, and writes the table of all records."""
        if not (self.runs / "test.jsonl").exists():
            self.runs.mkdir(parents=True, exist_ok=True)
            self.write(self.runs)
        pretrained = ModelConfig(name=f"hf:{minilm}", options={"pretrained": True})
        self._run("teacher", self._config(pretrained, None, 1e-4, 3, TEACHER_SEED))
        for seed in range(seeds if only != "teacher" else 0):
            for name, student in self.students.items():
                for method, chosen in METHODS.items():
                    if only in ("", method):
                        config = self._config(self._network(student), chosen, student.lr, student.epochs, seed)
                        self._run(f"{_name(name, method)}-seed{seed}", config)
        write_atomically(self.records / "table.md", self.table().encode())
        print(self.table())

    def _network(self, student: Student) -> ModelConfig:
        if student.layers:
            return ModelConfig(name=str(self.teacher), layers=[*student.layers])
        return ModelConfig(name="hf:bert", options=SMALL)

    def _config(
        self, student: ModelConfig, method: MethodConfig | None, lr: float, epochs: int, seed: int
    ) -> TrainConfig:
        taught = (self.teacher / "tokenizer.json").exists()
        return TrainConfig(
            student=student,
            teacher=None if method is None else ModelConfig(name=str(self.teacher)),
            method=method,
            data=DataConfig(
                name=f"jsonl:{self.runs}/train.jsonl",
                table=TableConfig(test_table=str(self.runs / "test.jsonl")),
                max_length=self.length,
                tokenizer=str(self.teacher) if taught else "",
            ),
            optim=OptimConfig(optimizer="adamw", lr=lr, weight_decay=0.01, schedule="one_cycle"),
            epochs=epochs,
            batch_size=32,
            precision="fp32",
            seed=seed,
        )

    def _run(self, name: str, config: TrainConfig) -> None:
        """A run with its record, unless there is one; of the first seed its int8 file and the time of a text as well.

        The teacher is needed in its folder, also where it has a record.
        """
        record, folder = self.records / f"{name}.json", self.runs / name
        if record.exists() and (folder != self.teacher or RunFolder(folder).is_finished()):
            return
        with ConsoleObserver() as observer:
            observer.message(name)
            metrics = Training(config, folder, observer).finish()
            if config.seed in (0, TEACHER_SEED):
                for kind, to in (("half", "half"), ("int8", "int8-dynamic")):
                    out = self.runs / f"{name}-{kind}"
                    found = quantize(folder, to=to, max_drop=5.0, run_dir=out, observer=observer).report
                    metrics |= {f"{kind}_bytes": found["bytes"], f"{kind}_accuracy": found["accuracy"]}
                    metrics[f"{kind}_ms"] = self._milliseconds(out)
        self.records.mkdir(parents=True, exist_ok=True)
        write_json(record, {"surroundings": surroundings(torch.device("cpu")), **metrics})

    def _milliseconds(self, folder: Path) -> float:
        """Median time of a single text of the test, from its text to the logits."""
        file, tokenizer = open_file(folder / "student.onnx"), load_tokenizer(str(folder), 0)
        rows = [json.loads(row) for row in (self.runs / "test.jsonl").read_text().splitlines()[:TIMED]]
        times = []
        for row in [rows[0], *rows]:
            begun = time.perf_counter()
            words = row.get("tokens")
            tokens = tokenizer.encode([words], in_words=True) if words else tokenizer.encode([row["text"]])
            ids, mask = tokens.padded(tokenizer.pad)
            file.run({IDS: ids, MASK: mask})
            times.append(1000 * (time.perf_counter() - begun))
        return statistics.median(times[1:])

    def table(self) -> str:
        """Markdown: a row a student and method, means over seeds."""
        teacher = json.loads((self.records / "teacher.json").read_text())
        rows = [self._row("MiniLM-L6, fine-tuned: the teacher", "labels only", [teacher])]
        for student in self.students:
            for method in METHODS:
                files = sorted(self.records.glob(f"{_name(student, method)}-seed*.json"))
                if files:
                    rows.append(self._row(student, method, [json.loads(file.read_text()) for file in files]))
        return "\n".join(
            [
                f"# {self.title}",
                "",
                f"{line(teacher['surroundings'])}.",
                "",
                f"{self.about} ms are the median of one {self.unit}, from its text to the logits, of seed 0.",
                "",
                f"| network | method | parameters | test {self.metric[1]} | each seed | test {self.other[1]} "
                "| bytes, half | bytes, int8 | accuracy, int8 | ms, half | ms, int8 |",
                "|---|---|---:|---:|---|---:|---:|---:|---:|---:|---:|",
                *rows,
                "",
            ]
        )

    def _row(self, student: str, method: str, found: list[dict[str, Any]]) -> str:
        values = [one[self.metric[0]] for one in found]
        main = summarise(values)
        spread = "" if main.half_width is None else f" ± {100 * main.half_width:.1f}"
        other = statistics.mean(one[self.other[0]] for one in found)
        first = next((one for one in found if "half_bytes" in one), None)
        costs = (
            "| | | | | |"
            if first is None
            else f"| {first['half_bytes']:,} | {first['int8_bytes']:,} | {100 * first['int8_accuracy']:.1f} % "
            f"| {first['half_ms']:.2f} | {first['int8_ms']:.2f} |"
        )
        return (
            f"| {student} | {method} | {found[0]['parameters']:,} | {100 * main.mean:.1f} %{spread} "
            f"| {', '.join(f'{100 * value:.1f}' for value in values)} | {100 * other:.1f} % {costs}"
        )


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """An object a line, as `jsonl:` reads them."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def _name(student: str, method: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{student} {method}".lower())
