"""Body models in SMPL's format, of any mesh and any number of joints: linear blend skinning, a linear shape space.

The maths is `smplx`'s; this module gives it checked input (`smplx.SMPL` itself unpickles whatever file it is given) and
the bone transforms that the deformer needs and `smplx` keeps to itself.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import smplx
import smplx.lbs
import torch
from jaxtyping import Float, Int
from smplx.utils import Struct
from torch import Tensor, nn

from instantavatar_ns.body.kinematics import ancestor_table, joint_angles, skinned, skinning_transforms
from instantavatar_ns.body.rig import Rig
from instantavatar_ns.body.smpl import NUM_BETAS, SMPL

# smplx annotates its functions with tensor types of its own, which no tensor satisfies.
_lbs: Any = smplx.lbs


class _TenShapes(smplx.SMPL):
    """smplx's, which prints a warning where there are fewer than this; ten are what every format here has."""

    SHAPE_SPACE_DIM = NUM_BETAS


class BodyModel(nn.Module):
    """A skinned body.

    Args:
        data: Arrays of a file in SMPL's format, as `files.read_body_file` returns them.
        rig: The body's joints.

    Raises:
        ValueError: The kinematic tree of `data` is not the rig's.
    """

    faces: Int[Tensor, "faces 3"]
    ancestors: Int[Tensor, "rounds joints"]
    joint_offsets: Float[Tensor, "joints 3"]
    smpl: Any

    def __init__(self, data: dict[str, np.ndarray], rig: Rig = SMPL) -> None:
        super().__init__()
        if tuple(data["kintree_table"][0, 1:]) != rig.parents[1:]:  # the root's parent is written as 2**32 - 1, or -1
            raise ValueError(f"the rig's joints have the parents {rig.parents}, those of the data others")
        self.rig = rig
        # Landmark vertex ids are SMPL's own (6,890 vertices); they serve `smplx.SMPL.forward` only, which is not used.
        self.smpl = _TenShapes(
            model_path="",
            data_struct=Struct(**data),
            num_betas=NUM_BETAS,
            create_betas=False,
            create_global_orient=False,
            create_body_pose=False,
            create_transl=False,
        )
        self.register_buffer("faces", torch.from_numpy(data["f"].astype(np.int64)), persistent=False)
        self.register_buffer("ancestors", ancestor_table(self.smpl.parents), persistent=False)
        self.register_buffer("joint_offsets", torch.zeros(rig.num_joints, 3), persistent=False)
        self.requires_grad_(False)

    @property
    def num_joints(self) -> int:
        """Joints, the root included."""
        return self.rig.num_joints

    @property
    def parents(self) -> Int[Tensor, "joints"]:
        """Index of each joint's parent, -1 for the root."""
        return self.smpl.parents

    @property
    def skinning_weights(self) -> Float[Tensor, "vertices joints"]:
        """Skinning weights; rows sum to 1."""
        return self.smpl.lbs_weights

    def rest(self, betas: Float[Tensor, "10"]) -> tuple[Float[Tensor, "vertices 3"], Float[Tensor, "joints 3"]]:
        """Vertices and joints in the T-pose, metres, of a shape."""
        vertices = self.smpl.v_template + _lbs.blend_shapes(betas[None], self.smpl.shapedirs)[0]
        return vertices, _lbs.vertices2joints(self.smpl.J_regressor, vertices[None])[0] + self.joint_offsets

    def with_joints_moved(self, offsets: Float[Tensor, "joints 3"]) -> BodyModel:
        """Return the same body whose bones turn about other places.

        Args:
            offsets: From the joints that the file gives, in the T-pose, metres.
        """
        body = copy.copy(self)  # shares the arrays, but for this one
        body._buffers = {**self._buffers, "joint_offsets": offsets.to(self.joint_offsets)}
        return body

    def transforms(
        self,
        betas: Float[Tensor, "10"],
        global_orient: Float[Tensor, "batch 3"],
        body_pose: Float[Tensor, "batch angles"],
        transl: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch joints 4 4"]:
        """Transforms of linear blend skinning, from the T-pose to the posed body in the world.

        Args:
            betas: Shape coefficients.
            global_orient: Axis-angle rotation of the root, radians.
            body_pose: Axis-angle rotations of the other joints relative to their parents, radians.
            transl: Translation of the whole body, metres.
        """
        rotations = rotation_matrices(joint_angles(global_orient, body_pose))
        return skinning_transforms(rotations, transl, self.rest(betas)[1], self.ancestors)

    def vertices(
        self,
        betas: Float[Tensor, "10"],
        global_orient: Float[Tensor, "batch 3"],
        body_pose: Float[Tensor, "batch angles"],
        transl: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch vertices 3"]:
        """Posed vertices in the world, metres, pose-dependent offsets included; arguments as of `transforms`."""
        rest_vertices = self.rest(betas)[0]
        rotations = _lbs.batch_rodrigues(body_pose.reshape(-1, 3)).view(len(body_pose), -1)
        identity = torch.eye(3, device=betas.device).flatten().repeat(self.num_joints - 1)
        offsets = ((rotations - identity) @ self.smpl.posedirs).view(len(body_pose), -1, 3)
        transforms = self.transforms(betas, global_orient, body_pose, transl)
        return skinned(rest_vertices + offsets, self.skinning_weights, transforms)


def rotation_matrices(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotations by axis-angle vectors, radians: the exponential map of SO(3), differentiable at zero too."""
    return _lbs.batch_rodrigues(axis_angle.reshape(-1, 3)).view(*axis_angle.shape, 3)
