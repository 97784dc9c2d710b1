"""A body that was filmed comes back: its camera, shape, poses and place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.correction.pose_error import joint_rotations, pose_error
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.data.subject import subject_of
from instantavatar_ns.process import clip_fit
from instantavatar_ns.process.clip_fit import ClipFit, fit_clip
from instantavatar_ns.process.observations import read_observations
from instantavatar_ns.utils.errors import InputError
from tests.process.small_clips import TrueClip, write_landmarks, write_turn

FRAMES, GAP, MIRRORED = 16, [5, 6], [2, 10]


class Fitted:
    """A clip with a gap, and with frames whose depth the network has mirrored, fitted without its focal length."""

    def __init__(self, folder: Path) -> None:
        self.body = load_body_model("free")
        self.clip: TrueClip = write_turn(folder, self.body, frames=FRAMES)
        landmarks = dict(np.load(folder / "process" / "landmarks.npz"))
        landmarks["world"][MIRRORED, :, 2] *= -1
        landmarks["found"][GAP] = False
        for name in ("pixels", "world"):
            landmarks[name][GAP] = 0
        write_landmarks(folder, landmarks["pixels"], landmarks["world"], landmarks["found"])
        self.shares: list[float] = []
        self.fit: ClipFit = fit_clip(folder, progress=self.shares.append)
        poses = np.load(folder / "poses.npz")
        thetas = torch.from_numpy(poses["thetas"])
        self.poses = PoseSequence(
            torch.from_numpy(poses["betas"][0]), thetas[:, :3], thetas[:, 3:], torch.from_numpy(poses["transl"])
        )

    def joints(self) -> np.ndarray:
        """Of the fitted body in all frames, metres."""
        poses = self.poses
        transforms = self.body.transforms(poses.betas, poses.global_orient, poses.body_pose, poses.transl)
        joints = self.body.rest(poses.betas)[1]
        return skinned(joints, torch.eye(len(joints)), transforms).double().numpy()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return Fitted(tmp_path_factory.mktemp("clip") / "person")


def test_poses_come_back(fitted: Fitted) -> None:
    error = pose_error(joint_rotations(fitted.poses), joint_rotations(fitted.clip.poses))
    assert error.aligned_deg < 3
    assert error.mean_deg < 5


def test_joints_come_back_where_they_are_in_the_body(fitted: Fitted) -> None:
    found, true = (joints - joints.mean(axis=1, keepdims=True) for joints in (fitted.joints(), fitted.clip.joints))
    scale = (found * true).sum() / (found**2).sum()
    assert np.linalg.norm(scale * found - true, axis=-1).mean() < 0.03
    assert 0.95 < scale < 1.05


def test_the_turn_goes_on_where_depth_is_mirrored_and_through_the_gap(fitted: Fitted) -> None:
    root, true = (joint_rotations(poses)[:, :1] for poses in (fitted.poses, fitted.clip.poses))
    for frame in (*MIRRORED, *GAP):
        assert pose_error(root[[frame]], true[[frame]]).mean_deg < 15


def test_the_focal_length_is_found_from_half_its_value(fitted: Fitted) -> None:
    camera, true = fitted.fit.camera, fitted.clip.camera
    assert camera.origin == "estimated"
    assert 0.7 < camera.focal / true.focal < 1.4
    written = np.load(fitted.clip.folder / "cameras.npz")
    assert written["intrinsic"][0, 0] == pytest.approx(camera.focal)
    # The person's size is known only as well as that of people, the distance as well as the focal length.
    depth = fitted.poses.transl[:, 2] / fitted.clip.poses.transl[:, 2]
    np.testing.assert_allclose(depth, camera.focal / true.focal, rtol=0.08)


def test_errors_are_told_frame_by_frame(fitted: Fitted) -> None:
    fit = fitted.fit
    assert fit.interpolated == GAP
    assert fit.poor == []
    assert np.isnan(fit.reprojection[GAP]).all()
    pixels_a_meter = fitted.clip.camera.focal / fitted.clip.poses.transl[:, 2].numpy()
    known = np.delete(fit.reprojection / pixels_a_meter, GAP)
    assert 0.005 < known.mean() < 0.04  # the noise is 2 centimetres
    assert fit.iou.min() > 0.8
    stored = np.load(fitted.clip.folder / "process" / "fit.npz")
    np.testing.assert_array_equal(stored["iou"], fit.iou)
    np.testing.assert_array_equal(stored["reprojection"], fit.reprojection)
    assert fitted.shares == sorted(fitted.shares)
    assert fitted.shares[-1] == pytest.approx(1)


def test_the_folder_loads_as_training_data(fitted: Fitted) -> None:
    outputs = InstantAvatarDataParserConfig(data=fitted.clip.folder).setup().get_dataparser_outputs("train")
    assert len(outputs.image_filenames) > 0
    assert Path(subject_of(outputs.metadata).body_model).name == "free_body.npz"
    torch.testing.assert_close(subject_of(outputs.metadata).poses.betas, fitted.poses.betas)


def test_another_body_beside_is_refused_before_the_work(fitted: Fitted, tmp_path: Path) -> None:
    folder = tmp_path / "person"
    shutil.copytree(fitted.clip.folder, folder)
    shutil.copyfile(folder / "body" / "free_body.npz", folder / "body" / "SMPL_MALE.npz")
    with pytest.raises(InputError, match=r"SMPL_MALE\.npz"):
        fit_clip(folder)
    assert (folder / "body" / "SMPL_MALE.npz").is_file()


def test_landmarks_of_nothing_end_with_the_frames(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "person"
    shutil.copytree(fitted.clip.folder, folder)
    (folder / "poses.npz").unlink()
    random = np.random.default_rng(0)
    pixels = random.uniform(0, 120, (FRAMES, 33, 2))
    write_landmarks(folder, pixels, random.normal(size=(FRAMES, 33, 3)), np.ones(FRAMES, dtype=bool))
    monkeypatch.setattr(clip_fit, "_ROUNDS", 1)
    with pytest.raises(InputError, match=r"of 16 frames \(0, 1"):
        fit_clip(folder)
    assert not (folder / "poses.npz").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"found": np.zeros(FRAMES, dtype=bool)}, "found them in 0 of 16"),
        ({"pixels": np.zeros((FRAMES - 1, 33, 2))}, "expected pixels of shape"),
        ({"world": np.full((FRAMES, 33, 3), np.nan)}, "NaN"),
    ],
)
def test_unusable_landmarks_are_told(fitted: Fitted, tmp_path: Path, change: dict, message: str) -> None:
    folder = tmp_path / "person"
    shutil.copytree(fitted.clip.folder, folder)
    path = folder / "process" / "landmarks.npz"
    np.savez(path, **{**dict(np.load(path)), **change})
    with pytest.raises(InputError, match=message):
        read_observations(folder, None)


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"times": [1, 0], "width": 9, "height": 9})])
def test_an_unusable_clip_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "process").mkdir()
    (tmp_path / "process" / "clip.json").write_text(text)
    with pytest.raises(InputError, match=r"clip\.json"):
        read_observations(tmp_path, None)
