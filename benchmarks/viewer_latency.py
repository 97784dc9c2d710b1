"""Time from a change in the viewer's panel to the image that shows it.

    ns-viewer --load-config <run>/config.yml --viewer.websocket-port 7007    # in another terminal, or ns-train
    python -m benchmarks.viewer_latency --port 7007 --output benchmarks/results/viewer_latency.json

A client of viser's protocol stands in for the browser: it opens the viewer, moves a slider, and waits for the images
that follow. Counted are the trip over the socket, nerfstudio's lock and render thread, the pose, the rendering, the
JPEG and the trip back; not what a browser needs to draw. `viewer_latency_ms` is the median until the first image after
a change, whose resolution nerfstudio lowers to keep up 30 images a second (`first_image_pixels`, height and width);
`full_image_ms` is the median until the first one of full resolution. Each change waits until the viewer rests.
The run must not be training meanwhile, or images never end. On a CPU the figures only show that all this works.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import msgspec
import tyro
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from benchmarks import record

# Seconds after an image of full resolution in which another one would come: nerfstudio renders the same again 0.2
# seconds after an image, until that was at its best.
_QUIET = 0.5

T = TypeVar("T")


class Arrival(NamedTuple):
    """An image that has come.

    Attributes:
        time: On `perf_counter`'s clock.
        data: As it was sent, JPEG or PNG.
    """

    time: float
    data: bytes

    @property
    def resolution(self) -> int:
        """Its height or width, whichever is larger, pixels."""
        return max(Image.open(io.BytesIO(self.data)).size)


class Effect(NamedTuple):
    """What followed a change.

    Attributes:
        first: Seconds until the first image.
        full: Seconds until the first image of full resolution.
        resolution: Of the first image, pixels.
    """

    first: float
    full: float
    resolution: int


@dataclass
class Browser:
    """What a browser knows of the viewer.

    Attributes:
        socket: The connection.
        resolution: Height and width of full images.
        ids: Elements of the panel by label; where labels repeat, the last.
        images: Images that have come and were not waited for yet.
        reader: Ends with the connection.
    """

    socket: ClientConnection
    resolution: int
    ids: dict[str, str] = field(default_factory=dict)
    images: asyncio.Queue[Arrival] = field(default_factory=asyncio.Queue)
    reader: asyncio.Task[None] | None = None

    async def receive(self) -> None:
        """Read messages until the connection ends."""
        async for data in self.socket:  # ends without an exception where the viewer says goodbye
            for message in msgspec.msgpack.decode(data):
                if message["type"] == "BackgroundImageMessage":
                    self.images.put_nowait(Arrival(perf_counter(), message["rgb_bytes"]))
                elif message["type"].startswith("GuiAdd") and "label" in message:
                    self.ids[message["label"]] = message["id"]

    async def send(self, kind: str, **content: object) -> None:
        """Send one message."""
        await self.socket.send(msgspec.msgpack.encode({"type": kind, **content}))

    async def change(self, label: str, value: object) -> None:
        """Set an element of the panel."""
        await self.send("GuiUpdateMessage", id=self.ids[label], updates={"value": value})

    async def effect(self, label: str, value: object) -> Effect:
        """Change an element, and wait until the viewer rests again."""
        start = perf_counter()
        await self.change(label, value)
        first = arrival = await self.images.get()
        while arrival.resolution != self.resolution:
            arrival = await self.images.get()
        await self.rest()
        return Effect(first.time - start, arrival.time - start, first.resolution)

    async def within(self, seconds: float, awaited: Coroutine[Any, Any, T], what: str) -> T:
        """The result of waiting for the viewer.

        Args:
            seconds: How long to wait.
            awaited: Waits.
            what: What for, in words.

        Raises:
            TimeoutError: It has taken longer.
            ConnectionError: The viewer has gone.
        """
        assert self.reader is not None
        task = asyncio.create_task(awaited)
        await asyncio.wait({task, self.reader}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        try:
            if task.done():
                return task.result()
        except ConnectionClosed:
            pass
        task.cancel()
        if task.done() or self.reader.done():
            raise ConnectionError(f"The viewer closed the connection before it sent {what}")
        raise TimeoutError(f"The viewer did not send {what} within {seconds:.0f} s")

    async def rest(self) -> None:
        """Wait until no more images come."""
        while True:
            try:
                await asyncio.wait_for(self.images.get(), _QUIET)
            except asyncio.TimeoutError:
                return


@asynccontextmanager
async def open_viewer(host: str, port: int, resolution: int) -> AsyncIterator[Browser]:
    """Connect, and look at the person from where the viewer's own first view is."""
    async with connect(f"ws://{host}:{port}", max_size=None) as socket:
        browser = Browser(socket, resolution)
        browser.reader = asyncio.create_task(browser.receive())
        try:
            view = {"wxyz": (2**-0.5, -(2**-0.5), 0.0, 0.0), "position": (0.0, -18.0, 0.0), "look_at": (0.0, 0.0, 0.0)}
            await browser.send("ViewerCameraMessage", **view, fov=1.3, aspect=1.0, up_direction=(0.0, 0.0, 1.0))
            yield browser
        finally:
            browser.reader.cancel()


@dataclass
class ViewerLatency:
    """Move a joint and the position in time of a viewer that runs."""

    host: str = "127.0.0.1"
    """Where the viewer runs."""
    port: int = 7007
    """Its port."""
    resolution: int = 540
    """Max res of nerfstudio's panel: height and width of the full images."""
    repeats: int = 12
    """Changes of each kind."""
    budget: float = 60.0
    """Seconds after which no further change is made; at least one of each kind is."""
    timeout: float = 60.0
    """Seconds after which an image does not come any more."""
    output: Path | None = None
    """JSON to write."""

    def main(self) -> None:
        """Measure, print and write the medians, after each kind what there is."""
        head = record.head()
        self.measure(lambda figures: record.write(self.output, head | figures))

    def measure(self, report: Callable[[dict[str, float]], None]) -> None:
        """Measure all kinds of changes.

        Args:
            report: Takes the figures, milliseconds, after each kind.

        Raises:
            TimeoutError: An image did not come; says which.
            ConnectionError: The viewer has gone.
        """
        asyncio.run(self._measure(report))

    async def _measure(self, report: Callable[[dict[str, float]], None]) -> None:
        start, timeout = perf_counter(), self.timeout
        async with open_viewer(self.host, self.port, self.resolution) as browser:
            await browser.within(timeout, browser.images.get(), "the first image")
            record.progress("viewer: first image")
            await browser.within(timeout, browser.rest(), "a last image")
            await browser.change("Max res", self.resolution)
            # Compiles and allocates what the first image of this size needs.
            await browser.within(timeout, browser.effect("Elbow, bend", 1.0), "an image of the wanted resolution")
            record.progress(f"viewer: first image of {self.resolution} pixels")
            effects: dict[str, list[Effect]] = {}
            for number, (kind, label, values) in enumerate(self._changes(), 1):
                done = effects[kind] = []
                for value in values:
                    if done and perf_counter() - start > self.budget * number / len(self._changes()):
                        break
                    what = f"the images after change {len(done) + 1} of kind {kind} ({label}: {value:.3g})"
                    done.append(await browser.within(timeout, browser.effect(label, value), what))
                    middle = 1000 * median(effect.first for effect in done)
                    record.progress(f"viewer: {kind} {len(done)} of {len(values)}, median {middle:.0f} ms")
                report({"resolution": self.resolution, **figures(effects)})

    def _changes(self) -> list[tuple[str, str, list[float]]]:
        """Kinds of changes, the element of the panel, and its values."""
        angles = [3.0 * i for i in range(2, self.repeats + 2)]
        return [("joint", "Elbow, bend", angles), ("time", "Time", [(i % 30) / 30 for i in range(1, self.repeats + 1)])]


def figures(effects: dict[str, list[Effect]]) -> dict[str, float]:
    """Medians over each kind's changes, and over all."""
    result = {"viewer_latency_ms": 1000 * median(effect.first for done in effects.values() for effect in done)}
    for kind, done in effects.items():
        result[f"{kind}_changes"] = len(done)
        result[f"{kind}_first_image_ms"] = 1000 * median(effect.first for effect in done)
        result[f"{kind}_first_image_pixels"] = median(effect.resolution for effect in done)
        result[f"{kind}_full_image_ms"] = 1000 * median(effect.full for effect in done)
    return result


if __name__ == "__main__":
    tyro.cli(ViewerLatency).main()
