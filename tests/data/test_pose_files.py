"""Training poses are all there, and one for each image."""

import numpy as np
import pytest

from instantavatar_ns.data.pose_files import read_split_poses
from instantavatar_ns.motion.readers import read_pose_file
from instantavatar_ns.utils.errors import InputError

RANDOM = np.random.default_rng(0)


def arrays(count):
    return {
        "thetas": RANDOM.normal(size=(count, 72)),
        "transl": np.arange(count)[:, None] * np.ones((1, 3)),
        "betas": RANDOM.normal(size=(1, 10)),
    }


def test_poses_follow_their_images(tmp_path):
    np.savez(tmp_path / "poses.npz", **arrays(6))
    poses = read_split_poses(tmp_path, "auto", "train", range(1, 6, 2), 6)
    assert poses.transl[:, 0].tolist() == [1, 3, 5]


def test_one_pose_more_is_left_over_and_told(tmp_path, capsys):
    np.savez(tmp_path / "poses.npz", **arrays(7))
    for split in ("train", "test"):
        poses = read_split_poses(tmp_path, "auto", split, range(6), 6)
        assert poses.transl[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert capsys.readouterr().out.count("It has 7 poses for 6 images: those beyond the last image are left over.") == 1


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (5, "expected 6 poses, one for each of the images, found 5. Estimate a pose for every frame"),
        (8, "expected 6 poses, one for each of the images, found 8. Leave out the poses of the images"),
        (12, "found 12"),
    ],
)
def test_other_counts_are_refused(tmp_path, count, message):
    """Many poses more than images belong to other images: where each second frame was kept, for instance."""
    np.savez(tmp_path / "poses.npz", **arrays(count))
    with pytest.raises(InputError, match=rf"poses\.npz: .*{message}"):
        read_split_poses(tmp_path, "auto", "train", range(4), 6)


def test_poses_of_a_split_are_counted_exactly(tmp_path):
    (tmp_path / "poses").mkdir()
    np.savez(tmp_path / "poses" / "train.npz", **arrays(5))
    with pytest.raises(InputError, match=r"train\.npz: expected 4 poses, one for each of the frames of the split"):
        read_split_poses(tmp_path, "auto", "train", range(4), 6)


@pytest.mark.parametrize("name", ["transl", "betas"])
def test_incomplete_poses_name_what_the_file_holds(tmp_path, name):
    given = arrays(6)
    given[f"my_{name}"] = given.pop(name)
    np.savez(tmp_path / "poses.npz", **given)
    shape = given[f"my_{name}"].shape
    with pytest.raises(InputError) as caught:
        read_split_poses(tmp_path, "auto", "train", range(6), 6)
    assert f"my_{name} {shape}" in str(caught.value) and f"under the name {name}." in str(caught.value)


def test_translation_in_the_camera_is_told(tmp_path, capsys):
    given = arrays(3)
    np.savez(tmp_path / "poses.npz", thetas=given["thetas"], cam_trans=given["transl"], betas=given["betas"])
    np.testing.assert_allclose(read_pose_file(tmp_path / "poses.npz").transl, given["transl"])
    assert "extrinsic must be the identity" in capsys.readouterr().out
