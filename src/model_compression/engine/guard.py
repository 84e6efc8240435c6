"""Watches the numbers of a run on the device that trains, and stops it when they are none any more, or explode.

NaN and infinity stop it wherever they come from. An explosion is a loss of more than 100 times that of the first step
(of 1, where that is smaller) in 10 steps in a row. The first loss is of weights that no step has changed: a rate that
rises later does not move it, nor do a student that begins well and small last batches; a loss that falls again within
ten steps was noise, or an optimiser that finds back. Losses that grow and stay below are judged at the end of the run
alone, with the accuracy: see `Guard.check_end`.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from model_compression.core.errors import NumericalError
from model_compression.core.options import setting
from model_compression.distillation.step import ANSWERS, INPUTS

EXPLOSION = 100.0  # times the first loss
PATIENCE = 10  # steps in a row above that
GROWTH = 3.0  # times the first loss, with which a run may end if its network does better than guessing
SETTLED = 10  # steps; in the first ones losses often rise and fall again, so a shorter run may end as high as EXPLOSION


class Guard:
    """Sees each step's numbers without waiting for the device; `check` waits, and raises."""

    def __init__(self, weights: Mapping[str, float], lr: float, device: torch.device):
        """``weights`` of the terms in the loss, and ``lr``, the run's rate, which messages name."""
        self._weights, self.lr = weights, lr
        # That of mps has no float64.
        self._kind = torch.float32 if device.type == "mps" else torch.float64
        self._device = device
        self._first = torch.full((), float("nan"), dtype=self._kind, device=device)
        self._streak = torch.zeros((), dtype=self._kind, device=device)
        self._names: tuple[str, ...] = ()
        self._values = self._bad_at = torch.zeros(0, device=device)

    def watch(self, step: int, loss: Tensor, terms: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> None:
        """Sees the numbers of ``step``, from 1: scalars; of ``inputs`` the sums, by `INPUTS` and `ANSWERS`."""
        watched = {**inputs, **terms, "the loss": loss}
        if tuple(watched) != self._names:
            self.check()
            self._names = tuple(watched)
            self._bad_at = torch.zeros(len(watched), dtype=torch.int64, device=self._device)
        self._values = torch.stack([value.detach().to(self._kind) for value in watched.values()])
        self._bad_at = torch.where(~self._values.isfinite() & (self._bad_at == 0), step, self._bad_at)
        now = self._values[-1]
        self._first = torch.where(self._first.isnan(), now.abs().clamp(min=1), self._first)
        self._streak = torch.where(now > EXPLOSION * self._first, self._streak + 1, 0)

    def check(self) -> None:
        """Raises NumericalError that names step and term when what was seen holds NaN or infinity, or has exploded."""
        bad = [(step, number) for number, step in enumerate(self._bad_at.tolist()) if step]
        if bad:
            step, number = min(bad)
            name = self._names[number]
            remedy = {
                INPUTS: "look at what makes them, as the transform of the DataLoader",
                ANSWERS: f"give another teacher, or use {setting('precision', 'fp32')}",
            }.get(name, f"lower the learning rate ({self.lr} now), or use {setting('precision', 'fp32')}")
            raise NumericalError(f"{name} became NaN or infinite at step {step}; {remedy}")
        if int(self._streak) >= PATIENCE:
            self._explode(int(self._streak))

    def check_end(self, steps: int, fault: Callable[[], str | None]) -> None:
        """Raises NumericalError for a run of ``steps`` that ends worse than it began.

        That is one whose losses explode from the second step to the last, in fewer than `PATIENCE` steps too; and one
        whose loss is more than `GROWTH` times the first, or `EXPLOSION` times in fewer than `SETTLED` steps, and whose
        network is no better than guessing, which ``fault`` finds and says where it matters.
        """
        self.check()
        first, last, streak = float(self._first), float(self._values[-1]), int(self._streak)
        if 0 < steps - 1 <= streak:
            self._explode(streak)
        if last > (GROWTH if steps >= SETTLED else EXPLOSION) * first and (guessing := fault()) is not None:
            raise NumericalError(
                f"the run diverged: its last loss is {last:.3g}, {last / first:.0f} times the {first:.3g} that it "
                f"began with, and {guessing}; lower the learning rate ({self.lr} now)"
            )

    def _explode(self, steps: int) -> None:
        values = dict(zip(self._names, self._values.tolist(), strict=True))
        shares = {name: values[name] * weight for name, weight in self._weights.items() if name in values}
        largest = max(shares, key=shares.__getitem__)
        raise NumericalError(
            f"the loss exploded: it is {values['the loss']:.3g}, of which {largest} is {shares[largest]:.3g}, and has "
            f"been above {EXPLOSION:.0f} times the {float(self._first):.3g} that it began with for {steps} steps; "
            f"lower the learning rate ({self.lr} now), or the weight of {largest}"
        )

    @property
    def alarmed(self) -> bool:
        """Whether the last loss was that of an explosion, which may yet pass: no state to keep."""
        return bool(self._streak > 0)

    def state(self) -> Tensor:
        """What `restore` needs."""
        return torch.stack([self._first, self._streak])

    def restore(self, state: Tensor) -> None:
        """Goes on from what `state` gave."""
        self._first, self._streak = state.to(self._device, self._kind).unbind()
