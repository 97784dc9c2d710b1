"""Controls of the shown pose: the training frames, the rest pose or a motion, standing or playing."""

from __future__ import annotations

from collections.abc import Callable
from math import floor
from pathlib import Path
from time import monotonic
from typing import cast, get_args

from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer.viewer_elements import (
    ViewerCheckbox,
    ViewerControl,
    ViewerDropdown,
    ViewerElement,
    ViewerSlider,
    ViewerText,
)

import instantavatar_ns.motion
from instantavatar_ns.motion.editing import DEFAULT_OPTIONS, Root
from instantavatar_ns.motion.motion import DEFAULT_FPS, Motion
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import write_files
from instantavatar_ns.viewer.folder import Button, Folder, Message, UploadButton, UploadedFile, finite
from instantavatar_ns.viewer.playback import Playback

TIME = "Time slider"
FRAME = "Training frame"
REST = "Rest pose"
RUN_MOTION = "Motion of the run"

LIBRARY = Path(instantavatar_ns.motion.__file__).parent / "library"
_ENDINGS = (".npz", ".pkl", ".bvh")
_DIGITS = 3  # of positions between 0 and 1; more do not fit beside the slider


class MotionControls(Folder):
    """Chooses a pose and moves it.

    Args:
        num_train: Number of training frames.
        run_motion: The motion that the run's configuration names, which nerfstudio's time plays.
        load: Reads a motion file, with the way that its root is to go, and places it where the person stands; raises
            InputError.
        control: Leads to nerfstudio's viewer once there is one.
        more: Other elements, to lie between those that play and those that load files.
    """

    def __init__(
        self,
        num_train: int,
        run_motion: Motion | None,
        load: Callable[[Path, Root], Motion],
        control: ViewerControl,
        more: tuple[ViewerElement, ...] = (),
    ) -> None:
        super().__init__("Avatar", is_open=True)
        self._num_train, self._run_motion, self._load, self._control = num_train, run_motion, load, control
        # Files that can be shown; the motions of some, read with the root that is chosen.
        self._files: dict[str, Path] = {path.stem: path for path in sorted(LIBRARY.glob("*.npz"))}
        self._motions: dict[str, Motion] = {} if run_motion is None else {RUN_MOTION: run_motion}
        self._before = TIME

        self._shown = self.add(ViewerDropdown("Show", TIME, self._options(), cb_hook=self._choose))
        # All numbers are floats: viser cannot turn NaN, which it gets for a word, into an integer.
        last = max(num_train - 1.0, 1.0)
        self._frame = self.add(
            ViewerSlider("Training frame", 0.0, 0.0, last, step=1.0, visible=False, cb_hook=self._moved)
        )
        self._position = self.add(
            ViewerSlider("Position", 0.0, 0.0, 1.0, step=10**-_DIGITS, visible=False, cb_hook=self._moved)
        )
        self._play = self.add(ViewerCheckbox("Play", False, cb_hook=self._play_or_pause))
        self._speed = self.add(ViewerSlider("Speed", 1.0, 0.0, 4.0, step=0.1))
        for element in more:
            self.add(element)
        hint = "Where a motion goes: the camera goes along, the pelvis is held, or the person walks away"
        self._root = self.add(
            ViewerDropdown("Root", DEFAULT_OPTIONS.root, list(get_args(Root)), cb_hook=self._choose_root, hint=hint)
        )
        hint = "A .npz, .pkl or .bvh on the machine that runs the viewer"
        self._file = self.add(ViewerText("Motion file", "", hint=hint))
        self.add(Button("Load motion file", cb_hook=self._load_file))
        self.add(UploadButton("Upload a motion file", _ENDINGS, cb_hook=self._upload))
        self._message = self.add(Message())

        self._playback = Playback(self._advance, self._busy)
        self._moving = False  # a step of the playback waits for its callback
        self._exact = 0.0  # where the playback is; sliders show fewer digits
        self._pause_until = 0.0  # on the monotonic clock

    @property
    def message(self) -> str:
        """Message to the user."""
        return self._message.text

    def shown(self) -> tuple[str, int] | None:
        """Name of the motion, or FRAME or REST, and the frame of it; None where nerfstudio's time is to decide."""
        name = self._shown.value
        if name == FRAME:
            return FRAME, int(finite(self._frame.value, 0, 0, self._num_train - 1))
        if name == REST:
            return REST, 0
        motion = self._motions.get(name)
        if motion is not None:
            position = self._place(finite(self._position.value, 0.0, 0.0, 1.0), _DIGITS)
            return name, round(position * (len(motion) - 1))
        return None

    @property
    def root(self) -> Root:
        """Treatment of a motion's way over the floor; see `MotionOptions.root`."""
        return cast(Root, self._root.value)

    def file(self, name: str) -> str:
        """The file of a motion that `shown` named, but for the run's; of those of the package the name."""
        path = self._files[name]
        return name if path.parent == LIBRARY else str(path.expanduser().absolute())

    @property
    def seconds_of_time(self) -> float:
        """Seconds that nerfstudio's time takes from 0 to 1."""
        return self._num_train / DEFAULT_FPS if self._run_motion is None else _seconds(self._run_motion)

    def named(self, name: str) -> Motion:
        """A motion that `shown` named."""
        return self._motions[name]

    def _options(self) -> list[str]:
        """All that can be shown."""
        own = [] if self._run_motion is None else [RUN_MOTION]
        return [TIME, FRAME, REST, *own, *self._files]

    # What a user does; followed by a rendering

    def _choose(self, _: object) -> None:
        name = self._shown.value
        if name in self._files and name not in self._motions and not self._read(name, self._files[name]):
            self._shown.value = self._before
            return
        if name != self._before:  # else it was set back by a file that could not be read, whose message must stay
            self._before, self._message.text = name, ""
        if self._shown.gui_handle is not None:
            self._frame.set_visible(name == FRAME)
            self._position.set_visible(name in self._motions)
        self._play_or_pause(None)

    def _choose_root(self, _: object) -> None:
        """Read what is shown anew; the others when they are chosen again."""
        name = self._shown.value
        if name in self._files and self._read(name, self._files[name]):
            self._message.text = ""
        # In one go, for a rendering may be about to take the motion that is shown.
        self._motions = {key: motion for key, motion in self._motions.items() if key in (name, RUN_MOTION)}

    def _load_file(self, _: object) -> None:
        text = self._file.value.strip().strip("'\"")
        if not text:
            self._message.text = "Write the path of a motion file into the field above."
            return
        self._add_file(Path(text))

    def _upload(self, file: UploadedFile) -> None:
        """Keep a user's file in the run's folder, where commands find it too, and show it."""
        path = self._control.viewer.log_filename.absolute().parent / "motions" / (Path(file.name).name or "motion")
        stem, number = path.stem, 1
        while path.exists() and path.read_bytes() != file.content:
            number += 1
            path = path.with_name(f"{stem}_{number}{path.suffix}")
        known = path.exists()
        try:
            write_files(path.parent, {path.name: file.content})
        except OSError as error:
            self._message.text = f"{path}: the file cannot be kept there ({error.strerror})."
            return
        if not self._add_file(path) and not known:
            path.unlink()

    def _add_file(self, path: Path) -> bool:
        """Show a file's motion; False if it cannot be read."""
        name = str(path) if path.stem in (*self._options(), RUN_MOTION) else path.stem
        if not self._read(name, path):
            return False
        self._files[name] = path
        self._message.text = ""
        self._shown.set_options(self._options())
        self._shown.value = name
        if self._shown.gui_handle is None:
            self._choose(None)
        return True

    def _read(self, name: str, path: Path) -> bool:
        """Load a motion; if that cannot be done, say so."""
        try:
            self._motions[name] = self._load(path.expanduser(), self.root)
        except InputError as error:
            self._message.text = str(error)
            return False
        except Exception as error:  # a file may hold anything, and the viewer must live on
            self._message.text = f"{path}: this motion cannot be shown ({type(error).__name__}: {error})."
            return False
        return True

    def _play_or_pause(self, _: object) -> None:
        if not self._play.value:
            self._playback.pause()
        elif self._shown.value == REST:
            self._playback.pause()
            self._message.text = "The rest pose does not move. Show a motion, time or the training frames to play them."
        else:
            self._message.text = ""
            self._playback.play()

    def _moved(self, _: object) -> None:
        self._moving = False

    # Playing; in a thread of its own

    def leave_time(self, seconds: float) -> None:
        """Play on after so many seconds only."""
        self._pause_until = monotonic() + seconds

    def _busy(self) -> bool:
        viewer: Viewer | None = getattr(self._control, "viewer", None)
        if viewer is None or not viewer.viser_server.get_clients() or monotonic() < self._pause_until:
            return True
        machines = list(viewer.render_statemachines.values())
        return self._moving or any(machine.next_action is not None for machine in machines)

    def _advance(self, seconds: float) -> bool:
        """Move what is shown; False once the viewer is gone."""
        name, step = self._shown.value, seconds * finite(self._speed.value, 1.0, self._speed.min, self._speed.max)
        try:
            if name == TIME:
                panel = self._control.viewer.control_panel
                time = finite(panel.time, 0.0, 0.0, 1.0)
                panel.time = self._move(time, step / self.seconds_of_time, 1.0, _DIGITS)
            elif name == FRAME:
                frame = finite(self._frame.value, 0.0, 0.0, self._frame.max)
                self._moving = True
                self._frame.value = self._move(frame, step * DEFAULT_FPS, self._num_train, 0)
            elif (motion := self._motions.get(name)) is not None:
                self._moving = True
                position = finite(self._position.value, 0.0, 0.0, 1.0)
                self._position.value = self._move(position, step / _seconds(motion), 1.0, _DIGITS)
        except RuntimeError:  # viser takes no more values: the viewer was shut down
            return False
        return True

    def _move(self, shown: float, step: float, length: float, digits: int) -> float:
        """Value of a slider after a step; see `_place`."""
        self._exact = (self._place(shown, digits) + step) % length
        return _rounded(self._exact, digits)

    def _place(self, shown: float, digits: int) -> float:
        """The playback's own position where the slider shows it, else that of the slider, which a user has moved."""
        return self._exact if shown == _rounded(self._exact, digits) else shown


def _rounded(position: float, digits: int) -> float:
    return floor(position * 10**digits + 1e-6) / 10**digits  # 0.4 may be a little less than 0.4


def _seconds(motion: Motion) -> float:
    """From the first frame to the last; of a single frame, one frame's time."""
    return max(motion.duration, 1 / motion.fps)
