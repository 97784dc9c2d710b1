"""Views of the whole person: where the viewer looks from when a browser connects, and by the panel's buttons."""

from __future__ import annotations

from math import tan
from typing import Literal

import numpy as np
from jaxtyping import Float
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl
from viser import ClientHandle

Side = Literal["Front", "Side", "Back"]

# Metres: the person stands round the origin, seen from the training cameras' side, at the height of the pelvis. The
# viewer's field of view is 75 degrees high: enough for a person of two metres who reaches up, the camera going along.
_DISTANCE = 2.0
_MARGIN = 1.15  # of the distance from which the person just fits


class OpeningView(ViewerControl):
    """Shows the whole person to every browser that connects.

    viser's own first view is made for scenes of ten times a person's size: from half a metre away, at the belt.
    """

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)
        viewer.viser_server.on_client_connect(_show_person)


def _show_person(client: ClientHandle) -> None:
    distance = _DISTANCE / min(1.0, client.camera.aspect)
    _move(client, np.array([0.0, -distance, 0.0]), np.zeros(3))


def look_at_person(client: ClientHandle, vertices: Float[np.ndarray, "n 3"], towards: Float[np.ndarray, "3"]) -> None:
    """Let a browser see the whole person, however narrow its window is.

    Args:
        client: The browser.
        vertices: All over the person, in nerfstudio's world, metres.
        towards: Direction from the person to the camera.
    """
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    towards = towards / np.linalg.norm(towards)
    right = np.cross((0.0, 0.0, 1.0), towards) if abs(towards[2]) < 0.999 else np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    points, height = vertices - middle, tan(client.camera.fov / 2)
    # A point is in the picture from where its distance from the axis is less than the slope times its depth.
    across = np.abs(points @ right) / (height * client.camera.aspect)
    along = np.abs(points @ np.cross(towards, right)) / height
    distance = (np.maximum(across, along) + points @ towards).max()
    _move(client, middle + _MARGIN * distance * towards, middle)


def direction(side: Side, ahead: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """From a person to a camera that stands level with it, on the person's front, left or back.

    Args:
        side: Of the person.
        ahead: The way in which the pelvis looks, z up; a person who lies is seen from the training cameras' side.
    """
    x, y = (0.0, -1.0) if np.linalg.norm(ahead[:2]) < 0.1 else ahead[:2]
    return np.array({"Front": (x, y, 0.0), "Side": (-y, x, 0.0), "Back": (-x, -y, 0.0)}[side])


def _move(client: ClientHandle, position: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"]) -> None:
    with client.atomic():
        client.camera.up_direction = (0.0, 0.0, 1.0)
        client.camera.position = position * VISER_NERFSTUDIO_SCALE_RATIO
        client.camera.look_at = target * VISER_NERFSTUDIO_SCALE_RATIO
