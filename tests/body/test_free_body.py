"""The free body: topology, skinning, T-pose, joints and shape space of the file shipped with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from instantavatar_ns.body.files import FREE_BODY, load_body_model
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.smpl import JOINT_NAMES

HELD_OUT = Path(__file__).with_name("free_body_held_out.npz")
SMPL_PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
MIRROR = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body_model("free")


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(FREE_BODY, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def mesh(arrays: dict[str, np.ndarray]) -> trimesh.Trimesh:
    return trimesh.Trimesh(arrays["v_template"], arrays["f"], process=False)


def mirrored_joints() -> list[int]:
    swap = {"left": "right", "right": "left"}
    return [JOINT_NAMES.index("_".join(swap.get(word, word) for word in name.split("_"))) for name in JOINT_NAMES]


def posed(body: BodyModel, betas: torch.Tensor | None = None, **rotations: tuple[float, float, float]) -> np.ndarray:
    pose = torch.zeros(24, 3)
    for name, rotation in rotations.items():
        pose[JOINT_NAMES.index(name)] = torch.tensor(rotation)
    betas = torch.zeros(10) if betas is None else betas
    return body.vertices(betas, pose[:1], pose[1:].reshape(1, 69), torch.zeros(1, 3))[0].numpy()


def test_file_is_small_and_carries_its_licence() -> None:
    assert FREE_BODY.stat().st_size < 2_000_000
    assert "CC0 1.0" in FREE_BODY.with_name("FREE_BODY_LICENSE.md").read_text()


def test_has_smpl_format(arrays: dict[str, np.ndarray], body: BodyModel) -> None:
    num_vertices = len(arrays["v_template"])
    assert 6500 <= num_vertices <= 7500
    assert arrays["shapedirs"].shape == (num_vertices, 3, 10)
    assert arrays["kintree_table"][0].tolist() == SMPL_PARENTS
    assert body.parents.tolist() == SMPL_PARENTS
    np.testing.assert_allclose(arrays["J"], arrays["J_regressor"] @ arrays["v_template"], atol=1e-5)


def test_skin_is_one_closed_surface_facing_outwards(mesh: trimesh.Trimesh) -> None:
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.body_count == 1
    assert mesh.euler_number == 2
    assert 0.05 < mesh.volume < 0.09  # cubic metres: an adult of 50 to 90 kg
    assert mesh.area_faces.min() > 1e-8
    assert len(np.unique(mesh.faces)) == len(mesh.vertices)


def test_weights_are_convex(arrays: dict[str, np.ndarray]) -> None:
    weights = arrays["weights"]
    assert weights.min() >= 0
    np.testing.assert_array_equal(weights.sum(1), 1)
    # Every bone moves some of the skin; limbs, head and their ends move some of it alone.
    alone = {JOINT_NAMES[joint] for joint in np.flatnonzero(weights.max(0) == 1)}
    ends = {
        f"{side}_{part}" for side in ("left", "right") for part in "hip knee ankle foot shoulder elbow hand".split()
    }
    assert alone >= ends | {"head"}
    assert (weights.max(0) > 0.3).all()


def test_left_and_right_mirror_each_other(arrays: dict[str, np.ndarray]) -> None:
    mirror, joints = arrays["mirror"], mirrored_joints()
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    np.testing.assert_allclose(arrays["v_template"][mirror], MIRROR * arrays["v_template"], atol=1e-5)
    np.testing.assert_allclose(arrays["shapedirs"][mirror], MIRROR[:, None] * arrays["shapedirs"], atol=1e-4)
    np.testing.assert_allclose(arrays["weights"][mirror][:, joints], arrays["weights"], atol=1e-3)
    np.testing.assert_allclose(arrays["J"][joints], MIRROR * arrays["J"], atol=1e-5)
    np.testing.assert_array_equal(arrays["parts"][mirror], arrays["parts"])
    flipped = np.sort(mirror[arrays["f"]], axis=1)
    faces = np.sort(arrays["f"], axis=1)
    assert {*map(tuple, flipped)} == {*map(tuple, faces)}


def test_stands_in_a_t_pose_at_the_pelvis(body: BodyModel) -> None:
    for betas in torch.cat([torch.zeros(1, 10), 2 * torch.eye(10), -2 * torch.eye(10)]):
        vertices, joints = (tensor.numpy() for tensor in body.rest(betas))
        at = dict(zip(JOINT_NAMES, joints, strict=True))
        assert np.linalg.norm(at["pelvis"]) < 0.01
        for side, outwards in (("left", 1), ("right", -1)):
            chain = [at[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist", "hand")]
            for bone in np.diff(chain, axis=0):
                cosine = outwards * bone[0] / np.linalg.norm(bone)
                assert cosine > np.cos(np.radians(3))
            leg = np.diff([at[f"{side}_{name}"] for name in ("hip", "knee", "ankle")], axis=0)
            assert (-leg[:, 1] / np.linalg.norm(leg, axis=1) > np.cos(np.radians(6))).all()
            assert at[f"{side}_foot"][2] > at[f"{side}_ankle"][2] + 0.1  # facing +z
        assert at["head"][1] > at["neck"][1] > at["spine3"][1] > at["spine2"][1] > at["spine1"][1] > 0
        assert at["left_hip"][1] < 0
        # Both soles rest on level ground: the lowest points of heel and toes differ by less than 3 cm.
        foot = vertices[(vertices[:, 0] > 0) & (vertices[:, 1] < at["left_ankle"][1])]
        heel, toes = foot[foot[:, 2] < at["left_ankle"][2]], foot[foot[:, 2] > at["left_foot"][2]]
        assert abs(heel[:, 1].min() - toes[:, 1].min()) < 0.03


def test_joints_lie_inside_the_body(arrays: dict[str, np.ndarray], mesh: trimesh.Trimesh) -> None:
    assert mesh.contains(arrays["J"]).all()


def test_joint_regressor_follows_unseen_shapes(arrays: dict[str, np.ndarray]) -> None:
    regressor = arrays["J_regressor"]
    np.testing.assert_allclose(regressor.sum(1), 1, atol=1e-5)
    with np.load(HELD_OUT) as held_out:
        support, joints = held_out["support"], held_out["joints"]
        vertices = arrays["v_template"][support] + held_out["offsets_tenth_mm"] * 1e-4
    assert not np.delete(regressor, support, axis=1).any()
    error = np.linalg.norm(regressor[:, support] @ vertices - joints, axis=-1)
    assert len(joints) >= 30
    assert error.mean() < 0.005
    assert error.max() < 0.015


def test_betas_span_adult_shapes(body: BodyModel) -> None:
    def height(vertices: torch.Tensor) -> float:
        return float(vertices[:, 1].max() - vertices[:, 1].min())

    mean = body.rest(torch.zeros(10))[0]
    assert height(mean) == pytest.approx(1.7, abs=0.05)
    first = torch.eye(10)[0]
    assert 1.4 < height(body.rest(-2 * first)[0]) < 1.6
    assert 1.8 < height(body.rest(2 * first)[0]) < 2.0
    movement = [float((body.rest(unit)[0] - mean).norm(dim=-1).square().mean().sqrt()) for unit in torch.eye(10)]
    assert movement == sorted(movement, reverse=True)
    assert movement[-1] > 2e-4
    # Bodies of random betas keep every face's orientation.
    faces = body.faces.numpy()
    reference = trimesh.Trimesh(mean.numpy(), faces, process=False).face_normals
    for betas in torch.randn(8, 10, generator=torch.Generator().manual_seed(0)):
        shaped = trimesh.Trimesh(body.rest(betas)[0].numpy(), faces, process=False)
        assert ((shaped.face_normals * reference).sum(1) < 0).mean() < 1e-3
        assert 0.03 < shaped.volume < 0.13


@pytest.mark.parametrize(
    "rotations",
    [
        {"left_shoulder": (0, 0, -1.3), "right_shoulder": (0, 0, 1.3)},
        {"left_shoulder": (0, 0, 1.0), "left_collar": (0, 0, 0.3), "right_elbow": (0, 2.0, 0)},
        {"left_hip": (-1.6, 0, 0), "left_knee": (1.8, 0, 0), "right_hip": (0.4, 0, -0.5)},
        {"spine1": (0.4, 0.3, 0), "spine2": (0.3, 0.3, 0), "spine3": (0.2, 0.3, 0), "neck": (0.3, 0.5, 0)},
    ],
    ids=["arms down", "arm up, elbow bent", "knee up", "bend and twist"],
)
def test_skin_does_not_tear_in_strong_poses(
    body: BodyModel, mesh: trimesh.Trimesh, rotations: dict[str, tuple[float, float, float]]
) -> None:
    vertices = posed(body, **rotations)
    edges = mesh.edges_unique
    before = np.linalg.norm(np.diff(mesh.vertices[edges], axis=1)[:, 0], axis=1)
    after = np.linalg.norm(np.diff(vertices[edges], axis=1)[:, 0], axis=1)
    stretch = (after - before)[before > 0.002] / before[before > 0.002]
    assert np.quantile(stretch, 0.999) < 2.0
    assert (after - before).max() < 0.05
    assert trimesh.Trimesh(vertices, mesh.faces, process=False).volume == pytest.approx(mesh.volume, rel=0.1)


def test_parts_are_where_their_names_say(arrays: dict[str, np.ndarray]) -> None:
    names = arrays["part_names"].tolist()
    vertices, joints = arrays["v_template"], dict(zip(JOINT_NAMES, arrays["J"], strict=True))
    of = {name: vertices[arrays["parts"] == i] for i, name in enumerate(names)}
    assert [name for name, points in of.items() if not len(points)] == ["skin"]
    assert of["lips"][:, 1].max() < of["eyes"][:, 1].min() < of["eyebrows"][:, 1].max() < of["scalp"][:, 1].max()
    assert of["scalp"][:, 1].max() == vertices[:, 1].max()
    assert of["feet"][:, 1].min() == vertices[:, 1].min()
    assert np.abs(of["hands"][:, 0]).min() > joints["left_wrist"][0] - 0.05
    assert of["lower_legs"][:, 1].max() < joints["left_knee"][1] + 0.08
    assert np.abs(of["ears"][:, 0]).min() > np.abs(of["eyes"][:, 0]).max()
