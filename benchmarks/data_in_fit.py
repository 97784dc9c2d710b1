"""Figures of the body that `instant-avatar process` fits to a clip whose truth is known; see `benchmarks/data_in.py`.

    python -m benchmarks.data_in_fit --folder OUTPUT --subject path/to/subject

`OUTPUT` was made of the subject's frames, in their order. Figures:

- `joints_mm`: mean distance of the 24 joints from the true ones, after a rigid transform of each frame and one scale
  for all; `joints_clip_mm`: after one rigid transform and one scale for the whole clip
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
from instantavatar_ns.correction.pose_error import joint_rotations, pose_error
from instantavatar_ns.data.folder import find_body_file

Joints = Float[np.ndarray, "frames 24 3"]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="that `instant-avatar process` filled")
    parser.add_argument("--subject", type=Path, required=True, help="with truth.npz, cameras.npz and body/")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    args = parser.parse_args()
    record.write(args.output, record.head("cpu") | measure_fit(args.folder, args.subject))


def measure_fit(folder: Path, subject: Path) -> dict[str, float]:
    """Compare the fitted body with the truth.

    Args:
        folder: That `instant-avatar process` filled.
        subject: Recording with the truth, of which the clip was made.
    """
    frames = json.loads((folder / "process" / "clip.json").read_text())
    poses, body = read_body_poses(folder, "poses.npz")
    true_poses, true_body = read_body_poses(subject, "truth.npz")
    rows = frames.get("frames") or list(range(len(poses)))
    true_poses = true_poses.rows(rows)
    joints, true_joints = body_joints(body, poses), body_joints(true_body, true_poses)
    at_truth = PoseSequence(poses.betas, true_poses.global_orient, true_poses.body_pose, true_poses.transl)
    rotations, true_rotations = joint_rotations(poses), joint_rotations(true_poses)
    fit = np.load(folder / "process" / "fit.npz")
    focal, true_focal = (np.load(place / "cameras.npz")["intrinsic"][0, 0] for place in (folder, subject))
    figures = {
        "joints_mm": joints_mm(joints, true_joints),
        "joints_clip_mm": joints_mm(joints.reshape(1, -1, 3), true_joints.reshape(1, -1, 3)),
        "joints_floor_mm": joints_mm(body_joints(body, at_truth), true_joints),
        "rotations_deg": pose_error(rotations, true_rotations).aligned_deg,
        "heading_deg": pose_error(rotations[:, :1], true_rotations[:, :1]).aligned_deg,
        "body_iou": float(fit["iou"].mean()),
        "body_iou_min": float(fit["iou"].min()),
        "focal_ratio": float(focal / true_focal),
    }
    return {name: round(value, 4 if "iou" in name else 2) for name, value in figures.items()}


def joints_mm(found: Float[np.ndarray, "frames points 3"], true: Float[np.ndarray, "frames points 3"]) -> float:
    """Mean distance after the best rigid transform of each frame and the best scale of all, millimetres."""
    found, true = (points - points.mean(axis=1, keepdims=True) for points in (found, true))
    turned = np.stack([Rotation.align_vectors(b, a)[0].apply(a) for a, b in zip(found, true, strict=True)])
    best = minimize_scalar(
        lambda scale: float(np.linalg.norm(scale * turned - true, axis=-1).mean()), bounds=(0.5, 2), method="bounded"
    )
    return float(best.fun) * 1000


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


if __name__ == "__main__":
    main()
