"""The data: what they are, their labels, and images that are in both sets."""

from collections.abc import Iterator

import numpy as np

from model_compression.core.finding import Finding
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset
from model_compression.data.shared_samples import count_shared
from model_compression.data.texts import Texts
from model_compression.tasks import task_of

_UNKNOWN = 0.1  # of the tokens, above which texts lose their meaning
_FAINT = 0.02  # deviation of pixels, 1 = white, below which nobody could see what is in an image


def examine_data(train: Dataset, test: Dataset, *, reads_all: bool = True) -> Iterator[Finding]:
    """Findings on a training and a test set; without ``reads_all`` those for which no image is read again."""
    noun, shape = train.noun, f" of {_shape(train)}" if train.holds_images else ""
    yield Finding(
        area="data",
        subject="content",
        level="ok",
        text=f"{train.name}: {len(train):,} training and {len(test):,} test {noun}{shape}; SHA-256 of the training "
        f"set {train.digest[:12]}",
    )
    for note in dict.fromkeys((*train.notes, *test.notes)):
        remedy = "convert, repair or remove them" if train.holds_images else ""
        yield Finding(area="data", subject="left out", level="warn", text=note, remedy=remedy)
    yield from task_of(train).data_findings(train, test)
    if train.holds_images:
        yield from _examine_images(train, test)
    if isinstance(train.samples, Texts):
        yield _known(train.samples)
    if reads_all and train.has_ids:
        yield _shared(train, test)


def _examine_images(train: Dataset, test: Dataset) -> Iterator[Finding]:
    if test.image_shape != train.image_shape:
        yield Finding(
            area="data",
            subject="sizes",
            level="warn",
            text=f"training images are of {_shape(train)}, test images of {_shape(test)}",
            remedy="scale one of them, unless another size is meant to be tested",
        )
    # The mean and deviation of a DataLoader's batches are not measured: they only leave its values as they are.
    if max(train.std) < _FAINT and train.has_ids:
        yield Finding(
            area="data",
            subject="contrast",
            level="warn",
            text=f"all images are nearly of one colour (mean {_short(train.mean)}, "
            f"deviation {_short(train.std)}, 1 = white)",
            remedy="look at them: 12 bits in files of 16, or pixels of 0 to 1 as integers, come out black",
        )


def _known(texts: Texts) -> Finding:
    """How many tokens are none that the tokenizer knows: of another language, or in capitals, many are not."""
    tokens, tokenizer = texts.tokens.values, texts.tokenizer
    unknown = tokens == (-1 if tokenizer.unknown is None else tokenizer.unknown)
    of_text = unknown | ~np.isin(tokens, tokenizer.special)
    share = float(unknown.sum() / max(1, of_text.sum()))
    text = f"{share:.1%} of the tokens of the training texts are unknown to the tokenizer"
    remedy = f"look at {setting('tokenizer')}, and at language and encoding of the texts" if share > _UNKNOWN else ""
    return Finding(area="data", subject="tokens", level="warn" if remedy else "ok", text=text, remedy=remedy)


def _shape(dataset: Dataset) -> str:
    return " × ".join(map(str, dataset.image_shape))


def _short(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _shared(train: Dataset, test: Dataset) -> Finding:
    shared, noun = count_shared(train, test), train.noun
    if not shared:
        return Finding(area="data", subject="duplicates", level="ok", text=f"no test {noun} are in the training set")
    return Finding(
        area="data",
        subject="duplicates",
        level="fail" if shared > len(test) / 100 else "warn",
        text=f"{shared:,} of {len(test):,} test {noun} are training {noun} too",
        remedy="remove them from one of the sets: test figures flatter",
    )
