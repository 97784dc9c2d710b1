"""Buttons that give the command for what is on screen: a film of it, or a file for other programs."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl, ViewerDropdown, ViewerSlider
from viser import ClientHandle, GuiEvent

from instantavatar_ns.utils.files import write_files
from instantavatar_ns.viewer.folder import Button, Folder, finite

_FPS = 30
_VIEW = "This view"
# What `instant-avatar animate --camera` and `instant-avatar export --format` take.
CAMERAS = {"Still": "static", "Around": "orbit"}
FORMATS = ("glb", "html", "vrm", "usdz", "ply", "obj", "splat")
_WITH_A_POSE = ("ply", "obj", "splat")
# Terms of a VRM, which only its author may choose: the command has them open, and is refused until each is filled in.
VRM_TERMS = {
    "vrm.author": "",
    "vrm.avatar-permission": "<onlyAuthor|onlySeparatelyLicensedPerson|everyone>",
    "vrm.commercial-usage": "<personalNonProfit|personalProfit|corporation>",
    "vrm.credit-notation": "<required|unnecessary>",
    "vrm.modification": "<prohibited|allowModification|allowModificationRedistribution>",
}


class Shown(NamedTuple):
    """Motion, frame or pose on screen.

    Attributes:
        motion: File or name of a motion; None for the rest pose and for what nerfstudio's time plays.
        row: Frame of the motion, or training frame; None for the rest pose and for the run's motion.
        seconds: Length of the motion or of the training frames; None for the rest pose.
        root: Where motions go, if it is not the default.
        is_bent: Whether joints are bent.
    """

    motion: str | None
    row: int | None
    seconds: float | None
    root: str | None
    is_bent: bool


class FilmCommands(Folder):
    """Gives the command for a film of what is shown.

    Args:
        control: Leads to nerfstudio's viewer once there is one.
        shown: Gives what is shown.
    """

    def __init__(self, control: ViewerControl, shown: Callable[[], Shown]) -> None:
        super().__init__("Film")
        self._control, self._shown = control, shown
        hint = "From where: as you see it now, or a camera that sees the whole person all the time"
        self._camera = self.add(ViewerDropdown("Camera", _VIEW, [_VIEW, *CAMERAS], hint=hint))
        self._height = self.add(ViewerSlider("Height", 540.0, 64.0, 2160.0, step=2.0, hint="Of the film, pixels"))
        self.add(Button("Film this", cb_hook=self._film, hint="Shows the command for it", is_main=True))

    def _film(self, event: GuiEvent) -> None:
        shown, client = self._shown(), event.client
        assert client is not None
        if shown.seconds is None:
            return _show(client, "Film", "The rest pose does not move. Show a motion, or the training frames.", "")
        height = 2 * round(finite(self._height.value, 540.0, 64.0, 2160.0) / 2)
        run, camera = _run(self._control.viewer), self._camera.value
        note = "Run this in a terminal; the film is then at the path it ends with."
        if shown.is_bent:
            note += " Joints that you have bent are not part of it."
        try:
            if shown.motion is None:
                note += " It plays what nerfstudio's Time slider plays."
                note += "" if camera == _VIEW else " That is filmed from where you look now."
                path = _save_view(self._control.viewer, client, height, shown.seconds, with_time=True)
                output = run.parent / "renders" / f"{path.stem}.mp4"
                options = {"load-config": run, "camera-path-filename": path, "output-path": output}
                return _show(client, "Film", note, command("ns-render camera-path", options, run.parent))
            if camera == _VIEW:
                path = _save_view(self._control.viewer, client, height, shown.seconds, with_time=False)
                options: dict[str, object] = {"camera": path}
            else:
                options = {"camera": CAMERAS[camera], "size": height}
        except OSError as error:
            return _show(client, "Film", f"The view cannot be saved: {error}", "")
        output = run.parent / "animate" / f"{Path(shown.motion).stem}.mp4"
        options = {"load-config": run, "motion": shown.motion, "root": shown.root, **options, "output": output}
        return _show(client, "Film", note, command("instant-avatar animate", options, run.parent))


class ExportCommands(Folder):
    """Gives the command for a file of the avatar; see `FilmCommands`."""

    def __init__(self, control: ViewerControl, shown: Callable[[], Shown]) -> None:
        super().__init__("Export")
        self._control, self._shown = control, shown
        hint = (
            "glb, html (a page), vrm (for VR), usdz (for Apple): with skeleton and motion; ply and obj: the pose that "
            "you see; splat: Gaussian splats, with both"
        )
        self._format = self.add(ViewerDropdown("Format", FORMATS[0], list(FORMATS), hint=hint))
        self.add(Button("Export this", cb_hook=self._export, hint="Shows the command for it", is_main=True))

    def _export(self, event: GuiEvent) -> None:
        assert event.client is not None
        command, note = self.command()
        _show(event.client, "Export", note, command)

    def command(self) -> tuple[str, str]:
        """The command, and what to know of it."""
        shown, kind = self._shown(), self._format.value
        run = _run(self._control.viewer)
        options: dict[str, object] = {"load-config": run, "format": kind}
        if shown.motion is not None:
            options |= {"motion": shown.motion, "root": shown.root}
        if kind in _WITH_A_POSE:
            options["frame"] = shown.row
        name = "avatar_splats.glb" if kind == "splat" else f"avatar.{kind}"
        note = f"Run this in a terminal; it says where {name} is then."
        if kind == "vrm":
            options |= VRM_TERMS
            note += " Before, give the author's name, and one of each &lt;choice&gt;: only the author may make them."
        if shown.motion is None and shown.row is None and shown.seconds is not None:
            note += " The run's motion is not part of it; give its file with --motion."
        if shown.is_bent:
            note += " Joints that you have bent are not part of it."
        return command("instant-avatar export", options, run.parent), note


def command(program: str, options: dict[str, object], run: Path) -> str:
    """Write a command line, an option a line, behind a line that sets RUN: whole paths would not fit the window.

    Args:
        program: The command, before its options.
        options: By their names without dashes; those that are None are left out.
        run: The run's folder.
    """

    def written(value: object) -> str:
        if isinstance(value, Path) and value.is_relative_to(run):
            return f'"$RUN"/{shlex.quote(str(value.relative_to(run)))}'
        return shlex.quote(str(value))

    given = [f"--{name} {written(value)}" for name, value in options.items() if value is not None]
    return f"RUN={shlex.quote(str(run))}\n" + " \\\n    ".join([program, *given])


def _run(viewer: Viewer) -> Path:
    """The run's configuration, where nerfstudio's own tabs expect it."""
    return viewer.log_filename.absolute().parent / "config.yml"


def _save_view(viewer: Viewer, client: ClientHandle, height: int, seconds: float, *, with_time: bool) -> Path:
    """Write a camera path that stays where the browser looks from, in the form of nerfstudio's Render tab.

    Args:
        viewer: nerfstudio's.
        client: The browser.
        height: Of the film, pixels.
        seconds: Length of the film.
        with_time: Let nerfstudio's time go from 0 to 1 meanwhile.

    Returns:
        The file, in the run's folder; its name is not used yet.

    Raises:
        OSError: It cannot be written.
    """
    path = camera_path(viewer.get_camera_state(client).c2w.tolist(), client.camera.fov, client.camera.aspect, height)
    count = max(1, round(seconds * _FPS))
    frame = path["camera_path"][0]
    times = [{"render_time": index / max(1, count - 1)} if with_time else {} for index in range(count)]
    path |= {"seconds": count / _FPS, "camera_path": [frame | time for time in times]}
    folder = _run(viewer).parent / "camera_paths"
    number = 1
    while (folder / f"view_{number}.json").exists():
        number += 1
    write_files(folder, {f"view_{number}.json": json.dumps(path).encode()})
    return folder / f"view_{number}.json"


def camera_path(camera_to_world: list[list[float]], fov: float, aspect: float, height: int) -> dict:
    """A camera path of one frame.

    Args:
        camera_to_world: 3x4, nerfstudio's camera.
        fov: Vertical field of view, radians.
        aspect: Width by height.
        height: Of the film, pixels.
    """
    width = 2 * max(1, round(height * aspect / 2))
    matrix = [value for row in [*camera_to_world, [0.0, 0.0, 0.0, 1.0]] for value in row]
    frame = {"camera_to_world": matrix, "fov": math.degrees(fov), "aspect": width / height}
    return {
        "camera_type": "perspective",
        "render_width": width,
        "render_height": height,
        "fps": _FPS,
        "seconds": 1 / _FPS,
        "camera_path": [frame],
    }


def _show(client: ClientHandle, title: str, note: str, text: str) -> None:
    """Open a window with a text that can be copied."""
    with client.gui.add_modal(title) as window:
        client.gui.add_markdown("\n".join([note, "", *(["```", text, "```"] if text else [])]))
        client.gui.add_button("Close").on_click(lambda _: window.close())
