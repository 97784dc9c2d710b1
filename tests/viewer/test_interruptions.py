"""Images of nerfstudio's render threads end where they may, when they are outdated, and only then."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.viewer.render_state_machine import RenderAction, RenderStateMachine
from nerfstudio.viewer.utils import CameraState
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException

from instantavatar_ns.viewer.interruptions import Interruptions

PATIENCE = 20.0


class Viewer:
    """Stands in for nerfstudio's viewer of one client, whose model is this."""

    def __init__(self, *, ours: bool) -> None:
        self.ready, self.include_time, self.train_lock, self.step = True, False, threading.Lock(), 0
        self.control_panel = SimpleNamespace(crop_viewport=False, max_res=64, layer_depth=False)
        self.render_tab_state = SimpleNamespace(preview_render=False)
        self.training, self.device, self.pipeline = False, torch.device("cpu"), None
        self.started: list[tuple[str, float]] = []  # each image's state, and when
        self.sent: list[tuple[str, float]] = []
        self.lock, self.slow = threading.Lock(), threading.Event()
        client = SimpleNamespace(client_id=7, camera=SimpleNamespace(aspect=1.0))
        self.machine = RenderStateMachine(self, 10.0, client)  # pyright: ignore[reportArgumentType]
        self.machine._send_output_to_viewer = lambda *_, **__: self.sent.append((self.machine.state, time.monotonic()))
        self.render_statemachines, self.callbacks = {7: self.machine}, []
        self.viser_server = SimpleNamespace(on_client_connect=self.callbacks.append)
        self.interruptions = Interruptions()
        if ours:
            self.interruptions._setup(self)  # pyright: ignore[reportArgumentType]
            for callback in self.callbacks:
                callback(client)

    def eval(self) -> None:
        """Of the model: nothing."""

    def get_model(self) -> Viewer:
        """As nerfstudio's viewer does."""
        return self

    def get_camera_state(self, _: object = None) -> CameraState:
        """As nerfstudio's viewer does."""
        return CameraState(1.0, 1.0, torch.eye(4)[:3], None, time=0.0)  # pyright: ignore[reportArgumentType]

    def get_outputs_for_camera(self, *_: object, **__: object) -> dict[str, Any]:
        """An image that takes 20 chunks of rays, each under a lock, at full resolution while it is slow."""
        self.started.append((self.machine.state, time.monotonic()))
        for _chunk in range(20 if self.machine.state == "high" and self.slow.is_set() else 1):
            self.interruptions.check()
            with self.lock:
                time.sleep(0.05)
        return {}

    def move(self) -> float:
        """Something is changed; returns when."""
        start = time.monotonic()
        self.machine.action(RenderAction("move", self.get_camera_state()))
        return start


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch):
    """Makes viewers whose thread runs."""
    from nerfstudio.viewer import render_state_machine

    camera = SimpleNamespace(height=torch.tensor(1), width=torch.tensor(1), to=lambda _: camera)
    monkeypatch.setattr(render_state_machine, "Cameras", SimpleNamespace)
    monkeypatch.setattr(render_state_machine, "get_camera", lambda *_: camera)
    viewers: list[Viewer] = []

    def start(**options: bool) -> Viewer:
        viewers.append(Viewer(**options))
        viewers[-1].machine.start()
        return viewers[-1]

    yield start
    for viewer in viewers:
        viewer.machine.running = False
        viewer.machine.join(PATIENCE)


def wait(condition: Any) -> None:
    """Until it holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def rest(viewer: Viewer) -> None:
    """Until the full image has been sent."""
    wait(lambda: viewer.sent and viewer.sent[-1][0] == "high")


def test_change_at_rest_is_shown_by_the_next_image(make) -> None:
    viewer = make(ours=True)
    for _ in range(3):
        rest(viewer)
        viewer.sent.clear()
        viewer.move()
        wait(lambda: viewer.sent)
        assert viewer.sent[0][0] == "low_move", "not the one that follows 0.2 s later"


def test_nerfstudio_loses_the_first_image(make) -> None:
    """The fault of nerfstudio that `Interruptions` works around; once this fails, it is not needed any more."""
    viewer = make(ours=False)
    rest(viewer)
    viewer.sent.clear()
    start = viewer.move()
    wait(lambda: viewer.sent)
    assert viewer.sent[0][0] == "low_static" and viewer.sent[0][1] - start > 0.2


def test_outdated_full_image_ends_between_two_chunks(make) -> None:
    viewer = make(ours=True)
    rest(viewer)
    viewer.slow.set()
    for _ in range(3):
        viewer.move()
        viewer.started.clear()
        wait(lambda: "high" in [state for state, _ in viewer.started])
        time.sleep(0.1)
        viewer.sent.clear()
        viewer.started.clear()
        start = viewer.move()
        wait(lambda: viewer.sent)
        assert viewer.sent[0][0] == "low_move"
        assert viewer.started[0][0] == "low_move" and viewer.started[0][1] - start < 0.5, "a full image takes a second"
        assert not viewer.lock.locked()


def test_images_are_not_traced(make) -> None:
    viewer = make(ours=True)
    traces: list[object] = []
    render = viewer.get_outputs_for_camera

    def traced(*_: object, **__: object) -> dict[str, Any]:
        traces.append(sys.gettrace())
        return render()

    viewer.get_outputs_for_camera = traced
    viewer.move()
    wait(lambda: traces)
    assert traces[0] is None


def test_nothing_ends_outside_of_the_viewers_full_images() -> None:
    viewer = Viewer(ours=True)
    moved = RenderAction("move", viewer.get_camera_state())
    viewer.machine.state, viewer.machine.next_action = "high", moved
    viewer.interruptions.check()  # another thread's image
    ended: dict[tuple[str, str | None], bool] = {}

    def run() -> None:
        for state in ("low_move", "low_static", "high"):
            for action in (None, "static", "step", "move", "rerender"):
                viewer.machine.state = state
                waiting = None if action is None else RenderAction(action, moved.camera_state)
                viewer.machine.next_action, ended[state, action] = waiting, True
                with contextlib.suppress(IOChangeException):
                    viewer.interruptions.check()
                    ended[state, action] = False

    viewer.machine.run = run
    viewer.machine.start()
    viewer.machine.join(PATIENCE)
    assert [case for case, interrupted in ended.items() if interrupted] == [("high", "move"), ("high", "rerender")]
    assert len(ended) == 15
