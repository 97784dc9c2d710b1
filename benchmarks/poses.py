"""Train with poses of three qualities and evaluate, through nerfstudio's own entry points.

    python -m benchmarks.poses --subjects path/to/dev-male path/to/dev-female \
        --lpips-backbone path/to/alex_features.pth --output benchmarks/results/poses.json

Per subject: `refined` trains with the folder's poses/anim_nerf_*.npz, `raw` with poses.npz, `exact` with truth.npz, and
`exact_fixed` with truth.npz and no correction, to see what correcting exact poses costs. `drift`, where asked
for, is `exact_fixed` with the mean error of `refined`'s poses (`benchmarks/drift.py`): what of their loss no training
image shows. Figures, all on white, 8-bit:

- `novel_psnr`, `novel_ssim`, `novel_lpips`: the novel motion, whose poses are exact
- `heldout_exact_psnr`, `ssim`, `lpips`: held-out frames in their exact poses
- `heldout_given_psnr`: held-out frames in poses of the quality trained with
- `heldout_fitted_psnr`: these poses fitted to the images by the fast recipe, in `fit_seconds` for all frames;
  `heldout_published_fit_psnr`, with `--published-fit`: by the published one
- `pose_error_deg_before`, `pose_error_deg_after`: mean rotation error of the training poses' joints after the best
  constant rotation per joint; `..._with_drift` without that, and `drift_deg_...` the angle of these rotations
- `joint_error_mm_before`, `joint_error_mm_after`: mean distance of the 24 joints' positions from the true ones
- `train_seconds`: from the first step to the last checkpoint

Cases are trained through nerfstudio's own trainer and evaluated in the same process; `--workers 6` trains six at once,
whose seconds are then worth comparing among themselves only. `--seeds 0 1 2` trains each
with several seeds; a case's figures are means then, `..._spread` of the PSNRs is the sample standard deviation, and
`seeds` says how many there were. The JSON is written after every run and a run that is in it already (`runs`), made by
the same commit with the same options, is not made again: a benchmark that was cut off goes on where it stopped.
"""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from time import monotonic
from typing import Any, Literal

import tyro

from benchmarks import record, training
from benchmarks.drift import folder_with_drift
from benchmarks.in_process import heldout_set, mean_metrics, poses_of
from benchmarks.speed import EvalFrames, load_frames, psnr
from benchmarks.workers import run_jobs
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.scripts.refined_poses import Errors, RefinedPoses
from instantavatar_ns.training.fitting import RECIPES, Recipe, fit_poses

Case = Literal["refined", "raw", "exact", "exact_fixed", "drift"]
# Poses to train with, and options of the model.
CASES: dict[Case, tuple[str, list[str]]] = {
    "raw": ("poses", []),
    "refined": ("anim_nerf", []),
    "exact": ("truth", []),
    "exact_fixed": ("truth", ["--pipeline.model.refine-poses", "False"]),
    "drift": ("drift", ["--pipeline.model.refine-poses", "False"]),
}


@dataclass
class Poses:
    """Benchmark of the correction and fitting of poses."""

    subjects: tuple[Path, ...]
    """Folders in InstantAvatar's layout, with poses.npz, poses/anim_nerf_*.npz, truth.npz and novel/."""
    cases: tuple[Case, ...] = ("raw", "refined", "exact", "exact_fixed")
    """Poses to train with."""
    method: Literal["instant-avatar", "instant-avatar-lite", "instant-avatar-wild"] = "instant-avatar"
    """Method to train."""
    output: Path = Path("benchmarks/results/poses.json")
    """JSON to write."""
    runs: Path = Path("outputs/benchmark-poses")
    """Where the runs go."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of initialisation and of the draws of rays."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    steps: int | None = None
    """Training steps, by default the method's."""
    published_fit: bool = False
    """Fit held-out frames by the published recipe too."""
    fit_seeds: tuple[int, ...] | None = None
    """Seeds whose runs have the poses of held-out frames fitted too, by default all."""
    workers: int = 1
    """Processes that train at once; they share the GPUs."""
    total_budget: float = 3000.0
    """Seconds after which no further case is begun."""
    options: tuple[str, ...] = ()
    """Further options of ns-train, such as "--pipeline.model.pose-start=50"; written into the results."""

    def main(self) -> None:
        """Run everything and write the figures."""
        head = record.head()
        result = {name: head[name] for name in ("device", "commit")} | {"method": self.method, "steps": self.steps}
        result["options"] = list(self.options)
        if self.output.is_file():
            earlier = json.loads(self.output.read_text(encoding="utf8"))
            if all(earlier.get(name) == value for name, value in result.items()):
                result = earlier
        result |= head
        runs: dict[str, dict[str, dict[str, Any]]] = result.setdefault("runs", {})
        # What a budget cuts off is a seed, not a case.
        jobs = [
            (subject, case, seed)
            for seed, subject, case in product(self.seeds, self.subjects, self.cases)
            if "failed" in runs.get(f"{subject.name}.{case}", {}).get(str(seed), {"failed": True})
        ]
        for (subject, case, seed), run in run_jobs(self.measure, jobs, self.workers, self.total_budget):
            name = f"{subject.name}.{case}"
            if run is None:
                record.progress(f"{name}.{seed} is left out: {self.total_budget:.0f} s are over")
                continue
            of_case = runs.setdefault(name, {})
            of_case[str(seed)] = run
            result[name] = averages([*of_case.values()])
            record.progress(f"{name}.{seed} {json.dumps(run)}")
            record.write(self.output, result, quiet=True)

    def measure(self, subject: Path, case: Case, seed: int) -> dict[str, float]:
        """Train and evaluate one subject with poses of one quality and one seed."""
        poses, options = CASES[case]
        name = f"{subject.name}.{case}.{seed}"
        if case == "drift":
            subject = folder_with_drift(subject, self.runs / f"{name}-data")
        arguments = training.arguments(
            self.method,
            subject,
            self.runs,
            name,
            self.steps,
            *("--machine.seed", str(seed), "--pipeline.datamanager.seed", str(seed)),
            *options,
            *self.options,
            data_options=("--poses", poses, "--eval-set", "novel"),
        )
        with redirect_stdout(StringIO()):  # nerfstudio's progress
            trainer = training.set_up(arguments)
            training.synchronise()
            start = monotonic()
            trainer.train()
            training.synchronise()
        train_seconds, device = monotonic() - start, trainer.device

        model, datamanager = trainer.pipeline.model, trainer.pipeline.datamanager
        heldout_frames = heldout_set(datamanager)
        heldout, novel_frames = load_frames(heldout_frames, device), load_frames(datamanager.eval_dataset, device)
        evaluate = partial(mean_metrics, model, lpips_backbone=self.lpips_backbone)
        novel, given = evaluate(frames=novel_frames), evaluate(frames=heldout)
        with model.poses.replacing(poses_of(heldout_set(datamanager, "truth"), model)):
            exact = evaluate(frames=heldout)

        def fitted_psnr(recipe: Recipe) -> tuple[float, float]:
            start = monotonic()
            fitted = fit_poses(model, heldout_frames, datamanager.config, RECIPES[recipe])
            training.synchronise()
            seconds = monotonic() - start
            with model.poses.replacing(fitted):
                return psnr(model, heldout), seconds

        nan = float("nan")
        figures = {
            "steps": trainer.config.max_num_iterations,
            "train_seconds": train_seconds,
            "novel_psnr": novel["psnr"],
            "novel_ssim": novel["ssim"],
            "novel_lpips": novel.get("lpips", nan),
            "heldout_exact_psnr": exact["psnr"],
            "ssim": exact["ssim"],
            "lpips": exact.get("lpips", nan),
            "lpips_published": exact.get("lpips_published", nan),
            "heldout_given_psnr": given["psnr"],
            "fit_frames": len(heldout),
        }
        figures |= self.more_figures(model, novel_frames)
        if self.fit_seeds is None or seed in self.fit_seeds:
            figures["heldout_fitted_psnr"], figures["fit_seconds"] = fitted_psnr("fast")
            if self.published_fit:
                figures["heldout_published_fit_psnr"], _ = fitted_psnr("published")
        if case not in ("exact_fixed", "drift"):
            errors = RefinedPoses(load_config=trainer.base_dir / "config.yml").errors("truth")
            for when, error in zip(("before", "after"), errors, strict=True):
                figures.update(self._error_figures(when, error))
        return figures

    def more_figures(self, model: InstantAvatarModel, novel: EvalFrames) -> dict[str, float]:
        """Further figures of a trained model; for benchmarks made from this one."""
        return {}

    @staticmethod
    def _error_figures(when: str, error: Errors) -> dict[str, float]:
        return {
            f"pose_error_deg_{when}": error.rotations.aligned_deg,
            f"pose_error_deg_{when}_with_drift": error.rotations.mean_deg,
            f"drift_deg_{when}": error.rotations.drift_deg,
            f"joint_error_mm_{when}": error.joints_mm,
        }


def averages(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of the figures over the seeds that have them, and spreads of PSNRs; of runs that all failed, the last."""
    whole = [run for run in runs if "failed" not in run]
    if not whole:
        return runs[-1]
    values = {figure: [run[figure] for run in whole if figure in run] for run in whole for figure in run}
    means = {figure: fmean(several) for figure, several in values.items()}
    spreads = {
        f"{figure}_spread": stdev(several)
        for figure, several in values.items()
        if figure.endswith("psnr") and len(several) > 1
    }
    return {**means, **spreads, "seeds": len(whole)}


if __name__ == "__main__":
    tyro.cli(Poses).main()
