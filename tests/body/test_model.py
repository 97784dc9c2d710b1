"""Bodies of SMPL's format: files, checks, skinning."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from smplx.lbs import lbs

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.smpl import JOINT_NAMES, MIRROR_IMAGES, NUM_JOINTS
from instantavatar_ns.utils.errors import InputError
from tests.body.bodies import PARENTS, random_body
from tests.body.smpl_pickle import write_smpl_pickle


@pytest.fixture
def body_path(tmp_path):
    np.savez(tmp_path / "body.npz", **random_body())
    return tmp_path / "body.npz"


def random_poses(count, seed=1):
    """betas, global_orient, body_pose, transl."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) for size in ((10,), (count, 3), (count, 69), (count, 3))]


def test_vertices_are_those_of_smplx(body_path):
    body = load_body_model(body_path)
    betas, global_orient, body_pose, transl = random_poses(3)
    expected, _ = lbs(
        betas.expand(3, -1),
        torch.cat([global_orient, body_pose], 1),
        body.smpl.v_template,
        body.smpl.shapedirs,
        body.smpl.posedirs,
        body.smpl.J_regressor,
        body.smpl.parents,
        body.smpl.lbs_weights,
    )
    torch.testing.assert_close(
        body.vertices(betas, global_orient, body_pose, transl), expected + transl[:, None], atol=1e-5, rtol=1e-5
    )


def test_transforms_turn_joint_by_joint(body_path):
    """Against a chain of rotations about each joint, written with SciPy in double precision."""
    body = load_body_model(body_path)
    betas, global_orient, body_pose, transl = random_poses(2)
    transforms = body.transforms(betas, global_orient, body_pose, transl).numpy()
    joints = body.rest(betas)[1].double().numpy()
    for frame in range(2):
        rotations = torch.cat([global_orient, body_pose], 1)[frame].double().reshape(24, 3).numpy()
        chain = []
        for joint in range(NUM_JOINTS):
            turn = np.eye(4)
            turn[:3, :3] = Rotation.from_rotvec(rotations[joint]).as_matrix()
            turn[:3, 3] = joints[joint] - turn[:3, :3] @ joints[joint]
            chain.append(chain[PARENTS[joint]] @ turn if joint else turn)
        expected = np.stack(chain)
        expected[:, :3, 3] += transl[frame].numpy()
        np.testing.assert_allclose(transforms[frame], expected, atol=2e-5)


def test_shape_moves_joints(body_path):
    body = load_body_model(body_path)
    vertices, joints = body.rest(torch.randn(10, generator=torch.Generator().manual_seed(0)))
    np.testing.assert_allclose(joints, body.smpl.J_regressor.numpy() @ vertices.numpy(), atol=1e-5)
    assert (vertices - body.rest(torch.zeros(10))[0]).abs().max() > 0.01


def test_pickle_and_archive_give_the_same_body(tmp_path, body_path):
    write_smpl_pickle(tmp_path / "body.pkl", random_body())
    from_pickle, from_archive = load_body_model(tmp_path / "body.pkl"), load_body_model(body_path)
    poses = random_poses(1)
    torch.testing.assert_close(from_pickle.vertices(*poses), from_archive.vertices(*poses), atol=1e-6, rtol=1e-6)
    assert from_pickle.parents.tolist() == PARENTS
    assert torch.equal(from_pickle.faces, from_archive.faces)


def test_body_without_pose_directions(tmp_path):
    arrays = random_body()
    del arrays["posedirs"]
    np.savez(tmp_path / "body.npz", **arrays)
    body = load_body_model(tmp_path / "body.npz")
    assert body.vertices(*random_poses(2)).shape == (2, 60, 3)


def test_loading_is_silent(body_path, capsys):
    load_body_model(body_path)
    assert capsys.readouterr().out == ""


def test_output_stays_whole_where_threads_load_bodies(body_path):
    """Two that redirect the output at the same time may leave it redirected for ever."""
    before, interval = sys.stdout, sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(load_body_model, [body_path] * 40))
    finally:
        sys.setswitchinterval(interval)
    assert sys.stdout is before


@pytest.mark.parametrize("num_joints", [52, 55])
def test_other_skeletons(tmp_path, num_joints):
    np.savez(tmp_path / "body.npz", **random_body(num_joints=num_joints))
    with pytest.raises(InputError, match=rf"body\.npz: expected a body with SMPL's 24 joints, found {num_joints}"):
        load_body_model(tmp_path / "body.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v_template": np.full((60, 3), np.nan)}, "NaN or infinity in v_template"),
        ({"f": np.full((40, 3), 60)}, "faces that index 60 vertices"),
        ({"weights": np.zeros((59, 24))}, r"weights of shape \(60, 24\)"),
        ({"shapedirs": np.zeros((60, 3, 8))}, "shapedirs of shape"),
        (
            {"kintree_table": np.array([[-1, *range(2, 25)], range(24)])},
            "found the parents -1, 2, 3, .* in kintree_table",
        ),
        ({"kintree_table": np.zeros((2, 24))}, "SMPL's kinematic tree"),
        ({"v_template": random_body()["v_template"] * 100}, "a body in metres, found vertices that extend over"),
        ({"v_template": np.zeros((60, 3))}, "extend over 0"),
        ({"J_regressor": np.array([{}], dtype=object)}, "found no J_regressor"),
        ({"J_regressor": np.zeros((24, 60))}, "J_regressor that sum to 1 for each joint, found 0 for joint 0"),
        ({"J_regressor": np.ones((60, 24)) / 24}, r"J_regressor of shape \(24, 60\), found \(60, 24\)"),
        ({"weights": np.zeros((60, 24))}, "weights that sum to 1 for each vertex, found 0 for vertex 0"),
        ({"weights": np.full((60, 24), "a")}, "weights of real numbers, found text"),
        ({"weights": np.full((60, 24), 1j)}, "weights of real numbers, found the type complex"),
        ({"kintree_table": np.array(3)}, r"kintree_table of shape \(2, 24\), found \(\)"),
        ({"kintree_table": np.arange(24)}, r"kintree_table of shape \(2, 24\), found \(24,\)"),
        ({"kintree_table": np.full((2, 24), np.nan)}, "NaN or infinity in kintree_table"),
        ({"shapedirs": np.array(1.0)}, r"shapedirs of shape \(60, 3, 10\), found \(\)"),
        ({"shapedirs": np.zeros(10)}, r"shapedirs of shape \(60, 3, 10\), found \(10,\)"),
        ({"v_template": np.array(1.0)}, r"v_template of shape \(1, 3\), found \(\)"),
        ({"v_template": np.zeros((0, 3))}, r"v_template of shape \(1, 3\), found \(0, 3\)"),
        ({"f": np.zeros((0, 3))}, r"f of shape \(1, 3\), found \(0, 3\)"),
        ({"posedirs": np.zeros((207, 180))}, r"posedirs of shape \(60, 3, 207\), found \(207, 180\)"),
    ],
)
def test_broken_bodies(tmp_path, change, message):
    np.savez(tmp_path / "body.npz", **{**random_body(), **change})
    with pytest.raises(InputError, match=message):
        load_body_model(tmp_path / "body.npz")


def test_missing_array(tmp_path):
    arrays = random_body()
    del arrays["weights"]
    np.savez(tmp_path / "body.npz", **arrays)
    with pytest.raises(InputError, match="found no weights"):
        load_body_model(tmp_path / "body.npz")


def test_missing_file_and_text_file(tmp_path):
    with pytest.raises(InputError, match="found none"):
        load_body_model(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("a pointer to a large file")
    with pytest.raises(InputError, match=r"text\.npz: expected an SMPL-format body in a NumPy .npz archive"):
        load_body_model(tmp_path / "text.npz")


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a pointer of Git LFS.*git lfs pull"),
        (b"\n<!DOCTYPE html><html><title>Login</title></html>", "a web page.*logged in"),
        (b"", "an empty file"),
    ],
    ids=["pointer", "page", "empty"],
)
def test_downloads_that_are_something_else(tmp_path, content, message, suffix):
    path = tmp_path / f"SMPL_MALE{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"SMPL_MALE{suffix}: expected a body model, found {message}"):
        load_body_model(path)
    with pytest.raises(InputError, match="expected a body model file, found a folder"):
        load_body_model(tmp_path)


def test_bodies_of_the_rendered_subjects(shared_subjects):
    for path in shared_subjects.glob("*/body/SMPL_NEUTRAL.npz"):
        body = load_body_model(path)
        vertices, joints = body.rest(torch.zeros(10))
        still = torch.zeros(1, 3)
        posed = body.vertices(torch.zeros(10), still, torch.zeros(1, 69), still)[0]
        torch.testing.assert_close(posed, vertices, atol=1e-5, rtol=0)
        assert 1.5 < vertices[:, 1].max() - vertices[:, 1].min() < 2.0
        assert joints[0].norm() < 0.02


def test_mirror_images_are_named_for_the_other_side() -> None:
    other = {"left": "right", "right": "left"}
    for name, image in zip(JOINT_NAMES, MIRROR_IMAGES, strict=True):
        assert JOINT_NAMES[image] == "_".join(other.get(part, part) for part in name.split("_"))
