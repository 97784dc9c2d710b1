"""PeopleSnapshot as distributed: video, HDF5 masks and poses, a pickled camera."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.people_snapshot_dataparser import PeopleSnapshotDataParserConfig
from instantavatar_ns.data.splits import published_split
from instantavatar_ns.data.subject import subject_of
from instantavatar_ns.utils.errors import InputError
from tests.body.bodies import random_body
from tests.data.subjects import write_people_snapshot


@pytest.fixture
def folder(tmp_path):
    write_people_snapshot(tmp_path / "someone")
    np.savez(tmp_path / "SMPL_MALE.npz", **random_body())
    return tmp_path / "someone"


def parse(data, split="train", **options):
    options = {"body_model": str(data.parent / "SMPL_MALE.npz"), "cache_dir": data.parent / "cache", **options}
    return PeopleSnapshotDataParserConfig(data=data, **options).setup().get_dataparser_outputs(split)


def test_frames_are_those_of_the_split(folder):
    train = parse(folder, train_frames=(0, 9, 4), test_frames=(10, 12, 1))
    test = parse(folder, "test", train_frames=(0, 9, 4), test_frames=(10, 12, 1))
    for outputs, numbers in ((train, [0, 4, 8]), (test, [10, 11])):
        images = [AvatarDataset(outputs).get_numpy_image(index) for index in range(len(numbers))]
        # The video brightens by 10 a frame; its codec is lossy.
        assert [round(float(image[..., :3].mean()) / 10) for image in images] == numbers
        assert images[0].shape == (32, 32, 4)
        inside = images[0][8:24, 10:22, 3]
        assert inside.min() == 255 and images[0][..., 3].sum() == 255 * inside.size
    bank = subject_of(train.metadata).poses
    with h5py.File(folder / "reconstructed_poses.hdf5") as file:
        np.testing.assert_allclose(bank.transl, file["trans"][:][[0, 4, 8, 10, 11]], rtol=1e-6)


def test_camera_is_halved(folder):
    cameras = parse(folder).cameras
    got = [float(value[0]) for value in (cameras.fx, cameras.fy, cameras.cx, cameras.cy)]
    # The file counts pixel centers from 0, nerfstudio from a half: 32 and 30 become 32.5 and 30.5, then half of that.
    assert got == [64.0, 64.0, 16.25, 15.25]
    assert float(parse(folder, downscale=1).cameras.cx[0]) == 32.5


def test_camera_pose(folder):
    camera = pickle.loads((folder / "camera.pkl").read_bytes())
    camera.update(camera_rt=np.array([0.0, 0.2, 0.0]), camera_t=np.array([0.1, 0.2, 0.3]))
    (folder / "camera.pkl").write_bytes(pickle.dumps(camera, 2))
    outputs = parse(folder)
    to_dataset = subject_of(outputs.metadata).world_to_dataset
    center = to_dataset[:3, :3] @ outputs.cameras.camera_to_worlds[0, :, 3] + to_dataset[:3, 3]
    expected = -cv2.Rodrigues(camera["camera_rt"])[0].T @ camera["camera_t"]
    np.testing.assert_allclose(center, expected, atol=1e-5)


def test_lens_distortion_is_removed(tmp_path):
    distortion = (0.5, 0.1, 0.01, -0.01, 0.0)
    data = tmp_path / "someone"
    write_people_snapshot(data, 5, distortion)
    np.savez(tmp_path / "SMPL_MALE.npz", **random_body())
    mask = AvatarDataset(parse(data, downscale=1)).get_numpy_image(0)[..., 3] / 255.0
    # Corners of the distorted mask (a rectangle) undistorted point by point bound the undistorted one.
    camera = np.array([[128.0, 0, 32], [0, 128.0, 30], [0, 0, 1]])
    corners = np.array([[[19.5, 15.5]], [[43.5, 15.5]], [[43.5, 47.5]], [[19.5, 47.5]]])
    polygon = cv2.undistortPoints(corners, camera, np.array(distortion), P=camera)[:, 0].astype(np.float32)
    area = cv2.contourArea(polygon)
    assert mask.sum() == pytest.approx(area, rel=0.02)
    assert abs(area - 24 * 32) / area > 0.02, "the distortion of this test is too weak to tell"
    center = polygon.mean(axis=0)
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    found = [(columns * mask).sum() / mask.sum(), (rows * mask).sum() / mask.sum()]
    np.testing.assert_allclose(found, center, atol=0.15)


def test_cache_is_used_again_and_made_anew_when_the_video_changes(folder):
    first = parse(folder).image_filenames[0]
    stamp = first.stat().st_mtime_ns
    assert parse(folder, "test").image_filenames[0].parent == first.parent
    assert first.stat().st_mtime_ns == stamp
    os.utime(folder / "someone.mp4", ns=(1, 1))
    assert parse(folder).image_filenames[0].parent != first.parent
    assert parse(folder, downscale=1).image_filenames[0].parent != first.parent


def test_data_folder_is_left_alone(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    parse(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


KILLED = """
import os, signal, sys
from pathlib import Path
import cv2
from instantavatar_ns.data.people_snapshot_dataparser import PeopleSnapshotDataParserConfig
encode, calls = cv2.imencode, []
def imencode(*args):
    calls.append(args)
    if len(calls) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(*args)
cv2.imencode = imencode
data = Path(sys.argv[1])
PeopleSnapshotDataParserConfig(
    data=data, body_model=str(data.parent / "SMPL_MALE.npz"), cache_dir=data.parent / "cache"
).setup().get_dataparser_outputs("train")
"""


def test_killed_half_way(folder, repo_root):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], cwd=repo_root, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    cache = folder.parent / "cache"
    assert [path.name[:9] for path in cache.iterdir() if path.name != ".lock"] == [".partial-"]
    outputs = parse(folder)
    assert all(path.is_file() for path in [*outputs.image_filenames, *subject_of(outputs.metadata).mask_filenames])
    assert [path.suffix for path in cache.iterdir() if path.name != ".lock"] == [""]


def test_unreadable_video(folder):
    (folder / "someone.mp4").write_bytes(b"not a video")
    with pytest.raises(InputError, match=r"someone\.mp4: expected a readable video"):
        parse(folder)
    assert [path.name for path in (folder.parent / "cache").iterdir() if path.name != ".lock"] == []


def test_video_that_ends_early(folder):
    short = folder.parent / "short"
    write_people_snapshot(short, 11)
    (short / "short.mp4").replace(folder / "someone.mp4")
    with pytest.raises(
        InputError, match=r"someone\.mp4: expected a video of at least 12 frames, could not read frame 11"
    ):
        parse(folder)
    assert [path.name for path in (folder.parent / "cache").iterdir() if path.name != ".lock"] == []


def test_camera_that_runs_commands(folder):
    marker = folder / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    (folder / "camera.pkl").write_bytes(pickle.dumps({"camera_f": Evil()}, 2))
    with pytest.raises(InputError, match=r"camera\.pkl: .*system; nothing of it was run"):
        parse(folder)
    assert not marker.exists()


def test_folder_of_the_other_format(folder):
    (folder / "camera.pkl").unlink()
    with pytest.raises(InputError, match=r"camera\.pkl: .*found no such file. Check the option data"):
        parse(folder)
    (folder / "cameras.npz").touch()
    with pytest.raises(InputError, match=r"camera\.pkl: .*found no such file\. This is InstantAvatar's layout"):
        parse(folder)


def test_incomplete_camera(folder):
    (folder / "camera.pkl").write_bytes(pickle.dumps({"camera_f": np.ones(2), "camera_c": np.ones(3)}, 2))
    with pytest.raises(InputError, match=r"did not find camera_k, camera_rt, .* beside camera_c, camera_f"):
        parse(folder)


def test_one_array_of_the_camera_is_missing(folder):
    camera = pickle.loads((folder / "camera.pkl").read_bytes())
    del camera["camera_k"]
    (folder / "camera.pkl").write_bytes(pickle.dumps(camera, 2))
    with pytest.raises(InputError, match=r"did not find camera_k beside .*\. Give camera_k as 5 numbers: .* zeros"):
        parse(folder)


def test_several_videos(folder):
    video = next(folder.glob("*.mp4"))
    video.rename(folder / "a.mp4")
    (folder / "b.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=rf"found 2 \.mp4 files\. Name the one .* {folder.name}\.mp4"):
        parse(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera_k": np.zeros(4)}, "5 numbers in camera_k, found 4. Give camera_k as 5 numbers: OpenCV's distortion"),
        ({"camera_rt": np.eye(3)}, "3 numbers in camera_rt, found 9. .* axis-angle"),
        ({"camera_t": np.array([0, np.nan, 0])}, "finite numbers in camera_t, found NaN"),
        ({"camera_f": "wide"}, "camera_f of real numbers"),
        ({"camera_f": np.array([0.12, 0.12])}, "intrinsic in pixels, found focal lengths of 0.12 and 0.12"),
        ({"camera_c": np.array([64.0, 60.0])}, "principal point within .*, as for images 2 times as large"),
        ({"width": 63.5}, "width in whole pixels, found 63.5"),
        ({"height": np.zeros(0)}, "one height, found 0 numbers"),
    ],
)
def test_camera_that_cannot_be_right(folder, changes, message):
    camera = pickle.loads((folder / "camera.pkl").read_bytes())
    (folder / "camera.pkl").write_bytes(pickle.dumps({**camera, **changes}, 2))
    with pytest.raises(InputError, match=rf"camera\.pkl: .*{message}"):
        parse(folder)
    assert not (folder.parent / "cache").exists()


def test_camera_of_another_resolution(folder):
    camera = pickle.loads((folder / "camera.pkl").read_bytes())
    larger = {key: camera[key] * 2 for key in ("camera_f", "camera_c", "width", "height")}
    (folder / "camera.pkl").write_bytes(pickle.dumps({**camera, **larger}, 2))
    with pytest.raises(
        InputError, match=r"camera\.pkl says, found \(12, 64, 64\); camera\.pkl is for another resolution"
    ):
        parse(folder)
    with h5py.File(folder / "masks.hdf5", "w") as file:
        file["masks"] = np.ones((12, 128, 128), np.uint8)
    with pytest.raises(InputError, match=r"\.mp4: .* found \(64, 64\); camera\.pkl is for another resolution"):
        parse(folder)
    (folder / "camera.pkl").write_bytes(pickle.dumps(camera, 2))
    with pytest.raises(InputError, match=r"\(frames, 64, 64\), as camera\.pkl says, found \(12, 128, 128\)"):
        parse(folder)
    with h5py.File(folder / "masks.hdf5", "w") as file:
        file["masks"] = 1
    with pytest.raises(InputError, match=r"masks\.hdf5: expected masks of shape \(frames, height, width\), found \(\)"):
        parse(folder)


def test_frames_without_a_person_are_left_out(folder, notices_given):
    with h5py.File(folder / "masks.hdf5", "a") as file:
        file["masks"][4] = 0
    options = {"train_frames": (0, 9, 4), "test_frames": (10, 12, 1)}
    with pytest.raises(InputError, match=r"masks\.hdf5, frame 4: .*--skip-frames-without-person True"):
        AvatarDataset(parse(folder, **options)).get_numpy_image(1)
    outputs = parse(folder, skip_frames_without_person=True, **options)
    assert subject_of(outputs.metadata).train_numbers.tolist() == [0, 8]
    assert round(float(AvatarDataset(outputs).get_numpy_image(1)[..., :3].mean()) / 10) == 8
    assert len(subject_of(outputs.metadata).poses) == 4
    assert any("masks.hdf5: 1 of 3 frames are left out" in text and "frame 4" in text for text in notices_given)
    with h5py.File(folder / "masks.hdf5", "a") as file:
        file["masks"][10:] = 0
    with pytest.raises(InputError, match=r"masks\.hdf5: .*the 2 held-out frames \(number 10 to 11\), .*--test-frames"):
        parse(folder, skip_frames_without_person=True, **options)


@pytest.mark.parametrize("name", ["masks.hdf5", "reconstructed_poses.hdf5"])
def test_damaged_hdf5(folder, name):
    (folder / name).write_bytes(b"not HDF5")
    with pytest.raises(InputError, match=name):
        parse(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: .*found no such file"):
        parse(folder)


@pytest.mark.parametrize("count", [6, 18])
def test_masks_of_another_video(folder, count):
    """Where the beginning was cut off, every mask would be that of another frame."""
    with h5py.File(folder / "masks.hdf5", "w") as file:
        file["masks"] = np.ones((count, 64, 64), np.uint8)
    message = rf"masks\.hdf5: expected as many masks .* found {count} masks for the 12 frames of someone\.mp4"
    with pytest.raises(InputError, match=message):
        parse(folder)


def test_a_mask_less_than_the_container_counts_is_told(folder, notices_given):
    with h5py.File(folder / "masks.hdf5", "w") as file:
        file["masks"] = np.ones((11, 64, 64), np.uint8)
    parse(folder)
    assert any("It has 11 masks for the 12 frames of someone.mp4." in text for text in notices_given)


@pytest.mark.parametrize(("count", "is_right"), [(13, True), (17, True), (18, False), (24, False)])
def test_more_poses_than_masks(folder, notices_given, count, is_right):
    """Published subjects have one more."""
    with h5py.File(folder / "reconstructed_poses.hdf5", "w") as file:
        file.update({"betas": np.zeros(10), "pose": np.zeros((count, 72)), "trans": np.ones((count, 3))})
    if is_right:
        parse(folder)
        assert any(f"It has {count} poses for 12 images: those beyond" in text for text in notices_given)
        return
    with pytest.raises(InputError, match=rf"reconstructed_poses\.hdf5: expected 12 poses, .* found {count}"):
        parse(folder)


def test_fewer_poses_than_masks(folder):
    with h5py.File(folder / "reconstructed_poses.hdf5", "w") as file:
        file.update({"betas": np.zeros(10), "pose": np.zeros((11, 72)), "trans": np.zeros((11, 3))})
    with pytest.raises(InputError, match=r"reconstructed_poses\.hdf5: expected 12 poses, .* found 11"):
        parse(folder)


def test_anim_nerf_poses_are_preferred(folder):
    (folder / "poses").mkdir()
    for split, count in (("train", 3), ("test", 2)):
        arrays = {"global_orient": np.zeros((count, 3)), "body_pose": np.zeros((count, 69)), "betas": np.zeros(10)}
        np.savez(folder / "poses" / f"anim_nerf_{split}.npz", transl=np.full((count, 3), 7.0), **arrays)
    options = {"train_frames": (0, 9, 4), "test_frames": (10, 12, 1)}
    assert subject_of(parse(folder, **options).metadata).poses.transl.unique().tolist() == [7.0]
    assert subject_of(parse(folder, poses="reconstructed", **options).metadata).poses.transl.max() < 7


def test_body_model_must_be_given(folder, capsys):
    with pytest.raises(InputError, match=r"Download SMPL from smpl\.is\.tue\.mpg\.de"):
        parse(folder, body_model="auto")
    (folder / "body").mkdir()
    (folder.parent / "SMPL_MALE.npz").rename(folder / "body" / "SMPL_MALE.npz")
    assert subject_of(parse(folder, body_model="auto").metadata).body_model == str(folder / "body" / "SMPL_MALE.npz")


def test_published_splits():
    """The papers name first and last frame, both included."""
    expected = {
        "female-3-casual": (0, 445, 446, 647, 4),
        "female-4-casual": (0, 335, 335, 523, 4),
        "male-3-casual": (0, 455, 456, 675, 4),
        "male-4-casual": (0, 659, 660, 872, 6),
    }
    for subject, (first, last, first_test, last_test, step) in expected.items():
        split = published_split(subject)
        assert split is not None
        assert list(split.train) == list(range(first, last + 1, step))
        assert list(split.test) == list(range(first_test, last_test + 1, step))
    assert published_split("male-1-casual") is None


def test_published_split_is_found_by_name(tmp_path):
    data = Path(tmp_path) / "male-3-casual"
    write_people_snapshot(data, 5)
    np.savez(tmp_path / "SMPL_MALE.npz", **random_body())
    with pytest.raises(InputError, match=r"training frames within the 5 frames found, asked for 0 to 456"):
        parse(data)
    assert torch.equal(parse(data, train_frames=(0, 3, 1), test_frames=(3, 5, 1)).cameras.times[-1], torch.ones(1))
