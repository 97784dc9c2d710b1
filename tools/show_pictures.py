"""Make the pictures of the readme and of the gallery: trained avatars that dance side by side, and stand in poses.

    python -m tools.show_pictures --load-config A/config.yml B/config.yml --output outputs/pictures

The avatars themselves render everything, on a GPU or a CPU (there with a smaller `--size` and `--fps`), in the
package's own motions, which are free of any rights:

- `dance.webp`: `dance`, from a camera that swings to and fro. It repeats without a jump, which is measured, in the best
  quality at which the file is small enough for a page.
- `dance.jpg`: a frame of it, for programs that show no WebP.
- `stills.jpg`: each avatar in poses of several motions, from several sides; `stills/<person>/<still>.png` are the same
  alone, with a transparent background.
- `pictures.json`: where they come from, and figures of the loop.

Whether pictures of the person may be shown is for the licence of the data to say.
"""

from __future__ import annotations

import io
import math
import shlex
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, cast

import mediapy
import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from nerfstudio.cameras.camera_paths import get_path_from_json
from nerfstudio.pipelines.base_pipeline import Pipeline
from numpy import ndarray
from PIL import Image

from benchmarks import record
from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.editing import MotionOptions
from instantavatar_ns.motion.free_motions import find_motion
from instantavatar_ns.motion.run_motion import load_run_motion
from instantavatar_ns.scripts.camera_path import camera_path_json, turning_path
from instantavatar_ns.scripts.framing import body_points
from instantavatar_ns.scripts.run_folder import write_variant
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.linalg import rigid_inverse

_QUALITIES = range(90, 20, -5)  # of WebP, the best first
_JPEG_QUALITY = 92
_MARGIN = 0.02  # of the picture's height, left free around what is shown
_LARGEST_JUMP = 1.5  # from the last frame to the first, by the largest between two frames


class Still(NamedTuple):
    """A pose of a motion that comes along, from a side."""

    motion: str
    position: float
    """In the motion, 0 its first frame and 1 its last."""
    angle: float
    """From the person's front to the camera, counterclockwise seen from above, degrees."""

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.motion}_{100 * self.position:02.0f}_{self.angle % 360:03.0f}"


STILLS = (
    Still("walk", 0.30, 50),
    Still("dance", 0.17, -20),
    Still("dance", 0.68, 0),
    Still("stretch", 0.35, 20),
    Still("stretch", 0.80, -75),
    Still("walk", 0.62, 160),
)


@dataclass
class ShowPictures:
    """Film trained avatars side by side, and take stills of them."""

    load_config: tuple[Path, ...]
    """config.yml of each run; its experiment's name is the person's."""
    output: Path = Path("outputs/pictures")
    """Folder of the pictures; those of an earlier call are replaced."""
    size: int = 540
    """Height and width of an avatar's images, before they are cropped; pixels."""
    fps: float = 25.0
    """Frames per second of the dance."""
    swing: float = 25.0
    """Degrees that the camera swings to either side."""
    megabytes: float = 3.0
    """Size that `dance.webp` may have."""
    keep_frames: bool = False
    """Also keep each avatar's frames of the dance, with a transparent background, as `frames/<person>/*.png`."""

    def main(self) -> None:
        """Render everything, then write it.

        Raises:
            InputError: A run cannot be used, two persons have one name, or the loop jumps or is too large.
        """
        head = record.head()
        names = [path.resolve().parents[2].name for path in self.load_config]
        if len(set(names)) < len(names):
            message = f"expected runs of different experiments, found {', '.join(names)}"
            raise InputError("--load-config", message, "Give one run of each person")
        films, stills = [], []
        for name, path in zip(names, self.load_config, strict=True):
            avatar = Avatar(path, self.size)
            films.append(avatar.film(self.fps, self.swing))
            stills.append(avatar.stills())
            record.progress(f"{name}: {len(films[-1])} frames of the dance, {len(STILLS)} stills")
        dance = side_by_side(films)
        if (jump := loop_jump(dance)) > _LARGEST_JUMP:
            message = f"expected the last frame to lead to the first, found {jump:.1f} times the change between frames"
            raise InputError("dance", message, "Give more --fps, so that frames differ less")
        webp, quality = encode_loop(dance, 1000 / self.fps, self.megabytes)

        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "dance.webp").write_bytes(webp)
        _save_jpeg(dance[len(dance) * 5 // 8], self.output / "dance.jpg")
        # Stills of one kind below each other, persons in rows.
        columns = [np.stack(column) for column in zip(*stills, strict=True)]
        _save_jpeg(np.concatenate(side_by_side(columns)), self.output / "stills.jpg")
        for name, film, pictures in zip(names, films, stills, strict=True):
            _save_pngs(self.output / "stills" / name, dict(zip((s.name for s in STILLS), pictures, strict=True)))
            if self.keep_frames:
                _save_pngs(self.output / "frames" / name, {f"{i:05d}": frame for i, frame in enumerate(film)})
        figures = {
            "persons": names,
            "frames": len(dance),
            "fps": self.fps,
            "height": dance.shape[1],
            "width": dance.shape[2],
            "webp_quality": quality,
            "webp_mb": len(webp) / 1e6,
            "loop_jump": jump,
        }
        command = shlex.join(["python", "-m", "tools.show_pictures", *sys.argv[1:]])
        record.write(self.output / "pictures.json", {**head, "command": command, **figures})


class Avatar:
    """A trained avatar that is rendered in motions that come along.

    Args:
        load_config: The run's config.yml.
        size: Height and width of images, pixels.

    Raises:
        InputError: The run cannot be used.
    """

    def __init__(self, load_config: Path, size: int) -> None:
        from nerfstudio.utils.eval_utils import eval_setup  # takes seconds: it lists all methods there are

        config = write_variant(load_config, "pictures", lambda _: None)
        self._pipeline: Pipeline = eval_setup(config, test_mode="inference")[1]
        self._model = cast(InstantAvatarModel, self._pipeline.model)
        self._size = size
        assert self._pipeline.datamanager.train_dataset is not None
        self._camera = self._pipeline.datamanager.train_dataset.cameras[0:1]
        self._front = self._angle_to_front()

    def _angle_to_front(self) -> float:
        """Angle by which the first training camera has to go round the person to be in front, radians."""
        world_to_root = self._posed("dance", MotionOptions())[0].world_to_root.cpu()
        front, position = world_to_root[2, :3], rigid_inverse(world_to_root)[:3, 3]
        way = self._camera.camera_to_worlds[0, :, 3] - position
        return math.atan2(front[1], front[0]) - math.atan2(way[1], way[0])

    def film(self, fps: float, swing: float) -> UInt8[ndarray, "frames size size 4"]:
        """Render the dance, from a camera that swings once to either side.

        Args:
            fps: Frames per second.
            swing: Degrees to either side.
        """
        # `loop` leaves the last frame out, which equals the first.
        poses = self._posed("dance", MotionOptions(fps=fps, loop=0.2))
        turns = np.sin(2 * math.pi * np.arange(len(poses)) / len(poses))
        return self._render(poses, np.radians(swing) * turns)

    def stills(self) -> UInt8[ndarray, "stills size size 4"]:
        """Render `STILLS`, all from one distance."""
        rows = []
        for still in STILLS:
            poses = self._posed(still.motion, MotionOptions())
            rows.append(poses[round(still.position * (len(poses) - 1))])
        poses = PosedBody(
            torch.stack([row.world_to_root for row in rows]), torch.stack([row.bone_transforms for row in rows])
        )
        return self._render(poses, np.radians([still.angle for still in STILLS]))

    def _posed(self, motion: str, options: MotionOptions) -> PosedBody:
        subject = self._model.poses.subject
        return self._model.poses.posed(load_run_motion(find_motion(Path(motion)), options, subject.stand, subject.up))

    @torch.no_grad()
    def _render(self, poses: PosedBody, angles: Float[ndarray, "frames"]) -> UInt8[ndarray, "frames size size 4"]:
        """Images of poses, one a frame: the person's own colours, and opacity.

        Args:
            poses: Rows.
            angles: From the person's front to the camera, radians.
        """
        points = body_points(self._model, poses)
        turns = torch.from_numpy(self._front + angles).float()
        matrices = turning_path(self._camera, points, 1.0, turns)
        path = get_path_from_json(camera_path_json(self._camera, matrices, 1.0, self._size, self._size))
        # Time plays these poses.
        self._model.poses.motion_poses = poses
        self._model.poses.forget()
        images = []
        for index in range(len(path)):
            outputs = self._model.get_outputs_for_camera(path[index : index + 1].to(self._pipeline.device))
            images.append(self._model.get_rgba_image(outputs).cpu())
        return mediapy.to_uint8(torch.stack(images).numpy())


def side_by_side(
    films: list[UInt8[ndarray, "frames size size 4"]],
) -> UInt8[ndarray, "frames height width 3"]:
    """Put films beside each other on white, each cut to what it uses, all with their lowest row on one line: the floor.

    Args:
        films: Colours and opacity, of equal length and size.
    """
    margin = max(1, round(_MARGIN * films[0].shape[1]))
    used = [film[..., 3].max(axis=0) > 2 for film in films]
    parts = [
        film[:, _span(mask.any(axis=1), margin), _span(mask.any(axis=0), margin)]
        for film, mask in zip(films, used, strict=True)
    ]
    height = max(part.shape[1] for part in parts)
    padded = [np.pad(part, ((0, 0), (height - part.shape[1], 0), (0, 0), (0, 0))) for part in parts]
    row = np.concatenate(padded, axis=2).astype(np.float32)
    opacity = row[..., 3:] / 255
    return (row[..., :3] * opacity + 255 * (1 - opacity)).round().astype(np.uint8)


def _span(used: ndarray, margin: int) -> slice:
    """From the first to the last that is used, and a margin."""
    found = np.flatnonzero(used)
    return slice(max(0, int(found[0]) - margin), int(found[-1]) + 1 + margin)


def loop_jump(film: UInt8[ndarray, "frames height width 3"]) -> float:
    """Mean change of pixels from the last frame to the first, by the largest between two successive frames.

    A film of one frame, or one in which nothing moves, does not jump: 0.
    """
    frames = film.astype(np.float32)
    largest = max((float(np.abs(b - a).mean()) for a, b in pairwise(frames)), default=0.0)
    last = float(np.abs(frames[0] - frames[-1]).mean())
    return last / largest if largest else 0.0


def encode_loop(
    film: UInt8[ndarray, "frames height width 3"], milliseconds: float, megabytes: float
) -> tuple[bytes, int]:
    """Encode a film as WebP that repeats for ever, in the best quality at which it is small enough.

    Args:
        film: Its frames.
        milliseconds: Of each frame.
        megabytes: Largest size.

    Returns:
        The file's content, and the quality.

    Raises:
        InputError: Even the lowest quality is larger.
    """
    first, *others = (Image.fromarray(frame) for frame in film)
    content = b""
    for quality in _QUALITIES:
        file = io.BytesIO()
        options = {"duration": round(milliseconds), "loop": 0, "quality": quality, "method": 4}
        first.save(file, "WEBP", save_all=True, append_images=others, **options)
        content = file.getvalue()
        if len(content) <= 1e6 * megabytes:
            return content, quality
    message = f"expected a file of at most {megabytes} MB, found {len(content) / 1e6:.1f} MB at the lowest quality"
    raise InputError("dance", message, "Give a smaller --size, fewer --fps or more --megabytes")


def _save_jpeg(image: UInt8[ndarray, "height width 3"], path: Path) -> None:
    Image.fromarray(image).save(path, quality=_JPEG_QUALITY, optimize=True)


def _save_pngs(folder: Path, images: dict[str, UInt8[ndarray, "height width 4"]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    tyro.cli(ShowPictures, description=__doc__).main()
