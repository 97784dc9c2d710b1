"""Controls of the motion: files that load and files that do not, frames, and playing."""

from __future__ import annotations

import math
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nerfstudio.viewer.viewer_elements import ViewerControl

from instantavatar_ns.motion.editing import MotionOptions, edit_motion
from instantavatar_ns.motion.motion import load_motion
from instantavatar_ns.viewer.folder import UploadedFile
from instantavatar_ns.viewer.motion_controls import FRAME, LIBRARY, REST, RUN_MOTION, TIME, MotionControls
from instantavatar_ns.viewer.playback import Playback

TRAIN = 8


def load(path, root):
    return edit_motion(load_motion(path), MotionOptions(root=root))


@pytest.fixture
def controls():
    return MotionControls(TRAIN, None, load, ViewerControl())


@pytest.fixture
def motion_file(tmp_path):
    path = tmp_path / "poses.npz"
    np.savez(path, poses=0.1 * np.ones((31, 72)), trans=np.zeros((31, 3)), fps=15.0)
    return path


def load_file(controls, path):
    controls._file.value = str(path)
    controls._load_file(None)


def test_time_decides_until_something_else_is_chosen(controls) -> None:
    assert controls.shown() is None
    controls._shown.value = FRAME
    controls._frame.value = 3.0
    assert controls.shown() == (FRAME, 3)
    controls._frame.value = 900.0
    assert controls.shown() == (FRAME, TRAIN - 1)
    controls._frame.value = math.nan
    assert controls.shown() == (FRAME, 0)
    controls._shown.value = REST
    assert controls.shown() == (REST, 0)


def test_motion_file_is_shown_once_loaded(controls, motion_file) -> None:
    load_file(controls, f' "{motion_file}" ')
    assert controls.message == "" and controls._shown.value == "poses" and controls.shown() == ("poses", 0)
    controls._position.value = 0.5
    assert controls.shown() == ("poses", 15)
    controls._position.value = 7.0
    assert controls.shown() == ("poses", 30)
    controls._position.value = math.nan
    assert controls.shown() == ("poses", 0)
    controls._position.value = 1.0
    assert controls.named("poses").duration == pytest.approx(2.0)
    load_file(controls, motion_file)
    assert controls.shown() == (str(motion_file), 30), "the name is taken, the whole path is not"


def test_runs_motion_and_the_motions_of_the_package_are_offered(motion_file) -> None:
    controls = MotionControls(TRAIN, load(motion_file, "follow"), load, ViewerControl())
    shipped = sorted(path.stem for path in LIBRARY.glob("*.npz"))
    assert controls._shown.options == [TIME, FRAME, REST, RUN_MOTION, *shipped]
    for name in [RUN_MOTION, *shipped]:
        controls._shown.value = name
        controls._choose(None)
        assert controls.message == "" and controls.shown() == (name, 0)


def wrong_files(folder):
    (folder / "text.npz").write_text("poses")
    (folder / "text.pkl").write_text("poses")
    np.savez(folder / "joints23.npz", poses=np.zeros((4, 69)), trans=np.zeros((4, 3)))
    np.savez(folder / "empty.npz", poses=np.zeros((0, 72)), trans=np.zeros((0, 3)))
    np.savez(folder / "nan.npz", poses=np.full((4, 72), np.nan), trans=np.zeros((4, 3)))
    np.savez(folder / "letters.npz", poses=np.array([["a"] * 72]), trans=np.zeros((1, 3)))
    names = "text.npz text.pkl joints23.npz empty.npz nan.npz letters.npz missing.npz".split()
    return [
        *(str(folder / name) for name in names),
        str(folder),
        "~no_such_user/x.npz",
        "a\0b",
        "![x](/etc/passwd)",
        "x" * 5000,
    ]


def test_wrong_files_are_answered_by_a_message_and_change_nothing(controls, tmp_path) -> None:
    for path in wrong_files(tmp_path):
        controls._message.text = ""
        load_file(controls, path)
        assert len(controls.message) > 20, path
        assert controls._shown.value == TIME and controls.shown() is None
        assert controls._shown.options[:3] == [TIME, FRAME, REST] and path not in controls._shown.options
    load_file(controls, "  ")
    assert "path of a motion file" in controls.message


def places(controls, name):
    """Pelvis positions of a motion, but for an offset."""
    return controls.named(name).transl


def test_motion_goes_where_the_root_option_says(controls) -> None:
    controls._shown.value = "walk"
    controls._choose(None)
    ways = {}
    for root in ("follow", "as-recorded", "in-place", "follow"):
        controls._root.value = root
        controls._choose_root(None)
        assert controls.shown() == ("walk", 0) and controls.message == ""
        ways[root] = float((places(controls, "walk") - places(controls, "walk")[0]).norm(dim=1).max())
    assert 3.0 < ways["as-recorded"] < 3.3 and ways["follow"] < 0.1 and ways["in-place"] < 0.05


def test_other_motions_take_the_new_root_when_they_are_shown_again(controls, tmp_path) -> None:
    walk = tmp_path / "strolls.npz"
    np.savez(walk, poses=np.zeros((31, 72)), trans=np.linspace([0, 0, 0], [0, 0, 2], 31), fps=15.0)
    load_file(controls, walk)
    torch.testing.assert_close(places(controls, "strolls")[-1], places(controls, "strolls")[0], atol=1e-5, rtol=0)
    controls._shown.value = FRAME
    controls._root.value = "as-recorded"
    controls._choose_root(None)
    controls._shown.value = "strolls"
    controls._choose(None)
    way = places(controls, "strolls")[-1] - places(controls, "strolls")[0]
    assert float(way.norm()) == pytest.approx(2.0, abs=1e-4)
    # Of a file that is gone the former clip stays, and the message says so.
    walk.unlink()
    controls._root.value = "in-place"
    controls._choose_root(None)
    assert "strolls.npz" in controls.message and controls.shown() == ("strolls", 0)


def upload(controls, path, name=None):
    controls._upload(UploadedFile(name or path.name, path.read_bytes()))


def test_uploaded_file_is_kept_with_the_run_and_shown(controls, motion_file, tmp_path) -> None:
    controls._control.viewer = SimpleNamespace(log_filename=tmp_path / "run" / "viewer.txt")
    kept = tmp_path / "run" / "motions"
    upload(controls, motion_file, "../../evil/poses.npz")
    assert controls.message == "" and controls.shown() == ("poses", 0)
    assert controls.file("poses") == str(kept / "poses.npz") and controls.file("walk") == "walk"
    upload(controls, motion_file)
    assert [path.name for path in kept.iterdir()] == ["poses.npz"], "the same again"
    np.savez(motion_file, poses=np.zeros((3, 72)), trans=np.zeros((3, 3)))
    upload(controls, motion_file)
    assert sorted(path.name for path in kept.iterdir()) == ["poses.npz", "poses_2.npz"], "another of that name"
    assert controls._shown.value == "poses_2"
    (tmp_path / "text.bvh").write_text("no motion")
    upload(controls, tmp_path / "text.bvh")
    assert "text.bvh" in controls.message and controls._shown.value == "poses_2"
    assert sorted(path.name for path in kept.iterdir()) == ["poses.npz", "poses_2.npz"], "what is none is not kept"
    (tmp_path / "run" / "viewer.txt").write_text("")
    controls._control.viewer.log_filename = tmp_path / "run" / "viewer.txt" / "log"
    upload(controls, motion_file)
    assert "cannot be kept" in controls.message


def test_playing_the_rest_pose_says_that_it_does_not_move(controls) -> None:
    controls._shown.value, controls._play.value = REST, True
    controls._play_or_pause(None)
    assert "does not move" in controls.message and not controls._playback.playing


def test_steps_move_what_is_shown_at_its_own_speed(controls, motion_file) -> None:
    load_file(controls, motion_file)
    controls._speed.value = 2.0
    assert controls._advance(0.25) and controls._position.value == pytest.approx(0.25)
    assert controls._busy(), "the callback of that step has not come back, and there is no viewer"
    assert controls._advance(0.875) and controls._position.value == pytest.approx(0.125), "it begins again"
    controls._position.value, controls._speed.value = 0.3, 0.1
    for _ in range(20):  # of a two-hundredth of a thousandth
        assert controls._advance(0.0001)
        assert len(str(controls._position.value)) <= 5, "no long numbers beside the slider"
    assert controls._exact == pytest.approx(0.3001, abs=1e-6), "however short the steps are"
    controls._speed.value = 2.0
    controls._shown.value = FRAME
    assert controls._advance(0.05) and controls._frame.value == 3
    controls._frame.value = 6.0
    assert controls._advance(0.05) and controls._frame.value == 1, "from where the slider was put, and again from 0"
    controls._shown.value = TIME
    panel = SimpleNamespace(time=0.9)
    controls._control.viewer = SimpleNamespace(control_panel=panel)
    assert controls._advance(0.5 * TRAIN / 30 / 2) and panel.time == pytest.approx(0.4)


def test_playback_waits_for_the_viewer_and_leaves_time_to_training(controls) -> None:
    machine = SimpleNamespace(next_action=None)
    server = SimpleNamespace(get_clients=lambda: {0: None})
    controls._control.viewer = SimpleNamespace(viser_server=server, render_statemachines={0: machine})
    assert not controls._busy()
    machine.next_action = object()
    assert controls._busy(), "a rendering waits"
    machine.next_action = None
    controls.leave_time(0.2)
    assert controls._busy()
    time.sleep(0.25)
    assert not controls._busy()
    server.get_clients = dict
    assert controls._busy(), "nobody looks"


def test_viewer_that_was_shut_down_ends_the_playback(controls) -> None:
    class Gone:
        @property
        def time(self):
            raise RuntimeError("cannot schedule new futures after shutdown")

    controls._control.viewer = SimpleNamespace(control_panel=Gone())
    assert controls._advance(0.1) is False


def test_playback_skips_while_busy_keeps_its_speed_and_ends() -> None:
    steps, busy = [], threading.Event()
    playback = Playback(lambda seconds: steps.append(seconds) or True, busy.is_set)
    start = time.monotonic()
    playback.play()
    playback.play()
    time.sleep(0.3)
    busy.set()
    time.sleep(0.1)
    count = len(steps)
    time.sleep(0.4)
    assert len(steps) == count >= 2
    busy.clear()
    time.sleep(0.3)
    thread = playback._thread
    playback.pause()
    thread.join(timeout=5)
    assert not thread.is_alive() and not playback.playing
    assert max(steps) > 0.4, "the step after the wait makes up for it"
    assert sum(steps) == pytest.approx(time.monotonic() - start, abs=0.3), "one thread, not two"
    playback.play()
    assert playback._thread is not None and playback._thread.is_alive(), "it can be started again"
    playback.pause()
    playback._thread.join(timeout=5)


def test_playback_ends_by_itself_when_there_is_nothing_left_to_move() -> None:
    playback = Playback(lambda seconds: False, lambda: False)
    playback.play()
    thread = playback._thread
    thread.join(timeout=5)
    assert not thread.is_alive() and not playback.playing
