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
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from importlib.metadata import entry_points
from pathlib import Path
from time import monotonic
from typing import Literal

# From a checkout that is not installed: the variables that nerfstudio reads in place of entry points.
if not any(point.name == "instant-avatar" for point in entry_points(group="nerfstudio.method_configs")):
    parser = "instantavatar_ns.data.instantavatar_dataparser:instant_avatar_data"
    methods = {"instant-avatar": "instant_avatar", "instant-avatar-lite": "instant_avatar_lite"}
    named = [f"{name}=instantavatar_ns.config:{attribute}" for name, attribute in methods.items()]
    os.environ["NERFSTUDIO_METHOD_CONFIGS"] = ",".join(named)
    os.environ["NERFSTUDIO_DATAPARSER_CONFIGS"] = f"instant-avatar-data={parser}"

import torch
import tyro

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
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        commit = os.environ.get("COMMIT") or subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
        result = {"device": device, "commit": commit, "method": self.method, "steps": self.steps}
        result["options"] = list(self.options)
        if self.output.is_file():
            earlier = json.loads(self.output.read_text(encoding="utf8"))
            if all(earlier.get(name) == value for name, value in result.items()):
                result = earlier
        result.update(
            date=date.today().isoformat(),
            command="python " + " ".join(["benchmarks/poses.py", *sys.argv[1:]]),
            torch=torch.__version__,
            nerfacc_cuda=nerfacc_cuda(),
        )
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
                self.output.parent.mkdir(parents=True, exist_ok=True)
                self.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
                print(name, json.dumps(result[name]), f"({monotonic() - start:.0f} s so far)", flush=True)

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
        command = [sys.executable, "-W", "ignore", "-m", "nerfstudio.scripts.train", self.method]
        command += ["--output-dir", str(self.runs), "--experiment-name", f"{subject.name}.{case}"]
        command += ["--timestamp", "run", "--vis", "tensorboard", *options]
        if not torch.cuda.is_available():
            command += ["--machine.device-type", "cpu"]
        if self.steps is not None:
            command += ["--max-num-iterations", str(self.steps)]
            for group in ("field", "poses"):
                command += [f"--optimizers.{group}.scheduler.max-steps", str(self.steps)]
        command += [*self.options, "--data", str(subject), "instant-avatar-data", "--poses", poses]
        print(f"{subject.name}.{case}: training", flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=self.budget)
        return self.runs / f"{subject.name}.{case}" / self.method / "run"


if __name__ == "__main__":
    tyro.cli(Poses).main()
