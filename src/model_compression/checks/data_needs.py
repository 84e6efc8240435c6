"""What a method needs to know of the images that are trained on, held against what is known of them."""

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset
from model_compression.distillation.objective import Objective


def check_data_needs(objective: Objective, train_set: Dataset, config: DataConfig) -> None:
    """Raises UsageError where a method needs what the images have not: labels, one class each, or an order."""
    method, name = objective.method, objective.name
    if not train_set.has_ids and method is not None and method.uses_ids:
        raise UsageError(
            f"method {name!r} needs to know which image is which, and a DataLoader does not say; give the dataset "
            "itself in its place, or choose another method"
        )
    if config.mixes and method is not None and method.uses_targets:
        raise UsageError(
            f"method {name!r} needs the class of each image, and with mixup or cutmix an image has two; leave these "
            "out, or choose kd, logits or another method that needs no class"
        )
    if config.sampling == "balanced" and not (train_set.one_each and train_set.has_ids and train_set.labelled):
        raise UsageError(
            f"{setting('sampling', 'balanced')} needs samples with one class each, known beforehand, and those of "
            f"{train_set.name} are not: leave it out"
        )
    if train_set.labelled:
        return
    images = f"the training images ({train_set.name}) have no labels"
    if method is None:
        raise UsageError(f"{images}, and without a teacher there is nothing to learn; use: model-compression distill")
    if method.uses_targets:
        raise UsageError(f"{images}, and method {name!r} needs the class of each; choose kd or another that needs none")
    if objective.label_weight:
        raise UsageError(
            f"{images}, and the label loss has the weight {objective.label_weight:g} beside method {name!r}; leave it "
            f"out with {setting('label_weight', 0)}"
        )
