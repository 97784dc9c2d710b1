"""From joint rotations to bones, in a few batched products.

smplx walks down the joints one by one and reads their parents from the device: a product and, on a GPU, a
synchronisation for each. Too slow for a training step; here each round doubles how many ancestors are included.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from instantavatar_ns.utils.linalg import transform_points


def ancestor_table(parents: Int[Tensor, "joints"]) -> Int[Tensor, "rounds joints"]:
    """The 1st, 2nd, 4th, ... ancestor of each joint; the number of joints stands for none.

    Args:
        parents: Parent of each joint, before it in the order; -1 for the root.
    """
    none = len(parents)
    ancestor = torch.where(parents < 0, none, parents.long())
    rounds = []
    while (ancestor < none).any():
        rounds.append(ancestor)
        ancestor = torch.cat([ancestor, ancestor.new_tensor([none])])[ancestor]
    return torch.stack(rounds) if rounds else ancestor[None]


def descendants(parents: Int[Tensor, "joints"]) -> Float[Tensor, "joints joints"]:
    """Tell which joints each one moves: 1 in its row for itself and for those below it.

    Args:
        parents: Parent of each joint, before it in the order; the number of joints for the root.
    """
    result = torch.eye(len(parents), device=parents.device)
    for joint, parent in enumerate(parents.tolist()):
        if parent < len(parents):
            result[:, joint] += result[:, parent]
    return result


def joint_angles(
    global_orient: Float[Tensor, "batch 3"], body_pose: Float[Tensor, "batch angles"]
) -> Float[Tensor, "batch joints 3"]:
    """Axis-angle rotations of all joints relative to their parents, the root first, radians.

    Args:
        global_orient: Of the root.
        body_pose: Of the other joints, one after the other.
    """
    return torch.cat([global_orient, body_pose], dim=1).unflatten(1, (-1, 3))


def skinning_transforms(
    rotations: Float[Tensor, "batch joints 3 3"],
    transl: Float[Tensor, "batch 3"],
    joints: Float[Tensor, "joints 3"],
    ancestors: Int[Tensor, "rounds joints"],
) -> Float[Tensor, "batch joints 4 4"]:
    """Transforms of linear blend skinning, from the rest pose to the posed body.

    Args:
        rotations: Of each joint, relative to its parent.
        transl: Of the whole body, metres.
        joints: In the rest pose, metres.
        ancestors: See `ancestor_table`.
    """
    parent = torch.cat([joints, joints.new_zeros(1, 3)])[ancestors[0]]
    offsets = (joints - parent).expand(len(rotations), -1, -1)[..., None]
    identity = torch.eye(4, dtype=rotations.dtype, device=rotations.device).expand(len(rotations), 1, 4, 4)
    bottom = identity[:, :, 3:].expand(*rotations.shape[:2], 1, 4)
    chain = torch.cat([torch.cat([rotations, offsets], dim=-1), bottom], dim=-2)
    for ancestor in ancestors:
        chain = torch.cat([chain, identity], dim=1)[:, ancestor] @ chain
    rotation = chain[..., :3, :3]
    place = chain[..., :3, 3] - (rotation @ joints[:, :, None])[..., 0] + transl[:, None]
    return torch.cat([torch.cat([rotation, place[..., None]], dim=-1), bottom], dim=-2)


def blended_transforms(
    skinning_weights: Float[Tensor, "*own vertices joints"], transforms: Float[Tensor, "*batch joints 4 4"]
) -> Float[Tensor, "*batch vertices 3 4"]:
    """Average the joints' transforms for each vertex; nearly rotations and shifts where the joints' are.

    Args:
        skinning_weights: Of the vertices, the same in the whole batch or each its own; rows sum to 1.
        transforms: See `skinning_transforms`.
    """
    return torch.einsum("...vj,...jrc->...vrc", skinning_weights, transforms[..., :3, :])


def skinned(
    points: Float[Tensor, "*broadcast vertices 3"],
    skinning_weights: Float[Tensor, "*own vertices joints"],
    transforms: Float[Tensor, "*batch joints 4 4"],
) -> Float[Tensor, "*batch vertices 3"]:
    """Linear blend skinning; differentiable.

    Args:
        points: In the rest pose, metres, the same in the whole batch or each its own.
        skinning_weights: Of the points, the same in the whole batch or each its own; rows sum to 1.
        transforms: See `skinning_transforms`.
    """
    return transform_points(blended_transforms(skinning_weights, transforms), points)
