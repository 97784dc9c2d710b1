"""Right data passes, each mistake is found, and the change that is suggested is the one that undoes it."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.check.change import Change, likely_units
from instantavatar_ns.check.diagnosis import best_change, diagnose, mean_overlap
from instantavatar_ns.check.order_changes import camera_shift_changes
from instantavatar_ns.check.overlap import measure, silhouettes
from instantavatar_ns.demo.motion import add_pose_noise
from tests.check.folders import FRAMES, Folder, read

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.fixture
def folder(tmp_path, demo_subject):
    return Folder(tmp_path / "person", demo_subject)


def check(folder):
    return diagnose(read(folder))


# Right data


def leave(folder):
    pass


def other_world(folder):
    folder.move_world()


def three_degrees_off(folder):
    rng = np.random.default_rng(0)
    noise = {"degrees": 3.0, "millimeters": 12.0, "correlation": 2.0}
    folder.poses, folder.transl = add_pose_noise(folder.poses, folder.transl, **noise, rng=rng)


def crop(rows, columns):
    def edit(folder):
        folder.edit_images_and_masks(lambda image: image[rows, columns])
        shape = np.zeros((96, 96))[rows, columns].shape
        folder.camera["height"], folder.camera["width"] = map(np.array, shape)
        folder.camera["intrinsic"][:2, 2] -= columns.start or 0, rows.start or 0

    return edit


def stand_out(folder):
    """Clothes that stand out by 7 cm all around."""
    folder.edit_masks(lambda mask: cv2.dilate(mask, np.ones((5, 5))))


def half_the_size(folder):
    folder.edit_images_and_masks(lambda image: cv2.resize(image, (48, 48), interpolation=cv2.INTER_AREA))
    folder.camera["intrinsic"][:2] /= 2
    folder.camera["height"] = folder.camera["width"] = np.array(48)


def hide_legs(folder):
    folder.edit_masks(lambda mask: np.where(np.arange(96)[:, None] < 60, mask, 0).astype(np.uint8))


def moving_camera(rows, change=lambda extrinsic: extrinsic):
    """A camera that moves through the person's world, its extrinsics in an order of their own."""

    def edit(folder):
        move_camera(folder, [np.array([0.05, 0.0, 0.02]) * frame for frame in range(FRAMES)], 4 * np.arange(FRAMES))
        folder.camera["extrinsic"] = change(folder.camera["extrinsic"][rows])

    return edit


def move_camera(folder, positions, degrees):
    """Give the recording in a world that the camera turns and moves through."""
    extrinsics = []
    for frame, (position, angle) in enumerate(zip(positions, degrees, strict=True)):
        moved = np.eye(4)
        moved[:3, :3], moved[:3, 3] = Rotation.from_euler("y", angle, degrees=True).as_matrix(), position
        folder.poses[frame, 0] = (
            Rotation.from_matrix(moved[:3, :3]) * Rotation.from_rotvec(folder.poses[frame, 0])
        ).as_rotvec()
        pelvis = folder.transl[frame] + folder.pelvis
        folder.transl[frame] = moved[:3, :3] @ pelvis + moved[:3, 3] - folder.pelvis
        extrinsics.append(folder.camera["extrinsic"] @ np.linalg.inv(moved))
    folder.camera["extrinsic"] = np.stack(extrinsics)


def small_orbit(change=lambda extrinsic: extrinsic):
    """A camera that goes a little around the person, 11 degrees to both sides, looking at them."""

    def edit(folder):
        degrees = np.linspace(-11, 11, FRAMES)
        person = folder.transl.mean(axis=0) + folder.pelvis
        turns = Rotation.from_euler("y", degrees[:, None], degrees=True).as_matrix()
        move_camera(folder, person - turns @ person, degrees)
        folder.camera["extrinsic"] = change(folder.camera["extrinsic"])

    return edit


def handheld(change=lambda extrinsic: extrinsic):
    """A camera that shakes by a few centimetres."""

    def edit(folder):
        time = np.arange(FRAMES)
        positions = 0.1 * np.stack([np.sin(0.7 * time), 0.3 * np.cos(time), 0 * time], axis=-1)
        move_camera(folder, positions, 3 * np.cos(0.8 * time))
        folder.camera["extrinsic"] = change(folder.camera["extrinsic"])

    return edit


RIGHT = {
    "as_given": leave,
    "other_world": other_world,
    "moving_camera": moving_camera(slice(None)),
    "small_orbit": small_orbit(),
    "handheld": handheld(),
    "three_degrees_off": three_degrees_off,
    "upper_half": crop(slice(0, 50), slice(None)),
    "legs": crop(slice(45, None), slice(None)),
    "right_border": crop(slice(None), slice(0, 50)),
    "loose_clothes": stand_out,
    "48_pixels": half_the_size,
    "legs_hidden": hide_legs,
}


@pytest.mark.parametrize("edit", RIGHT.values(), ids=RIGHT)
def test_right_data_is_not_stopped(folder, edit):
    edit(folder)
    assert check(folder).verdict != "wrong"


@pytest.mark.parametrize(
    "edit",
    [leave, other_world, moving_camera(slice(None)), small_orbit(), handheld(), half_the_size],
    ids=["as_given", "world", "moving", "orbit", "handheld", "half"],
)
def test_nothing_is_said_of_exact_data(folder, edit):
    edit(folder)
    diagnosis = check(folder)
    assert diagnosis.verdict == "good" and diagnosis.finding == "" and diagnosis.advice == ""
    assert diagnosis.means.coverage > 0.93 and diagnosis.means.joints == 1 and diagnosis.means.iou > 0.8


# Mistakes


def extrinsic(change):
    def edit(folder):
        folder.move_world()
        folder.camera["extrinsic"] = change(folder.camera["extrinsic"])

    return edit


def transposed_rotation(matrix):
    matrix[:3, :3] = matrix[:3, :3].T.copy()
    return matrix


def position_as_translation(matrix):
    matrix[:3, 3] = np.linalg.inv(matrix)[:3, 3]
    return matrix


def translation_times(factor):
    def change(matrix):
        matrix[:3, 3] *= factor
        return matrix

    return change


def intrinsic(change):
    def edit(folder):
        folder.camera["intrinsic"] = change(folder.camera["intrinsic"])

    return edit


def transl(change):
    def edit(folder):
        folder.transl = change(folder.transl)

    return edit


def order(rows):
    def edit(folder):
        folder.poses, folder.transl = folder.poses[rows], folder.transl[rows]

    return edit


def masks(change):
    return lambda folder: folder.edit_masks(change)


def images(change):
    return lambda folder: folder.edit_images_and_masks(change)


def crop_images_alone(folder):
    principal_point = folder.camera["intrinsic"].copy()
    crop(slice(None), slice(14, -14))(folder)
    folder.camera["intrinsic"] = principal_point


FAULTS = {
    "camera-to-world": extrinsic(np.linalg.inv),
    "row vectors": extrinsic(transposed_rotation),
    "OpenGL axes": extrinsic(lambda matrix: FLIP @ matrix),
    "OpenGL camera-to-world": extrinsic(lambda matrix: np.linalg.inv(FLIP @ matrix)),
    "world upside down": extrinsic(lambda matrix: matrix @ FLIP),
    "camera's unit": extrinsic(translation_times(1000)),
    "K of another resolution": intrinsic(lambda matrix: np.diag([0.5, 0.5, 1]) @ matrix),
    "focal length": intrinsic(lambda matrix: matrix * np.array([[0.4, 1, 1], [1, 0.4, 1], [1, 1, 1]])),
    "position as translation": extrinsic(position_as_translation),
    "principal point": crop_images_alone,
    "cameras in another order": moving_camera(sorted(range(FRAMES), key=str)),
    "masks transposed": masks(np.transpose),
    "masks inverted": masks(lambda mask: 255 - mask),
    "images turned": images(np.rot90),
    "mirrored": images(lambda image: image[:, ::-1]),
    "poses' unit": transl(lambda transl: transl * 1000),
    "translation missing": transl(np.zeros_like),
    "OpenGL translation": transl(lambda transl: transl * [1, -1, -1]),
    "constant offset": transl(lambda transl: np.add(transl, [0.05, 0.25, 0.0])),
    "poses shifted": order([*range(1, FRAMES), FRAMES - 1]),
    "string order": order(sorted(range(FRAMES), key=str)),
    "reversed": order(slice(None, None, -1)),
    "another order": order([4, 5, 3, 7, 9, 6, 0, 1, 10, 2, 8]),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_mistake_is_named(folder, kind):
    FAULTS[kind](folder)
    diagnosis = check(folder)
    assert diagnosis.verdict == "wrong"
    assert diagnosis.change is not None and diagnosis.change.kind == kind
    assert diagnosis.changed.coverage > 0.8 and diagnosis.changed.joints > 0.9
    assert diagnosis.change.words in diagnosis.advice and diagnosis.change.advice in diagnosis.advice


MOVING_FAULTS = {
    "inverted": (small_orbit(np.linalg.inv), "camera-to-world"),
    "handheld_inverted": (handheld(np.linalg.inv), "camera-to-world"),
    "of_the_frame_before": (handheld(lambda extrinsic: np.roll(extrinsic, 1, axis=0)), "cameras shifted"),
    "of_the_frame_after": (handheld(lambda extrinsic: np.roll(extrinsic, -1, axis=0)), "cameras shifted"),
    "backwards": (moving_camera(slice(None, None, -1)), "cameras reversed"),
}


@pytest.mark.parametrize(("edit", "kind"), MOVING_FAULTS.values(), ids=MOVING_FAULTS)
def test_cameras_that_are_wrong_by_little_are_named(folder, edit, kind):
    """The body covers most of the masks: where the camera moves little, each extrinsic is nearly each other's."""
    edit(folder)
    diagnosis = check(folder)
    assert diagnosis.verdict == "wrong" and diagnosis.change.kind == kind
    assert diagnosis.changed.coverage > 0.9 and diagnosis.changed.joints > 0.95


def estimated(folder):
    """Poses as an estimator gives them."""
    noise = {"degrees": 1.5, "millimeters": 6.0, "correlation": 2.0}
    rng = np.random.default_rng(0)
    folder.poses, folder.transl = add_pose_noise(folder.poses, folder.transl, **noise, rng=rng)


@pytest.mark.parametrize("edit", [moving_camera(slice(None)), small_orbit(), handheld()], ids=["far", "orbit", "shake"])
def test_estimated_poses_in_front_of_a_moving_camera_are_good(folder, edit):
    edit(folder)
    estimated(folder)
    assert check(folder).verdict == "good"


def test_inverted_cameras_stop_in_front_of_estimated_poses(folder):
    small_orbit(np.linalg.inv)(folder)
    estimated(folder)
    diagnosis = check(folder)
    assert diagnosis.verdict == "wrong" and diagnosis.change.kind == "camera-to-world"


def test_shifted_cameras_are_looked_up_among_all_frames(folder):
    """The frames that the changes are tried on are some of them, whose neighbours are left out."""
    handheld()(folder)
    whole = read(folder)
    some = whole.at([0, 4, 8])
    later = {change.words: change for change in camera_shift_changes(whole)}[
        "the extrinsic of 1 frame later in each frame"
    ]
    torch.testing.assert_close(later.apply(some).world_to_camera, whole.world_to_camera[[1, 5, 9]])
    backwards = next(change for change in camera_shift_changes(whole) if change.kind == "cameras reversed")
    torch.testing.assert_close(backwards.apply(some).world_to_camera, whole.world_to_camera[[10, 6, 2]])


@pytest.mark.parametrize("factor", [1.25, 4 / 3, 0.6])
def test_images_of_any_other_size(folder, factor):
    """The images were scaled, and their intrinsic was not."""
    folder.camera["intrinsic"][:2] *= factor
    folder.camera["intrinsic"][:2, 2] += (factor - 1) / 2  # pixel centers begin at 0
    diagnosis = check(folder)
    assert diagnosis.verdict == "wrong" and diagnosis.change.kind == "K of another resolution"
    found = re.search(r"the intrinsic times (\S+)", diagnosis.change.words)
    assert float(found[1]) == pytest.approx(1 / factor, rel=0.05)


def test_body_that_fills_the_image_fits_no_mask(folder):
    """It covers every mask, and few of its joints are seen."""
    right = read(folder)
    beside = replace(right, points=right.points + 100.0, joints=right.joints + 100.0)
    near = replace(right, focal=4 * right.focal)
    for result, fits in ((near, False), (right, True)):
        change = Change("any", "a change", "Make it", lambda recording, result=result: result)
        assert (best_change(beside, [change]) is not None) == fits
    assert mean_overlap(measure(near)).coverage > 0.9


def test_units_that_lengths_may_be_in():
    """Nobody walks by tenths of a millimetre: such numbers are right, or wrong in another way."""
    assert set(likely_units(torch.tensor([0.1, -0.4]))) == {100.0, 1000.0}
    assert set(likely_units(torch.tensor([150.0, 3000.0]))) == {0.001, 0.01}
    assert likely_units(torch.zeros(3)) == {}


def test_degrees_are_named(folder):
    """A reader refuses most of them; small turns look like radians to it."""
    recording = read(folder)
    given = recording.frame_poses
    in_degrees = replace(given, global_orient=given.global_orient.rad2deg(), body_pose=given.body_pose.rad2deg())
    diagnosis = diagnose(recording.with_poses(in_degrees))
    assert diagnosis.verdict == "wrong" and diagnosis.change is not None and diagnosis.change.kind == "degrees"


@pytest.mark.parametrize("given", [0.0, 3.0], ids=["missing", "of_another_body"])
def test_wrong_betas_are_a_warning(folder, given):
    """The person is of another shape than the betas say: all zero, or those of another body model."""
    recording = read(folder)
    betas, others = torch.zeros(10), torch.zeros(10)
    betas[1], others[1] = given, 2.0 - 2.0 * given / 3.0
    shown = silhouettes(recording.with_poses(replace(recording.frame_poses, betas=others)))
    wrong = recording.with_poses(replace(recording.frame_poses, betas=betas))
    diagnosis = diagnose(replace(wrong, masks=shown, poses=replace(recording.poses, betas=betas)))
    assert diagnosis.verdict == "doubtful"
    assert diagnosis.change.kind == ("betas of another body" if given else "betas missing")
    assert "betas" in diagnosis.advice


def shaped(recording, betas):
    """The frames with a body of these betas, known of the frames and of the recording."""
    other = recording.with_poses(replace(recording.frame_poses, betas=betas))
    return replace(other, poses=replace(recording.poses, betas=betas))


def times_transl(factor):
    def change(recording):
        poses = recording.frame_poses
        return recording.with_poses(replace(poses, transl=poses.transl * factor))

    return change


SIZES = {
    "focal_length_larger": (0.0, lambda recording: replace(recording, focal=1.12 * recording.focal)),
    "focal_length_larger_and_betas": (1.5, lambda recording: replace(recording, focal=1.12 * recording.focal)),
    "nearer": (0.0, times_transl(0.9)),
}


@pytest.mark.parametrize(("given", "change"), SIZES.values(), ids=SIZES)
def test_body_of_another_size_is_not_put_down_to_the_betas_alone(folder, given, change):
    """Lens, distance and shape make the body larger alike: which of them is wrong cannot be told."""
    betas = torch.zeros(10)
    betas[0] = given
    right = shaped(read(folder), betas)
    diagnosis = diagnose(change(replace(right, masks=silhouettes(right))))
    assert diagnosis.verdict == "doubtful" and diagnosis.change.kind == "size"
    assert all(cause in diagnosis.advice for cause in ("focal length", "transl", "betas"))
    assert diagnosis.changed.iou > diagnosis.means.iou + 0.05


def test_order_that_poses_or_masks_may_have(folder):
    """Both ways the frames fit as little."""
    FAULTS["reversed"](folder)
    assert "Poses or masks run backwards" in check(folder).advice
