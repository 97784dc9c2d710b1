"""Train, evaluate and time `instant-avatar` on subject folders, through nerfstudio's own entry points.

    python benchmarks/foundation.py --subjects path/to/dev-male path/to/dev-female \
        --lpips-backbone path/to/alex_features.pth --output benchmarks/results/foundation.json

Every subject is trained by ns-train in a process of its own and evaluated by ns-eval's class on its held-out frames and
on its novel motion. `train_seconds` runs from the first step to the last checkpoint; nerfacc's extension, which
compiles itself once per machine, is built before. Pictures are left beside the runs.
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

# From a checkout that is not installed: the variables that nerfstudio reads in place of entry points.
if not any(point.name == "instant-avatar" for point in entry_points(group="nerfstudio.method_configs")):
    parser = "instantavatar_ns.data.instantavatar_dataparser:instant_avatar_data"
    os.environ["NERFSTUDIO_METHOD_CONFIGS"] = "instant-avatar=instantavatar_ns.config:instant_avatar"
    os.environ["NERFSTUDIO_DATAPARSER_CONFIGS"] = f"instant-avatar-data={parser}"

import torch
import tyro

from instantavatar_ns.occupancy.nerfacc_cuda import nerfacc_cuda
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
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        commit = os.environ.get("COMMIT") or subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
        result = {
            "date": date.today().isoformat(),
            "device": device,
            "commit": commit,
            "command": "python " + " ".join(["benchmarks/foundation.py", *sys.argv[1:]]),
            "torch": torch.__version__,
            "nerfacc_cuda": nerfacc_cuda(),
        }
        for subject in self.subjects:
            result[subject.name] = self.measure(subject)
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
        print(json.dumps(result, indent=2))

    def measure(self, subject: Path) -> dict[str, float]:
        """Train and evaluate one subject."""
        command = [sys.executable, "-W", "ignore", "-m", "nerfstudio.scripts.train", "instant-avatar"]
        command += ["--data", str(subject), "--output-dir", str(self.runs), "--experiment-name", subject.name]
        command += ["--timestamp", "run", "--vis", "tensorboard"]
        if not torch.cuda.is_available():
            command += ["--machine.device-type", "cpu"]
        if self.steps is not None:
            command += ["--max-num-iterations", str(self.steps)]
            for group in ("field", "poses"):
                command += [f"--optimizers.{group}.scheduler.max-steps", str(self.steps)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run = self.runs / subject.name / "instant-avatar" / "run"
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
