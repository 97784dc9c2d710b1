"""Train, evaluate and time `instant-avatar` on subject folders, through nerfstudio's own entry points.

    python benchmarks/foundation.py --subjects path/to/dev-male path/to/dev-female \
        --lpips-backbone path/to/alex_features.pth --output benchmarks/results/foundation.json

Every subject is trained as ns-train does it and evaluated by ns-eval's class on its held-out frames and on its novel
motion. `train_seconds` runs from the first step to the last checkpoint. Pictures are left beside the runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import record, training
from instantavatar_ns.scripts.evaluate import Evaluate


@dataclass
class Foundation:
    """Benchmark of the whole chain."""

    subjects: tuple[Path, ...]
    """Folders in InstantAvatar's layout, with a novel/ folder."""
    output: Path = Path("benchmarks/results/foundation.json")
    """JSON to write."""
    runs: Path = Path("outputs/benchmark")
    """Where the runs go."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    steps: int | None = None
    """Training steps, by default the method's."""

    def main(self) -> None:
        """Run everything and write the figures."""
        result = record.head()
        for subject in self.subjects:
            result[subject.name] = self.measure(subject)
            record.write(self.output, result)

    def measure(self, subject: Path) -> dict[str, float]:
        """Train and evaluate one subject."""
        run = training.train_here(training.arguments("instant-avatar", subject, self.runs, subject.name, self.steps))
        (checkpoint,) = (run / "nerfstudio_models").glob("*.ckpt")
        results = Evaluate(load_config=run / "config.yml", lpips_backbone=self.lpips_backbone).main()
        heldout, novel = results["heldout"], results["novel"]
        return {
            "steps": int(checkpoint.stem.split("-")[1]) + 1,
            # nerfstudio writes this file right before the first step.
            "train_seconds": checkpoint.stat().st_mtime - (run / "dataparser_transforms.json").stat().st_mtime,
            "novel_psnr": novel["psnr"],
            "heldout_psnr": heldout["psnr"],
            "ssim": heldout["ssim"],
            "lpips": heldout.get("lpips", float("nan")),
            "lpips_published": heldout.get("lpips_published", float("nan")),
            "novel_ssim": novel["ssim"],
            "novel_lpips": novel.get("lpips", float("nan")),
            "seconds_per_image": 1 / novel["fps"],
        }


if __name__ == "__main__":
    tyro.cli(Foundation).main()
