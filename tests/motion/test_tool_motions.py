"""What pose estimators write, given as a motion."""

import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import instantavatar_ns.importing.motions  # noqa: F401  # lets load_motion read these files
from instantavatar_ns.importing.placement import PELVIS
from instantavatar_ns.motion.motion import load_motion
from instantavatar_ns.utils.errors import InputError
from tests.importing.tool_files import (
    SMPLX_TOOLS,
    UPRIGHT,
    WRITERS,
    camera_path,
    gvhmr_content,
    make_truth,
    phalp_content,
    prompthmr_content,
    sam3d_content,
    wham_content,
    write_gvhmr,
    write_romp_video,
    write_sam3d,
    write_tram,
)

IN_WORLD = {"wham": UPRIGHT.as_matrix(), "gvhmr": np.eye(3), "prompthmr": UPRIGHT.as_matrix()}
"""Turns from the camera, or from the world in which it moves, to that of each tool's poses."""
MOVING = ("tram", "prompthmr")
UP = {"wham": [0, 1, 0], "prompthmr": [0, 1, 0]}
"""Vertical axis where it is not the camera's."""


def truth_of(tool):
    return make_truth(tool, hands=tool not in SMPLX_TOOLS)


def written(tmp_path, tool):
    write, name = WRITERS[tool]
    return write(tmp_path / name, truth_of(tool))


def rotations_of(motion):
    return Rotation.from_rotvec(motion.axis_angles.reshape(-1, 3).numpy()).as_matrix().reshape(-1, 24, 3, 3)


def expected_of(tool):
    """Rotations, and places of the pelvis but for a constant, in the world that the tool tells."""
    truth = truth_of(tool)
    rotations, pelvis = truth.matrices.copy(), np.array(PELVIS["SMPL-X" if tool in SMPLX_TOOLS else "SMPL"])
    cameras = camera_path(len(truth)) if tool in MOVING else np.tile(np.eye(4), (len(truth), 1, 1))
    turns = IN_WORLD.get(tool, np.eye(3)) @ cameras[:, :3, :3]
    rotations[:, 0] = turns @ rotations[:, 0]
    places = np.einsum("frc,fc->fr", turns, truth.transl + (pelvis if tool in MOVING else 0))
    return rotations, places + cameras[:, :3, 3] @ IN_WORLD.get(tool, np.eye(3)).T


@pytest.mark.parametrize("tool", WRITERS)
def test_results_of_tools_are_motions(tmp_path, notices_given, tool):
    """Poses, path, vertical axis; and who it is, where the poses are, and which rate is assumed."""
    motion = load_motion(written(tmp_path, tool))
    rotations, places = expected_of(tool)
    np.testing.assert_allclose(rotations_of(motion), rotations, atol=2e-5)
    # Single precision, of people up to 40 m from the camera.
    rounding = 1e-6 * np.abs(places).max()
    np.testing.assert_allclose(np.diff(motion.transl, axis=0), np.diff(places, axis=0), atol=rounding)
    np.testing.assert_array_equal(motion.up, UP.get(tool, [0, -1, 0]))
    assert motion.fps == 30.0
    said = " ".join(notices_given)
    assert f"track {'1' if tool in ('phalp', 'prompthmr') else '0'}, found in 9 frames" in said
    assert "Took 30 frames per second (--source-fps)" in said
    assert ("in the tool's world" in said) == (tool in IN_WORLD)
    assert ("put into the world by the tool's camera" in said) == (tool == "tram")
    assert ("Poses are the camera's" in said) == (tool not in (*IN_WORLD, "tram"))


@pytest.mark.parametrize("tool", WRITERS)
def test_rate_and_vertical_axis_that_are_given(tmp_path, tool):
    motion = load_motion(written(tmp_path, tool), fps=25.0, up="z")
    assert motion.fps == 25.0
    np.testing.assert_array_equal(motion.up, [0, 0, 1])


def test_tracked_video_of_romp(tmp_path):
    truth = truth_of("romp")
    motion = load_motion(write_romp_video(tmp_path / "video_results.npz", truth))
    np.testing.assert_allclose(rotations_of(motion), truth.matrices, atol=1e-5)


def test_camera_poses_of_prompthmr_are_put_into_the_world(tmp_path, notices_given):
    content = prompthmr_content(truth_of("prompthmr"))
    del content["people"][1]["smplx_world"]
    joblib.dump(content, tmp_path / "results.pkl")
    motion = load_motion(tmp_path / "results.pkl")
    rotations, places = expected_of("prompthmr")
    rotations[:, 0], places = UPRIGHT.as_matrix().T @ rotations[:, 0], places @ UPRIGHT.as_matrix()
    np.testing.assert_allclose(rotations_of(motion), rotations, atol=1e-5)
    np.testing.assert_allclose(np.diff(motion.transl, axis=0), np.diff(places, axis=0), atol=1e-5)
    assert "put into the world by the tool's camera" in " ".join(notices_given)


def test_longest_track_is_taken_and_the_others_are_named(tmp_path, notices_given):
    content = wham_content(truth_of("wham"))
    joblib.dump({3: content[3], 0: content[0]}, tmp_path / "wham_output.pkl")
    assert len(load_motion(tmp_path / "wham_output.pkl")) == 9
    assert "track 0, found in 9 frames, the longest; others are 3 (2 frames)" in notices_given[0]


def test_people_of_equal_length(tmp_path, notices_given):
    person = wham_content(truth_of("wham"))[0]
    joblib.dump({0: person, 1: {**person, "pose_world": 0 * person["pose_world"]}}, tmp_path / "wham_output.pkl")
    np.testing.assert_allclose(
        rotations_of(load_motion(tmp_path / "wham_output.pkl")), expected_of("wham")[0], atol=1e-5
    )
    assert "others are 1 (9 frames)" in notices_given[0]


def test_short_gaps_are_filled_and_long_ones_told(tmp_path, notices_given):
    truth = truth_of("wham")
    person = {key: np.delete(value, [3, 4], axis=0) for key, value in wham_content(truth)[0].items()}
    joblib.dump({0: person}, tmp_path / "short.pkl")
    motion, (rotations, _) = load_motion(tmp_path / "short.pkl"), expected_of("wham")
    known = [0, 1, 2, 5, 6, 7, 8]
    assert len(motion) == 9
    np.testing.assert_allclose(rotations_of(motion)[known], rotations[known], atol=1e-5)
    assert "2 of its frames, in which the person was not found, are interpolated" in notices_given[0]
    person["frame_ids"] = person["frame_ids"] + 20 * (person["frame_ids"] > 2)
    joblib.dump({0: person}, tmp_path / "long.pkl")
    assert len(load_motion(tmp_path / "long.pkl")) == 7
    assert any("not found in frames 3 to 24, which are left out" in text for text in notices_given)


def test_file_in_a_folder(tmp_path):
    (tmp_path / "video").mkdir()
    write_gvhmr(tmp_path / "video" / "hmr4d_results.pt", truth_of("gvhmr"))
    motion = load_motion(tmp_path / "video")
    np.testing.assert_allclose(rotations_of(motion), expected_of("gvhmr")[0], atol=1e-5)
    assert motion.name == "video"


def test_world_poses_need_no_camera(tmp_path):
    content = gvhmr_content(truth_of("gvhmr"))
    torch.save({"smpl_params_global": content["smpl_params_global"]}, tmp_path / "m.pt")
    np.testing.assert_allclose(load_motion(tmp_path / "m.pt").transl, truth_of("gvhmr").transl + 5, rtol=1e-5)


def test_tram_person_without_the_camera_is_told(tmp_path, notices_given):
    folder = write_tram(tmp_path / "tram_output", truth_of("tram"))
    motion = load_motion(folder / "hps" / "hps_track_0.npy")
    np.testing.assert_allclose(rotations_of(motion), truth_of("tram").matrices, atol=1e-5)
    assert any("its poses are the camera's" in text and "Give the folder" in text for text in notices_given)


def test_tram_with_fewer_cameras_than_frames(tmp_path):
    folder = write_tram(tmp_path / "tram_output", truth_of("tram"))
    camera = np.load(folder / "camera.npy", allow_pickle=True).item()
    np.save(folder / "camera.npy", {**camera, **{key: camera[key][:5] for key in ("pred_cam_R", "pred_cam_T")}})  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="found 5 cameras and frames 0 to 8"):
        load_motion(folder)


@pytest.mark.parametrize("form", ["folder", "person", "pickle"])
def test_sam3d_body_has_no_poses_yet(tmp_path, form):
    truth = make_truth("sam3d")
    path = write_sam3d(tmp_path / "sam", truth)
    if form == "person":
        path = next(path.glob("*.npz"))
    elif form == "pickle":
        path = tmp_path / "sam.pkl"
        joblib.dump([[person] for person in sam3d_content(truth)[:2]], path)
    with pytest.raises(
        InputError, match=r"none before a body is fitted to it\. Run instant-avatar import .* poses\.npz"
    ):
        load_motion(path)


def test_folder_without_a_result(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match=r"expected a pose estimator's result, found notes\.txt"):
        load_motion(tmp_path)


def test_rate_that_a_caller_saved_is_used(tmp_path):
    """NLF's lists are saved by its callers, who may add the rate."""
    path = written(tmp_path, "nlf")
    joblib.dump({**joblib.load(path), "fps": 24}, path)
    assert load_motion(path).fps == 24.0


def test_plain_poses_beside_joints_are_no_list_of_images(tmp_path):
    truth = truth_of("nlf")
    np.savez(
        tmp_path / "m.npz", pose=truth.thetas, trans=truth.transl, joints3d=np.zeros((9, 24, 3)), betas=truth.betas
    )
    np.testing.assert_allclose(rotations_of(load_motion(tmp_path / "m.npz")), truth.matrices, atol=1e-5)


def test_phalp_predictions_are_not_played(tmp_path):
    content = phalp_content(truth_of("phalp"))
    for frame in list(content.values())[6:]:
        frame["tracked_time"] = [1, 5]
    joblib.dump(content, tmp_path / "m.pkl")
    assert len(load_motion(tmp_path / "m.pkl")) == 6


@pytest.mark.parametrize("module", ["config", "scripts.animate", "scripts.export"])
def test_commands_read_them_and_start_without_what_that_needs(module):
    """Nerfstudio's commands load the first, ours the others; each is a process of its own."""
    code = f"""
import sys
import instantavatar_ns.{module}
from instantavatar_ns.motion import readers
print([reader.__name__ for reader in readers._motion_readers])
print([name for name in sys.modules if name.startswith("instantavatar_ns.importing.")])
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.splitlines()[-2:] == ["['read_tool_motion']", "['instantavatar_ns.importing.motions']"]
