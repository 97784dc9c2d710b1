"""Choice of a clip's frames: sharp ones, spread over its time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int

from instantavatar_ns.process.video import Clip, read_pictures
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import write_files, written_whole

CLIP_FILE = "clip.json"
_SHARPNESS_HEIGHT = 270  # rows of the pictures that sharpness is measured on
FEWEST_FRAMES = 8


@dataclass(frozen=True)
class ChosenFrames:
    """The frames of a clip that were taken, as `process/clip.json` holds them.

    Attributes:
        source: Path of the video or folder.
        fps: Of the source.
        rotation: Degrees by which its pictures were turned, counter-clockwise.
        frames: Numbers of the frames in the source, ascending.
        times: Their times in the source, seconds.
        sharpness: Of each, compared with the median of the frames within a second; below about 0.5 one is blurred.
        width: Of the images, pixels.
        height: Of the images, pixels.
        focal: Focal length that the source's tags tell, pixels of the images; None where they tell none.
        source_frames: How many frames the source has up to `--end`.
    """

    source: str
    fps: float
    rotation: int
    frames: list[int]
    times: list[float]
    sharpness: list[float]
    width: int
    height: int
    focal: float | None
    source_frames: int

    @classmethod
    def read(cls, folder: Path) -> ChosenFrames:
        """Read what `write_frames` wrote into `folder/process`."""
        return cls(**json.loads((folder / "process" / CLIP_FILE).read_text(encoding="utf8")))


def image_size(clip: Clip, longest_side: int) -> tuple[int, int]:
    """Return height and width of the images of a clip whose longer side has at most so many pixels.

    Args:
        clip: The clip.
        longest_side: Most pixels of an image's longer side; smaller pictures are not enlarged.
    """
    scale = min(longest_side / max(clip.height, clip.width), 1.0)
    return max(round(clip.height * scale), 1), max(round(clip.width * scale), 1)


def survey(
    clip: Clip, start: float, end: float, progress: Callable[[float], None]
) -> tuple[Int[np.ndarray, "frames"], Float[np.ndarray, "frames"], Float[np.ndarray, "frames"]]:
    """Look at all frames of a clip once.

    Args:
        clip: The clip.
        start: Seconds; earlier frames are left out.
        end: Seconds, may be infinite; later frames are left out.
        progress: Called with the share of the work that is done, 0 to 1.

    Returns:
        Numbers, times in seconds, and sharpness (variance of the Laplacian) of the frames from `start` to `end`.

    Raises:
        InputError: There are too few frames.
    """
    rows = []
    for picture in read_pictures(clip, start, end):
        grey = picture.grey(_SHARPNESS_HEIGHT)
        rows.append((picture.number, picture.time, float(cv2.Laplacian(grey, cv2.CV_32F).var())))
        progress(min((picture.time - start) / max(min(end, clip.seconds) - start, 1e-6), 1.0))
    check_count(clip, len(rows), start, end)
    numbers, times, sharpness = zip(*rows, strict=True)
    return np.array(numbers), np.array(times), np.array(sharpness)


def check_count(clip: Clip, count: int, start: float, end: float) -> None:
    """Refuse too few frames.

    Args:
        clip: The clip.
        count: Its frames from `start` to `end`.
        start: Seconds.
        end: Seconds, may be infinite.

    Raises:
        InputError: There are too few.
    """
    if count >= FEWEST_FRAMES:
        return
    within = f" between {start:g} and {end:g} seconds" if end < np.inf else f" after {start:g} seconds" if start else ""
    message = f"expected at least {FEWEST_FRAMES} frames{within}, found {count}"
    if within and clip.seconds > 0:
        message += f" in a clip of {clip.seconds:.3g} seconds"
    raise InputError(clip.path, message, "Give a longer clip, or other --start and --end")


def rows_needed(numbers: Int[np.ndarray, "frames"], times: Float[np.ndarray, "frames"], count: int) -> list[list[int]]:
    """Tell, before frames are chosen, which rows a user's results need; for `pick_rows`.

    Args:
        numbers: Of the frames that can be chosen.
        times: Of the same, seconds, ascending.
        count: Most frames wanted.

    Returns:
        Rows of results of the chosen frames, and the fewest that results of all frames of the clip can have.
    """
    chosen = len(choose(times, np.ones(len(times)), count))  # a part of the time without a frame gives none
    last = len(times) - 1
    if count < len(times):  # of the last part any frame may be chosen
        last = int(np.searchsorted(times, times[-1] - (times[-1] - times[0]) / count - 1e-9))
    return [list(range(chosen)), list(range(int(numbers[last]) + 1))]


def choose(
    times: Float[np.ndarray, "frames"], sharpness: Float[np.ndarray, "frames"], count: int
) -> Int[np.ndarray, "chosen"]:
    """Choose frames: of each of `count` equal parts of the time the sharpest frame, which favors the part's middle.

    Args:
        times: Of the frames, seconds, ascending.
        sharpness: Of the frames.
        count: Most frames wanted; all are taken where there are no more.
    """
    if count >= len(times):
        return np.arange(len(times))
    edges = np.linspace(times[0], times[-1], count + 1)
    part = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, count - 1)
    middle = (edges[part] + edges[part + 1]) / 2
    off_middle = np.abs(times - middle) / (edges[1] - edges[0])
    # A frame at the edge of its part has to be a tenth sharper than one in the middle.
    worth = np.log(np.maximum(sharpness, 1e-6)) - 0.2 * off_middle
    groups = [np.flatnonzero(part == index) for index in np.unique(part)]
    return np.array([group[worth[group].argmax()] for group in groups])


def relative_sharpness(
    times: Float[np.ndarray, "frames"], sharpness: Float[np.ndarray, "frames"]
) -> Float[np.ndarray, "frames"]:
    """Divide each frame's sharpness by the median of the frames within a second.

    Args:
        times: Seconds, ascending.
        sharpness: Of the frames, in any unit.
    """
    first, last = np.searchsorted(times, times - 1), np.searchsorted(times, times + 1, side="right")
    medians = [np.median(sharpness[a:b]) for a, b in zip(first, last, strict=True)]
    return sharpness / np.maximum(medians, 1e-6)


def write_frames(
    clip: Clip,
    folder: Path,
    window: tuple[float, float],
    count: int,
    longest_side: int,
    progress: Callable[[float], None],
) -> ChosenFrames:
    """Choose the frames of a clip and write `images/` and `process/clip.json`; both appear whole.

    Args:
        clip: The clip.
        folder: Folder to write to.
        window: Start and end, seconds.
        count: Most frames wanted.
        longest_side: Most pixels of the images' longer side.
        progress: Called with the share that is done.

    Raises:
        InputError: The clip cannot be read or is too short.
    """
    numbers, times, sharpness = survey(clip, *window, progress=lambda share: progress(0.5 * share))
    chosen = choose(times, sharpness, count)
    wanted = set(numbers[chosen].tolist())
    size = image_size(clip, longest_side)
    written = 0
    with written_whole(folder / "images") as partial:
        partial.mkdir()
        for picture in read_pictures(clip, *window):
            if picture.number in wanted:
                image = picture.rgb(size)
                cv2.imwrite(str(partial / f"{written:05d}.png"), image[..., ::-1])
                written += 1
                progress(0.5 + 0.5 * written / len(wanted))
            if written == len(wanted):
                break
    scale = size[1] / clip.width
    result = ChosenFrames(
        source=str(clip.path.resolve()),
        fps=clip.fps,
        rotation=clip.rotation,
        frames=numbers[chosen].tolist(),
        times=times[chosen].tolist(),
        sharpness=relative_sharpness(times, sharpness)[chosen].tolist(),
        width=size[1],
        height=size[0],
        focal=None if clip.focal is None else clip.focal * scale,
        source_frames=int(numbers[-1]) + 1,
    )
    write_text(folder / "process" / CLIP_FILE, json.dumps(asdict(result), indent=1))
    return result


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 that appears whole.

    Args:
        path: The file, replaced if it exists; its folder is made.
        text: Its content.
    """
    write_files(path.parent, {path.name: text.encode()})
