"""Training and evaluation stop on wrong data, warn, or go on, as configured."""

import copy
import pickle
import re

import cv2
import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from instantavatar_ns.check import guard
from instantavatar_ns.check.guard import check_dataset
from instantavatar_ns.config import instant_avatar_lite
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.data.people_snapshot_dataparser import PeopleSnapshotDataParserConfig
from instantavatar_ns.utils.errors import InputError
from tests.check.folders import FRAMES, Folder
from tests.data.subjects import write_people_snapshot


@pytest.fixture
def folder(tmp_path, demo_subject):
    return Folder(tmp_path / "person", demo_subject)


@pytest.fixture
def said(monkeypatch):
    """Lines that the check logs."""
    lines = []
    monkeypatch.setattr(guard.CONSOLE, "log", lines.append)
    return lines


def dataset(folder, split="train"):
    parser = InstantAvatarDataParserConfig(data=folder.save(), train_frames=(0, 8, 1), test_frames=(8, FRAMES, 1))
    return AvatarDataset(parser.setup().get_dataparser_outputs(split))


def build_pipeline(data, check_data, test_mode="val", eval_set="heldout"):
    pipeline = copy.deepcopy(instant_avatar_lite.config.pipeline)
    pipeline.datamanager.data = data
    pipeline.datamanager.dataparser = InstantAvatarDataParserConfig(
        data=data, train_frames=(0, 8, 1), test_frames=(8, FRAMES, 1), eval_set=eval_set
    )
    pipeline.check_data, pipeline.model.align_poses = check_data, False
    pipeline.model.skinning_resolution = (32, 32, 8)
    return pipeline.setup(device="cpu", test_mode=test_mode, world_size=1, local_rank=0, grad_scaler=None)


def test_error_says_what_was_found_and_which_change_helps(folder):
    folder.move_world()
    folder.camera["extrinsic"] = np.linalg.inv(folder.camera["extrinsic"])
    found = r"found that it covers 0 % of the masks, and no joint lies within the images \(in all frames\)"
    helps = r"With the extrinsic inverted it covers 9\d % of the masks, and 24 of 24 joints lie within them"
    message = (
        f"^{re.escape(str(folder.path))}: expected the posed body where the masks are, {found}. {helps}. .*. Go on.$"
    )
    with pytest.raises(InputError, match=message):
        check_dataset(folder.path, dataset(folder), "stop", "Go on")


def test_error_names_the_frames_at_fault(folder, said):
    for name in ("mask_0002.png", "mask_0005.png"):
        mask = np.zeros((96, 96), np.uint8)
        mask[:20, :20] = 255
        Image.fromarray(mask).save(folder.path / "masks" / name)
    with pytest.raises(InputError, match=r"2 of 8 frames, and fits the others \(in image_0002.png, image_0005.png\)"):
        check_dataset(folder.path, dataset(folder), "stop", "Go on")
    check_dataset(folder.path, dataset(folder), "warn", "")
    assert len(said) == 1 and "(in image_0002.png, image_0005.png)" in said[0]


def test_white_masks_are_named(folder):
    folder.edit_masks(lambda mask: np.full_like(mask, 255))
    with pytest.raises(InputError, match=r"masks that are white all over \(in all frames\)"):
        check_dataset(folder.path, dataset(folder), "stop", "Go on")


def test_modes(folder, said):
    folder.edit_masks(lambda mask: 255 - mask)
    wrong = dataset(folder)
    check_dataset(folder.path, wrong, "off", "")
    assert said == []
    check_dataset(folder.path, wrong, "warn", "")
    assert len(said) == 1 and said[0].startswith("[yellow]") and "With the masks inverted" in said[0]
    with pytest.raises(InputError, match="The masks show the person in black"):
        check_dataset(folder.path, wrong, "stop", "Go on")


def test_missing_frame_is_a_warning_that_says_where(folder, said):
    """A pose is lost before frame 3, and another is there twice after frame 7."""
    rows = [0, 1, 2, 4, 5, 6, 7, 8, 8, 9, 10]
    folder.poses, folder.transl = folder.poses[rows], folder.transl[rows]
    parser = InstantAvatarDataParserConfig(data=folder.save(), train_frames=(0, FRAMES, 1), test_frames=(0, FRAMES, 1))
    check_dataset(folder.path, AvatarDataset(parser.setup().get_dataparser_outputs("train")), "stop", "Go on")
    assert len(said) == 1 and "that frames 4 to" in said[0] and "the pose of 1 frame earlier" in said[0]


def test_training_stops_before_the_first_step(folder):
    folder.edit_masks(lambda mask: 255 - mask)
    with pytest.raises(InputError, match=r"--pipeline\.check-data warn"):
        build_pipeline(folder.save(), "stop").prepare_training(resumed=False)
    build_pipeline(folder.path, "warn").prepare_training(resumed=False)


def test_evaluation_stops_on_wrong_frames_and_training_does_not(folder, said):
    """Held-out frames alone are wrong."""
    folder.transl[8:] *= 1000
    pipeline = build_pipeline(folder.save(), "stop", test_mode="val")
    pipeline.prepare_training(resumed=False)
    assert "fit" in said[0]
    with pytest.raises(InputError, match=r"in millimetres: .*evaluate --check-data warn"):
        pipeline.get_average_eval_image_metrics(get_std=True)


def test_evaluation_names_the_folder_of_another_motion(folder, demo_subject):
    """The recording is right; its novel/ has lost the camera's place."""
    folder.save()
    novel = Folder(folder.path / "novel", demo_subject)
    novel.transl = novel.transl * 1000
    novel.save()
    pipeline = build_pipeline(folder.path, "stop", test_mode="test", eval_set="novel")
    with pytest.raises(InputError, match=f"^{re.escape(str(folder.path / 'novel'))}: .*in millimetres"):
        pipeline.get_average_eval_image_metrics(get_std=True)


def test_people_snapshot_is_checked(folder, tmp_path, said):
    """A subject as distributed, of the demo's frames, then with inverted masks."""
    data = tmp_path / "demo-person"
    write_people_snapshot(data, FRAMES)
    video = cv2.VideoWriter(str(data / "demo-person.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30.0, (96, 96))
    for path in sorted((folder.path / "images").glob("*.png")):
        video.write(cv2.imread(str(path)))
    video.release()
    masks = np.stack([np.asarray(Image.open(path)) > 127 for path in sorted((folder.path / "masks").glob("*.png"))])
    with h5py.File(data / "reconstructed_poses.hdf5", "w") as file:
        file["betas"], file["pose"], file["trans"] = folder.betas[0], folder.poses.reshape(-1, 72), folder.transl
    write_camera(data, folder.camera["intrinsic"])

    def check(masks, cache):
        with h5py.File(data / "masks.hdf5", "w") as file:
            file["masks"] = masks.astype(np.uint8)
        body = str(folder.path / "body" / "SMPL_NEUTRAL.npz")
        parser = PeopleSnapshotDataParserConfig(data=data, body_model=body, downscale=1, cache_dir=tmp_path / cache)
        check_dataset(data, AvatarDataset(parser.setup().get_dataparser_outputs("train")), "stop", "Go on")

    check(masks, "right")
    assert len(said) == 1 and said[0].startswith("Poses and masks fit")
    with pytest.raises(InputError, match="With the masks inverted"):
        check(~masks, "wrong")


def write_camera(data, intrinsic):
    camera = pickle.loads((data / "camera.pkl").read_bytes())
    camera["camera_f"], camera["camera_c"] = intrinsic[[0, 1], [0, 1]], intrinsic[:2, 2]
    camera["width"] = camera["height"] = 96
    (data / "camera.pkl").write_bytes(pickle.dumps(camera, 2))


def test_check_draws_no_random_numbers(folder):
    """The training does not depend on whether the check was made."""
    before = torch.random.get_rng_state()
    check_dataset(folder.path, dataset(folder), "stop", "Go on")
    assert torch.equal(before, torch.random.get_rng_state())
