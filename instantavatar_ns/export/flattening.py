"""Flattening of a piece of a surface: by a least squares conformal map (Lévy et al. 2002), then as rigidly as possible
(Liu et al. 2008, "A Local/Global Approach to Mesh Parameterization").

Places in the plane are complex numbers, so that a derivative along two axes is one number, and a turn is a product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from numpy import ndarray
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu
from scipy.spatial import KDTree

_MOST_STRETCH = 1.7  # length along one direction by that along another in the same triangle
_LEAST_SCALE, _MOST_SCALE = 0.6, 1.6  # lengths in the plane by those on the surface
_MOST_FOLDED = 0.01  # share of the area in triangles that are turned over
_TOUCHING = 2.0  # edge lengths on the surface between edges that may cross in the plane: ragged seams do
_RIGID_ROUNDS = 15
# Of a trained avatar's 1700 pieces, none with twice as much uneven area as it may have got even after these rounds.
_HOPELESS_AFTER, _HOPELESS = 4, 2
_STIFF = 1e4  # springs that hold vertices, by those that the edges are
_ROUNDING = 1e-10  # share that is added to the diagonals, lest slivers make them negative


@dataclass(frozen=True)
class Triangles:
    """Triangles in planes of their own.

    Attributes:
        faces: Their vertices.
        areas: Square metres.
        slopes: Of the functions that are 1 at a corner and 0 at the others, 1/metres: the derivative along the first
            edge is the real part, that across it the imaginary one.
    """

    faces: Int[ndarray, "faces 3"]
    areas: Float[ndarray, "faces"]
    slopes: Complex[ndarray, "faces 3"]

    @classmethod
    def of(cls, vertices: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"]) -> Triangles:
        """Triangles of a surface.

        Args:
            vertices: Metres.
            faces: Triangles.
        """
        a, b, c = (vertices[faces[:, corner]] for corner in range(3))
        base = np.linalg.norm(b - a, axis=1).clip(1e-9)
        along = ((c - a) * (b - a)).sum(axis=1) / base
        height = (np.linalg.norm(np.cross(b - a, c - a), axis=1) / base).clip(1e-9)
        corners = np.stack([0 * base, base, along + 1j * height], axis=1)
        opposite = np.roll(corners, -2, axis=1) - np.roll(corners, -1, axis=1)
        return cls(faces, base * height / 2, 1j * opposite / (base * height)[:, None])

    def chosen(self, which: Int[ndarray, "some"], faces: Int[ndarray, "some 3"]) -> Triangles:
        """Some of the triangles, with other numbers for their vertices.

        Args:
            which: Their indices.
            faces: Their vertices.
        """
        return Triangles(faces, self.areas[which], self.slopes[which])

    def turns(self, plane: Complex[ndarray, "vertices"]) -> Complex[ndarray, "faces"]:
        """Factors by which triangles are turned and scaled in the plane, but for their stretch."""
        return (self.slopes.conj() * plane[self.faces]).sum(axis=1) / 2

    def stretch(self, plane: Complex[ndarray, "vertices"]) -> tuple[Float[ndarray, "faces"], Float[ndarray, "faces"]]:
        """Largest and smallest factor by which lengths change; the latter is negative in a triangle turned over."""
        turning, mirroring = np.abs(self.turns(plane)), np.abs((self.slopes * plane[self.faces]).sum(axis=1)) / 2
        return turning + mirroring, turning - mirroring

    def folded_and_uneven(self, plane: Complex[ndarray, "vertices"]) -> tuple[float, float]:
        """Share of the area in triangles that are turned over in the plane, and of that where lengths differ much."""
        longest, shortest = self.stretch(plane)
        scale = np.sqrt(longest * shortest.clip(1e-6))
        uneven = (longest > _MOST_STRETCH * shortest) | (scale < _LEAST_SCALE) | (scale > _MOST_SCALE)
        whole = self.areas.sum()
        return float(self.areas[shortest <= 0].sum() / whole), float(self.areas[uneven].sum() / whole)


def flattened(
    vertices: Float[ndarray, "vertices 3"], triangles: Triangles, most_uneven: float
) -> Complex[ndarray, "vertices"] | None:
    """Places in the plane, metres; None where triangles would be turned over or lengths differ too much.

    Args:
        vertices: Metres.
        triangles: A connected piece of a surface.
        most_uneven: Share of the area where lengths in the plane may be others than on the surface.
    """
    faces, areas, slopes = triangles.faces, triangles.areas, triangles.slopes
    count = len(vertices)
    start = int(np.linalg.norm(vertices - vertices.mean(axis=0), axis=1).argmax())
    distances = np.linalg.norm(vertices - vertices[start], axis=1)
    end = int(distances.argmax())
    energies = _energies(triangles, count)
    springs = np.zeros((2, count))
    springs[0, start] = springs[1, [start, end]] = _STIFF
    # Angles are kept as well as they can be, with two vertices that are far from each other as far apart there.
    pull = np.zeros(count, complex)
    pull[end] = _STIFF * distances[end]
    plane = _factors(energies + sparse.diags_array(springs[1])).solve(pull)
    # Then triangles are only turned, and vertices are where these fit best.
    factors = _factors(energies.real + sparse.diags_array(springs[0]))
    corners, weighted = faces.reshape(-1), areas[:, None] * slopes
    for number in range(_RIGID_ROUNDS):
        if number == _HOPELESS_AFTER and triangles.folded_and_uneven(plane)[1] > _HOPELESS * most_uneven:
            return None
        turns = triangles.turns(plane)
        pull = (weighted * (turns / np.abs(turns).clip(1e-12))[:, None]).reshape(-1)
        pull = np.stack([np.bincount(corners, weights=of, minlength=count) for of in (pull.real, pull.imag)], axis=1)
        plane = factors.solve(pull) @ [1, 1j]
    folded, uneven = triangles.folded_and_uneven(plane)
    return plane if folded <= _MOST_FOLDED and uneven <= most_uneven else None


def _energies(triangles: Triangles, count: int) -> sparse.csc_array:
    """Matrix of the squared changes of angles, over the area; its real part is that of the squared derivatives.

    Args:
        triangles: A piece of a surface.
        count: Number of its vertices.
    """
    faces, slopes = triangles.faces, triangles.slopes
    places = faces.repeat(3, axis=1).reshape(-1), np.tile(faces, 3).reshape(-1)
    products = triangles.areas[:, None, None] * slopes.conj()[:, :, None] * slopes[:, None, :]
    matrix = sparse.coo_array((products.reshape(-1), places), shape=(count, count)).tocsc()
    return matrix + sparse.diags_array(_ROUNDING * matrix.diagonal().real)


def _factors(matrix: sparse.csc_array) -> SuperLU:
    """Factors of a positive definite matrix.

    They are sparse for speed's sake: factors of bands are made by OpenBLAS, which wakes its threads for each small
    block, and takes thirty times as long where other work has the processors.
    """
    return splu(sparse.csc_array(matrix), "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})


def crosses_itself(
    vertices: Float[ndarray, "vertices 3"],
    plane: Complex[ndarray, "vertices"],
    begin: Int[ndarray, "border"],
    end: Int[ndarray, "border"],
) -> bool:
    """Tell whether two edges of a border cross in the plane that are not next to each other on the surface anyway.

    Args:
        vertices: Metres.
        plane: Where they are in the plane.
        begin: Vertices where the border's edges begin.
        end: Vertices where they end.
    """
    middles, along = (plane[begin] + plane[end]) / 2, plane[end] - plane[begin]
    # The middles of edges that cross are at most half of both lengths apart.
    tree = KDTree(np.stack([middles.real, middles.imag], axis=1))
    i, j = tree.query_pairs(np.abs(along).max(initial=0.0), output_type="ndarray").T
    touching = _TOUCHING * np.linalg.norm(vertices[end] - vertices[begin], axis=1).mean()
    far = np.linalg.norm(vertices[begin[i]] - vertices[begin[j]], axis=1) > touching
    i, j = i[far], j[far]

    def separated(i: Int[ndarray, "pairs"], j: Int[ndarray, "pairs"]) -> Bool[ndarray, "pairs"]:
        """Pairs where the line through one edge has the ends of the other on its two sides."""
        sides = [(along[i].conj() * (plane[of[j]] - plane[begin[i]])).imag for of in (begin, end)]
        return sides[0] * sides[1] < 0

    return bool((separated(i, j) & separated(j, i)).any())
