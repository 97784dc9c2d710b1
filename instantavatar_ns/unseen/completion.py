"""Values on a body's vertices, carried on from where they are known: by symmetry, then smoothly over the surface."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import KDTree
from torch import Tensor, nn

_MIRROR_TOLERANCE = 0.03  # metres from a mirrored vertex to one of the body: a body that stands askew has none
_SHORTEST_EDGE = 1e-3  # metres
_SMOOTHING_STEPS = 8
# Of the conductance of an edge across a limb, what one along it has: enough to take values from along the limb where
# nothing around it is known. Edges at a slant lead along it too: the power keeps values from going zigzag.
_LEAST_ALONG, _SLANT_POWER = 0.01, 4
_ROW = 3  # vertices that make a row, not a lone peak: one and its two neighbours


class Completion(nn.Module):
    """Harmonic completion on a body's surface (the discrete Laplace equation with known values as its boundary).

    A vertex that is not known takes the value of its mirror image, left for right, where that one is. The rest solve
    the Laplace equation: the shirt's back continues the shirt's sides. Garments end across limbs and trunk, so that
    values spread around these far better than along them. Parts without any known vertex take the nearest.
    All is linear, so it is solved once and applied as a matrix.

    Args:
        vertices: Canonical body, metres; its plane of symmetry is x = constant.
        faces: Of the mesh.
        known: Vertices whose values are known.
        mirrored: Take the values of mirror images.
        lengthwise: Along which directions limbs run, see `limbs.lengthwise`; without it, all directions are alike.
    """

    source: Int[Tensor, "vertices"]
    unknown: Int[Tensor, "unknown"]
    boundary: Int[Tensor, "boundary"]
    weights: Float[Tensor, "unknown boundary"]
    edges: Int[Tensor, "2 edges"]
    shares: Float[Tensor, "edges"]
    ring: Int[Tensor, "vertices around"]

    def __init__(
        self,
        vertices: Float[Tensor, "vertices 3"],
        faces: Int[Tensor, "faces 3"],
        known: Bool[Tensor, "vertices"],
        *,
        mirrored: bool = True,
        lengthwise: Float[Tensor, "vertices 3 3"] | None = None,
    ) -> None:
        super().__init__()
        points, given = vertices.cpu().double().numpy(), known.cpu().numpy()
        source = _sources(points, given, mirrored)
        known_now = given[source]
        along = None if lengthwise is None else lengthwise.cpu().double().numpy()
        conductance = _conductance(points, faces.cpu().numpy(), along)
        unknown, boundary, weights = _harmonic_weights(points, conductance, known_now)
        degrees = np.maximum(np.asarray(conductance.sum(axis=1))[:, 0], 1e-9)
        average = sparse.coo_matrix(sparse.diags(1 / degrees) @ conductance)
        buffers = {
            "source": torch.from_numpy(source),
            "unknown": torch.from_numpy(unknown),
            "boundary": torch.from_numpy(source[boundary]),
            "weights": torch.from_numpy(weights).float(),
            "edges": torch.from_numpy(np.stack([average.row, average.col]).astype(np.int64)),
            "shares": torch.from_numpy(average.data).float(),
            "ring": torch.from_numpy(_rings(conductance)),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.to(vertices.device), persistent=False)

    def forward(self, values: Float[Tensor, "vertices channels"]) -> Float[Tensor, "vertices channels"]:
        """Known values where they are known, and what follows from them elsewhere."""
        completed = values[self.source]
        if len(self.unknown) and len(self.boundary):
            completed[self.unknown] = self.weights @ values[self.boundary]
        return completed

    def without_peaks(self, values: Float[Tensor, "vertices channels"]) -> Float[Tensor, "vertices channels"]:
        """Lower each value to what two of its neighbours reach, or one of them and it: peaks of one or two vertices go.

        Rows of vertices, such as cuffs, stay, and nothing is raised.
        """
        around = values[self.ring.clamp(min=0)].masked_fill((self.ring < 0)[..., None], -torch.inf)
        reached = around.topk(min(_ROW, around.shape[1]), dim=1).values[:, -1]
        return torch.where(reached.isfinite(), values.minimum(reached), values)

    def smooth(self, values: Float[Tensor, "vertices channels"]) -> Float[Tensor, "vertices channels"]:
        """Average with neighbours, a few times."""
        for _ in range(_SMOOTHING_STEPS):
            beside = values[self.edges[1]] * self.shares[:, None]
            values = torch.zeros_like(values).index_add_(0, self.edges[0], beside)
        return values


def _sources(points: np.ndarray, known: np.ndarray, mirrored: bool) -> np.ndarray:
    """Of each vertex the one whose value it takes: itself, or its mirror image where only that is known."""
    source = np.arange(len(points))
    if not mirrored:
        return source
    middle = points[:, 0].mean()
    distance, image = KDTree(points).query(points * [-1, 1, 1] + [2 * middle, 0, 0])
    image = np.asarray(image)
    take = ~known & known[image] & (distance < _MIRROR_TOLERANCE)
    source[take] = image[take]
    return source


def _conductance(points: np.ndarray, faces: np.ndarray, lengthwise: np.ndarray | None) -> sparse.csr_matrix:
    """Inverse length of each edge, 1/metres, less of it for edges that run along a limb; symmetric."""
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0)
    offsets = points[edges[:, 0]] - points[edges[:, 1]]
    lengths = np.maximum(np.linalg.norm(offsets, axis=1), _SHORTEST_EDGE)
    values = 1 / lengths
    if lengthwise is not None:
        directions = offsets / lengths[:, None]
        along = np.einsum("er,erc,ec->e", directions, lengthwise[edges].mean(axis=1), directions)
        values *= _LEAST_ALONG + (1 - _LEAST_ALONG) * (1 - along.clip(0, 1)) ** _SLANT_POWER
    half = sparse.coo_matrix((values, (edges[:, 0], edges[:, 1])), shape=(len(points), len(points)))
    return sparse.csr_matrix(half + half.T)


def _rings(conductance: sparse.csr_matrix) -> np.ndarray:
    """Each vertex and its neighbours, [vertices, most neighbours + 1]; -1 where there are fewer."""
    degrees = np.diff(conductance.indptr)
    ring = np.full((len(degrees), degrees.max(initial=0) + 1), -1, np.int64)
    ring[:, 0] = np.arange(len(degrees))
    row = np.repeat(np.arange(len(degrees)), degrees)
    ring[row, 1 + np.arange(len(row)) - conductance.indptr[row]] = conductance.indices
    return ring


def _harmonic_weights(
    points: np.ndarray, conductance: sparse.csr_matrix, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unknown vertices, the known ones that they depend on, and by how much."""
    unknown, given = np.flatnonzero(~known), np.flatnonzero(known)
    if not len(unknown) or not len(given):
        return unknown, np.zeros(0, np.int64), np.zeros((len(unknown), 0))
    coupling = conductance[unknown][:, given]
    beside = np.flatnonzero(np.asarray(coupling.sum(axis=0))[0] > 0)
    laplacian = sparse.csr_matrix(sparse.diags(np.asarray(conductance.sum(axis=1))[:, 0]) - conductance)
    # The little on the diagonal keeps parts without known vertices solvable; they are told by rows that sum to zero.
    inner = sparse.csc_matrix(laplacian[unknown][:, unknown] + 1e-6 * sparse.eye(len(unknown)))
    weights = splu(inner).solve(coupling[:, beside].toarray()) if len(beside) else np.zeros((len(unknown), 0))
    sums = weights.sum(axis=1, keepdims=True)
    connected = sums[:, 0] > 0.5
    weights = np.where(connected[:, None], weights / np.maximum(sums, 1e-9), 0.0)
    apart = np.flatnonzero(~connected)
    _, nearest = KDTree(points[given]).query(points[unknown[apart]])
    taken, column = np.unique(nearest, return_inverse=True)
    single = np.zeros((len(unknown), len(taken)))
    single[apart, column] = 1.0
    return unknown, np.concatenate([given[beside], given[taken]]), np.concatenate([weights, single], axis=1)
