"""How fast a network for texts is distilled, against transformers' Trainer with a subclassed loss, in turn, in rounds.

    python -m benchmarks.trainer_comparison --mails FOLDER --minilm FOLDER [--rounds 3] [--texts 128] [--length 64]

Each way has the same networks, mails, batch, precision, optimiser and threads, and a process of its own; tokens are cut
beforehand. The teacher is MiniLM-L6 with a fresh head, as its speed is that of a trained one. For the folders see
`benchmarks.texts`; the Trainer needs the package accelerate.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.mails import write_mails
from benchmarks.record import line, surroundings, write
from benchmarks.speed import Measured, measure
from benchmarks.text_runs import SMALL
from benchmarks.trainer_ways import Job

RUNS = Path("runs/trainer")
_TOLD = {
    "trainer": "Trainer, its defaults",
    "trainer_best": "Trainer, texts grouped by length",
    "stored": "`distill`, stored answers",
}
SMALL_STUDENT, HALF = "2 layers of 128", "3 layers of the teacher"


def write_networks(minilm: Path) -> dict[str, Path]:
    """Folders as on the hub: of the teacher, and of students by name."""
    import transformers

    network = transformers.AutoModelForSequenceClassification
    torch.manual_seed(0)
    teacher = network.from_pretrained(minilm, num_labels=2)
    folders = {name: RUNS / name.replace(" ", "-") for name in ("teacher", HALF, SMALL_STUDENT)}
    half = network.from_pretrained(minilm, num_labels=2)
    half.bert.encoder.layer = half.bert.encoder.layer[1::2]
    half.config.num_hidden_layers = len(half.bert.encoder.layer)
    small = network.from_config(transformers.BertConfig(vocab_size=teacher.config.vocab_size, num_labels=2, **SMALL))
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    for folder, made in zip(folders.values(), (teacher, half, small), strict=True):
        made.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folders


def write_texts(mails: Path, count: int) -> tuple[Path, Path]:
    """Files of ``count`` training mails, and of as many for the test, which nothing here is measured on."""
    if not (RUNS / "test.jsonl").exists():
        RUNS.mkdir(parents=True, exist_ok=True)
        write_mails(mails, RUNS)
    found = []
    for part in ("train", "test"):
        rows = (RUNS / f"{part}.jsonl").read_text().splitlines(keepends=True)[:count]
        found.append(RUNS / f"{part}-{count}.jsonl")
        found[-1].write_text("".join(rows))
    return found[0], found[1]


def table(measured: dict[str, dict[str, Measured]], where: str, job: Job, texts: int) -> str:
    """Markdown: mails a second of each way, and how many times as fast stored answers are."""
    rows = []
    for student, ways in measured.items():
        for way, result in ways.items():
            spread = f"{min(result.rates):.1f} to {max(result.rates):.1f}"
            times = ways["stored"].rate / result.rate
            rows.append(f"| {student} | {_TOLD[way]} | {result.rate:.1f} | {spread} | {times:.2f} |")
    first = next(iter(measured.values()))
    filled = [ways["stored"].facts["fill_seconds"] for ways in measured.values()]
    return "\n".join(
        [
            "# Distilling networks for texts, beside transformers' Trainer",
            "",
            f"{where}. Median of {len(first['stored'].rates)} rounds, each way in turn for whole epochs of {texts:,} "
            f"mails of up to {job.length} tokens; batch {job.batch_size}, float32; `python -m "
            "benchmarks.trainer_comparison`. The teacher is MiniLM-L6.",
            "",
            "| student | way | mails a second | all rounds | stored answers are × faster |",
            "|---|---|---:|---:|---:|",
            *rows,
            "",
            f"To store the answers takes one pass of the teacher before the first epoch, here {max(filled):.1f} s; all "
            "later epochs and runs read them.",
            "",
        ]
    )


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mails", type=Path, required=True, help="folder with the mails")
    parser.add_argument("--minilm", type=Path, required=True, help="folder with MiniLM-L6")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--texts", type=int, default=128, help="mails of an epoch (default: 128)")
    parser.add_argument("--length", type=int, default=64, help="tokens of a mail (default: 64)")
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--seconds", type=float, default=1.0, help="least time of a way in a round (default: 1)")
    args = parser.parse_args()
    train, test = write_texts(args.mails, args.texts)
    folders = write_networks(args.minilm)
    teacher = str(folders.pop("teacher"))
    job = Job(student="", teacher=teacher, train=str(train), test=str(test), batch_size=args.batch_size,
              length=args.length)  # fmt: skip
    measured = {
        name: measure(list(_TOLD), replace(job, student=str(folder)), args.rounds, args.seconds)
        for name, folder in folders.items()
    }
    facts = surroundings(torch.device("cpu"), "transformers", "accelerate")
    content: dict[str, Any] = {
        "surroundings": facts,
        "job": asdict(job),
        "texts": args.texts,
        "students": {name: {way: asdict(one) for way, one in ways.items()} for name, ways in measured.items()},
    }
    text = table(measured, line(facts), job, args.texts)
    print(text)
    write("trainer-comparison", content, text)


if __name__ == "__main__":
    main()
