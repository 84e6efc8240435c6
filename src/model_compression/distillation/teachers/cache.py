"""A teacher's answers, computed once per view of the data and stored for every run that asks for the same."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from model_compression.core.errors import FileFormatError
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch, Loader
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.distillation.teachers.row_formats import row_format
from model_compression.distillation.teachers.row_reader import RowReader
from model_compression.distillation.teachers.shards import BLOCK, FormatOf, StoredRows
from model_compression.distillation.teachers.store import WAIT_S, AnswerStore

_AHEAD = 8  # blocks that a process claims at once, so that their images are decoded ahead
_TINY = 1e-12  # the range of answers that are all the same
_SAMPLE = 8  # answers that are compared when a stored view is opened
# Of the range of the logits: another batch size or device rounds otherwise, other images differ by far more.
_TOLERANCES = {torch.float32: 0.01, torch.bfloat16: 0.1, torch.float16: 0.02}

Progress = Callable[[int, int], None]
Answers = Mapping[str, RowReader]  # by field: "logits" (N, K), "embedding" (N, D)


class CachedTeacher:
    """Answers from stored views; what is missing of one is filled in fixed blocks, in index order.

    Logits are stored, and embeddings where ``live`` answers with them. ``loader`` shows what is answered: without
    augmentation the images as they are, whatever view the student is shown. Several processes that ask for a view share
    its blocks, of which the teacher answers ``at_once`` samples at a time. The store's fingerprint says how many logits
    are kept of an answer.
    """

    def __init__(
        self,
        live: LiveTeacher,
        loader: Loader,
        store: AnswerStore,
        progress: Progress,
        report: Callable[[str], None],
        at_once: int = BLOCK,
    ):
        self.store, self.live = store, live
        self._at_once = at_once
        self._loader, self._progress, self._report = loader, progress, report
        self._dtype, self._kept = store.fingerprint["dtype"], store.fingerprint.get("teacher_cache_topk", 0)
        self._fields = ["logits", "embedding"] if live.embeds else ["logits"]
        self._has_waited = False
        self.between_blocks: Callable[[], None] = lambda: None  # called while answers are stored, which takes minutes
        self._views: dict[int, Answers] = {}
        self._rows: dict[int, dict[str, StoredRows]] = {}
        self._shown: tuple[int, Answers] | None = None  # the view that was asked for last, where the batches are

    def answer(self, batch: Batch) -> Outputs:
        """Logits (B, K) in float32, and embeddings (B, D), for images as the batch shows them, or as they are."""
        view = batch.view if self._loader.config.has_views else 0
        if self._shown is None or self._shown[0] != view:
            if view not in self._views:
                self._views[view] = self.view(view)
            self._shown = None  # before the next view takes memory as well
            self._shown = view, {name: rows.on(batch.targets.device) for name, rows in self._views[view].items()}
        shown = {name: rows[batch.ids] for name, rows in self._shown[1].items()}
        return Outputs(logits=shown["logits"], embedding=shown.get("embedding"))

    def check_writable(self, views: int) -> None:
        """Raises ModelCompressionError when some of the first ``views`` are missing and cannot be written."""
        if not all(self.store.is_stored(view, self._fields) for view in range(views)):
            self.store.check_writable()

    def view(self, view: int) -> Answers:
        """What reads the logits (N, K) of a view, and embeddings (N, D).

        Filled if need be, and filled anew, which is said, where they are damaged. Safe with other processes: each fills
        blocks that the others do not.
        """
        filled = self._fill(view)
        try:
            answers = self._checked(view)
        except FileFormatError as error:
            if filled == self._rows_of(view)["logits"].num_blocks:
                raise  # the teacher does not give the same answers again
            self._report(f"{error}; the teacher's answers are computed anew")
            self.store.drop(view)
            del self._rows[view]
            filled = self._fill(view)
            answers = self._checked(view)
        self.store.count(found=not filled, filled=bool(filled))
        return answers

    def missing_blocks(self, view: int) -> list[int]:
        """Numbers of the blocks of a view that are not stored or damaged, from 0: what `fill_blocks` is for."""
        return sorted({block for rows in self._rows_of(view).values() for block in rows.missing()})

    def fill_blocks(self, view: int, blocks: Sequence[int]) -> list[int]:
        """Stores those of ``blocks`` that are missing and that no other process is storing; returns their numbers.

        Each is stored under its own lock: a process that is killed loses only the blocks that it has not finished.
        """
        rows, mine = self._rows_of(view), []
        with ExitStack() as locks:
            for block in blocks:
                lock = self.store.claim_block(view, block)
                if lock is None:
                    continue
                locks.callback(lock.release)
                if fields := [field for field in rows if self._is_missing(rows[field], block)]:
                    mine.append((block, fields, lock))
                else:
                    self.store.forget_block(lock)
            device = self._loader.targets.device
            ids = [torch.tensor(rows["logits"].ids(block), device=device) for block, *_ in mine]
            for (block, fields, lock), batch in zip(mine, self._loader.show(ids, view), strict=True):
                answers = self._answers_to(batch)
                for field in fields:
                    rows[field].write(block, answers[field], self.store.making)
                self.store.forget_block(lock)
                self._progress(rows["logits"].num_stored, len(self._loader))
                self.between_blocks()
        return [block for block, *_ in mine]

    def _fill(self, view: int) -> int:
        """Fills what is missing of a view, shared with other processes; how many blocks this one filled."""
        count = 0
        while missing := self.missing_blocks(view):
            share = max(1, min(_AHEAD, len(missing) // _AHEAD))
            turns = [missing[first : first + share] for first in range(0, len(missing), share)]
            filled = sum(len(self.fill_blocks(view, blocks)) for blocks in turns)
            count += filled
            if not filled:
                self._wait(view, missing[0])
        return count

    def _wait(self, view: int, block: int) -> None:
        """Until another process has filled a block, or for half a second."""
        lock = self.store.claim_block(view, block, WAIT_S)
        if lock is not None:
            lock.release()
            return
        if not self._has_waited:
            self._report("another run stores these answers: waiting for it")
        self._has_waited = True
        self._progress(self._rows_of(view)["logits"].num_stored, len(self._loader))
        self.between_blocks()

    def _is_missing(self, rows: StoredRows, block: int) -> bool:
        """Whether a block, whose lock is held, is to be filled; says so of one that is damaged."""
        state = rows.state(block)
        if state == "damaged":
            self._report(f"{rows.damage(block)}; the teacher's answers are computed anew")
        return state != "good"

    def _rows_of(self, view: int) -> dict[str, StoredRows]:
        if view not in self._rows:
            count = len(self._loader)
            self._rows[view] = {
                field: self.store.rows(view, field, count, self._format_of(field)) for field in self._fields
            }
        return self._rows[view]

    def _format_of(self, field: str) -> FormatOf:
        return lambda shape: row_format(shape, self._dtype, self._kept if field == "logits" else 0)

    def _checked(self, view: int) -> Answers:
        """The stored answers. Raises FileFormatError for those of other images or weights."""
        answers = {field: rows.reader() for field, rows in self._rows_of(view).items()}
        if not self.difference(answers, view, _SAMPLE) <= _TOLERANCES[self.live.precision]:
            path = self._rows_of(view)["logits"].path(0)
            raise FileFormatError(f"{path} holds other answers than this teacher gives to these images")
        return answers

    def stored(self, view: int) -> Answers:
        """What is stored of a view, as far as this teacher answers with it. Raises FileFormatError for damaged ones."""
        there = {field: rows for field, rows in self._rows_of(view).items() if self.store.is_stored(view, [field])}
        for rows in there.values():
            if missing := rows.missing():
                raise FileFormatError(rows.damage(missing[0]))
        return {field: rows.reader() for field, rows in there.items()}

    def difference(self, answers: Answers, view: int, samples: int) -> float:
        """Largest difference of stored ``answers`` from new ones to ``samples`` images, of the range of their field."""
        chosen = torch.linspace(0, len(self._loader) - 1, min(samples, len(self._loader))).long()
        batch = self._loader.batch(chosen.to(self._loader.targets.device), view)
        anew = self._fields_of(self.live.answer(batch))
        return max(_difference(reader, chosen, anew[field]) for field, reader in answers.items())

    def _answers_to(self, block: Batch) -> dict[str, Tensor]:
        """What is stored of the answers to a block of samples."""
        parts = [slice(first, first + self._at_once) for first in range(0, len(block.targets), self._at_once)]
        answers = [self._fields_of(self.live.answer(block.rows(part))) for part in parts]
        return {field: torch.cat([one[field] for one in answers]) for field in self._fields}

    def _fields_of(self, outputs: Outputs) -> dict[str, Tensor]:
        """What is stored of ``outputs``, in float32 on the CPU."""
        return {field: getattr(outputs, field).float().cpu() for field in self._fields}


def _difference(stored: RowReader, ids: Tensor, anew: Tensor) -> float:
    """Largest difference of the range of ``anew`` (n, D); infinite where shapes differ, or something is no number."""
    if stored.form.shape != anew.shape[1:]:
        return math.inf
    numbers, expected = stored.form.compare(stored.rows(ids), anew)
    largest = float((numbers - expected).abs().max() / (anew.max() - anew.min()).clamp(min=_TINY))
    return math.inf if math.isnan(largest) else largest
