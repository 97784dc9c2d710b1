"""Train with one part changed at a time, with several seeds, and compare.

    python -m benchmarks.ablations --subjects path/to/dev-male path/to/dev-female \
        --output benchmarks/results/ablations.json --page docs/ablations.md

Each variant is a few options of ns-train (`VARIANTS`). Runs go through nerfstudio's own trainer, in this process or,
with `--workers 6`, in six at once; a process reads frames, and makes the skinning weights, once. `novel_psnr` is that
of the novel motion, `heldout_psnr` that of the held-out frames in the poses that `--heldout-poses` names: whole images
on white, 8-bit. `novel_lpips` is LPIPS (AlexNet) of the novel motion, where `--lpips-backbone` names a file.
`train_seconds` runs from the first step to the last checkpoint. The spread is the sample standard deviation over the
seeds.

The JSON is written after every run. A run that is in it already, made by the same commit with the same options, is not
made again: a benchmark that was cut off, or was given `--total-budget`, goes on where it stopped.
"""

from __future__ import annotations

import json
import shlex
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from time import monotonic
from typing import Any, Literal, NamedTuple

import tyro

from benchmarks import record, training
from benchmarks.in_process import heldout_set, mean_metrics
from benchmarks.speed import METHODS, load_frames, psnr
from benchmarks.workers import run_jobs

FIGURES = {
    "novel_psnr": "novel PSNR",
    "heldout_psnr": "held-out PSNR",
    "novel_lpips": "novel LPIPS",
    "train_seconds": "seconds",
}
DECIMALS = {"novel_lpips": 4}  # two elsewhere
MARKS = ("<!-- ablations -->", "<!-- /ablations -->")


class Variant(NamedTuple):
    """What is changed.

    Attributes:
        description: In the table.
        options: Of ns-train, with dashes as there; `{steps}` stands for the number of steps.
    """

    description: str
    options: tuple[str, ...] = ()


MODEL = "--pipeline.model."
VARIANTS = {
    "full": Variant("the method as it is"),
    "no-union-grid": Variant(
        "without the pose-union grid: rays sampled in all of the box while training, and so without its regulariser",
        (f"{MODEL}occupancy-start", "everywhere", f"{MODEL}occupancy-warmup", "{steps}"),
    ),
    "no-occupancy-loss": Variant("without the occupancy regulariser", (f"{MODEL}occupancy-loss-mult", "0")),
    "no-hard-surface": Variant("without the hard-surface prior", (f"{MODEL}hard-surface-loss-mult", "0")),
    "no-refinement": Variant("poses taken as they are", (f"{MODEL}refine-poses", "False")),
    "fast-snarf-skinning": Variant(
        "skinning weights spread as Fast-SNARF spreads them",
        tuple(f"{MODEL}skinning.{option}" for option in ("neighbors=30", "smoothing-passes=30", "sharpness=1")),
    ),
    "no-alignment": Variant("poses not aligned to the silhouettes first", (f"{MODEL}align-poses", "False")),
    "body-joints": Variant("poses turned about the body's joints, not the person's", (f"{MODEL}move-joints", "False")),
}


@dataclass
class Ablations:
    """Benchmark of the method's parts."""

    subjects: tuple[Path, ...]
    """Folders in InstantAvatar's layout, with a novel/ folder."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Which variants to train, of `VARIANTS`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of initialisation and of the draws of rays."""
    method: Literal["instant-avatar", "instant-avatar-lite"] = "instant-avatar"
    """Method to change."""
    steps: int | None = None
    """Training steps, over which the learning rates decay; by default the method's."""
    poses: str = "auto"
    """Poses to train with, "auto" for the best there are."""
    heldout_poses: str = "truth"
    """Poses of the held-out frames, "auto" for those of `--poses`."""
    output: Path = Path("benchmarks/results/ablations.json")
    """JSON to write."""
    page: Path | None = None
    """Page whose table to replace, between its two comments."""
    runs: Path = Path("outputs/benchmark-ablations")
    """Where the runs go."""
    workers: int = 1
    """Processes that train at once; they share the GPUs."""
    total_budget: float = 3000.0
    """Seconds after which no further run is begun."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, to measure LPIPS too."""
    options: str = ""
    """Further options of ns-train for all variants, in one string: --options="--pipeline.model.renderer triton"."""

    def main(self) -> dict[str, Any]:
        """Train what is still to train, write the figures and print the table."""
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown:
            raise SystemExit(f"No variant {unknown[0]}. There are: {', '.join(VARIANTS)}.")
        result = self._begun()
        # Innermost the variants: what a budget cuts off is a seed, not a variant.
        jobs = [
            (subject, name, seed)
            for seed, subject, name in product(self.seeds, self.subjects, self.variants)
            if f"{subject.name}.{name}.{seed}" not in result["runs"]
        ]
        for (subject, name, seed), figures in run_jobs(self.measure, jobs, self.workers, self.total_budget):
            key = f"{subject.name}.{name}.{seed}"
            if figures is None:
                record.progress(f"{key} is left out: {self.total_budget:.0f} s are over")
            elif "failed" in figures:
                record.progress(f"{key} failed: {figures['failed']}")
            else:
                result["runs"][key] = figures
                record.progress(f"{key} {figures}")
                record.write(self.output, {**result, "summary": summary(result["runs"])}, quiet=True)
        result["summary"] = summary(result["runs"])
        record.write(self.output, result, quiet=True)
        print(table(result))
        if self.page is not None:
            replace_table(self.page, result)
        return result

    def _begun(self) -> dict[str, Any]:
        """What an earlier call has measured of the same, or a fresh record."""
        head = record.head()
        same = {
            **{name: head[name] for name in ("device", "commit")},
            "method": self.method,
            "steps": self.steps,
            "poses": self.poses,
            "heldout_poses": self.heldout_poses,
            "with_lpips": self.lpips_backbone is not None,
            "options": self.options,
        }
        runs: dict[str, Any] = {}
        if self.output.is_file():
            earlier = json.loads(self.output.read_text(encoding="utf8"))
            if all(earlier.get(name) == value for name, value in same.items()):
                runs = earlier["runs"]
        variants = {
            name: {"description": variant.description, "options": list(variant.options)}
            for name, variant in VARIANTS.items()
        }
        return {**head, **same, "variants": variants, "runs": runs}

    def measure(self, subject: Path, name: str, seed: int) -> dict[str, float]:
        """Train one variant with one seed and evaluate it.

        Args:
            subject: Folder of the subject.
            name: Of the variant.
            seed: Of initialisation and draws.
        """
        with redirect_stdout(StringIO()):  # nerfstudio's progress
            trainer = training.set_up(self.arguments(subject, name, seed))
            training.synchronise()
            start = monotonic()
            trainer.train()
            training.synchronise()
        seconds, pipeline = monotonic() - start, trainer.pipeline
        frames = {
            "novel_psnr": load_frames(pipeline.datamanager.eval_dataset, trainer.device),
            "heldout_psnr": load_frames(heldout_set(pipeline.datamanager), trainer.device),
        }
        steps, model = trainer.config.max_num_iterations, pipeline.model
        if model.config.occupancy_warmup >= steps:  # has learned no occupancy, which every rendering needs
            for _ in range(5):
                model.refresh_occupancy(steps)
        figures = {figure: psnr(model, some) for figure, some in frames.items()}
        if self.lpips_backbone is not None:
            figures["novel_lpips"] = mean_metrics(model, frames["novel_psnr"], self.lpips_backbone)["lpips"]
        return {**figures, "train_seconds": seconds, "steps": steps}

    def arguments(self, subject: Path, name: str, seed: int) -> list[str]:
        """Arguments of ns-train."""
        steps = self.steps or METHODS[self.method].max_num_iterations
        options = [option.format(steps=steps) for option in VARIANTS[name].options]
        seeds = ("--machine.seed", str(seed), "--pipeline.datamanager.seed", str(seed))
        saves = ("--steps-per-save", str(steps))
        data_options = ("--eval-set", "novel", "--poses", self.poses)
        if self.heldout_poses != "auto":
            data_options += ("--heldout-poses", self.heldout_poses)
        return training.arguments(
            self.method,
            subject,
            self.runs,
            f"{subject.name}.{name}.{seed}",
            steps,
            *seeds,
            *saves,
            *shlex.split(self.options),
            *options,
            data_options=data_options,
        )


def summary(runs: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Mean and spread over the seeds, by subject, variant and figure that was measured; of one seed no spread.

    Args:
        runs: Figures by `subject.variant.seed`.
    """
    seeds: dict[str, dict[str, list[dict[str, float]]]] = {}
    for key, figures in runs.items():
        subject, variant, _ = key.rsplit(".", 2)
        seeds.setdefault(subject, {}).setdefault(variant, []).append(figures)
    return {
        subject: {
            variant: {
                figure: _statistics([run[figure] for run in several]) for figure in FIGURES if figure in several[0]
            }
            for variant, several in variants.items()
        }
        for subject, variants in seeds.items()
    }


def _statistics(values: list[float]) -> dict[str, float]:
    return {"mean": fmean(values), "spread": stdev(values) if len(values) > 1 else None, "seeds": len(values)}


def table(result: dict[str, Any]) -> str:
    """The results in Markdown; differences in dB are to the subject's full method."""
    measured = [figures for variants in result["summary"].values() for figures in variants.values()]
    shown = [figure for figure in FIGURES if all(figure in figures for figures in measured)]
    lines = [
        f"{result['method']}, {result['device']}, commit {result['commit'][:7]}, {result['date']}.",
        "",
        "| subject | variant | "
        + " | ".join(FIGURES[figure] for figure in shown)
        + " | novel, held-out against full | seeds |",
        "|---|---|" + "---|" * (len(shown) + 2),
    ]
    for subject, variants in result["summary"].items():
        for name in (name for name in result["variants"] if name in variants):
            figures = variants[name]
            cells = [_with_spread(**figures[key], decimals=DECIMALS.get(key, 2)) for key in shown]
            against = "–"
            if name != "full" and "full" in variants:
                keys = ("novel_psnr", "heldout_psnr")
                differences = [figures[key]["mean"] - variants["full"][key]["mean"] for key in keys]
                against = ", ".join(f"{round(difference, 2) + 0.0:+.2f}" for difference in differences)
            description = result["variants"][name]["description"]
            seeds = figures["novel_psnr"]["seeds"]
            lines.append(f"| {subject} | {description} | {' | '.join(cells)} | {against} | {seeds} |")
    return "\n".join(lines)


def _with_spread(mean: float, spread: float | None, seeds: int, decimals: int) -> str:
    return f"{mean:.{decimals}f}" if spread is None else f"{mean:.{decimals}f} ± {spread:.{decimals}f}"


def replace_table(page: Path, result: dict[str, Any]) -> None:
    """Put the table between the page's two comments."""
    text = page.read_text(encoding="utf8")
    if any(text.count(mark) != 1 for mark in MARKS):
        raise SystemExit(f"{page}: expected the comments {MARKS[0]} and {MARKS[1]}, between which the table goes.")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    page.write_text(f"{before}{MARKS[0]}\n\n{table(result)}\n\n{MARKS[1]}{after}", encoding="utf8")


if __name__ == "__main__":
    tyro.cli(Ablations).main()
