"""All single changes that a check tries, to say which one makes the body fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from instantavatar_ns.check.camera_changes import extrinsic_changes, intrinsic_changes
from instantavatar_ns.check.change import Change
from instantavatar_ns.check.order_changes import (
    camera_order_changes,
    camera_shift_changes,
    order_changes,
    shift_changes,
)
from instantavatar_ns.check.pose_changes import beta_changes, rotation_changes, translation_changes
from instantavatar_ns.check.recording import Recording

# Right cameras do not fit better in another convention, be the poses ever so rough, while in front of rough poses wrong
# ones that move little fit worse by no more than this.
_CAMERA_GAIN = 0.05


def changes_to_try(recording: Recording, whole: Recording, everything: bool) -> Iterator[Change]:
    """Single changes, each of which undoes one mistake.

    Args:
        recording: Some frames, on which the changes will be tried.
        whole: All frames.
        everything: Also try changes that move the body, or what the camera sees of it, by much. Where the body nearly
            fits, only mistakes that move the silhouettes little can be the cause.
    """
    # A camera that moves little is nearly right in a wrong convention, as the identity is its own inverse.
    if everything or whole.camera_moves:
        for change in extrinsic_changes(recording):
            yield replace(change, certain_gain=_CAMERA_GAIN)
    if whole.camera_moves:
        yield from camera_shift_changes(whole)
        yield from camera_order_changes(recording)
    if everything:
        yield from intrinsic_changes(recording)
        yield from _mask_images(recording)
        yield from rotation_changes()
        yield from translation_changes(recording)
    yield Change(
        "mirrored",
        "the masks mirrored left to right",
        "Images and masks, or the camera, are mirrored: mirror them back",
        partial(_masks, lambda masks: masks.flip(2)),
    )
    yield from shift_changes(recording)
    yield from order_changes(recording)
    yield from beta_changes(recording)


def _mask_images(recording: Recording) -> Iterator[Change]:
    yield Change(
        "masks inverted",
        "the masks inverted",
        "The masks show the person in black: invert them, the person is white",
        partial(_masks, torch.logical_not),
    )
    for count, words in ((2, "upside down"), (1, "on their right side"), (-1, "on their left side")):
        yield Change(
            "images turned",
            f"the masks turned by {abs(count) * 90} degrees",
            f"Images and masks lie {words}: turn them as the camera and the poses have them",
            partial(_masks, partial(torch.rot90, k=count, dims=(1, 2))),
        )
    if recording.masks.shape[1] == recording.masks.shape[2]:
        yield Change(
            "masks transposed",
            "the masks transposed",
            "The masks are transposed: save them as (height, width), rows first",
            partial(_masks, lambda masks: masks.mT),
        )
    yield Change(
        "mirrored top to bottom",
        "the masks mirrored top to bottom",
        "Images and masks, or the camera, are mirrored top to bottom: mirror them back",
        partial(_masks, lambda masks: masks.flip(1)),
    )


def _masks(change: Callable[[Tensor], Tensor], recording: Recording) -> Recording:
    return replace(recording, masks=change(recording.masks))
