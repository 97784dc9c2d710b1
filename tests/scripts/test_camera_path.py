"""Camera paths of nerfstudio's viewer, and the motion's time along them."""

import json

import numpy as np
import pytest

from instantavatar_ns.scripts.camera_path import film_motion, read_camera_path
from instantavatar_ns.utils.errors import InputError

CAMERA = {"camera_to_world": np.eye(4).ravel().tolist(), "fov": 40.0, "aspect": 1.0}


def viewer_path(times, **more):
    frames = [CAMERA if time is None else {**CAMERA, "render_time": time} for time in times]
    sizes = {
        "camera_type": "perspective",
        "render_width": 64,
        "render_height": 48,
        "fps": 10,
        "seconds": len(times) / 10,
    }
    return {**sizes, "camera_path": frames, **more}


def times_of(path):
    return [frame["render_time"] for frame in path["camera_path"]]


@pytest.mark.parametrize("time", [None, 0.0, 0.3])
def test_motion_plays_at_its_own_speed_where_no_keyframe_sets_a_time(time):
    path = film_motion(viewer_path([time] * 6), num_poses=11, fps=10.0, loops=False)
    np.testing.assert_allclose(times_of(path), np.arange(6) / 10)


def test_motion_that_is_over_holds_its_last_pose_or_starts_again():
    content = viewer_path([0.0] * 6)
    np.testing.assert_allclose(times_of(film_motion(content, 4, 10.0, loops=False)), [0, 1 / 3, 2 / 3, 1, 1, 1])
    np.testing.assert_allclose(times_of(film_motion(content, 4, 10.0, loops=True)), [0, 1 / 3, 2 / 3, 1, 0, 1 / 3])
    assert times_of(film_motion(content, 1, 10.0, loops=True)) == [0.0] * 6


def test_times_of_keyframes_are_kept():
    times = [0.0, 0.5, 1.0, 0.5]
    path = film_motion(viewer_path(times), num_poses=100, fps=20.0, loops=False)
    assert times_of(path) == times
    assert (path["fps"], path["seconds"]) == (20.0, 0.2)


def test_saved_path_is_read(tmp_path):
    (tmp_path / "path.json").write_text(json.dumps(viewer_path([0.0, 1.0])))
    assert read_camera_path(tmp_path / "path.json") == viewer_path([0.0, 1.0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "expected a camera path of nerfstudio's viewer"),
        ("[]", "expected a camera path of nerfstudio's viewer"),
        (json.dumps({"keyframes": []}), "no 'render_height'"),
        (json.dumps(viewer_path([])), "with frames|camera path of nerfstudio's viewer"),
        (json.dumps(viewer_path([0.0], seconds=0)), "with frames, found none"),
        (json.dumps(viewer_path([0.0], camera_type="vr180")), "one camera a frame, found vr180"),
        (json.dumps(viewer_path([0.0], crop={"crop_center": [0, 0, 0]})), "without crop"),
    ],
)
def test_unusable_paths(tmp_path, content, message):
    if content is not None:
        (tmp_path / "path.json").write_text(content)
    with pytest.raises(InputError, match=rf"path\.json: .*({message})"):
        read_camera_path(tmp_path / "path.json")
