"""Fewer triangles for a closed mesh, which stays closed.

Quadric decimation collapses edges whatever surrounds them. Around tunnels and sheets as thin as its triangles it folds
the surface onto itself: the same triangle twice, back to back, and edges with four triangles or more. But of a closed
mesh it leaves edges that as many triangles follow one way as the other, so it can be cut along those edges and sewn
up in pairs (Guéziec et al., "Cutting and Stitching", 2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from fast_simplification import simplify
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from instantavatar_ns.utils.errors import InputError

_AGGRESSIVENESS = 4.0  # of quadric decimation: higher is faster and rougher; below 3 it stops before the target
# Shares of the budget that the passes aim at. Further ones are for what folds kept from collapsing, in small budgets,
# and for the triangles that sewing adds.
_PASSES = (1.0, 0.95, 0.9)
_LEAST_VOLUME, _CRUMB = 0.5, 1e-4  # shares of the volume: that must be left; that a part must have to stay
_APART = 0.01  # how far sheets that met give way, as a share of the distance to the neighbours' mean

Vertices = Float[ndarray, "vertices 3"]
Faces = Int[ndarray, "faces 3"]


def decimate(mesh: trimesh.Trimesh, max_faces: int) -> trimesh.Trimesh:
    """Collapse edges by their quadric error until few enough triangles are left.

    Args:
        mesh: Closed and consistently oriented.
        max_faces: Triangles to keep at most.

    Returns:
        A closed and consistently oriented mesh, hardly ever of more than one part: what has been pinched off, as a thin
        limb may be, stays unless it is tiny.

    Raises:
        InputError: So few triangles do not hold the shape.
    """
    kept = mesh
    for share in _PASSES:
        vertices, faces = np.asarray(kept.vertices), np.asarray(kept.faces)
        if len(faces) > max_faces:
            target = int(share * max_faces)
            vertices, faces = simplify(vertices, faces, target_count=target, agg=_AGGRESSIVENESS)[:2]
        kept = without_crumbs(close(vertices, faces))
        if len(kept.faces) <= max_faces:
            break
    if len(kept.faces) > max_faces or kept.volume < _LEAST_VOLUME * mesh.volume:
        message = f"expected enough triangles to keep the shape of the surface, found {max_faces}"
        raise InputError("--max-faces", message, "Allow more triangles")
    return kept


def without_crumbs(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Drop the parts, joined by edges, that hold hardly any volume, or are cavities."""
    part = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(mesh.faces))
    a, b, c = mesh.triangles.transpose(1, 0, 2)
    volume = np.bincount(part, (a * np.cross(b, c)).sum(axis=1) / 6)
    kept = trimesh.Trimesh(mesh.vertices, mesh.faces[(volume > _CRUMB * volume.sum())[part]], process=False)
    kept.remove_unreferenced_vertices()
    return kept


def close(vertices: Vertices, faces: Faces) -> trimesh.Trimesh:
    """Give every edge two triangles.

    Args:
        vertices: Positions.
        faces: Triangles; along every edge as many run one way as the other.

    Returns:
        The same surface, closed and consistently oriented: triangles back to back are gone, vertices where sheets meet
        are repeated, a hair apart, and edges that two sheets still share are divided for one of them.

    Raises:
        ValueError: Some edge is not balanced like that.
    """
    vertices, faces = sew(vertices, without_folds(faces))
    while len(shared := _shared_edges(faces)):
        vertices, faces = sew(*_divide(vertices, faces, shared))
    return trimesh.Trimesh(_apart(vertices, faces), faces, process=False)


def without_folds(faces: Faces) -> Int[ndarray, "kept 3"]:
    """Drop triangles that lie back to back with another, both of them."""
    corners = np.sort(faces, axis=1)
    odd = (faces == corners).sum(axis=1) == 1  # permutation of the sorted corners: it faces the other way
    triangles, triangle = np.unique(corners, axis=0, return_inverse=True)
    balance = np.bincount(triangle.reshape(-1), np.where(odd, -1, 1)).astype(int)
    facing = np.where(balance[:, None] < 0, triangles[:, ::-1], triangles)
    return np.repeat(facing, np.abs(balance), axis=0)


def sew(vertices: Vertices, faces: Faces) -> tuple[Float[ndarray, "fans 3"], Faces]:
    """Join the triangles at every edge in pairs that run opposite ways; every fan of them gets its own vertex.

    Of more than two at an edge, those are paired that other edges at its ends have joined already.

    Args:
        vertices: Positions.
        faces: Triangles; along every edge as many run one way as the other.

    Returns:
        Vertices and triangles, as many as before. Edges that have more than two still are shared by sheets that other
        edges join at both ends.

    Raises:
        ValueError: Some edge is not balanced like that.
    """
    halves = _HalfEdges.of(faces)
    pairs = np.bincount(halves.edge)[halves.edge] == 2
    fan = halves.fans(np.flatnonzero(pairs)[np.argsort(halves.edge[pairs])])
    fan = halves.fans(np.lexsort([fan[halves.high], fan[halves.low], halves.edge]))
    _, first = np.unique(fan, return_index=True)
    return vertices[faces.reshape(-1)[first]], fan.reshape(-1, 3)


@dataclass(frozen=True)
class _HalfEdges:
    """Sides of triangles: half-edge 3 f + c runs from corner c of triangle f to the next.

    Attributes:
        edge: Number of the edge.
        rising: Whether it runs towards the vertex of the higher number.
        low: The corner (3 f + c) that it has at the vertex of the lower number.
        high: And at the other.
    """

    edge: Int[ndarray, "halves"]
    rising: Bool[ndarray, "halves"]
    low: Int[ndarray, "halves"]
    high: Int[ndarray, "halves"]

    @classmethod
    def of(cls, faces: Faces) -> _HalfEdges:
        start = np.arange(faces.size)
        end = np.roll(start.reshape(-1, 3), -1, axis=1).reshape(-1)
        vertex = faces.reshape(-1).astype(np.int64)
        rising = vertex[start] < vertex[end]
        low, high = np.where(rising, start, end), np.where(rising, end, start)
        _, edge = np.unique(vertex[low] * (vertex.max(initial=0) + 1) + vertex[high], return_inverse=True)
        return cls(edge, rising, low, high)

    def fans(self, order: Int[ndarray, "chosen"]) -> Int[ndarray, "halves"]:
        """Number the fans of corners that the chosen half-edges join, the n-th rising one with the n-th falling one.

        Raises:
            ValueError: The surface is not closed.
        """
        up, down = order[self.rising[order]], order[~self.rising[order]]
        if not np.array_equal(self.edge[up], self.edge[down]):
            raise ValueError("expected a closed surface, found edges that more triangles follow one way than the other")
        joined = np.stack([[self.low[up], self.low[down]], [self.high[up], self.high[down]]], axis=1).reshape(2, -1)
        graph = coo_array((np.ones(joined.shape[1], bool), tuple(joined)), shape=(len(self.edge),) * 2)
        return connected_components(graph, directed=False)[1]


def _shared_edges(faces: Faces) -> Int[ndarray, "shared 2"]:
    """A rising and a falling half-edge of edges with more than two, no triangle occurring twice."""
    halves = _HalfEdges.of(faces)
    shared, taken = [], set()
    for edge in np.flatnonzero(np.bincount(halves.edge) > 2):
        here = np.flatnonzero(halves.edge == edge)
        rising = halves.rising[here]
        pair = here[rising][0], here[~rising][0]
        triangles = {half // 3 for half in pair}
        if taken.isdisjoint(triangles):
            taken |= triangles
            shared.append(pair)
    return np.array(shared, int).reshape(-1, 2)


def _divide(
    vertices: Vertices, faces: Faces, shared: Int[ndarray, "shared 2"]
) -> tuple[Float[ndarray, "more_vertices 3"], Int[ndarray, "more_faces 3"]]:
    """Divide pairs of half-edges, and their triangles, by a new vertex in their middle."""
    ends = np.stack([faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)])[:, shared[:, 0]]
    middle = len(vertices) + np.arange(len(shared))
    faces, second_halves = faces.copy(), []
    for half in shared.T:
        face, corner = np.divmod(half, 3)
        second = faces[face]
        second[np.arange(len(face)), corner] = middle
        faces[face, (corner + 1) % 3] = middle
        second_halves.append(second)
    return np.concatenate([vertices, vertices[ends].mean(axis=0)]), np.concatenate([faces, *second_halves])


def _apart(vertices: Vertices, faces: Faces) -> Vertices:
    """Move vertices of equal position a little into their own sheets, so that merging by position leaves them apart."""
    _, position, times = np.unique(vertices, axis=0, return_inverse=True, return_counts=True)
    repeated = times[position.reshape(-1)] > 1
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    sums = np.zeros_like(vertices)
    np.add.at(sums, start, vertices[end])
    means = sums / np.bincount(start, minlength=len(vertices))[:, None]
    return np.where(repeated[:, None], vertices + _APART * (means - vertices), vertices)
