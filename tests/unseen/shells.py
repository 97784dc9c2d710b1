"""Fields around a ball, and a ball with a fold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RADIUS = 0.3


class Shell(nn.Module):
    """A ball of density, a little larger than the body, in one colour for its front and one for its back."""

    def __init__(self, thickness: float = 0.02, behind: float = 0.02, back: tuple[float, float, float] = (0, 0, 1)):
        super().__init__()
        self.thickness, self.behind = thickness, behind
        self.back = nn.Parameter(torch.tensor(back, dtype=torch.float32))
        self.density_scale = nn.Parameter(torch.tensor(2000.0))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        front = points[:, 2] > 0
        reach = RADIUS + torch.where(front, self.thickness, self.behind)
        density = self.density_scale * torch.sigmoid((reach - points.norm(dim=-1)) / 1e-4)
        color = torch.where(front[:, None], torch.tensor([1.0, 0.0, 0.0]), self.back)
        return density, color


def with_a_fold(vertices: Tensor, at: int) -> Tensor:
    """A ball's vertices, one of them pulled along an edge over its nearest neighbour: these two are folded then.

    Args:
        vertices: Of the ball, metres.
        at: Vertex to pull.
    """
    distance = (vertices - vertices[at]).norm(dim=-1)
    distance[at] = torch.inf
    folded = vertices.clone()
    folded[at] += 1.6 * (vertices[distance.argmin()] - vertices[at])
    return folded
