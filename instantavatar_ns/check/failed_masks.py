"""Masks that failed in a part of the frames: which they are, told by their looks and by the posed body."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from instantavatar_ns.check.change import Change
from instantavatar_ns.check.overlap import Overlap, measure
from instantavatar_ns.check.recording import Recording

_WHITE_AREA, _WHITE_COVERAGE = 0.95, 0.70  # share of the image; of a face that fills it the body covers more
_INVERTED_IOU, _INVERTED_GAIN, _INVERTED_JOINTS = 0.5, 0.3, 0.8
_BESIDE = 0.2  # of mask and of joints; estimated poses are never off by as much
_VISIBLE_JOINTS, _LARGE_MASK = 12, 0.5  # half the joints; of the middling mask


def white_masks(recording: Recording, overlap: Overlap) -> Bool[Tensor, "frames"]:
    """Mark masks that are white all over, other than those of a person who fills the image.

    Args:
        recording: The frames.
        overlap: Of body and masks.
    """
    return (recording.masks.float().mean(dim=(1, 2)) > _WHITE_AREA) & (overlap.coverage < _WHITE_COVERAGE)


def inverted_masks(recording: Recording, overlap: Overlap) -> Bool[Tensor, "frames"]:
    """Mark masks that the body fits well where they are black, and not where they are white.

    Args:
        recording: The frames.
        overlap: Of body and masks.
    """
    inverted = measure(replace(recording, masks=~recording.masks))
    fits = (inverted.iou >= _INVERTED_IOU) & (inverted.joints >= _INVERTED_JOINTS)
    return fits & (inverted.iou >= overlap.iou + _INVERTED_GAIN)


def masks_beside(recording: Recording, overlap: Overlap) -> Bool[Tensor, "frames"]:
    """Mark masks that lie beside the body, as those of other persons and things.

    Of a person at the image's border little is seen, which a body in an estimated pose may miss: it does not count.

    Args:
        recording: The frames.
        overlap: Of body and masks.
    """
    area = recording.masks.float().mean(dim=(1, 2))
    seen = (overlap.joints_seen >= _VISIBLE_JOINTS) | (area >= _LARGE_MASK * area.median())
    return seen & (overlap.coverage < _BESIDE) & (overlap.joints < _BESIDE)


def inversion_of(recording: Recording, chosen: Bool[Tensor, "frames"]) -> Change:
    """The masks of some frames inverted, the others as they are.

    Args:
        recording: The frames.
        chosen: Those whose masks are inverted.
    """
    numbers = recording.numbers[chosen.cpu()]

    def inverted(given: Recording) -> Recording:
        wrong = torch.isin(given.numbers, numbers).to(given.masks.device)
        return replace(given, masks=given.masks ^ wrong[:, None, None])

    return Change(
        "some masks inverted",
        "the masks of these frames inverted",
        "Their masks show the person in black: invert them, the person is white",
        inverted,
    )
