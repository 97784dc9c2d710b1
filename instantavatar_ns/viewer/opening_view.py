"""Where nerfstudio's viewer looks from when a browser connects."""

from __future__ import annotations

from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl
from viser import ClientHandle

# Metres: the person stands round the origin, seen from the training cameras' side, at the height of the pelvis. The
# viewer's field of view is 75 degrees high: enough for a person of two metres who reaches up, the camera going along.
_DISTANCE = 2.0


class OpeningView(ViewerControl):
    """Shows the whole person to every browser that connects.

    viser's own first view is made for scenes of ten times a person's size: from half a metre away, at the belt.
    """

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)
        viewer.viser_server.on_client_connect(_show_person)


def _show_person(client: ClientHandle) -> None:
    with client.atomic():
        client.camera.up_direction = (0.0, 0.0, 1.0)
        client.camera.position = (0.0, -_DISTANCE * VISER_NERFSTUDIO_SCALE_RATIO, 0.0)
        client.camera.look_at = (0.0, 0.0, 0.0)
