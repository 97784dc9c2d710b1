"""Stop before a recording is trained or measured on whose body does not lie where its masks are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jaxtyping import UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from torch import Tensor

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.check.diagnosis import Diagnosis, diagnose
from instantavatar_ns.check.recording import make_recording, read_recording
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.utils.errors import InputError

CheckMode = Literal["stop", "warn", "off"]
_NAMED_FRAMES = 5


def diagnose_frames(masks: UInt8[Tensor, "frames height width"], cameras: Cameras, dataset: AvatarDataset) -> Diagnosis:
    """Find out how well the posed body fits the masks.

    Args:
        masks: Opacity of the person in the frames, on the device that computes.
        cameras: Of the frames.
        dataset: The frames.

    Raises:
        InputError: The body model cannot be used.
    """
    body = load_body_model(dataset.subject.body_model)
    return diagnose(make_recording(masks, cameras, dataset.subject, body))


def check_dataset(data: Path, dataset: AvatarDataset, mode: CheckMode, way_on: str) -> None:
    """Diagnose frames that have not been read yet, and judge them.

    Args:
        data: The recording's folder, for messages.
        dataset: The frames.
        mode: As of `judge`; "off" for no check at all.
        way_on: See `judge`.

    Raises:
        InputError: An image or a mask cannot be used; or the data is wrong, and `mode` is "stop".
    """
    if mode != "off":
        judge(data, diagnose(read_recording(dataset)), dataset, mode, way_on)


def judge(data: Path, diagnosis: Diagnosis, dataset: AvatarDataset, mode: CheckMode, way_on: str) -> None:
    """Say how well the posed body fits the masks.

    Args:
        data: The recording's folder, for messages.
        diagnosis: Of the frames.
        dataset: The frames.
        mode: "stop" for an error where the data is wrong, otherwise there is but a message.
        way_on: How to go on all the same, one sentence without a full stop, for the error.

    Raises:
        InputError: The data is wrong, and `mode` is "stop".
    """
    if diagnosis.verdict == "good":
        CONSOLE.log(f"Poses and masks fit: the posed body {diagnosis.means}.")
        return
    names = [path.name for path in dataset.image_filenames]
    expected = f"expected the posed body where the masks are, {describe(diagnosis, names)}"
    if diagnosis.verdict == "wrong" and mode == "stop":
        raise InputError(data, expected, f"{diagnosis.advice}. {way_on}")
    CONSOLE.log(f"[yellow]{escape(str(InputError(data, expected, diagnosis.advice)))}")


def describe(diagnosis: Diagnosis, names: Sequence[str]) -> str:
    """The finding and the frames that it is about, a sentence without a full stop.

    Args:
        diagnosis: Of some frames.
        names: Of these frames.
    """
    poor = diagnosis.poor_frames
    if not poor:
        where = f"in the mean of {len(names)} frames"
    elif len(poor) == len(names):
        where = "in all frames" if len(names) > 1 else f"in {names[0]}"
    else:
        some = ", ".join(names[index] for index in poor[:_NAMED_FRAMES])
        where = f"in {some}" if diagnosis.about_poor else f"worst in {some}"
        where += f" and {len(poor) - _NAMED_FRAMES} more" if len(poor) > _NAMED_FRAMES else ""
    return f"{diagnosis.finding} ({where})"
