"""LightlyTrain (Lightly AG 2025, "Distillation" in its documentation, docs.lightly.ai/train; v1, v2 and v3)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import (
    METHODS,
    Context,
    Method,
    check_number,
    check_temperature,
    feature_pairs,
    pair_shapes,
    wide,
)
from model_compression.distillation.methods.embedding.align import at_size_of, check_choice

_VARIANTS = {"v1": ("classes",), "v2": ("patches",), "v3": ("classes", "patches")}


@METHODS.register("lightly")
class Lightly(Method):
    """Pseudo-classes from a queue of the teacher's embeddings, and squared distance of patch features.

    "classes" (v1): the last ``queue_size`` embeddings of the teacher, at length 1, are the weights of a classifier. The
    student's projected embedding and the teacher's own, at length 1, have similarities to them as logits; the term is
    KL(softmax(q·e_t / τ) ‖ softmax(q·P(e_s) / τ)), mean over the batch, in nats. It follows arXiv 2106.05237 with this
    classifier instead of labels. "patches" (v2): the mean of (P(f_s) − f_t)² over batch, positions and channels of
    the last features, the student's at the size of the teacher's. "v3", the default there since 0.15, has a global and
    a patch term; its formula is not in the documentation, and the sum of both is our reading of it.

    The queue begins with what the first batch brings; places that no batch has filled yet are no classes. It is saved
    with the run. Of several processes all see the global batch. Projectors are inner products, dropped at the end. The
    documentation advises strong augmentation that is the same for both networks, and long training.

    Args:
        variant: "v1", "v2" or "v3".
        queue_size: embeddings that are kept, at least 2; memory: queue_size × D × 4 bytes.
        temperature: τ, 0.01 to 1000; 0.07 is usual for similarities.
    """

    answers = frozenset({"embedding"})
    default_weights: dict[str, float] = {"classes": 1.0, "patches": 1.0}
    default_label_weight = 0.0
    default_pairs = 1
    queue: Tensor
    filled: Tensor

    def __init__(self, variant: str = "v1", queue_size: int = 8192, temperature: float = 0.07):
        super().__init__()
        check_choice("lightly", "variant", variant, tuple(_VARIANTS))
        check_number(
            "lightly: queue_size", queue_size, "a whole number of at least 2", lambda n: n >= 2 and isinstance(n, int)
        )
        check_temperature("lightly: temperature", temperature, "usual: 0.07")
        self.per_sample = variant == "v2"
        self.default_label_weight = 1.0 if variant == "v2" else 0.0  # of a task that has labels to learn
        self.variant, self.queue_size, self.temperature = variant, queue_size, temperature
        self.default_weights = dict.fromkeys(_VARIANTS[variant], 1.0)
        needs = {"classes": "logits", "patches": "features"}
        self.needs = frozenset(needs[term] for term in _VARIANTS[variant])  # type: ignore[misc]

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds the projectors, and an empty queue."""
        if "logits" in self.needs:
            width, target = (shapes[side]["logits"][1] for side in ("student", "teacher"))
            self.projection = nn.Linear(width, target)
            self.register_buffer("queue", torch.zeros(self.queue_size, target))
            self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        if "features" in self.needs:
            self.patch_projections = nn.ModuleList(nn.Linear(s[0], t[0]) for s, t in pair_shapes(shapes))

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """The terms of the variant. In training mode it also adds the teacher's embeddings to the queue."""
        terms = {}
        if "logits" in self.needs:
            terms["classes"] = self._classes(wide(student.logits), wide(teacher.logits.detach()))
        if "features" in self.needs:
            terms["patches"] = self._patches(student, teacher)
        return terms

    def _classes(self, student: Tensor, teacher: Tensor) -> Tensor:
        s, t = F.normalize(self.projection(student), dim=1), F.normalize(teacher, dim=1)
        queue, filled = self._with(t)
        unused = torch.arange(self.queue_size, device=t.device) >= filled
        if self.training:
            self.queue.copy_(queue)
            self.filled.copy_(filled)
        log_p, log_q = (
            F.log_softmax((one @ queue.T / self.temperature).masked_fill(unused, -torch.inf), dim=1) for one in (t, s)
        )
        used = ~unused  # 0 · (−∞) is no number
        return F.kl_div(log_q[:, used], log_p[:, used], reduction="batchmean", log_target=True)

    @torch.no_grad()
    def _with(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The queue with the embeddings ``t`` (B, D) at its front, and how many of its places are filled."""
        new = t[: self.queue_size]
        queue = torch.cat([new, self.queue[: self.queue_size - len(new)]])
        return queue, (self.filled + len(new)).clamp(max=self.queue_size)

    def _patches(self, student: Outputs, teacher: Outputs) -> Tensor:
        terms = []
        for projection, (s, t) in zip(self.patch_projections, feature_pairs(student, teacher), strict=True):
            terms.append(F.mse_loss(projection(at_size_of(s, t).movedim(1, -1)), t.movedim(1, -1)))
        return torch.stack(terms).sum()
