"""When the viewer ends an image that nobody wants any more, because something has been changed meanwhile."""

from __future__ import annotations

import threading

from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException
from viser import ClientHandle


class Interruptions(ViewerControl):
    """Lets the viewer's images end where `check` is called, and nowhere else.

    nerfstudio's render threads trace every line of Python, and raise an exception at the next line once an image is to
    end. The wish outlives its image: a change while nothing is rendered ends the very image that would show it, and the
    next one comes 0.2 seconds later. An exception at the last line of a `with` leaves its lock locked, the viewer
    hanging. And tracing takes longer than most of the lines.
    """

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)
        viewer.viser_server.on_client_connect(self._stop_tracing)

    def _stop_tracing(self, client: ClientHandle) -> None:
        # Python's value for no tracing. nerfstudio's own callback, which starts the thread, comes before this one; its
        # first image comes after.
        machine = self.viewer.render_statemachines.get(client.client_id)
        if machine is not None:  # it has not left again
            machine.check_interrupt = None  # pyright: ignore[reportAttributeAccessIssue]

    @staticmethod
    def check() -> None:
        """Call where an image may end, again and again while it takes long; does nothing outside of the viewer.

        Raises:
            IOChangeException: The viewer is rendering at full resolution what has been changed meanwhile.
        """
        machine = threading.current_thread()
        if isinstance(machine, RenderStateMachine) and machine.state == "high":
            waiting = machine.next_action
            if waiting is not None and waiting.action in ("move", "rerender"):
                raise IOChangeException
