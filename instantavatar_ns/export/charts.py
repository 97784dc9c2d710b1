"""Charts of a texture: large pieces of the surface that lie flat in the plane without much stretch.

xatlas grows charts from triangle to triangle as long as normals agree, and makes hundreds of the rough surface of a
trained field. Here the surface is cut into front and back, whose connected pieces are flattened: by least squares
conformal maps (Lévy et al. 2002), then as rigidly as possible (Liu et al. 2008, "A Local/Global Approach to Mesh
Parameterization"). A piece that would be stretched, folded or overlap itself is cut in two, and again; small
pieces are merged with a neighbour where both make a good chart.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from numpy import ndarray
from scipy import sparse
from scipy.linalg import cho_solve_banded, cholesky_banded, solveh_banded
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee
from scipy.spatial import KDTree

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
_HOPELESS_AFTER = 4  # rounds, if twice the area that may be uneven then is: none of thousands got even after all
_REGULAR = 1e-10
_STIFF = 1e4  # springs that hold vertices, by those of the edges
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
        chart = mesh.flattened(piece)
        if chart is None:
            waiting += mesh.pieces(piece, mesh.halves(piece))
        else:
            flat.append(chart)
    charts = mesh.merged(flat)
    faces, planes, vertices, right = np.zeros_like(surface.faces), [], 0, 0.0
    for chart in charts:
        faces[chart.piece] = chart.faces + vertices
        plane = chart.plane - chart.plane.min(axis=0) + [right, 0]
        planes.append(plane)
        vertices, right = vertices + len(plane), plane[:, 0].max() + 1.0
    return Charts(np.concatenate([chart.source for chart in charts]), faces, np.concatenate(planes), len(charts))


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


@dataclass(frozen=True)
class _Chart:
    """A piece of a surface, flat.

    Attributes:
        piece: The surface's triangles.
        faces: The same, with vertices of their own.
        source: The surface's vertices that these repeat.
        plane: Where they lie, metres.
    """

    piece: Int[ndarray, "piece"]
    faces: Int[ndarray, "piece 3"]
    source: Int[ndarray, "vertices"]
    plane: Float[ndarray, "vertices 2"]


class _Mesh:
    """A closed surface that is cut along edges.

    Edges are known by the corner where they begin, in the one triangle or in the other: 3 times the triangle, and 0, 1
    or 2.

    Args:
        vertices: Metres.
        faces: Triangles.
    """

    def __init__(self, vertices: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"]) -> None:
        self.vertices, self.faces = vertices, faces
        self.areas, self.slopes = _areas_and_slopes(vertices, faces)
        self.largest, self.speck = _LARGEST * self.areas.sum(), _SPECK * self.areas.sum()
        self.twins = _twins(faces)
        begin, end = vertices[faces], vertices[np.roll(faces, -1, axis=1)]
        self.lengths = np.linalg.norm(end - begin, axis=2).reshape(-1)
        ends = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
        graph = sparse.csr_matrix((np.ones(faces.size), ends), shape=(len(vertices),) * 2)
        # Neighbours are never far from each other in this order, so that matrices of pieces are narrow bands.
        self.order = reverse_cuthill_mckee(graph + graph.T, symmetric_mode=True).argsort()[faces].min(axis=1)
        self._places = np.full(len(faces), -1)

    def shared_edges(self, piece: Int[ndarray, "piece"]) -> tuple[Int[ndarray, "pairs"], Int[ndarray, "pairs"]]:
        """Edges between two triangles of a piece, as they are in either; triangles are counted in the piece."""
        self._places[piece] = np.arange(len(piece))
        twins = self.twins.reshape(-1, 3)[piece].reshape(-1)
        triangles = np.where(twins < 0, -1, self._places[twins // 3])
        self._places[piece] = -1
        first = np.flatnonzero(triangles >= 0)
        second = 3 * triangles[first] + twins[first] % 3
        once = first < second
        return first[once], second[once]

    def flattened(self, piece: Int[ndarray, "piece"]) -> _Chart | None:
        """A piece in the plane; None where it makes no good chart."""
        piece = piece[self.order[piece].argsort()]
        areas, slopes = self.areas[piece], self.slopes[piece]
        small = len(piece) <= _EVEN_ENOUGH
        if areas.sum() > self.largest and not small:
            return None
        surface_faces = self.faces[piece]
        first, second = self.shared_edges(piece)
        # Corners are one vertex where triangles meet at an edge, not where fans of them touch.
        pairs = np.concatenate([[first, _next(second)], [_next(first), second]], axis=1)
        labels = _components(surface_faces.size, *pairs)
        faces, source = labels.reshape(-1, 3), np.zeros(labels.max() + 1, surface_faces.dtype)
        source[labels] = surface_faces.reshape(-1)
        vertices = self.vertices[source]
        plane = _flattened(vertices, faces, areas, slopes, 1.0 if small else _MOST_UNEVEN)
        if plane is None:
            return None
        border = np.ones(faces.size, bool)
        border[first] = border[second] = False
        begin, end = labels[border], np.roll(faces, -1, axis=1).reshape(-1)[border]
        if _crosses_itself(vertices, plane, begin, end):
            return None
        return _Chart(piece, faces, source, np.stack([plane.real, plane.imag], axis=1))

    def merged(self, charts: list[_Chart]) -> list[_Chart]:
        """Charts of which small ones are merged with a neighbour as long as they make a good chart together."""
        owner = np.zeros(len(self.faces), np.int64)
        for number, chart in enumerate(charts):
            owner[chart.piece] = number
        edges = np.flatnonzero(self.twins >= 0)
        borders: list[dict[int, float]] = [defaultdict(float) for _ in charts]  # lengths by neighbour
        here, there = owner[edges // 3], owner[self.twins[edges] // 3]
        for one, other, length in zip(
            *(of[here != there].tolist() for of in (here, there, self.lengths[edges])), strict=True
        ):
            borders[one][other] += length
        areas = [self.areas[chart.piece].sum() for chart in charts]
        kept, failed = dict(enumerate(charts)), set()
        for number in np.argsort(areas, kind="stable").tolist():
            neighbors = sorted(borders[number], key=borders[number].__getitem__, reverse=True)
            for other in neighbors[:_TRIED_NEIGHBORS]:
                pieces = kept[number].piece, kept[other].piece
                sizes = frozenset([(number, len(pieces[0])), (other, len(pieces[1]))])
                union = None if sizes in failed else self.flattened(np.concatenate(pieces))
                if union is None:
                    failed.add(sizes)
                    continue
                del kept[number]
                kept[other] = union
                for third, length in borders[number].items():
                    del borders[third][number]
                    if third != other:
                        borders[other][third] += length
                        borders[third][other] += length
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
        first, second = (edges // 3 for edges in self.shared_edges(piece))
        areas = self.areas[piece]
        speck = min(self.speck, 0.1 * areas.sum())

        def parts(side: Bool[ndarray, "piece"]) -> Int[ndarray, "piece"]:
            kept = side[first] == side[second]
            return _components(len(piece), first[kept], second[kept])

        labels = parts(side)
        cleaned, cleaned_labels = side, labels
        for _ in range(3):  # what goes over may make a speck of others
            specks = np.bincount(cleaned_labels, weights=areas) < speck
            if not specks.any():
                break
            cleaned = cleaned ^ specks[cleaned_labels]
            cleaned_labels = parts(cleaned)
        if cleaned_labels.max() > 0:
            labels = cleaned_labels
        return [piece[labels == label] for label in range(labels.max() + 1)]


def _flattened(
    vertices: Float[ndarray, "vertices 3"],
    faces: Int[ndarray, "faces 3"],
    areas: Float[ndarray, "faces"],
    slopes: Complex[ndarray, "faces 3"],
    most_uneven: float,
) -> Complex[ndarray, "vertices"] | None:
    """Places in the plane: angles are kept first, then lengths, as well as they can be.

    None where that is not well enough: triangles would be turned over or stretched.

    Args:
        vertices: Metres.
        faces: Triangles.
        areas: Theirs.
        slopes: Theirs, from `_areas_and_slopes`.
        most_uneven: Share of the area that may be stretched.
    """
    count = len(vertices)
    rows, columns = faces.repeat(3, axis=1).reshape(-1), np.tile(faces, 3).reshape(-1)
    lower = rows >= columns
    bands, columns = (rows - columns)[lower], columns[lower]
    width = bands.max() + 1
    products = (areas[:, None, None] * slopes.conj()[:, :, None] * slopes[:, None, :]).reshape(-1)[lower]
    start = int(np.linalg.norm(vertices - vertices.mean(axis=0), axis=1).argmax())
    distances = np.linalg.norm(vertices - vertices[start], axis=1)
    end = int(distances.argmax())

    def summed(values: Float[ndarray, "products"]) -> Float[ndarray, "width vertices"]:
        """The sum of the triangles' products: the matrix's lower bands."""
        return np.bincount(bands * count + columns, weights=values, minlength=width * count).reshape(width, count)

    stiffness = summed(products.real)
    stiffness[0] *= 1 + _REGULAR
    stiffness[0, start] += _STIFF
    # As conformally as possible, with two vertices that are far from each other as far apart there.
    conformal = stiffness + 1j * summed(products.imag)
    conformal[0, end] += _STIFF
    pull = np.zeros(count, complex)
    pull[end] = _STIFF * distances[end]
    plane = solveh_banded(conformal, pull, lower=True, check_finite=False)
    # As rigidly as possible: triangles are only turned, then vertices are where these fit best.
    factors = cholesky_banded(stiffness, lower=True, check_finite=False)
    flat, weighted = faces.reshape(-1), areas[:, None] * slopes
    for number in range(_RIGID_ROUNDS):
        if number == _HOPELESS_AFTER and _unlike(plane, faces, areas, slopes)[1] > 2 * most_uneven:
            return None
        turning = (slopes.conj() * plane[faces]).sum(axis=1)
        turns = turning / np.abs(turning).clip(1e-12)
        pull = (weighted * turns[:, None]).reshape(-1)
        pull = np.stack([np.bincount(flat, weights=of, minlength=count) for of in (pull.real, pull.imag)], axis=1)
        plane = cho_solve_banded((factors, True), pull, check_finite=False) @ [1, 1j]
    folded, uneven = _unlike(plane, faces, areas, slopes)
    return plane if folded <= _MOST_FOLDED and uneven <= most_uneven else None


def _unlike(
    plane: Complex[ndarray, "vertices"],
    faces: Int[ndarray, "faces 3"],
    areas: Float[ndarray, "faces"],
    slopes: Complex[ndarray, "faces 3"],
) -> tuple[float, float]:
    """Shares of the area in triangles that are turned over in the plane, and in those of other lengths."""
    turning, mirroring = (np.abs((of * plane[faces]).sum(axis=1)) / 2 for of in (slopes.conj(), slopes))
    # Factors by which lengths change, along the direction where they change most and across it.
    longest, shortest = turning + mirroring, turning - mirroring
    scale = np.sqrt(longest * shortest.clip(1e-6))
    uneven = (longest > _MOST_STRETCH * shortest) | (scale < _LEAST_SCALE) | (scale > _MOST_SCALE)
    return float(areas[shortest <= 0].sum() / areas.sum()), float(areas[uneven].sum() / areas.sum())


def _crosses_itself(
    vertices: Float[ndarray, "vertices 3"],
    plane: Complex[ndarray, "vertices"],
    begin: Int[ndarray, "border"],
    end: Int[ndarray, "border"],
) -> bool:
    """Whether two edges of the border cross that are not next to each other on the surface anyway.

    Args:
        vertices: Metres.
        plane: Where they are there.
        begin: Vertices where the border's edges begin.
        end: Vertices where they end.
    """
    middles, along = (plane[begin] + plane[end]) / 2, plane[end] - plane[begin]
    near = _TOUCHING * np.linalg.norm(vertices[end] - vertices[begin], axis=1).mean()
    # Edges that cross have middles at most half of both lengths apart.
    tree = KDTree(np.stack([middles.real, middles.imag], axis=1))
    i, j = tree.query_pairs(np.abs(along).max(initial=0.0), output_type="ndarray").T
    apart = np.linalg.norm(vertices[begin[i]] - vertices[begin[j]], axis=1) > near
    i, j = i[apart], j[apart]

    def separates(i: Int[ndarray, "n"], j: Int[ndarray, "n"]) -> Bool[ndarray, "n"]:
        """Whether the line through an edge runs between the ends of another."""
        sides = [(along[i].conj() * (plane[of[j]] - plane[begin[i]])).imag for of in (begin, end)]
        return sides[0] * sides[1] < 0

    return bool((separates(i, j) & separates(j, i)).any())


def _areas_and_slopes(
    vertices: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"]
) -> tuple[Float[ndarray, "faces"], Complex[ndarray, "faces 3"]]:
    """Areas of triangles, and slopes of the functions that are 1 at a corner and 0 at the others.

    In a triangle's plane, with its first edge along the real axis, a slope's real and imaginary part are the
    derivatives along the two axes. For places z = u + iv, the sum of slopes times z is the derivative by z's mirror
    image, 0 where angles are kept; that of their conjugates times z is the derivative by z. (Both are twice these.)
    """
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    base = np.linalg.norm(b - a, axis=1).clip(1e-9)
    along = ((c - a) * (b - a)).sum(axis=1) / base
    height = (np.linalg.norm(np.cross(b - a, c - a), axis=1) / base).clip(1e-9)
    corners = np.stack([0 * base, base, along + 1j * height], axis=1)
    opposite = np.roll(corners, -2, axis=1) - np.roll(corners, -1, axis=1)
    return base * height / 2, 1j * opposite / (base * height)[:, None]


def _twins(faces: Int[ndarray, "faces 3"]) -> Int[ndarray, "edges"]:
    """The same edge in the other triangle, for each edge of each triangle; -1 where there is not one other."""
    ends = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2).astype(np.int64), axis=1)
    keys = ends[:, 0] * (faces.max() + 1) + ends[:, 1]
    order = keys.argsort(kind="stable")
    _, starts, counts = np.unique(keys[order], return_index=True, return_counts=True)
    first, second = order[starts[counts == 2]], order[starts[counts == 2] + 1]
    twins = np.full(faces.size, -1)
    twins[first], twins[second] = second, first
    return twins


def _next(edges: Int[ndarray, "n"]) -> Int[ndarray, "n"]:
    """The corner at which an edge ends, and the next edge begins."""
    return edges // 3 * 3 + (edges + 1) % 3


def _components(count: int, first: Int[ndarray, "pairs"], second: Int[ndarray, "pairs"]) -> Int[ndarray, "count"]:
    """Numbers of the connected parts of a graph, node by node."""
    graph = sparse.csr_matrix((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
