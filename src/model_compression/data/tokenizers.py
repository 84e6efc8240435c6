"""Tokenizers of Hugging Face's `tokenizers`, read from JSON: data, and no code. Knows nothing of networks."""

import hashlib
import importlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import (
    DataError,
    FileFormatError,
    MissingExtraError,
    NotThereError,
    UsageError,
    reason_of,
)
from model_compression.core.files import user_path
from model_compression.core.hub_connection import quick_without_network
from model_compression.core.options import setting

FILE = "tokenizer.json"
"""What the file with a tokenizer is called, beside a network's weights or an exported file."""
IDS, MASK = "input_ids", "attention_mask"
"""The arrays that networks of texts take."""
_AT_ONCE = 1000  # texts
_MASKS, _PADS = ("[MASK]", "<mask>"), ("[PAD]", "<pad>")


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of token numbers, one behind the other: row i is ``values[bounds[i] : bounds[i + 1]]``.

    ``words`` are, for texts that came in words, the number of the word that each token belongs to; −1 for none.
    ``is_cut`` (N,) says of which rows tokens were left out.
    """

    values: npt.NDArray[np.int32]
    bounds: npt.NDArray[np.int64]
    is_cut: npt.NDArray[np.bool_]
    words: npt.NDArray[np.int32] | None = None

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(N,) tokens of each row."""
        return np.diff(self.bounds)

    def padded(self, number: int, width: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Token numbers and mask (N, L), filled up with ``number`` to ``width``, or the longest row."""
        lengths = self.lengths
        mask = np.arange(width or int(lengths.max())) < lengths[:, None]
        ids = np.full(mask.shape, number, dtype=np.int64)
        ids[mask] = self.values
        return ids, mask.astype(np.int64)

    def first_tokens(self, row: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of a text that came in words: where the first token of each is, and the word's number."""
        assert self.words is not None
        own = self.words[self.bounds[row] : self.bounds[row + 1]]
        places = np.flatnonzero((own >= 0) & (own != np.concatenate([[-1], own[:-1]])))
        return places, own[places].astype(np.int64)

    def subset(self, rows: npt.NDArray[np.integer]) -> "Ragged":
        """The rows at ``rows``, in that order."""
        parts = [slice(self.bounds[row], self.bounds[row + 1]) for row in rows]
        bounds = np.concatenate([[0], np.cumsum(self.lengths[rows])]).astype(np.int64)
        words = None if self.words is None else np.concatenate([self.words[part] for part in parts])
        return Ragged(np.concatenate([self.values[part] for part in parts]), bounds, self.is_cut[rows], words)


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A fast tokenizer that cuts texts after ``max_length`` tokens, special ones included.

    ``text`` is the JSON of a tokenizer.json.
    """

    text: str
    max_length: int

    @cached_property
    def _values(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self.text)
        return values | {"padding": None, "truncation": None}

    @cached_property
    def _fast(self) -> Any:
        return self._made_of(self._values)

    @cached_property
    def _fast_of_words(self) -> Any:
        """For texts in words: each begins as one behind a blank does, which transformers asks for too."""
        steps = self._values.get("pre_tokenizer") or {}
        listed = [_behind_a_blank(step) for step in steps.get("pretokenizers", ())]
        steps = {**steps, "pretokenizers": listed} if listed else _behind_a_blank(steps)
        return self._made_of({**self._values, "pre_tokenizer": steps or None})

    def _made_of(self, values: dict[str, Any]) -> Any:
        fast = _library().Tokenizer.from_str(json.dumps(values))
        if self.max_length <= fast.num_special_tokens_to_add(False):
            raise UsageError(
                f"{setting('max_length')} must be above {fast.num_special_tokens_to_add(False)}, the special tokens of "
                f"every text, got {self.max_length}"
            )
        fast.enable_truncation(self.max_length)
        return fast

    @cached_property
    def sha256(self) -> str:
        """Of all that decides which tokens a text has, but for the length at which it is cut."""
        return hashlib.sha256(json.dumps(self._values, sort_keys=True).encode()).hexdigest()

    @property
    def size(self) -> int:
        """One more than the largest token number."""
        largest: int = max(self._fast.get_vocab(with_added_tokens=True).values())
        return largest + 1

    @cached_property
    def special(self) -> tuple[int, ...]:
        """Numbers of the tokens that stand for no text, as [CLS]."""
        return tuple(sorted(n for n, token in self._fast.get_added_tokens_decoder().items() if token.special))

    @property
    def mask(self) -> int | None:
        """The number of the mask token; None where there is none."""
        return self._first(_MASKS)

    @property
    def unknown(self) -> int | None:
        """The number of the token that stands for what the tokenizer does not know; None where there is none."""
        model = self._values["model"]
        if model.get("unk_token") is not None:
            return self._first([model["unk_token"]])
        number: int | None = model.get("unk_id")
        return number

    @property
    def pad(self) -> int:
        """The number that fills up short rows; networks do not attend to it."""
        return self._first(_PADS) or 0

    def _first(self, names: Sequence[str]) -> int | None:
        return next((n for name in names if (n := self._fast.token_to_id(name)) is not None), None)

    def encode(self, texts: Sequence[str] | Sequence[Sequence[str]], *, in_words: bool = False) -> Ragged:
        """The tokens of each text; ``in_words``: of texts that are cut into words already."""
        fast = self._fast_of_words if in_words else self._fast
        found = [
            encoding
            for first in range(0, len(texts), _AT_ONCE)
            for encoding in fast.encode_batch(list(texts[first : first + _AT_ONCE]), is_pretokenized=in_words)
        ]
        bounds = np.concatenate([[0], np.cumsum([len(one.ids) for one in found])]).astype(np.int64)
        values = np.concatenate([np.array(one.ids, dtype=np.int32) for one in found])
        words = None
        if in_words:
            numbers = ([-1 if word is None else word for word in one.word_ids] for one in found)
            words = np.concatenate([np.array(one, dtype=np.int32) for one in numbers])
        return Ragged(values, bounds, np.array([bool(one.overflowing) for one in found]), words)

    def to_bytes(self) -> bytes:
        """The content of a tokenizer.json that cuts at ``max_length``."""
        own = json.loads(self._fast.to_str())["truncation"]
        return json.dumps(self._values | {"truncation": own}, ensure_ascii=False).encode()


def _behind_a_blank(step: dict[str, Any]) -> dict[str, Any]:
    """The step of a tokenizer; of one that keeps blanks in tokens, with a blank before each word."""
    return {**step, "add_prefix_space": True} if step.get("type") == "ByteLevel" else step


@dataclass(frozen=True, kw_only=True)
class TokenizerChoice:
    """Which tokenizer texts are cut by: the one that is named, else that of the first of ``networks`` that has one."""

    name: str = ""
    max_length: int = 128
    networks: tuple[str, ...] = ()

    def load(self, data: str) -> Tokenizer:
        """The tokenizer for the texts of ``data``. Raises UsageError where none is named and no network has one."""
        beside = (tokenizer_beside(network) for network in self.networks)
        name = self.name or next(filter(None, beside), None)
        if name is None:
            raise UsageError(
                f"{data} has texts, and no network here brings a tokenizer: name one with {setting('tokenizer')}, as a "
                "folder with tokenizer.json"
            )
        return load_tokenizer(name, self.max_length)


def load_tokenizer(name: str, max_length: int) -> Tokenizer:
    """The tokenizer in a folder or file tokenizer.json, or of a model on the Hugging Face hub, as "USER/NAME".

    ``max_length`` of 0 is what the file says.

    Raises NotThereError, FileFormatError for a damaged file, MissingExtraError without the libraries, and DataError for
    a model without a fast tokenizer. Code from the hub is never run.
    """
    path = user_path(name)
    file = path / FILE if path.is_dir() else path
    if file.is_file():
        text = _read(file)
        return _checked(Tokenizer(text, max_length or _own_length(text)), str(file))
    if not path.is_dir() and (path.suffix == ".json" or name.count("/") > 1 or name.startswith((".", "~", "/"))):
        raise NotThereError(f"{path} is not there; expected a folder with {FILE}, that file, or a model of the hub")
    return _checked(Tokenizer(_converted(str(path) if path.is_dir() else name), max_length), name)


def tokenizer_beside(network: str) -> str | None:
    """What `load_tokenizer` takes for the tokenizer of a network by its name: "hf:…", a run, or a file; None: none."""
    if network.startswith("hf:"):
        rest = network.removeprefix("hf:")
        return rest if user_path(rest).is_dir() or "/" in rest else None
    path = user_path(network)
    near = (path, path / "final") if path.is_dir() else (path.parent,) * path.is_file()
    return next((str(folder) for folder in near if (folder / FILE).is_file()), None)


def _own_length(text: str) -> int:
    """After how many tokens the JSON of a tokenizer says to cut; the largest number where it does not."""
    try:
        return int(json.loads(text)["truncation"]["max_length"])
    except (ValueError, TypeError, KeyError):
        return 2**20


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{file} cannot be read: {error}; expected the JSON of a fast tokenizer") from None


def _checked(tokenizer: Tokenizer, source: str) -> Tokenizer:
    try:
        assert tokenizer.size > 0
    except (UsageError, MissingExtraError):
        raise
    except Exception as error:  # the library's own, which have no common base, or of JSON that is something else
        raise FileFormatError(
            f"{source} is no fast tokenizer: {reason_of(error)}; expected a {FILE} of `tokenizers`"
        ) from None
    return tokenizer


def _converted(name: str) -> str:
    """The JSON of the fast tokenizer that transformers makes of other files, or fetches."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtraError("transformers", "text", "a tokenizer by its name") from error
    try:
        with nullcontext() if user_path(name).is_dir() else quick_without_network():
            found = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # of files in many formats, or of a connection
        raise DataError(
            f"{name} has no tokenizer that can be read: {reason_of(error)}; expected a folder with {FILE}, or a model "
            "of the hub"
        ) from None
    backend = getattr(found, "backend_tokenizer", None)
    if backend is None:
        raise DataError(f"{name} has no fast tokenizer; expected one with a {FILE}")
    text: str = backend.to_str()
    return text


def _library() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise MissingExtraError("tokenizers", "text", "texts") from error
