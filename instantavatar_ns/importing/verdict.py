"""Judgement on an imported recording, which names the tool whose camera fits where the assumed one does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from instantavatar_ns.check.change import Change
from instantavatar_ns.check.diagnosis import best_change, diagnose
from instantavatar_ns.check.guard import describe
from instantavatar_ns.check.recording import Recording
from instantavatar_ns.importing.conventions import FOCALS
from instantavatar_ns.utils.errors import InputError

_TRIED_FRAMES = 24
_SAME = 0.02
"""Focal lengths that differ by less are taken for the same."""


def judge(
    path: Path,
    tool: str,
    recording: Recording,
    names: Sequence[str],
    size: tuple[int, int],
    mode: Literal["stop", "warn"],
) -> None:
    """Say how well the posed body covers the masks.

    Args:
        path: The tool's result, for messages.
        tool: Its name.
        recording: Frames to compare.
        names: Of these frames.
        size: Height and width of the images, pixels.
        mode: "stop" for an error where the body does not lie where the masks are, "warn" for a message.

    Raises:
        InputError: It does not, and `mode` is "stop".
    """
    diagnosis = diagnose(recording)
    if diagnosis.verdict == "good":
        CONSOLE.print(f"Poses and masks fit: the posed body {diagnosis.means}.")
        return
    expected = f"expected {tool}'s body where the masks are, {describe(diagnosis, names)}"
    advice = diagnosis.advice
    other = best_change(recording.subset(_TRIED_FRAMES), _other_cameras(recording, size))
    if other is not None and (diagnosis.changed is None or other.means.iou > diagnosis.changed.iou - 0.05):
        advice = f"With {other.change.words} it {other.means}. {other.change.advice}"
    if diagnosis.verdict == "wrong" and mode == "stop":
        raise InputError(path, expected, f"{advice}. To write the folder all the same, give --check-data warn")
    CONSOLE.print(f"[yellow]{escape(str(InputError(path, expected, advice)))}", soft_wrap=True)


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
