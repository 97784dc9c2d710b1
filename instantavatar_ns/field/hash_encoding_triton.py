"""Launches the hash encoding's Triton kernels (`kernels/hash_encoding.py`) and their gradients.

Everything is laid out with the points innermost: encodings are [features, stride], the first n columns of which count.
All is single precision but the derivatives kept for the gradient with respect to the points, which may be half.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from instantavatar_ns.field.hash_encoding import FEATURES, HashEncoding
from instantavatar_ns.kernels.hash_encoding import gather_kernel, points_kernel, scatter_kernel
from instantavatar_ns.kernels.launch import cdiv, launch


@dataclass(frozen=True)
class Launch:
    """Division of a kernel into programs."""

    block: int
    """Points of a program, or of a tile where a program works through several."""
    warps: int


_ALIGNMENT = 16

# Chosen by the compiler's report for compute capability 9.0: no spilt register, 40 to 56 of them in the gather (which
# lets ten programs run on a multiprocessor, each with eight loads a lane under way), 40 in the plain scatter.
GATHER = Launch(128, 4)
SCATTER = Launch(128, 4)
SCATTER_MERGED = Launch(64, 4)
POINTS = Launch(128, 4)
# Levels with no more cells than this along an edge sum the points of a cell before they add to the table: cells are
# several samples of a ray wide, 4 cm and more around a body. At most 1024.
MERGED_CELLS = 60


def encode(
    encoding: HashEncoding,
    table: Float[Tensor, "params"],
    points: Float[Tensor, "n 3"],
    *,
    total: Int[Tensor, "1"] | None = None,
    slopes_kind: torch.dtype | None = None,
) -> tuple[Float[Tensor, "features stride"], Float[Tensor, "slopes stride"] | None]:
    """Encode points of the unit cube.

    Args:
        encoding: Sizes.
        table: Its parameters.
        points: Points; what lies outside the cube is clamped to it.
        total: Number of rows to encode, on the device; the others are not written.
        slopes_kind: Precision of the derivatives, if the gradient with respect to the points will be asked for.

    Returns:
        The encoding, and its derivatives for `points_gradient`.
    """
    num_points, levels = len(points), encoding.grid.levels
    stride = cdiv(num_points, _ALIGNMENT) * _ALIGNMENT
    encoded = points.new_empty((levels * FEATURES, stride))
    slopes = None
    if slopes_kind is not None:
        slopes = points.new_empty((levels * FEATURES * 3, stride), dtype=slopes_kind)
    launch(
        gather_kernel,
        (cdiv(num_points, GATHER.block), levels),
        points,
        table.detach().view(torch.int64),
        encoded,
        slopes,
        total,
        *_levels(encoding),
        num_points,
        stride,
        encoding.num_dense,
        BLOCK=GATHER.block,
        num_warps=GATHER.warps,
    )
    return encoded, slopes


def table_gradient(
    encoding: HashEncoding,
    points: Float[Tensor, "n 3"],
    gradient: Float[Tensor, "features stride"],
    *,
    exact: bool,
    total: Int[Tensor, "1"] | None = None,
) -> Float[Tensor, "params"]:
    """Gradient with respect to the table.

    Args:
        encoding: Sizes.
        points: The points that were encoded.
        gradient: Gradient with respect to their encoding.
        exact: Sum in single precision; otherwise terms of the coarse levels have ten bits.
        total: Number of filled rows, on the device.
    """
    table_gradient = torch.zeros_like(encoding.params)
    levels = encoding.grid.levels
    merged = sum(scale <= MERGED_CELLS for scale in encoding.grid.scales)  # the coarse levels, the first ones
    for first, last, size in ((0, merged, SCATTER_MERGED), (merged, levels, SCATTER)):
        if first == last:
            continue
        launch(
            scatter_kernel,
            (cdiv(len(points), size.block), last - first),
            points,
            gradient,
            table_gradient,
            total,
            *_levels(encoding),
            len(points),
            gradient.shape[1],
            encoding.num_dense,
            first,
            MERGE=first < merged,
            PRECISION="tf32x3" if exact else "tf32",
            BLOCK=size.block,
            num_warps=size.warps,
        )
    return table_gradient


def points_gradient(
    encoding: HashEncoding,
    gradient: Float[Tensor, "features stride"],
    slopes: Float[Tensor, "slopes stride"],
    num_points: int,
    total: Int[Tensor, "1"] | None = None,
) -> Float[Tensor, "n 3"]:
    """Gradient with respect to the points.

    Args:
        encoding: The encoding.
        gradient: Gradient with respect to the encoded points.
        slopes: What `encode` kept.
        num_points: Points of the buffer.
        total: Number of filled rows, on the device.
    """
    points_gradient = gradient.new_empty((num_points, 3))
    launch(
        points_kernel,
        (cdiv(num_points, POINTS.block),),
        gradient,
        slopes,
        points_gradient,
        total,
        encoding.level_scale,
        num_points,
        gradient.shape[1],
        LEVELS=encoding.grid.levels,
        BLOCK=POINTS.block,
        num_warps=POINTS.warps,
    )
    return points_gradient


def _levels(encoding: HashEncoding) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return encoding.level_scale, encoding.level_stride, encoding.level_entries, encoding.level_offset
