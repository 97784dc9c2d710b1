"""The viewer's latency, measured at a server that sends images when it is told to."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from PIL import Image
from websockets.asyncio.server import ServerConnection, serve

from benchmarks import viewer_latency
from benchmarks.viewer_latency import ViewerLatency

LOW, FULL = 30, 64


def image(size: int) -> bytes:
    """A message with an image of a size."""
    with io.BytesIO() as data:
        Image.new("RGB", (size, size)).save(data, "JPEG")
        message = {"type": "BackgroundImageMessage", "media_type": "image/jpeg", "rgb_bytes": data.getvalue()}
    return msgspec.msgpack.encode([message])


class Viewer:
    """Sends a low image 0.1 s after a change and a full one 0.1 s later.

    Args:
        silent_after: Changes that have an effect.
        leaves: Closes the connection where it would fall silent.
    """

    def __init__(self, silent_after: int | None = None, *, leaves: bool = False) -> None:
        self.silent_after, self.leaves = silent_after, leaves
        self.changes: list[tuple[str, Any]] = []

    async def __call__(self, socket: ServerConnection) -> None:
        """Serve one client."""
        labels = ("Max res", "Time", "Elbow, bend")
        panel = [{"type": "GuiAddSliderMessage", "label": label, "id": label} for label in labels]
        await socket.send(msgspec.msgpack.encode(panel))
        async for data in socket:
            message = msgspec.msgpack.decode(data)
            if message["type"] == "GuiUpdateMessage":
                self.changes.append((message["id"], message["updates"]["value"]))
                if message["id"] == "Max res":
                    continue
            if self.silent_after is not None and len(self.changes) > self.silent_after:
                if self.leaves:
                    return
                continue
            for size in (LOW, FULL):
                await asyncio.sleep(0.1)
                await socket.send(image(size))

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Serve in a thread; yields the port."""
        loop, port = asyncio.new_event_loop(), []
        ready, end = threading.Event(), asyncio.Event()

        async def run() -> None:
            async with serve(self, "127.0.0.1", 0) as server:
                port.append(next(iter(server.sockets)).getsockname()[1])
                ready.set()
                await end.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
        thread.start()
        ready.wait(10)
        try:
            yield port[0]
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join(10)
            loop.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer_latency, "_QUIET", 0.2)


def test_first_and_full_images_are_told_apart() -> None:
    viewer, reports = Viewer(), []
    with viewer.serving() as port:
        ViewerLatency(port=port, resolution=FULL, repeats=2, timeout=20).measure(reports.append)
    assert viewer.changes[0] == ("Max res", FULL)
    assert [label for label, _ in viewer.changes[2:]] == ["Elbow, bend"] * 2 + ["Time"] * 2
    assert len(set(viewer.changes)) == len(viewer.changes), "each changes something"
    assert "joint_changes" in reports[0] and "time_changes" not in reports[0], "told as soon as it is known"
    figures = reports[1]
    for kind in ("joint", "time"):
        assert figures[f"{kind}_changes"] == 2 and figures[f"{kind}_first_image_pixels"] == LOW
        assert 100 <= figures[f"{kind}_first_image_ms"] < 190
        assert 200 <= figures[f"{kind}_full_image_ms"] < 390
    assert 100 <= figures["viewer_latency_ms"] < 190


def test_no_more_changes_are_made_than_there_is_time_for() -> None:
    viewer, reports = Viewer(), []
    with viewer.serving() as port:
        ViewerLatency(port=port, resolution=FULL, repeats=50, budget=0.0, timeout=20).measure(reports.append)
    assert reports[1]["joint_changes"] == reports[1]["time_changes"] == 1


@pytest.mark.parametrize(
    ("changes", "missing"),
    [(0, "an image of the wanted resolution"), (3, "change 2 of kind joint"), (4, r"change 1 of kind time \(Time")],
)
def test_image_that_does_not_come_is_named(changes: int, missing: str) -> None:
    with (
        Viewer(silent_after=changes).serving() as port,
        pytest.raises(TimeoutError, match=rf"did not send .*{missing}.* within 1 s"),
    ):
        ViewerLatency(port=port, resolution=FULL, repeats=2, timeout=1.0).measure(lambda _: None)


def test_viewer_that_leaves_is_not_waited_for() -> None:
    with (
        Viewer(silent_after=3, leaves=True).serving() as port,
        pytest.raises(ConnectionError, match="change 2 of kind joint"),
    ):
        ViewerLatency(port=port, resolution=FULL, repeats=2, timeout=60.0).measure(lambda _: None)
