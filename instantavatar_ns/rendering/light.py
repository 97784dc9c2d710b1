"""Light that stays where it is while the person turns: a few spherical harmonics of the surface's normal.

Pixels are shaded after they are rendered: normals follow from the depth of neighbours, without gradient, so that what
renders knows nothing of light. The field keeps the person's colours in even light, which exports show.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from instantavatar_ns.rendering.inputs import Rays

_HARMONICS = 8  # of degree 1 and 2; that of degree 0 is 1
_DARKEST, _BRIGHTEST = 0.2, 3.0
_SMOOTHING = 3  # times that points are averaged with their neighbours: depth is no smoother than its samples
_OPAQUE = 0.5


class Light(nn.Module):
    """White light from afar, fixed in nerfstudio's world, in which the cameras of a recording stand still."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(_HARMONICS))

    def forward(self, normals: Float[Tensor, "*pixels 3"]) -> Float[Tensor, "*pixels 1"]:
        """Brightness of surfaces, 1 in even light.

        Args:
            normals: Unit vectors; zeros where there is no surface, which stays as it is.
        """
        x, y, z = normals.unbind(dim=-1)
        exists = normals.square().sum(dim=-1)
        functions = torch.stack([x, y, z, x * y, y * z, x * z, x * x - y * y, 3 * z * z - exists], dim=-1)
        return (1 + functions @ self.coefficients).clamp(_DARKEST, _BRIGHTEST)[..., None]

    def shade(
        self, outputs: dict[str, Tensor], rays: Rays, size: tuple[int, int], background: Tensor | float | None
    ) -> dict[str, Tensor]:
        """Outputs of the renderer with lit colours.

        Args:
            outputs: `rgb`, `accumulation` and `depth` of pixels, in any shape, pictures one after the other.
            rays: Of these pixels.
            size: Height and width of a picture.
            background: Colour that `rgb` has behind the person; None for none.
        """
        pictures, shape = (-1, *size), outputs["rgb"].shape
        accumulation, depth = (outputs[name].detach().view(*pictures) for name in ("accumulation", "depth"))
        points = rays.origins.detach().view(-1, 1, 1, 3) if len(rays.origins) == 1 else rays.origins.view(*pictures, 3)
        points = points + rays.directions.detach().view(*pictures, 3) * depth[..., None]
        brightness = self(picture_normals(points, accumulation > _OPAQUE)).view(*shape[:-1], 1)
        behind = 0.0 if background is None else background * (1 - outputs["accumulation"])
        return outputs | {"rgb": (outputs["rgb"] - behind) * brightness + behind}


def picture_normals(
    points: Float[Tensor, "pictures height width 3"], opaque: Tensor
) -> Float[Tensor, "pictures height width 3"]:
    """Unit normals of surfaces that pictures show, towards the viewer, zero where there is none.

    Args:
        points: That the pixels show, metres.
        opaque: Pixels that show a surface.
    """
    weight = opaque.to(points)[:, None]
    smooth = points.movedim(-1, 1) * weight
    for _ in range(_SMOOTHING):
        near = F.avg_pool2d(weight, 3, 1, 1)
        smooth = F.avg_pool2d(smooth, 3, 1, 1) / near.clamp(min=1e-6) * weight
    # Differences between neighbours that both show a surface, on either side.
    right, down = (_slope(smooth, weight, axis) for axis in (-1, -2))
    normals = torch.linalg.cross(down, right, dim=1) * weight
    return F.normalize(normals, dim=1, eps=1e-12).movedim(1, -1)


def _slope(values: Tensor, weight: Tensor, axis: int) -> Tensor:
    """Mean difference to the neighbours along an axis, of pixels that count."""
    last = weight.shape[axis] - 1
    both = weight.narrow(axis, 1, last) * weight.narrow(axis, 0, last)
    before, after = ((1, 0), (0, 1)) if axis == -1 else ((0, 0, 1, 0), (0, 0, 0, 1))
    difference = values.diff(dim=axis) * both
    total = F.pad(difference, before) + F.pad(difference, after)
    return total / (F.pad(both, before) + F.pad(both, after)).clamp(min=1.0)
