"""Train on clips that show one side, with and without the prior of unseen parts, and evaluate on views of all sides.

    python -m benchmarks.unseen --moving path/to/dev-moving --turning path/to/dev-male \
        --lpips-backbone path/to/alex_features.pth --output benchmarks/results/unseen.json

`moving` is a person who moves and shows the camera one side, with a novel motion that shows all. `turning` is one who
turns: of his training frames those in which he faces the camera within 60 degrees train, and the others, in their exact
poses, are what was not seen (`<name>-front`). Cases are those of `benchmarks/poses.py`: `refined` and `raw`; `before`
is `refined` with `--pipeline.model.unseen-loss-mult 0`, and `raw_before` is `raw` so. Ablations, of `refined`:

- `no_color`: colours are not carried on
- `no_one_sided`: geometry that was seen from one side only is left alone
- `no_mirror`: no values of mirror images
- `no_filling`: nothing says that unseen skin is solid

Figures are those of `benchmarks/poses.py`; `joints_mm_before` and `joints_mm_after` are its `joint_error_mm_...`, and
`unseen_psnr`, `unseen_lpips` of the turning one are its `heldout_exact_psnr` and `lpips`.
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import tyro
from scipy.spatial.transform import Rotation

from benchmarks import record
from benchmarks.poses import Case, Poses, averages
from benchmarks.workers import run_jobs

_OFF = ("--pipeline.model.unseen-loss-mult=0",)
_PRIOR = "instantavatar_ns.unseen.prior."
# Case of benchmarks/poses.py, options of ns-train, and constants of the package that are replaced.
VARIANTS: dict[str, tuple[Case, tuple[str, ...], dict[str, Any]]] = {
    "refined": ("refined", (), {}),
    "raw": ("raw", (), {}),
    "before": ("refined", _OFF, {}),
    "raw_before": ("raw", _OFF, {}),
    "no_color": ("refined", ("--pipeline.model.unseen-color-start=1000000",), {}),
    "no_one_sided": ("refined", (), {_PRIOR + "_ONE_SIDED": 0.0}),
    "no_mirror": ("refined", (), {"instantavatar_ns.unseen.completion._MIRROR_TOLERANCE": 0.0}),
    "no_filling": ("refined", (), {_PRIOR + "_FILLING": 0.0}),
}
ABLATIONS = ("no_color", "no_one_sided", "no_mirror", "no_filling")


@dataclass
class Unseen:
    """Benchmark of what the training views never saw."""

    moving: Path
    """Folder in InstantAvatar's layout of a person who shows one side, with a novel/ that shows all."""
    turning: Path
    """Folder of a person who turns, with truth.npz and poses/anim_nerf_*.npz."""
    output: Path = Path("benchmarks/results/unseen.json")
    """JSON to write."""
    runs: Path = Path("outputs/benchmark-unseen")
    """Where the runs and the clip of the front go."""
    variants: tuple[str, ...] = ("refined", "raw", "before", "raw_before", *ABLATIONS)
    """What to train of the moving person; the turning one trains `refined` and `before` of these."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of initialisation and of the draws of rays."""
    ablation_seeds: int = 1
    """Seeds that ablations are trained with."""
    degrees: float = 60.0
    """Angle within which the turning person faces the camera in training frames."""
    method: str = "instant-avatar"
    """Method to train."""
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
        self.front = front_clip(self.turning, self.runs / f"{self.turning.name}-front", self.degrees)
        jobs = [(self.moving, variant, seed) for seed, variant in product(self.seeds, self.variants)]
        jobs = [job for job in jobs if job[1] not in ABLATIONS or job[2] in self.seeds[: self.ablation_seeds]]
        fronts = [variant for variant in ("refined", "before") if variant in self.variants]
        jobs += [(self.front, variant, seed) for seed, variant in product(self.seeds, fronts)]
        jobs.sort(key=lambda job: self.seeds.index(job[2]))  # what a budget cuts off is a seed
        result = record.head() | {"method": self.method, "steps": self.steps, "options": list(self.options)}
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for (folder, variant, seed), figures in run_jobs(self.measure, jobs, self.workers, self.total_budget):
            name = f"{folder.name}.{variant}"
            if figures is None:
                record.progress(f"{name}.{seed} is left out: {self.total_budget:.0f} s are over")
                continue
            runs.setdefault((folder.name, variant), []).append(figures)
            result.setdefault(folder.name, {})[variant] = averages(runs[folder.name, variant])
            record.progress(f"{name}.{seed} {json.dumps(figures)}")
            record.write(self.output, result, quiet=True)

    def measure(self, folder: Path, variant: str, seed: int) -> dict[str, Any]:
        """Train and evaluate one variant with one seed."""
        case, options, constants = VARIANTS[variant]
        poses = Poses(
            subjects=(),
            method=self.method,  # pyright: ignore[reportArgumentType]
            runs=self.runs / variant,
            fit_seeds=(),
            lpips_backbone=self.lpips_backbone,
            steps=self.steps,
            options=(*options, *self.options),
        )
        with ExitStack() as stack:
            for name, value in constants.items():
                stack.enter_context(patch(name, value))
            figures = poses.measure(folder, case, seed)
        names = {"joints_mm_before": "joint_error_mm_before", "joints_mm_after": "joint_error_mm_after"}
        if folder.name.endswith("-front"):
            names |= {"unseen_psnr": "heldout_exact_psnr", "unseen_lpips": "lpips"}
        return figures | {name: figures[other] for name, other in names.items() if other in figures}


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
