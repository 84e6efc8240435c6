"""Networks by name."""

from typing import Any

from torch import nn

from model_compression.core.argument_checks import checked_arguments
from model_compression.core.errors import UsageError, reason_of
from model_compression.models.base import MODELS, Network, seeded
from model_compression.models.embeddings import take_head_off
from model_compression.models.external import External


@checked_arguments
def create_model(name: str, /, *, seed: int | None = None, **options: Any) -> Network:
    """Builds the network registered under ``name``, with fresh weights.

    Args:
        name: one of ``MODELS.names()``.
        seed: of the initial weights; None draws them from torch's global generator.
        options: of the builder, as ``num_classes``; 0 leaves the last inner product out: it answers with embeddings.

    Raises:
        UnknownNameError: no such model, or an option that its builder does not have; near matches are listed.
        UsageError: an impossible value of an option.
    """
    headless = options.get("num_classes") == 0 and "body" not in options  # which passes it on to its body
    built = {key: value for key, value in options.items() if key != "num_classes" or not headless}
    with seeded(seed):
        try:
            model = MODELS.create(name, **built)
        except UsageError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:  # a value of a wrong type, or more memory than there is
            raise UsageError(f"model {name!r} cannot be built with options {options}: {reason_of(error)}") from None
    network = model if isinstance(model, Network) else _wrapped(name, model, embeds=headless)
    if headless:
        take_head_off(network, name)
    network.name, network.options = name, dict(options)
    return network


def _wrapped(name: str, model: Any, *, embeds: bool) -> Network:
    """What a plug-in builds, as a network."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"the builder of model {name!r} gave a {type(model).__name__}; expected a torch.nn.Module")
    return External(model, embeds=embeds)
