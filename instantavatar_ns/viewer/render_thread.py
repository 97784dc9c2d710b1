"""The thread that renders for one browser: quick images while something moves, then sharper ones until it is sharp."""

from __future__ import annotations

from itertools import takewhile
from math import ceil
from statistics import median_low
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, cast

from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.render_state_machine import RenderAction, RenderStateMachine
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException
from viser import ClientHandle

from instantavatar_ns.viewer.image_thread import ImageThread

if TYPE_CHECKING:
    from instantavatar_ns.viewer.avatar_viewer import AvatarViewer

_SIZES = (30, 100, 200)  # lines of the images on the way to a sharp one; then Max res
_MOVING_SIZES = tuple(round(30 * 2 ** (i / 2)) for i in range(13))  # lines of quick images; then Max res
_FORGET = 20.0  # seconds after which the time that an image took says nothing any more
_KEPT = 5  # times of images of one size that are kept
_MOVING = 1 / 30  # seconds that an image may take while something moves
_TRAINING = 1.0  # seconds that one may take while training runs, which waits for it
_REST = 0.2  # seconds without a change after which images get sharper
_MOVING_DEPTH = 128  # pixels on a side of the depth that goes with a quick image: its PNG takes longer than the image


class Timings:
    """Seconds that images of some sizes took lately, and a guess for others."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[list[float], float]] = {}  # seconds of the last ones and when, by pixels

    def __bool__(self) -> bool:
        return bool(self._known)

    def note(self, pixels: int, seconds: float) -> None:
        """Keep what an image took, and forget what is old.

        A few are kept of each size: one slow image among fast ones, such as while the computer does something else,
        would make all others small until it is forgotten.
        """
        now = monotonic()
        self._known = {size: known for size, known in self._known.items() if now - known[1] < _FORGET}
        earlier, _ = self._known.get(pixels, ([], now))
        self._known[pixels] = [*earlier[1 - _KEPT :], seconds], now

    def guess(self, pixels: int) -> float:
        """Seconds that an image of a size takes; infinity as long as nothing is known.

        It grows with the root of the pixels: too little where pixels take most of the time, so that a larger image is
        tried, once, after which its own time is known.
        """
        if not self._known:
            return float("inf")
        nearest = min(self._known, key=lambda known: abs(known - pixels))
        return median_low(self._known[nearest][0]) * (max(pixels, 1) / max(nearest, 1)) ** 0.5


class RenderThread(ImageThread, RenderStateMachine):
    """nerfstudio's render thread, with its own choice of sizes and of when an image may end.

    nerfstudio renders one image in 1/30 second, which is a mosaic of 38 x 30 on a CPU, and then the full one, which
    takes 20 seconds there. Here the lines double or triple until the image is sharp; while training runs, as far as
    a second goes. The speed is measured without the time that the thread waits for a training step.

    nerfstudio traces every line of Python while it renders, and raises an exception at the next line once an image is
    to end: an exception at the last line of a `with` leaves its lock locked, a change while nothing is rendered ends
    the very image that would show it, and tracing takes longer than most of the lines. Here images end where
    `check_outdated` is called. An error ends an image, not the thread.

    Attributes:
        state: "low_move" after a quick image, "low_static" on the way to a sharp one, "high" after that.
        seconds: What the last image took, rendering and sending.
    """

    viewer: AvatarViewer

    def __init__(self, viewer: AvatarViewer, client: ClientHandle) -> None:
        super().__init__(viewer, VISER_NERFSTUDIO_SCALE_RATIO, client)
        self.check_interrupt = cast(Any, None)  # Python's value for no tracing
        self.seconds = 0.0
        self._lines = self._next_lines = 0  # of the last image and of the next one
        self._timings = {True: Timings(), False: Timings()}  # of quick images and of others

    def run(self) -> None:
        """Render what is asked for, and sharper images meanwhile; ends with `running`."""
        while self.running:
            if not self.viewer.ready:
                sleep(0.1)
                continue
            asked = self.render_trigger.wait(0 if self.state == "low_static" else _REST)
            self.render_trigger.clear()
            action, self.next_action = self.next_action, None
            if action is None:
                if not asked and self.state != "low_move" and self._lines >= self._sizes(self._aspect)[-1]:
                    self.state = "high"
                    continue
                # An action that came between the two lines above was lost: it is made up for.
                camera_state = self.viewer.get_camera_state(self.client)
                action = RenderAction("move" if asked else "static", camera_state)
            self._make_image(action)

    def _make_image(self, action: RenderAction) -> None:
        quick = action.action in ("move", "rerender")
        self.state = "low_move" if quick else "low_static"
        sizes = self._sizes(action.camera_state.aspect)
        if quick:
            self._next_lines = self._quick_lines(action.camera_state.aspect)
        elif action.action == "step":
            self._next_lines = sizes[-1]
        else:
            self._next_lines = next((size for size in sizes if size > self._lines), sizes[-1])
        try:
            self.waiting = True
            outputs = self._render_img(action.camera_state)
            start = monotonic()
            self._send_output_to_viewer(outputs)
        except IOChangeException:
            sleep(0.001)  # or the thread would take the lock again before the callback that waits for it
            return
        except Exception:
            if self.running:  # else the viewer was shut down meanwhile
                CONSOLE.print_exception()
            self.state, self._lines = "high", sizes[-1]
            return
        finally:
            self.waiting = False
        self.seconds = self.rendering + monotonic() - start
        self._lines = self._next_lines
        height, width = self._size(self._lines, action.camera_state.aspect)
        self._timings[quick].note(height * width, self.seconds)
        if not quick and self._lines >= sizes[-1]:
            self.state = "high"

    @property
    def _aspect(self) -> float:
        return self.client.camera.aspect

    def _sizes(self, aspect: float) -> list[int]:
        """Lines of the images on the way to a sharp one, while training runs as far as its patience goes."""
        highest = self.viewer.control_panel.max_res
        sizes = [*(size for size in _SIZES if size < highest), highest]
        if not self.viewer.is_training:
            return sizes
        return [size for size in sizes if self._guess(size, aspect, quick=False) <= _TRAINING] or sizes[:1]

    def _guess(self, lines: int, aspect: float, *, quick: bool) -> float:
        """Seconds that an image will take."""
        height, width = self._size(lines, aspect)
        return (self._timings[quick] or self._timings[not quick]).guess(height * width)

    def _quick_lines(self, aspect: float) -> int:
        """Lines of an image that keeps up: one of few sizes, since a CUDA graph is captured for each."""
        highest = self.viewer.control_panel.max_res
        sizes = [*takewhile(lambda size: size < highest, _MOVING_SIZES), highest]
        return next((size for size in reversed(sizes) if self._guess(size, aspect, quick=True) <= _MOVING), sizes[0])

    def _size(self, lines: int, aspect: float) -> tuple[int, int]:
        """Height and width, neither more than Max res."""
        highest = self.viewer.control_panel.max_res
        width = int(lines * aspect)
        return (lines, width) if width <= highest else (int(highest / aspect), highest)

    def _calculate_image_res(self, aspect_ratio: float) -> tuple[int, int]:
        return self._size(self._next_lines, aspect_ratio)

    def is_outdated(self) -> bool:
        """Return True if something has changed while an image gets sharper, or a callback waits that will change it."""
        if self.state == "low_move":
            return False
        waiting = self.next_action
        return bool(self.viewer.callers) or (waiting is not None and waiting.action in ("move", "rerender"))

    def _send_output_to_viewer(self, outputs: dict[str, Any], static_render: bool = True) -> None:
        depth = outputs.get("gl_z_buf_depth")
        if depth is not None and self.state == "low_move":
            stride = max(1, ceil(max(depth.shape[:2]) / _MOVING_DEPTH))
            outputs["gl_z_buf_depth"] = depth[::stride, ::stride].contiguous()
        # Always in the quality of the configuration: nerfstudio's for images that move makes small ones colourful.
        super()._send_output_to_viewer(outputs, static_render=True)
