"""Density and colour of points in the canonical pose."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from instantavatar_ns.field.hash_encoding import HashEncoding, HashGrid
from instantavatar_ns.field.implementation import Implementation, choose_implementation
from instantavatar_ns.field.mlp import MLP, padded
from instantavatar_ns.kernels.usable import interpreting
from instantavatar_ns.utils.errors import InputError

GEOMETRY_FEATURES = 15
TILE_EDGES = (16, 32, 64)  # of the Triton kernels: powers of two that fit into registers and shared memory


class CanonicalField(nn.Module):
    """Hash-encoded radiance field without view direction (InstantAvatar section 3.1).

    Args:
        center: Centre of the canonical cube, metres.
        half_edge: Half its edge, metres.
        grid: Sizes of the encoding.
        width: Width of both networks.
        implementation: "tcnn", "triton", "torch", or "auto". On a CPU all compute in torch.
        precision: Of products in the Triton kernels: half where that costs little accuracy, or single throughout,
            which is slow and at width 64 fits compute capability 9.0 alone. Parameters, gradients and sums are single
            precision always.

    Raises:
        InputError: The Triton kernels are asked for and cannot work with these sizes.
        RuntimeError: An implementation is asked for by name and cannot be used here.
    """

    lower: Float[Tensor, "3"]
    edge: Float[Tensor, ""]
    scale: Float[Tensor, ""]
    offset: Float[Tensor, "3"]

    def __init__(
        self,
        center: Float[Tensor, "3"],
        half_edge: Float[Tensor, ""],
        grid: HashGrid,
        width: int = 64,
        implementation: Implementation = "auto",
        *,
        precision: Literal["half", "float"] = "half",
    ) -> None:
        super().__init__()
        self.register_buffer("lower", center - half_edge, persistent=False)
        self.register_buffer("edge", 2 * half_edge, persistent=False)
        # Of the map to the unit cube, as one operation.
        self.register_buffer("scale", 1 / self.edge, persistent=False)
        self.register_buffer("offset", -self.lower / self.edge, persistent=False)
        sizes = (padded(grid.num_outputs), width)
        chosen = choose_implementation(implementation, triton_fits=all(size in TILE_EDGES for size in sizes))
        modules = "tcnn" if chosen == "tcnn" else "torch"
        self.encoding = HashEncoding(grid, modules)
        self.density_head = MLP(grid.num_outputs, 1 + GEOMETRY_FEATURES, width, 1, modules)
        self.color_head = MLP(GEOMETRY_FEATURES, 3, width, 2, modules)
        self.precision: Literal["half", "float"] = precision
        self.has_kernels = chosen == "triton"
        if self.has_kernels and (wrong := [size for size in sizes if size not in TILE_EDGES]):
            raise InputError(
                "implementation 'triton'",
                f"widths of 16, 32 or 64 were expected, and a network has {wrong[0]}",
                "Change hidden-width or hash-levels, or use 'auto' or 'torch'",
            )

    def density(
        self, points: Float[Tensor, "n 3"], noise: float = 0.0, total: Int[Tensor, "1"] | None = None, quiet: int = 0
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 15"]]:
        """Density, 1/metres, and the features from which `color` follows.

        Args:
            points: Canonical points, metres.
            noise: Standard deviation of noise on the raw density: early in training it keeps the ReLU from dying.
            total: Number of filled rows, on the device: buffers of fixed capacity need not be full. Others give
                zeros and no gradient.
            quiet: Number of the first rows, which get no noise.
        """
        if self._uses_kernels(points):
            return self._by_kernels(points, self._noise(points, noise, quiet), total, with_color=False)
        is_row, points = self._filled(points, total)
        outputs = self.density_head(self.encoding(self._in_cube(points)))
        if is_row is not None:
            outputs = torch.where(is_row, outputs, 0.0)
        raw = outputs[:, 0]
        drawn = self._noise(points, noise, quiet)
        if drawn is not None:
            raw = raw + drawn
            raw = raw if is_row is None else torch.where(is_row[:, 0], raw, 0.0)
        return raw.relu(), outputs[:, 1:]

    def color(self, features: Float[Tensor, "n 15"]) -> Float[Tensor, "n 3"]:
        """Colour, 0 to 1."""
        return self.color_head(features).sigmoid()

    def forward(
        self, points: Float[Tensor, "n 3"], noise: float = 0.0, total: Int[Tensor, "1"] | None = None, quiet: int = 0
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Density, 1/metres, and colour of canonical points; arguments are those of `density`."""
        if self._uses_kernels(points):
            return self._by_kernels(points, self._noise(points, noise, quiet), total, with_color=True)
        density, features = self.density(points, noise, total, quiet)
        is_row, _ = self._filled(points, total)
        color = self.color(features)
        return density, color if is_row is None else torch.where(is_row, color, 0.0)

    @staticmethod
    def _noise(points: Float[Tensor, "n 3"], size: float, quiet: int) -> Float[Tensor, "n"] | None:
        """Normal noise; none where its size is zero."""
        if not size:
            return None
        noise = size * torch.randn_like(points[:, 0])
        noise[:quiet].zero_()
        return noise

    def _in_cube(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Points as fractions of the canonical cube's edges."""
        return torch.addcmul(self.offset, points, self.scale)

    def _filled(
        self, points: Float[Tensor, "n 3"], total: Int[Tensor, "1"] | None
    ) -> tuple[Tensor | None, Float[Tensor, "n 3"]]:
        """Mark the filled rows, [n, 1], and move the points of others, which may be NaN, to a corner of the box."""
        if total is None:
            return None, points
        is_row = torch.arange(len(points), device=points.device)[:, None] < total
        return is_row, torch.where(is_row, points, self.lower)

    def _uses_kernels(self, points: Float[Tensor, "n 3"]) -> bool:
        has_rows = len(points) > 0 and self.encoding.params.dtype == torch.float32
        return self.has_kernels and has_rows and (points.is_cuda or interpreting())

    def _by_kernels(
        self,
        points: Float[Tensor, "n 3"],
        noise: Float[Tensor, "n"] | None,
        total: Int[Tensor, "1"] | None,
        with_color: bool,
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n outputs"]]:
        from instantavatar_ns.field.field_triton import evaluate_field

        return evaluate_field(
            (self.encoding, self.density_head, self.color_head),
            self._in_cube(points),
            with_color=with_color,
            precision=self.precision,
            noise=noise,
            total=total,
        )
