"""Whole segmentation maps judged by a critic (Liu et al. 2019, arXiv 1903.04197, equation 5)."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from model_compression.core import counter_random
from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, check_number, map_pair, wide

_TINY = 1e-12  # under the root of the penalty, whose slope at 0 is infinite
_HALVED = 16  # by how much four convolutions of stride 2 make a map smaller


class SelfAttention(nn.Module):
    """x + γ · v softmax(qᵀ k) over the places of maps (B, C, H, W); γ is learnt and starts at 0 (arXiv 1805.08318)."""

    def __init__(self, width: int):
        super().__init__()
        self.query, self.key = (nn.Conv2d(width, max(1, width // 8), 1) for _ in range(2))
        self.value = nn.Conv2d(width, width, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W)."""
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        attention = (query.transpose(1, 2) @ key).softmax(dim=2)  # (B, places, places that these look at)
        seen: Tensor = (value @ attention.transpose(1, 2)).view_as(x)
        return x + self.gamma * seen


class Critic(nn.Module):
    """How well maps (B, K, H, W) fit their images (B, C, H, W): a score (B,). No layer compares samples.

    Five convolutions, with self-attention between the last three; the score is the mean over the places that remain.
    """

    def __init__(self, num_classes: int, channels: int, width: int):
        super().__init__()
        widths = [num_classes + channels, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
            layers += [SelfAttention(after)] if number >= 2 else []
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        """(B,)."""
        scores: Tensor = self.layers(torch.cat([maps, images], dim=1))
        return scores.mean(dim=(1, 2, 3))


def gradient_penalty(critic: nn.Module, maps: Tensor, images: Tensor) -> Tensor:
    """(‖∂ critic / ∂ maps‖₂ − 1)² of each sample, mean over the batch, at ``maps`` (B, K, H, W), without gradient.

    Gulrajani et al. 2017 (arXiv 1704.00028), equation 3. It has a gradient for the critic's parameters also where
    gradients are switched off.
    """
    with torch.enable_grad():
        maps = maps.detach().requires_grad_()
        (slope,) = torch.autograd.grad(critic(maps, images).sum(), maps, create_graph=True)
        norm = (slope.flatten(1).square().sum(dim=1) + _TINY).sqrt()
        return (norm - 1).square().mean()


@METHODS.register("holistic")
class Holistic(Method):
    """A critic that sees image and map cannot tell the student's maps from the teacher's: the third part of Liu et al.

    For segmentation. The critic D scores how well a map p of class probabilities fits its image I. Two terms, means
    over the batch:

        holistic = E[D(p_t | I)] − E[D(p_s | I)], which trains the student and holds D: the paper's −ℓ_ho
        critic = E[D(p_s | I)] − E[D(p_t | I)] + penalty · E[(‖∂D(p̂ | I) / ∂p̂‖₂ − 1)²], which trains D only

    with p̂ = ε · p_t + (1 − ε) · p_s. D has five convolutions and two self-attention modules, as the authors' has. The
    paper adds the term to kd of each pixel and to `pairwise`: "kd,pairwise,holistic". Weights: 0.1 for the student, as
    the paper; 0.004 for the critic, which is the authors' 0.1 times their ratio of its learning rate to the
    student's, 4e-4 to 1e-2. An optimiser of the family of Adam does not depend on the latter. D is saved with the run,
    and is no part of the student that ships. The slope of D is about 1 for a whole map, and that of a mean over its
    pixels far smaller: in short runs from fresh weights 0.1 outweighs the labels. The authors train 40,000 steps from
    weights of ImageNet; else begin with 0.01.

    Student and critic learn in one step of one optimiser, both from the weights before it; the authors alternate. The
    critic gets probabilities and the image. The authors' code gives it no image, and logits behind a BatchNorm, with
    which the penalty of one sample would depend on the others. Only the penalty bounds the critic: its convolutions
    have no spectral normalisation. The last one has 3 × 3 weights, and the mean over its places is the score, so that
    maps of any size serve. ε is drawn once a step from (seed, step), not for each sample: resumed runs and other
    numbers of processes draw the same, and the expectation of the penalty does not change. All pixels are judged, also
    those that do not count.

    Args:
        size: longest side in pixels of what D sees, a multiple of 16 from 16 to 512; larger maps and images are
            averaged, sides become multiples of 16. The authors use 65.
        width: channels of the first convolution, from 1 to 1024; the authors use 64.
        penalty: weight of the gradient penalty, above 0; published: 10.
    """

    answers = frozenset({"categorical"})
    compares_maps = True
    uses_inputs = True
    uses_context = True
    serves_topk = True
    per_sample = True
    default_weights = {"holistic": 0.1, "critic": 0.004}
    default_label_weight = 1.0

    def __init__(self, size: int = 64, width: int = 64, penalty: float = 10.0):
        super().__init__()
        check_number(
            "holistic: size",
            size,
            "a multiple of 16 from 16 to 512",
            lambda n: 16 <= n <= 512 and n % _HALVED == 0,
        )
        check_number(
            "holistic: width", width, "a whole number from 1 to 1024", lambda n: 1 <= n <= 1024 and n == int(n)
        )
        check_number("holistic: penalty", penalty, "a number > 0 (published: 10)", lambda value: value > 0)
        self.size, self.width, self.penalty = int(size), int(width), penalty

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds the critic, for images of as many channels as ``shapes["student"]["inputs"]``, (1, C, H, W), has."""
        self.critic = Critic(num_classes, shapes["student"]["inputs"][1], self.width)

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"holistic": the teacher's mean score less the student's, "critic": the reverse, and the penalty}."""
        assert context is not None
        if not isinstance(student.inputs, Tensor):
            raise UsageError(
                "holistic judges maps beside their images: give the student's Outputs these as inputs (B, C, H, W)"
            )
        s, t = (self._seen(maps.softmax(dim=1)) for maps in map_pair("holistic", student, teacher))
        images = self._seen(wide(student.inputs.detach()))
        held = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        judged: Tensor = functional_call(self.critic, held, (s, images))
        of_student, of_teacher = self.critic(torch.cat([s.detach(), t]), torch.cat([images, images])).chunk(2)
        share = float(counter_random.uniform(torch.zeros(1, dtype=torch.int64), context.seed, context.step))
        between = torch.lerp(s.detach(), t, share)
        penalty = self.penalty * gradient_penalty(self.critic, between, images)
        return {
            "holistic": of_teacher.detach().mean() - judged.mean(),
            "critic": of_student.mean() - of_teacher.mean() + penalty,
        }

    def _seen(self, maps: Tensor) -> Tensor:
        """Maps (B, C, H, W) as the critic takes them."""
        down, across = (_resizing(side, self.size, maps) for side in maps.shape[2:])
        return down @ maps @ across.T


def _resizing(side: int, largest: int, like: Tensor) -> Tensor:
    """(n, side): brings one side of a map to n pixels, the multiple of 16 below it, from 16 to ``largest``.

    Means where it becomes smaller, else linear. The gradient of a product is deterministic on GPUs, and that of torch's
    own resizing is not.
    """
    length = max(_HALVED, min(side, largest) // _HALVED * _HALVED)
    points = torch.eye(side, dtype=like.dtype, device=like.device)[None]
    if length <= side:
        return F.adaptive_avg_pool1d(points, length)[0].T
    return F.interpolate(points, length, mode="linear")[0].T
