"""Small clips of the free body, as the first stages leave them in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.demo.motion import turn_poses
from instantavatar_ns.process.body_landmarks import NUM_LANDMARKS, body_landmarks
from instantavatar_ns.process.camera import Camera
from instantavatar_ns.process.drawn_body import drawn_silhouette


class TrueClip(NamedTuple):
    """A folder and what it shows."""

    folder: Path
    camera: Camera
    poses: PoseSequence
    joints: np.ndarray


def write_turn(
    folder: Path, body: BodyModel, *, frames: int, size: int = 120, focal: float = 2.4, noise: float = 0.02
) -> TrueClip:
    """Write a turn of somebody in an A-pose: the folder has images, masks, and landmarks with noise.

    Args:
        folder: To write to.
        body: The person.
        frames: How many, in four seconds.
        size: Height and width of the images, pixels.
        focal: By the size.
        noise: Deviation of the landmarks, metres.
    """
    random = np.random.default_rng(0)
    rotations, sway = turn_poses(np.linspace(0, 1, frames, endpoint=False), random)
    camera = Camera(focal * size, size, size, "given")
    poses = PoseSequence(
        torch.tensor([0.8, 0.5, *[0.0] * 8]),
        torch.from_numpy(rotations[:, 0]).float(),
        torch.from_numpy(rotations[:, 1:].reshape(frames, -1)).float(),
        torch.from_numpy(sway + np.array([0.05, 0.1, 2.2 * focal])).float(),
    )
    transforms = body.transforms(poses.betas, poses.global_orient, poses.body_pose, poses.transl)
    rest, joints = body.rest(poses.betas)
    places = body_landmarks(body)
    of_landmarks = transforms[:, places.bone]
    points = torch.einsum("flrc,lc->flr", of_landmarks[..., :3, :3], joints[places.bone] + places.offset)
    points = (points + of_landmarks[..., :3, 3]).double().numpy()
    # The network errs alike in all frames, and differently in each.
    points += noise * (random.normal(size=(NUM_LANDMARKS, 3)) + random.normal(size=points.shape)) / 2**0.5
    pixels = points[..., :2] / points[..., 2:] * camera.focal + np.array(camera.center)
    world = points - points[:, 23:25].mean(axis=1, keepdims=True)
    for name in ("images", "masks", "process"):
        (folder / name).mkdir(parents=True)
    vertices = skinned(rest, body.skinning_weights, transforms).numpy()
    for number, frame in enumerate(vertices):
        mask = drawn_silhouette(frame, body.faces.numpy(), camera).astype(np.uint8) * 255
        cv2.imwrite(str(folder / f"masks/{number:05d}.png"), mask)
        cv2.imwrite(str(folder / f"images/{number:05d}.png"), np.repeat(mask[..., None], 3, axis=2))
    clip = {"times": np.linspace(0, 4, frames).tolist(), "width": size, "height": size, "focal": None}
    (folder / "process" / "clip.json").write_text(json.dumps(clip))
    write_landmarks(folder, pixels, world, np.ones(frames, dtype=bool))
    posed_joints = skinned(joints, torch.eye(len(joints)), transforms)
    return TrueClip(folder, camera, poses, posed_joints.double().numpy())


def write_landmarks(folder: Path, pixels: np.ndarray, world: np.ndarray, found: np.ndarray) -> None:
    """Write landmarks, all of them visible."""
    np.savez(
        folder / "process" / "landmarks.npz",
        pixels=pixels.astype(np.float32),
        visibility=np.ones(pixels.shape[:2], np.float32),
        world=world.astype(np.float32),
        found=found,
    )
