"""Play: a thread that moves a position by the clock, as long as the viewer keeps up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic, sleep

_TICK = 1 / 120  # seconds; an image that takes 1/40 second is not held up for the next tick


class Playback:
    """Calls `advance` with the seconds that have passed, up to 120 times a second while it plays.

    A tick is left out while `busy`, and its seconds are added to the next: on a slow machine a motion skips frames and
    keeps its speed, and neither renderings nor callbacks pile up.

    Args:
        advance: Moves on; False ends the playback.
        busy: Whether an earlier step is still on its way to the screen.
    """

    def __init__(self, advance: Callable[[float], bool], busy: Callable[[], bool]) -> None:
        self._advance, self._busy = advance, busy
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._playing = threading.Event()

    @property
    def playing(self) -> bool:
        """Return True while it plays."""
        return self._playing.is_set()

    def play(self) -> None:
        """Begin, if it does not play already."""
        with self._lock:
            self._playing.set()
            if self._thread is None or not self._thread.is_alive():
                # Dies with the process: a viewer has no end of its own that could be waited for.
                self._thread = threading.Thread(target=self._run, name="avatar playback", daemon=True)
                self._thread.start()

    def pause(self) -> None:
        """Stop moving; the thread ends after its present step."""
        self._playing.clear()

    def _run(self) -> None:
        last = monotonic()
        while True:
            with self._lock:
                if not self._playing.is_set():
                    self._thread = None
                    return
            sleep(_TICK)
            if self._busy():
                continue
            now = monotonic()
            if not self._advance(now - last):
                self._playing.clear()
            last = now
