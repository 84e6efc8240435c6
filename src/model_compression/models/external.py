"""Networks of other origin, as this package's own: any module that answers images with logits, and those of libraries.

Their names: "timm:NAME", "torchvision:NAME", "smp:NAME", "hf:FOLDER_OR_NAME", "open_clip:NAME", and
"module.path:attribute", a user's builder.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from model_compression.core.errors import FileFormatError, ModelCompressionError, UsageError, reason_of
from model_compression.core.trust import NAME
from model_compression.models.base import Network, seeded
from model_compression.models.dense import at_size_of
from model_compression.models.embeddings import embedding_of
from model_compression.models.eval_mode import evaluating
from model_compression.models.features import logits_of
from model_compression.models.hf_texts import build_any_hf
from model_compression.models.libraries import Built
from model_compression.models.open_clip_networks import build_open_clip
from model_compression.models.preprocessing import Preprocessing
from model_compression.models.smp_networks import build_smp, check_smp
from model_compression.models.timm_networks import build_timm, check_timm
from model_compression.models.torchvision_networks import build_torchvision, check_torchvision
from model_compression.models.user_networks import build_own, find_builder, takes_num_classes

_BUILDERS: dict[str, Callable[[str, Mapping[str, Any]], Built]] = {
    "timm": build_timm,
    "torchvision": build_torchvision,
    "hf": build_any_hf,
    "open_clip": build_open_clip,
    "smp": build_smp,
}
_CHECKS: dict[str, Callable[[str], None]] = {
    "smp": check_smp,
    "timm": check_timm,
    "torchvision": check_torchvision,
}


INPUT_SHAPE = "_input_shape"
"""The option that says for which (C, H, W) a network was built whose layers get their sizes from the first images."""
EMBEDS = "_embeds"
"""The option of a network whose answers are embeddings, where no ``num_classes`` of 0 says so."""
_MOST_NUMBERS = 2**26  # in an image that a file asks for


class External(Network):
    """``module`` as a network; ``preprocessing`` is what it wants done to pixels.

    Its answer may be the logits (B, K), or an object or mapping that has them; of one that ``embeds`` see
    `embedding_of`. Layers are called as in the module.
    """

    def __init__(self, module: nn.Module, preprocessing: Preprocessing | None = None, *, embeds: bool = False):
        super().__init__(OrderedDict(module=module))
        self.answer_of = embedding_of if embeds else logits_of
        self.preprocessing = preprocessing or Preprocessing()
        self.name = f"{type(module).__module__}:{type(module).__qualname__}"

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K), or embeddings (B, D), of images (B, C, H, W); logits of pixels at the size of the images."""
        return at_size_of(images, self.answer_of(self.body(images)))

    @property
    def body(self) -> nn.Module:
        """The module itself."""
        return self.get_submodule("module")


def library_of(name: str) -> str | None:
    """The library that ``name`` belongs to: "timm", "torchvision", "smp", "hf" or "open_clip"; None for other names."""
    library, colon, rest = name.partition(":")
    return library if colon and rest and library in _BUILDERS else None


def is_external(name: str) -> bool:
    """Whether ``name`` is a library's or that of a builder of one's own, and no file."""
    return library_of(name) is not None or (NAME.fullmatch(name) is not None and not Path(name).exists())


def check_external(name: str) -> None:
    """Raises what `build_external` would raise for a name that there is not; a hub is not asked."""
    library = library_of(name)
    if library is None:
        find_builder(name)
    elif library in _CHECKS:
        _CHECKS[library](name.partition(":")[2])


def has_num_classes(name: str) -> bool:
    """Whether a network of that name has the option ``num_classes``; all libraries' have."""
    return library_of(name) is not None or takes_num_classes(find_builder(name))


def build_external(name: str, options: Mapping[str, Any], *, seed: int | None = None) -> External:
    """The network of that name, with weights where ``pretrained`` in ``options`` asks a library for them.

    ``seed`` is of fresh weights.

    Raises UntrustedCodeError for a name that is not to be followed, UsageError for names,
    options and values that cannot be, MissingExtraError without the library, and ModelCompressionError when weights
    cannot be fetched.
    """
    library = library_of(name)
    options = dict(options)
    shape, embeds = options.pop(INPUT_SHAPE, None), bool(options.pop(EMBEDS, False))
    try:
        with seeded(seed):
            if library is None:
                module = build_own(name, options)
                own = {EMBEDS: True} if embeds else {}
                built = Built(module=module, options=options | own | materialise(module, shape))
            else:
                check_external(name)
                built = _BUILDERS[library](name.partition(":")[2], options)
    except ModelCompressionError:
        raise
    except ImportError as error:
        raise ModelCompressionError(
            f"{name} cannot be built: {reason_of(error)}; install what its library needs, and torch and torchvision "
            "of one build"
        ) from error
    except OSError as error:
        raise ModelCompressionError(
            f"{name} cannot be read or fetched: {reason_of(error)}; check the name and the connection, or give a "
            "weights file that you have"
        ) from error
    except UnpicklingError as error:  # its text advises to unpickle all the same
        raise FileFormatError(
            f"{name}: its weights file holds more than tensors and plain values, and is not read; where you trust it, "
            "save the weights alone as safetensors"
        ) from error
    except Exception as error:  # the code of others, with values that it may not expect
        given = f"options {dict(options)}" if options else "no options"
        raise UsageError(
            f"model {name!r} cannot be built with {given}: {type(error).__name__}: {reason_of(error)}"
        ) from error
    embeds = embeds or (library is not None and built.options.get("num_classes") == 0)
    network = External(built.module, built.preprocessing or Preprocessing(size=built.size), embeds=embeds)
    network.name, network.options, network.declares_preprocessing = name, built.options, built.preprocessing is not None
    network.facts = built.facts
    return network


def materialise(module: nn.Module, shape: Any) -> dict[str, Any]:
    """The options that build ``module`` again for images of ``shape`` (C, H, W), after a pass with such an image.

    Lazy layers get their sizes in it, and layers that are made in ``forward`` are made; another network, and None for
    the shape, need no option. Fresh weights come from torch's global generator.
    """
    if shape is None or isinstance(module, torch.jit.ScriptModule):  # which has all its layers
        return {}
    fits = isinstance(shape, list | tuple) and len(shape) == 3 and all(type(n) is int and n > 0 for n in shape)
    if not fits or math.prod(shape) > _MOST_NUMBERS:
        raise UsageError(f"{INPUT_SHAPE} must be [channels, height, width], got {shape!r}")
    before, lazy = module.state_dict().keys(), has_lazy(module)
    try:
        with evaluating(module), torch.no_grad():
            module(torch.zeros(1, *shape))
    except Exception:  # of a network that cannot take such images, which who gives it images says
        return {}
    return {INPUT_SHAPE: list(shape)} if lazy or module.state_dict().keys() != before else {}


def has_lazy(module: nn.Module) -> bool:
    """Whether a parameter or buffer has no size yet."""
    return any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers()))
