"""Geometry and colour where no training view looked: losses on the canonical field.

A clip that shows one side leaves the other to chance: surfaces grow into the depth that no view constrains, and the
back takes the colours of whatever lies behind the front. Here the field is held to what the body and the seen part say:
nothing stands off the body by more than a thickness that is measured where the surface was seen and carried on
(`completion.py`), and what was not seen has the carried-on colours. What all views see from all sides is left alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from nerfstudio.utils.rich_utils import CONSOLE
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor, nn

from instantavatar_ns.body.canonical import canonical_vertices
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.occupancy.canonical_grid import opacity
from instantavatar_ns.unseen.completion import Completion
from instantavatar_ns.unseen.coverage import Coverage, surface_normals
from instantavatar_ns.unseen.distance import signed_distance_of_cells
from instantavatar_ns.unseen.limbs import lengthwise
from instantavatar_ns.utils.errors import InputError

if TYPE_CHECKING:
    from instantavatar_ns.unseen.pictures import PictureTargets

_SEEN_SHARE = 0.03  # of the frames: a vertex that fewer see counts as unseen
# Share of unseen vertices above which the prior is used. A turn leaves soles and armpits, one vertex in twenty-five,
# to which the corrections of poses know better.
_FEW = 0.15
# Agreement of views from which on the depth of what they see is less well known, and from which on not at all.
_AGREEING, _FULLY_AGREEING = 0.8, 0.95
_ONE_SIDED = 0.5  # weight of geometry that is seen from one side only; 1 is that of what is not seen

_LADDER_TOP, _LADDER_BOTTOM, _LADDER_STEP = 0.12, -0.02, 0.004  # metres along a normal, from outside to inside
_THINNEST, _THICKEST, _USUAL = 0.0, 0.04, 0.01  # metres of clothes and hair that are carried on
_SHARP = 0.02  # metres, standard deviation of a surface's depth: more is fog, of which nothing is learned beyond these
# A point of a vertex' normal that lies much nearer to a vertex which faces it, as on the other thigh, is not above it.
_NEARER, _FACING = 0.7, 0.0
_FILLING = 0.3  # weight of holes
_MARGIN = 0.012  # metres beyond the surface in which density may end
_SKIN = (0.02, 0.004)  # metres below the surface between which an unseen part must be solid
_COLOR_DEPTH = 0.03  # metres below the surface down to which unseen colours are set
_TOLD_OTHERWISE = 0.03  # metres between a vertex and points that tell its colour
_NEAR, _FAR_SHARE = 0.12, 0.05  # metres from the body; weight of cells that lie farther off
# Wisps off the body fill a part in four hundred of the space near it: points that are drawn evenly would hardly meet
# them, and the images would win. Cells in which some were found are drawn more often, but count no more for anything
# nearer to the surface: there the outline that images show must win.
_STRAY_BOOST, _STRAY_OPACITY, _STRAY_DECAY, _STRAY_PROBES = 20.0, 0.05, 0.7, 4
_STRAY_MARGIN = 0.02  # metres beyond the surface from which on density is a wisp


class Field(Protocol):
    """A field in canonical space."""

    def __call__(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Density, 1/metres, and colour."""
        ...


class UnseenPrior(nn.Module):
    """Prior of the field where the training views tell nothing.

    `observe` is called once before training, `refresh` now and then, `loss` in every step. Buffers keep their
    addresses, so that a CUDA graph of the step stays valid. A checkpoint holds what was seen.

    Attributes:
        active: True where much was not seen; else `loss` leaves all but pictures out.
        pictures: Colours of unseen parts from filled views; None without such.

    Args:
        vertices: Canonical body, metres.
        faces: Its faces.
        box: The canonical box, whose cells points are drawn from.
        along: Along which directions limbs run, see `limbs.lengthwise`: what was seen is carried on around them.
            Without it, in all directions alike.
    """

    share: Float[Tensor, "vertices"]
    agreement: Float[Tensor, "vertices"]
    vertices: Float[Tensor, "vertices 3"]
    normals: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    along: Float[Tensor, "vertices 3 3"]
    nearest: Int[Tensor, "cells"]
    distance: Float[Tensor, "cells"]  # of their middles from the body, metres, negative inside
    distribution: Float[Tensor, "cells"]
    mass: Float[Tensor, ""]
    near_cells: Int[Tensor, "near"]
    stray: Float[Tensor, "cells"]
    usual: Float[Tensor, "cells"]  # weight of a point that is no wisp: the less, the more often the cell is drawn
    owned: Bool[Tensor, "vertices heights"]
    geometry_weight: Float[Tensor, "vertices"]
    one_sided: Float[Tensor, "vertices"]
    unseen: Float[Tensor, "vertices"]
    colored: Float[Tensor, "vertices"]
    thickness: Float[Tensor, "vertices"]
    color: Float[Tensor, "vertices 3"]
    color_weight: Float[Tensor, ""]
    lower: Float[Tensor, "3"]
    cell: Float[Tensor, "3"]

    def __init__(
        self,
        vertices: Float[Tensor, "vertices 3"],
        faces: Int[Tensor, "faces 3"],
        box: VoxelBox,
        along: Float[Tensor, "vertices 3 3"] | None = None,
    ) -> None:
        super().__init__()
        self.resolution = box.resolution
        self.completion: Completion | None = None
        self.active = False
        self.pictures: PictureTargets | None = None
        for name in ("share", "agreement"):
            self.register_buffer(name, torch.zeros(len(vertices)))
        self.box, cells = box, math.prod(box.resolution)
        constants = {
            "vertices": vertices,
            "normals": surface_normals(vertices, faces),
            "faces": faces,
            "along": vertices.new_zeros(len(vertices), 3, 3) if along is None else along,
            "lower": box.lower,
            "cell": (box.upper - box.lower) / torch.tensor(box.resolution).to(box.lower),
            "nearest": torch.zeros(cells, dtype=torch.long),
            "distance": torch.zeros(cells),
            "distribution": torch.zeros(cells, dtype=torch.float64),
            "mass": torch.zeros(()),
            "near_cells": torch.zeros(0, dtype=torch.long),
            "stray": torch.zeros(cells),
            "usual": torch.ones(cells),
            "owned": torch.ones(len(vertices), len(_heights(vertices)), dtype=torch.bool),
            "geometry_weight": torch.zeros(len(vertices)),
            "one_sided": torch.zeros(len(vertices)),
            "unseen": torch.zeros(len(vertices)),
            "colored": torch.zeros(len(vertices)),
            "thickness": torch.full((len(vertices),), _USUAL),
            "color": torch.zeros(len(vertices), 3),
            "color_weight": torch.zeros(()),
        }
        for name, value in constants.items():
            self.register_buffer(name, value.clone(), persistent=False)
        self.register_load_state_dict_post_hook(lambda module, keys: self.prepare())

    @classmethod
    def of_body(cls, body: BodyModel, betas: Float[Tensor, "10"], box: VoxelBox) -> UnseenPrior:
        """Return the prior of a person, before anything is known of the views.

        Args:
            body: The person's body.
            betas: Its shape.
            box: The canonical box.
        """
        return cls(canonical_vertices(body, betas), body.faces, box, lengthwise(body, betas))

    @property
    def unseen_share(self) -> float:
        """Share of the body's vertices that no training view shows; blocks the host."""
        return float(self.unseen.mean())

    @property
    def has_observed(self) -> bool:
        """Return True if coverage is known; blocks the host, and is asked before training only."""
        return bool(self.share.any())

    def shown(self) -> Float[Tensor, "vertices"] | None:
        """1 for the vertices that no training view shows, 0 for others; None where it is not known."""
        return self.unseen if self.has_observed else None

    def require_coverage(self) -> None:
        """Make sure that coverage is known.

        Raises:
            InputError: It is not: the run's checkpoint is older than its record.
        """
        if not self.has_observed:
            raise InputError(
                "the run's checkpoint",
                "expected a record of what the training views saw of the body, found none",
                "Train it anew, or go on with it for a step: ns-train ... --load-dir <run> --max-num-iterations 1",
            )

    def observe(self, coverage: Coverage) -> None:
        """Take the coverage of the training views.

        Args:
            coverage: Of the vertices.
        """
        self.share.copy_(coverage.share)
        self.agreement.copy_(coverage.agreement)
        self.prepare()

    @torch.no_grad()
    def prepare(self) -> None:
        """Make what follows from the coverage, which `observe` or a checkpoint has set."""
        seen = self.share > _SEEN_SHARE
        self.one_sided.copy_(((self.agreement - _AGREEING) / (_FULLY_AGREEING - _AGREEING)).clamp(0, 1))
        self.geometry_weight.copy_(torch.where(seen, _ONE_SIDED * self.one_sided, 1.0))
        self.unseen.copy_(~seen)
        self.colored.copy_(~seen)
        self.active = self.has_observed and self.unseen_share > _FEW
        if not self.active:  # then nobody waits for the tables
            self.completion = None
            self.mass.zero_()
            return
        self.completion = Completion(self.vertices, self.faces, seen, lengthwise=self.along)
        self._locate()
        self.stray.zero_()
        self._distribute()

    def _distribute(self) -> None:
        """Set how often points are drawn from each cell."""
        near = torch.full_like(self.distribution, _FAR_SHARE).index_fill_(0, self.near_cells, 1.0)
        weight = self.geometry_weight[self.nearest]
        evenly, strays = weight * near, weight * (self.stray > _STRAY_OPACITY)  # wisps far off count in full
        # At most half of the points: early fog is everywhere, and images must be able to say what is no fog.
        boost = (evenly.sum() / strays.sum().clamp(min=1e-12)).clamp(max=_STRAY_BOOST)
        of_cells = evenly + boost * strays
        self.usual.copy_(evenly / of_cells.clamp(min=1e-12))
        total = of_cells.sum()
        self.distribution.copy_((of_cells / total.clamp(min=1e-12)).cumsum(0))
        self.mass.copy_(total / max(len(self.near_cells), 1))

    @torch.no_grad()
    def refresh(self, field: Field, *, with_color: bool) -> None:
        """Measure thickness and colour of the seen surface anew, and carry them on.

        Args:
            field: The canonical field.
            with_color: Let the loss ask for colours from now on: they must have formed where they are seen. Wisps are
                looked for from then on too, since what has not formed yet looks like them.
        """
        if self.completion is None:
            return
        thickness, color = self._surface(field)
        loose = self.completion.without_peaks(thickness[:, None])
        is_loose = self._is_loose(loose[:, 0])[:, None]
        # Loose clothes are not smoothed with the rest: unseen vertices beside them would get skin far off the body.
        carried_on = self.completion.smooth(self.completion(thickness.clamp(max=_THICKEST)[:, None]))
        self.thickness.copy_(torch.where(is_loose, loose, carried_on)[:, 0])
        self.color.copy_(self.completion(color))
        self.color_weight.fill_(float(with_color))
        if with_color:
            self._find_strays(field)
            self._distribute()

    def _is_loose(self, thickness: Float[Tensor, "vertices"]) -> Bool[Tensor, "vertices"]:
        """Tell which thicknesses are those of seen clothes and hair far off the body, above no other part of it."""
        top = self.vertices + thickness[:, None] * self.normals
        is_own = (top - self.vertices[self._vertex_at(top)]).norm(dim=-1) > _NEARER * thickness
        return (thickness > _THICKEST) & (self.unseen == 0) & is_own

    def _surface(self, field: Field) -> tuple[Float[Tensor, "vertices"], Float[Tensor, "vertices 3"]]:
        """Distance of the field's surface from the body along its normals, metres, and its colour."""
        heights = _heights(self.vertices)
        points = self.vertices[:, None] + heights[:, None] * self.normals[:, None]
        density, color = field(points.reshape(-1, 3).contiguous())
        density, color = density.view(len(points), -1) * self.owned, color.view(len(points), -1, 3)
        alpha = 1 - torch.exp(-_LADDER_STEP * density)
        passed = torch.cumprod(1 - alpha, dim=1)
        weights = alpha * torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)
        total = weights.sum(dim=1)
        height = (weights * heights).sum(dim=1) / total.clamp(min=1e-3)
        variance = (weights * (heights - height[:, None]).square()).sum(dim=1) / total.clamp(min=1e-3)
        is_fog = variance > _SHARP**2
        height = torch.where(total > 0.5, torch.where(is_fog, height.clamp(max=_THICKEST), height), _USUAL)
        return height.clamp(min=_THINNEST), (weights[..., None] * color).sum(dim=1) / total.clamp(min=1e-3)[:, None]

    def _find_strays(self, field: Field) -> None:
        """Note the most opacity that was found lately in each cell farther off the body than it should be."""
        everywhere = torch.arange(len(self.nearest), device=self.nearest.device)
        cells = torch.cat([everywhere, self.near_cells.repeat(_STRAY_PROBES - 1)])
        points = self._within(cells)
        outside = opacity(field(points)[0]) * (self._height(points, cells) > _STRAY_MARGIN)
        self.stray.mul_(_STRAY_DECAY).scatter_reduce_(0, cells, outside.to(self.stray), "amax")

    def _height(self, points: Float[Tensor, "n 3"], cells: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Of points in some cells over clothes or hair of the vertices next to them, metres.

        It is taken along a vertex' normal. Vertices of fitted bodies have normals that point anywhere; where they
        contradict the distance of the cell from the body, that counts.
        """
        vertex, distance = self.nearest[cells], self.distance[cells]
        height = ((points - self.vertices[vertex]) * self.normals[vertex]).sum(dim=-1)
        least = (distance.abs() - self.cell.max()).clamp(min=0)  # distance of any point in the cell
        return torch.where(distance.sign() * height < least, distance, height) - self.thickness[vertex]

    def loss(self, field: Field, count: int, with_pictures: bool = False) -> Float[Tensor, ""]:
        """Penalize opacity away from the body, holes in unseen skin, and unseen colours that differ from their targets.

        Args:
            field: The canonical field, differentiable.
            count: Points to draw.
            with_pictures: Filled views, if there are any, give target colours too.
        """
        if not with_pictures or self.pictures is None:
            return self._loss_of_body(field, count)
        colors = self.pictures.loss(field, count)
        return self._loss_of_body(field, count) + colors if self.active else colors

    def _loss_of_body(self, field: Field, count: int) -> Float[Tensor, ""]:
        points, cell = self._draw(count)
        vertex = self.nearest[cell]
        height = self._height(points, cell)
        density, color = field(points)
        opaque, unseen = opacity(density), self.unseen[vertex]
        outside = opaque * (height > _MARGIN)
        usual = torch.maximum(self.usual[cell], (height > _STRAY_MARGIN).to(height))
        holes = (1 - opaque) * unseen * ((height < -_SKIN[1]) & (height > -_SKIN[0]))
        colored = self.colored[vertex] * ((height < _MARGIN) & (height > -_COLOR_DEPTH)) * self.color_weight
        difference = (color - self.color[vertex]).square().sum(dim=-1)
        return self.mass * (usual * (outside + _FILLING * holes + colored * difference)).mean()

    def _draw(self, count: int) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "n"]]:
        """Random points where the field is told something, and the cell of each."""
        device = self.nearest.device
        drawn = torch.rand(count, device=device, dtype=torch.float64)
        cell = torch.searchsorted(self.distribution, drawn).clamp(max=len(self.nearest) - 1)
        return self._within(cell), cell

    def _within(self, cells: Int[Tensor, "n"]) -> Float[Tensor, "n 3"]:
        """A random point in each of some cells, metres."""
        _, y, z = self.resolution
        index = torch.stack([cells // (y * z), cells // z % y, cells % z], dim=-1)
        return self.lower + (index + torch.rand(len(cells), 3, device=cells.device)) * self.cell

    def distance_from_body(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Distance of canonical points from the body's nearest vertices, metres, on the CPU."""
        distance, _ = KDTree(self.vertices.cpu().numpy()).query(points.cpu().numpy(), workers=-1)
        return torch.from_numpy(np.asarray(distance)).float()

    def leave_colors_to(self, points: Float[Tensor, "n 3"]) -> None:
        """Carry no colours on to the body's vertices next to points whose colours are told otherwise.

        Args:
            points: Canonical, on the surface, metres.
        """
        distance, _ = KDTree(points.cpu().numpy()).query(self.vertices.cpu().numpy(), workers=-1)
        self.colored.mul_(torch.from_numpy(np.asarray(distance) > _TOLD_OTHERWISE).to(self.colored))

    def coverage_at(self, points: Float[Tensor, "n 3"]) -> tuple[Bool[Tensor, "n"], Float[Tensor, "n"]]:
        """Tell whether training views see the body next to canonical points, and how much from one side alone, 0 to 1.

        Args:
            points: Canonical, metres; those outside the box take the nearest cell.
        """
        self._locate()
        vertex = self._vertex_at(points)
        return self.unseen[vertex] == 0, self.one_sided[vertex]

    def _vertex_at(self, points: Float[Tensor, "n 3"]) -> Int[Tensor, "n"]:
        """The vertex next to the cell of each point."""
        return self.nearest[self._cell_of(points)]

    def _cell_of(self, points: Float[Tensor, "n 3"]) -> Int[Tensor, "n"]:
        """The cell of each point; points outside the box take the nearest one."""
        index = ((points - self.lower) / self.cell).long()
        x, y, z = (index[:, axis].clamp(0, self.resolution[axis] - 1) for axis in range(3))
        return (x * self.resolution[1] + y) * self.resolution[2] + z

    def _locate(self) -> None:
        """Find each cell's nearest vertex, which cells are near the body, and what lies above a vertex; once."""
        if len(self.near_cells):
            return
        nearest, near = _nearest_vertices(self.vertices, self.box)
        self.nearest.copy_(nearest)
        self.distance.copy_(signed_distance_of_cells(self.vertices, self.faces, self.box))
        if not self.distance.any():
            CONSOLE.print(
                "[yellow]The body's surface has large openings: what is inside is taken from its normals, and unseen "
                "parts may be wrong.[/yellow]"
            )
        self.near_cells = near.nonzero()[:, 0].to(self.nearest)
        heights = _heights(self.vertices)
        points = self.vertices[:, None] + heights[:, None] * self.normals[:, None]
        cell = self._cell_of(points.reshape(-1, 3)).view(len(points), -1)
        vertex, is_inside = self.nearest[cell], self.distance[cell] < 0
        is_nearer = (points - self.vertices[vertex]).norm(dim=-1) < _NEARER * heights
        is_facing = (self.normals[vertex] * self.normals[:, None]).sum(dim=-1) < _FACING
        self.owned.copy_(~(is_nearer & is_facing) & ~(is_inside & (heights > 0)))


def _heights(like: Tensor) -> Float[Tensor, "heights"]:
    """Places at which the surface is looked for along a vertex' normal, metres, from outside to inside."""
    return torch.arange(_LADDER_TOP, _LADDER_BOTTOM - 1e-6, -_LADDER_STEP, device=like.device)


def _nearest_vertices(
    vertices: Float[Tensor, "vertices 3"], box: VoxelBox
) -> tuple[Int[Tensor, "cells"], Bool[Tensor, "cells"]]:
    """Of each cell of a box the vertex next to its middle, and whether it is near; cells in order, z fastest.

    Cells that are not near take the vertex of the nearest one that is: a tree takes seconds for them.
    """
    axes = [torch.arange(size) + 0.5 for size in box.resolution]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    lower, upper = box.lower.cpu(), box.upper.cpu()
    centers = lower + places / torch.tensor(box.resolution) * (upper - lower)
    tree = KDTree(vertices.cpu().numpy())
    distance, nearest = tree.query(centers.numpy(), distance_upper_bound=_NEAR, workers=-1)
    near, nearest = np.isfinite(distance).reshape(box.resolution), nearest.reshape(box.resolution)
    spacing = ((upper - lower) / torch.tensor(box.resolution)).tolist()
    index = ndimage.distance_transform_edt(~near, sampling=spacing, return_distances=False, return_indices=True)
    assert index is not None
    everywhere = nearest[tuple(index)]
    return torch.from_numpy(everywhere.astype(np.int64).ravel()), torch.from_numpy(near.ravel())
