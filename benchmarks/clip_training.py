"""Train on clips that `instant-avatar process` made ready, and beside each once more with the true person's poses.

    python -m benchmarks.clip_training --clips processed/dev-male processed/dev-female --subjects path/to/subjects \
        --output benchmarks/results/data_in.json

Of each clip the subjects' folder may hold a recording of the same name, of which the clip was made: `cameras.npz`,
`poses.npz`, `truth.npz` and `body/` are read, not its images. Figures, for each clip under its name, where others that
the file holds already are kept; all on white, 8-bit:

- `heldout_psnr`, `heldout_lpips`: held-out frames, their poses made as those of the training frames were
- `heldout_fitted_psnr`: these poses fitted to the images
- `joints_mm_before`, `joints_mm_after`: of the training frames, before and after training's own correction: mean
  distance of the 24 joints from the true ones after a rigid transform of each frame and one scale for all; the
  correction moves joints in the body, too: `joints_mm_after_unmoved` is without that; `joints_mm_before_placed`,
  `joints_mm_after_placed`: each joint moved by a constant in its bone's frame, so that bodies with joints at other
  places compare (`joints_placed_mm` of `benchmarks/data_in_fit.py`)
- `rotations_deg_before`, `rotations_deg_after`: mean error of the joints' rotations less a constant of each
- `train_seconds`: from the first step to the last checkpoint
- `own_poses`: the same figures of the training with the recording's own `poses.npz`, camera and body, and the clip's
  own images, masks and split
- `training`: date, device, commit and command of these figures

Of the clip's folder are read: `images/`, `masks/`, `cameras.npz`, `poses.npz`, `subject.json`, `body/` where there is
one, and `process/clip.json`. Pictures go to `--pictures`: held-out frames, truth above rendering, and `walk`.
"""

from __future__ import annotations

import gc
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import cv2
import mediapy
import numpy as np
import torch
import tyro

from benchmarks import record, training
from benchmarks.data_in_fit import (
    body_joints,
    bone_rotations,
    chosen_frames,
    joints_mm,
    joints_placed_mm,
    read_body_poses,
)
from benchmarks.in_process import mean_metrics
from benchmarks.speed import EvalFrames, load_frames, psnr
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.correction.pose_error import joint_rotations, pose_error
from instantavatar_ns.data.subject import subject_of
from instantavatar_ns.metrics import quantise
from instantavatar_ns.scripts.refined_poses import load_refined
from instantavatar_ns.scripts.run_folder import write_variant
from instantavatar_ns.training.checkpoints import read
from instantavatar_ns.training.fitting import RECIPES, fit_poses

_SHOWN = 6
"""Frames on a sheet."""


@dataclass
class ClipTraining:
    """Train on processed clips and evaluate."""

    clips: tuple[Path, ...]
    """Folders that `instant-avatar process` filled."""
    subjects: Path | None = None
    """Folder of the recordings with truth, one for each clip, of the same name."""
    output: Path | None = None
    """JSON file of the figures."""
    pictures: Path = Path("outputs/benchmark-clips/pictures")
    """Where pictures and videos go."""
    runs: Path = Path("outputs/benchmark-clips")
    """Where the runs go."""
    method: Literal["instant-avatar", "instant-avatar-lite", "instant-avatar-wild"] = "instant-avatar"
    """Method to train."""
    steps: int | None = None
    """Training steps, by default the method's."""
    downscale: int = 1
    """Divide the images' height and width by this."""
    seed: int = 0
    """Of initialisation and the draws of rays."""
    walk: bool = True
    """Film the avatar's `walk`."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    options: tuple[str, ...] = ()
    """Further options of ns-train; written into the results."""

    def main(self) -> None:
        """Train and evaluate all, and write the figures after each training."""
        result = json.loads(self.output.read_text()) if self.output is not None and self.output.is_file() else {}
        about = record.head() | {"method": self.method, "downscale": self.downscale, "options": list(self.options)}
        for clip in self.clips:
            subject = self.subjects / clip.name if self.subjects is not None else None
            record.progress(f"training on {clip.name}")
            figures = self.measure(clip, subject, clip.name) | {"training": about}
            result[clip.name] = result.get(clip.name, {}) | figures
            record.write(self.output, result, quiet=True)
            record.progress(json.dumps(figures))
            if subject is None:
                continue
            record.progress(f"training on {clip.name} with the recording's own poses")
            own = with_own_poses(clip, subject, self.runs / "own-poses" / clip.name)
            result[clip.name]["own_poses"] = self.measure(own, subject, f"{clip.name}-own-poses", clip)
            record.write(self.output, result, quiet=True)
            record.progress(json.dumps(result[clip.name]["own_poses"]))

    def measure(self, folder: Path, subject: Path | None, name: str, clip: Path | None = None) -> dict[str, Any]:
        """Train on a folder and evaluate.

        Args:
            folder: In InstantAvatar's layout.
            subject: Recording with the truth, of which the clip was made.
            name: Of the run and the pictures.
            clip: The processed clip, where `folder` is not it.
        """
        arguments = training.arguments(
            self.method,
            folder,
            self.runs,
            name,
            self.steps,
            *("--machine.seed", str(self.seed), "--pipeline.datamanager.seed", str(self.seed)),
            *self.options,
            data_options=("--downscale", str(self.downscale)),
        )
        with redirect_stdout(StringIO()):  # nerfstudio's progress
            trainer = training.set_up(arguments)
            training.synchronise()
            start = monotonic()
            trainer.train()
            training.synchronise()
        figures: dict[str, Any] = {"steps": trainer.config.max_num_iterations, "train_seconds": monotonic() - start}
        model, datamanager = trainer.pipeline.model, trainer.pipeline.datamanager
        frames = load_frames(datamanager.eval_dataset, trainer.device)
        metrics = mean_metrics(model, frames, self.lpips_backbone)
        figures["heldout_psnr"], figures["heldout_lpips"] = metrics["psnr"], metrics.get("lpips", float("nan"))
        write_pairs(self.pictures / f"{name}-heldout.png", model, frames)
        fitted = fit_poses(model, datamanager.eval_dataset, datamanager.config, RECIPES["fast"])
        with model.poses.replacing(fitted):
            figures["heldout_fitted_psnr"] = psnr(model, frames)
        subject_read = subject_of(datamanager.train_dataset.metadata)
        config, body, numbers = trainer.base_dir / "config.yml", subject_read.load_body(), subject_read.train_numbers
        del trainer, model, datamanager, frames, fitted
        gc.collect()  # trainers are cycles, and hold all frames
        if subject is not None:
            rows = chosen_frames(clip or folder)
            figures |= pose_figures(config, body, subject, [rows[number] for number in numbers.tolist()])
        if self.walk:
            from instantavatar_ns.scripts.animate import Animate  # wants what writes videos

            video = Animate(config, Path("walk"), output=self.pictures / f"{name}-walk.mp4").main()
            write_row(video)
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}


def with_own_poses(clip: Path, subject: Path, folder: Path) -> Path:
    """Write a folder of a clip's images, masks and split with the recording's camera, poses and body; returns it.

    Args:
        clip: Folder of the processed clip.
        subject: Recording of which it was made, of the same size, frame for frame.
        folder: To write; what is there already is replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("images", "masks"):
        shutil.copytree(clip / name, folder / name)
    shutil.copytree(subject / "body", folder / "body")
    shutil.copyfile(clip / "subject.json", folder / "subject.json")
    shutil.copyfile(subject / "cameras.npz", folder / "cameras.npz")
    poses, rows = np.load(subject / "poses.npz"), chosen_frames(clip)
    kept = {name: poses[name][rows] for name in ("thetas", "transl")}
    np.savez(folder / "poses.npz", betas=poses["betas"], **kept)
    return folder


def pose_figures(config: Path, body: BodyModel, subject: Path, frames: list[int]) -> dict[str, float]:
    """Errors of a run's training poses, as given and as corrected.

    Args:
        config: The run's configuration.
        body: The run's.
        subject: Recording with the truth.
        frames: Of the recording, one for each training frame.
    """
    given, _, refined = load_refined(write_variant(config, "poses", lambda pipeline: None))
    true_poses, true_body = read_body_poses(subject, "truth.npz")
    true_poses = true_poses.rows(frames)

    true_joints = body_joints(true_body, true_poses)

    figures: dict[str, float] = {}
    for when, of, poses in (
        ("before", body, given),
        ("after", with_found_joints(config, body, given), refined),
        ("after_unmoved", body, refined),
    ):
        joints = body_joints(of, poses)
        figures[f"joints_mm_{when}"] = joints_mm(joints, true_joints)
        if when != "after_unmoved":
            placed_mm, _ = joints_placed_mm(joints, bone_rotations(of, poses), true_joints)
            figures[f"joints_mm_{when}_placed"] = placed_mm
            turns = pose_error(joint_rotations(poses), joint_rotations(true_poses))
            figures[f"rotations_deg_{when}"] = turns.aligned_deg
    return figures


def with_found_joints(config: Path, body: BodyModel, poses: PoseSequence) -> BodyModel:
    """Return the body with its joints where a run's correction found those of the person.

    Args:
        config: The run's configuration.
        body: The run's.
        poses: Whose betas are the run's.
    """
    checkpoint = sorted((config.parent / "nerfstudio_models").glob("step-*.ckpt"))[-1]
    state = read(checkpoint)["pipeline"]
    found = next(value for key, value in state.items() if key.endswith(".pose_refinement.joints"))
    return body.with_joints_moved(found - body.rest(poses.betas)[1])


@torch.no_grad()
def write_pairs(path: Path, model: Any, frames: EvalFrames) -> None:
    """Write some frames, in one row the truth, below the model's images."""
    model.eval()
    shown = [frames[row] for row in np.linspace(0, len(frames) - 1, min(_SHOWN, len(frames))).astype(int)]
    truth = [quantise(image).cpu().numpy() for _, image in shown]
    rendered = [quantise(model.get_outputs_for_camera(camera)["rgb"]).cpu().numpy() for camera, _ in shown]
    write_image(path, np.concatenate([np.concatenate(images, axis=1) for images in (truth, rendered)]))


def write_row(video: Path) -> None:
    """Write some frames of a video beside one another, to a picture of its name."""
    capture = cv2.VideoCapture(str(video))
    frames = []
    while True:
        read, frame = capture.read()
        if not read:
            break
        frames.append(frame)
    shown = np.linspace(0, len(frames) - 1, min(_SHOWN, len(frames)) + 1).astype(int)[:-1]  # the last is like the first
    cv2.imwrite(str(video.with_suffix(".png")), np.concatenate([frames[row] for row in shown], axis=1))


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image of values from 0 to 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(mediapy.to_uint8(image), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    tyro.cli(ClipTraining).main()
