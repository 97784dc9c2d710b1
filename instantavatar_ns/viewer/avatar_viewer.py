"""nerfstudio's viewer as it is used here: when training makes way for images, and which cameras are drawn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from math import isnan
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.viewer.render_state_machine import RenderAction
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from viser import ClientHandle

from instantavatar_ns.viewer.render_thread import RenderThread

_FRUSTUM = 0.2  # metres; nerfstudio's own scale is made for scenes of one unit
_CPU_MAX_RES = 256
_LABEL_SECONDS = 0.5  # between two updates of the step
_LONGEST_WAIT = 5.0  # seconds between two images while training runs
_LONGEST_TURN = 1.0  # seconds that training leaves its lock to whoever waits for it


class AvatarViewer(Viewer):
    """A `Viewer` that shows training going on.

    nerfstudio shows the step with a new image only, and makes one after as many steps as an image of full size would
    take: on a CPU hundreds, or more than a run has. Here images come after a time, in which training has the share
    that the panel's "Train Util" says.

    nerfstudio's commands make a `Viewer` of their own; `take_over` turns that into one of these.

    Attributes:
        callers: Number of callbacks that wait for nerfstudio's lock, or have it.
    """

    callers = 0

    _next_image = _next_label = 0.0  # on the monotonic clock
    _distinct_cameras: list[int]

    @classmethod
    def take_over(cls, viewer: Viewer) -> AvatarViewer:
        """Change a viewer that nerfstudio is making, in place.

        Args:
            viewer: Its panel is there, and it is not ready yet.
        """
        viewer.__class__ = cls
        assert isinstance(viewer, cls)
        viewer.viser_server.on_client_connect(viewer._make_thread)
        defaults = {field.name: field.default for field in fields(ViewerConfig)}
        if viewer.config.camera_frustum_scale == defaults["camera_frustum_scale"]:
            viewer.config.camera_frustum_scale = _FRUSTUM * VISER_NERFSTUDIO_SCALE_RATIO
        if torch.device(viewer.pipeline.device).type == "cpu":
            viewer.control_panel._max_res.value = _CPU_MAX_RES
        # The panel has a checkbox for the cameras, and nothing is trained by ns-viewer.
        viewer.hide_images.visible = False
        if viewer.trainer is None:
            viewer.pause_train.visible = False
            for element in (viewer.control_panel._train_speed, viewer.control_panel._train_util):
                element.set_hidden(True)
        return viewer

    @property
    def is_training(self) -> bool:
        """Return True while training steps are made."""
        return self.trainer is not None and self.trainer.training_state == "training"

    def _make_thread(self, client: ClientHandle) -> None:
        # nerfstudio's own callback, which starts a thread of its own, comes before this one.
        former = self.render_statemachines.get(client.client_id)
        if former is not None:  # the browser has not left again
            former.running = False
            thread = self.render_statemachines[client.client_id] = RenderThread(self, client)
            thread.start()

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Hold nerfstudio's lock, so that neither a training step nor an image is being computed."""
        self.callers += 1
        try:
            assert self.train_lock is not None
            with self.train_lock:
                yield
        finally:
            self.callers -= 1

    def init_scene(
        self,
        train_dataset: InputDataset,
        train_state: Literal["training", "paused", "completed"],
        eval_dataset: InputDataset | None = None,
    ) -> None:
        """Draw the training cameras, of those that stand in the same place the first."""
        self._distinct_cameras = distinct_cameras(train_dataset.cameras.camera_to_worlds.cpu().numpy())
        super().init_scene(train_dataset, train_state, eval_dataset)

    def _pick_drawn_image_idxs(self, total_num: int) -> list[int]:
        return [self._distinct_cameras[i] for i in super()._pick_drawn_image_idxs(len(self._distinct_cameras))]

    def update_scene(self, step: int, num_rays_per_batch: int | None = None) -> None:
        """Show the step, let waiting images and callbacks have the lock, and ask for a new image now and then.

        Args:
            step: Of training.
            num_rays_per_batch: Not used.
        """
        self.step, now = step, time.monotonic()
        if now >= self._next_label:
            self._next_label = now + _LABEL_SECONDS
            self.update_step(step)
        threads: list[Any] = list(self.render_statemachines.values())
        if not threads:
            return
        while time.time() - self.last_move_time < 0.1:  # as in nerfstudio: a moving camera has the device for itself
            time.sleep(0.05)
        # A lock that is released and taken again at once never comes to those who wait for it.
        end = time.monotonic() + _LONGEST_TURN
        while (self.callers or any(getattr(t, "waiting", False) for t in threads)) and time.monotonic() < end:
            time.sleep(0.001)
        now = time.monotonic()
        if self.is_training and now >= self._next_image:
            share = self.control_panel.train_util
            share = 0.85 if isnan(share) else min(max(share, 0.0), 0.99)
            longest = max(getattr(thread, "seconds", 0.0) for thread in threads)
            self._next_image = now + min(max(longest / (1 - share), 0.1), _LONGEST_WAIT)
            for client_id, client in self.viser_server.get_clients().items():
                if (thread := self.render_statemachines.get(client_id)) is not None:
                    thread.action(RenderAction("step", self.get_camera_state(client)))

    def training_complete(self) -> None:
        """Show that nothing is left to pause, and the last step."""
        super().training_complete()
        self.pause_train.visible = self.resume_train.visible = False
        self.update_step(self.step)
        self._trigger_rerender()


def distinct_cameras(camera_to_world: Float[np.ndarray, "cameras 3 4"]) -> list[int]:
    """Cameras of which no earlier one stands in the same place, to a millimetre, and looks the same way."""
    rounded = np.round(camera_to_world.reshape(len(camera_to_world), -1), 3)
    return sorted(np.unique(rounded, axis=0, return_index=True)[1].tolist())
