"""Images a second of an exported page, and the milliseconds of its own JavaScript in each.

    instant-avatar export --load-config <run>/config.yml --format html --motion dance --splats 40000 --output page.html
    python -m benchmarks.page_fps --page page.html --output benchmarks/results/everywhere.json
    python -m benchmarks.page_fps --page page.html --size 300 200 \\
        --browser-arguments="--no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader"    # without a GPU

A Chromium without a window opens the page, which then plays its first motion. It is driven by its own protocol over a
web socket, so neither Playwright nor node is needed. Chromium shows 60 images a second at most, unless the arguments
hold `--disable-frame-rate-limit --disable-gpu-vsync`. Per page with splats:

- `splat_page_fps`: images that the page draws a second;
- `splat_page_js_ms`: median time of the function that draws an image: pose, order of the splats, and all calls of
  WebGL, which return before the GPU has done their work; `splat_page_js_ms_95` is the 95th percentile;
- `splat_page_webgl_ms`: the part of it within WebGL's functions, which on a slow GPU wait for images before;
- `splat_page_renderer`: what draws, as WebGL calls it;
- `splat_page_pixels`: width and height of the picture; `splat_page_splats`: their number; `splat_page_frames`: images
  that the figures are of.

A page with a mesh has the same without splats, under `mesh_page_...`. Browsers round times to 0.1 ms.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

import tyro
from websockets.sync.client import ClientConnection, connect

from benchmarks import record
from instantavatar_ns.export.glb_container import read_glb

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
_ALWAYS = (
    *("--headless", "--remote-debugging-port=0", "--no-first-run", "--hide-scrollbars", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--ignore-gpu-blocklist"),
)
_SPLATS = "KHR_gaussian_splatting"
_FEWEST = 3  # images from which a rate is worked out
# Before the page's own scripts: notes for each image when it began, milliseconds of the page's function, and of WebGL.
_PROBE = """
window.measured = { images: [] };
{
  let webgl = 0, drawn = false;
  const prototype = WebGL2RenderingContext.prototype;
  for (const name of Object.getOwnPropertyNames(prototype)) {
    const original = Object.getOwnPropertyDescriptor(prototype, name).value;
    if (typeof original !== "function" || name === "constructor") continue;
    const draws = name.startsWith("draw");
    prototype[name] = function (...values) {
      const start = performance.now();
      const result = original.apply(this, values);
      webgl += performance.now() - start;
      drawn ||= draws;
      return result;
    };
  }
  const request = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (callback) => request((time) => {
    [webgl, drawn] = [0, false];
    const start = performance.now();
    callback(time);
    if (drawn) measured.images.push([start, performance.now() - start, webgl]);
  });
}
"""
_RENDERER = """(() => {
  const gl = document.createElement("canvas").getContext("webgl2");
  const names = gl?.getExtension("WEBGL_debug_renderer_info");
  return gl ? gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER) : "no WebGL 2";
})()"""
_PICTURE, _MESSAGE = 'document.getElementById("view")', 'document.getElementById("message").textContent'


class Tab:
    """A page of a browser, by the DevTools protocol.

    Args:
        socket: Connection to the browser.
        timeout: Seconds after which an answer does not come any more.
    """

    def __init__(self, socket: ClientConnection, timeout: float) -> None:
        self.socket, self.timeout, self.number, self.session = socket, timeout, 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command, and return its result.

        Raises:
            RuntimeError: The browser refuses; says why.
            TimeoutError: It does not answer.
        """
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        end = monotonic() + self.timeout
        while True:
            try:
                answer = json.loads(self.socket.recv(timeout=max(end - monotonic(), 0)))
            except TimeoutError:
                raise TimeoutError(f"The browser did not answer {method} within {self.timeout:.0f} s") from None
            if answer.get("id") == self.number:
                break
        if "error" in answer:
            raise RuntimeError(f"The browser refuses {method}: {answer['error']['message']}")
        return answer["result"]

    def value(self, expression: str) -> Any:
        """Value of a JavaScript expression, in JSON's types.

        Raises:
            RuntimeError: It throws.
        """
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")


@dataclass
class PageFps:
    """Open an exported page, let it play, and count."""

    page: Path
    """File of `instant-avatar export --format html`."""
    browser: Path | None = None
    """A Chromium; by default the one on PATH."""
    browser_arguments: str = ""
    """Its arguments, as a shell would take them, after an equals sign: --browser-arguments="--no-sandbox"."""
    size: tuple[int, int] = (1440, 900)
    """Width and height of the window."""
    frames: int = 300
    """Images to measure."""
    seconds: float = 60.0
    """Seconds after which it ends with fewer."""
    warm_up: float = 3.0
    """Seconds that the page plays before."""
    timeout: float = 120.0
    """Seconds in which the browser must start, open the page and answer."""
    output: Path | None = None
    """JSON to merge the figures into."""

    def main(self) -> None:
        """Measure, print and write."""
        figures = self.measure()
        if self.output is None:
            record.write(None, record.head() | figures)
        else:
            record.merge(self.output, "page_fps", figures)

    def measure(self) -> dict[str, Any]:
        """Open the page and count.

        Raises:
            FileNotFoundError: There is no browser.
            ValueError: The file is no exported page.
            RuntimeError: The browser or the page fails; says how.
            TimeoutError: The browser does not answer, or draws nothing.
        """
        splats = splat_count(self.page)
        browser = self.browser or found_browser()
        with opened(browser, shlex.split(self.browser_arguments), self.timeout) as tab:
            width, height = self.size
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            tab.call("Emulation.setDeviceMetricsOverride", **metrics)
            tab.call("Page.enable")
            tab.call("Page.addScriptToEvaluateOnNewDocument", source=_PROBE)
            tab.call("Page.navigate", url=self.page.resolve().as_uri())
            self._wait(tab)
            renderer = tab.value(_RENDERER)
            record.progress(f"page: open, drawn by {renderer}")
            sleep(self.warm_up)
            images = self._images(tab)
            pixels = [tab.value(f"{_PICTURE}.width"), tab.value(f"{_PICTURE}.height")]
        return figures(images, splats) | {f"{kind(splats)}_renderer": renderer, f"{kind(splats)}_pixels": pixels}

    def _wait(self, tab: Tab) -> None:
        """Until the page shows the avatar."""
        end = monotonic() + self.timeout
        while (state := tab.value("document.body?.dataset.state")) != "ready":
            if state == "failed":
                raise RuntimeError(f"The page failed: {tab.value(_MESSAGE)}")
            if monotonic() > end:
                raise TimeoutError(f"The page was not ready within {self.timeout:.0f} s")
            sleep(0.1)

    def _images(self, tab: Tab) -> list[list[float]]:
        """What the probe notes of as many images as wanted, or as there is time for."""
        tab.value("void (measured.images.length = 0)")
        end = monotonic() + self.seconds
        while (count := tab.value("measured.images.length")) < self.frames and monotonic() < end:
            sleep(0.2)
        if count < _FEWEST:
            raise TimeoutError(f"The page drew {count} images in {self.seconds:.0f} s: give more --seconds")
        return tab.value("measured.images")[: self.frames]


def splat_count(page: Path) -> int:
    """Splats of an exported page; 0 where it shows a mesh.

    Raises:
        ValueError: It has no avatar.
    """
    found = re.search(rb'id="glb">([^<]*)<', page.read_bytes())
    if found is None:
        raise ValueError(f"{page}: expected a page of `instant-avatar export --format html`, found no avatar in it")
    document, _ = read_glb(b64decode(found[1]))
    primitives = [primitive for mesh in document["meshes"] for primitive in mesh["primitives"]]
    splats = [primitive for primitive in primitives if _SPLATS in primitive.get("extensions", {})]
    return sum(document["accessors"][primitive["attributes"]["POSITION"]]["count"] for primitive in splats)


def found_browser() -> Path:
    """The Chromium on PATH.

    Raises:
        FileNotFoundError: There is none.
    """
    for name in _BROWSERS:
        if path := shutil.which(name):
            return Path(path)
    raise FileNotFoundError("No Chromium is on PATH: name one by --browser (Debian: apt-get install chromium)")


@contextmanager
def opened(browser: Path, arguments: Sequence[str], timeout: float) -> Iterator[Tab]:
    """Start a browser with an empty page, and end it.

    Args:
        browser: A Chromium.
        arguments: More for its command line.
        timeout: Seconds in which it must start and answer.

    Raises:
        RuntimeError: It ends at once, or does not say where it listens; with the last lines of what it says.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "log"
        command = [str(browser), *_ALWAYS, f"--user-data-dir={folder}/profile", *arguments, "about:blank"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            with connect(_address(process, log, timeout), max_size=None, open_timeout=timeout) as socket:
                yield Tab(socket, timeout)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path, timeout: float) -> str:
    """Where the browser listens."""
    end = monotonic() + timeout
    while True:
        said = log.read_text(errors="replace")
        for line in said.splitlines():
            if "DevTools listening on ws://" in line:
                return line.split()[-1]
        if process.poll() is not None or monotonic() > end:
            last = "\n".join(said.splitlines()[-8:])
            ended = "does not listen" if process.poll() is None else f"ended with code {process.returncode}"
            raise RuntimeError(f"The browser {ended}. As root it needs --browser-arguments=--no-sandbox.\n{last}")
        sleep(0.05)


def kind(splats: int) -> str:
    """How the figures' names begin."""
    return "splat_page" if splats else "mesh_page"


def figures(images: Sequence[Sequence[float]], splats: int) -> dict[str, Any]:
    """Rate and times.

    Args:
        images: For each one when it began, how long the page's function took, and the part in WebGL, milliseconds.
        splats: In the page; 0 where it shows a mesh.
    """
    name = kind(splats)
    start, own, webgl = zip(*images, strict=True)
    found: dict[str, Any] = {
        f"{name}_fps": 1000 * (len(images) - 1) / (start[-1] - start[0]),
        f"{name}_js_ms": median(own),
        f"{name}_js_ms_95": quantiles(own, n=20, method="inclusive")[-1],
        f"{name}_webgl_ms": median(webgl),
        f"{name}_frames": len(images),
    }
    return found | ({f"{name}_splats": splats} if splats else {})


if __name__ == "__main__":
    tyro.cli(PageFps).main()
