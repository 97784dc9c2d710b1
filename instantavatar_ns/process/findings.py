"""Faults of a clip, in plain words, and what to film better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from instantavatar_ns.process.frames import ChosenFrames
from instantavatar_ns.process.landmarks import Landmarks

_OFTEN = 0.05  # share of the frames from which on a fault is told
_FULL_TURN = 300.0  # degrees that show a person from all sides
_SMALL = 0.33  # of the image's height
_BLURRED = 0.5
_JUMP = 3.0  # metres per second beside the landmark's own usual speed
_POOR_IOU = 0.8


@dataclass(frozen=True)
class Finding:
    """Something that a user should know.

    Attributes:
        words: The fault, one sentence.
        advice: What to do about it, one sentence or two.
        frames: Indices of the frames that show it; empty where all do.
    """

    words: str
    advice: str
    frames: tuple[int, ...] = ()


def find_faults(
    clip: ChosenFrames,
    landmarks: Landmarks,
    masks: Bool[np.ndarray, "frames height width"],
    facts: dict[str, Any],
) -> list[Finding]:
    """Look for what makes avatars worse, the gravest first.

    Args:
        clip: The chosen frames.
        landmarks: Of the person.
        masks: Of the person.
        facts: Of the stages: `people`, `motion` (pixels, None where it cannot be measured), `plate`, `followed`,
            `focal_given`; absent where a user's result took a stage's place.
    """
    found = [
        *_missing(landmarks),
        *_several_people(facts),
        *_cropped(masks),
        *_turn(landmarks),
        *_moving_camera(facts),
        *_jumps(clip, landmarks),
        *_blur(clip),
        *_small(masks),
        *_focal(clip, facts),
    ]
    return found


def yaw(landmarks: Landmarks) -> Float[np.ndarray, "frames"]:
    """Direction that the trunk faces, degrees, continuous over the frames; NaN where nobody is found."""
    across = (landmarks.world[:, [11, 23]] - landmarks.world[:, [12, 24]]).sum(axis=1)
    angles = np.full(len(landmarks), np.nan)
    found = landmarks.found
    angles[found] = np.degrees(np.unwrap(np.arctan2(across[found, 2], across[found, 0])))
    return angles


def jumping_frames(clip: ChosenFrames, landmarks: Landmarks) -> list[int]:
    """Indices of frames at which landmarks jump and jump back, as somebody's limbs do not.

    Args:
        clip: Knows the times of the frames.
        landmarks: Of the person in these frames.
    """
    times, world = np.array(clip.times), landmarks.world
    jumps = []
    for index in range(1, len(world) - 1):
        if not landmarks.found[index - 1 : index + 2].all():
            continue
        share = (times[index] - times[index - 1]) / max(times[index + 1] - times[index - 1], 1e-6)
        between = world[index - 1] + share * (world[index + 1] - world[index - 1])
        seconds = max(min(times[index] - times[index - 1], times[index + 1] - times[index]), 1 / 60)
        off = np.linalg.norm(world[index] - between, axis=-1)
        if np.sort(off)[-4] > max(_JUMP * seconds, 0.15):
            jumps.append(index)
    return jumps


def _missing(landmarks: Landmarks) -> list[Finding]:
    lost = np.flatnonzero(~landmarks.found)
    if len(lost) == 0:
        return []
    words = f"Nobody is found in {len(lost)} of {len(landmarks)} frames."
    return [Finding(words, "Trim the clip with --start and --end to where the person is seen whole.", _some(lost))]


def _several_people(facts: dict[str, Any]) -> list[Finding]:
    if facts.get("people", 1) < 2:
        return []
    advice = "Film one person alone; or make the masks of the one with another tool and give them with --masks."
    return [Finding("More than one person is seen; the largest of the first frame is followed.", advice)]


def _cropped(masks: Bool[np.ndarray, "frames height width"]) -> list[Finding]:
    edges = {
        "The feet": masks[:, -1].any(axis=1),
        "The head": masks[:, 0].any(axis=1),
        "An arm or leg": masks[:, :, 0].any(axis=1) | masks[:, :, -1].any(axis=1),
    }
    found = []
    for part, cut in edges.items():
        if cut.mean() > _OFTEN:
            verb = "are" if part == "The feet" else "is"
            words = f"{part} {verb} cut off by the picture's edge in {cut.sum()} of {len(cut)} frames."
            advice = "Step back until the whole person is seen, with some room on all sides."
            found.append(Finding(words, advice, _some(np.flatnonzero(cut))))
    return found


def _turn(landmarks: Landmarks) -> list[Finding]:
    angles = yaw(landmarks)
    turned = float(np.nanmax(angles) - np.nanmin(angles)) if landmarks.found.any() else 0.0
    if turned >= _FULL_TURN:
        return []
    words = f"The person turns by some {turned:.0f} degrees, so the camera does not see all sides of them."
    return [Finding(words, "Turn around once, slowly, arms held away from the body: sides not seen are guessed.")]


def _moving_camera(facts: dict[str, Any]) -> list[Finding]:
    if facts.get("plate", True):
        return []
    motion = facts["motion"]
    by = "by more than can be measured" if motion is None else f"by {motion:.0f} pixels"
    words = f"The camera moves: the background is shifted {by} during the clip."
    if facts.get("followed", False):
        words += " Masks follow it; poses put it down to the person."
        return [
            Finding(words, "A phone that sways in the hand does little harm. If it goes farther, lean it on something.")
        ]
    advice = (
        "Put the phone on a tripod or lean it on something. Here the camera is taken to stand still, and its motion is "
        "put down to the person."
    )
    return [Finding(words, advice)]


def _jumps(clip: ChosenFrames, landmarks: Landmarks) -> list[Finding]:
    jumps = jumping_frames(clip, landmarks)
    if len(jumps) <= _OFTEN * len(landmarks):
        return []
    words = f"Landmarks jump in {len(jumps)} of {len(landmarks)} frames."
    advice = "Move slowly, in good light; for fast motion bring the poses of an estimator with --poses."
    return [Finding(words, advice, _some(np.array(jumps)))]


def _blur(clip: ChosenFrames) -> list[Finding]:
    blurred = np.flatnonzero(np.array(clip.sharpness) < _BLURRED)
    if len(blurred) <= _OFTEN * len(clip.frames):
        return []
    words = f"{len(blurred)} of {len(clip.frames)} frames are blurred."
    return [Finding(words, "Film in brighter light and move more slowly.", _some(blurred))]


def _small(masks: Bool[np.ndarray, "frames height width"]) -> list[Finding]:
    rows = masks.any(axis=2).sum(axis=1)
    share = float(np.median(rows)) / masks.shape[1]
    if share >= _SMALL:
        return []
    words = f"The person takes {100 * share:.0f} % of the picture's height."
    return [Finding(words, "Go nearer, or film upright: detail that is not recorded cannot be learned.")]


def _focal(clip: ChosenFrames, facts: dict[str, Any]) -> list[Finding]:
    if facts.get("focal_given") or clip.focal is not None:
        return []
    advice = (
        "Pictures of the avatar hardly depend on it, the distance of the camera does. If you know it, give it with "
        "--focal, in pixels."
    )
    return [Finding("The clip does not tell its focal length, so it is fitted with the body.", advice)]


def _some(frames: np.ndarray) -> tuple[int, ...]:
    return tuple(int(frame) for frame in frames)


def poor_overlap(iou: Float[np.ndarray, "frames"]) -> list[Finding]:
    """Tell of frames whose posed body does not lie on the mask."""
    poor = np.flatnonzero(iou < _POOR_IOU)
    if len(poor) <= _OFTEN * len(iou):
        return []
    words = f"The fitted body misses the mask in {len(poor)} of {len(iou)} frames (intersection over union below 0.8)."
    advice = "Look at these frames below; if the mask is right, bring the poses of an estimator with --poses."
    return [Finding(words, advice, _some(poor))]
