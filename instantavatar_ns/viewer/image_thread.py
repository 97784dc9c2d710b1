"""Between a model and the thread that renders it for a browser: how long an image takes, and whether it may end.

The model asks at every image. Nothing of nerfstudio's viewer is imported here, so that it need not be without a viewer.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic


class ImageThread:
    """A thread that renders images.

    Attributes:
        waiting: An image waits for a training step to end.
        rendering: Seconds of the model's share of the last image.
    """

    waiting = False
    rendering = 0.0

    @abstractmethod
    def is_outdated(self) -> bool:
        """Return True if something has changed that the image in progress will not show."""


@contextmanager
def timed_image() -> Iterator[None]:
    """Tell the render thread how long the model takes; nothing elsewhere."""
    thread, start = threading.current_thread(), monotonic()
    if isinstance(thread, ImageThread):
        thread.waiting = False
    yield
    if isinstance(thread, ImageThread):
        thread.rendering = monotonic() - start


def check_outdated() -> None:
    """Call where an image may end, again and again while it takes long; does nothing outside of the viewer.

    Raises:
        IOChangeException: The viewer's image is outdated.
    """
    thread = threading.current_thread()
    if isinstance(thread, ImageThread) and thread.is_outdated():
        from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException

        raise IOChangeException
