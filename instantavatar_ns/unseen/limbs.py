"""Directions in which limbs and trunk run at each vertex of a body: garments end across them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_transforms
from instantavatar_ns.body.model import BodyModel

_LONG_BONES = 2  # of an arm or a leg


def lengthwise(body: BodyModel, betas: Float[Tensor, "10"]) -> Float[Tensor, "vertices 3 3"]:
    """Tell how far directions run along the part of the canonical body that a vertex belongs to.

    The product u.T @ result @ u of a unit vector u is 1 along the part and 0 across it, and between them where skinning
    blends parts. Arms and legs run from joint to joint, hands and feet as the bone before them: a shoe ends above, like
    trousers do. The trunk, with neck and collar bones, is upright. The head has no such direction, since hair comes
    down from the crown: the product is 0 there.

    Args:
        body: The person's body; its limbs are what the rig's canonical pose parts from the trunk.
        betas: Its shape.
    """
    bones = _bones(body, betas)
    return torch.einsum("vj,jr,jc->vrc", body.skinning_weights.to(bones), bones, bones)


def _bones(body: BodyModel, betas: Float[Tensor, "10"]) -> Float[Tensor, "joints 3"]:
    """Directions of the joints' parts in the canonical pose, unit vectors; 0 for the head."""
    rig = body.rig
    starts = {rig.joint_names.index(name) for name in rig.canonical_pose}
    as_given = body.with_joints_moved(torch.zeros_like(body.joint_offsets))  # as in `canonical_transforms`
    transforms = canonical_transforms(body, betas)
    joints = (transforms[:, :3, :3] @ as_given.rest(betas)[1][..., None])[..., 0] + transforms[:, :3, 3]
    bones, place_in_limb = torch.zeros_like(joints), [0] * rig.num_joints  # 1 is a limb's first joint, 0 no limb's
    for joint, parent in enumerate(rig.parents):
        children = [child for child, of in enumerate(rig.parents) if of == joint]
        before = place_in_limb[parent] if parent >= 0 else 0
        place = place_in_limb[joint] = before + 1 if before or joint in starts else 0
        if place == 0:
            bones[joint, 1] = float(bool(children))
        elif place > _LONG_BONES or not children:
            bones[joint] = bones[parent]
        else:
            bones[joint] = joints[children].mean(dim=0) - joints[joint]
    return F.normalize(bones, dim=-1)
