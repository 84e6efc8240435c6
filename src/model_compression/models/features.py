"""What a network computes on its way: layers tapped by name, with hooks, without a change to the network.

NAME is what layer NAME answers; NAME:input is what it is given, as an activation what stands before it. NAME:attention
are the attention scores of a transformer's block, see `transformer_layers`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from model_compression.core.argument_checks import checked_arguments
from model_compression.core.errors import UsageError
from model_compression.core.inputs import Inputs
from model_compression.core.outputs import Outputs
from model_compression.core.registry import unknown_name
from model_compression.models.eval_mode import evaluating
from model_compression.models.transformer_layers import ATTENTION, AttentionTap

_INPUT, _MASK = ":input", "attention_mask"
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer that can be tapped: its name in the network, its class, and its output's shape for a batch of one."""

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def is_map(self) -> bool:
        """Whether it answers with maps (B, C, H, W) of more than one pixel."""
        return len(self.shape) == 4 and self.shape[2] * self.shape[3] > 1

    @property
    def is_tokens(self) -> bool:
        """Whether it answers with tokens (B, L, D)."""
        return len(self.shape) == 3 and self.shape[1] > 1


class Tapped(nn.Module):
    """Calls ``model`` and answers with its logits and what passed through the tapped layers.

    ``features`` are names of layers, in the order of the answer; a name may come twice. ``embedding`` asks for the
    input of the last layer with weights, averaged over pixels where it is a map. ``answer_of`` takes the answer from
    what ``model`` gives, by default `logits_of`. The network itself stays as it is.

    Raises UsageError for a layer that is not there (near matches listed), that does not answer with one tensor, or
    whose answer a later layer changes in place.
    """

    @checked_arguments
    def __init__(
        self,
        model: nn.Module,
        features: Sequence[str] = (),
        *,
        embedding: bool = False,
        answer_of: Callable[[Any], Tensor] | None = None,
    ):
        super().__init__()
        self._answer_of = answer_of or logits_of
        self.model = model
        self._names = list(features)
        self._caught: dict[str, tuple[Tensor, int]] = {}
        self._embedding = embedding
        self._last_input: Tensor | None = None
        self._handles: list[RemovableHandle] = []
        modules = dict(model.named_modules())
        self._attention: dict[str, AttentionTap] = {}
        for name in dict.fromkeys(self._names):
            layer = layer_of(name)
            if layer not in modules or not layer:
                raise unknown_name("layer", layer, [known for known in modules if known])
            if name.endswith(ATTENTION):
                self._attention[name] = AttentionTap(model, layer)
                self._handles += self._attention[name].handles
                continue
            if name == layer:
                handle = modules[layer].register_forward_hook(self._catcher(name))
            else:
                handle = modules[layer].register_forward_pre_hook(self._input_catcher(name))
            self._handles.append(handle)
        if embedding:
            for module in modules.values():
                if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
                    self._handles.append(module.register_forward_pre_hook(self._remember_input))

    def remove(self) -> None:
        """Taps the network no longer."""
        for handle in self._handles:
            handle.remove()

    def forward(self, inputs: Inputs) -> Outputs:
        """Logits (B, K), embedding (B, D) and features, as far as they were asked for."""
        self._caught.clear()
        self._last_input = None
        logits = self._answer_of(self.model(inputs))
        features: dict[str, Tensor] = {}
        for name in self._names:
            own = self._attention[name].scores() if name in self._attention else self._unchanged(name)
            features[name if name not in features else f"{name}#{len(features)}"] = own
        mask = inputs.get(_MASK) if isinstance(inputs, Mapping) else None
        embedding = self._pooled(mask) if self._embedding else None
        self._caught.clear()
        self._last_input = None
        return Outputs(logits=logits, embedding=embedding, features=features, mask=mask)

    def _catcher(self, name: str) -> Any:
        def catch(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise UsageError(f"layer {name!r} answers with {type(output).__name__}, not a tensor; tap another")
            self._caught[name] = (output, output._version)

        return catch

    def _input_catcher(self, name: str) -> Any:
        def catch(module: nn.Module, inputs: Any) -> Any:
            if not (inputs and isinstance(inputs[0], Tensor)):
                raise UsageError(f"layer {layer_of(name)!r} is not given a tensor; tap another")
            self._caught[name] = (inputs[0], inputs[0]._version)
            # A layer that works in place gets a copy to work on.
            return (inputs[0].clone(), *inputs[1:]) if getattr(module, "inplace", False) else None

        return catch

    def _unchanged(self, name: str) -> Tensor:
        if name not in self._caught:
            raise UsageError(f"layer {name!r} was not used in the forward pass; tap another")
        tensor, version = self._caught[name]
        if tensor._version != version:
            raise UsageError(
                f"what layer {name!r} answers is changed in place by a later layer; tap that one, or its input as "
                "LAYER:input, or build the network with inplace=False"
            )
        return tensor

    def _remember_input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._last_input = inputs[0]

    def _pooled(self, mask: Tensor | None) -> Tensor:
        last = self._last_input
        if last is None:
            raise UsageError("the network has no layer with weights, so no embedding before it")
        if last.ndim == 4:
            return last.mean(dim=(2, 3))
        if last.ndim == 2 or mask is None:
            return last if last.ndim == 2 else last.mean(dim=1)
        counted = mask[:, : last.shape[1], None].to(last.dtype)
        return (last * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def logits_of(answer: Any) -> Tensor:
    """The logits (B, K) in what a network answers. Raises UsageError where it has none.

    That is a tensor, (B, K), (B, K, 1, 1) or (B, K, H, W); an object or mapping with ``logits``, or as torchvision's
    for segmentation ``out``, or a mapping of one tensor; or a list or tuple that begins with one.
    """
    found = answer
    if isinstance(answer, Mapping):
        found = answer.get("logits", answer.get("out", next(iter(answer.values())) if len(answer) == 1 else None))
    elif not isinstance(answer, Tensor):
        first = answer[0] if isinstance(answer, list | tuple) and answer else None
        found = getattr(answer, "logits", first)
    if not isinstance(found, Tensor):
        kind = f"a mapping of {', '.join(map(str, answer))}" if isinstance(answer, Mapping) else type(answer).__name__
        raise UsageError(
            f"the network answers with {kind}; expected logits (batch, classes), an object or mapping that has them as "
            "'logits', or a tuple that begins with them"
        )
    return found.flatten(1) if found.ndim == 4 and found.shape[2:] == (1, 1) else found


def layer_of(tap: str) -> str:
    """The name of the layer in that of a tap, as "stage1.relu" in "stage1.relu:input"."""
    return tap.removesuffix(_INPUT).removesuffix(ATTENTION)


@torch.no_grad()
def layers(model: nn.Module, inputs: Inputs) -> list[Layer]:
    """The layers of ``model`` that answer with one tensor of maps or tokens, in the order in which they answer.

    ``inputs`` (B, …) are passed through once, in eval mode; the network is left as it was.
    """
    found: list[Layer] = []

    def note(name: str, module: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim in (3, 4):
            found.append(Layer(name=name, kind=type(module).__name__, shape=(1, *output.shape[1:])))

    with _watching(model, note):
        model(inputs)
    return list({layer.name: layer for layer in found}.values())


@torch.no_grad()
def before_activation(model: nn.Module, inputs: Inputs, tap: str) -> str:
    """What to tap for what stands before the activation that ``tap`` ends with: the activation's input, if it has one.

    ``inputs`` (B, …) are passed through once, in eval mode. An activation that is no module is not seen.
    """
    answers: list[tuple[str, nn.Module, Any]] = []
    with _watching(model, lambda name, module, output: answers.append((name, module, output))):
        model(inputs)
    answer = next((output for name, _, output in reversed(answers) if name == tap), None)
    last = [name for name, module, output in answers if output is answer and isinstance(module, _ACTIVATIONS)]
    return f"{last[-1]}{_INPUT}" if last and answer is not None else tap


@dataclass(frozen=True, kw_only=True)
class BeforeTap:
    """Weight and bias (C,) of the last BatchNorm before a tap, and whether what is tapped is negative anywhere."""

    norm: tuple[Tensor, Tensor] | None
    has_negatives: bool


@torch.no_grad()
def before_taps(model: nn.Module, inputs: Inputs, taps: Sequence[str]) -> dict[str, BeforeTap]:
    """What stands before each of ``taps``; a BatchNorm of another number of channels, or without weights, is none.

    A tap that the network does not reach, or that is no tensor, is left out: `Tapped` refuses it. ``inputs``
    (B, …) are passed through once, in eval mode.
    """
    norms: list[nn.BatchNorm2d] = []
    found: dict[str, BeforeTap] = {}

    def note(tap: str, features: Any) -> None:
        if not isinstance(features, Tensor):
            return
        last = norms[-1] if norms and norms[-1].affine and norms[-1].num_features == features.shape[1] else None
        norm = None if last is None else (last.weight.detach().clone(), last.bias.detach().clone())
        found[tap] = BeforeTap(norm=norm, has_negatives=bool((features < 0).any()))

    modules = dict(model.named_modules())
    handles = [
        module.register_forward_hook(lambda module, inputs, output: norms.append(module))
        for module in modules.values()
        if isinstance(module, nn.BatchNorm2d)
    ]
    for tap in taps:
        layer = modules[layer_of(tap)]
        if tap.endswith(_INPUT):
            handles.append(
                layer.register_forward_pre_hook(lambda _, inputs, tap=tap: note(tap, inputs[0] if inputs else None))
            )
        else:
            handles.append(layer.register_forward_hook(lambda _, inputs, output, tap=tap: note(tap, output)))
    with evaluating(model, handles):
        model(inputs)
    return found


@contextmanager
def _watching(model: nn.Module, note: Callable[[str, nn.Module, Any], None]) -> Iterator[None]:
    """Tells ``note`` the name, module and answer of each layer when it has answered, in eval mode."""
    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: note(name, module, output))
        for name, module in model.named_modules()
        if name
    ]
    with evaluating(model, handles):
        yield
