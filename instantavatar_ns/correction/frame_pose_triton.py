"""One frame's pose from its corrections, by one Triton kernel forward and one backward; twin of `PoseRefinement`'s.

A training step needs the pose of its frame and the gradient with respect to its corrections: two hundred tiny
operations in torch, which are some 0.4 ms of a GPU that has nothing else to do meanwhile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from instantavatar_ns.kernels.frame_pose import frame_pose_backward_kernel, frame_pose_kernel
from instantavatar_ns.kernels.launch import launch, next_power_of_2

_WARPS = 4


class FrameConstants(NamedTuple):
    """Inputs that do not change in training; as the buffers of `PoseRefinement`.

    Attributes:
        basis: Share of each knot in each frame's correction.
        coordinates: In which the corrections are kept, a column each.
        given_rotations: Of the joints, relative to their parents.
        given_transl: Of the body, metres.
        joints: In the T-pose, metres.
        ancestors: See `kinematics.ancestor_table`.
        descendants: 1 where a joint (row) moves another, or itself.
        to_canonical: From the canonical pose to the T-pose.
        world_to_dataset: From nerfstudio's world.
    """

    basis: Float[Tensor, "frames knots"]
    coordinates: Float[Tensor, "coordinates coordinates"]
    given_rotations: Float[Tensor, "frames joints 3 3"]
    given_transl: Float[Tensor, "frames 3"]
    joints: Float[Tensor, "joints 3"]
    ancestors: Int[Tensor, "rounds joints"]
    descendants: Float[Tensor, "joints joints"]
    to_canonical: Float[Tensor, "joints 4 4"]
    world_to_dataset: Float[Tensor, "4 4"]


def frame_pose_triton(
    row: Int[Tensor, "1"],
    knots: Float[Tensor, "knots coordinates"],
    remainders: Float[Tensor, "frames coordinates"],
    constants: FrameConstants,
) -> tuple[Float[Tensor, "4 4"], Float[Tensor, "joints 4 4"]]:
    """World to root space, and canonical pose to root space; differentiable with respect to knots and remainders.

    Args:
        row: Index of the frame, on the device.
        knots: Of the spline.
        remainders: Of the frames.
        constants: The given poses and the body.
    """
    result: Any = _FramePose.apply(knots, remainders, row, constants)
    return result


class _FramePose(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, knots: Tensor, remainders: Tensor, row: Tensor, constants: FrameConstants
    ) -> tuple[Tensor, Tensor]:
        num_joints, rounds = len(constants.joints), len(constants.ancestors)
        lanes = next_power_of_2(num_joints)
        world_to_root, bones = knots.new_empty(4, 4), knots.new_empty(num_joints, 4, 4)
        correction, turns = knots.new_empty(num_joints + 1, 3), knots.new_empty(num_joints + 1, 4, 4)
        launch(
            frame_pose_kernel,
            (1,),
            row,
            constants.basis,
            knots.contiguous(),
            remainders.contiguous(),
            constants.coordinates,
            constants.given_rotations,
            constants.given_transl,
            constants.joints,
            constants.ancestors,
            constants.to_canonical,
            constants.world_to_dataset,
            world_to_root,
            bones,
            correction,
            turns,
            knots.new_empty(rounds + 1, lanes, 4, 4),
            len(knots),
            JOINTS=num_joints,
            ROUNDS=rounds,
            LANES=lanes,
            WIDTH=next_power_of_2(knots.shape[1]),
            num_warps=_WARPS,
        )
        ctx.save_for_backward(row, world_to_root, bones, correction, turns)
        ctx.constants, ctx.sizes = constants, (knots.shape, remainders.shape)
        return world_to_root, bones

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, world_to_root_grad: Tensor, bones_grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        row, world_to_root, bones, correction, turns = ctx.saved_tensors
        constants, (of_knots, of_remainders) = ctx.constants, ctx.sizes
        knots_grad, remainders_grad = bones.new_empty(of_knots), bones.new_zeros(of_remainders)
        launch(
            frame_pose_backward_kernel,
            (1,),
            row,
            constants.basis,
            constants.coordinates,
            constants.descendants,
            world_to_root,
            bones,
            correction,
            turns,
            world_to_root_grad.contiguous(),
            bones_grad.contiguous(),
            torch.empty_like(correction),
            knots_grad,
            remainders_grad,
            len(knots_grad),
            JOINTS=len(bones),
            LANES=next_power_of_2(len(bones)),
            WIDTH=next_power_of_2(of_knots[1]),
            num_warps=_WARPS,
        )
        return knots_grad, remainders_grad, None, None
