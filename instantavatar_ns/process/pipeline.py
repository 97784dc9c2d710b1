"""From a clip to a folder that trains, stage by stage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from instantavatar_ns.process import network as pose_network
from instantavatar_ns.process.clip_folder import take_poses, write_split
from instantavatar_ns.process.frames import CLIP_FILE, ChosenFrames, write_frames
from instantavatar_ns.process.landmarks import (
    LANDMARKS_FILE,
    NETWORK_FOLDER,
    Landmarks,
    collect_landmarks,
    most_people,
    run_network,
)
from instantavatar_ns.process.masks import make_masks, read_masks, take_masks
from instantavatar_ns.process.network import PoseNetwork
from instantavatar_ns.process.stages import Stage
from instantavatar_ns.process.video import Clip

Progress = Callable[[float], None]


@dataclass(frozen=True)
class ClipOptions:
    """Choices of a user; see `instantavatar_ns.scripts.process.Process`."""

    start: float
    end: float | None
    frames: int
    longest_side: int
    masks: Path | None
    landmarks: Path | None
    poses: Path | None
    focal: float | None
    body: str
    landmark_model: Path
    device: str


def stages_of(clip: Clip, folder: Path, options: ClipOptions) -> list[Stage]:
    """List the stages that turn a clip into a folder that trains.

    Args:
        clip: The clip.
        folder: Folder to fill.
        options: The user's choices.
    """
    window = (options.start, np.inf if options.end is None else options.end)

    def frames(progress: Progress) -> dict[str, Any]:
        chosen = write_frames(clip, folder, window, options.frames, options.longest_side, progress)
        return {"count": len(chosen.frames), "width": chosen.width, "height": chosen.height}

    def network(progress: Progress) -> dict[str, Any]:
        run_network(folder, PoseNetwork(options.landmark_model), progress)
        return {"people": most_people(folder)}

    def landmarks(progress: Progress) -> dict[str, Any]:
        if options.landmarks is None:
            found, swaps = collect_landmarks(folder)
        else:
            chosen = ChosenFrames.read(folder).frames
            found, swaps = Landmarks.read(options.landmarks, [list(range(len(chosen))), chosen]), {}
        found.write(folder / "process" / LANDMARKS_FILE)
        return {"found": int(found.found.sum()), "swaps": sorted({frame for rows in swaps.values() for frame in rows})}

    def masks(progress: Progress) -> dict[str, Any]:
        if options.masks is not None:
            take_masks(folder, options.masks, progress)
            return {}
        camera = make_masks(folder, progress)
        return {"motion": camera.motion, "plate": camera.is_still, "followed": camera.is_followed}

    def fit(progress: Progress) -> dict[str, Any]:
        chosen = ChosenFrames.read(folder)
        focal = chosen.focal
        if options.focal is not None:
            focal = options.focal * chosen.width / clip.width
        if options.poses is not None:
            assert focal is not None  # the command refuses poses without one
            take_poses(folder, options.poses, focal, options.body)
        else:
            from instantavatar_ns.process.clip_fit import fit_clip

            # It reads the tags by itself, and says where a focal length is from.
            given = focal if options.focal is not None else None
            fit_clip(folder, given, options.body, options.device, progress)
        return {"focal_given": options.focal is not None}

    def split(progress: Progress) -> dict[str, Any]:
        shown = read_masks(folder).any(axis=(1, 2))
        if needs_network or options.landmarks is not None:
            count = len(shown)
            shown &= Landmarks.read(folder / "process" / LANDMARKS_FILE, [list(range(count))]).found
        train, held_out = write_split(folder, np.flatnonzero(shown).tolist())
        return {"train": train, "held_out": held_out}

    choice = {"source": _file(clip.path), "start": options.start, "end": options.end}
    choice |= {"frames": options.frames, "longest_side": options.longest_side}
    mask_settings, landmark_settings = (_file(path) for path in (options.masks, options.landmarks))
    pose_settings = {"poses": _file(options.poses), "focal": options.focal, "body": options.body}
    looks = Stage(
        name="network",
        words="Looking for the person",
        settings={"landmark_model": _model_name(options.landmark_model)},
        results=(f"process/{NETWORK_FOLDER}",),
        work=network,
        goes_on=True,
    )
    needs_landmarks = options.poses is None or options.landmarks is not None
    needs_network = options.masks is None or (needs_landmarks and options.landmarks is None)
    stages = [Stage("frames", "Choosing the frames", choice, ("images", f"process/{CLIP_FILE}"), frames)]
    stages += [looks] if needs_network else []
    if needs_network or options.landmarks is not None:
        places = (f"process/{LANDMARKS_FILE}",)
        stages.append(
            Stage("landmarks", "Collecting the landmarks", {"landmarks": landmark_settings}, places, landmarks)
        )
    stages += [
        Stage("masks", "Making the masks", {"masks": mask_settings}, ("masks",), masks),
        Stage("fit", "Fitting the body", pose_settings, ("cameras.npz", "poses.npz", "body", "process/fit.npz"), fit),
        Stage("split", "Holding out frames", {}, ("subject.json",), split),
    ]
    return stages


def _file(path: Path | None) -> str | None:
    """Name a file, or a folder of files, so that the name changes when somebody changes them."""
    if path is None:
        return None
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    changed = max((file.stat().st_mtime for file in files), default=0.0)
    return f"{path.resolve()} of {datetime.fromtimestamp(changed).isoformat(' ', 'seconds')}"


def _model_name(path: Path) -> str:
    """Return a name that changes with the network, but not with where the package is installed."""
    if path == pose_network.NETWORK:
        return path.name
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else str(path)
