"""Charts of a texture: large pieces of the surface that lie flat in the plane without much stretch.

xatlas grows charts from triangle to triangle as long as normals agree, and makes hundreds of the rough surface of a
trained field. Here the surface is cut into front and back, whose connected pieces are flattened: by least squares
conformal maps (Lévy et al. 2002), then as rigidly as possible (Liu et al. 2008, "A Local/Global Approach to Mesh
Parameterization"). A piece that would be stretched, folded or overlap itself is cut in two, and again; small
pieces are merged with a neighbour where both make a good chart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from instantavatar_ns.export.surface import Surface

_SMOOTHED = 20  # rounds of averaging the normals with the neighbours' before they tell front from back
_SPECK = 0.002  # share of the surface's area below which a piece goes over to its neighbours
_LARGEST = 0.1  # share of the surface's area in one chart: larger ones are hard to pack
_MOST_STRETCH = 1.7  # length along one direction by that along another in the same triangle
_LEAST_SCALE, _MOST_SCALE = 0.6, 1.6  # lengths in the plane by those on the surface
_MOST_UNEVEN = 0.05  # share of a chart's area that may lie outside these bounds
_MOST_FOLDED = 0.01  # share of a chart's area in triangles that are turned over
_EVEN_ENOUGH = 20  # triangles of a piece that is not cut for its stretch any more
_TOUCHING = 2.0  # edge lengths on the surface between edges that may cross in the plane: ragged seams do
_RIGID_ROUNDS = 15
_TRIED_NEIGHBORS = 3  # of a chart, to be merged with


@dataclass(frozen=True)
class Charts:
    """A surface cut along seams, where vertices are repeated, each chart flat in a plane of its own.

    Attributes:
        source: The vertex of the closed surface that each vertex repeats.
        faces: Triangles, in the surface's order.
        plane: Where the vertices lie, metres; charts are apart.
        count: Number of charts.
    """

    source: Int[ndarray, "vertices"]
    faces: Int[ndarray, "faces 3"]
    plane: Float[ndarray, "vertices 2"]
    count: int


def cut_into_charts(surface: Surface) -> Charts:
    """Cut a closed surface into charts, and flatten each.

    Args:
        surface: The surface.
    """
    mesh = _Mesh(surface.vertices.astype(np.float64), surface.faces)
    waiting, flat = mesh.pieces(np.arange(len(surface.faces)), _is_front(surface)), []
    while waiting:
        piece = waiting.pop()
        if mesh.flattened(piece) is None:
            waiting += mesh.pieces(piece, mesh.halves(piece))
        else:
            flat.append(piece)
    faces, sources, planes, right = np.zeros_like(surface.faces), [], [], 0.0
    pieces = mesh.merged(flat)
    for piece in pieces:
        chart = mesh.flattened(piece)
        assert chart is not None
        corners, source, plane = chart
        faces[piece] = corners + sum(map(len, sources))
        plane = plane - plane.min(axis=0) + [right, 0]
        sources.append(source)
        planes.append(plane)
        right = plane[:, 0].max() + 1.0
    return Charts(np.concatenate(sources), faces, np.concatenate(planes), len(pieces))


def _is_front(surface: Surface) -> Bool[ndarray, "faces"]:
    """Triangles on one side of the person, as seen along the axis along which the surface is thinnest."""
    axis = int(np.ptp(surface.vertices, axis=0).argmin())
    edges = np.concatenate([surface.faces[:, [0, 1]], surface.faces[:, [1, 2]], surface.faces[:, [2, 0]]])
    count = len(surface.vertices)
    around = sparse.csr_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    around = around + sparse.eye(count)
    slope, degrees = surface.normals[:, axis].astype(np.float64), np.asarray(around.sum(axis=1))[:, 0]
    for _ in range(_SMOOTHED):
        slope = (around @ slope) / degrees
    return slope[surface.faces].sum(axis=1) > 0


class _Mesh:
    """A closed surface that is cut along edges.

    Args:
        vertices: Metres.
        faces: Triangles.
    """

    def __init__(self, vertices: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"]) -> None:
        self.vertices, self.faces = vertices, faces
        self.areas = _areas(vertices, faces)
        self.speck = _SPECK * self.areas.sum()

    def cut_out(self, piece: Int[ndarray, "piece"]) -> tuple[Int[ndarray, "piece 3"], Int[ndarray, "vertices"]]:
        """A piece's triangles with vertices of its own, and the surface's vertices that these repeat."""
        faces = self.faces[piece]
        first, second = _shared_edges(faces)
        # Corners are one vertex where triangles meet at an edge, not where fans of them touch.
        pairs = np.concatenate([[first, _next(second)], [_next(first), second]], axis=1)
        labels = _components(faces.size, *pairs)
        source = np.zeros(labels.max() + 1, faces.dtype)
        source[labels] = faces.reshape(-1)
        return labels.reshape(-1, 3), source

    def flattened(self, piece: Int[ndarray, "piece"]) -> tuple[ndarray, ndarray, ndarray] | None:
        """`cut_out` of a piece, and where its vertices lie in the plane; None where it makes no good chart."""
        if self.areas[piece].sum() > _LARGEST * self.areas.sum() and len(piece) > _EVEN_ENOUGH:
            return None
        corners, source = self.cut_out(piece)
        vertices = self.vertices[source]
        plane = _flattened(vertices, corners)
        if plane is None or (len(piece) > _EVEN_ENOUGH and not _is_even(vertices, corners, plane)):
            return None
        return corners, source, plane

    def merged(self, pieces: list[Int[ndarray, "_"]]) -> list[Int[ndarray, "_"]]:
        """Pieces of which small ones are merged with a neighbour as long as they make a good chart together."""
        first, second = _shared_edges(self.faces)
        ends = self.vertices[self.faces.reshape(-1)[np.stack([first, _next(first)])]]
        lengths = np.linalg.norm(ends[1] - ends[0], axis=1)
        owner = np.zeros(len(self.faces), np.int64)
        for number, piece in enumerate(pieces):
            owner[piece] = number
        kept = dict(enumerate(pieces))
        for number in sorted(kept, key=lambda number: self.areas[kept[number]].sum()):
            here, there = owner[first // 3], owner[second // 3]
            beside = np.where(here == number, there, np.where(there == number, here, number))
            border = np.bincount(beside, weights=lengths, minlength=len(pieces))
            border[number] = 0
            for other in border.argsort()[::-1][:_TRIED_NEIGHBORS].tolist():
                if border[other] == 0:
                    break
                union = np.concatenate([kept[number], kept[other]])
                if self.flattened(union) is not None:
                    owner[kept.pop(number)] = other
                    kept[other] = union
                    break
        return list(kept.values())

    def halves(self, piece: Int[ndarray, "piece"]) -> Bool[ndarray, "piece"]:
        """Triangles beyond the middle of a piece's longest extent."""
        middles = self.vertices[self.faces[piece]].mean(axis=1)
        middles -= middles.mean(axis=0)
        order = (middles @ np.linalg.svd(middles, full_matrices=False)[2][0]).argsort()
        beyond = np.zeros(len(piece), bool)
        beyond[order[len(order) // 2 :]] = True
        return beyond

    def pieces(self, piece: Int[ndarray, "piece"], side: Bool[ndarray, "piece"]) -> list[Int[ndarray, "_"]]:
        """The connected parts of both sides of a piece; specks go over to the other side."""
        first, second = (edges // 3 for edges in _shared_edges(self.faces[piece]))
        areas = self.areas[piece]
        speck = min(self.speck, 0.1 * areas.sum())

        def parts(side: Bool[ndarray, "piece"]) -> Int[ndarray, "piece"]:
            kept = side[first] == side[second]
            return _components(len(piece), first[kept], second[kept])

        cleaned = side
        for _ in range(3):  # what goes over may make a speck of others
            labels = parts(cleaned)
            cleaned = cleaned ^ (np.bincount(labels, weights=areas) < speck)[labels]
        labels = parts(cleaned)
        if labels.max() == 0:
            labels = parts(side)
        return [piece[labels == label] for label in range(labels.max() + 1)]


def _flattened(
    vertices: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"]
) -> Float[ndarray, "vertices 2"] | None:
    """Places in the plane; None where the triangles would be folded or overlap."""
    areas = _areas(vertices, faces)
    slopes = _Slopes.of(vertices, faces)
    plane = _conformal(vertices, faces, areas, slopes)
    plane = _rigid(plane, areas, slopes)
    folded = slopes.stretch(plane)[1] <= 0
    if areas[folded].sum() > _MOST_FOLDED * areas.sum() or _crosses_itself(vertices, plane, faces):
        return None
    return plane


def _is_even(
    vertices: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"], plane: Float[ndarray, "vertices 2"]
) -> bool:
    """Whether lengths in the plane are about those on the surface."""
    areas = _areas(vertices, faces)
    longest, shortest = _Slopes.of(vertices, faces).stretch(plane)
    shortest = shortest.clip(1e-6)
    scale = np.sqrt(longest * shortest)
    uneven = (longest > _MOST_STRETCH * shortest) | (scale < _LEAST_SCALE) | (scale > _MOST_SCALE)
    return bool(areas[uneven].sum() <= _MOST_UNEVEN * areas.sum())


@dataclass(frozen=True)
class _Slopes:
    """Derivatives of values at vertices, along two directions in each triangle.

    Attributes:
        x: Along the first edge.
        y: Across it.
    """

    x: sparse.csr_matrix
    y: sparse.csr_matrix

    @classmethod
    def of(cls, vertices: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"]) -> _Slopes:
        a, b, c = (vertices[faces[:, corner]] for corner in range(3))
        length = np.linalg.norm(b - a, axis=1).clip(1e-9)
        along = ((c - a) * (b - a)).sum(axis=1) / length
        height = (2 * _areas(vertices, faces) / length).clip(1e-9)
        zero = np.zeros(len(faces))
        # Values that are 0 at two corners and 1 at the third.
        x = np.stack([-1 / length, 1 / length, zero], axis=1)
        y = np.stack([along / length - 1, -along / length, zero + 1], axis=1) / height[:, None]
        rows, shape = np.arange(len(faces)).repeat(3), (len(faces), len(vertices))
        return cls(*(sparse.csr_matrix((of.reshape(-1), (rows, faces.reshape(-1))), shape=shape) for of in (x, y)))

    def stretch(self, plane: Float[ndarray, "vertices 2"]) -> tuple[Float[ndarray, "faces"], Float[ndarray, "faces"]]:
        """Largest and smallest factor by which lengths change; the latter is negative in a triangle that is turned."""
        (ux, vx), (uy, vy) = (self.x @ plane).T, (self.y @ plane).T
        turning, mirroring = np.hypot(ux + vy, vx - uy) / 2, np.hypot(ux - vy, vx + uy) / 2
        return turning + mirroring, turning - mirroring


def _conformal(
    vertices: Float[ndarray, "vertices 3"],
    faces: Int[ndarray, "faces 3"],
    areas: Float[ndarray, "faces"],
    slopes: _Slopes,
) -> Float[ndarray, "vertices 2"]:
    """Places in the plane that keep angles, with two vertices that are far from each other as far apart there."""
    count, root = len(vertices), sparse.diags(np.sqrt(areas))
    x, y = root @ slopes.x, root @ slopes.y
    residuals = sparse.csc_matrix(sparse.bmat([[x, -y], [y, x]]))
    start = int(np.linalg.norm(vertices - vertices.mean(axis=0), axis=1).argmax())
    distances = np.linalg.norm(vertices - vertices[start], axis=1)
    pins = np.array([start, int(distances.argmax())])
    pins, values = np.concatenate([pins, pins + count]), np.array([0, distances.max(), 0, 0])
    free = np.setdiff1d(np.arange(2 * count), pins)
    of_free = residuals[:, free]
    solution = np.zeros(2 * count)
    solution[pins] = values
    solution[free] = splu(sparse.csc_matrix(of_free.T @ of_free)).solve(-of_free.T @ (residuals[:, pins] @ values))
    return solution.reshape(2, count).T


def _rigid(
    plane: Float[ndarray, "vertices 2"], areas: Float[ndarray, "faces"], slopes: _Slopes
) -> Float[ndarray, "vertices 2"]:
    """Move vertices until triangles are as nearly as possible what they are on the surface, turned only."""
    weighted_x, weighted_y = slopes.x.T @ sparse.diags(areas), slopes.y.T @ sparse.diags(areas)
    laplacian = sparse.lil_matrix(weighted_x @ slopes.x + weighted_y @ slopes.y)
    laplacian[0, 0] += areas.mean()  # holds the first vertex at 0
    solve = splu(sparse.csc_matrix(laplacian)).solve
    for _ in range(_RIGID_ROUNDS):
        (ux, vx), (uy, vy) = (slopes.x @ plane).T, (slopes.y @ plane).T
        angle = np.arctan2(vx - uy, ux + vy)
        cosine, sine = np.cos(angle), np.sin(angle)
        plane = solve(np.stack([weighted_x @ cosine - weighted_y @ sine, weighted_x @ sine + weighted_y @ cosine], 1))
    return plane


def _crosses_itself(
    vertices: Float[ndarray, "vertices 3"], plane: Float[ndarray, "vertices 2"], faces: Int[ndarray, "faces 3"]
) -> bool:
    """Whether two edges of the boundary cross that are not next to each other on the surface anyway."""
    inner = np.zeros(faces.size, bool)
    inner[np.concatenate(_shared_edges(faces))] = True
    begin = faces.reshape(-1)[~inner]
    end = np.roll(faces, -1, axis=1).reshape(-1)[~inner]
    a, b = plane[begin], plane[end]

    def side(points: Float[ndarray, "n 2"]) -> Float[ndarray, "edges n"]:
        """Twice the area of the triangles of edges and points."""
        return (b - a)[:, None, 0] * (points[None, :, 1] - a[:, None, 1]) - (b - a)[:, None, 1] * (
            points[None, :, 0] - a[:, None, 0]
        )

    apart = side(a) * side(b) < 0  # edge's line separates the ends of the other
    crossing = apart & apart.T
    i, j = np.nonzero(crossing)
    near = _TOUCHING * np.linalg.norm(vertices[end] - vertices[begin], axis=1).mean()
    return bool((np.linalg.norm(vertices[begin[i]] - vertices[begin[j]], axis=1) > near).any())


def _areas(vertices: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"]) -> Float[ndarray, "faces"]:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1).clip(1e-14) / 2


def _shared_edges(faces: Int[ndarray, "faces 3"]) -> tuple[Int[ndarray, "pairs"], Int[ndarray, "pairs"]]:
    """Edges that two triangles share, as they are in either: 3 times the triangle, and the corner where it begins."""
    ends = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    same = (ends[order[1:]] == ends[order[:-1]]).all(axis=1)
    return order[:-1][same], order[1:][same]


def _next(edges: Int[ndarray, "n"]) -> Int[ndarray, "n"]:
    """The corner at which an edge ends, and the next edge begins."""
    return edges // 3 * 3 + (edges + 1) % 3


def _components(count: int, first: Int[ndarray, "pairs"], second: Int[ndarray, "pairs"]) -> Int[ndarray, "count"]:
    """Numbers of the connected parts of a graph, node by node."""
    graph = sparse.coo_matrix((np.ones(len(first), bool), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
