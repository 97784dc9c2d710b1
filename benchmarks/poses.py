"""Train with poses of three qualities and evaluate, through nerfstudio's own entry points.

    python benchmarks/poses.py --subjects path/to/dev-male path/to/dev-female \
        --lpips-backbone path/to/alex_features.pth --output benchmarks/results/poses.json

Per subject: `refined` trains with the folder's poses/anim_nerf_*.npz, `raw` with poses.npz, `exact` with truth.npz, and
`exact_fixed` with truth.npz and no correction, to see what correcting exact poses costs. Figures, all on white, 8-bit:

- `novel_psnr`, `novel_ssim`, `novel_lpips`: the novel motion, whose poses are exact
- `heldout_exact_psnr`, `ssim`, `lpips`: held-out frames in their exact poses
- `heldout_given_psnr`: held-out frames in poses of the quality trained with
- `heldout_fitted_psnr`: these poses fitted to the images by the fast recipe, in `fit_seconds` for all frames;
  `heldout_published_fit_psnr`, with `--published-fit`: by the published one
- `pose_error_deg_before`, `pose_error_deg_after`: mean rotation error of the training poses' joints after the best
  constant rotation per joint; `..._with_drift` without that, and `drift_deg_...` the angle of these rotations
- `train_seconds`: from the first step to the last checkpoint

The JSON is written after every run and a run that is in it already, made by the same commit with the same options, is
not made again: a benchmark that was cut off goes on where it stopped.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

import tyro

from benchmarks import record, training
from instantavatar_ns.body.pose_error import PoseError
from instantavatar_ns.occupancy.nerfacc_cuda import nerfacc_cuda
from instantavatar_ns.scripts.evaluate import Evaluate
from instantavatar_ns.scripts.refined_poses import RefinedPoses

Case = Literal["refined", "raw", "exact", "exact_fixed"]
# Poses to train with, and options of the model.
CASES: dict[Case, tuple[str, list[str]]] = {
    "raw": ("poses", []),
    "refined": ("anim_nerf", []),
    "exact": ("truth", []),
    "exact_fixed": ("truth", ["--pipeline.model.refine-poses", "False"]),
}


@dataclass
class Poses:
    """Benchmark of the correction and fitting of poses."""

    subjects: tuple[Path, ...]
    """Folders in InstantAvatar's layout, with poses.npz, poses/anim_nerf_*.npz, truth.npz and novel/."""
    cases: tuple[Case, ...] = ("raw", "refined", "exact", "exact_fixed")
    """Poses to train with."""
    method: Literal["instant-avatar", "instant-avatar-lite"] = "instant-avatar"
    """Method to train."""
    output: Path = Path("benchmarks/results/poses.json")
    """JSON to write."""
    runs: Path = Path("outputs/benchmark-poses")
    """Where the runs go."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    steps: int | None = None
    """Training steps, by default the method's."""
    published_fit: bool = False
    """Fit held-out frames by the published recipe too."""
    budget: float = 300.0
    """Seconds after which a training is stopped and its case reported as failed."""
    total_budget: float = 3000.0
    """Seconds after which no further case is begun."""
    options: tuple[str, ...] = ()
    """Further options of ns-train, such as "--pipeline.model.pose-start=50"; written into the results."""

    def main(self) -> None:
        """Run everything and write the figures."""
        start = monotonic()
        head = record.head()
        result = {name: head[name] for name in ("device", "commit")} | {"method": self.method, "steps": self.steps}
        result["options"] = list(self.options)
        if self.output.is_file():
            earlier = json.loads(self.output.read_text(encoding="utf8"))
            if all(earlier.get(name) == value for name, value in result.items()):
                result = earlier
        result |= head | {"nerfacc_cuda": nerfacc_cuda()}
        for subject in self.subjects:
            for case in self.cases:
                name = f"{subject.name}.{case}"
                if "failed" not in result.get(name, {"failed": True}):
                    print(name, "is there already", flush=True)
                    continue
                if monotonic() - start > self.total_budget:
                    print(f"{name} is left out: {self.total_budget:.0f} s are over", flush=True)
                    continue
                try:
                    result[name] = self.measure(subject, case)
                except (subprocess.SubprocessError, OSError, ValueError, RuntimeError) as error:
                    result[name] = {"failed": f"{type(error).__name__}: {error}"}
                print(name, f"({monotonic() - start:.0f} s so far)", flush=True)
                record.write(self.output, result)

    def measure(self, subject: Path, case: Case) -> dict[str, float]:
        """Train and evaluate one subject with poses of one quality."""
        run = self._train(subject, case)
        (checkpoint,) = (run / "nerfstudio_models").glob("*.ckpt")
        config = run / "config.yml"

        def evaluate(name: str, **options) -> dict[str, dict]:
            print(f"{subject.name}.{case}: {name}", flush=True)
            folder = run / "eval" / name
            return Evaluate(load_config=config, output_dir=folder, lpips_backbone=self.lpips_backbone, **options).main()

        exact = evaluate("exact", heldout_poses="truth")
        heldout, novel = exact["heldout"], exact["novel"]
        fast = evaluate("fast", sets=("heldout",), fit="fast")["heldout"]
        nan = float("nan")
        figures = {
            "steps": int(checkpoint.stem.split("-")[1]) + 1,
            # nerfstudio writes this file right before the first step.
            "train_seconds": checkpoint.stat().st_mtime - (run / "dataparser_transforms.json").stat().st_mtime,
            "novel_psnr": novel["psnr"],
            "novel_ssim": novel["ssim"],
            "novel_lpips": novel.get("lpips", nan),
            "heldout_exact_psnr": heldout["psnr"],
            "ssim": heldout["ssim"],
            "lpips": heldout.get("lpips", nan),
            "lpips_published": heldout.get("lpips_published", nan),
            "heldout_given_psnr": fast["psnr"],
            "heldout_fitted_psnr": fast["psnr_fitted"],
            "fit_seconds": fast["fit_seconds"],
            "fit_frames": len(fast["frames"]),
        }
        if self.published_fit:
            published = evaluate("published", sets=("heldout",), fit="published")["heldout"]
            figures["heldout_published_fit_psnr"] = published["psnr_fitted"]
        if case != "exact_fixed":
            errors = RefinedPoses(load_config=config).errors("truth")
            for when, error in zip(("before", "after"), errors, strict=True):
                figures.update(self._error_figures(when, error))
        return figures

    @staticmethod
    def _error_figures(when: str, error: PoseError) -> dict[str, float]:
        return {
            f"pose_error_deg_{when}": error.aligned_deg,
            f"pose_error_deg_{when}_with_drift": error.mean_deg,
            f"drift_deg_{when}": error.drift_deg,
        }

    def _train(self, subject: Path, case: Case) -> Path:
        """Run ns-train in a process of its own; returns the run's folder."""
        poses, options = CASES[case]
        name, data_options = f"{subject.name}.{case}", ("--poses", poses)
        options = [*options, *self.options]
        print(f"{name}: training", flush=True)
        arguments = training.arguments(
            self.method, subject, self.runs, name, self.steps, *options, data_options=data_options
        )
        return training.train(arguments, timeout=self.budget)


if __name__ == "__main__":
    tyro.cli(Poses).main()
