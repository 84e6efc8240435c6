"""Networks of other origin, as this package's own: any module that answers images with logits."""

import copy
from collections import OrderedDict

from torch import Tensor, nn

from model_compression.models.base import Network
from model_compression.models.features import logits_of
from model_compression.models.preprocessing import Preprocessing


class External(Network):
    """A copy of ``module``, which stays as it is; ``preprocessing`` is what it wants done to pixels.

    Its answer may be the logits (B, K), or an object or mapping that has them. Layers are called as in the module.
    """

    def __init__(self, module: nn.Module, preprocessing: Preprocessing):
        super().__init__(OrderedDict(module=copy.deepcopy(module)))
        self.preprocessing = preprocessing
        self.name = f"{type(module).__module__}:{type(module).__qualname__}"

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        return logits_of(self.body(images))

    @property
    def body(self) -> nn.Module:
        """The module itself."""
        return self.get_submodule("module")
