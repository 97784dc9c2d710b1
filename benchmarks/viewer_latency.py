"""Time from a change in the viewer's panel to the image that shows it.

    ns-viewer --load-config <run>/config.yml --viewer.websocket-port 7007    # in another terminal, or ns-train
    python benchmarks/viewer_latency.py --port 7007 --output benchmarks/results/viewer_latency.json

A client of viser's protocol stands in for the browser: it opens the viewer, moves a slider, and waits for the images
that follow. Counted are the trip over the socket, nerfstudio's lock and render thread, the pose, the rendering, the
JPEG and the trip back; not what a browser needs to draw. `viewer_latency_ms` is the median until the first image after
a change, whose resolution nerfstudio lowers to keep up 30 images a second; the full image follows once nothing changes.
The run must not be training meanwhile, or images never end. On a CPU the figures only show that all this works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec
import tyro
from websockets.asyncio.client import ClientConnection, connect

from benchmarks import record

# Seconds without an image after which nerfstudio has nothing more to send.
_QUIET = 1.0


@dataclass
class Browser:
    """What a browser knows of the viewer.

    Attributes:
        socket: The connection.
        ids: Elements of the panel by label; where labels repeat, the last.
        images: Arrival of each image, on `perf_counter`'s clock.
        arrived: Set at each image.
    """

    socket: ClientConnection
    ids: dict[str, str] = field(default_factory=dict)
    images: list[float] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> None:
        """Read messages until the connection ends."""
        async for data in self.socket:
            for message in msgspec.msgpack.decode(data):
                if message["type"] == "BackgroundImageMessage":
                    self.images.append(perf_counter())
                    self.arrived.set()
                elif message["type"].startswith("GuiAdd") and "label" in message:
                    self.ids[message["label"]] = message["id"]

    async def send(self, kind: str, **content: object) -> None:
        """Send one message."""
        await self.socket.send(msgspec.msgpack.encode({"type": kind, **content}))

    async def change(self, label: str, value: object) -> None:
        """Set an element of the panel."""
        await self.send("GuiUpdateMessage", id=self.ids[label], updates={"value": value})

    async def quiet(self, timeout: float) -> None:
        """Wait until no more images come; TimeoutError where they do not end."""
        await asyncio.wait_for(self._quiet(), timeout)

    async def _quiet(self) -> None:
        while True:
            self.arrived.clear()
            try:
                await asyncio.wait_for(self.arrived.wait(), _QUIET)
            except asyncio.TimeoutError:
                return

    async def effect(self, label: str, value: object, timeout: float) -> tuple[float, float]:
        """Seconds until the first and the last image after a change."""
        await self.quiet(timeout)
        self.images.clear()
        self.arrived.clear()
        start = perf_counter()
        await self.change(label, value)
        await asyncio.wait_for(self.arrived.wait(), timeout)
        await self.quiet(timeout)
        return self.images[0] - start, self.images[-1] - start


@asynccontextmanager
async def open_viewer(host: str, port: int, timeout: float) -> AsyncIterator[Browser]:
    """Connect, look at the person from where the viewer's own first view is, and wait for the image."""
    async with connect(f"ws://{host}:{port}", max_size=None) as socket:
        browser = Browser(socket)
        reader = asyncio.create_task(browser.receive())
        try:
            view = {"wxyz": (2**-0.5, -(2**-0.5), 0.0, 0.0), "position": (0.0, -18.0, 0.0), "look_at": (0.0, 0.0, 0.0)}
            await browser.send("ViewerCameraMessage", **view, fov=1.3, aspect=1.0, up_direction=(0.0, 0.0, 1.0))
            await asyncio.wait_for(browser.arrived.wait(), timeout)
            yield browser
        finally:
            reader.cancel()


@dataclass
class ViewerLatency:
    """Move a joint and the position in time of a viewer that runs."""

    host: str = "127.0.0.1"
    """Where the viewer runs."""
    port: int = 7007
    """Its port."""
    resolution: int = 540
    """Max res of nerfstudio's panel: height and width of the full images."""
    repeats: int = 30
    """Changes of each kind."""
    timeout: float = 60.0
    """Seconds after which an image does not come any more."""
    output: Path | None = None
    """JSON to write."""

    def main(self) -> dict[str, object]:
        """Measure, print and write the medians."""
        result = record.head() | self.figures()
        record.write(self.output, result)
        return result

    def figures(self) -> dict[str, float]:
        """Medians, milliseconds."""
        seconds = asyncio.run(self.measure())
        firsts = [first for pairs in seconds.values() for first, _ in pairs]
        figures = {"resolution": self.resolution, "viewer_latency_ms": 1000 * median(firsts)}
        for name, pairs in seconds.items():
            figures[f"{name}_first_image_ms"] = 1000 * median(first for first, _ in pairs)
            figures[f"{name}_full_image_ms"] = 1000 * median(last for _, last in pairs)
        return figures

    async def measure(self) -> dict[str, list[tuple[float, float]]]:
        """Seconds until the first and the last image of each change."""
        async with open_viewer(self.host, self.port, self.timeout) as browser:
            await browser.change("Max res", self.resolution)
            await browser.effect("Elbow, bend", 1.0, self.timeout)  # compiles and allocates what the first image needs
            joint = [await browser.effect("Elbow, bend", 3.0 * i, self.timeout) for i in range(1, self.repeats + 1)]
            await browser.effect("Elbow, bend", 0.0, self.timeout)
            moved = [await browser.effect("Time", (i % 30) / 30, self.timeout) for i in range(1, self.repeats + 1)]
            return {"joint": joint, "time": moved}


if __name__ == "__main__":
    tyro.cli(ViewerLatency).main()
