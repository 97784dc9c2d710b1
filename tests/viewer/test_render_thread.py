"""Images get sharper in steps, leave time to training, and end where they may once they are outdated."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.viewer import render_state_machine
from nerfstudio.viewer.render_state_machine import RenderAction
from nerfstudio.viewer.utils import CameraState
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException

from instantavatar_ns.viewer import render_thread
from instantavatar_ns.viewer.avatar_viewer import AvatarViewer, distinct_cameras
from instantavatar_ns.viewer.image_thread import check_outdated, timed_image
from instantavatar_ns.viewer.render_thread import RenderThread, Timings

PATIENCE = 20.0
MAX_RES = 512


class Viewer:
    """Stands in for the viewer of one client, whose model is this, and takes as long for every pixel."""

    def __init__(self) -> None:
        self.ready, self.include_time, self.train_lock, self.step = True, False, threading.Lock(), 0
        self.control_panel = SimpleNamespace(crop_viewport=False, max_res=MAX_RES, layer_depth=False)
        self.render_tab_state = SimpleNamespace(preview_render=False)
        self.is_training, self.training, self.device = False, False, torch.device("cpu")
        self.pixel_seconds, self.error, self.callers = 1e-7, None, 0
        self.sent: list[tuple[str, int, float]] = []  # each image's state and lines, and when
        self.lock, self.started = threading.Lock(), threading.Event()
        client = SimpleNamespace(client_id=7, camera=SimpleNamespace(aspect=1.0))
        self.machine = RenderThread(self, client)  # pyright: ignore[reportArgumentType]
        self.machine._send_output_to_viewer = self._send  # pyright: ignore[reportAttributeAccessIssue]

    def eval(self) -> None:
        """Of the model: nothing."""

    def get_model(self) -> Viewer:
        """As nerfstudio's viewer does."""
        return self

    def get_camera_state(self, _: object = None) -> CameraState:
        """As nerfstudio's viewer does."""
        return CameraState(1.0, 1.0, torch.eye(4)[:3], None, time=0.0)  # pyright: ignore[reportArgumentType]

    def get_outputs_for_camera(self, camera: Any, **__: object) -> dict[str, Any]:
        """An image of 20 chunks of rays, each under a lock."""
        with timed_image():
            self.started.set()
            if self.error is not None:
                raise self.error
            for _chunk in range(20):
                check_outdated()
                with self.lock:
                    time.sleep(int(camera.height) * int(camera.width) * self.pixel_seconds / 20)
        return {}

    def _send(self, *_: object, **__: object) -> None:
        self.sent.append((self.machine.state, self.machine._next_lines, time.monotonic()))

    def move(self) -> float:
        """Something is changed; returns when."""
        start = time.monotonic()
        self.machine.action(RenderAction("move", self.get_camera_state()))
        return start

    def rest(self) -> None:
        """Wait until the image is sharp."""
        wait(lambda: self.machine.state == "high" and self.machine.next_action is None)


@pytest.fixture
def viewer(monkeypatch: pytest.MonkeyPatch):
    """A viewer whose thread runs."""

    def camera(_: object, height: int, width: int) -> Any:
        result = SimpleNamespace(height=torch.tensor(height), width=torch.tensor(width), to=lambda _: result)
        return result

    monkeypatch.setattr(render_state_machine, "Cameras", SimpleNamespace)
    monkeypatch.setattr(render_state_machine, "get_camera", camera)
    result = Viewer()
    result.machine.start()
    yield result
    result.machine.running = False
    result.machine.join(PATIENCE)


def wait(condition: Callable[[], object]) -> None:
    """Until it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_images_get_sharper_in_steps_and_then_rest(viewer) -> None:
    viewer.pixel_seconds = 1e-6
    viewer.rest()
    assert [lines for _, lines, _ in viewer.sent] == [30, 100, 200, MAX_RES]
    viewer.sent.clear()
    time.sleep(0.5)
    assert not viewer.sent, "nothing has changed"


def test_quick_machines_move_at_full_size(viewer) -> None:
    viewer.pixel_seconds = 1e-9
    viewer.rest()
    wait(lambda: viewer.move() and viewer.sent[-1][:2] == ("low_move", MAX_RES))
    viewer.sent.clear()
    viewer.rest()
    assert {lines for _, lines, _ in viewer.sent} == {MAX_RES}


def test_change_at_rest_is_shown_by_the_next_image(viewer) -> None:
    for _ in range(3):
        viewer.rest()
        viewer.sent.clear()
        start = viewer.move()
        wait(lambda: viewer.sent)
        assert viewer.sent[0][0] == "low_move" and viewer.sent[0][2] - start < 0.2


def test_outdated_sharp_image_ends_between_two_chunks(viewer) -> None:
    viewer.rest()
    viewer.pixel_seconds = 4e-6  # a second for an image of full size
    for _ in range(2):
        viewer.move()
        wait(lambda: viewer.machine._next_lines == MAX_RES and viewer.machine.state == "low_static")
        time.sleep(0.1)
        viewer.sent.clear()
        start = viewer.move()
        wait(lambda: viewer.sent)
        assert viewer.sent[0][0] == "low_move" and viewer.sent[0][2] - start < 0.5
        assert not viewer.lock.locked()


def test_sharp_image_makes_way_for_callbacks(viewer) -> None:
    viewer.rest()
    viewer.pixel_seconds = 4e-6
    viewer.move()
    wait(lambda: viewer.machine._next_lines == MAX_RES and viewer.machine.state == "low_static")
    viewer.callers, start = 1, time.monotonic()
    with viewer.train_lock:
        assert time.monotonic() - start < 0.5
    viewer.callers = 0
    wait(lambda: viewer.machine._lines == MAX_RES)


def test_while_training_runs_images_take_no_longer_than_they_may(viewer, monkeypatch) -> None:
    monkeypatch.setattr(render_thread, "_TRAINING", 0.1)
    viewer.is_training, viewer.pixel_seconds = True, 1e-6
    wait(lambda: viewer.sent and viewer.sent[-1][1] == 200)
    time.sleep(0.3)
    for _ in range(2):
        count = len(viewer.sent)
        viewer.machine.action(RenderAction("step", viewer.get_camera_state()))
        wait(lambda count=count: len(viewer.sent) > count)
    assert viewer.sent[-1][1] == 200
    viewer.is_training = False
    wait(lambda: viewer.sent[-1][1] == MAX_RES)


def test_waiting_for_a_training_step_is_not_the_images_time(viewer) -> None:
    viewer.rest()
    with viewer.train_lock:
        viewer.move()
        wait(lambda: viewer.machine.waiting)
        time.sleep(0.3)
    viewer.sent.clear()
    wait(lambda: viewer.sent)
    assert viewer.machine.seconds < 0.2 and not viewer.machine.waiting


def test_error_ends_an_image_and_not_the_thread(viewer, capsys) -> None:
    viewer.rest()
    viewer.error, count = ValueError("no such number"), len(viewer.sent)
    viewer.started.clear()
    viewer.move()
    wait(viewer.started.is_set)
    wait(lambda: viewer.machine.state == "high")
    viewer.error = None
    viewer.move()
    wait(lambda: len(viewer.sent) > count)
    assert "no such number" in capsys.readouterr().out


def test_images_are_not_traced(viewer) -> None:
    traces: list[object] = []
    viewer.get_outputs_for_camera = lambda *_, **__: traces.append(sys.gettrace()) or {}
    viewer.move()
    wait(lambda: traces)
    assert traces[0] is None


def test_nothing_ends_but_images_that_are_being_sharpened() -> None:
    viewer = Viewer()
    moved = RenderAction("move", viewer.get_camera_state())
    viewer.machine.state, viewer.machine.next_action = "low_static", moved
    check_outdated()  # another thread's image
    ended: dict[tuple[str, str | None], bool] = {}

    def run() -> None:
        for state in ("low_move", "low_static"):
            for action in (None, "static", "step", "move", "rerender"):
                viewer.machine.state = state
                waiting = None if action is None else RenderAction(action, moved.camera_state)
                viewer.machine.next_action, ended[state, action] = waiting, True
                with contextlib.suppress(IOChangeException):
                    check_outdated()
                    ended[state, action] = False

    viewer.machine.run = run
    viewer.machine.start()
    viewer.machine.join(PATIENCE)
    interrupted = [case for case, is_ended in ended.items() if is_ended]
    assert interrupted == [("low_static", "move"), ("low_static", "rerender")]
    assert len(ended) == 10


def test_depth_of_moving_images_is_small(monkeypatch) -> None:
    viewer, sent = Viewer(), []
    monkeypatch.setattr(
        render_state_machine.RenderStateMachine,
        "_send_output_to_viewer",
        lambda _, outputs, static_render: sent.append(outputs["gl_z_buf_depth"]),
    )
    depth = torch.arange(400.0 * 512).view(400, 512, 1)
    for state in ("low_move", "high"):
        viewer.machine.state = state
        RenderThread._send_output_to_viewer(viewer.machine, {"gl_z_buf_depth": depth})
    assert sent[0].shape == (100, 128, 1) and torch.equal(sent[0], depth[::4, ::4])
    assert sent[1] is depth


def test_guess_follows_what_images_took(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(render_thread, "monotonic", lambda: now[0])
    timings = Timings()
    assert not timings and timings.guess(900) == float("inf")
    timings.note(900, 0.1)
    assert timings.guess(900) == 0.1 and timings.guess(90_000) == pytest.approx(1.0)
    timings.note(90_000, 8.0)
    assert timings.guess(90_000) == 8.0 and timings.guess(900) == 0.1
    now[0] = 60.0
    timings.note(900, 0.1)
    assert timings.guess(90_000) == pytest.approx(1.0), "what was long ago is tried again"


def test_one_slow_image_among_fast_ones_does_not_make_the_others_small() -> None:
    timings = Timings()
    for seconds in (0.02, 0.02, 0.3):
        timings.note(512 * 512, seconds)
    assert timings.guess(512 * 512) == 0.02
    for _ in range(3):
        timings.note(512 * 512, 0.3)
    assert timings.guess(512 * 512) == 0.3, "all of the last ones are slow"


# The viewer


def avatar_viewer(state: str = "training") -> Any:
    """One without a server, and what it has done."""
    viewer: Any = AvatarViewer.__new__(AvatarViewer)
    viewer.trainer = SimpleNamespace(training_state=state)
    viewer.train_lock, viewer.last_move_time, viewer.pipeline = threading.Lock(), 0.0, None
    viewer.control_panel = SimpleNamespace(train_util=0.8)
    thread = SimpleNamespace(waiting=False, seconds=0.02, asked=[])
    thread.action = lambda action: thread.asked.append(action.action)
    viewer.render_statemachines = {7: thread}
    viewer.viser_server = SimpleNamespace(get_clients=lambda: {7: None, 8: None})
    viewer.get_camera_state = lambda _: None
    viewer.steps = []
    viewer.update_step = viewer.steps.append
    return viewer


def test_training_shows_its_step_and_asks_for_images_by_the_clock() -> None:
    viewer = avatar_viewer()
    end, step = time.monotonic() + 1.2, 0
    while time.monotonic() < end:
        viewer.update_scene(step, 1024)
        step += 1
        time.sleep(0.002)
    assert viewer.step == step - 1
    assert 2 <= len(viewer.steps) <= 3 and viewer.steps[-1] > step / 2, "twice a second"
    asked = viewer.render_statemachines[7].asked
    assert set(asked) == {"step"} and 8 <= len(asked) <= 13, "an image of 0.02 s leaves 80 % of the time to training"
    paused = avatar_viewer("paused")
    paused.update_scene(step)
    assert not paused.render_statemachines[7].asked


def test_finished_run_shows_its_step_and_asks_for_nothing() -> None:
    viewer = avatar_viewer()
    viewer.trainer = None
    viewer.update_scene(799)
    assert viewer.steps == [799] and not viewer.render_statemachines[7].asked


def test_callbacks_and_images_get_the_lock_between_two_steps() -> None:
    viewer = avatar_viewer()
    got: list[int] = []
    step = -1

    def callback() -> None:
        with viewer.between_steps():
            got.append(step)

    thread = threading.Thread(target=callback)
    for step in range(60):
        with viewer.train_lock:
            time.sleep(0.005)
        if step == 5:
            thread.start()
            time.sleep(0.02)
        viewer.update_scene(step)
    thread.join(PATIENCE)
    assert got and got[0] <= 8, "it does not wait for the end of training"


def test_cameras_in_one_place_are_drawn_once() -> None:
    still = np.tile(np.eye(3, 4), (5, 1, 1))
    assert distinct_cameras(still) == [0]
    still[3, 0, 3] = 0.1
    assert distinct_cameras(still) == [0, 3]
    still[:, 1, 3] = np.arange(5)
    assert distinct_cameras(still) == [0, 1, 2, 3, 4]
