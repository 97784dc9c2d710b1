"""Linear blend skinning, vertex by vertex, beside which exported meshes are held."""

from __future__ import annotations

import numpy as np

from instantavatar_ns.export.gltf import SkinnedMesh


def skin(mesh: SkinnedMesh, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and unit normals of a pose by linear blend skinning.

    Args:
        mesh: The mesh.
        matrices: One frame of `skinning_matrices`.
    """
    blended = np.einsum("vk,vkrc->vrc", mesh.weights.astype(np.float64), matrices[mesh.joints][..., :3, :])
    vertices = np.einsum("vrc,vc->vr", blended[..., :3], mesh.positions) + blended[..., 3]
    # A plane's normal goes with the inverse transposed, which for a blend of rotations is hardly the blend itself.
    normals = np.linalg.solve(blended[..., :3].transpose(0, 2, 1), mesh.normals.astype(np.float64)[..., None])[..., 0]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
    return vertices.astype(np.float32), normals.astype(np.float32)
