"""A teacher's answers, computed once per view of the data and stored for every run that asks for the same."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from model_compression.data.loader import Batch, Loader
from model_compression.errors import FileFormatError
from model_compression.outputs import Outputs
from model_compression.teachers.fingerprint import stored_dtype
from model_compression.teachers.live import LiveTeacher
from model_compression.teachers.store import AnswerStore

_BLOCK = 500
_SAMPLE = 8  # answers that are compared when a stored view is opened
# Of the range of the logits: another batch size or device rounds otherwise, other images differ by far more.
_TOLERANCES = {torch.float32: 0.01, torch.bfloat16: 0.1, torch.float16: 0.02}

Progress = Callable[[int, int], None]


class CachedTeacher:
    """Answers from stored views; a view that is not there is filled whole, in index order, in fixed blocks."""

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
        self._views: dict[int, Tensor] = {}

    def answer(self, batch: Batch) -> Outputs:
        """Logits (B, K) in float32 for images as the batch shows them."""
        if batch.view not in self._views:
            self._views[batch.view] = self.view(batch.view).to(batch.targets.device)
        return Outputs(logits=self._views[batch.view][batch.indices].float())

    def view(self, view: int) -> Tensor:
        """Logits (N, K) of a view, on the CPU, filled if need be, and filled anew, which is said, if they are damaged.

        Safe with other processes: one fills, the others wait.
        """
        path = self.store.path(view)
        try:
            if path.exists():
                return self._found(view)
        except FileFormatError:
            pass  # looked at again, and said, by the one who fills
        with self.store.lock():
            try:
                if path.exists():
                    return self._found(view)
            except FileFormatError as error:
                self._report(f"{error}; the teacher's answers are computed anew")
            self._fill(view)
        return self._checked(view)

    def _found(self, view: int) -> Tensor:
        answers = self._checked(view)
        self.store.count(found=1)
        return answers

    def _checked(self, view: int) -> Tensor:
        """The stored answers. Raises FileFormatError for damaged ones, or of other images or weights."""
        answers = self.store.read(view)
        path, count = self.store.path(view), len(self._loader)
        if len(answers) != count:
            raise FileFormatError(f"{path} holds answers {tuple(answers.shape)} to {count} images")
        if not self.difference(answers, view, _SAMPLE) <= _TOLERANCES[self.live.precision]:
            raise FileFormatError(f"{path} holds other answers than this teacher gives to these images")
        return answers

    def difference(self, answers: Tensor, view: int, samples: int) -> float:
        """Largest difference of stored ``answers`` (N, K) from new ones, of the range of the logits, at ``samples``."""
        chosen = torch.linspace(0, len(self._loader) - 1, min(samples, len(self._loader)))
        batch = self._loader.batch(chosen.long().to(self._loader.targets.device), view)
        anew = self.live.answer(batch).logits.cpu()
        if answers.shape[1:] != anew.shape[1:]:
            return float("inf")
        return float((answers[chosen.long()].float() - anew).abs().max() / (anew.max() - anew.min()))

    def _fill(self, view: int) -> None:
        answers: list[Tensor] = []
        for batch in self._loader.in_order(view=view, batch_size=_BLOCK):
            answers.append(self.live.answer(batch).logits.cpu())
            self._progress(sum(map(len, answers)), len(self._loader))
        self.store.write(view, torch.cat(answers), self._dtype)
        self.store.count(filled=1)


def size_estimate(*, images: int, classes: int, views: int, dtype: Any) -> int:
    """Bytes that the answers to ``views`` views take."""
    return images * classes * views * stored_dtype(dtype).itemsize
