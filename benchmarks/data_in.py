"""Process clips with known truth, and measure the masks, the landmarks and the time.

    python -m benchmarks.data_in --clips path/to/dev-male.mp4 --subjects path/to/subjects --output results/data_in.json

Of each clip the subjects' folder holds a recording of the same name, frame for frame: `masks/`, `cameras.npz`, `body/`
and `truth.npz`. Figures, for each clip under its name; others that the file holds already are kept:

- `mask_iou`, `mask_iou_min`: intersection over union of masks and true masks, mean and least over the frames
- `landmark_px`, `landmark_px_95`: distance of twelve landmarks (shoulders, elbows, wrists, hips, knees, ankles) from
  the body's joints, pixels, mean and 95th percentile; `person_px`: the person's height
- `seconds_per_frame`: of all stages; `stage_seconds_per_frame`: of each; `processor_seconds_per_frame`: of all cores
  together, the check and the page included, which other work on the machine does not change
- of the fitted body: what `benchmarks/data_in_fit.py` measures
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import cv2
import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float

from benchmarks import record
from benchmarks.data_in_fit import measure_fit
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.data.folder import find_body_file, list_images, list_masks
from instantavatar_ns.process.frames import ChosenFrames
from instantavatar_ns.process.landmarks import LANDMARKS_FILE, Landmarks
from instantavatar_ns.process.masks import read_masks
from instantavatar_ns.process.network import LANDMARK_NAMES
from instantavatar_ns.process.stages import read_seconds
from instantavatar_ns.scripts.process import Process

_PARTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_MEASURED = [f"{side}_{part}" for part in _PARTS for side in ("left", "right")]


@dataclass
class DataIn:
    """Process clips and compare what comes out with the truth."""

    clips: tuple[Path, ...]
    """Videos."""
    subjects: Path
    """Folder of the recordings with truth, one for each clip, of the same name."""
    frames: int = 100
    """Frames to take of each clip."""
    landmark_model: Path | None = None
    """Another network than the package's."""
    keep: Path | None = None
    """Folder for the processed clips; a clip that is there already is not processed again."""
    output: Path | None = None
    """JSON file of the figures."""

    def main(self) -> None:
        """Measure all clips."""
        known = json.loads(self.output.read_text()) if self.output is not None and self.output.is_file() else {}
        results: dict[str, Any] = {}
        with TemporaryDirectory() as temporary:
            for clip in self.clips:
                record.progress(f"processing {clip.name}")
                folder = (self.keep or Path(temporary)) / clip.stem
                made_before, start = folder.exists(), process_time()
                Process(clip, folder, frames=self.frames, landmark_model=self.landmark_model).main()
                figures = measure(folder, self.subjects / clip.stem) | measure_fit(folder, self.subjects / clip.stem)
                if not made_before:
                    figures["processor_seconds_per_frame"] = round((process_time() - start) / figures["frames"], 2)
                results[clip.stem] = known.get(clip.stem, {}) | figures
                record.progress(json.dumps(results[clip.stem]))
        record.write(self.output, known | record.head("cpu") | results)


def measure(folder: Path, subject: Path) -> dict[str, Any]:
    """Compare a processed clip with its truth.

    Args:
        folder: That `instant-avatar process` filled.
        subject: Recording with the truth, of which the clip was made.
    """
    clip = ChosenFrames.read(folder)
    count = len(clip.frames)
    truth = true_masks(subject)[clip.frames]
    overlaps = [float((a & b).sum() / (a | b).sum()) for a, b in zip(read_masks(folder), truth, strict=True)]
    landmarks = Landmarks.read(folder / "process" / LANDMARKS_FILE, [list(range(count)), clip.frames])
    found = landmarks.pixels[:, [LANDMARK_NAMES.index(name) for name in _MEASURED]]
    joints = true_joints(subject)[clip.frames][:, [JOINT_NAMES.index(name) for name in _MEASURED]]
    distances = np.linalg.norm(found - joints, axis=-1)
    seconds = read_seconds(folder)
    return {
        "mask_iou": round(float(np.mean(overlaps)), 4),
        "mask_iou_min": round(min(overlaps), 4),
        "landmark_px": round(float(distances.mean()), 2),
        "landmark_px_95": round(float(np.percentile(distances, 95)), 1),
        "person_px": int(np.median(truth.any(axis=2).sum(axis=1))),
        "frames": count,
        "seconds_per_frame": round(sum(seconds.values()) / count, 2),
        "stage_seconds_per_frame": {name: round(value / count, 3) for name, value in seconds.items()},
    }


def true_masks(subject: Path) -> Bool[np.ndarray, "frames height width"]:
    """Masks of a recording."""
    paths = list_masks(subject, list_images(subject))
    return np.stack([np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) > 127 for path in paths])


def true_joints(subject: Path) -> Float[np.ndarray, "frames 24 2"]:
    """Joints of a recording, pixels, the center of the top-left one at (0, 0)."""
    truth, cameras = np.load(subject / "truth.npz"), np.load(subject / "cameras.npz")
    body = load_body_model(str(find_body_file(subject)))
    betas, poses, transl = (torch.from_numpy(truth[key]).float() for key in ("betas", "poses", "transl"))
    transforms = body.transforms(betas.reshape(-1), poses[:, :3], poses[:, 3:], transl)
    world = skinned(body.rest(betas.reshape(-1))[1], torch.eye(len(JOINT_NAMES)), transforms).numpy()
    extrinsic = cameras["extrinsic"]
    pixels = (world @ extrinsic[:3, :3].T + extrinsic[:3, 3]) @ cameras["intrinsic"].T
    return pixels[..., :2] / pixels[..., 2:]


if __name__ == "__main__":
    tyro.cli(DataIn).main()
