"""The benchmark of exported pages: its figures, a page in a browser, and what it says where something is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import page_fps, record
from benchmarks.page_fps import PageFps, figures, found_browser, splat_count
from instantavatar_ns.export.gltf import glb_bytes
from instantavatar_ns.export.page.html import page_html
from tests.export.conftest import rigged, walk  # noqa: F401
from tests.export.splats import with_splats

SOFTWARE = "--no-sandbox --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
HEAD = {"date": "2020-01-02", "device": "abacus", "commit": "c1", "command": "python page_fps", "torch": "2"}


@pytest.fixture(scope="module")
def glb(rigged, walk, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The free body as a skinned mesh that walks."""
    path = tmp_path_factory.mktemp("page_fps") / "body.glb"
    content = glb_bytes(
        rigged.mesh,
        texture_png=rigged.texture_png,
        skeleton=rigged.skeleton,
        rest=rigged.rest,
        clips=[rigged.clip(walk)],
        dataset_to_upright=np.eye(4),
    )
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def browser() -> Path:
    try:
        return found_browser()
    except FileNotFoundError as reason:
        pytest.skip(str(reason))


def test_figures_are_those_of_the_images() -> None:
    images = [[100.0 + 20.0 * i, 3.0 + (i == 7), 1.0] for i in range(11)]
    found = figures(images, 40_000)
    assert found["splat_page_fps"] == pytest.approx(50)
    assert (found["splat_page_js_ms"], found["splat_page_webgl_ms"]) == (3.0, 1.0)
    assert 3.0 < found["splat_page_js_ms_95"] <= 4.0
    assert (found["splat_page_frames"], found["splat_page_splats"]) == (11, 40_000)
    assert all(name.startswith("mesh_page_") for name in figures(images, 0))


def test_page_of_splats_is_measured_and_its_figures_are_merged(
    glb: Path, browser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "head", lambda device=None: HEAD)
    page, output = tmp_path / "page.html", tmp_path / "everywhere.json"
    page.write_bytes(page_html("Ann", with_splats(glb)))
    output.write_text('{"viewer_fps": 55.0, "splat_page_fps": 1.0}')
    PageFps(
        page, browser, SOFTWARE, size=(300, 200), frames=8, seconds=60, warm_up=0.5, timeout=60, output=output
    ).main()
    found = json.loads(output.read_text())
    assert found["viewer_fps"] == 55.0 and found["runs"] == {"page_fps": HEAD}
    assert found["splat_page_frames"] == 8 and found["splat_page_splats"] == splat_count(page) > 1000
    assert 0 < found["splat_page_fps"] < 200 and found["splat_page_fps"] != 1.0
    assert 0 <= found["splat_page_webgl_ms"] <= found["splat_page_js_ms"] <= found["splat_page_js_ms_95"] < 1000
    assert "SwiftShader" in found["splat_page_renderer"] and found["splat_page_pixels"][0] == 300


def test_page_that_fails_and_browser_that_ends_are_told(glb: Path, browser: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(page_html("Ann", glb.read_bytes()))
    assert splat_count(page) == 0
    with pytest.raises(RuntimeError, match=r"The page failed: .* WebGL 2"):
        PageFps(page, browser, f"{SOFTWARE} --disable-3d-apis", timeout=30).measure()
    with pytest.raises(RuntimeError, match=r"The browser ended with code .*--browser-arguments"):
        PageFps(page, Path(sys.executable), timeout=30).measure()


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>hello")
    with pytest.raises(ValueError, match=r"page\.html: expected a page of `instant-avatar export --format html`"):
        splat_count(page)
    monkeypatch.setattr(page_fps.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="--browser"):
        found_browser()
