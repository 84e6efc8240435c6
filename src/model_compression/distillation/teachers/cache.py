"""A teacher's answers, computed once per view of the data and stored for every run that asks for the same."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from model_compression.core.errors import FileFormatError
from model_compression.core.outputs import Outputs
from model_compression.data.loader import Batch, Loader
from model_compression.distillation.teachers.fingerprint import stored_dtype
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.distillation.teachers.store import AnswerStore

_BLOCK = 500
_TINY = 1e-12  # the range of answers that are all the same
_SAMPLE = 8  # answers that are compared when a stored view is opened
# Of the range of the logits: another batch size or device rounds otherwise, other images differ by far more.
_TOLERANCES = {torch.float32: 0.01, torch.bfloat16: 0.1, torch.float16: 0.02}

Progress = Callable[[int, int], None]
Answers = dict[str, Tensor]  # by field: "logits" (N, K), "embedding" (N, D)


class CachedTeacher:
    """Answers from stored views; a view that is not there is filled whole, in index order, in fixed blocks.

    Logits are stored, and embeddings where ``live`` answers with them. ``loader`` shows what is answered: without
    augmentation the images as they are, whatever view the student is shown.
    """

    def __init__(
        self,
        live: LiveTeacher,
        loader: Loader,
        store: AnswerStore,
        progress: Progress,
        report: Callable[[str], None],
    ):
        self.store, self.live = store, live
        self._loader, self._progress, self._report = loader, progress, report
        self._dtype = stored_dtype(store.fingerprint["dtype"])
        self._fields = ["logits", "embedding"] if live.embeds else ["logits"]
        self._has_waited = False
        self.between_blocks: Callable[[], None] = lambda: None  # called while answers are stored, which takes minutes
        self._views: dict[int, Answers] = {}
        self._shown: tuple[int, Answers] | None = None  # the view that was asked for last, where the batches are

    def answer(self, batch: Batch) -> Outputs:
        """Logits (B, K) in float32, and embeddings (B, D), for images as the batch shows them, or as they are."""
        view = batch.view if self._loader.config.has_views else 0
        if self._shown is None or self._shown[0] != view:
            if view not in self._views:
                self._views[view] = self.view(view)
            answers = self._views[view]
            self._shown = view, {name: tensor.to(batch.targets.device) for name, tensor in answers.items()}
        shown = {name: tensor[batch.ids].float() for name, tensor in self._shown[1].items()}
        return Outputs(logits=shown["logits"], embedding=shown.get("embedding"))

    def check_writable(self, views: int) -> None:
        """Raises ModelCompressionError when some of the first ``views`` are missing and cannot be written."""
        if not all(self.store.is_stored(view, self._fields) for view in range(views)):
            self.store.check_writable()

    def view(self, view: int) -> Answers:
        """Logits (N, K) of a view, and embeddings (N, D), on the CPU.

        Filled if need be, and filled anew, which is said, if they are damaged. Safe with other processes: one fills,
        the others wait.
        """
        try:
            if self.store.is_stored(view, self._fields):
                return self._found(view)
        except FileFormatError:
            pass  # looked at again, and said, by the one who fills
        with self.store.lock(self._wait):
            missing = [field for field in self._fields if not self.store.is_stored(view, [field])]
            if not missing:
                try:
                    return self._found(view)
                except FileFormatError as error:
                    self._report(f"{error}; the teacher's answers are computed anew")
            self._fill(view, missing or self._fields)
        return self._checked(view)

    def _wait(self) -> None:
        if not self._has_waited:
            self._report("another run stores these answers: waiting for it")
        self._has_waited = True
        self._progress(0, len(self._loader))
        self.between_blocks()

    def _found(self, view: int) -> Answers:
        answers = self._checked(view)
        self.store.count(found=1)
        return answers

    def _checked(self, view: int) -> Answers:
        """The stored answers. Raises FileFormatError for damaged ones, or of other images or weights."""
        answers = self.stored(view)
        for field, tensor in answers.items():
            if len(tensor) != len(self._loader):
                path = self.store.path(view, field)
                raise FileFormatError(f"{path} holds answers {tuple(tensor.shape)} to {len(self._loader)} images")
        if not self.difference(answers, view, _SAMPLE) <= _TOLERANCES[self.live.precision]:
            path = self.store.path(view)
            raise FileFormatError(f"{path} holds other answers than this teacher gives to these images")
        return answers

    def stored(self, view: int) -> Answers:
        """What is stored of a view, as far as this teacher answers with it. Raises FileFormatError for damaged ones."""
        there = [field for field in self._fields if self.store.is_stored(view, [field])]
        return {field: self.store.read(view, field) for field in there}

    def difference(self, answers: Answers, view: int, samples: int) -> float:
        """Largest difference of stored ``answers`` from new ones to ``samples`` images, of the range of their field."""
        chosen = torch.linspace(0, len(self._loader) - 1, min(samples, len(self._loader))).long()
        batch = self._loader.batch(chosen.to(self._loader.targets.device), view)
        anew = self._fields_of(self.live.answer(batch))
        return max(_difference(tensor[chosen], anew[field]) for field, tensor in answers.items())

    def _fill(self, view: int, fields: Sequence[str]) -> None:
        blocks: list[Answers] = []
        done = 0
        for batch in self._loader.in_order(view=view, batch_size=_BLOCK):
            blocks.append(self._fields_of(self.live.answer(batch)))
            done += len(batch.targets)
            self._progress(done, len(self._loader))
            self.between_blocks()
        for field in fields:
            self.store.write(view, torch.cat([block[field] for block in blocks]), self._dtype, field)
        self.store.count(filled=1)

    def _fields_of(self, outputs: Outputs) -> Answers:
        """What is stored of ``outputs``, in float32 on the CPU."""
        return {field: getattr(outputs, field).float().cpu() for field in self._fields}


def _difference(stored: Tensor, anew: Tensor) -> float:
    """Largest difference of the range of ``anew`` (n, D); infinite where shapes differ, or something is no number."""
    if stored.shape != anew.shape:
        return math.inf
    largest = float((stored.float() - anew).abs().max() / (anew.max() - anew.min()).clamp(min=_TINY))
    return math.inf if math.isnan(largest) else largest


def size_estimate(*, images: int, numbers: int, views: int, dtype: Any) -> int:
    """Bytes that the answers to ``views`` views take; ``numbers`` of them for an image."""
    return images * numbers * views * stored_dtype(dtype).itemsize
