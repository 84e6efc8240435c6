"""The registry of networks, and what every network of this package has."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from model_compression.checked_arguments import checked_arguments
from model_compression.errors import UsageError
from model_compression.models.preprocessing import Preprocessing, is_side
from model_compression.registry import Registry

N = TypeVar("N", bound=nn.Module)


class Network(nn.Sequential):
    """A chain of named layers from normalised images (B, 3, 32, 32) to logits (B, K).

    ``flatten_shape`` is the (C, H, W) before the first inner product, None for a network without one; importers need it
    to reorder weights. ``name`` and ``options`` are what `create_model` was called with.
    """

    name: str = ""
    options: dict[str, Any]
    preprocessing: Preprocessing
    declares_preprocessing: bool = False
    """Whether its weights came with the preprocessing they were trained with; else it takes the data set's."""
    facts: dict[str, Any]
    """What its weights file states of it, as ``test_accuracy``; empty for one from elsewhere."""
    flatten_shape: tuple[int, int, int] | None

    def __init__(self, layers: "OrderedDict[str, nn.Module]", flatten_shape: tuple[int, int, int] | None = None):
        super().__init__(layers)
        self.preprocessing = Preprocessing()
        self.flatten_shape = flatten_shape
        self.options, self.facts = {}, {}

    def deployed(self) -> "Network":
        """The network that is saved and shipped; a training form overrides this."""
        return self

    @property
    def body(self) -> nn.Module:
        """What layers are tapped in: the network itself."""
        return self

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W): what its weights file says it was trained on, scaled as it asks for; else what its layers take,
        of 32 × 32."""
        shape = self.facts.get("image_shape")
        if not (isinstance(shape, list) and len(shape) == 3 and all(map(is_side, shape))):
            first = next((layer for layer in self.modules() if isinstance(layer, nn.Conv2d)), None)
            shape = [len(self.preprocessing.mean) if first is None else first.in_channels, 32, 32]
        channels, *size = shape
        height, width = self.preprocessing.size or size
        return channels, height, width

    num_prepared: ClassVar[int] = 0
    """About how many of the training images `prepare` wants; 0: none, it is not called."""

    def prepare(self, images: torch.Tensor) -> None:
        """Sets what is computed from some training images (M, 3, H, W), uint8, before training. Nothing by default."""


MODELS: Registry[Callable[..., nn.Module]] = Registry("model", "model_compression.models")


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Weights that are drawn inside depend on ``seed`` alone; None leaves torch's global generator as it is."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # the CPU's alone, which is what is put back
        yield


@checked_arguments
def create_model(name: str, /, *, seed: int | None = None, **options: Any) -> Network:
    """Builds the network registered under ``name``, with fresh weights.

    Args:
        name: one of ``MODELS.names()``.
        seed: of the initial weights; None draws them from torch's global generator.
        options: of the builder, as ``num_classes``.

    Raises:
        UnknownNameError: no such model, or an option that its builder does not have; near matches are listed.
        UsageError: an impossible value of an option.
    """
    with seeded(seed):
        try:
            model = MODELS.create(name, **options)
        except UsageError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:  # a value of a wrong type, or more memory than there is
            reason = str(error).partition("\n")[0]
            raise UsageError(f"model {name!r} cannot be built with options {options}: {reason}") from None
    network = model if isinstance(model, Network) else _wrapped(name, model)
    network.name, network.options = name, dict(options)
    return network


def _wrapped(name: str, model: Any) -> Network:
    """What a plug-in builds, as a network."""
    from model_compression.models.external import External  # which is made of what is here

    if not isinstance(model, nn.Module):
        raise UsageError(f"the builder of model {name!r} gave a {type(model).__name__}; expected a torch.nn.Module")
    return External(model)


def placed(model: N, device: torch.device) -> N:
    """``model`` on ``device`` with channels-last weights, the layout in which convolutions are fastest."""
    trained = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():  # the parameters of TorchScript are no leaves otherwise
        model = model.to(device).to(memory_format=torch.channels_last)
    _set_trained(model, trained)
    return model


def _set_trained(model: nn.Module, trained: Iterable[bool]) -> None:
    """Lets each parameter of ``model`` learn, or not."""
    for parameter, wanted in zip(model.parameters(), trained, strict=True):
        if parameter.requires_grad != wanted:
            parameter.requires_grad_(wanted)


def copy_of(module: N) -> N:
    """A copy of ``module``, as deepcopy makes it, also of one that holds results of computations or is TorchScript.

    Raises UsageError for a module that holds what cannot be copied, as a lock.
    """
    computed = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        with torch.no_grad():  # the parameters of TorchScript's copies are no leaves otherwise
            copy = deepcopy(module, dict(computed))
    except Exception as error:  # of anything that a user's module may hold
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"a {type(module).__name__} cannot be copied, and yours stays as it is: {reason}; take that out of the "
            "module, or give the name of what builds it, as 'mynets:build'"
        ) from error
    _set_trained(copy, [parameter.requires_grad for parameter in module.parameters()])
    return copy


def tied(module: nn.Module) -> dict[int, list[str]]:
    """The names of each parameter of ``module`` that has several, by its id: of tied weights, or of a shared layer."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {key: several for key, several in names.items() if len(several) > 1}


def check_num_classes(num_classes: int) -> None:
    """Raises UsageError unless it is an integer of at least two."""
    if not isinstance(num_classes, int) or num_classes < 2:
        raise UsageError(f"num_classes must be an integer of at least 2, got {num_classes!r}")
