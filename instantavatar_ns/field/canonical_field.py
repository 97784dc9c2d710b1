"""Density and colour of the person in the canonical pose."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from instantavatar_ns.field.hash_encoding import HashEncoding, HashGrid
from instantavatar_ns.field.mlp import MLP
from instantavatar_ns.field.tcnn import Implementation

GEOMETRY_FEATURES = 15


class CanonicalField(nn.Module):
    """Hash-encoded radiance field without view direction (InstantAvatar section 3.1).

    Args:
        centre: Centre of the canonical cube, metres.
        half_edge: Half its edge, metres.
        grid: Sizes of the encoding.
        width: Width of both networks.
        implementation: "tcnn", "torch", or "auto".
    """

    lower: Float[Tensor, "3"]
    edge: Float[Tensor, ""]

    def __init__(
        self,
        centre: Float[Tensor, "3"],
        half_edge: Float[Tensor, ""],
        grid: HashGrid,
        width: int = 64,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__()
        self.register_buffer("lower", centre - half_edge, persistent=False)
        self.register_buffer("edge", 2 * half_edge, persistent=False)
        self.encoding = HashEncoding(grid, implementation)
        self.density_head = MLP(grid.num_outputs, 1 + GEOMETRY_FEATURES, width, 1, implementation)
        self.color_head = MLP(GEOMETRY_FEATURES, 3, width, 2, implementation)

    def density(
        self, points: Float[Tensor, "n 3"], noise: float = 0.0
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 15"]]:
        """Density, 1/metres, and the features from which `color` follows.

        Args:
            points: Canonical points, metres.
            noise: Standard deviation of noise on the raw density: early in training it keeps the ReLU from dying.
        """
        outputs = self.density_head(self.encoding((points - self.lower) / self.edge)).float()
        raw = outputs[:, 0]
        if noise:
            raw = raw + noise * torch.randn_like(raw)
        return raw.relu(), outputs[:, 1:]

    def color(self, features: Float[Tensor, "n 15"]) -> Float[Tensor, "n 3"]:
        """Colour, 0 to 1."""
        return self.color_head(features).float().sigmoid()

    def forward(
        self, points: Float[Tensor, "n 3"], noise: float = 0.0
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Density, 1/metres, and colour of canonical points."""
        density, features = self.density(points, noise)
        return density, self.color(features)
