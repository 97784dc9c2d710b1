"""Train on a demo person filmed by a still camera, a handheld one and a carried one, and compare.

    python -m benchmarks.moving_camera --output benchmarks/results/data_in.json --seeds 0 1 2 --workers 8
    python -m benchmarks.moving_camera --method instant-avatar-lite --size 64 --train-frames 24 --steps 200  # on a CPU
    python -m benchmarks.moving_camera --only-make --data subjects  # where there is embreex; then train elsewhere

All have the same person, poses and split (`instant-avatar demo-data --camera handheld`, `--camera carried`). Each is
made twice, in the demo's `fixed` light and in `even` light from all sides.

Fixed light costs a moving camera something whatever is done with cameras: colours of the avatar do not depend on the
view, and a part of the person has more shades in the pictures of a camera that moves.

Directions of view count, too. Seen from the person, all views of the still camera lie on one circle, those of the
held-out turn and of the dance as well, the handheld one's near it, and the carried one's above and below it, farther
from each other. So an avatar is favoured by test frames of the camera that it was trained with, and each light has the
dance twice, in the same poses: filmed by the still camera (`novel`) and by the carried one (`novel_carried`, a later
part of its path). All avatars are evaluated on both films. How far test frames are from what was trained on is told in
degrees.

Figures, under `moving_camera`, of each light: of each of `still`, `handheld` and `carried` those of
`benchmarks/poses.py`, means over the seeds, and

- `novel_carried_psnr`, `novel_carried_ssim`, `novel_carried_lpips`: the dance filmed by the carried camera
- `heldout_view_deg`, `novel_view_deg`, `novel_carried_view_deg`: angle between the view of a test frame and the nearest
  training view, directions from the person to the camera in the root joint's axes; mean over the frames

and of each moving camera, PSNR with the still one less that with it:

- `heldout_loss_db`: of held-out frames in their exact poses, each avatar's filmed by the camera it was trained with
- `novel_loss_db`, `novel_carried_loss_db`: of the dance filmed by the still camera, and by the carried one
- `novel_mean_loss_db`: mean of these two

The JSON is written after every run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, get_args

import numpy as np
import torch
import tyro
from jaxtyping import Float
from numpy import ndarray
from PIL import Image
from scipy.spatial.transform import Rotation

from benchmarks import record
from benchmarks.in_process import mean_metrics
from benchmarks.poses import CASES, Case, Poses, averages
from benchmarks.speed import EvalFrames, load_frames
from benchmarks.workers import run_jobs
from instantavatar_ns.body.files import FREE_BODY, load_body_model
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.utils.files import written_whole

Camera = Literal["still", "handheld", "carried"]
Light = Literal["fixed", "even"]
CAMERAS: tuple[Camera, ...] = get_args(Camera)
LOSSES = {
    "heldout_loss_db": "heldout_exact_psnr",
    "novel_loss_db": "novel_psnr",
    "novel_carried_loss_db": "novel_carried_psnr",
}


@dataclass
class MovingCamera:
    """Benchmark of recordings with a camera for each frame."""

    output: Path | None = None
    """JSON file of the figures; others that it holds are kept."""
    data: Path = Path("outputs/benchmark-moving-camera/data")
    """Where the subjects and films are; those that are not there yet are made."""
    only_make: bool = False
    """Make the subjects and films, and do not train."""
    runs: Path = Path("outputs/benchmark-moving-camera")
    """Where the runs go."""
    lights: tuple[Light, ...] = ("fixed", "even")
    """Lights that the person is filmed in."""
    size: int = 540
    """Height and width of the images, pixels."""
    train_frames: int = 100
    """Of one turn; a fifth as many are held out, and as many show the dance."""
    method: Literal["instant-avatar", "instant-avatar-lite"] = "instant-avatar"
    """Method to train."""
    steps: int | None = None
    """Training steps, by default the method's."""
    case: Case = "refined"
    """Poses to train with, of `benchmarks/poses.py`; "exact_fixed" leaves the correction of poses out."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of initialisation and of the draws of rays."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    workers: int = 1
    """Processes that train at once; they share the GPUs."""
    total_budget: float = 3000.0
    """Seconds after which no further run is begun."""

    def main(self) -> None:
        """Make the subjects and films, train on all subjects, and write the figures after each run.

        Raises:
            SystemExit: Runs failed or were left out; figures of the others are written.
        """
        for light in self.lights:
            for camera in CAMERAS:
                self._make(self._subject(camera, light), camera, light)
            self._make(self._film(light), "carried", light, only_dance=True)
        if self.only_make:
            return
        for camera, light in product(CAMERAS, self.lights):
            link_other_film(self._subject(camera, light), self._film(light), self._filmed(camera, light))
        known = json.loads(self.output.read_text()) if self.output is not None and self.output.is_file() else {}
        settings = {name: getattr(self, name) for name in ("method", "size", "train_frames", "steps", "case")}
        head = record.head() | settings
        runs: dict[Light, dict[Camera, list[dict[str, Any]]]] = {
            light: {camera: [] for camera in CAMERAS} for light in self.lights
        }
        angles: dict[Light, dict[Camera, dict[str, float]]] = {
            light: {camera: self._view_angles(camera, light) for camera in CAMERAS} for light in self.lights
        }
        # What a budget cuts off is a seed.
        jobs: list[tuple[Camera, Light, int]] = [
            (camera, light, seed) for seed, light, camera in product(self.seeds, self.lights, CAMERAS)
        ]
        missing = []
        for (camera, light, seed), run in run_jobs(self.measure, jobs, self.workers, self.total_budget):
            name = f"{self._subject(camera, light).name}.{seed}"
            if run is None or "failed" in run:
                missing.append(f"{name}: {'no time was left' if run is None else run['failed']}")
                continue
            record.progress(f"{name} {json.dumps(run)}")
            runs[light][camera].append(run)
            figures = {light: compare(runs[light], angles[light]) for light in self.lights}
            record.write(self.output, known | {"moving_camera": head | figures}, quiet=True)
        for light in self.lights:
            for camera, found in compare(runs[light], angles[light]).items():
                losses = {name: value for name, value in found.items() if name.endswith("_db")}
                record.progress(f"{light} {camera} {json.dumps(losses)}")
        if missing:
            raise SystemExit("\n".join(["Without these runs:", *missing]))

    def measure(self, camera: Camera, light: Light, seed: int) -> dict[str, float]:
        """Train on the person filmed by a camera in a light, and evaluate on both films of the dance."""
        poses = FilmedPoses(
            subjects=(),
            method=self.method,
            runs=self.runs,
            fit_seeds=(),
            lpips_backbone=self.lpips_backbone,
            steps=self.steps,
            other_film=InstantAvatarDataParserConfig(
                data=self._filmed(camera, light), poses=CASES[self.case][0], eval_set="novel"
            ),
        )
        figures = poses.measure(self._subject(camera, light), self.case, seed)
        # LPIPS is not a number where its network is not there; of other figures that is to be seen.
        return {name: value for name, value in figures.items() if isfinite(value) or "lpips" not in name}

    def _view_angles(self, camera: Camera, light: Light) -> dict[str, float]:
        """Mean angles from test frames to the nearest training view, degrees."""
        subject = self._subject(camera, light)
        turn = directions_of_view(subject / "truth.npz", subject / "cameras.npz")
        tests = {"heldout": turn[self.train_frames :]}
        for name, film in (("novel", subject / "novel"), ("novel_carried", self._film(light))):
            tests[name] = directions_of_view(film / "poses.npz", film / "cameras.npz")
        training = turn[: self.train_frames]
        return {f"{name}_view_deg": float(nearest_degrees(views, training).mean()) for name, views in tests.items()}

    def _subject(self, camera: Camera, light: Light) -> Path:
        """Folder of the person filmed by a camera in a light."""
        return self.data / f"{camera}-{light}-{self.size}-{self.train_frames}"

    def _film(self, light: Light) -> Path:
        """Folder of the dance filmed by the carried camera in a light."""
        return self.data / f"dance-carried-{light}-{self.size}-{self.train_frames}"

    def _filmed(self, camera: Camera, light: Light) -> Path:
        """Folder of a subject whose novel motion is the dance filmed by the carried camera, made of links."""
        return self.runs / "filmed-by-carried" / self._subject(camera, light).name

    def _make(self, folder: Path, camera: Camera, light: Light, only_dance: bool = False) -> None:
        """Make the folder of a subject, or of the dance alone, where it is not there yet."""
        if folder.exists():
            return
        from instantavatar_ns.scripts.demo_data import DemoData  # here: machines that only train have no embreex

        fifth = max(self.train_frames // 5, 1)
        with written_whole(folder) as partial:
            demo = DemoData(partial, self.size, self.train_frames, fifth, fifth, camera=camera, light=light)
            (demo.film_dance if only_dance else demo.main)()
            _pack_images(partial)


@dataclass
class FilmedPoses(Poses):
    """Runs of `benchmarks/poses.py` that are evaluated on another film of the novel motion, too."""

    other_film: InstantAvatarDataParserConfig | None = None
    """Reads the same subject with the film as its novel motion; of the trained poses and the same novel ones."""

    def more_figures(self, model: InstantAvatarModel, novel: EvalFrames) -> dict[str, float]:
        """Figures of the other film."""
        if self.other_film is None:
            return {}
        frames = AvatarDataset(self.other_film.setup().get_dataparser_outputs(split="test"))
        metrics = mean_metrics(model, load_frames(frames, model.device), self.lpips_backbone)
        return {f"novel_carried_{name}": value for name, value in metrics.items()}


def link_other_film(subject: Path, film: Path, folder: Path) -> None:
    """Make a folder of links to a subject's files whose novel motion is another film of the same motion.

    Args:
        subject: In InstantAvatar's layout, with novel/.
        film: The novel motion filmed otherwise, in the layout of novel/.
        folder: To make; links that are there are renewed.

    Raises:
        ValueError: The film shows other poses than the subject's novel motion, so that results cannot be compared.
    """
    novel = subject / "novel"
    with np.load(novel / "poses.npz") as ours, np.load(film / "poses.npz") as others:
        for name in ("betas", "thetas", "transl"):
            if ours[name].shape != others[name].shape or not np.allclose(ours[name], others[name], atol=1e-5):
                raise ValueError(f"{film} has other {name} than {novel}. Delete both to make them anew")
    folder.mkdir(parents=True, exist_ok=True)
    targets = {path.name: path for path in subject.iterdir()} | {"novel": film}
    for name, target in targets.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target.resolve())


def directions_of_view(poses: Path, cameras: Path) -> Float[ndarray, "frames 3"]:
    """Unit vectors from the root joint to the camera, in the root joint's axes.

    Args:
        poses: `.npz` with betas, transl, and rotations as `poses` or `thetas`.
        cameras: `.npz` with the extrinsic of all frames, or of each.
    """
    with np.load(poses) as file, np.load(cameras) as camera:
        turns = Rotation.from_rotvec(file["poses" if "poses" in file else "thetas"][:, :3])
        joints = load_body_model(FREE_BODY).rest(torch.from_numpy(file["betas"][0]))[1]
        root = file["transl"] + joints[0].numpy()
        extrinsics = np.broadcast_to(camera["extrinsic"], (len(root), 4, 4))
    centers = -np.einsum("fji,fj->fi", extrinsics[:, :3, :3], extrinsics[:, :3, 3])
    directions = turns.inv().apply(centers - root)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def nearest_degrees(
    views: Float[ndarray, "frames 3"], training: Float[ndarray, "training 3"]
) -> Float[ndarray, " frames"]:
    """Angle between each of some directions and the nearest of others, degrees; all are unit vectors."""
    return np.degrees(np.arccos(np.clip(views @ training.T, -1, 1))).min(axis=1)


def compare(
    runs: Mapping[Camera, Sequence[dict[str, float]]], angles: Mapping[Camera, dict[str, float]]
) -> dict[str, Any]:
    """Figures of the cameras in one light, and what a moving one loses where the still one has runs.

    Args:
        runs: Figures of each run.
        angles: Figures that do not depend on runs.
    """
    figures: dict[str, Any] = {
        camera: {name: round(value, 4) for name, value in (averages([*several]) | angles[camera]).items()}
        for camera, several in runs.items()
        if several
    }
    for camera in [camera for camera in figures if "still" in figures and camera != "still"]:
        losses = {name: figures["still"][key] - figures[camera][key] for name, key in LOSSES.items()}
        losses["novel_mean_loss_db"] = fmean([losses["novel_loss_db"], losses["novel_carried_loss_db"]])
        figures[camera] |= {name: round(loss, 3) for name, loss in losses.items()}
    return figures


def _pack_images(folder: Path) -> None:
    """Write the images of a subject or film anew as lossless WebP, a third of the size."""
    for path in folder.rglob("images/*.png"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".webp"), lossless=True)
        path.unlink()


if __name__ == "__main__":
    tyro.cli(MovingCamera).main()
