"""First guess of the body in all frames: an upright A-pose at the right distance, turned as the trunk is."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.process.body_landmarks import LEFT_HIP, LEFT_SHOULDER, NUM_LANDMARKS, body_landmarks
from instantavatar_ns.process.clip_body import ClipBody
from instantavatar_ns.process.headings import trunk_headings
from instantavatar_ns.process.observations import Observations
from instantavatar_ns.process.steadiest import steadiest

# Shoulders, hips, knees and ankles: they stand alike in all poses of somebody upright.
_STEADY = [LEFT_SHOULDER, LEFT_SHOULDER + 1, *range(LEFT_HIP, LEFT_HIP + 6)]
_ZOOM = 0.4  # deviation of the logarithm of an assumed focal length
_DEPTH_READING = 0.04  # deviation of the logarithm of the depth that a frame's landmarks tell
_FARTHEST = 2.0  # times the middling depth, at most, and as much nearer


def first_guess(body: BodyModel, seen: Observations) -> ClipBody:
    """Place and turn a body in all frames of a clip.

    Args:
        body: Any body in SMPL's format.
        seen: The clip's frames.
    """
    device = body.joint_offsets.device
    headings = trunk_headings(seen.world, seen.times, seen.found)
    upright = Rotation.from_rotvec([np.pi, 0.0, 0.0]) * Rotation.from_rotvec(np.outer(headings, [0.0, 1.0, 0.0]))
    orientation = torch.from_numpy(upright.as_matrix()).float().to(device)
    times = torch.from_numpy(seen.times).to(device)
    landmarks = body_landmarks(body)
    at_origin = ClipBody(body, landmarks, orientation, orientation.new_zeros(len(times), 3), times)
    unknowns = at_origin.start()
    with torch.no_grad():
        points = at_origin.posed_landmarks(at_origin.posed(unknowns), orientation.new_zeros(NUM_LANDMARKS, 3))
    place = _places(points[:, _STEADY].cpu().double().numpy(), seen)
    spread = _ZOOM if seen.camera.origin == "assumed" else 0.0
    return ClipBody(body, landmarks, orientation, torch.from_numpy(place).to(orientation), times, spread)


def _places(points: Float[np.ndarray, "frames points 3"], seen: Observations) -> Float[np.ndarray, "frames 3"]:
    """Shifts that bring the points over their landmarks, by least squares; interpolated where there are none."""
    across = seen.pixels[:, _STEADY] - np.array(seen.camera.center)
    focal, known = seen.camera.focal, np.flatnonzero(seen.found)
    shifts = []
    # focal (X + tx) = u (Z + tz), and the same of Y: linear in the shift.
    for frame in known:
        rows = np.zeros((2, len(_STEADY), 3))
        rows[0, :, 0] = rows[1, :, 1] = focal
        rows[..., 2] = -across[frame].T
        wanted = across[frame].T * points[frame, :, 2] - focal * points[frame, :, :2].T
        weight = np.tile(seen.visibility[frame, _STEADY].clip(0.05), 2)
        shifts.append(np.linalg.lstsq(rows.reshape(-1, 3) * weight[:, None], wanted.ravel() * weight, rcond=None)[0])
    shift = np.stack(shifts)
    # The direction to a landmark is known far better than its distance.
    depth = np.where(shift[:, 2] > 0, shift[:, 2], np.nan)
    middling = float(np.nanmedian(depth)) if np.isfinite(depth).any() else focal / 500
    wanted = np.nan_to_num(depth, nan=middling).clip(middling / _FARTHEST, middling * _FARTHEST)
    wanted = np.exp(steadiest(np.log(wanted), seen.times[known], _DEPTH_READING))
    middle = across[known].mean(axis=1) / focal
    offset = points[known].mean(axis=1)
    place = np.concatenate([middle * wanted[:, None] - offset[:, :2], wanted[:, None]], axis=1)
    return np.stack([np.interp(seen.times, seen.times[known], place[:, axis]) for axis in range(3)], axis=1)
