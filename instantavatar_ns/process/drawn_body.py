"""Silhouette of a mesh before a pinhole camera, and its overlap with masks."""

from __future__ import annotations

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from instantavatar_ns.process.camera import Camera


def drawn_silhouette(
    vertices: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"], camera: Camera
) -> Bool[ndarray, "height width"]:
    """Mark the pixels whose middles show the mesh.

    Args:
        vertices: In the camera's axes (x right, y down, z ahead), metres.
        faces: Corners of the triangles.
        camera: Pinhole at the origin.
    """
    silhouette = np.zeros((camera.height, camera.width), dtype=bool)
    center = np.array(camera.center)
    pixels = vertices[:, :2] / vertices[:, 2:].clip(1e-3) * camera.focal + center
    limits = np.array([camera.width, camera.height])
    left, top = np.floor(pixels.min(axis=0)).clip(0, limits).astype(int)
    right, bottom = np.ceil(pixels.max(axis=0) + 1).clip(0, limits).astype(int)
    y, x = np.mgrid[top:bottom, left:right]
    if x.size:
        places = np.stack([x.ravel(), y.ravel()], axis=1)
        rays = np.concatenate([(places - center) / camera.focal, np.ones((x.size, 1))], axis=1).astype(np.float32)
        scene = EmbreeScene()
        TriangleMesh(scene, vertices.astype(np.float32), faces.astype(np.int32))
        silhouette[top:bottom, left:right] = (scene.run(np.zeros_like(rays), rays) >= 0).reshape(x.shape)
    return silhouette


def intersection_over_union(one: Bool[ndarray, "height width"], other: Bool[ndarray, "height width"]) -> float:
    """Overlap of two silhouettes, 0 to 1; 1 where both are empty.

    Args:
        one: True within the first silhouette.
        other: True within the second.
    """
    return float((one & other).sum() / max((one | other).sum(), 1)) if (one | other).any() else 1.0
