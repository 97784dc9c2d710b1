"""Train on clips that show one side, with and without the prior of unseen parts, and evaluate on views of all sides.

    python -m benchmarks.unseen --moving path/to/dev-moving --turning path/to/dev-male path/to/dev-female \
        --lpips-backbone path/to/alex_features.pth --output benchmarks/results/unseen.json

`moving` is a person who moves and shows the camera one side, with a novel motion that shows all. `turning` is one who
turns: of his training frames those in which he faces the camera within 60 degrees train, and the others, in their exact
poses, are what was not seen (`<name>-front`). Cases are those of `benchmarks/poses.py`: `refined` and `raw`; `before`
is `refined` with `--pipeline.model.unseen-loss-mult 0`, and `raw_before` is `raw` so. Ablations, of `refined`:

- `no_color`: colours are not carried on
- `no_one_sided`: geometry that was seen from one side only is left alone
- `no_mirror`: no values of mirror images
- `no_filling`: nothing says that unseen skin is solid

The turning people, of all their frames, train with and without the prior (`<name>.all`, `<name>.all_before`): nothing
is to be lost. With `--vgg-backbone` the moving one trains with `instant-avatar-wild` too (`wild`, `wild_raw`).

Figures are those of `benchmarks/poses.py`; `joints_mm_before` and `joints_mm_after` are its `joint_error_mm_...`, and
`unseen_psnr`, `unseen_lpips` of the turning one are its `heldout_exact_psnr` and `lpips`. `novel_unseen_share`,
`novel_psnr_seen`, `novel_psnr_unseen` (and LPIPS) tell the novel motion's pixels apart (`training/coverage.py`).

Jobs run in the order of their importance, so that a budget cuts off what matters least; the JSON is written after every
run, and a run that is in it, made by the same commit with the same options, is not made again. `--sheets FOLDER` keeps
pictures from eight sides of the moving one's runs with the first seed, at 540 pixels, one row a run.
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import tyro
from jaxtyping import UInt8
from PIL import Image
from scipy.spatial.transform import Rotation

from benchmarks import record
from benchmarks.poses import Case, Poses, averages
from benchmarks.speed import EvalFrames
from benchmarks.workers import run_jobs
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.training.coverage import telling_seen_from_unseen, without_nan
from instantavatar_ns.training.unseen_views import canonical_cameras

_OFF = ("--pipeline.model.unseen-loss-mult=0",)
_PRIOR = "instantavatar_ns.unseen.prior."
# Case of benchmarks/poses.py, options of ns-train, and constants of the package that are replaced.
_WILD = "instant-avatar-wild"
VARIANTS: dict[str, tuple[Case, tuple[str, ...], dict[str, Any]]] = {
    "refined": ("refined", (), {}),
    "raw": ("raw", (), {}),
    "before": ("refined", _OFF, {}),
    "raw_before": ("raw", _OFF, {}),
    "no_color": ("refined", ("--pipeline.model.unseen-color-start=1000000",), {}),
    "no_one_sided": ("refined", (), {_PRIOR + "_ONE_SIDED": 0.0}),
    "no_mirror": ("refined", (), {"instantavatar_ns.unseen.completion._MIRROR_TOLERANCE": 0.0}),
    "no_filling": ("refined", (), {_PRIOR + "_FILLING": 0.0}),
    "wild": ("refined", (), {}),
    "wild_raw": ("raw", (), {}),
    "all": ("refined", (), {}),
    "all_before": ("refined", _OFF, {}),
}
# The moving person's and the front clip's runs, in the order of their importance; those of one seed only come last.
ABLATIONS = ("no_color", "no_one_sided", "no_mirror", "no_filling")
SEVERAL_SEEDS = ("refined", "raw", "before")
ONE_SEED = ("raw_before", *ABLATIONS)
SHEETS = ("before", "refined", "raw", "no_color")


@dataclass
class Unseen:
    """Benchmark of what the training views never saw."""

    moving: Path
    """Folder in InstantAvatar's layout of a person who shows one side, with a novel/ that shows all."""
    turning: tuple[Path, ...]
    """Folders of people who turn, with truth.npz and poses/anim_nerf_*.npz; the first one's front trains too."""
    output: Path = Path("benchmarks/results/unseen.json")
    """JSON to write."""
    runs: Path = Path("outputs/benchmark-unseen")
    """Where the runs and the clip of the front go."""
    variants: tuple[str, ...] = (*SEVERAL_SEEDS, *ONE_SEED, "wild", "wild_raw", "all", "all_before")
    """What to train, of `VARIANTS`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of initialisation and of the draws of rays."""
    turning_seeds: int = 2
    """Seeds that turning people with all their frames are trained with."""
    degrees: float = 60.0
    """Angle within which the turning person faces the camera in training frames."""
    method: str = "instant-avatar"
    """Method to train, but for `wild`."""
    vgg_backbone: Path | None = None
    """VGG16's convolutions, for `wild`; without, it is left out."""
    sheets: Path | None = None
    """Folder for pictures from eight sides."""
    steps: int | None = None
    """Training steps, by default the method's."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    workers: int = 1
    """Processes that train at once; they share the GPUs."""
    total_budget: float = 3000.0
    """Seconds after which no further run is begun."""
    options: tuple[str, ...] = ()
    """Further options of ns-train; written into the results."""

    def main(self) -> None:
        """Train and evaluate all, and write the figures after each run."""
        head = record.head()
        result: dict[str, Any] = {name: head[name] for name in ("device", "commit")}
        result |= {"method": self.method, "steps": self.steps, "options": list(self.options)}
        if self.output.is_file():
            earlier = json.loads(self.output.read_text(encoding="utf8"))
            if "runs" in earlier and all(earlier.get(name) == value for name, value in result.items()):
                result = earlier
        result |= head
        runs: dict[str, dict[str, Any]] = result.setdefault("runs", {})
        jobs = [job for job in self.jobs() if "failed" in runs.get(_key(*job), {"failed": True})]
        for job, figures in run_jobs(self.measure, jobs, self.workers, self.total_budget):
            if figures is None:
                record.progress(f"{_key(*job)} is left out: {self.total_budget:.0f} s are over")
                continue
            runs[_key(*job)] = figures
            folder, variant, _ = job
            same = [run for key, run in runs.items() if key.startswith(f"{folder.name}.{variant}.")]
            result.setdefault(folder.name, {})[variant] = averages(same)
            record.progress(f"{_key(*job)} {json.dumps(figures)}")
            record.write(self.output, result, quiet=True)

    def jobs(self) -> list[tuple[Path, str, int]]:
        """Folders, variants and seeds to train, the most important first."""
        self.front = front_clip(self.turning[0], self.runs / f"{self.turning[0].name}-front", self.degrees)
        first, *others = self.seeds
        several = [name for name in SEVERAL_SEEDS if name in self.variants]
        fronts = [name for name in ("refined", "before") if name in self.variants]

        def of_seed(seed: int) -> list[tuple[Path, str, int]]:
            return [(self.moving, name, seed) for name in several] + [(self.front, name, seed) for name in fronts]

        jobs = of_seed(first)
        turning = [name for name in ("all", "all_before") if name in self.variants]
        jobs += [(folder, name, first) for folder in self.turning for name in turning]
        jobs += [(self.moving, name, first) for name in ONE_SEED if name in self.variants]
        if self.vgg_backbone is not None:
            jobs += [(self.moving, name, first) for name in ("wild", "wild_raw") if name in self.variants]
        for seed in others:
            jobs += of_seed(seed)
        later = self.seeds[1 : self.turning_seeds]
        return jobs + [(folder, name, seed) for seed in later for folder in self.turning for name in turning]

    def measure(self, folder: Path, variant: str, seed: int) -> dict[str, Any]:
        """Train and evaluate one variant with one seed."""
        case, options, constants = VARIANTS[variant]
        if variant.startswith("wild"):
            options = (*options, f"--pipeline.model.vgg-backbone={self.vgg_backbone}")
        sheet = None
        if self.sheets is not None and folder == self.moving and variant in SHEETS and seed == self.seeds[0]:
            sheet = self.sheets / f"{folder.name}-{variant}.jpg"
        poses = UnseenPoses(
            subjects=(),
            method=_WILD if variant.startswith("wild") else self.method,  # pyright: ignore[reportArgumentType]
            runs=self.runs / variant,
            fit_seeds=(),
            lpips_backbone=self.lpips_backbone,
            steps=self.steps,
            options=(*options, *self.options),
            sheet=sheet,
        )
        with ExitStack() as stack:
            for name, value in constants.items():
                stack.enter_context(patch(name, value))
            figures = poses.measure(folder, case, seed)
        names = {"joints_mm_before": "joint_error_mm_before", "joints_mm_after": "joint_error_mm_after"}
        if folder.name.endswith("-front"):
            names |= {"unseen_psnr": "heldout_exact_psnr", "unseen_lpips": "lpips"}
        return figures | {name: figures[other] for name, other in names.items() if other in figures}


@dataclass
class UnseenPoses(Poses):
    """Runs of `benchmarks/poses.py` with figures of seen and unseen pixels, and pictures."""

    sheet: Path | None = None
    """JPEG to write with pictures from eight sides."""

    def more_figures(self, model: InstantAvatarModel, novel: EvalFrames) -> dict[str, float]:
        """Figures of the novel motion's seen and unseen pixels apart."""
        model.eval()
        model.config.lpips_backbone = self.lpips_backbone
        if self.sheet is not None:
            self.sheet.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(eight_sides(model)).save(self.sheet, quality=90)
        frames = []
        with telling_seen_from_unseen(model), torch.no_grad():
            for camera, truth in novel:
                outputs = model.get_outputs_for_camera(camera)
                frames.append(model.get_image_metrics_and_images(outputs, {"image": truth})[0])
        figures: dict[str, Any] = {}
        without_nan(figures, frames)
        for name in ("unseen_share", "psnr_seen", "psnr_unseen", "lpips_seen", "lpips_unseen"):
            values = [frame[name] for frame in frames if name in frame]
            if values:
                figures[name] = fmean(values)
        return {f"novel_{name}": value for name, value in figures.items() if not name.endswith("_std")}


def _key(folder: Path, variant: str, seed: int) -> str:
    return f"{folder.name}.{variant}.{seed}"


@torch.no_grad()
def eight_sides(model: InstantAvatarModel, size: int = 540) -> UInt8[np.ndarray, "size width 3"]:
    """Pictures of the person at rest from eight sides on white, side by side, cut to the person's width.

    Args:
        model: A trained model.
        size: Height of each, pixels.
    """
    body, cameras = canonical_cameras(model, 8, size)
    background = torch.ones(3, device=model.device)
    images = [model.eval().renderer.render_image(camera, body, background)["rgb"] for camera, _ in cameras]
    pictures = torch.stack(images).clamp(0, 1)
    shown = (pictures < 0.99).any(dim=-1).any(dim=0).any(dim=0).nonzero().flatten()
    pictures = pictures[:, :, int(shown.min()) : int(shown.max()) + 1]
    return (torch.cat([*pictures], dim=1) * 255).round().byte().cpu().numpy()


def front_clip(subject: Path, folder: Path, degrees: float) -> Path:
    """Write a folder whose training frames are those in which the person faces the camera; returns it.

    They are put in the order in which the person turns past the front, so that they are one motion; all other training
    frames follow and are held out.

    Args:
        subject: Folder of a person who turns once, with exact poses in truth.npz, the camera's axes those of its world.
        folder: To write; what is there already is replaced.
        degrees: Angle between facing and looking into the camera, up to which a frame trains.
    """
    shutil.rmtree(folder, ignore_errors=True)
    first, last = json.loads((subject / "subject.json").read_text())["train"]
    truth = dict(np.load(subject / "truth.npz"))
    facing = Rotation.from_rotvec(truth["poses"][first:last, :3]).apply([0.0, 0.0, 1.0])
    towards = -facing[:, 2] / np.linalg.norm(facing[:, [0, 2]], axis=1)  # OpenCV's z is ahead
    front = towards > np.cos(np.radians(degrees))
    # The turn is a circle: begin it where the person turns to the front.
    begin = int(np.flatnonzero(front & ~np.roll(front, 1))[0]) if not front.all() else 0
    order = np.roll(np.arange(last - first), -begin)
    order = np.concatenate([order[front[order]], order[~front[order]]]) + first
    count = int(front.sum())
    for kind, name in (("images", "image"), ("masks", "mask")):
        (folder / kind).mkdir(parents=True)
        for place, frame in enumerate(order):
            shutil.copyfile(subject / kind / f"{name}_{frame:04d}.png", folder / kind / f"{name}_{place:04d}.png")
    (folder / "poses").mkdir()
    near = dict(np.load(subject / "poses" / "anim_nerf_train.npz"))
    for split, frames in (("train", order[:count]), ("val", order[count:]), ("test", order[count:])):
        _write_rows(folder / "poses" / f"anim_nerf_{split}.npz", near, frames - first)
    _write_rows(folder / "truth.npz", truth, order)
    _write_rows(folder / "poses.npz", dict(np.load(subject / "poses.npz")), order)
    shutil.copyfile(subject / "cameras.npz", folder / "cameras.npz")
    shutil.copytree(subject / "body", folder / "body")
    shutil.copytree(subject / "novel", folder / "novel")
    (folder / "subject.json").write_text(json.dumps({"train": [0, count], "test": [count, len(order)]}))
    return folder


def _write_rows(path: Path, arrays: dict[str, np.ndarray], rows: np.ndarray) -> None:
    """Write arrays, of those with a row a frame the rows wanted."""
    frames = len(arrays["transl"])
    kept = {name: array[rows] if array.ndim and len(array) == frames else array for name, array in arrays.items()}
    np.savez(path, **kept)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    tyro.cli(Unseen).main()
