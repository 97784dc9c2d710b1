"""Distances of the canonical box' cells from the body's surface, negative inside, told without normals."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import ndimage
from torch import Tensor

from instantavatar_ns.deformer.voxels import VoxelBox

_POINTS_A_CELL = 3.0  # places at which a face is looked at along an edge, in each cell that the edge passes
_LEAKING = 0.5  # share of the volume within the faces under which what was found inside is not all


def signed_distance_of_cells(
    vertices: Float[Tensor, "vertices 3"], faces: Int[Tensor, "faces 3"], box: VoxelBox
) -> Float[Tensor, "cells"]:
    """Distance of cells from those that a mesh's surface passes, metres, negative inside; 0 where it passes.

    Normals of a body's vertices tell the side of what is next to them only. Fitted and decimated bodies have vertices,
    above all in soles, fingers and faces, whose normals point anywhere, and by these a point in the air below a foot is
    under its skin. Here outside is what can be reached from the rim of the box without passing the surface, whichever
    way its faces look; openings smaller than a cell do not matter. trimesh's voxels are not used, since a training
    would wait a second for its import.

    Args:
        vertices: Of the mesh, metres.
        faces: Of the mesh.
        box: Whose cells are meant; it holds the mesh.

    Returns:
        Of the cells in order, z fastest, from middle to middle; on the CPU. 0 for all where the surface has so large
        openings, or so few faces, that what is within cannot be told.
    """
    lower, upper = (corner.double().cpu().numpy() for corner in (box.lower, box.upper))
    size = (upper - lower) / np.array(box.resolution)
    triangles = vertices.double().cpu().numpy()[faces.cpu().numpy()]
    surface = np.zeros(box.resolution, dtype=bool)
    edges = np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=-1).max(axis=1)
    parts = np.ceil(_POINTS_A_CELL * edges / size.min()).astype(np.int64)
    for count in np.unique(parts):
        points = np.einsum("kc,fcd->fkd", _places_on_a_triangle(count), triangles[parts == count]).reshape(-1, 3)
        cell = ((points - lower) / size).astype(np.int64).clip(0, np.array(box.resolution) - 1)
        surface[tuple(cell.T)] = True
    filled = ndimage.binary_fill_holes(surface)
    assert filled is not None
    within = abs(np.einsum("fd,fd->f", triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2])).sum()) / 6
    found = (filled.sum() - surface.sum() / 2) * size.prod()  # half of each cell that the surface passes
    if found <= _LEAKING * within:
        return torch.zeros(surface.size)
    distance = ndimage.distance_transform_edt(~surface, sampling=size)
    assert isinstance(distance, ndarray)
    return torch.from_numpy(np.where(filled, -distance, distance).astype(np.float32).ravel())


def _places_on_a_triangle(parts: int) -> Float[ndarray, "places 3"]:
    """Barycentric coordinates of places spread evenly over a triangle whose edges are cut into some parts."""
    count = max(parts, 1)
    first, second = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
    first, second = first[first + second <= count], second[first + second <= count]
    return np.stack([first, second, count - first - second], axis=-1) / count
