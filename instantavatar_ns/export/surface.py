"""A watertight mesh of the canonical density: what a camera takes for the person's surface.

Where the occupancy allows any density, it is sampled: coarsely everywhere, finely near the surface. It is turned into
opacity and smoothed by a voxel; the surface is where two centimetres are half opaque. (Of thicknesses from 1 to 4 cm
this one gave the silhouettes that overlap the truth's most.) An avatar that has hardly been trained is fog, and is cut
at a share of its own opacity. Inside, a trained field is noisy, for no ray gets there, so whatever lies deeper than the
sampled band is solid. Where a person is of one colour, images do not tell a pit or a tunnel from the surface around it:
those too narrow for a ball of two centimetres are filled. Where all views look from one side, they do not tell how far
density stands off: what a ball of three does not fit into is cut off there. Neither is done to the hands.

Where no training view looked, the density is a guess: bumps there are no detail, and are smoothed away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import trimesh
from fast_simplification import simplify
from jaxtyping import Bool, Float, Float32, Int
from nerfstudio.utils.rich_utils import CONSOLE
from numpy import ndarray
from rich.progress import track
from scipy import ndimage, sparse
from scipy.spatial import KDTree
from skimage.measure import marching_cubes
from torch import Tensor

from instantavatar_ns.export.decimation import decimate
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.utils.errors import InputError

POINTS_AT_A_TIME = 1 << 16
THICKNESS = 0.02  # metres that are half opaque at the surface
_SHARE_OF_FOG, _LEAST_OPACITY = 0.6, 0.1
_COARSE = 2  # voxels between the coarse samples
_BAND = 2  # coarse samples to each side of the surface near which the density is sampled finely
_SMOOTHING = 1.0  # standard deviation, voxels
_BELOW_SKIN = 0.01  # metres below the body's surface that are solid in any case: bodies are fitted so well
_DEEPEST = 0.03  # metres: a solid shell so thick has what is deeper as its cavity
_WINDING_FACES = 600  # triangles of the body that tell inside from outside
_WINDING_POINTS = 1 << 12  # that are told at a time
_PER_EDGE = 4  # samples along an edge of the body's triangles, which are a few centimetres long
_NARROW = 0.01  # metres: radius of a ball; what it does not fit into is filled. A larger one fills folds that are seen
_THIN = 0.015  # metres: radius of a ball; what it does not fit into is cut off where its length was guessed
_AROUND_HANDS = 0.03  # metres around the hands' vertices that stay as they are
_STANDS_OFF = 0.012  # metres from the body's vertices: what is nearer, as noses are, is not cut off
_VOTING = 8  # of the body's vertices around a point tell how it was seen: single ones are folded over
_CHANGE = 1e-6  # opacity by which filling or cutting changes a sample at least
_CLEARANCE = 1e-3  # opacity by which samples differ from the surface's at least
# Taubin's band-pass: steps, and how much a vertex follows its neighbours' mean and is pushed back in turn.
_TAUBIN = {"iterations": 10, "lamb": 0.5, "nu": 0.53}
_TAUBIN_UNSEEN = {"iterations": 300, "lamb": 0.5, "nu": 0.51}  # leaves no bumps shorter than some 20 edges
_FADE = 10  # edges over which smoothing fades from what was not seen to what was

Density = Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n"]]
Unseen = Callable[[Float[ndarray, "n 3"]], Bool[ndarray, "n"]]


@dataclass(frozen=True)
class Surface:
    """A closed triangle mesh in the canonical pose.

    Attributes:
        vertices: Positions, metres.
        faces: Triangles, counter-clockwise seen from outside.
        normals: Unit normals at the vertices, outwards.
        dense_points: Vertices before decimation, metres; none where there was none.
        dense_point_normals: Unit normals there.
    """

    vertices: Float[ndarray, "vertices 3"]
    faces: Int[ndarray, "faces 3"]
    normals: Float[ndarray, "vertices 3"]
    dense_points: Float[ndarray, "dense 3"] = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    dense_point_normals: Float[ndarray, "dense 3"] = field(default_factory=lambda: np.zeros((0, 3), np.float32))

    def dense_normals(self, points: Float[ndarray, "n 3"], neighbors: int) -> Float[ndarray, "n 3"]:
        """Unit normals of the surface before decimation.

        Args:
            points: On the decimated surface, metres.
            neighbors: Nearest vertices whose normals are averaged, the nearer the more.
        """
        distance, nearest = KDTree(self.dense_points).query(points, k=neighbors, workers=-1)
        weights = 1 / (np.asarray(distance) + 1e-4)
        mean = (self.dense_point_normals[nearest] * weights[..., None]).sum(axis=1)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True).clip(1e-12)


@dataclass(frozen=True)
class Body:
    """The canonical body, which the person is at least as thick as, but for a little.

    Attributes:
        vertices: Metres.
        faces: Triangles; the mesh may be open, and have parts inside.
        hands: Which vertices are of the hands: fingers are as thin as spikes, and as near to each other as the walls of
            pits. None if there are none.
        guessed: At which vertices no view tells how far density stands off, or all from one side. None if nowhere.
    """

    vertices: Float[ndarray, "vertices 3"]
    faces: Int[ndarray, "faces 3"]
    hands: Bool[ndarray, "vertices"] | None = None
    guessed: Bool[ndarray, "vertices"] | None = None

    @torch.no_grad()
    def depth(self, axes: Sequence[Float[Tensor, "_"]]) -> Float32[ndarray, "x y z"]:
        """Depth of a lattice's points below the body's surface, metres, at most `_DEEPEST`.

        It is 0 outside, and where the coarse samples around are all deeper than that.

        Args:
            axes: Coordinates along x, y and z, of which every `_COARSE`th tells inside from outside.
        """
        corners, parts = self.vertices[self.faces], np.arange(_PER_EDGE + 1) / _PER_EDGE
        weights = np.array([(a, b, 1 - a - b) for a in parts for b in parts if a + b <= 1 + 1e-6])
        tree = KDTree(np.einsum("kc,fcx->fkx", weights, corners).reshape(-1, 3))

        def distances(points: Float[ndarray, "n 3"]) -> Float[ndarray, "n"]:
            return np.minimum(tree.query(points, distance_upper_bound=_DEEPEST, workers=-1)[0], _DEEPEST)

        device = axes[0].device
        coordinates = [axis.cpu().numpy() for axis in axes]
        coarse = np.stack(np.meshgrid(*(axis[::_COARSE] for axis in coordinates), indexing="ij"), axis=-1)
        inside = (distances(coarse.reshape(-1, 3)) < _DEEPEST).reshape(coarse.shape[:3])
        inside[inside] = self.winds_around(torch.from_numpy(coarse[inside]).to(device)).cpu().numpy()
        # Distances take longest: most of the lattice is spared them.
        shell = _refined(inside)
        depth = np.zeros(shell.shape, np.float32)
        points = [axis[index] for axis, index in zip(coordinates, np.nonzero(shell), strict=True)]
        depth[shell] = distances(np.stack(points, axis=-1))
        return depth

    def trimmed(
        self,
        grid: Float32[ndarray, "x y z"],
        outside: Bool[ndarray, "x y z"],
        axes: Sequence[Float[Tensor, "_"]],
        spacing: float,
    ) -> Float32[ndarray, "x y z"]:
        """Opacity without what is narrow, and without spikes where their length was guessed; hands stay as they are.

        Args:
            grid: Opacity, 0 to 1.
            outside: Which samples are outside of the body; what is deep inside does not matter.
            axes: Coordinates of the lattice, metres.
            spacing: Of the lattice, metres.
        """
        coordinates = [axis.cpu().numpy() for axis in axes]
        trimmed = without_narrows(grid, round(_NARROW / spacing))
        kept = _where(trimmed > grid + _CHANGE, self.near_hands, coordinates)
        trimmed[kept] = grid[kept]
        if self.guessed is None or not self.guessed.any():
            return trimmed
        cut = without_spikes(trimmed, round(_THIN / spacing))
        gone = _where((cut < trimmed - _CHANGE) & outside, self.is_guess, coordinates)
        trimmed[gone] = cut[gone]
        return trimmed

    def near_hands(self, points: Float[ndarray, "n 3"]) -> Bool[ndarray, "n"]:
        """Tell which points are in the hands, or up to `_AROUND_HANDS` away.

        Args:
            points: Metres.
        """
        if self.hands is None or not self.hands.any():
            return np.zeros(len(points), bool)
        hands = KDTree(self.vertices[self.hands])
        return np.isfinite(hands.query(points, distance_upper_bound=_AROUND_HANDS, workers=-1)[0])

    def is_guess(self, points: Float[ndarray, "n 3"]) -> Bool[ndarray, "n"]:
        """Tell which points are off the body and the hands where no view tells how far off density is.

        Args:
            points: Outside of the body, metres.
        """
        if self.guessed is None:
            return np.zeros(len(points), bool)
        distance, nearest = KDTree(self.vertices).query(points, k=_VOTING, workers=-1)
        off = np.asarray(distance)[:, 0] > _STANDS_OFF
        return off & (self.guessed[nearest].mean(axis=1) > 0.5) & ~self.near_hands(points)

    def winds_around(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, "n"]:
        """Mark points that the surface winds around, as it does inside of bodies that are open, too.

        By solid angles (van Oosterom and Strackee 1983) of a simplified surface.
        """
        vertices, faces = self.vertices, self.faces
        if len(faces) > _WINDING_FACES:
            vertices, faces = simplify(vertices, faces, target_count=_WINDING_FACES)[:2]
        corners = torch.from_numpy(np.asarray(vertices, np.float32)).to(points.device)
        triangles = torch.from_numpy(np.asarray(faces, np.int64)).to(points.device)
        a, b, c = corners[triangles].unbind(dim=1)
        across = torch.linalg.cross(b - a, c - a)
        edges = [(end - begin).square().sum(dim=-1) for begin, end in ((a, b), (b, c), (c, a))]
        winding = []
        for some in points.float().split(_WINDING_POINTS):
            to_corners = (corners - some[:, None]).norm(dim=-1)
            x, y, z = (to_corners[:, triangles[:, corner]] for corner in range(3))
            volume = (a * across).sum(dim=-1) - some @ across.T
            # Products of the ways to two corners, by the law of cosines.
            xy, yz, zx = (
                (first.square() + second.square() - edge) / 2
                for first, second, edge in zip((x, y, z), (y, z, x), edges, strict=True)
            )
            angles = torch.atan2(volume, x * y * z + xy * z + yz * x + zx * y).sum(dim=1)
            winding.append(angles > math.pi)
        return torch.cat(winding) if winding else points.new_zeros(0, dtype=torch.bool)


def extract_surface(
    density: Density,
    occupancy: CanonicalOccupancy,
    voxel_size: float,
    max_faces: int,
    unseen: Unseen | None = None,
    body: Body | None = None,
) -> Surface:
    """Mesh the largest solid part of a density.

    Args:
        density: Density, 1/metres, of canonical points.
        occupancy: Where it may be above zero.
        voxel_size: Distance of the samples, metres.
        max_faces: Triangles to keep at most.
        unseen: Which canonical points no training view shows; None where that is not known.
        body: What is solid whatever the density says. Where a person is of one colour, images do not tell a hollow from
            the surface that it is seen through.

    Raises:
        InputError: Nothing is opaque: the field has not been trained enough. Or so few triangles do not hold the shape.
    """
    lattice = _Lattice.around(occupancy, _COARSE * voxel_size)
    axes = lattice.axes(1)
    everywhere = np.ones([len(axis) for axis in axes], bool)
    sampled = sample_opacity(density, occupancy, axes, everywhere, "coarsely")
    level = surface_level(sampled)
    coarse = largest_solid(sampled, level)
    neighbors = ndimage.generate_binary_structure(3, 3)
    inner = np.asarray(ndimage.binary_erosion(coarse, neighbors, iterations=_BAND), bool)
    outer = np.asarray(ndimage.binary_dilation(coarse, neighbors, iterations=_BAND), bool)
    band, core = (_refined(cells) for cells in (outer & ~inner, inner))
    grid = np.where(core, 1.0, sample_opacity(density, occupancy, lattice.axes(_COARSE), band, "near the surface"))
    grid = ndimage.gaussian_filter(grid.astype(np.float32), _SMOOTHING)
    if body is None:
        filled = without_narrows(one_solid(grid, level), round(_NARROW / voxel_size))
    else:
        axes = lattice.axes(_COARSE)
        depth = body.depth(axes)
        grid = np.maximum(grid, np.clip(level + (depth - _BELOW_SKIN) / THICKNESS, 0, 1))
        filled = body.trimmed(one_solid(grid, level), depth == 0, axes, voxel_size)
    grid = one_solid(filled, level)
    vertices, faces, _, _ = marching_cubes(grid, level, spacing=(voxel_size,) * 3, gradient_direction="ascent")
    mesh = trimesh.Trimesh(vertices + lattice.lower.cpu().numpy(), faces, process=False)
    smooth(mesh, unseen)
    dense = mesh.vertices.astype(np.float32), mesh.vertex_normals.astype(np.float32)
    mesh = decimate(mesh, max_faces)
    vertices, normals = mesh.vertices.astype(np.float32), mesh.vertex_normals.astype(np.float32)
    return Surface(vertices, mesh.faces.astype(np.int32), normals, *dense)


def smooth(mesh: trimesh.Trimesh, unseen: Unseen | None = None) -> None:
    """Take the steps of the voxels off a mesh, and all bumps where it was not seen, in place.

    Args:
        mesh: Canonical surface.
        unseen: Which points no training view shows.
    """
    neighbors = sparse.csr_matrix(trimesh.smoothing.laplacian_calculation(mesh))
    trimesh.smoothing.filter_taubin(mesh, laplacian_operator=neighbors, **_TAUBIN)
    amount = np.zeros(len(mesh.vertices)) if unseen is None else unseen(np.asarray(mesh.vertices)).astype(float)
    if amount.any():
        for _ in range(_FADE):
            amount = neighbors @ amount
        still = sparse.eye(len(amount)) - sparse.diags(amount)
        moving = sparse.csr_matrix(still + sparse.diags(amount) @ neighbors)
        trimesh.smoothing.filter_taubin(mesh, laplacian_operator=moving, **_TAUBIN_UNSEEN)


@dataclass(frozen=True)
class _Lattice:
    """Points at regular distances.

    Attributes:
        lower: The first one, metres.
        counts: How many there are along x, y and z.
        spacing: Between them, metres.
    """

    lower: Float[Tensor, "3"]
    counts: tuple[int, int, int]
    spacing: float

    @classmethod
    def around(cls, occupancy: CanonicalOccupancy, spacing: float) -> _Lattice:
        """Around the occupied cells, with a border that no surface reaches.

        Args:
            occupancy: Its cells.
            spacing: Distance of the points, metres.

        Raises:
            InputError: Nothing is occupied.
        """
        centers = occupancy.occupied_centers()
        if len(centers) == 0:
            raise _untrained("nothing is occupied")
        cell = (occupancy.aabbs[0, 3:] - occupancy.aabbs[0, :3]) / occupancy.resolution
        border = cell / 2 + (_BAND + 1) * spacing
        lower, upper = centers.amin(dim=0) - border, centers.amax(dim=0) + border
        x, y, z = (((upper - lower) / spacing).ceil().int() + 1).tolist()
        return cls(lower, (x, y, z), spacing)

    def axes(self, subdivision: int) -> list[Float[Tensor, "_"]]:
        """Coordinates along x, y and z, with every interval divided; none beyond the last point."""
        step = self.spacing / subdivision
        device = self.lower.device
        return [
            self.lower[axis] + step * torch.arange((count - 1) * subdivision + 1, device=device)
            for axis, count in enumerate(self.counts)
        ]


@torch.no_grad()
def sample_opacity(
    density: Density,
    occupancy: CanonicalOccupancy,
    axes: list[Float[Tensor, "_"]],
    wanted: Bool[ndarray, "x y z"],
    where: str,
) -> Float32[ndarray, "x y z"]:
    """Opacity of `THICKNESS` on a lattice, 0 where it is not wanted or not occupied.

    Args:
        density: Density, 1/metres, of canonical points.
        occupancy: Where it may be above zero.
        axes: Coordinates of the lattice, metres.
        wanted: Which points to sample.
        where: Names them to the user.
    """
    places = np.flatnonzero(wanted)
    opacities = np.zeros(len(places), np.float32)
    starts = range(0, len(places), POINTS_AT_A_TIME)
    for start in track(starts, f"Sampling the density {where}", transient=True, console=CONSOLE):
        rows = slice(start, start + POINTS_AT_A_TIME)
        indices = np.unravel_index(places[rows], wanted.shape)
        on_axes = [axis[torch.from_numpy(index).to(axis.device)] for axis, index in zip(axes, indices, strict=True)]
        points = torch.stack(on_axes, dim=-1)
        inside = occupancy.occupied(points)
        values = torch.zeros(len(points), device=points.device)
        values[inside] = -torch.expm1(-THICKNESS * density(points[inside]).float())
        opacities[rows] = values.cpu().numpy()
    grid = np.zeros(wanted.shape, np.float32)
    grid[wanted] = opacities
    return grid


def surface_level(grid: Float32[ndarray, "x y z"]) -> float:
    """Opacity of `THICKNESS` at the surface: a half, or less in fog.

    Raises:
        InputError: Hardly anything is opaque.
    """
    dense = float(np.quantile(grid[grid > 0], 0.95)) if (grid > 0).any() else 0.0
    if dense < _LEAST_OPACITY:
        raise _untrained(f"{THICKNESS * 100:g} cm of it are at most {dense:.0%} opaque")
    return min(0.5, _SHARE_OF_FOG * dense)


def largest_solid(grid: Float32[ndarray, "x y z"], level: float) -> Bool[ndarray, "x y z"]:
    """Cells of the largest part that is at least as opaque as `level`, with its cavities.

    Args:
        grid: Opacity, 0 to 1.
        level: Least opacity that counts as solid.

    Raises:
        InputError: Nothing is.
    """
    labels, count = ndimage.label(grid >= level)  # pyright: ignore[reportGeneralTypeIssues]
    if count == 0:
        raise _untrained(f"{THICKNESS * 100:g} cm of it are at most {grid.max():.0%} opaque")
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # what is not solid
    return np.asarray(ndimage.binary_fill_holes(labels == sizes.argmax()))


def one_solid(grid: Float32[ndarray, "x y z"], level: float) -> Float32[ndarray, "x y z"]:
    """Opacity without other parts and cavities; the slopes on both sides of the surface stay.

    Args:
        grid: Opacity, 0 to 1.
        level: That of the surface, from which all samples differ then: marching cubes leaves holes around those equal.
    """
    solid = largest_solid(grid, level)
    return np.where(solid, np.maximum(grid, level + _CLEARANCE), np.minimum(grid, level - _CLEARANCE))


def without_narrows(grid: Float32[ndarray, "x y z"], radius: int) -> Float32[ndarray, "x y z"]:
    """Opacity with all pits, slits and tunnels filled that a ball does not fit into.

    It is a morphological closing, of the solids of all levels at once.

    Args:
        grid: Opacity, 0 to 1.
        radius: Of the ball, samples; at 0 nothing is changed.
    """
    return _in_turn(grid, radius, np.maximum, np.minimum)


def without_spikes(grid: Float32[ndarray, "x y z"], radius: int) -> Float32[ndarray, "x y z"]:
    """Opacity without all spikes and sheets that a ball does not fit into: a morphological opening.

    Args:
        grid: Opacity, 0 to 1.
        radius: Of the ball, samples; at 0 nothing is changed.
    """
    return _in_turn(grid, radius, np.minimum, np.maximum)


def _in_turn(grid: Float32[ndarray, "x y z"], radius: int, *extremes: np.ufunc) -> Float32[ndarray, "x y z"]:
    """Each extreme in turn over a ball around every sample, in a grid of its own."""
    result = grid.copy()
    for extreme in extremes:
        for step in range(radius):
            result = _of_neighbors(result, extreme, diagonal=step % 2 == 1)
    return result


def _of_neighbors(grid: Float32[ndarray, "x y z"], extreme: np.ufunc, diagonal: bool) -> Float32[ndarray, "x y z"]:
    """Extreme of each sample and its neighbours: 6, or 26. Both in turn grow a ball, but for its corners."""
    result = grid.copy()
    for axis in range(3):
        source = np.moveaxis(result.copy() if diagonal else grid, axis, 0)
        along = np.moveaxis(result, axis, 0)  # a view
        extreme(along[1:], source[:-1], out=along[1:])
        extreme(along[:-1], source[1:], out=along[:-1])
    return result


def _where(
    candidates: Bool[ndarray, "x y z"],
    told: Callable[[Float[ndarray, "n 3"]], Bool[ndarray, "n"]],
    axes: Sequence[Float[ndarray, "_"]],
) -> tuple[Int[ndarray, "m"], ...]:
    """Indices of the samples, of some candidates, whose places something is told of; axes are coordinates, metres."""
    indices = np.nonzero(candidates)
    chosen = told(np.stack([axis[index] for axis, index in zip(axes, indices, strict=True)], axis=-1))
    return tuple(index[chosen] for index in indices)


def _refined(cells: Bool[ndarray, "x y z"]) -> Bool[ndarray, "x2 y2 z2"]:
    """Flags of coarse samples, passed on to the finer ones from each to the next; one layer too many is cut off."""
    for axis in range(3):
        cells = cells.repeat(_COARSE, axis=axis)
    return cells[tuple(slice(size - _COARSE + 1) for size in cells.shape)]


def _untrained(found: str) -> InputError:
    return InputError("--load-config", f"expected a trained avatar, found that {found}", "Train it for more steps")
