"""SMPL poses out of the formats that people keep them in."""

import pickle

import numpy as np
import pytest

from instantavatar_ns.errors import InputError
from instantavatar_ns.motion.readers import read_pose_file
from tests.motion.bvh_files import forward

RANDOM = np.random.default_rng(0)
POSES = RANDOM.normal(size=(5, 72))
TRANSL = RANDOM.normal(size=(5, 3))


@pytest.mark.parametrize(
    "arrays",
    [
        {"poses": POSES, "trans": TRANSL},
        {"poses": POSES, "transl": TRANSL, "betas": np.zeros(10)},
        {"thetas": POSES, "transl": TRANSL, "betas": np.zeros((1, 10))},
        {"thetas": POSES.reshape(5, 24, 3), "transl": TRANSL},
        {"global_orient": POSES[:, :3], "body_pose": POSES[:, 3:], "transl": TRANSL},
        {"global_orient": POSES[:, None, :3], "body_pose": POSES[:, 3:].reshape(5, 23, 3), "transl": TRANSL},
    ],
    ids=["aist", "truth", "thetas", "thetas by joint", "parts", "parts by joint"],
)
def test_npz_formats(tmp_path, arrays):
    np.savez(tmp_path / "m.npz", **arrays)
    file = read_pose_file(tmp_path / "m.npz")
    np.testing.assert_allclose(np.concatenate([file.global_orient, file.body_pose], 1), POSES, rtol=1e-6)
    np.testing.assert_allclose(file.transl, TRANSL, rtol=1e-6)
    assert file.fps is None and file.up is None
    assert {array.dtype for array in (file.global_orient, file.body_pose, file.transl, file.betas)} == {
        np.dtype(np.float32)
    }


def test_poses_without_translation_stay_in_place(tmp_path):
    np.savez(tmp_path / "m.npz", poses=POSES)
    np.testing.assert_array_equal(read_pose_file(tmp_path / "m.npz").transl, np.zeros((5, 3)))


def test_amass(tmp_path):
    poses = RANDOM.normal(size=(5, 156))
    gender = np.array("female", dtype=object)
    np.savez(tmp_path / "m.npz", poses=poses, trans=TRANSL, mocap_framerate=120.0, betas=np.ones(16), gender=gender)
    file = read_pose_file(tmp_path / "m.npz")
    assert (file.fps, file.up) == (120.0, (0.0, 0.0, 1.0))
    np.testing.assert_allclose(file.body_pose[:, :63], poses[:, 3:66], rtol=1e-6)
    # SMPL-H's numbers 66 and up are finger joints; SMPL's are the two hands.
    np.testing.assert_array_equal(file.body_pose[:, 63:], 0)
    np.testing.assert_array_equal(file.betas, np.ones(10))


def test_aist_pickle(tmp_path):
    content = {"smpl_poses": POSES, "smpl_trans": TRANSL * 93.7, "smpl_scaling": np.array([93.7]), "smpl_loss": 0.1}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(content, 2))
    file = read_pose_file(tmp_path / "m.pkl")
    assert (file.fps, file.up) == (60.0, (0.0, 1.0, 0.0))
    np.testing.assert_allclose(file.transl, TRANSL, rtol=1e-5)


def test_betas_of_each_frame_are_averaged(tmp_path):
    np.savez(tmp_path / "m.npz", thetas=POSES, transl=TRANSL, betas=np.arange(5.0)[:, None] * np.ones((1, 8)))
    np.testing.assert_allclose(read_pose_file(tmp_path / "m.npz").betas, [2.0] * 8 + [0.0] * 2)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"poses": np.zeros((5, 165)), "trans": TRANSL}, "55 joints, SMPL-X. without the frame rate of an AMASS file"),
        ({"poses": np.zeros((5, 165)), "surface_model_type": "smplx"}, "add mocap_frame_rate"),
        ({"poses": np.zeros((5, 66)), "trans": TRANSL}, "found 66"),
        ({"poses": np.zeros((0, 72)), "trans": np.zeros((0, 3))}, "at least one pose"),
        ({"poses": np.where(np.arange(5)[:, None] == 3, np.nan, POSES), "trans": TRANSL}, "NaN .* poses of frame 3"),
        ({"poses": POSES, "trans": np.full((5, 3), np.inf)}, "translations of frame 0"),
        ({"poses": POSES, "trans": TRANSL[:4]}, r"translations of shape \(5, 3\), found \(4, 3\)"),
        ({"global_orient": POSES[:4, :3], "body_pose": POSES[:, 3:]}, "found 4 and 5"),
        ({"poses": POSES, "trans": TRANSL, "betas": np.full(10, np.nan)}, "finite betas"),
        ({"joints": TRANSL}, "found joints"),
        ({"poses": np.array([{}], dtype=object)}, "found objects|found nothing"),
    ],
)
def test_unusable_files(tmp_path, arrays, message):
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(InputError, match=rf"m\.npz: .*{message}"):
        read_pose_file(tmp_path / "m.npz")


def test_text_named_npz_and_missing_file(tmp_path):
    (tmp_path / "m.npz").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(InputError, match=r"m\.npz: expected SMPL poses in a NumPy .npz archive"):
        read_pose_file(tmp_path / "m.npz")
    with pytest.raises(InputError, match=r"n\.npz: .* found no such file"):
        read_pose_file(tmp_path / "n.npz")


@pytest.mark.parametrize(
    ("width", "keys"),
    [
        (72, {"mocap_framerate": 60.0}),
        (156, {"mocap_framerate": 120.0}),
        (156, {"mocap_frame_rate": 120.0, "surface_model_type": "smplh"}),
        (165, {"mocap_frame_rate": 100.0, "surface_model_type": "smplx", "gender": "neutral", "num_betas": 16}),
    ],
    ids=["SMPL", "SMPL-H", "SMPL-H, newer keys", "SMPL-X"],
)
def test_amass_poses_the_skeleton(tmp_path, width, keys):
    """Root and body joints stand as in the file; the rest of it is fingers and face."""
    poses = np.concatenate([POSES[:, :66], RANDOM.normal(size=(5, width - 66))], axis=1)
    np.savez(tmp_path / "m.npz", poses=poses, trans=TRANSL, betas=np.zeros(16), **keys)
    file = read_pose_file(tmp_path / "m.npz")
    assert file.up == (0.0, 0.0, 1.0) and file.fps in keys.values()
    read = np.concatenate([file.global_orient, file.body_pose], axis=1)
    truth = np.concatenate([poses[:, :66], np.zeros((5, 6))], axis=1)
    turns, places = forward(read, file.transl)
    true_turns, true_places = forward(truth, TRANSL)
    if width == 72:  # SMPL's own hands are joints of SMPL's body
        np.testing.assert_allclose(file.body_pose, poses[:, 3:], rtol=1e-6)
    np.testing.assert_allclose(places[:, :22], true_places[:, :22], atol=1e-4)
    np.testing.assert_allclose(turns[:, :22], true_turns[:, :22], atol=1e-4)


def test_aist_npz(tmp_path):
    np.savez(tmp_path / "m.npz", smpl_poses=POSES, smpl_trans=TRANSL * 90.0, smpl_scaling=np.array([90.0]))
    file = read_pose_file(tmp_path / "m.npz")
    assert (file.fps, file.up) == (60.0, (0.0, 1.0, 0.0))
    np.testing.assert_allclose(file.transl, TRANSL, rtol=1e-5)
