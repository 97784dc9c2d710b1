"""Products of many tiny matrices."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def matvec(matrices: Float[Tensor, "*batch rows columns"], vectors: Float[Tensor, "*batch columns"]) -> Tensor:
    """Multiply each matrix by its vector: [*batch, rows].

    As a product and a sum: batched matrix multiplication starts a block of threads per 3x3 matrix and is ten times
    slower.

    Args:
        matrices: Matrices.
        vectors: Vectors, one for each matrix.
    """
    return (matrices * vectors[..., None, :]).sum(dim=-1)


def transform_points(
    transforms: Float[Tensor, "*batch points 3 4"], points: Float[Tensor, "*broadcast points 3"]
) -> Float[Tensor, "*batch points 3"]:
    """Apply to each point a linear map and a shift of its own.

    Column by column, so that no product of the size of the maps is written: on a CPU faster than `matvec` and a sum.

    Args:
        transforms: The maps, and in the last column the shifts, metres.
        points: Metres, the same in the whole batch or each its own.
    """
    result = transforms[..., 3]
    for axis in range(3):
        result = torch.addcmul(result, transforms[..., axis], points[..., axis, None])
    return result.contiguous()  # it has the order of the maps, which blending may have left another


def rigid_inverse(transforms: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverse of rotations with translations. `torch.linalg.inv` blocks the host, to learn whether there is one."""
    back = transforms[..., :3, :3].mT
    upper = torch.cat([back, -(back @ transforms[..., :3, 3:])], dim=-1)
    return torch.cat([upper, transforms[..., 3:, :]], dim=-2)


def inverse3(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Inverses of 3x3 matrices by cofactors; see `rigid_inverse` for why."""
    a, b, c = matrices.unbind(dim=-2)
    cofactors = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=-1)
    return cofactors / (a * cofactors[..., 0]).sum(dim=-1)[..., None, None]
