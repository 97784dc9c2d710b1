"""The largest connected component of a grid on a GPU, in a handful of launches, without synchronising."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from instantavatar_ns.kernels.components import count_kernel, join_kernel
from instantavatar_ns.kernels.launch import cdiv, launch

_BLOCK = 256


@torch.no_grad()
def largest_component_triton(binaries: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x y z"]:
    """See `cells.largest_component`; of components of equal size, the one whose first cell comes first."""
    occupied = binaries.contiguous().view(torch.uint8)
    num_cells = occupied.numel()
    labels = torch.arange(num_cells, dtype=torch.int32, device=binaries.device)
    sizes = torch.zeros_like(labels)
    grid = (cdiv(num_cells, _BLOCK),)
    launch(join_kernel, grid, occupied, labels, *binaries.shape, BLOCK=_BLOCK)
    launch(count_kernel, grid, occupied, labels, sizes, num_cells, BLOCK=_BLOCK)
    return binaries & (labels == sizes.argmax()).view(binaries.shape)
