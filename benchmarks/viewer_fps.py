"""Images a second that the viewer shows while a motion plays.

    python -m benchmarks.viewer_fps --load-config <run>/config.yml --output benchmarks/results/everywhere.json
    python -m benchmarks.viewer_fps --port 7007     # of a viewer that runs, `ns-viewer` or `ns-train`

A client of viser's protocol stands in for the browser (see viewer_latency.py): it opens the viewer, chooses a motion,
presses Play and counts the images that come. Counted is all that the server does, JPEG and socket included, not what a
browser needs to draw. `viewer_fps` counts images of full resolution only (`viewer_fps_pixels`, height and width);
`viewer_fps_any` all of them, since on slow machines the viewer takes smaller ones to keep up. `viewer_fps_gap_ms` is
the time between two images that one in twenty exceeds. Keys are added to the file, whose other keys stay.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import tyro

from benchmarks import record
from benchmarks.animate import viewer
from benchmarks.viewer_latency import Arrival, Browser, open_viewer


@dataclass
class ViewerFps:
    """Play a motion in the viewer, and count images."""

    load_config: Path | None = None
    """config.yml of a run to open; else the viewer that runs at `port` is taken."""
    host: str = "127.0.0.1"
    """Where a viewer runs."""
    port: int = 7007
    """Its port."""
    resolution: int = 512
    """Max res of the panel: height and width of full images."""
    motion: str = "dance"
    """What to play, as the panel names it."""
    warm_up: float = 10.0
    """Seconds to play before counting: sizes are tried, kernels compiled and graphs captured."""
    seconds: float = 20.0
    """Seconds to count."""
    timeout: float = 120.0
    """Seconds after which an image does not come any more."""
    output: Path | None = None
    """JSON to add the figures to."""

    def main(self) -> None:
        """Measure, print and write."""
        head = record.head()
        with self._port() as port:
            figures = asyncio.run(self._measure(port))
        record.progress(json.dumps(figures))
        record.write(self.output, merged(self.output, head | figures))

    @contextmanager
    def _port(self) -> Iterator[int]:
        if self.load_config is None:
            yield self.port
            return
        with viewer(self.load_config, self.timeout) as port:
            yield port

    async def _measure(self, port: int) -> dict[str, float]:
        async with open_viewer(self.host, port, self.resolution) as browser:
            await browser.within(self.timeout, browser.images.get(), "the first image")
            await browser.change("Max res", self.resolution)
            await browser.change("Show", self.motion)
            await browser.change("Play", True)
            record.progress("viewer: plays")
            await self._collect(browser, self.warm_up)
            arrivals = await self._collect(browser, self.seconds)
            await browser.change("Play", False)
        return figures(arrivals, self.resolution)

    async def _collect(self, browser: Browser, seconds: float) -> list[Arrival]:
        """Images of so many seconds, and the one before."""
        arrivals = [await browser.within(self.timeout, browser.images.get(), "an image while it plays")]
        end = perf_counter() + seconds
        while arrivals[-1].time < end:
            arrivals.append(await browser.within(self.timeout, browser.images.get(), "an image while it plays"))
        return arrivals


def figures(arrivals: list[Arrival], resolution: int) -> dict[str, float]:
    """Images a second between the first and the last.

    Args:
        arrivals: In the order in which they came.
        resolution: Height or width of full images, pixels.
    """
    duration = arrivals[-1].time - arrivals[0].time
    counted = arrivals[1:]
    pixels = [arrival.resolution for arrival in counted]
    gaps = [later.time - earlier.time for earlier, later in zip(arrivals, counted, strict=False)]
    return {
        "viewer_fps": sum(size == resolution for size in pixels) / duration,
        "viewer_fps_any": len(counted) / duration,
        "viewer_fps_pixels": median(pixels),
        "viewer_fps_gap_ms": 1000 * (quantiles(gaps, n=20)[-1] if len(gaps) > 1 else gaps[0]),
        "viewer_fps_kilobytes": median(len(arrival.data) for arrival in counted) / 1000,
        "viewer_fps_seconds": duration,
    }


def merged(path: Path | None, new: dict[str, Any]) -> dict[str, Any]:
    """Figures with those that a file holds already, and the commands of both."""
    if path is None or not path.is_file():
        return new
    old = json.loads(path.read_text(encoding="utf8"))
    commands = [*filter(None, old.get("command", "").split("; ")), new["command"]]
    return old | new | {"command": "; ".join(dict.fromkeys(commands))}


if __name__ == "__main__":
    tyro.cli(ViewerFps).main()
