"""Train on a demo person filmed by a still camera and by a carried one, and compare.

    python -m benchmarks.moving_camera --output benchmarks/results/data_in.json
    python -m benchmarks.moving_camera --method instant-avatar-lite --size 96 --steps 400  # on a CPU

Both have the same person, poses and split (`instant-avatar demo-data --camera carried`); the dance is filmed by the
still camera in both. Figures, under `moving_camera`, of each of `still` and `carried`: those of `benchmarks/poses.py`
(case `refined`), means over the seeds; and

- `heldout_loss_db`, `novel_loss_db`: PSNR with the still camera less that with the carried one, of held-out frames in
  their exact poses, and of the dance
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import record
from benchmarks.poses import Poses, averages
from instantavatar_ns.scripts.demo_data import DemoData

_CAMERAS = ("still", "carried")


@dataclass
class MovingCamera:
    """Benchmark of recordings with a camera for each frame."""

    output: Path | None = None
    """JSON file of the figures; others that it holds are kept."""
    runs: Path = Path("outputs/benchmark-moving-camera")
    """Where the subjects and the runs go."""
    size: int = 540
    """Height and width of the images, pixels."""
    train_frames: int = 100
    """Of one turn; a fifth as many are held out, and as many show the dance."""
    method: Literal["instant-avatar", "instant-avatar-lite"] = "instant-avatar"
    """Method to train."""
    steps: int | None = None
    """Training steps, by default the method's."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of initialisation and of the draws of rays."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""

    def main(self) -> None:
        """Make the subjects, train on both, and write."""
        poses = Poses(
            subjects=(),
            method=self.method,
            runs=self.runs,
            fit_seeds=(),
            lpips_backbone=self.lpips_backbone,
            steps=self.steps,
        )
        figures: dict[str, Any] = {}
        for camera in _CAMERAS:
            folder = self._subject(camera)
            record.progress(f"training on {folder}")
            figures[camera] = averages([poses.measure(folder, "refined", seed) for seed in self.seeds])
            record.progress(json.dumps(figures[camera]))
        still, carried = (figures[camera] for camera in _CAMERAS)
        for name, key in (("heldout_loss_db", "heldout_exact_psnr"), ("novel_loss_db", "novel_psnr")):
            figures[name] = round(still[key] - carried[key], 3)
        known = json.loads(self.output.read_text()) if self.output is not None and self.output.is_file() else {}
        settings = {"method": self.method, "size": self.size, "train_frames": self.train_frames}
        record.write(self.output, known | {"moving_camera": record.head() | settings | figures})

    def _subject(self, camera: Literal["still", "carried"]) -> Path:
        """Folder of the person filmed by a camera, made where it is not there yet."""
        fifth = max(self.train_frames // 5, 1)
        folder = self.runs / f"{camera}-{self.size}-{self.train_frames}"
        if not folder.exists():
            DemoData(folder, self.size, self.train_frames, fifth, fifth, camera=camera).main()
        return folder


if __name__ == "__main__":
    tyro.cli(MovingCamera).main()
