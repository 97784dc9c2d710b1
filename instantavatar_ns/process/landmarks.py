"""Landmarks of the followed person in all frames, and the network's masks of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from instantavatar_ns.data.folder import list_images
from instantavatar_ns.data.images import read_rgb
from instantavatar_ns.process.frames import ChosenFrames
from instantavatar_ns.process.network import NUM_LANDMARKS, PoseNetwork, Prediction, Square
from instantavatar_ns.process.people import Follower
from instantavatar_ns.process.swaps import swap, swapped_frames
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import written_whole
from instantavatar_ns.utils.npz import read_npz

LANDMARKS_FILE = "landmarks.npz"
NETWORK_FOLDER = "network"
_LOGIT_SCALE = 8.0  # steps of a stored mask, per unit of log-odds
_FEWEST_FOUND = 0.5  # share of the frames in which somebody has to be found
_COUNTED = 9  # frames in which people are counted: each takes as long as ten others


@dataclass(frozen=True)
class Landmarks:
    """The person's landmarks in all frames, as `process/landmarks.npz` holds them; MediaPipe's 33.

    Attributes:
        pixels: Pixels of `images/`, the center of the top-left pixel at (0, 0).
        visibility: How likely each is seen, 0 to 1.
        world: Metres about the middle of the hips, axes along those of the picture, z away from the viewer.
        found: Whether there is a person in the frame; elsewhere the values are 0.
    """

    pixels: Float32[np.ndarray, "frames 33 2"]
    visibility: Float32[np.ndarray, "frames 33"]
    world: Float32[np.ndarray, "frames 33 3"]
    found: Bool[np.ndarray, "frames"]

    def __len__(self) -> int:
        return len(self.found)

    def write(self, path: Path) -> None:
        """Write them; the file appears whole."""
        write_npz(path, pixels=self.pixels, visibility=self.visibility, world=self.world, found=self.found)

    @classmethod
    def read(cls, path: Path, rows: list[list[int]]) -> Landmarks:
        """Read a file of landmarks.

        Args:
            path: The file.
            rows: Frames wanted, by their place in a file of so many frames: the first list is for a file of just these
                frames, others for files that hold more.

        Raises:
            InputError: The file is unreadable or has other arrays.
        """
        advice = "Write pixels (frames, 33, 2), visibility (frames, 33), world (frames, 33, 3) and found (frames)"
        names = ("pixels", "visibility", "world", "found")
        arrays = read_npz(path, "landmarks", advice)
        missing = [name for name in names if name not in arrays]
        if missing:
            raise InputError(path, f"expected landmarks, found no {', '.join(missing)}", advice)
        values = [np.asarray(arrays[name]) for name in names]
        count = len(values[3]) if values[3].ndim else 0
        shapes = [(count, NUM_LANDMARKS, 2), (count, NUM_LANDMARKS), (count, NUM_LANDMARKS, 3), (count,)]
        for name, value, shape in zip(names, values, shapes, strict=True):
            if value.shape != shape or value.dtype.kind not in "biuf" or not np.isfinite(value).all():
                message = f"expected {name} of finite numbers in the shape {shape}, found {value.dtype} {value.shape}"
                raise InputError(path, message, advice)
        chosen = pick_rows(path, "landmarks", count, rows)
        pixels, visibility, world = (value[chosen].astype(np.float32) for value in values[:3])
        return cls(pixels, visibility, world, values[3][chosen].astype(bool))


def pick_rows(path: Path, name: str, count: int, rows: list[list[int]]) -> list[int]:
    """Decide which rows of a user's results are those of the chosen frames.

    Args:
        path: The file or folder.
        name: Of its contents, for the message.
        count: How many rows it has.
        rows: Frames by their place among the chosen ones, and by their place in the source.

    Raises:
        InputError: The number of rows fits neither.
    """
    for wanted in rows:
        whole = wanted[-1] + 1
        if count == whole or (wanted is not rows[0] and count > whole):
            return wanted
    message = f"expected {name} of the {len(rows[0])} chosen frames"
    if len(rows) > 1:
        message += f", or of all {rows[1][-1] + 1} or more of the source"
    raise InputError(path, f"{message}, found {count}", "Give one for each frame, in the order of time")


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays to a file that appears whole.

    Args:
        path: The file, replaced if it exists; its folder is made.
        arrays: By their names in the file.
    """
    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def network_mask(folder: Path, frame: int, size: tuple[int, int]) -> Float32[np.ndarray, "height width"]:
    """Return the log-odds of a frame's pixels being of the person, as the network sees it; -12 where nobody is.

    Args:
        folder: Folder of the clip.
        frame: Index of the frame among the folder's images.
        size: Height and width of the mask, pixels.
    """
    prediction, _ = read_prediction(folder / "process" / NETWORK_FOLDER / f"{frame:05d}.npz")
    return np.full(size, -12, np.float32) if prediction is None else prediction.mask_in(*size)


def run_network(folder: Path, network: PoseNetwork, progress: Callable[[float], None]) -> None:
    """Follow the first frame's largest person through all frames, one file a frame; finished frames are left out.

    Args:
        folder: With `images/`.
        network: The pose network.
        progress: Called with the share that is done.
    """
    images = list_images(folder)
    clip = ChosenFrames.read(folder)
    results = folder / "process" / NETWORK_FOLDER
    person, counted = Follower(network), _frames_to_count_people(len(images))
    for index, path in enumerate(images):
        result = results / f"{index:05d}.npz"
        if result.is_file():
            prediction, people = read_prediction(result)
        else:
            image = read_rgb(path, (clip.height, clip.width))
            prediction, people = person.look(image, count=index in counted)
            _write_prediction(result, prediction, people)
        person.take(prediction, people)
        progress((index + 1) / len(images))


def collect_landmarks(folder: Path) -> tuple[Landmarks, dict[str, list[int]]]:
    """Put the network's results together, left and right put right.

    Returns:
        The landmarks, and the frames in which left and right of "arms" and "legs" were swapped.

    Raises:
        InputError: Nobody is found in most frames.
    """
    paths = sorted((folder / "process" / NETWORK_FOLDER).glob("*.npz"))
    predictions = [read_prediction(path)[0] for path in paths]
    found = np.array([prediction is not None for prediction in predictions])
    if found.mean() < _FEWEST_FOUND:
        clip = ChosenFrames.read(folder)
        message = f"expected a person, found one in {found.sum()} of {len(found)} frames"
        advice = (
            "Film one person whole, from head to feet, who fills at least a third of the picture's height; or trim the "
            "clip with --start and --end"
        )
        raise InputError(clip.source, message, advice)
    shapes = {"pixels": (33, 2), "visibility": (33,), "world": (33, 3)}
    values = {
        name: np.stack([np.zeros(shape, np.float32) if p is None else getattr(p, name) for p in predictions])
        for name, shape in shapes.items()
    }
    swaps = swapped_frames(values["world"], found)
    for limb, frames in swaps.items():
        for value in values.values():
            swap(value, frames, limb)
    return Landmarks(**values, found=found), {limb: frames.tolist() for limb, frames in swaps.items()}


def most_people(folder: Path) -> int:
    """Return the most people that were seen in a frame; they are counted in some, and where the person is lost."""
    paths = (folder / "process" / NETWORK_FOLDER).glob("*.npz")
    return max((read_prediction(path)[1] for path in paths), default=0)


def _frames_to_count_people(count: int) -> set[int]:
    """Choose frames all over the clip, for passers-by."""
    return set(np.linspace(0, count - 1, min(_COUNTED, count)).round().astype(int).tolist())


def _write_prediction(path: Path, prediction: Prediction | None, people: int) -> None:
    if prediction is None:
        write_npz(path, people=np.array(people))
        return
    squares = [[*square.center, square.side, square.angle] for square in (prediction.square, prediction.next_square)]
    write_npz(
        path,
        people=np.array(people),
        squares=np.array(squares),
        pixels=prediction.pixels,
        visibility=prediction.visibility,
        world=prediction.world,
        presence=np.array(prediction.presence),
        mask=np.round(prediction.mask * _LOGIT_SCALE).clip(-127, 127).astype(np.int8),
    )


def read_prediction(path: Path) -> tuple[Prediction | None, int]:
    """Read what the network saw of the person in a frame, None where they were not found; and how many were counted."""
    with np.load(path) as file:
        people = int(file["people"])
        if "squares" not in file:
            return None, people
        square, following = (Square((x, y), side, angle) for x, y, side, angle in file["squares"].tolist())
        mask = file["mask"].astype(np.float32) / np.float32(_LOGIT_SCALE)
        prediction = Prediction(
            square, file["pixels"], file["visibility"], file["world"], float(file["presence"]), mask, following
        )
        return prediction, people
