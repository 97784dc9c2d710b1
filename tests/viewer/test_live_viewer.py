"""nerfstudio's viewer in a browser: what a user sees first, and what the Time slider does."""

from __future__ import annotations

import io
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands import BIN, environment

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = """--no-sandbox --disable-gpu --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --disable-quic
    --no-first-run --disable-background-networking --disable-component-update --disable-sync""".split()
# The window, and the part of it between nerfstudio's title bar and its panel, where the scene is.
WINDOW = {"width": 1000, "height": 700}
SCENE = (slice(60, 690), slice(70, 670))
PATIENCE = 240
# Without a network nerfstudio's logo is missing; viser's coordinate axes always complain.
KNOWN_MESSAGES = r"net::ERR_|computeBoundingSphere"


@pytest.fixture(scope="module")
def server(trained_run, tmp_path_factory):
    """Address of `ns-viewer` on the trained run, and its log."""
    folder = tmp_path_factory.mktemp("viewer")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = ["--viewer.websocket-host", "127.0.0.1", "--viewer.websocket-port", str(port)]
    command = [BIN / "ns-viewer", "--load-config", trained_run / "config.yml", *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=log, stderr=log)
        try:
            _wait(lambda: _answers(address) or process.poll() is not None)
            assert process.poll() is None, (folder / "log").read_text()[-4000:]
            yield address, folder / "log"
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def page():
    """An empty page of a browser, and the list of errors that its console gets."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    errors = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=WINDOW)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(f"uncaught: {error}"))
        yield page, errors
        browser.close()


def _answers(address):
    try:
        return urllib.request.urlopen(address, timeout=2).status == 200
    except OSError:
        return False


def _wait(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return result


def _set(page, label, value):
    """Type a number into the panel."""
    row = page.get_by_text(label, exact=True).locator("xpath=ancestor::div[.//input][1]")
    field = row.locator("input[type=text], input[inputmode]").last
    field.fill(value)
    field.press("Enter")


def _scene(page):
    """Colours of the scene, 0 to 1, once it is rendered as finely as wanted."""
    _wait(lambda: re.search(r"Resolution: 12\dx|Resolution: \d+x12\d", page.inner_text("body")))
    screenshot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    return np.asarray(screenshot, np.float64)[SCENE] / 255


def _person(scene):
    return (scene < 0.85).any(axis=2)


def _spread(mask, axis):
    """Extent of a mask along an axis, as a share of the image, without stray pixels."""
    low, high = np.percentile(np.nonzero(mask)[axis], (3, 97))
    return (high - low) / mask.shape[axis]


def test_person_is_seen_and_time_moves_it(server, page):
    address, log = server
    page, errors = page
    page.goto(address)
    page.get_by_text("Max res", exact=True).wait_for(timeout=PATIENCE * 1000)
    _set(page, "Max res", "128")
    scene = _scene(page)

    red, green, blue = scene[..., 0], scene[..., 1], scene[..., 2]
    shirt = (red > 0.45) & (red > 1.7 * green) & (red > 1.7 * blue)
    trousers = (blue > 0.2) & (blue > 1.25 * red) & (blue > 1.1 * green) & (red < 0.5)
    assert shirt.mean() > 0.008 and trousers.mean() > 0.015
    (shirt_row, shirt_column), (trousers_row, trousers_column) = (np.mean(np.nonzero(m), 1) for m in (shirt, trousers))
    height, width = shirt.shape
    assert 0.2 * height < shirt_row < 0.5 * height < trousers_row < 0.8 * height, "upright, all of it in the image"
    assert abs(shirt_column - width / 2) < 0.1 * width and abs(trousers_column - width / 2) < 0.1 * width
    person = _person(scene)
    assert 0.5 < _spread(person, 0) < 0.9
    corners = np.concatenate([scene[:60, :60], scene[:60, -60:]])
    assert corners.mean() > 0.95, "the background is white"

    # A quarter of the training turn later the person, arms apart, is seen from its side.
    _set(page, "Time", "0.25")
    front = _spread(person, 1)
    _wait(lambda: _spread(_person(_scene(page)), 1) < 0.75 * front)

    assert [error for error in errors if not re.search(KNOWN_MESSAGES, error)] == []
    assert "Traceback" not in Path(log).read_text()
