"""Training by several processes, each with a GPU of its own: nerfstudio starts them, each step shares their gradients.

Each process draws its own frames and refreshes its own occupancy. What they must have in common comes from the first
one: it alone writes checkpoints and serves the viewer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

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


class GradientExchange:
    """Gradients that are the processes' mean, but for those of poses, which are their sum.

    A frame's pose has its gradient from the one process that has drawn the frame: divided by the number of processes it
    would be smaller than in a training by one, and `RowAdam` would move the pose less.

    PyTorch's `DistributedDataParallel` exchanges them in hooks of the backward pass, which a CUDA graph does not call.

    Args:
        model: In training.
    """

    def __init__(self, model: InstantAvatarModel) -> None:
        self._processes = distributed.get_world_size()
        self._summed = {id(parameter) for parameter in model.get_param_groups().get("poses", [])}

    @torch.no_grad()
    def __call__(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Return the gradients of all processes; those given are overwritten.

        Args:
            parameters: The same in all processes, in the same order.
            gradients: This process's, None where a step has none, in which processes agree: they do the same steps.
        """
        return tuple(
            None if gradient is None else self._exchanged(parameter, gradient)
            for parameter, gradient in zip(parameters, gradients, strict=True)
        )

    def _exchanged(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        whole = gradient.contiguous()  # NCCL takes no other
        distributed.all_reduce(whole)
        return whole if id(parameter) in self._summed else whole.div_(self._processes)
