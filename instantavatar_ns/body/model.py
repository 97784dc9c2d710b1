"""SMPL-format body models of any topology: 24 joints, linear blend skinning, a linear shape space.

The maths is `smplx`'s; this module gives it checked input (`smplx.SMPL` itself unpickles whatever file it is given) and
the bone transforms that the deformer needs and `smplx` keeps to itself.
"""

from __future__ import annotations

import contextlib
import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import smplx
import smplx.lbs
import torch
from jaxtyping import Float, Int
from smplx.utils import Struct
from torch import Tensor, nn

from instantavatar_ns.body.kinematics import ancestor_table, skinned, skinning_transforms
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.npz import read_npz
from instantavatar_ns.utils.unpickle import load_plain_pickle

# smplx annotates its functions with tensor types of its own, which no tensor satisfies.
_lbs: Any = smplx.lbs

NUM_JOINTS = 24
NUM_BETAS = 10
JOINT_NAMES = (
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot "
    "neck left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_hand right_hand"
).split()
# Each joint's counterpart on the other side of the body; those along the spine are their own.
MIRROR_IMAGES = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
# Each joint's parent, -1 for the root.
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
FREE_BODY = Path(__file__).with_name("free_body.npz")

# Metres over which a body's vertices extend; a body in centimetres extends over 150 to 200.
_SMALLEST, _LARGEST = 0.1, 20.0
_REQUIRED = {
    "v_template": "(V, 3)",
    "f": "(F, 3)",
    "weights": "(V, 24)",
    "J_regressor": "(24, V)",
    "kintree_table": "(2, 24)",
    "shapedirs": "(V, 3, 10 or more)",
}
_ADVICE = (
    "Give an SMPL model (SMPL_{NEUTRAL,MALE,FEMALE}.pkl or .npz), a body of the same format with SMPL's 24 joints, "
    "or 'free' for the body that comes with this package"
)


class BodyModel(nn.Module):
    """A skinned body with SMPL's 24 joints.

    Args:
        data: Arrays of an SMPL file, as `read_body_file` returns them.
    """

    faces: Int[Tensor, "faces 3"]
    ancestors: Int[Tensor, "rounds 24"]
    joint_offsets: Float[Tensor, "24 3"]
    smpl: Any

    def __init__(self, data: dict[str, np.ndarray]) -> None:
        super().__init__()
        # Landmark vertex ids are SMPL's own (6,890 vertices); they serve `smplx.SMPL.forward` only, which is not used.
        # smplx prints a warning that ten shape coefficients are few; they are what every format here has.
        with contextlib.redirect_stdout(io.StringIO()):
            self.smpl = smplx.SMPL(
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
        self.register_buffer("joint_offsets", torch.zeros(NUM_JOINTS, 3), persistent=False)
        self.requires_grad_(False)

    @property
    def parents(self) -> Int[Tensor, "24"]:
        """Index of each joint's parent, -1 for the root."""
        return self.smpl.parents

    @property
    def skinning_weights(self) -> Float[Tensor, "vertices 24"]:
        """Share of each bone in each vertex; rows sum to 1."""
        return self.smpl.lbs_weights

    def rest(self, betas: Float[Tensor, "10"]) -> tuple[Float[Tensor, "vertices 3"], Float[Tensor, "24 3"]]:
        """Vertices and joints in the T-pose, metres."""
        vertices = self.smpl.v_template + _lbs.blend_shapes(betas[None], self.smpl.shapedirs)[0]
        return vertices, _lbs.vertices2joints(self.smpl.J_regressor, vertices[None])[0] + self.joint_offsets

    def with_joints_moved(self, offsets: Float[Tensor, "24 3"]) -> BodyModel:
        """The same body, but for where its bones turn.

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
        body_pose: Float[Tensor, "batch 69"],
        transl: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch 24 4 4"]:
        """Transforms of linear blend skinning, from the T-pose to the posed body in the world.

        Args:
            betas: Shape coefficients.
            global_orient: Axis-angle rotation of the root, radians.
            body_pose: Axis-angle rotations of the 23 other joints relative to their parents, radians.
            transl: Translation of the whole body, metres.
        """
        rotations = rotation_matrices(torch.cat([global_orient, body_pose], dim=-1).view(-1, NUM_JOINTS, 3))
        return skinning_transforms(rotations, transl, self.rest(betas)[1], self.ancestors)

    def vertices(
        self,
        betas: Float[Tensor, "10"],
        global_orient: Float[Tensor, "batch 3"],
        body_pose: Float[Tensor, "batch 69"],
        transl: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch vertices 3"]:
        """Posed vertices in the world, metres, pose-dependent offsets included."""
        rest_vertices = self.rest(betas)[0]
        rotations = _lbs.batch_rodrigues(body_pose.reshape(-1, 3)).view(len(body_pose), -1)
        identity = torch.eye(3, device=betas.device).flatten().repeat(NUM_JOINTS - 1)
        offsets = ((rotations - identity) @ self.smpl.posedirs).view(len(body_pose), -1, 3)
        transforms = self.transforms(betas, global_orient, body_pose, transl)
        return skinned(rest_vertices + offsets, self.skinning_weights, transforms)


def rotation_matrices(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotations by axis-angle vectors, radians: the exponential map of SO(3), differentiable at zero too."""
    return _lbs.batch_rodrigues(axis_angle.reshape(-1, 3)).view(*axis_angle.shape, 3)


def load_body_model(path: Path | str) -> BodyModel:
    """Load a body model.

    Args:
        path: An SMPL-format `.npz` or `.pkl` file, or "free" for the body shipped with this package.

    Raises:
        InputError: The file is missing or unreadable, asks for code to be run, or is not a body with SMPL's 24 joints.
    """
    return BodyModel(read_body_file(FREE_BODY if str(path) == "free" else Path(path)))


def read_body_file(path: Path) -> dict[str, np.ndarray]:
    """Read and check the arrays of an SMPL-format file; see `load_body_model`.

    Returns:
        `v_template`, `f`, `weights`, `J_regressor`, `kintree_table`, `shapedirs` (cut to 10) and `posedirs` (zeros
        where the file has none). Joint order and parents are SMPL's.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none"
        raise InputError(path, f"expected a body model file, found {found}", _ADVICE)
    _check_download(path)
    if path.suffix.lower() == ".pkl":
        loaded = load_plain_pickle(path)
    else:
        loaded = read_npz(path, "an SMPL-format body", _ADVICE)
    missing = [key for key in _REQUIRED if key not in loaded]
    if missing:
        raise InputError(path, f"expected an SMPL-format body, found no {', '.join(missing)}", _ADVICE)
    return _checked(path, loaded)


def _check_download(path: Path) -> None:
    """Refuse what programs save in place of a file that they did not get."""
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if start.startswith(b"version https://git-lfs"):
        message = "expected a body model, found a pointer of Git LFS to it"
        raise InputError(path, message, "Run git lfs pull, or download the file itself")
    if start.startswith(b"<"):
        message = "expected a body model, found a web page"
        raise InputError(path, message, "Download the file again, logged in to its site")
    if not start:
        raise InputError(path, "expected a body model, found an empty file", "Download the file again")


def _checked(path: Path, loaded: dict) -> dict[str, np.ndarray]:
    """The arrays as smplx expects them, or an InputError."""
    keys = [*_REQUIRED, *(["posedirs"] if "posedirs" in loaded else [])]
    data = {key: _finite_numbers(path, key, loaded[key]) for key in keys}
    num_joints = data["kintree_table"].shape[-1] if data["kintree_table"].ndim == 2 else None
    if num_joints is not None and num_joints != NUM_JOINTS:
        advice = "SMPL-H (52 joints) and SMPL-X (55 joints) bodies are not supported. " + _ADVICE
        raise InputError(path, f"expected a body with SMPL's {NUM_JOINTS} joints, found {num_joints}", advice)
    num_vertices, num_faces = (len(data[key]) if data[key].ndim else 0 for key in ("v_template", "f"))
    data.setdefault("posedirs", np.zeros((num_vertices, 3, 9 * (NUM_JOINTS - 1))))
    num_shapes = max(data["shapedirs"].shape[-1] if data["shapedirs"].ndim else 0, NUM_BETAS)
    shapes = {
        "v_template": (max(num_vertices, 1), 3),
        "f": (max(num_faces, 1), 3),
        "weights": (num_vertices, NUM_JOINTS),
        "J_regressor": (NUM_JOINTS, num_vertices),
        "kintree_table": (2, NUM_JOINTS),
        "shapedirs": (num_vertices, 3, num_shapes),
        "posedirs": (num_vertices, 3, 9 * (NUM_JOINTS - 1)),
    }
    for key, shape in shapes.items():
        if data[key].shape != shape:
            raise InputError(path, f"expected {key} of shape {shape}, found {data[key].shape}", _ADVICE)
    for key, of in (("weights", "vertex"), ("J_regressor", "joint")):
        sums = data[key].sum(axis=1)
        wrong = np.flatnonzero(np.abs(sums - 1) > 0.05)
        if len(wrong):
            message = f"expected {key} that sum to 1 for each {of}, found {sums[wrong[0]]:.4g} for {of} {wrong[0]}"
            raise InputError(path, message, _ADVICE)
    extent = np.ptp(data["v_template"].astype(np.float64), axis=0).max()
    if not _SMALLEST <= extent <= _LARGEST:
        message = f"expected a body in metres, found vertices that extend over {extent:.4g}"
        raise InputError(path, message, "Scale v_template, shapedirs and posedirs to metres")
    if data["f"].min() < 0 or data["f"].max() >= num_vertices:
        raise InputError(path, f"expected faces that index {num_vertices} vertices, found others", _ADVICE)
    integers = {key: data[key].astype(np.int64) for key in ("f", "kintree_table")}
    data = {**{key: value.astype(np.float32) for key, value in data.items()}, **integers}
    data["shapedirs"] = data["shapedirs"][..., :NUM_BETAS]
    # SMPL writes its root's parent as 2**32 - 1.
    data["kintree_table"][0, 0] = -1
    if data["kintree_table"][0].tolist() != PARENTS:
        found = ", ".join(map(str, data["kintree_table"][0]))
        message = f"expected SMPL's kinematic tree, found the parents {found} in kintree_table"
        raise InputError(path, message, _ADVICE)
    return data


def _finite_numbers(path: Path, key: str, value: Any) -> np.ndarray:
    value = np.asarray(value.todense() if hasattr(value, "todense") else value)
    if value.dtype.kind not in "biuf":
        found = "text" if value.dtype.kind in "US" else f"the type {value.dtype}"
        raise InputError(path, f"expected {key} of real numbers, found {found}", _ADVICE)
    if not np.isfinite(value).all():
        raise InputError(path, f"expected finite numbers, found NaN or infinity in {key}", _ADVICE)
    return value
