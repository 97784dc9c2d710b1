"""The free body as an exported avatar, with which formats with a skeleton are tested without training.

What a machine may lack is imported in the fixtures: tests can be skipped, this file cannot.
"""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def rigged(small_avatar):
    """The free body, bound in its A-pose, with a texture of noise (`RiggedAvatar`)."""
    import trimesh

    from instantavatar_ns.body.canonical import canonical_vertices
    from instantavatar_ns.export.gltf import SkinnedMesh
    from instantavatar_ns.export.mesh_files import png_bytes
    from instantavatar_ns.export.rigged import RiggedAvatar
    from instantavatar_ns.export.skeleton import make_skeleton, strongest_bones
    from tests.avatars import BETAS

    body = small_avatar.body
    vertices, faces = canonical_vertices(body, BETAS).numpy(), body.faces.numpy()
    normals = trimesh.Trimesh(vertices, faces, process=False).vertex_normals.astype(np.float32)
    uv = np.random.default_rng(0).random((len(vertices), 2), np.float32)
    mesh = SkinnedMesh(vertices, normals, uv, *strongest_bones(body.skinning_weights.numpy()), faces)
    texture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    return RiggedAvatar(mesh, png_bytes(texture), make_skeleton(body, BETAS), body.rig.joint_names)


@pytest.fixture(scope="session")
def walk():
    """A second of the motion `walk`, in its own world."""
    from instantavatar_ns.motion.motion import load_motion

    return load_motion(Path("walk")).rows(slice(0, 30))
