"""What an exported network answers to texts, by the tokenizer in the file beside it. Torch is not imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, FileFormatError, NotThereError, NumericalError, UsageError
from model_compression.data.text_files import check_characters
from model_compression.data.tokenizers import FILE, IDS, MASK, Tokenizer, load_tokenizer
from model_compression.exporting.runtimes import ExportedFile

TOKENIZER = "tokenizer_sha256"
"""The fact of a file that says by which tokenizer its texts are cut."""
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class TextAnswer:
    """The logits (K,) of a text; or those of the first token of each of its ``words``, (W, K).

    ``is_cut``: whether the text is longer than the tokens that the file was made for, and only its beginning counts.
    """

    text: str
    logits: npt.NDArray[np.float64]
    words: tuple[str, ...] = ()
    is_cut: bool = False


def tokenizer_of(file: ExportedFile, path: Path) -> Tokenizer:
    """The tokenizer beside the file at ``path``, which was written with it.

    Raises NotThereError where there is none, FileFormatError for another one.
    """
    beside = path.parent / FILE
    if not beside.is_file():
        raise NotThereError(f"{beside} is not there; expected the tokenizer that was written with {path.name}")
    found = load_tokenizer(str(beside), 0)
    if found.sha256 != file.metadata.facts[TOKENIZER]:
        raise FileFormatError(f"{beside} is another tokenizer than {path.name} was made with; export it anew")
    return found


def answer_texts(file: ExportedFile, tokenizer: Tokenizer, texts: Sequence[str]) -> list[TextAnswer]:
    """The answers to ``texts``, in batches of about one length. Raises DataError for an empty text."""
    empty = next((number for number, text in enumerate(texts, start=1) if not text.strip()), None)
    if empty is not None:
        raise DataError(f"text {empty} is empty; expected one of at least a word")
    for number, text in enumerate(texts, start=1):
        check_characters(text, f"text {number}")
    known = file.metadata
    if [entry.name for entry in known.entries] != [IDS, MASK]:
        raise UsageError(f"the file takes {', '.join(entry.name for entry in known.entries)}; expected texts' tokens")
    per_token = len(known.answer_shape) == 2
    tokens = tokenizer.encode([text.split() for text in texts] if per_token else texts, in_words=per_token)
    order = np.argsort(tokens.lengths, kind="stable")
    found: dict[int, TextAnswer] = {}
    for first in range(0, len(texts), _BATCH):
        rows = order[first : first + _BATCH]
        own = tokens.subset(rows)
        ids, mask = own.padded(tokenizer.pad)
        logits = file.run({IDS: ids, MASK: mask}).astype(np.float64)
        if not np.isfinite(logits).all():
            raise NumericalError("the file answers with NaN or infinity; verify it, or export it anew")
        for place, row in enumerate(rows.tolist()):
            words: tuple[str, ...] = ()
            answer = logits[place]
            if own.words is not None:
                places, numbers = own.first_tokens(place)
                answer, spelled = answer[places], texts[row].split()
                words = tuple(spelled[number] for number in numbers)
            found[row] = TextAnswer(text=texts[row], logits=answer, words=words, is_cut=bool(own.is_cut[place]))
    return [found[row] for row in range(len(texts))]
