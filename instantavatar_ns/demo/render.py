"""Ray casting of one skinned person before a plain background, with embree (the `embreex` package).

Camera: pinhole at the origin, OpenCV axes, the center of the top-left pixel at (0, 0). Each pixel is the mean of a
regular grid of samples, so that an image is exactly `alpha * person + (1 - alpha) * background`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Float, Int
from numpy import ndarray

BACKGROUND = np.array([0.545, 0.565, 0.600])

# Towards the light, axes of the camera that stands still: from above, a little to the left, well in front.
LIGHT = np.array([-0.42, -0.62, -0.66]) / np.linalg.norm([-0.42, -0.62, -0.66])
_AMBIENT, _DIFFUSE = 0.60, 0.52
_EVEN = 0.92  # of light from all sides: what the one light gives to the still camera's pictures on the average

Albedo = Callable[[Int[ndarray, " hits"], Float[ndarray, "hits 3"]], Float[ndarray, "hits 3"]]


def render_frame(
    vertices: Float[ndarray, "vertices 3"],
    faces: Int[ndarray, "faces 3"],
    normals: Float[ndarray, "vertices 3"],
    *,
    intrinsics: Float[ndarray, "3 3"],
    size: int,
    samples: int,
    albedo: Albedo,
    light: Float[ndarray, "3"] | None = LIGHT,
) -> tuple[Float[ndarray, "size size 3"], Float[ndarray, "size size"]]:
    """Render a mesh.

    Args:
        vertices: Positions in the camera's axes, metres.
        faces: Triangles.
        normals: Outward unit normals at the vertices.
        intrinsics: Camera matrix, pixels.
        size: Height and width, pixels.
        samples: Samples a pixel along each axis.
        albedo: Colours in [0, 1] for the hit faces and the barycentric coordinates of the hits in them.
        light: Direction towards the light, in the camera's axes; None for light that comes from all sides.

    Returns:
        Colours in [0, 1] before `BACKGROUND`, and coverage in [0, 1].
    """
    image = np.tile(BACKGROUND, (size, size, 1))
    alpha = np.zeros((size, size))
    rows, columns = _covered_pixels(vertices, intrinsics, size)
    directions = _sample_directions(rows, columns, intrinsics, samples)
    scene = EmbreeScene()
    TriangleMesh(scene, vertices.astype(np.float32), faces.astype(np.int32))
    hits = scene.run(np.zeros_like(directions), directions, output=1)
    hit = hits["primID"] >= 0
    face, u, v = hits["primID"][hit], hits["u"][hit], hits["v"][hit]
    barycentric = np.stack([1.0 - u - v, u, v], axis=-1)
    colors = np.tile(BACKGROUND, (len(hit), 1))
    colors[hit] = albedo(face, barycentric) * _shade(interpolate(normals, faces, face, barycentric), light)[:, None]
    grid = (len(rows), len(columns), samples * samples)
    window = np.ix_(rows, columns)
    image[window] = np.clip(colors, 0.0, 1.0).reshape(*grid, 3).mean(axis=2)
    alpha[window] = hit.reshape(grid).mean(axis=2)
    return image, alpha


def interpolate(
    values: Float[ndarray, "vertices channels"],
    faces: Int[ndarray, "faces 3"],
    face: Int[ndarray, " hits"],
    barycentric: Float[ndarray, "hits 3"],
) -> Float[ndarray, "hits channels"]:
    """Values at points of the surface, linear in each triangle.

    Args:
        values: At the vertices.
        faces: Triangles.
        face: Triangle of each point.
        barycentric: Place of each point in it.
    """
    corners = faces[face]
    out = values[corners[:, 0]] * barycentric[:, :1]
    out += values[corners[:, 1]] * barycentric[:, 1:2]
    out += values[corners[:, 2]] * barycentric[:, 2:]
    return out


def camera_intrinsics(size: int) -> Float[ndarray, "3 3"]:
    """A camera matrix with the field of view of PeopleSnapshot's videos (23 degrees)."""
    focal = 2.46 * size
    center = (size - 1) / 2.0
    return np.array([[focal, 0.0, center], [0.0, focal, center], [0.0, 0.0, 1.0]])


def _covered_pixels(
    vertices: Float[ndarray, "vertices 3"], intrinsics: Float[ndarray, "3 3"], size: int
) -> tuple[Int[ndarray, " rows"], Int[ndarray, " columns"]]:
    """Rows and columns of the mesh's bounding box in the image."""
    projected = vertices @ intrinsics.T
    pixels = projected[:, :2] / projected[:, 2:]
    low = np.clip(np.floor(pixels.min(axis=0) + 0.5).astype(int), 0, size)
    high = np.clip(np.ceil(pixels.max(axis=0) + 0.5).astype(int), 0, size)
    return np.arange(low[1], high[1]), np.arange(low[0], high[0])


def _sample_directions(
    rows: Int[ndarray, " rows"], columns: Int[ndarray, " columns"], intrinsics: Float[ndarray, "3 3"], samples: int
) -> Float[ndarray, "rays 3"]:
    """Ray directions of all samples, ordered by row, column, sample."""
    inside = (np.arange(samples) + 0.5) / samples - 0.5  # a pixel reaches half its edge to all sides of its center
    y = rows[:, None, None, None] + inside[:, None]
    x = columns[:, None, None] + inside
    y, x = np.broadcast_arrays(y, x)
    pixels = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=-1)
    return np.ascontiguousarray(pixels @ np.linalg.inv(intrinsics).T, dtype=np.float32)


def _shade(normals: Float[ndarray, "hits 3"], light: Float[ndarray, "3"] | None) -> Float[ndarray, " hits"]:
    """Brightness under the one light, wrapped a little round the terminator as light in a room is, or under none."""
    if light is None:
        return np.full(len(normals), _EVEN)
    lengths = np.linalg.norm(normals, axis=-1)
    cosine = normals @ light / np.maximum(lengths, 1e-9)
    return _AMBIENT + _DIFFUSE * np.clip((cosine + 0.25) / 1.25, 0.0, None)
