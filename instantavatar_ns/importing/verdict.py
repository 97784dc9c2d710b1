"""Judgement on an imported recording, which names the tool whose camera fits where the assumed one does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from instantavatar_ns.check.change import Change
from instantavatar_ns.check.diagnosis import Means, diagnose, mean_overlap
from instantavatar_ns.check.guard import describe
from instantavatar_ns.check.overlap import measure
from instantavatar_ns.check.recording import Recording
from instantavatar_ns.importing.conventions import FOCALS
from instantavatar_ns.utils.errors import InputError

_TRIED_FRAMES = 24
_FITS = 0.7
"""Share of masks and joints that a body that fits covers."""
_GAIN, _CLEAR_GAIN = 0.05, 0.15
"""Intersection over union that another camera gains where the body does not fit, and where an odd shape does."""
_SAME = 0.02
"""Focal lengths that differ by less are taken for the same."""


def judge(
    path: Path,
    tool: str,
    recording: Recording,
    estimated: Recording,
    names: Sequence[str],
    size: tuple[int, int],
    oddity: str,
    mode: Literal["stop", "warn"],
) -> None:
    """Say how well the posed body covers the masks.

    Args:
        path: The tool's result, for messages.
        tool: Its name.
        recording: Frames to compare.
        estimated: The same frames as the tool has them, before a shape is fitted: that can make up for a wrong camera.
        names: Of these frames.
        size: Height and width of the images, pixels.
        oddity: Of a fitted shape, `ShapeFit.oddity`.
        mode: "stop" for an error where the body does not lie where the masks are, "warn" for a message.

    Raises:
        InputError: It does not, and `mode` is "stop".
    """
    diagnosis = diagnose(recording)
    if diagnosis.verdict == "good" and not oddity:
        CONSOLE.print(f"Poses and masks fit: the posed body {diagnosis.means}.")
        return
    found = oddity and f"found {oddity}"
    advice, is_wrong = "Look at the outlines with instant-avatar check", False
    reached = mean_overlap(measure(estimated)).iou + _CLEAR_GAIN
    if diagnosis.verdict != "good":
        found, advice, is_wrong = describe(diagnosis, names), diagnosis.advice, diagnosis.verdict == "wrong"
        reached = max(diagnosis.means.iou + _GAIN, 0.0 if diagnosis.changed is None else diagnosis.changed.iou - _GAIN)
    other = _best_camera(estimated.subset(_TRIED_FRAMES), size)
    if other is not None and other[1].iou > reached:
        change, means = other
        advice, is_wrong = f"With {change.words} it {means}. {change.advice}", True
    expected = f"expected {tool}'s body where the masks are, {found}"
    if is_wrong and mode == "stop":
        raise InputError(path, expected, f"{advice}. To write the folder all the same, give --check-data warn")
    CONSOLE.print(f"[yellow]{escape(str(InputError(path, expected, advice)))}", soft_wrap=True)


def _best_camera(recording: Recording, size: tuple[int, int]) -> tuple[Change, Means] | None:
    """The other tool's camera with which most of the masks is covered, if the body lies there."""
    tried = [(change, mean_overlap(measure(change.apply(recording)))) for change in _other_cameras(recording, size)]
    fitting = [(change, means) for change, means in tried if min(means.coverage, means.joints) >= _FITS]
    return max(fitting, key=lambda trial: trial[1].iou, default=None)


def _other_cameras(recording: Recording, size: tuple[int, int]) -> Iterator[Change]:
    """The focal lengths that other tools assume of these images."""
    used = float((recording.focal / recording.pixels).mean())
    for tool, focal in FOCALS.items():
        length = focal(size)
        if abs(length / used - 1) < _SAME:
            continue

        def apply(given: Recording, length: float = length) -> Recording:
            return replace(given, focal=(given.pixels * length).expand_as(given.focal))

        yield Change(
            "another tool's focal length",
            f"the focal length of {tool}, {length:.1f} pixels,",
            f"The result seems to be made with that camera: give --focal-length {length:.1f}",
            apply,
        )
