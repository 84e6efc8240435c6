"""A teacher whose weights are spread over the processes, for one that no device holds alone."""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.models.recomputing import repeated_blocks


def shard_teacher(live: LiveTeacher) -> None:
    """Leaves each process a part of the weights of each network; a block's are together only while it computes.

    All processes must then ask ``live`` equally often, as they do in training.
    """
    from torch.distributed.fsdp import fully_shard  # a second

    mesh = init_device_mesh(live.device.type, (dist.get_world_size(),))
    for network in live.models:
        network.to(memory_format=torch.contiguous_format)  # it takes no other
        for block in repeated_blocks(network.body):
            fully_shard(block, mesh=mesh)
        fully_shard(network.body, mesh=mesh)
    live.is_sharded = True
