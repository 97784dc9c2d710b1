"""SMPL poses out of the formats that people keep them in."""

import pickle

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.motion.readers import read_motion_file, read_pose_file
from instantavatar_ns.utils.errors import InputError
from tests.motion.bvh_files import forward

RANDOM = np.random.default_rng(0)
POSES = RANDOM.normal(size=(5, 72))
TRANSL = RANDOM.normal(size=(5, 3))
BETAS = RANDOM.normal(size=10)
MATRICES = Rotation.from_rotvec(POSES.reshape(-1, 3)).as_matrix().reshape(5, 24, 3, 3)
# Root and 21 body joints, with straight hands.
BODY_ONLY = np.concatenate([POSES[:, :66], np.zeros((5, 6))], axis=1)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def rotations_of(file):
    vectors = np.concatenate([file.global_orient, file.body_pose], axis=1).reshape(-1, 3)
    return Rotation.from_rotvec(vectors).as_matrix().reshape(len(file), 24, 3, 3)


@pytest.mark.parametrize(
    "arrays",
    [
        {"poses": POSES, "trans": TRANSL},
        {"poses": POSES, "transl": TRANSL, "betas": np.zeros(10)},
        {"thetas": POSES, "transl": TRANSL, "betas": np.zeros((1, 10))},
        {"thetas": POSES.reshape(5, 24, 3), "transl": TRANSL},
        {"global_orient": POSES[:, :3], "body_pose": POSES[:, 3:], "transl": TRANSL},
        {"global_orient": POSES[:, None, :3], "body_pose": POSES[:, 3:].reshape(5, 23, 3), "transl": TRANSL},
        {"poses": POSES, "transl": TRANSL[:, None]},
        {"smpl_thetas": POSES, "cam_trans": TRANSL},
        {"poses": MATRICES, "trans": TRANSL},
        {"poses": MATRICES.reshape(5, 216), "trans": TRANSL},
        {"global_orient": MATRICES[:, :1], "body_pose": MATRICES[:, 1:], "transl": TRANSL},
        {"global_orient": MATRICES[:, 0], "body_pose": MATRICES[:, 1:].reshape(5, 207), "transl": TRANSL},
        {"pred_rotmat": MATRICES, "pred_trans": TRANSL[:, None]},
    ],
    ids=[
        "aist",
        "truth",
        "thetas",
        "thetas by joint",
        "parts",
        "parts by joint",
        "translations in rows of one",
        "ROMP",
        "matrices",
        "matrices in rows",
        "matrices in parts",
        "matrices of the body in rows",
        "TRAM",
    ],
)
def test_npz_formats(tmp_path, arrays):
    path = save(tmp_path / "m.npz", **arrays)
    motion, facts = read_motion_file(path)
    for file in (motion, read_pose_file(save(path, **{"betas": BETAS, **arrays}))):
        np.testing.assert_allclose(rotations_of(file), MATRICES, atol=1e-5)
        np.testing.assert_allclose(file.transl, TRANSL, rtol=1e-6)
        assert {array.dtype for array in vars(file).values()} == {torch.float32}
    assert facts == (None, None)


@pytest.mark.parametrize(
    "arrays",
    [
        {"global_orient": POSES[:, :3], "body_pose": POSES[:, 3:66]},
        {"root_orient": POSES[:, :3], "pose_body": POSES[:, 3:66]},
        {"poses": POSES[:, :66]},
        {"poses": np.pad(POSES[:, :66], ((0, 0), (0, 90)), constant_values=0.5)},
        {"poses": np.pad(POSES[:, :66], ((0, 0), (0, 99)), constant_values=0.5)},
        {"rotmat": MATRICES[:, :22]},
        {"rotmat": np.concatenate([MATRICES[:, :22], np.zeros((5, 33, 3, 3))], axis=1)},
        {"rotmat": np.concatenate([MATRICES[:, :22], np.zeros((5, 2, 3, 3))], axis=1)},
        {"global_orient": MATRICES[:, :1], "body_pose": MATRICES[:, 1:22]},
    ],
    ids=[
        "63 numbers",
        "AMASS's parts",
        "66",
        "156",
        "165",
        "22 matrices",
        "55 with zeros for hands",
        "24 with zeros for hands",
        "21 matrices",
    ],
)
def test_bodies_without_smpls_hands(tmp_path, arrays):
    """Root and body joints are SMPL's; hands are flat, also where a file has zeros in their place."""
    path = save(tmp_path / "m.npz", trans=TRANSL, betas=BETAS, **arrays)
    for file in (read_pose_file(path), read_motion_file(path)[0]):
        expected = Rotation.from_rotvec(BODY_ONLY.reshape(-1, 3)).as_matrix().reshape(5, 24, 3, 3)
        np.testing.assert_allclose(rotations_of(file), expected, atol=1e-5)


def test_betas_of_another_body_are_told(tmp_path, capsys):
    read_pose_file(save(tmp_path / "m.npz", poses=POSES, trans=TRANSL, betas=BETAS))
    assert not capsys.readouterr().out
    read_pose_file(save(tmp_path / "m.npz", poses=POSES[:, :66], trans=TRANSL, betas=BETAS))
    assert "22 joints" in capsys.readouterr().out


def test_motion_without_translation_stays_in_place_and_says_so(tmp_path, capsys):
    path = save(tmp_path / "m.npz", poses=POSES, Th=TRANSL)
    np.testing.assert_array_equal(read_motion_file(path)[0].transl, np.zeros((5, 3)))
    said = capsys.readouterr().out
    assert f"{path}: It has no translation" in said and "Th (5, 3), poses (5, 72)" in said


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"betas": BETAS}, r"translation \(T, 3\) .* as one of transl, trans, .* found betas \(10,\), poses \(5, 72\)"),
        ({"betas": BETAS, "translation": TRANSL}, r"translation \(5, 3\)\. .* under the name transl"),
        ({"betas": BETAS, "Th": TRANSL}, "EasyMocap's Th is SMPL's transl if .* save it under the name transl"),
        ({"betas": BETAS, "Th": TRANSL, "Rh": TRANSL}, r"transl = Th \+ Rh @ pelvis - pelvis"),
        ({"trans": TRANSL}, r"ten betas as one of betas, smpl_betas, .* found poses \(5, 72\), trans \(5, 3\)"),
        ({"trans": TRANSL, "beta_values": BETAS}, r"found beta_values \(10,\), .* under the name betas"),
        ({"trans": TRANSL, "betas": 1.5}, r"betas of shape \(10,\), or \(5, 10\) with a row for each pose, found \(\)"),
        ({"trans": TRANSL, "betas": np.zeros((0, 10))}, r"numbers in betas, found an empty array \(0, 10\)"),
        ({"trans": TRANSL, "betas": np.zeros((2, 10))}, r"found \(2, 10\)"),
        ({"trans": TRANSL, "betas": np.zeros((24, 3, 3))}, r"found \(24, 3, 3\)"),
        ({"trans": TRANSL, "betas": np.full(10, np.nan)}, "finite betas"),
        ({"trans": TRANSL, "betas": BETAS, "shapes": -BETAS}, "found betas and shapes, which differ"),
        ({"trans": TRANSL, "cam_trans": -TRANSL, "betas": BETAS}, "found trans and cam_trans, which differ"),
    ],
)
def test_training_poses_need_translation_and_shape(tmp_path, arrays, message):
    path = save(tmp_path / "m.npz", poses=POSES, **arrays)
    with pytest.raises(InputError, match=rf"m\.npz: .*{message}"):
        read_pose_file(path)


@pytest.mark.parametrize("name", ["betas", "smpl_betas", "shapes", "shape", "pred_shape"])
@pytest.mark.parametrize("shape", [(10,), (1, 10), (10, 1), (1, 1, 10), (10, 1, 1)])
def test_ten_betas_in_any_shape(tmp_path, name, shape):
    path = save(tmp_path / "m.npz", poses=POSES, trans=TRANSL, **{name: BETAS.reshape(shape)})
    np.testing.assert_allclose(read_pose_file(path).betas, BETAS, rtol=1e-6)


@pytest.mark.parametrize(
    ("betas", "expected"),
    [
        (np.arange(5.0)[:, None] * np.ones((1, 8)), [2.0] * 8 + [0.0] * 2),
        (np.arange(5.0)[:, None, None] * np.ones((1, 1, 10)), [2.0] * 10),
        (np.ones(300), [1.0] * 10),
        (np.ones((16, 1)), [1.0] * 10),
    ],
    ids=["of each frame", "of each frame, in rows of one", "300", "column of 16"],
)
def test_betas_are_averaged_over_frames_and_cut_to_ten(tmp_path, betas, expected):
    path = save(tmp_path / "m.npz", thetas=POSES, transl=TRANSL, betas=betas)
    np.testing.assert_allclose(read_pose_file(path).betas, expected)


@pytest.mark.parametrize(("spread", "said"), [(0.1, 0), (2.0, 1)])
def test_betas_that_differ_are_told(tmp_path, notices_given, spread, said):
    betas = BETAS + spread * np.array([-1, 1, -1, 1, 0])[:, None]
    file = read_pose_file(save(tmp_path / "m.npz", poses=POSES, trans=TRANSL, betas=betas))
    np.testing.assert_allclose(file.betas, BETAS, rtol=1e-5)
    assert len(notices_given) == said and all("Betas differ from frame to frame" in text for text in notices_given)


def test_amass(tmp_path):
    poses = RANDOM.normal(size=(5, 156))
    gender = np.array("female", dtype=object)
    path = save(tmp_path / "m.npz", poses=poses, trans=TRANSL, mocap_framerate=120.0, betas=np.ones(16), gender=gender)
    file, facts = read_motion_file(path)
    assert (facts.fps, facts.up) == (120.0, (0.0, 0.0, 1.0))
    np.testing.assert_allclose(file.body_pose[:, :63], poses[:, 3:66], rtol=1e-6)
    # SMPL-H's numbers 66 and up are finger joints; SMPL's are the two hands.
    np.testing.assert_array_equal(file.body_pose[:, 63:], 0)
    np.testing.assert_array_equal(read_pose_file(path).betas, np.ones(10))


def test_aist_pickle(tmp_path):
    content = {"smpl_poses": POSES, "smpl_trans": TRANSL * 93.7, "smpl_scaling": np.array([93.7]), "smpl_loss": 0.1}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(content, 2))
    file, facts = read_motion_file(tmp_path / "m.pkl")
    assert (facts.fps, facts.up) == (60.0, (0.0, 1.0, 0.0))
    np.testing.assert_allclose(file.transl, TRANSL, rtol=1e-5)


def test_aist_npz(tmp_path):
    path = save(tmp_path / "m.npz", smpl_poses=POSES, smpl_trans=TRANSL * 90.0, smpl_scaling=np.array([90.0]))
    file, facts = read_motion_file(path)
    assert (facts.fps, facts.up) == (60.0, (0.0, 1.0, 0.0))
    np.testing.assert_allclose(file.transl, TRANSL, rtol=1e-5)


def test_edge_is_not_aist(tmp_path, capsys):
    content = {"smpl_poses": POSES, "smpl_trans": TRANSL, "full_pose": np.zeros((5, 24, 3))}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(content))
    _, facts = read_motion_file(tmp_path / "m.pkl")
    assert (facts.fps, facts.up) == (30.0, (0.0, 0.0, 1.0))
    assert "EDGE" in capsys.readouterr().out
    assert read_motion_file(save(tmp_path / "n.npz", smpl_poses=POSES))[1] == (None, None)


@pytest.mark.parametrize(
    "name", ["fps", "FPS", "Frame_Rate", "framerate", "frame_rate", "mocap_framerate", "mocap_frame_rate", "mocap_fps"]
)
@pytest.mark.parametrize("rate", [25, 25.0, np.array([25.0]), "25", np.array(["25.0"])], ids=repr)
def test_rate_beside_the_data(tmp_path, name, rate):
    path = save(tmp_path / "m.npz", poses=POSES, trans=TRANSL, **{name: rate})
    assert read_motion_file(path)[1].fps == 25.0
    assert read_motion_file(path, 50.0)[1].fps == 50.0


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"fps": np.nan}, "fps to be a positive number of frames per second, found nan"),
        ({"fps": 0}, "found 0"),
        ({"mocap_framerate": -30.0}, "mocap_framerate to be .*found -30"),
        ({"framerate": "fast"}, "framerate to be .*found fast"),
        ({"fps": [30.0, 25.0]}, r"found an array \(2,\)"),
        ({"fps": True}, "found True"),
        ({"fps": np.array(None, dtype=object)}, "found None"),
        ({"fps": 30.0, "frame_rate": 60.0}, "found fps and frame_rate, which differ"),
    ],
)
def test_rate_that_is_none_must_be_given(tmp_path, rates, message):
    path = save(tmp_path / "m.npz", poses=POSES, trans=TRANSL, betas=BETAS, **rates)
    with pytest.raises(InputError, match=rf"m\.npz: .*{message}"):
        read_motion_file(path)
    assert read_motion_file(path, 24.0)[1].fps == 24.0
    assert len(read_pose_file(path)) == 5, "training has no use for a rate"


def mirrored():
    matrices = MATRICES.copy()
    matrices[3, 7] = np.diag([1.0, 1.0, -1.0])
    return matrices


def zeroed(joint):
    matrices = MATRICES.copy()
    matrices[2, joint] = 0.0
    return matrices


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"poses": np.zeros((5, 144))}, r"found 6D rotations \(5, 144\)"),
        ({"poses": np.zeros((5, 24, 4))}, r"found quaternions \(5, 24, 4\)"),
        ({"poses": np.zeros((5, 2, 72))}, r"\(5, 2, 72\), as of several people\. Save those .*poses\[:, 0\]"),
        ({"poses": np.zeros((5, 2, 24, 3))}, r"\(5, 2, 24, 3\), as of several people"),
        ({"poses": np.zeros((5, 24, 6))}, r"found 6D rotations \(5, 24, 6\)"),
        (
            {"global_orient": np.zeros((5, 2, 3)), "body_pose": np.zeros((5, 2, 69))},
            r"global_orient of one person, .*\(5, 2, 3\), as of several people",
        ),
        ({"poses": np.zeros((5, 69))}, r"poses of 72 \(SMPL\), 66 .*, 156 .*, 165 .* found an array \(5, 69\)"),
        ({"poses": np.zeros((5, 63))}, r"found an array \(5, 63\)"),
        ({"poses": np.zeros((0, 72)), "trans": np.zeros((0, 3))}, r"numbers in poses, found an empty array \(0, 72\)"),
        ({"poses": np.where(np.arange(5)[:, None] == 3, np.nan, POSES)}, "NaN .* poses of frame 3"),
        ({"poses": POSES, "trans": np.full((5, 3), np.inf)}, "translations of frame 0"),
        ({"poses": POSES, "trans": TRANSL[:4]}, r"translations trans of shape \(5, 3\), .* found \(4, 3\)"),
        ({"poses": POSES, "trans": TRANSL[0]}, r"found \(3,\)"),
        ({"poses": POSES, "smpl_scaling": 0.0}, r"smpl_scaling to be one positive number, found \[0\.\]"),
        (
            {"poses": POSES, "trans": np.array([{}, None], dtype=object)},
            "expected numbers in trans, found objects in trans",
        ),
        ({"global_orient": POSES[:4, :3], "body_pose": POSES[:, 3:]}, "found 4 and 5"),
        ({"global_orient": POSES[:, :6], "body_pose": POSES[:, 3:]}, "6D rotations"),
        ({"body_pose": POSES[:, 3:]}, r"body_pose \(5, 69\), trans \(5, 3\), but no global_orient\."),
        ({"root_orient": POSES[:, :3]}, r"root_orient \(5, 3\), trans \(5, 3\), but no pose_body\."),
        ({"joints": TRANSL}, r"expected SMPL poses, found betas \(10,\), joints \(5, 3\)"),
        (
            {"poses": np.array([*POSES[:-1], POSES[-1, :69]], dtype=object)},
            r"found objects in poses, arrays of shape \(72,\) and \(69,\)\. Save poses as one array",
        ),
        ({"poses": np.array([{}], dtype=object)}, r"expected SMPL poses, found .*objects in poses"),
        ({"poses": POSES.astype(str)}, r"expected numbers in poses, found text \(5, 72\)"),
        ({"poses": POSES + 1j}, "found complex numbers"),
        ({"poses": POSES > 0}, "found booleans"),
        ({"poses": POSES, "trans": TRANSL.astype(str)}, "expected numbers in trans, found text"),
        ({"poses": np.degrees(POSES)}, "radians.* numpy.radians"),
        ({"poses": mirrored()}, "matrices in poses, found none in frame 3, joint 7"),
        ({"poses": zeroed(5)}, "found none in frame 2, joint 5"),
        ({"poses": MATRICES * np.nan}, "found none in frame 0, joint 0"),
        ({"poses": 2 * MATRICES}, "found none in frame 0, joint 0"),
    ],
)
def test_unusable_files(tmp_path, arrays, message):
    path = save(tmp_path / "m.npz", **{"trans": TRANSL, "betas": BETAS, **arrays})
    for read in (read_motion_file, read_pose_file):
        with pytest.raises(InputError, match=rf"m\.npz: .*{message}"):
            read(path)


def test_advice_fits_the_use(tmp_path):
    """No .bvh and no AMASS can be trained on; a motion needs no betas."""
    path = save(tmp_path / "m.npz", joints=TRANSL)
    with pytest.raises(InputError, match=r"Give an \.npz .* transl \(T, 3\), and the person's betas \(10,\)\.$"):
        read_pose_file(path)
    with pytest.raises(InputError, match=r"Give an \.npz .* transl \(T, 3\); an AMASS .*; or a \.bvh\.$"):
        read_motion_file(path)
    with pytest.raises(InputError, match=r"betas \(10,\)\.$"):
        read_pose_file(tmp_path / "none.npz")


def test_root_may_turn_many_times(tmp_path):
    """A person who spins has growing angles at the root only, which are no degrees."""
    poses = POSES.copy()
    poses[:, :3] = [0.0, 40.0, 0.0]
    path = save(tmp_path / "m.npz", poses=poses, trans=TRANSL)
    np.testing.assert_allclose(read_motion_file(path)[0].global_orient, poses[:, :3])


def test_one_pose_without_a_frame_axis(tmp_path):
    file = read_pose_file(save(tmp_path / "m.npz", poses=POSES[0], trans=TRANSL[0], betas=BETAS))
    assert len(file) == 1
    np.testing.assert_allclose(file.transl, TRANSL[:1], rtol=1e-6)


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
    file, facts = read_motion_file(save(tmp_path / "m.npz", poses=poses, trans=TRANSL, betas=np.zeros(16), **keys))
    assert facts.up == (0.0, 0.0, 1.0) and facts.fps in keys.values()
    read = np.concatenate([file.global_orient, file.body_pose], axis=1)
    turns, places = forward(read, file.transl)
    true_turns, true_places = forward(BODY_ONLY, TRANSL)
    if width == 72:  # SMPL's own hands are joints of SMPL's body
        np.testing.assert_allclose(file.body_pose, poses[:, 3:], rtol=1e-6)
    np.testing.assert_allclose(places[:, :22], true_places[:, :22], atol=1e-4)
    np.testing.assert_allclose(turns[:, :22], true_turns[:, :22], atol=1e-4)
