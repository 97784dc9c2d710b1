"""Refined poses of runs that left out frames without a person."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.data.subject import subject_of
from instantavatar_ns.scripts.refined_poses import RefinedPoses, _trained_frames, _with_skipped_frames
from tests.data.subjects import HEIGHT, WIDTH, write_instantavatar_folder


def test_skipped_frames_keep_the_given_poses(tmp_path):
    data = tmp_path / "person"
    write_instantavatar_folder(data, 10, {"train": [1, 8], "test": [8, 10]})
    for number in (3, 9):
        Image.new("L", (WIDTH, HEIGHT)).save(data / "masks" / f"mask_{number:04d}.png")
    dataparser = InstantAvatarDataParserConfig(data=data, skip_frames_without_person=True)
    assert _trained_frames(dataparser) == [1, 2, 4, 5, 6, 7]

    poses = subject_of(dataparser.setup().get_dataparser_outputs("train").metadata).poses
    trained, test = poses.rows(slice(6)), poses.rows(slice(6, None))
    refined = PoseSequence(trained.betas, trained.global_orient + 1, trained.body_pose + 1, trained.transl + 1)
    whole, whole_test = _with_skipped_frames(dataparser, refined, test)
    given = np.load(data / "poses.npz")
    moved = np.array([1.0, 1, 0, 1, 1, 1, 1])[:, None]
    np.testing.assert_allclose(whole.transl, given["transl"][1:8] + moved, rtol=1e-6)
    angles = torch.cat([whole.global_orient, whole.body_pose], dim=1)
    np.testing.assert_allclose(angles, given["thetas"][1:8] + moved, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole_test.transl, given["transl"][8:], rtol=1e-6)

    # They load again with the frames left out, and without.
    arrays = {name: getattr(whole, name) for name in ("global_orient", "body_pose", "transl")}
    (data / "poses").mkdir()
    np.savez(data / "poses" / "refined_train.npz", betas=whole.betas[None], **arrays)
    again = replace(dataparser, poses="refined", heldout_poses="poses").setup().get_dataparser_outputs("train")
    np.testing.assert_allclose(subject_of(again.metadata).poses.transl[:6], refined.transl, rtol=1e-6)


def test_rows_of_a_whole_file_are_replaced(tmp_path):
    """Frames that were not trained on keep their poses, and the arrays their names."""
    data = tmp_path / "person"
    write_instantavatar_folder(data, 6, {"train": [1, 4], "test": [4, 6]})
    dataparser = InstantAvatarDataParserConfig(data=data)
    poses = subject_of(dataparser.setup().get_dataparser_outputs("train").metadata).poses.rows(slice(3))
    refined = PoseSequence(poses.betas, poses.global_orient + 1, poses.body_pose + 2, poses.transl + 3)
    given = dict(np.load(data / "poses.npz"))
    written = RefinedPoses._whole(dataparser, data / "poses.npz", refined)
    assert set(written) == {"betas", "thetas", "transl"}
    trained = np.array([0.0, 1, 1, 1, 0, 0])[:, None]
    moved = np.repeat([1.0, 2.0], [3, given["thetas"].shape[1] - 3]) * trained
    np.testing.assert_allclose(written["thetas"], given["thetas"] + moved, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(written["transl"], given["transl"] + 3 * trained, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(written["betas"].ravel(), given["betas"].astype(np.float32).ravel())
