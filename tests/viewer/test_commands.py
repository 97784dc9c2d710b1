"""Commands that the viewer gives: their programs take them, and they are for what is shown."""

from __future__ import annotations

import json
import re
import shlex
from contextlib import contextmanager
from types import SimpleNamespace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
import tyro
from nerfstudio.scripts.render import RenderCameraPath

from instantavatar_ns.export.vrm import VrmMeta
from instantavatar_ns.scripts.animate import Animate
from instantavatar_ns.scripts.camera_path import read_camera_path
from instantavatar_ns.scripts.export import Export
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.viewer.commands import CAMERAS, FORMATS
from instantavatar_ns.viewer.folder import Button
from instantavatar_ns.viewer.motion_controls import FRAME, REST, TIME

WITH_FRAME = ("ply", "obj", "splat")
PROGRAMS = {
    "instant-avatar animate": Animate,
    "instant-avatar export": Export,
    "ns-render camera-path": RenderCameraPath,
}


class Browser:
    """A browser that keeps the texts of the window that was opened last."""

    def __init__(self) -> None:
        self.camera, self.gui, self.text = SimpleNamespace(fov=1.3, aspect=1.28), self, ""

    @contextmanager
    def add_modal(self, _: str):
        yield self

    def add_markdown(self, text: str) -> None:
        self.text = text

    def add_button(self, _: str):
        return SimpleNamespace(on_click=lambda callback: callback)


@pytest.fixture
def press(model, scene, tmp_path):
    """Press the button of a folder; returns the command as its program parses it, and the note beside it."""
    controls, browser = model.viewer_controls, Browser()
    viewer = controls.control.viewer
    viewer.log_filename, viewer.control_panel = tmp_path / "a run" / "viewer.txt", SimpleNamespace(time=0.5)
    viewer.get_camera_state = lambda _: SimpleNamespace(c2w=torch.eye(3, 4, dtype=torch.float64))

    def press(folder):
        (button,) = (element for element in folder.elements if isinstance(element, Button))
        button.cb_hook(SimpleNamespace(client=browser))
        note, *code = browser.text.split("```\n")
        if not code:
            return None, note
        run, line = code[0].removesuffix("\n```").split("\n", 1)
        (setting,) = shlex.split(run)
        assert setting == f"RUN={viewer.log_filename.parent}" and str(viewer.log_filename.parent) not in line
        words = shlex.split(line.replace("\\\n", "").replace("$RUN", setting.removeprefix("RUN=")))
        words = [re.sub(r"^<(\w+)\|.*>$", r"\1", word) or "Ann Example" for word in words]  # as an author fills it in
        program = PROGRAMS[" ".join(words[:2])]
        return tyro.cli(program, args=words[2:]), note

    return press


def test_motion_is_filmed_from_where_the_browser_looks(model, press, tmp_path) -> None:
    controls = model.viewer_controls
    controls.motion._shown.value = "walk"
    controls.motion._choose(None)
    controls.motion._root.value = "in-place"
    controls.film._height.value = 301.0
    film, note = press(controls.film)
    run = tmp_path / "a run"
    assert film.load_config == run / "config.yml" and str(film.motion) == "walk"
    assert film.motion_options.root == "in-place" and "bent" not in note
    path = read_camera_path(film.camera)
    assert path["seconds"] == pytest.approx(controls.motion.named("walk").duration, abs=0.04)
    assert (path["render_height"], path["render_width"]) == (300, 384)
    assert not any("render_time" in frame for frame in path["camera_path"]), "it plays at its own speed"
    controls.pose.slider("left arm", "Elbow, bend").value = 90.0
    again, note = press(controls.film)
    assert again.camera != film.camera and film.camera.is_file(), "an earlier command stays as it was"
    assert "bent are not part" in note


@pytest.mark.parametrize(("choice", "camera"), CAMERAS.items())
def test_motion_is_filmed_by_a_camera_of_its_own(model, press, motion_file, choice, camera) -> None:
    controls = model.viewer_controls
    controls.motion._file.value = str(motion_file)
    controls.motion._load_file(None)
    controls.film._camera.value = choice
    film, _ = press(controls.film)
    assert film.camera == camera and film.motion == motion_file and film.size == 540


@pytest.mark.parametrize("shown", [TIME, FRAME])
def test_training_frames_are_filmed_by_ns_render(model, press, shown) -> None:
    model.viewer_controls.motion._shown.value = shown
    film, _ = press(model.viewer_controls.film)
    path = json.loads(film.camera_path_filename.read_text())
    times = [frame["render_time"] for frame in path["camera_path"]]
    assert times[0] == 0 and times[-1] in (0, 1) and film.output_path.suffix == ".mp4"
    assert len(times) == path["seconds"] * path["fps"] == pytest.approx(model.subject.num_train, abs=1)


def test_rest_pose_is_no_film(model, press) -> None:
    model.viewer_controls.motion._shown.value = REST
    command, note = press(model.viewer_controls.film)
    assert command is None and "does not move" in note


@pytest.mark.parametrize("kind", FORMATS)
def test_export_takes_the_motion_or_the_pose_that_is_shown(model, press, kind) -> None:
    controls = model.viewer_controls
    controls.export._format.value = kind
    cases = {REST: (None, None), FRAME: (None, 2), TIME: (None, round(0.5 * (model.subject.num_train - 1)))}
    controls.motion._frame.value = 2.0
    for shown, (_, frame) in cases.items():
        controls.motion._shown.value = shown
        export, _ = press(controls.export)
        assert (export.format, export.motion) == (kind, ()) and export.frame == (frame if kind in WITH_FRAME else None)
    controls.motion._shown.value = "dance"
    controls.motion._choose(None)
    controls.motion._position.value = 0.5
    export, _ = press(controls.export)
    row = round(0.5 * (len(controls.motion.named("dance")) - 1))
    assert list(map(str, export.motion)) == ["dance"] and export.frame == (row if kind in WITH_FRAME else None)
    export._check()


def test_every_format_is_offered() -> None:
    assert sorted(FORMATS) == sorted(get_args(get_type_hints(Export)["format"]))


@pytest.mark.usefixtures("press")  # which gives the panel a viewer
def test_terms_of_a_vrm_are_left_to_its_author(model) -> None:
    """The command names all choices and makes none, so it is refused as it is."""
    model.viewer_controls.export._format.value = "vrm"
    line, note = model.viewer_controls.export.command()
    assert "only the author" in note
    hints = get_type_hints(VrmMeta)
    missing = re.findall(r"--(vrm\.\S+) (\S+)", line)
    assert missing[0] == ("vrm.author", "''")
    for name, choices in missing[1:]:
        kind = hints[name.removeprefix("vrm.").replace("-", "_")]
        assert choices == f"'<{'|'.join(get_args(get_args(kind)[0]))}>'"
    with pytest.raises(InputError) as refused:
        VrmMeta().check()
    assert [name for name, _ in missing] == re.findall(r"--(vrm\.\S+)", str(refused.value))
    with pytest.raises(SystemExit):
        tyro.cli(Export, args=shlex.split(line.replace("\\\n", ""))[2:])


@pytest.fixture
def motion_file(tmp_path):
    path = tmp_path / "my poses.npz"
    np.savez(path, poses=0.1 * np.ones((31, 72)), trans=np.zeros((31, 3)), fps=15.0)
    return path
