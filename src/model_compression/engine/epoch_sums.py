"""What the steps of an epoch add up to, on the device and without waiting for it."""

import torch
from torch import Tensor

from model_compression.distillation.step import Learned


class EpochSums:
    """``totals`` (3,): of loss and score over the samples, and their number; ``terms`` by name, over the samples."""

    def __init__(self, device: torch.device):
        self._kind = torch.float32 if device.type == "mps" else torch.float64  # that device has no float64
        self._device = device
        self.totals, self.terms = torch.zeros(3, dtype=self._kind, device=device), dict[str, Tensor]()

    def add(self, learned: Learned) -> None:
        """Adds a batch."""
        count, kind = learned.count, self._kind
        sums = [learned.loss.to(kind) * count, learned.score.to(kind), self.totals.new_tensor(count)]
        self.totals = self.totals + torch.stack(sums)
        for name, term in learned.terms.items():
            self.terms[name] = self.terms.get(name, self.totals.new_zeros(())) + term.to(kind) * count

    def means(self) -> dict[str, float]:
        """The mean of each term, sorted by name, as after `restore`."""
        count = float(self.totals[2])
        return {name: float(self.terms[name]) / count for name in sorted(self.terms)}

    def tensors(self) -> dict[str, Tensor]:
        """What `restore` needs."""
        return {"sums": self.totals} | {f"terms.{name}": tensor for name, tensor in self.terms.items()}

    def restore(self, totals: Tensor, terms: dict[str, Tensor]) -> None:
        """Goes on from saved sums."""
        self.totals = totals.to(self._device)
        self.terms = {name: tensor.to(self._device) for name, tensor in terms.items()}
