"""The page of `instant-avatar export --format html`, opened in a browser as somebody would who was sent the file."""

import hashlib
import io
import json
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from instantavatar_ns.body.smpl import JOINT_NAMES, MIRROR_IMAGES
from instantavatar_ns.export.glb_container import read_glb, write_glb
from instantavatar_ns.export.page.avatar_page import MAX_BYTES, Detail, fit, splat_page
from instantavatar_ns.export.page.html import HERE, page_html
from instantavatar_ns.export.page.sliders import SLIDERS
from instantavatar_ns.export.splats.avatar_splats import AvatarSplats, Effort
from instantavatar_ns.motion.free_motions import library_names
from instantavatar_ns.scripts.export import Export
from instantavatar_ns.utils.errors import InputError
from tests.export.splats import with_splats
from tests.viewer.test_live_viewer import CHROMIUM, FLAGS

TITLE = """Ann </title><script>alert("1")</script> {{glb}} & 'Bob'"""
SMALL = {"voxel_size": 0.02, "max_faces": 3000, "texture_size": 256}
WIDE, PHONE = {"width": 760, "height": 480}, {"width": 390, "height": 844}
# What a hand on a slider does.
MOVE = """([label, value]) => {
  const slider = document.querySelector(`[aria-label="${label}"]`);
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
}"""
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def html(trained_run, tmp_path_factory):
    """A page with the motions that come along."""
    output = tmp_path_factory.mktemp("page") / "my avatar.html"
    return Export(trained_run / "config.yml", format="html", output=output, title=TITLE, **SMALL).main()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Opened:
    """The page in a window, all that its console said, and all that it asked the network for."""

    def __init__(self, browser, html: Path, size=WIDE, motion="no-preference", script=None) -> None:
        self.page = browser.new_page(viewport=size, reduced_motion=motion)
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        if script is not None:
            self.page.add_init_script(script)
        self.page.goto(html.as_uri())
        # Not by wait_for_function, which the page's policy forbids to evaluate text.
        self.page.locator("body:not([data-state=loading])").wait_for(timeout=120_000)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_) -> None:
        self.page.close()
        if kind is None:
            # SwiftShader's own remarks on its speed are no errors.
            assert [text for text in self.said if "GL Driver Message" not in text] == []
            # Textures are read from memory, by blob: addresses.
            assert self.asked[0].startswith("file:")
            assert all(url.startswith("blob:") for url in self.asked[1:])

    def choose(self, clip: str) -> None:
        self.page.get_by_role("radio", name=clip, exact=True).check(force=True)

    def move(self, label: str, value: float) -> None:
        self.page.evaluate(MOVE, [label, str(value)])

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def picture(self) -> np.ndarray:
        """Colours of the stage [height, width, 3]."""
        self.page.evaluate(DRAWN)
        screenshot = self.page.screenshot(clip=self.page.locator("#stage").bounding_box())
        return np.array(Image.open(io.BytesIO(screenshot)).convert("RGB")).astype(int)


def person(picture: np.ndarray) -> np.ndarray:
    """Pixels [height, width] of the person: all else, the shadow too, is grey."""
    return np.ptp(picture, axis=2) > 25


def extent(picture: np.ndarray) -> tuple[float, float, float, float]:
    """Least and largest row and column of the person, as shares of the stage."""
    shares = []
    for axis in (1, 0):
        places = np.flatnonzero(person(picture).any(axis=axis))
        shares += [places[0] / picture.shape[1 - axis], places[-1] / picture.shape[1 - axis]]
    return tuple(shares)


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pixels [height, width] that clearly show something else."""
    return np.abs(first - second).max(axis=2) > 40


def test_plays_and_pauses_what_it_names(html, browser):
    with Opened(browser, html, {"width": 400, "height": 600}) as opened:
        page = opened.page
        assert page.title() == page.locator("h1").inner_text() == TITLE
        names = page.locator("#motions label").evaluate_all("labels => labels.map((label) => label.textContent)")
        assert names == ["Stand", *library_names()]
        assert not page.get_by_role("button", name="Show it in the room").is_visible()
        before = opened.picture()
        page.wait_for_timeout(300)
        assert difference(before, opened.picture()).sum() > 100
        opened.click("Pause")
        still = opened.picture()
        page.wait_for_timeout(200)
        assert difference(still, opened.picture()).sum() < 10
        page.locator("#view").focus()
        page.keyboard.press("ArrowRight")
        assert difference(still, opened.picture()).sum() > 100
        page.keyboard.press(" ")
        page.get_by_role("button", name="Pause").wait_for()


@pytest.fixture(scope="module")
def calm(html, browser):
    """The page where nothing moves by itself."""
    with Opened(browser, html, motion="reduce") as opened:
        assert opened.page.get_by_role("button", name="Play", exact=True).is_visible()
        yield opened


@pytest.mark.parametrize(
    "size",
    [PHONE, WIDE, pytest.param({"width": 844, "height": 390}, marks=pytest.mark.nightly)],
    ids=["phone", "wide", "lying phone"],
)
def test_whole_person_is_in_the_picture_in_all_clips(calm, size):
    calm.page.set_viewport_size(size)
    highest = 1.0
    for clip, shares in {"Stand": [None], "stretch": [0.35, 0.7], "dance": [0.4], "walk": [1.0]}.items():
        calm.choose(clip)
        for share in shares:
            if share is not None:
                calm.move("Time", share)
            top, bottom, left, right = extent(calm.picture())
            assert top > 0.005 and bottom < 0.995 and left > 0.005 and right < 0.995, (clip, share)
            assert bottom - top > 0.3, "and not lost in it"
            highest = min(highest, top)
    assert highest < 0.25, "no more room than the clips need"


@pytest.mark.nightly
@pytest.mark.parametrize("height", [0.3, -0.3], ids=["too high", "too low"])
def test_every_clip_stands_on_the_floor(calm, html, browser, tmp_path, height):
    """A page whose clips lie higher or lower than its rest pose, metres, shows them as that whose clips do not."""
    (glb,) = re.findall(rb'id="glb">([^<]*)<', html.read_bytes())
    (tmp_path / "moved.html").write_bytes(page_html("Ann", with_clips_raised(b64decode(glb), height)))
    calm.page.set_viewport_size(WIDE)
    with Opened(browser, tmp_path / "moved.html", WIDE, "reduce") as moved:
        for clip in ("walk", "Stand"):
            pictures = []
            for opened in (calm, moved):
                opened.click("Reset")
                opened.choose(clip)
                if clip != "Stand":
                    opened.move("Time", 0.4)
                pictures.append(opened.picture())
            assert difference(*pictures).sum() < 0.01 * person(pictures[0]).sum()
    calm.click("Reset")


def with_clips_raised(glb: bytes, height: float) -> bytes:
    """The GLB with all clips moved up, metres."""
    document, binary = read_glb(glb)
    data = bytearray(binary)
    for clip in document["animations"]:
        outputs = [
            document["accessors"][clip["samplers"][channel["sampler"]]["output"]]
            for channel in clip["channels"]
            if channel["target"]["path"] == "translation"
        ]
        assert outputs
        for output in outputs:
            start = document["bufferViews"][output["bufferView"]].get("byteOffset", 0) + output.get("byteOffset", 0)
            np.frombuffer(data, np.float32, 3 * output["count"], start).reshape(-1, 3)[:, 1] += height
    return write_glb(document, bytes(data))


@pytest.mark.parametrize(
    ("label", "angle", "rows", "columns"),
    [
        ("Left arm: Raise", 90, (-0.3, 0.6), (0.5, 1.0)),
        ("Right leg: Bend knee", 100, (0.6, 1.1), (0.0, 0.5)),
        pytest.param("Right arm: Bend elbow", 120, (-0.3, 0.7), (0.0, 0.5), marks=pytest.mark.nightly),
        pytest.param("Head: Turn", 60, (-0.1, 0.35), (0.3, 0.7), marks=pytest.mark.nightly),
    ],
)
def test_slider_bends_its_joint_only(calm, label, angle, rows, columns):
    """Seen from the front, so the left arm is on the right; rows are shares of the person, columns of the stage."""
    calm.page.set_viewport_size(WIDE)
    calm.click("Reset")
    begin = calm.picture()
    calm.choose("Stand")
    before = calm.picture()
    top, bottom, *_ = extent(before)
    calm.move(label, angle)
    after = calm.picture()
    changed = difference(before, after) & (person(before) | person(after))
    assert changed.sum() > 100
    y, x = np.nonzero(changed)
    y = (y / len(changed) - top) / (bottom - top)
    x = x / changed.shape[1]
    assert ((y > rows[0]) & (y < rows[1]) & (x > columns[0]) & (x < columns[1])).mean() > 0.97
    # It stays bent in a clip, by the same angle however often the clip comes round.
    calm.choose("walk")
    calm.move("Time", 0.3)
    once = calm.picture()
    for share in (0.8, 0.3):
        calm.move("Time", share)
    assert difference(once, calm.picture()).sum() < 10
    calm.click("Reset")
    assert difference(begin, calm.picture()).sum() < 10
    calm.choose("Stand")
    assert difference(before, calm.picture()).sum() < 10


@pytest.mark.nightly
def test_splats_are_bent_as_the_mesh_is(calm, html, browser, tmp_path):
    """Splats as large as the mesh's triangles, in its skin, look like the mesh in a clip and with a bent arm."""
    (glb,) = re.findall(rb'id="glb">([^<]*)<', html.read_bytes())
    (tmp_path / "mesh.glb").write_bytes(b64decode(glb))
    (tmp_path / "splats.html").write_bytes(page_html("Ann", with_splats(tmp_path / "mesh.glb")))
    calm.page.set_viewport_size(WIDE)
    with Opened(browser, tmp_path / "splats.html", WIDE, "reduce") as splats:
        calm.click("Reset")
        pictures = []
        for opened in (calm, splats):
            opened.choose("walk")
            opened.move("Time", 0.4)
            pictures.append(opened.picture())
            opened.move("Left arm: Raise", 70)
            pictures.append(opened.picture())
        calm.click("Reset")
    _, mesh, _, splatted = map(person, pictures)
    assert (mesh & splatted).sum() > 0.8 * (mesh | splatted).sum()
    assert np.abs(pictures[1] - pictures[3])[mesh & splatted].mean() < 25
    arm = mesh & ~person(pictures[0])
    assert (splatted & arm).sum() > 0.75 * arm.sum() > 50
    # Their shadows, too: whatever is darker than the floor beside it was before.
    beside = ~(mesh | splatted)
    assert np.abs(pictures[1] - pictures[3])[beside].mean() < 1
    bare, shadows = pictures[1].max(), [beside & (picture.max(axis=2) < 190) for picture in (pictures[1], pictures[3])]
    assert bare > 230 and (shadows[0] & shadows[1]).sum() > 0.7 * (shadows[0] | shadows[1]).sum() > 20


@pytest.mark.nightly
def test_shadow_falls_behind_splats(html, browser, tmp_path):
    """The shadow, which is stronger in dark windows, changes nothing of the shoes in front of it, from either side."""
    (glb,) = re.findall(rb'id="glb">([^<]*)<', html.read_bytes())
    (tmp_path / "mesh.glb").write_bytes(b64decode(glb))
    (tmp_path / "splats.html").write_bytes(page_html("Ann", with_splats(tmp_path / "mesh.glb")))
    with Opened(browser, tmp_path / "splats.html", WIDE, "reduce") as opened:
        opened.choose("Stand")
        light = opened.picture()
        bottom = int(extent(light)[1] * len(light))
        rows = slice(bottom - len(light) // 20, bottom + len(light) // 50)
        for _ in range(2):
            light = opened.picture()[rows]
            opened.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
            dark = opened.picture()[rows]
            opened.page.emulate_media(color_scheme="light", reduced_motion="reduce")
            shoes = ndimage.binary_erosion(light.max(axis=2) < 120)  # darker than the shadow beside them
            assert shoes.sum() > 100
            assert np.median(np.abs(light - dark)[shoes]) < 4
            for _ in range(26):  # half a turn
                opened.page.locator("#view").press("ArrowRight")


@pytest.mark.nightly
def test_splats_take_the_place_of_the_mesh(trained_run, browser, tmp_path, monkeypatch):
    monkeypatch.setattr(Effort, "on", lambda device, splats: Effort(splats, 32, 20))
    output = tmp_path / "splats.html"
    Export(trained_run / "config.yml", format="html", output=output, splats=700, motion=(Path("walk"),), **SMALL).main()
    with Opened(browser, output, {"width": 400, "height": 600}, "reduce") as opened:
        names = opened.page.locator("#motions label").evaluate_all("labels => labels.map((one) => one.textContent)")
        assert names == ["Stand", "walk"]
        top, bottom, *_ = extent(opened.picture())
        assert 0.4 < bottom - top < 0.95
    (glb,) = re.findall(rb'id="glb">([^<]*)<', output.read_bytes())
    document, _ = read_glb(b64decode(glb))
    (primitive,) = document["meshes"][0]["primitives"]
    assert primitive["mode"] == 0 and document["accessors"][primitive["attributes"]["POSITION"]]["count"] == 700


def test_too_many_splats_are_told(monkeypatch):
    monkeypatch.setattr("instantavatar_ns.export.page.avatar_page.quick_look", lambda *_: b"")
    splats = object.__new__(AvatarSplats)
    monkeypatch.setattr(splats, "glb", lambda motions: bytes(MAX_BYTES * 3 // 4), raising=False)
    monkeypatch.setattr(splats, "avatar", None, raising=False)
    with pytest.raises(InputError, match=r"--splats: expected a page of at most 12 MB, found 1[234]"):
        splat_page("Ann", splats, [], 64)


def test_android_is_asked_for_the_room(html, browser):
    """The page takes no for an answer and goes on."""
    phone = """Object.defineProperty(navigator, "xr", { value: {
      isSessionSupported: async (mode) => mode === "immersive-ar",
      requestSession: async (mode, wishes) => {
        window.asked = [mode, wishes.requiredFeatures];
        throw new Error("not now");
      },
    } })"""
    with Opened(browser, html, PHONE, "reduce", phone) as opened:
        opened.click("Show it in the room")
        opened.page.get_by_text("The room cannot be shown: not now").wait_for()
        assert opened.page.evaluate("window.asked") == ["immersive-ar", ["hit-test"]]
        opened.click("Play")


def test_iphone_gets_the_usdz(html, browser, tmp_path):
    content = html.read_bytes()
    (glb,) = re.findall(rb'id="glb">([^<]*)<', content)
    (tmp_path / "page.html").write_bytes(page_html("Ann", b64decode(glb), usdz=b"a USDZ file"))
    phone = """DOMTokenList.prototype.supports = (token) => token === "ar";
      HTMLAnchorElement.prototype.click = async function () {
        const text = await (await fetch(this.href)).text();
        window.opened = [this.rel, this.children.length, this.firstChild.tagName, this.download, text];
        document.body.dataset.opened = "";
      }"""
    with Opened(browser, tmp_path / "page.html", PHONE, "reduce", phone) as opened:
        opened.click("Show it in the room")
        opened.page.locator("body[data-opened]").wait_for(state="attached")
        assert opened.page.evaluate("window.opened") == ["ar", 1, "IMG", "Ann.usdz", "a USDZ file"]
        opened.asked.pop()  # the test's own reading of the file


def test_browser_without_webgl_is_told(html, browser):
    none = "HTMLCanvasElement.prototype.getContext = () => null"
    opened = Opened(browser, html, script=none)
    assert "WebGL 2" in opened.page.locator("#message").inner_text()
    opened.page.close()


def test_page_is_small_and_brings_its_licenses(html):
    content = html.read_text(encoding="utf-8")
    assert len(content) < MAX_BYTES / 3
    for license_of in ("three.js authors", "Arseny Kapoulkine"):
        assert license_of in content


def test_bundle_is_the_noted_one():
    note = json.loads((HERE / "three.json").read_text(encoding="utf-8"))
    bundle = (HERE / "three.min.js").read_bytes()
    assert hashlib.sha256(bundle).hexdigest() == note["sha256"], "run tools/build_page/build.py"
    revision = note["versions"]["three"].split(".")[1]
    assert f'"{revision}"'.encode() in bundle
    lock = Path(__file__).parents[2] / "tools" / "build_page" / "package-lock.json"
    packages = json.loads(lock.read_text(encoding="utf-8"))["packages"]
    for name, version in note["versions"].items():
        assert packages[f"node_modules/{name}"]["version"] == version, "run tools/build_page/build.py"


def test_both_sides_have_the_same_sliders():
    mirrored = dict(zip(JOINT_NAMES, (JOINT_NAMES[index] for index in MIRROR_IMAGES), strict=True))
    for limb, sliders in SLIDERS.items():
        other = SLIDERS[limb.replace("Left", "Right")] if "Left" in limb else sliders
        for slider, mirror in zip(sliders, other, strict=True):
            assert slider.range[0] <= 0 <= slider.range[1]
            if "Left" in limb:
                x, y, z = slider.axis
                assert mirror == (slider.label, tuple(mirrored[j] for j in slider.joints), (x, -y, -z), slider.range)


def test_detail_is_given_up_only_as_far_as_needed():
    tried = []

    def build(detail):
        tried.append(detail)
        return bytes(detail.faces * 100 + detail.texture**2)

    content, used = fit(build, Detail(30_000, 4096), max_bytes=5_000_000)
    assert (used, len(content)) == (Detail(30_000, 1024), 30_000 * 100 + 1024**2)
    assert tried == [Detail(30_000, size) for size in (4096, 2048, 1024)]
    assert fit(build, Detail(30_000, 1024), max_bytes=2_600_000)[1] == Detail(15_000, 1024)
    assert fit(build, Detail(10_000, 256), max_bytes=2_000_000)[1] == Detail(10_000, 256)
    with pytest.raises(InputError, match=r"--motion: expected motions that fit .* Give fewer or shorter motions"):
        fit(build, Detail(30_000, 4096), max_bytes=900_000)


def test_title_is_for_pages(trained_run):
    with pytest.raises(InputError, match="--title: expected with --format html only"):
        Export(trained_run / "config.yml", title="Ann").main()
