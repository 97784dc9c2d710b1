"""Take the pictures of docs/viewer.md: the viewer on a trained run, in headless Chromium.

    python -m tools.viewer_pictures --load-config outputs/person/instant-avatar/<time>/config.yml

Chromium may be on another machine than the GPU: start `ns-viewer` there, and give `--url`. On a CPU an image of a full
avatar takes up to a minute, which is waited for: the pictures are the same, but for the resolution that is asked for.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from benchmarks import record
from benchmarks.animate import viewer
from instantavatar_ns.utils.errors import InputError

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Route

ROOT = Path(__file__).parents[1]
# Without a GPU for the browser, by its own software renderer.
_FLAGS = ["--no-sandbox", "--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
_WINDOW = (1120, 720)
# Its address is nerfstudio's own site; without a network the browser shows a broken picture.
_HIDE_BROKEN_LOGO = """() => document.querySelectorAll("img").forEach(
    e => { if (!e.naturalWidth) e.style.visibility = "hidden"; })"""
# Part of viser's page, which draws the fewer pixels the longer a frame takes.
_FEWER_PIXELS = re.compile(r"window\.devicePixelRatio\*\(\.2\+\.8\*\w+\)")

_SCROLL_TO = """e => e.scrollIntoView({block: "start"})"""


@dataclass
class ViewerPictures:
    """Open the viewer, go to four views, and save what is seen."""

    load_config: Path | None = None
    """config.yml of a run, to open a viewer on; else the one at `url` is taken."""
    url: str | None = None
    """Address of a viewer that runs, such as http://localhost:7007."""
    output: Path = ROOT / "docs" / "images"
    """Folder of the pictures viewer_avatar.png, viewer_pose.png, viewer_scene.png and viewer_film.png."""
    resolution: int = 512
    """Max res of the panel."""
    pixel_ratio: float = 1.5
    """Pixels of the pictures by those of the page."""
    timeout: float = 300.0
    """Seconds after which an image does not come any more."""

    def main(self) -> None:
        """Take the pictures.

        Raises:
            InputError: There is no Chromium, or neither a run nor an address.
            TimeoutError: An image does not come.
        """
        from playwright.sync_api import sync_playwright

        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if chromium is None:
            raise InputError("chromium", "expected a browser on PATH, found none", "Install it, on Debian as chromium")
        with self._address() as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
            width, height = _WINDOW
            page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=self.pixel_ratio)
            page.set_default_timeout(1000 * self.timeout)
            page.route("**/assets/index-*.js", _with_all_pixels)
            page.goto(address)
            page.get_by_text("Avatar", exact=True).first.wait_for()
            page.evaluate(_HIDE_BROKEN_LOGO)
            _set(page, "Max res", str(self.resolution))
            self._take(page)
            browser.close()

    @contextmanager
    def _address(self) -> Iterator[str]:
        if self.url is not None:
            yield self.url
        elif self.load_config is not None:
            with viewer(self.load_config, self.timeout) as port:
                yield f"http://127.0.0.1:{port}"
        else:
            raise InputError("--load-config", "expected a run or --url of a viewer, found neither", "Give one of them")

    def _take(self, page: Page) -> None:
        """Go through the views; what one opens is closed again for the next."""
        _choose(page, "Show", "dance")
        page.get_by_role("button", name="Front", exact=True).click()
        _set(page, "Position", "0.68")
        self._snap(page, "avatar", at="Avatar")
        _fold(page, "Film")
        page.get_by_role("button", name="Film this").click()
        page.locator("pre").wait_for()
        self._snap(page, "film", renders=False)
        page.get_by_role("button", name="Close", exact=True).click()
        _fold(page, "Film")
        _choose(page, "Show", "Rest pose")
        _fold(page, "Joints")
        _set(page, "Elbow, bend", "100")
        _fold(page, "Scene")
        _field(page, "Skeleton").check()
        _fold(page, "Scene")
        self._snap(page, "pose", at="Joints")
        page.get_by_role("button", name="Reset all joints").click()
        _fold(page, "Joints")
        _choose(page, "Show", "dance")
        _set(page, "Position", "0.31")
        _fold(page, "Scene")
        for cells in ("Union box", "Pose cells"):
            _field(page, cells).check()
        self._snap(page, "scene", at="Scene")

    def _snap(self, page: Page, name: str, at: str | None = None, renders: bool = True) -> None:
        """Save the page once its image has come in full size, and stays.

        Args:
            page: The viewer.
            name: Of the picture.
            at: Folder of the panel to scroll to.
            renders: Whether what was done to the page changes the image.
        """
        if renders:
            # The image that was there still has its full size; the first new ones are small. On a GPU none may be.
            self._wait_until(lambda: not self._is_full(page), seconds=20.0, interval=0.1)
        if at is not None:
            page.get_by_text(at, exact=True).first.evaluate(_SCROLL_TO)
        page.mouse.move(10, _WINDOW[1] / 2)  # off the panel, whose hints would be shown
        picture = b""

        def stays() -> bool:
            # Asked before the screenshot: the full image may come while that is taken, too late to be in it.
            nonlocal picture
            before, picture = picture, page.screenshot() if self._is_full(page) else b""
            return bool(picture) and picture == before

        if not self._wait_until(stays, self.timeout, interval=4.0):
            raise TimeoutError(f"{name}: no image of {self.resolution} pixels that stays in {self.timeout:.0f} s")
        path = self.output / f"viewer_{name}.png"
        path.write_bytes(picture)
        record.progress(f"{path}: {len(picture) / 1000:.0f} kB")

    def _is_full(self, page: Page) -> bool:
        found = re.search(r"Resolution: (\d+)x(\d+)", page.inner_text("body"))
        return found is not None and self.resolution in map(int, found.groups())

    def _wait_until(self, condition: Callable[[], bool], seconds: float, interval: float) -> bool:
        """Return whether a condition is met in time."""
        end = time.monotonic() + seconds
        while not (met := condition()) and time.monotonic() < end:
            time.sleep(interval)
        return met


def _with_all_pixels(route: Route) -> None:
    """Serve the script of viser's page so that it draws in full resolution on slow machines, too."""
    response = route.fetch()
    script, changed = _FEWER_PIXELS.subn("window.devicePixelRatio", response.text())
    if not changed:
        record.progress(f"{route.request.url}: may draw fewer pixels on a slow machine; see _FEWER_PIXELS")
    route.fulfill(response=response, body=script)


def _row(page: Page, label: str) -> Locator:
    return page.get_by_text(label, exact=True).first.locator("xpath=ancestor::div[.//input][1]")


def _field(page: Page, label: str) -> Locator:
    """The input beside a label of the panel; of a slider, the one for numbers."""
    return _row(page, label).locator("input:not([type=hidden])").last


def _set(page: Page, label: str, value: str) -> None:
    _field(page, label).fill(value)
    _field(page, label).press("Enter")


def _choose(page: Page, label: str, option: str) -> None:
    _row(page, label).locator("input:not([type=hidden])").first.click()
    page.get_by_role("option", name=option, exact=True).click()


def _fold(page: Page, title: str) -> None:
    """Open a folder of the panel, or close it."""
    page.get_by_text(title, exact=True).first.click()
    time.sleep(0.6)  # it moves


if __name__ == "__main__":
    tyro.cli(ViewerPictures, description=__doc__).main()
