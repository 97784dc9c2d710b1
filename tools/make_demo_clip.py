"""Make the clip that comes with the package: the demo person turns around in a room, as a phone would film it.

Run `python tools/make_demo_clip.py` (minutes). The person is that of `instant-avatar demo-data`; the room is drawn by
the code below: a wall with boards and a window, a floor with planks, a shadow under the feet. Exposure flickers, and
the sensor's noise and H.264 do the rest. Like the person, the clip is free of any rights (CC0).

`--subject FOLDER` takes a person that `instant-avatar demo-data` has rendered before.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import cv2
import numpy as np
import tyro
from jaxtyping import Float

from instantavatar_ns.data.folder import list_images, list_masks
from instantavatar_ns.data.splits import choose_split
from instantavatar_ns.scripts.demo_data import DemoData

ROOT = Path(__file__).parents[1]
_FPS, _HORIZON = 25, 0.72  # the floor begins at this share of the height
_NOISE, _FLICKER = 2.5, 0.03


@dataclass
class MakeDemoClip:
    """Render the person, put them into the room, and write the clip."""

    output: Path = ROOT / "instantavatar_ns" / "demo" / "clip.mp4"
    """Video to write."""
    subject: Path | None = None
    """Folder of instant-avatar demo-data; one is rendered where none is given."""
    size: int = 400
    """Height and width, pixels."""
    frames: int = 110
    """Frames of the turn."""

    def main(self) -> None:
        """Write the clip."""
        if self.subject is not None:
            self._write(self.subject)
            return
        with TemporaryDirectory() as folder:
            subject = Path(folder) / "subject"
            DemoData(subject, self.size, self.frames, heldout_frames=1, novel_frames=1).main()
            self._write(subject)

    def _write(self, subject: Path) -> None:
        images = list_images(subject)
        masks = list_masks(subject, images)
        numbers = list(choose_split(subject, len(images)).train)
        random = np.random.default_rng(0)
        with av.open(str(self.output), "w") as container:
            stream = container.add_stream("libx264", rate=_FPS, options={"crf": "21", "preset": "veryslow"})
            stream.pix_fmt = "yuv420p"
            room = None
            for place, number in enumerate(numbers):
                person = cv2.imread(str(images[number])).astype(np.float32)
                alpha = cv2.imread(str(masks[number]), cv2.IMREAD_GRAYSCALE).astype(np.float32)[..., None] / 255
                if room is None:
                    room = draw_room(len(person), random)
                    stream.height, stream.width = person.shape[:2]
                # The person is rendered on a plain background, of which soft edges hold a share.
                plain = person[0, 0]
                color = (person - (1 - alpha) * plain) / np.maximum(alpha, 1 / 255)
                picture = alpha * color.clip(0, 255) + (1 - alpha) * _shadowed(room, alpha[..., 0])
                picture *= 1 + _FLICKER * np.sin(0.9 * place)
                picture += random.normal(0, _NOISE, picture.shape)
                frame = av.VideoFrame.from_ndarray(picture.round().clip(0, 255).astype(np.uint8), format="bgr24")
                frame.pts, frame.time_base = place, Fraction(1, _FPS)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())


def draw_room(size: int, random: np.random.Generator) -> Float[np.ndarray, "size size 3"]:
    """Draw a wall with boards, a window and a cupboard, and a floor with planks; BGR."""
    horizon = round(_HORIZON * size)
    room = np.empty((size, size, 3), np.float32)
    room[:horizon] = 176, 196, 206
    for column in range(0, size, max(size // 14, 1)):
        room[:horizon, column : column + max(size // 200, 1)] -= 22
    rows = np.arange(size - horizon, dtype=np.float32)[:, None] / (size - horizon)
    columns = np.arange(size, dtype=np.float32)[None] / size - 0.5
    plank = np.floor(columns / (0.35 + 0.65 * rows) * 14)
    room[horizon:] = np.array([74, 104, 138]) + (np.sin(plank * 12.9898) * 16)[..., None] + 24 * rows[..., None]
    room[horizon - max(size // 60, 1) : horizon] = 220, 224, 228
    u = size / 100
    _box(room, (8 * u, 10 * u, 32 * u, 44 * u), (120, 86, 60))
    _box(room, (10 * u, 12 * u, 30 * u, 42 * u), (236, 214, 180))
    _box(room, (19.3 * u, 12 * u, 20.7 * u, 42 * u), (120, 86, 60))
    _box(room, (74 * u, 34 * u, 95 * u, _HORIZON * 100 * u), (62, 84, 112))
    for shelf in (44, 54, 64):
        _box(room, (75 * u, shelf * u, 94 * u, (shelf + 1) * u), (36, 52, 76))
    grain = [cv2.resize(random.normal(size=(n, n)), (size, size), interpolation=cv2.INTER_CUBIC) for n in (9, 60)]
    return (room + (6 * grain[0] + 4 * grain[1])[..., None]).clip(0, 255).astype(np.float32)


def _box(image: Float[np.ndarray, "size size 3"], corners: tuple[float, ...], color: tuple[int, int, int]) -> None:
    left, top, right, bottom = (round(value) for value in corners)
    image[top:bottom, left:right] = color


def _shadowed(
    room: Float[np.ndarray, "size size 3"], alpha: Float[np.ndarray, "size size"]
) -> Float[np.ndarray, "size size 3"]:
    """Darken the floor about the feet."""
    rows = np.flatnonzero(alpha.max(axis=1) > 0.5)
    feet = np.flatnonzero(alpha[max(rows[-1] - len(alpha) // 40, 0) : rows[-1] + 1].max(axis=0) > 0.5)
    shade = np.zeros_like(alpha)
    center = (round(float(feet.mean())), int(rows[-1]))
    cv2.ellipse(shade, center, (round(0.7 * np.ptp(feet)) + 4, max(len(alpha) // 45, 2)), 0, 0, 360, (1.0,), -1)
    shade = np.asarray(cv2.GaussianBlur(shade, (0, 0), len(alpha) / 100))
    return room * (1 - 0.45 * shade[..., None])


if __name__ == "__main__":
    tyro.cli(MakeDemoClip).main()
