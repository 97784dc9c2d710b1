"""Train with candidates for colours that hold, one at a time, and compare.

    python -m benchmarks.color --subjects path/to/dev-male path/to/dev-moving \
        --lpips-backbone path/to/alex_features.pth --workers 6 --output benchmarks/results/color.json

Candidates are options of ns-train (`VARIANTS`); several may be given for one candidate, such as `ema-0.99`. Figures, on
white, 8-bit, with the folder's best poses (`anim_nerf`):

- `novel_psnr`, `novel_lpips`: the novel motion
- `heldout_psnr`, `lpips`: held-out frames in their exact poses
- `novel_grain`, `heldout_grain`: high frequencies of the rendered person over the true one's, inside the silhouette:
  the ratio of the standard deviations of what a Gaussian blur of two pixels takes away. 1 is as sharp as the truth.
- `novel_noise`, `heldout_noise`: the same of the difference of the two, by the true one's: high frequencies that are
  wrong. 0 is none, and about 1 that of a picture without detail: grain is seen as `grain` and `noise` above `off`'s.
- `light`: coefficients of the light, where it is learned

The JSON is written after every run; a run that is in it, made by the same commit with the same options, is not made
again.
"""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import product
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import Any, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from benchmarks import record, training
from benchmarks.in_process import heldout_set, mean_metrics, poses_of
from benchmarks.poses import averages
from benchmarks.speed import EvalFrames, load_frames
from benchmarks.workers import run_jobs

_MODEL = "--pipeline.model."
VARIANTS: dict[str, tuple[str, ...]] = {
    "off": (),
    "light": (f"{_MODEL}light=True",),
    "ema-0.99": (f"{_MODEL}ema-decay=0.99",),
    "ema-0.998": (f"{_MODEL}ema-decay=0.998",),
    "tv-0.01": (f"{_MODEL}color-variation-mult=0.01",),
    "tv-0.05": (f"{_MODEL}color-variation-mult=0.05",),
    "levels": (f"{_MODEL}level-steps=1500",),
}
_BLUR, _INSIDE = 2.0, 4  # pixels: standard deviation of the blur, and distance from the silhouette that is left out
SHOWN = ("novel_psnr", "novel_lpips", "novel_grain", "novel_noise", "heldout_psnr", "lpips", "heldout_grain")


@dataclass
class Color:
    """Benchmark of candidates for colours that hold."""

    subjects: tuple[Path, ...]
    """Folders in InstantAvatar's layout, with truth.npz and novel/."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Candidates to train, of `VARIANTS`."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of initialisation and of the draws of rays."""
    method: Literal["instant-avatar", "instant-avatar-lite"] = "instant-avatar"
    """Method to change; "light" needs patches."""
    steps: int | None = None
    """Training steps, by default the method's."""
    output: Path = Path("benchmarks/results/color.json")
    """JSON to write."""
    runs: Path = Path("outputs/benchmark-color")
    """Where the runs go."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    workers: int = 1
    """Processes that train at once; they share the GPUs."""
    total_budget: float = 3000.0
    """Seconds after which no further run is begun."""
    options: tuple[str, ...] = ()
    """Further options of ns-train for all candidates."""

    def main(self) -> dict[str, Any]:
        """Train what is still to train, write the figures and print a table."""
        if unknown := [name for name in self.variants if name not in VARIANTS]:
            raise SystemExit(f"No variant {unknown[0]}. There are: {', '.join(VARIANTS)}.")
        head = record.head()
        result = {name: head[name] for name in ("device", "commit")}
        result |= {"method": self.method, "steps": self.steps, "options": list(self.options)}
        if self.output.is_file():
            earlier = json.loads(self.output.read_text(encoding="utf8"))
            if all(earlier.get(name) == value for name, value in result.items()):
                result = earlier
        result |= head
        runs = result.setdefault("runs", {})
        jobs = [
            (subject, name, seed)
            for seed, subject, name in product(self.seeds, self.subjects, self.variants)
            if "failed" in runs.get(f"{subject.name}.{name}.{seed}", {"failed": True})
        ]
        for (subject, name, seed), figures in run_jobs(self.measure, jobs, self.workers, self.total_budget):
            key = f"{subject.name}.{name}.{seed}"
            if figures is None:
                record.progress(f"{key} is left out: {self.total_budget:.0f} s are over")
                continue
            runs[key] = figures
            record.progress(f"{key} {json.dumps(figures)}")
            result["summary"] = summary(runs)
            record.write(self.output, result, quiet=True)
        print(table(summary(runs)), flush=True)
        return result

    def measure(self, subject: Path, name: str, seed: int) -> dict[str, Any]:
        """Train one candidate with one seed and evaluate it."""
        arguments = training.arguments(
            self.method,
            subject,
            self.runs,
            f"{subject.name}.{name}.{seed}",
            self.steps,
            *("--machine.seed", str(seed), "--pipeline.datamanager.seed", str(seed)),
            *VARIANTS[name],
            *self.options,
            data_options=("--poses", "anim_nerf", "--eval-set", "novel"),
        )
        with redirect_stdout(StringIO()):  # nerfstudio's progress
            trainer = training.set_up(arguments)
            training.synchronise()
            start = monotonic()
            trainer.train()
            training.synchronise()
        seconds, model, data = monotonic() - start, trainer.pipeline.model, trainer.pipeline.datamanager
        novel = load_frames(data.eval_dataset, trainer.device)
        heldout = load_frames(heldout_set(data), trainer.device)
        figures: dict[str, Any] = {"train_seconds": seconds}
        metrics = mean_metrics(model, novel, self.lpips_backbone)
        figures |= {f"novel_{metric}": metrics[metric] for metric in ("psnr", "lpips") if metric in metrics}
        figures |= {f"novel_{part}": value for part, value in high_frequencies(model, novel).items()}
        with model.poses.replacing(poses_of(heldout_set(data, "truth"), model)):
            metrics = mean_metrics(model, heldout, self.lpips_backbone)
            figures["heldout_psnr"] = metrics["psnr"]
            figures |= {metric: metrics[metric] for metric in ("lpips",) if metric in metrics}
            figures |= {f"heldout_{part}": value for part, value in high_frequencies(model, heldout).items()}
        if model.light is not None:
            figures["light"] = model.light.coefficients.tolist()
        return figures


@torch.no_grad()
def high_frequencies(model: Any, frames: EvalFrames) -> dict[str, float]:
    """Grain and noise of a model's images; see the module's docstring.

    Args:
        model: In evaluation.
        frames: Cameras, and images on white.
    """
    grain, noise = [], []
    for camera, truth in frames:
        rendered = model.get_outputs_for_camera(camera)["rgb"]
        inside = _inside((truth < 1).any(dim=-1)) & _inside((rendered < 0.999).any(dim=-1))
        if int(inside.sum()) < 100:
            continue
        ours, theirs = (_high_pass(image)[inside] for image in (rendered, truth))
        spread = theirs.std()
        grain.append(float(ours.std() / spread))
        noise.append(float((ours - theirs).std() / spread))
    return {"grain": fmean(grain), "noise": fmean(noise)} if grain else {}


def _inside(mask: Tensor) -> Tensor:
    size = 2 * _INSIDE + 1
    return -F.max_pool2d(-mask.float()[None, None], size, 1, _INSIDE)[0, 0] > 0.5


def _high_pass(image: Tensor) -> Tensor:
    """The image less its Gaussian blur."""
    reach = int(3 * _BLUR)
    kernel = torch.exp(-torch.arange(-reach, reach + 1, device=image.device).float().square() / (2 * _BLUR**2))
    kernel = (kernel / kernel.sum())[None, None]
    channels = image.movedim(-1, 0)[:, None]
    padded = F.pad(channels, [reach] * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, kernel[:, :, None]), kernel[..., None])
    return image - blurred[:, 0].movedim(0, -1)


def summary(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, by subject and candidate.

    Args:
        runs: Figures by `subject.candidate.seed`.
    """
    several: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key, figures in runs.items():
        name, _, _ = key.rpartition(".")
        candidate = next(variant for variant in VARIANTS if name.endswith(f".{variant}"))
        numbers = {figure: value for figure, value in figures.items() if not isinstance(value, list)}
        several.setdefault((name.removesuffix(f".{candidate}"), candidate), []).append(numbers)
    result: dict[str, Any] = {}
    for (subject, candidate), of_seeds in several.items():
        result.setdefault(subject, {})[candidate] = averages(of_seeds)
    return result


def table(result: dict[str, Any]) -> str:
    """The means, one candidate a row."""
    lines = [f"{'':24}" + "".join(f"{figure:>15}" for figure in SHOWN)]
    for subject, candidates in result.items():
        for name in (name for name in VARIANTS if name in candidates):
            values = [candidates[name].get(figure) for figure in SHOWN]
            cells = "".join(f"{'-' if value is None else format(value, '.4f'):>15}" for value in values)
            lines.append(f"{subject + '.' + name:24}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(Color).main()
