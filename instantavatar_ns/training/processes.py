"""Training by several processes, each with a GPU of its own: nerfstudio starts them, PyTorch averages their gradients.

Each process draws its own frames and refreshes its own occupancy. What they must have in common comes from the first
one: it alone writes checkpoints and serves the viewer.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from instantavatar_ns.model import InstantAvatarModel


@torch.no_grad()
def share_state(model: InstantAvatarModel) -> None:
    """Give all processes the first one's parameters, aligned poses and occupancy."""
    state = model.state_dict()
    for value in state.values():
        if value.numel():
            _broadcast(value)
    model.load_state_dict(state)  # what follows from it, such as the joints that poses turn about, is made anew


@torch.no_grad()
def share_occupancy(model: InstantAvatarModel) -> None:
    """Give all processes the first one's occupied cells: each has looked at random points of its own."""
    for grid in (model.canonical_occupancy, model.union_grid):
        _broadcast(grid.occs)
        _broadcast(grid.binaries)


def _broadcast(value: Tensor) -> None:
    """Give all processes the first one's values, in place."""
    whole = value.contiguous()  # NCCL takes no other; the tensor itself, unless it lies otherwise in memory
    distributed.broadcast(whole, src=0)
    if whole is not value:
        value.copy_(whole)


def averaging_gradients(model: InstantAvatarModel) -> DistributedDataParallel:
    """The model, with gradients that are the processes' mean, but for those of poses, which are their sum.

    A frame's pose has its gradient from the one process that has drawn the frame: divided by the number of processes it
    would be smaller than in a training by one, and `RowAdam` would move the pose less.
    """
    # The large buffers never change; the occupancy is shared when it does. PyTorch broadcasts all of them at each step.
    parallel = DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=True)
    processes = distributed.get_world_size()
    for parameter in model.get_param_groups().get("poses", []):
        parameter.register_hook(lambda gradient: processes * gradient)
    return parallel
