"""A comprehensive overhaul of feature distillation (Heo et al. 2019, arXiv 1904.01866)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import METHODS, Context, Method, feature_pairs, pair_shapes, to_smaller


def gaussian_margin(weight: Tensor, bias: Tensor) -> Tensor:
    """E[x | x < 0] of x ~ N(bias, weight²), at most 0, per channel (C,), for a BatchNorm's weight and bias.

    With z = bias / |weight| it is bias − |weight| · φ(z) / Φ(−z). The ratio is written with erfcx, the scaled
    complement of the error function, as φ and Φ both vanish in float for channels that are nearly always positive.
    """
    mean, deviation = bias.double(), weight.double().abs().clamp_min(1e-12)  # a pruned channel has weight 0
    tail: Tensor = torch.special.erfcx(mean / deviation / math.sqrt(2))
    return (mean - deviation * math.sqrt(2 / math.pi) / tail).clamp_max(0).to(weight.dtype)


def negative_mean(features: Tensor) -> Tensor:
    """Mean of the negative values of maps (B, C, H, W) per channel (C,), 0 for a channel without any; no gradient."""
    values = features.detach()
    count = (values < 0).sum(dim=(0, 2, 3)).clamp_min(1)
    return values.clamp_max(0).sum(dim=(0, 2, 3)) / count


def margin_relu(features: Tensor, margin: Tensor) -> Tensor:
    """max(x, m) of maps (B, C, H, W), m (C,) at most 0."""
    return torch.maximum(features, margin[:, None, None])


def partial_l2(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ (s − t)² over the elements of maps (B, C, H, W) but those with s ≤ t ≤ 0, mean over the batch.

    Where the teacher is not positive and the student is below it, both are silent after the ReLU.
    """
    counts = (student > teacher) | (teacher > 0)
    return ((student - teacher).square() * counts).sum() / len(student)


class MapNorm(nn.BatchNorm2d):
    """BatchNorm that takes a single value per channel, a batch of one with a map of 1×1, by its running statistics.

    torch refuses it in training, and the last batch of an epoch may be that.
    """

    def forward(self, features: Tensor) -> Tensor:
        if features.numel() > features.shape[1]:
            return super().forward(features)
        return F.batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def connector(student_channels: int, teacher_channels: int) -> nn.Sequential:
    """1×1 convolution and BatchNorm from the student's width to the teacher's."""
    convolution = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, MapNorm(teacher_channels))


@METHODS.register("ofd")
class OFD(Method):
    """The student's maps before the ReLU follow the positive part of the teacher's, and ignore how negative it is.

    For each pair Σ (r(f_s) − max(f_t, m))², without the elements where r(f_s) ≤ max(f_t, m) ≤ 0; r is a 1×1 convolution
    and BatchNorm. Sum over elements, mean over the batch: hence the small weight, 1e-3 of the authors on CIFAR-100; on
    ImageNet they take 1e-4. As in their code, pair i of n counts 1 / 2^(n − i), so that shallow and larger maps do not
    outweigh the last.

    Tap what stands before the ReLU, of a teacher in eval mode. m, per channel, is the expectation of the negative
    responses. With the teacher's BatchNorm in front of the tap it is known in closed form: give `setup`
    ``shapes["teacher"]["batch_norm"] = {feature name: (weight (C,), bias (C,))}``. For features that are not in it, m
    is the mean of the negative responses in the batch itself, which follows the data and not only the weights; maps
    after a ReLU have none, and m is 0.

    The authors' code has −3 · |weight| for channels that are negative with a probability of less than 0.001, where
    this keeps to the paper's expectation, which is near 0. The larger map of a pair is pooled, after the margin.
    """

    needs = frozenset({"features"})
    before_activation = True
    default_weights = {"ofd": 1e-3}
    default_label_weight = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.connectors = nn.ModuleList()

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds the connectors and takes the margins from the teacher's BatchNorm, as far as it is given.

        Raises UsageError for a BatchNorm of a feature that is not there or has another number of channels.
        """
        pairs = pair_shapes(shapes)
        self.connectors = nn.ModuleList(connector(s[0], t[0]) for s, t in pairs)
        names, given = list(shapes["teacher"]["features"]), shapes["teacher"].get("batch_norm", {})
        if unknown := [name for name in given if name not in names]:
            raise UsageError(
                f"ofd: batch_norm names {unknown[0]!r}, which is no feature of the teacher; known: {names}"
            )
        for number, (name, (_, t)) in enumerate(zip(names, pairs, strict=True)):
            margin = gaussian_margin(*(part.detach().cpu() for part in given[name])) if name in given else None
            if margin is not None and margin.shape != t[:1]:
                raise UsageError(f"ofd: batch_norm of {name!r} has {margin.numel()} channels, its features have {t[0]}")
            self.register_buffer(f"margin_{number}", margin)

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"ofd": Σ over the pairs of the partial squared distance, summed over elements, mean over the batch}."""
        pairs = feature_pairs(student, teacher)
        terms = []
        for number, (project, (s, t)) in enumerate(zip(self.connectors, pairs, strict=True)):
            known = getattr(self, f"margin_{number}")
            margin = negative_mean(t) if known is None else known.to(t.dtype)
            distance = partial_l2(*to_smaller(project(s), margin_relu(t, margin)))
            terms.append(distance / 2 ** (len(pairs) - 1 - number))
        return {"ofd": torch.stack(terms).sum()}
