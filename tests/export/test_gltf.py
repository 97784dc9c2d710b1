"""The GLB of a skinned body, read back by the glTF specification."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.canonical import canonical_body_pose, canonical_transforms
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.export.gltf import SkinnedMesh, glb_bytes
from instantavatar_ns.export.mesh_files import png_bytes
from instantavatar_ns.export.skeleton import make_clip, make_skeleton, strongest_bones
from tests.export.glb import Glb

FRAMES, FPS = 5, 10.0
BETAS = torch.linspace(-1, 1, 10)


@pytest.fixture(scope="module")
def poses():
    """Large turns of all joints, past half a turn at the root."""
    generator = torch.Generator().manual_seed(3)
    body_pose = 0.5 * torch.randn(FRAMES, 69, generator=generator)
    orient = torch.linspace(0.0, 6.0, FRAMES)[:, None] * torch.tensor([[0.6, 0.8, 0.0]])
    return PoseSequence(BETAS, orient, body_pose, torch.randn(FRAMES, 3, generator=generator))


@pytest.fixture(scope="module")
def upright():
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_rotvec([1.2, 0.3, -0.4]).as_matrix()
    transform[:3, 3] = [0.1, 2.0, -3.0]
    return transform


@pytest.fixture(scope="module")
def texture():
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def glb(small_avatar, poses, upright, texture, tmp_path_factory):
    body = small_avatar.body
    joints, weights = strongest_bones(body.skinning_weights.numpy())
    vertices = _canonical(body).numpy()
    mesh = SkinnedMesh(
        vertices,
        vertices / np.linalg.norm(vertices, axis=1, keepdims=True),
        np.linspace(0, 1, 2 * len(vertices), dtype=np.float32).reshape(-1, 2),
        joints,
        weights,
        body.faces.numpy(),
    )
    skeleton = make_skeleton(body, BETAS)
    stand = PoseSequence(BETAS, poses.global_orient[:1], canonical_body_pose(small_avatar.body)[None], poses.transl[:1])
    content = glb_bytes(
        mesh,
        texture_png=png_bytes(texture),
        skeleton=skeleton,
        rest=make_clip("rest", stand, 1.0, skeleton),
        clips=[make_clip("turn", poses, FPS, skeleton)],
        dataset_to_upright=upright,
    )
    path = tmp_path_factory.mktemp("glb") / "body.glb"
    path.write_bytes(content)
    return Glb(path)


def _canonical(body):
    transforms = torch.einsum("vj,jrc->vrc", body.skinning_weights, canonical_transforms(body, BETAS)[:, :3])
    return (transforms[..., :3] @ body.rest(BETAS)[0][..., None])[..., 0] + transforms[..., 3]


def _expected(body, poses, upright, frame):
    """Linear blend skinning of the canonical body by the body model's own transforms and four bones a vertex."""
    bones = body.transforms(BETAS, poses.global_orient, poses.body_pose, poses.transl)[frame].double()
    bones = torch.from_numpy(upright) @ bones @ torch.linalg.inv(canonical_transforms(body, BETAS).double())
    weights = torch.zeros(len(body.skinning_weights), 24, dtype=torch.float64)
    joints, shares = strongest_bones(body.skinning_weights.numpy())
    weights.scatter_add_(1, torch.from_numpy(joints).long(), torch.from_numpy(shares).double())
    blended = torch.einsum("vj,jrc->vrc", weights, bones[:, :3])
    return ((blended[..., :3] @ _canonical(body).double()[..., None])[..., 0] + blended[..., 3]).numpy()


@pytest.mark.parametrize("frame", range(FRAMES))
def test_clip_skins_as_the_body_model_does(glb, small_avatar, poses, upright, frame):
    posed = glb.posed("turn", float(glb.clip_times("turn")[frame]))
    np.testing.assert_allclose(posed, _expected(small_avatar.body, poses, upright, frame), atol=1e-4)


def test_joints_turn_where_the_persons_do(small_avatar, poses):
    offsets = 0.01 * torch.randn(24, 3, generator=torch.Generator().manual_seed(4))
    person = small_avatar.body.with_joints_moved(offsets)
    skeleton = make_skeleton(person, BETAS)
    clip = make_clip("turn", poses, FPS, skeleton)
    frame = FRAMES - 1
    places = np.concatenate([clip.root[frame][None], skeleton.offsets[1:]])
    joints = []
    for joint, parent in enumerate(skeleton.parents):
        local = np.eye(4)
        local[:3, :3], local[:3, 3] = Rotation.from_quat(clip.rotations[frame, joint]).as_matrix(), places[joint]
        joints.append(joints[parent] @ local if joint else local)
    transforms = person.transforms(BETAS, poses.global_orient, poses.body_pose, poses.transl)[frame].double()
    expected = transforms @ torch.linalg.inv(canonical_transforms(person, BETAS).double())
    np.testing.assert_allclose(np.stack(joints) @ skeleton.inverse_bind, expected.numpy(), atol=1e-5)


def test_rest_pose_is_the_canonical_pose_where_the_person_stands(glb, small_avatar, poses, upright):
    root = small_avatar.body.transforms(BETAS, poses.global_orient[:1], torch.zeros(1, 69), poses.transl[:1])[0, 0]
    transform = upright @ root.double().numpy()
    expected = _canonical(small_avatar.body).double().numpy() @ transform[:3, :3].T + transform[:3, 3]
    np.testing.assert_allclose(glb.posed(), expected, atol=1e-4)


def test_weights_sum_to_one_and_name_bones(glb):
    np.testing.assert_allclose(glb.weights.sum(axis=1), 1.0, atol=1e-6)
    assert glb.joints.dtype == np.uint8 and glb.joints.max() < 24
    assert (glb.joints[glb.weights == 0] == 0).all()


def test_skeleton_texture_and_times_survive(glb, texture):
    names = [glb.json["nodes"][joint]["name"] for joint in glb.json["skins"][0]["joints"]]
    assert len(names) == 24 and names[0] == "pelvis" and names[-1] == "right_hand"
    assert (glb.texture == texture).all()
    np.testing.assert_allclose(glb.clip_times("turn"), np.arange(FRAMES) / FPS, atol=1e-6)


def test_quaternions_take_the_short_way(glb):
    """Players that interpolate the numbers themselves must not go round the other way."""
    for channel in glb.json["animations"][0]["channels"]:
        if channel["target"]["path"] == "rotation":
            values = glb.accessor(glb.json["animations"][0]["samplers"][channel["sampler"]]["output"])
            assert ((values[1:] * values[:-1]).sum(axis=1) >= 0).all()


def test_strongest_bones_keep_what_moves_a_vertex():
    weights = np.zeros((2, 24))
    weights[0, [3, 5, 7, 9, 11]] = [0.1, 0.2, 0.3, 0.35, 0.05]
    weights[1, 23] = 0.5
    joints, shares = strongest_bones(weights)
    assert joints.tolist() == [[9, 7, 5, 3], [23, 0, 0, 0]]
    np.testing.assert_allclose(shares, [np.array([0.35, 0.3, 0.2, 0.1]) / 0.95, [1, 0, 0, 0]], rtol=1e-6)
