"""torchvision's transforms, beside a torch build that its compiled operators were not made for.

Its CUDA build stops at import beside a CPU torch, for want of two operators that nothing here uses; they are declared.
"""

import torch

_library = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision import transforms  # noqa: E402

__all__ = ["transforms"]
