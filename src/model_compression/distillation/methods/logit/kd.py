"""Knowledge distillation (Hinton et al. 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531)."""

import torch.nn.functional as F
from torch import Tensor

from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import (
    METHODS,
    Context,
    Method,
    check_temperature,
    check_variant,
    logit_pair,
)


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(p(t; T) ‖ p(s; T)), mean over the batch, of logits (B, K).

    T² keeps the size of the gradient as T grows (section 2 of the paper). "batchmean", as "mean" would divide by K too.
    """
    log_p_student = F.log_softmax(student / temperature, dim=1)
    log_p_teacher = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p_student, log_p_teacher, reduction="batchmean", log_target=True)


def softened_bernoulli_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(σ(t/T) ‖ σ(s/T)) of K yes-or-no answers each, a mean over batch and classes, of logits (B, K)."""
    pairs = [[F.logsigmoid(sign * logits / temperature) for sign in (1, -1)] for logits in (student, teacher)]
    yes, no = (taught.exp() * (taught - own) for own, taught in zip(*pairs, strict=True))
    term: Tensor = (yes + no).mean()
    return temperature**2 * term


def scaled_regression(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """½ · Σ_k ((s_k − t_k) / T)², mean over the batch: what the script of 2016 took for the soft term."""
    return 0.5 * ((student - teacher) / temperature).square().sum(dim=1).mean()


def sigmoid_labels(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Σ_k sigmoid cross-entropy of s_k / T with the one-hot labels, mean over the batch: that script's label term."""
    one_hot = F.one_hot(targets, student.shape[1]).to(student.dtype)
    terms = F.binary_cross_entropy_with_logits(student / temperature, one_hot, reduction="none")
    return terms.sum(dim=1).mean()


@METHODS.register("kd")
class KD(Method):
    """The student matches the teacher's softened probabilities, and the labels a little. The classic; start here.

    Of several classes a sample, each probability is that of a sigmoid, and the term a mean over classes, as the label
    loss is.

    Args:
        temperature: from 0.01 to 1000; published values lie between 1 and 20.
        variant: "paper", or "historic" for the script of 2016, which regresses s/T on t/T and has a label term of its
            own, of sigmoids, in the place of the cross-entropy; its weights are 0.7 and 0.3.
    """

    answers = frozenset({"categorical", "bernoulli"})
    serves_topk = True
    default_weights = {"kd": 0.9}
    default_label_weight = 0.1
    per_sample = True

    def __init__(self, temperature: float = 4.0, variant: str = "paper"):
        super().__init__()
        check_temperature("kd: temperature", temperature, "published: 1 to 20")
        check_variant("kd", variant)
        self.temperature, self.variant = temperature, variant
        if variant == "historic":
            self.answers = frozenset({"categorical"})  # type: ignore[misc]  # its label term is of one class each
            self.default_weights, self.default_label_weight = {"kd": 0.7, "sigmoid_labels": 0.3}, 0.0
            self.uses_targets, self.serves_topk = True, False  # s / T is regressed on t / T

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """{"kd": T² · KL(p(t; T) ‖ p(s; T)), mean over the batch}; "historic" has "kd" and "sigmoid_labels"."""
        if self.kind == "bernoulli":
            return {"kd": softened_bernoulli_kl(*logit_pair(student, teacher, least=1), self.temperature)}
        s, t = logit_pair(student, teacher)
        if self.variant == "historic":
            return {
                "kd": scaled_regression(s, t, self.temperature),
                "sigmoid_labels": sigmoid_labels(s, targets, self.temperature),
            }
        return {"kd": softened_kl(s, t, self.temperature)}
