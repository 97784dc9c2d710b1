"""Figures of the body that `instant-avatar process` fits to a clip whose truth is known; see `benchmarks/data_in.py`.

    python -m benchmarks.data_in_fit --folder OUTPUT --subject path/to/subject

`OUTPUT` was made of the subject's frames, in their order. Figures:

- `joints_mm`: mean distance of the 24 joints from the true ones, after a rigid transform of each frame and one scale
  for all; `joints_clip_mm`: after one rigid transform and one scale for the whole clip
- `joints_placed_mm`: as `joints_mm`, each joint moved by a constant in its bone's own frame: what is left if the bodies
  had their joints at the same places. The constants are those of the first half of the frames, and the second half is
  measured, so that what changes as the person turns is not taken away with them
- `joint_offsets_mm`: the length of each joint's constant
- `joints_floor_mm`: as `joints_mm`, of the fitted body in the true rotations: bodies differ in where their joints are
- `rotations_deg`: mean error of the joints' rotations relative to their parents, less a constant rotation of each
- `heading_deg`: of the root's alone
- `body_iou`, `body_iou_min`: overlap of the fitted body and the masks, mean and least over the frames
- `focal_ratio`: focal length by the true one
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation

from benchmarks import record
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.correction.pose_error import joint_rotations, pose_error
from instantavatar_ns.data.folder import find_body_file

Joints = Float[np.ndarray, "frames 24 3"]
Points = Float[np.ndarray, "frames points 3"]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="that `instant-avatar process` filled")
    parser.add_argument("--subject", type=Path, required=True, help="with truth.npz, cameras.npz and body/")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    record.write(args.output, record.head("cpu") | measure_fit(args.folder, args.subject))


def measure_fit(folder: Path, subject: Path) -> dict[str, Any]:
    """Compare the fitted body with the truth.

    Args:
        folder: That `instant-avatar process` filled.
        subject: Recording with the truth, of which the clip was made.
    """
    poses, body = read_body_poses(folder, "poses.npz")
    true_poses, true_body = read_body_poses(subject, "truth.npz")
    true_poses = true_poses.rows(chosen_frames(folder) or list(range(len(poses))))
    joints, true_joints = body_joints(body, poses), body_joints(true_body, true_poses)
    at_truth = PoseSequence(poses.betas, true_poses.global_orient, true_poses.body_pose, true_poses.transl)
    rotations, true_rotations = joint_rotations(poses), joint_rotations(true_poses)
    placed_mm, offsets = joints_placed_mm(joints, bone_rotations(body, poses), true_joints)
    fit = np.load(folder / "process" / "fit.npz")
    focal, true_focal = (np.load(place / "cameras.npz")["intrinsic"][0, 0] for place in (folder, subject))
    figures = {
        "joints_mm": joints_mm(joints, true_joints),
        "joints_clip_mm": joints_mm(joints.reshape(1, -1, 3), true_joints.reshape(1, -1, 3)),
        "joints_placed_mm": placed_mm,
        "joints_floor_mm": joints_mm(body_joints(body, at_truth), true_joints),
        "rotations_deg": pose_error(rotations, true_rotations).aligned_deg,
        "heading_deg": pose_error(rotations[:, :1], true_rotations[:, :1]).aligned_deg,
        "body_iou": float(fit["iou"].mean()),
        "body_iou_min": float(fit["iou"].min()),
        "focal_ratio": float(focal / true_focal),
    }
    rounded: dict[str, Any] = {name: round(value, 4 if "iou" in name else 2) for name, value in figures.items()}
    return rounded | {"joint_offsets_mm": dict(zip(JOINT_NAMES, np.round(offsets).astype(int).tolist(), strict=True))}


def chosen_frames(folder: Path) -> list[int]:
    """Frames of the recording that `instant-avatar process` took; read without its package, which wants PyAV.

    Args:
        folder: That it filled.
    """
    return json.loads((folder / "process" / "clip.json").read_text()).get("frames") or []


def joints_mm(found: Points, true: Points) -> float:
    """Mean distance after the best rigid transform of each frame and the best scale of all, millimetres."""
    residuals, _ = aligned_residuals(found, true)
    return float(np.linalg.norm(residuals, axis=-1).mean()) * 1000


def joints_placed_mm(
    found: Joints, rotations: Float[np.ndarray, "frames 24 3 3"], true: Joints
) -> tuple[float, Float[np.ndarray, " 24"]]:
    """As `joints_mm` of the second half of the frames, each joint moved by its bone's constant of the first half.

    Args:
        found: Joints, metres.
        rotations: Of their bones, from the T-pose.
        true: Joints, metres.

    Returns:
        The mean distance, and the lengths of the constants, millimetres.
    """
    half = len(found) // 2
    residuals, turns = aligned_residuals(found, true)
    bones = turns[:, None] @ rotations
    offsets = np.einsum("fjba,fjb->ja", bones[:half], residuals[:half]) / half
    moved = true[half:] - residuals[half:] + np.einsum("fjab,jb->fja", bones[half:], offsets)
    return joints_mm(moved, true[half:]), np.linalg.norm(offsets, axis=-1) * 1000


def aligned_residuals(found: Points, true: Points) -> tuple[Points, Float[np.ndarray, "frames 3 3"]]:
    """True points less the found ones, these after the best rigid transform of each frame and the best scale of all.

    Returns:
        The residuals, and the rotations of the frames.
    """
    found, true = (points - points.mean(axis=1, keepdims=True) for points in (found, true))
    turns = np.stack([Rotation.align_vectors(b, a)[0].as_matrix() for a, b in zip(found, true, strict=True)])
    turned = found @ turns.swapaxes(1, 2)
    scale = minimize_scalar(
        lambda scale: float(np.linalg.norm(scale * turned - true, axis=-1).mean()), bounds=(0.5, 2), method="bounded"
    ).x
    return true - scale * turned, turns


def read_body_poses(folder: Path, name: str) -> tuple[PoseSequence, BodyModel]:
    """Poses of a file, and the body that they belong to."""
    arrays = np.load(folder / name)
    rotations = arrays["thetas"] if "thetas" in arrays.files else arrays["poses"]
    thetas = torch.from_numpy(rotations).float()
    betas, transl = (torch.from_numpy(arrays[key]).float() for key in ("betas", "transl"))
    poses = PoseSequence(betas.reshape(-1)[:10], thetas[:, :3], thetas[:, 3:], transl)
    return poses, load_body_model(str(find_body_file(folder) or "free"))


def body_joints(body: BodyModel, poses: PoseSequence) -> Joints:
    """Joints of a body in poses, metres."""
    transforms = body.transforms(poses.betas, poses.global_orient, poses.body_pose, poses.transl)
    joints = body.rest(poses.betas)[1]
    return skinned(joints, torch.eye(len(joints)), transforms).double().numpy()


def bone_rotations(body: BodyModel, poses: PoseSequence) -> Float[np.ndarray, "frames 24 3 3"]:
    """Rotations of a body's bones in poses, from the T-pose."""
    transforms = body.transforms(poses.betas, poses.global_orient, poses.body_pose, poses.transl)
    return transforms[..., :3, :3].double().numpy()


if __name__ == "__main__":
    main()
