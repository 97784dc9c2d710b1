"""Charts of a texture: large pieces of the surface that lie flat in the plane without much stretch.

xatlas grows charts from triangle to triangle as long as normals agree, and makes hundreds of the rough surface of a
trained field. Here the surface is cut into front and back, whose connected pieces are flattened (`flattening`). A piece
that would be stretched, folded or overlap itself is cut in two, and again; then pieces, from the smallest on, are
merged with a neighbour where both make a good chart.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from instantavatar_ns.export.flattening import Triangles, crosses_itself, flattened
from instantavatar_ns.export.surface import Surface

_SMOOTHED = 20  # rounds of averaging the normals with the neighbours' before they tell front from back
_SPECK = 0.002  # share of the surface's area below which a piece goes over to its neighbours
_LARGEST = 0.1  # share of the surface's area in one chart: larger ones are hard to pack
_MOST_UNEVEN = 0.05  # share of a chart's area where lengths may be others than on the surface
_EVEN_ENOUGH = 20  # triangles of a piece that is not cut for its stretch any more
_TRIED_NEIGHBORS = 3  # of a chart, those with the longest borders, to be merged with


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
    waiting, charts = mesh.pieces(np.arange(len(surface.faces)), _is_front(surface)), []
    while waiting:
        piece = waiting.pop()
        chart = mesh.flat(piece)
        if chart is None:
            waiting += mesh.pieces(piece, mesh.halves(piece))
        else:
            charts.append(chart)
    charts = mesh.merged(charts)
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
        self.vertices = vertices
        self.triangles = Triangles.of(vertices, faces)
        self.areas = self.triangles.areas
        self.largest, self.speck = _LARGEST * self.areas.sum(), _SPECK * self.areas.sum()
        self.twins = _twins(faces)
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

    def flat(self, piece: Int[ndarray, "piece"]) -> _Chart | None:
        """A piece in the plane; None where it makes no good chart."""
        area = self.areas[piece].sum()
        small = len(piece) <= _EVEN_ENOUGH
        if area > self.largest and not small:
            return None
        surface_faces = self.triangles.faces[piece]
        first, second = self.shared_edges(piece)
        # Corners are one vertex where triangles meet at an edge, not where fans of them touch.
        pairs = np.concatenate([[first, _next(second)], [_next(first), second]], axis=1)
        corners = _components(surface_faces.size, *pairs)
        faces, source = corners.reshape(-1, 3), np.zeros(corners.max() + 1, np.int64)
        source[corners] = surface_faces.reshape(-1)
        vertices = self.vertices[source]
        plane = flattened(vertices, self.triangles.chosen(piece, faces), 1.0 if small else _MOST_UNEVEN)
        if plane is None:
            return None
        border = np.ones(len(corners), bool)
        border[first] = border[second] = False
        begin, end = (of.reshape(-1)[border] for of in (faces, np.roll(faces, -1, axis=1)))
        if crosses_itself(vertices, plane, begin, end):
            return None
        return _Chart(piece, faces, source, np.stack([plane.real, plane.imag], axis=1))

    def merged(self, charts: list[_Chart]) -> list[_Chart]:
        """Charts, from the smallest on, merged with a neighbour where they make a good chart together."""
        kept, failed = dict(enumerate(charts)), set()
        borders = self.borders(charts)
        for number in np.argsort([self.areas[chart.piece].sum() for chart in charts]).tolist():
            neighbors = sorted(borders[number], key=borders[number].__getitem__, reverse=True)
            for other in neighbors[:_TRIED_NEIGHBORS]:
                pieces = kept[number].piece, kept[other].piece
                # The larger of both tries this pair again, in vain unless one has grown since.
                pair = frozenset([(number, len(pieces[0])), (other, len(pieces[1]))])
                union = None if pair in failed else self.flat(np.concatenate(pieces))
                if union is None:
                    failed.add(pair)
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

    def borders(self, charts: list[_Chart]) -> list[dict[int, float]]:
        """Lengths of the borders that each chart shares with its neighbours, metres."""
        owner = np.zeros(len(self.areas), np.int64)
        for number, chart in enumerate(charts):
            owner[chart.piece] = number
        edges = np.flatnonzero(self.twins >= 0)
        ends = np.stack([edges, _next(edges)])
        here, there = owner[edges // 3], owner[self.twins[edges] // 3]
        begin, end = self.vertices[self.triangles.faces.reshape(-1)[ends]]
        lengths = np.linalg.norm(end - begin, axis=1)
        borders: list[dict[int, float]] = [defaultdict(float) for _ in charts]
        for edge in np.flatnonzero(here != there):
            borders[here[edge]][int(there[edge])] += lengths[edge]
        return borders

    def halves(self, piece: Int[ndarray, "piece"]) -> Bool[ndarray, "piece"]:
        """Triangles beyond the middle of a piece's longest extent."""
        middles = self.vertices[self.triangles.faces[piece]].mean(axis=1)
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
