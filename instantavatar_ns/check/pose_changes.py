"""Changes of the poses: mistakes in rotations, shape and translations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.check.change import Change, likely_units
from instantavatar_ns.check.placement import placed_on_masks, shifted_by
from instantavatar_ns.check.recording import Recording

_TRIED_BETAS = 3  # of those that a body has, the ones that change it most


def rotation_changes() -> Iterator[Change]:
    """Other conventions of rotations."""
    yield Change(
        "degrees",
        "the rotations taken as degrees",
        "The poses' rotations are in degrees: give axis-angle vectors in radians",
        partial(_rotation_vectors, np.pi / 180, np.pi / 180),
    )
    yield Change(
        "rotations inverted",
        "all rotations inverted",
        "The poses' rotations are inverted, as transposed matrices give them: transpose them",
        partial(_rotation_vectors, -1.0, -1.0),
    )
    yield Change(
        "root inverted",
        "the root's rotation inverted",
        "global_orient is inverted, as a transposed matrix gives it: transpose it",
        partial(_rotation_vectors, -1.0, 1.0),
    )


def beta_changes(recording: Recording) -> Iterator[Change]:
    """Other shapes: the mean one, or where that is given, some that people have."""
    if bool(recording.poses.betas.any()):
        yield Change(
            "betas of another body",
            "betas of zero",
            "The betas seem to be those of another body model: give the model that they were fitted with as body_model",
            partial(_with_betas, torch.zeros_like(recording.poses.betas)),
            certain=False,
        )
        return
    for index in range(_TRIED_BETAS):
        for size in (-2.0, -1.0, 1.0, 2.0):
            betas = torch.zeros_like(recording.poses.betas)
            betas[index] = size
            yield Change(
                "betas missing",
                f"{size:g} as beta {index}",
                "All betas are zero, and another shape fits better: give the betas that were fitted with the poses",
                partial(_with_betas, betas),
                certain=False,
            )


def translation_changes(recording: Recording) -> Iterator[Change]:
    """Other units and reference points, and translations fitted to the masks."""
    for factor, unit in likely_units(recording.frame_poses.transl).items():
        yield Change(
            "poses' unit",
            f"transl times {factor:g}",
            f"transl seems to be in {unit}: give it in metres",
            partial(_moved, lambda transl, factor=factor: transl * factor),
        )
    pelvis = recording.surface.body.rest(recording.poses.betas.to(recording.focal.device))[1][0].cpu()
    yield Change(
        "transl is the pelvis",
        "transl taken as the place of the pelvis",
        "transl is where the pelvis is; SMPL adds it to the rest pose: subtract the pelvis of the body's rest pose",
        partial(_moved, lambda transl: transl - pelvis),
    )
    yield Change(
        "pelvis is not in transl",
        "the pelvis of the rest pose added to transl",
        "transl leaves out the pelvis of the body's rest pose, as a body centred on its pelvis has it: add it, or give "
        "the body model that the poses were fitted with",
        partial(_moved, lambda transl: transl + pelvis),
    )
    yield Change(
        "OpenGL translation",
        "transl's y and z flipped",
        "transl has OpenGL's axes (y up, z back), the rotations have not: flip the signs of its y and z",
        partial(_moved, lambda transl: transl * transl.new_tensor([1.0, -1.0, -1.0])),
    )
    words = "the body moved onto the mask in each frame"
    if not bool(recording.poses.transl.any()):
        advice = "transl is zero in all frames: give it in metres, in the extrinsic's world"
        yield Change("translation missing", words, advice, placed_on_masks, freedom=0.08, certain=False)
        return
    advice = "Only translations are wrong: give transl in metres, in the extrinsic's world and in the frames' order"
    yield Change("translation", words, advice, placed_on_masks, freedom=0.08, certain=False)
    offset = (placed_on_masks(recording).points - recording.points).mean(dim=1).median(dim=0).values[None, None]
    meters = ", ".join(f"{value:.2f}" for value in offset.flatten().tolist())
    yield Change(
        "constant offset",
        f"({meters}) m added to transl",
        "transl is off by the same in all frames: it is that of another point of the body (the pelvis), of another "
        "body model, or of a world with another origin than the extrinsic's; or cx and cy are not those of the images",
        partial(shifted_by, offset=offset),
        freedom=0.04,
        certain=False,
    )


def _rotation_vectors(root: float, others: float, recording: Recording) -> Recording:
    poses = recording.frame_poses
    return recording.with_poses(
        replace(poses, global_orient=poses.global_orient * root, body_pose=poses.body_pose * others)
    )


def _with_betas(betas: Float[Tensor, "10"], recording: Recording) -> Recording:
    return recording.with_poses(replace(recording.frame_poses, betas=betas))


def _moved(change: Callable[[Tensor], Tensor], recording: Recording) -> Recording:
    """Apply a change of the translations, which moves points and joints alike."""
    transl = recording.frame_poses.transl
    return shifted_by(recording, (change(transl) - transl).to(recording.points)[:, None])
