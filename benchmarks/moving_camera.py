"""Train on a demo person filmed by a still camera and by a carried one, and compare.

    python -m benchmarks.moving_camera --output benchmarks/results/data_in.json
    python -m benchmarks.moving_camera --method instant-avatar-lite --size 64 --train-frames 24 --steps 200  # on a CPU
    python -m benchmarks.moving_camera --only-make --data subjects  # where there is embreex; then train elsewhere

Both have the same person, poses and split (`instant-avatar demo-data --camera carried`); the dance is filmed by the
still camera in both. Each is made twice, in the demo's `fixed` light and in `even` light from all sides.

Fixed light costs the carried camera something whatever is done with cameras: colours of the avatar do not depend on the
view, and a part of the person has more shades in the pictures of a camera that moves. In even light what is lost is the
cameras' and the views'.

Figures, under `moving_camera`, of each light: of each of `still` and `carried` those of `benchmarks/poses.py`,
means over the seeds; and

- `heldout_loss_db`, `novel_loss_db`: PSNR with the still camera less that with the carried one, of held-out frames in
  their exact poses, and of the dance
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

import tyro
from PIL import Image

from benchmarks import record
from benchmarks.poses import Case, Poses, averages
from instantavatar_ns.utils.files import written_whole

Camera = Literal["still", "carried"]
Light = Literal["fixed", "even"]


@dataclass
class MovingCamera:
    """Benchmark of recordings with a camera for each frame."""

    output: Path | None = None
    """JSON file of the figures; others that it holds are kept."""
    data: Path = Path("outputs/benchmark-moving-camera/data")
    """Where the subjects are; those that are not there yet are made."""
    only_make: bool = False
    """Make the subjects, and do not train."""
    runs: Path = Path("outputs/benchmark-moving-camera")
    """Where the runs go."""
    lights: tuple[Light, ...] = ("fixed", "even")
    """Lights that the person is filmed in."""
    size: int = 540
    """Height and width of the images, pixels."""
    train_frames: int = 100
    """Of one turn; a fifth as many are held out, and as many show the dance."""
    method: Literal["instant-avatar", "instant-avatar-lite"] = "instant-avatar"
    """Method to train."""
    steps: int | None = None
    """Training steps, by default the method's."""
    case: Case = "refined"
    """Poses to train with, of `benchmarks/poses.py`; "exact_fixed" leaves the correction of poses out."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of initialisation and of the draws of rays."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""

    def main(self) -> None:
        """Make the subjects, train on all, and write."""
        cameras: tuple[Camera, ...] = get_args(Camera)
        folders: dict[Light, dict[Camera, Path]] = {
            light: {camera: self._subject(camera, light) for camera in cameras} for light in self.lights
        }
        if self.only_make:
            return
        known = json.loads(self.output.read_text()) if self.output is not None and self.output.is_file() else {}
        settings = {name: getattr(self, name) for name in ("method", "size", "train_frames", "steps", "case")}
        figures = {light: self._compare(of_light) for light, of_light in folders.items()}
        record.write(self.output, known | {"moving_camera": record.head() | settings | figures})

    def _compare(self, folders: dict[Camera, Path]) -> dict[str, Any]:
        """Figures of both cameras in one light, and what the carried one loses."""
        poses = Poses(
            subjects=(),
            method=self.method,
            runs=self.runs,
            fit_seeds=(),
            lpips_backbone=self.lpips_backbone,
            steps=self.steps,
        )
        figures: dict[str, Any] = {}
        for camera, folder in folders.items():
            record.progress(f"training on {folder}")
            means = averages([poses.measure(folder, self.case, seed) for seed in self.seeds])
            figures[camera] = {name: round(value, 4) for name, value in means.items() if isfinite(value)}
            record.progress(json.dumps(figures[camera]))
        for name, key in (("heldout_loss_db", "heldout_exact_psnr"), ("novel_loss_db", "novel_psnr")):
            figures[name] = round(figures["still"][key] - figures["carried"][key], 3)
        return figures

    def _subject(self, camera: Camera, light: Light) -> Path:
        """Folder of the person filmed by a camera in a light, made where it is not there yet."""
        folder = self.data / f"{camera}-{light}-{self.size}-{self.train_frames}"
        if not folder.exists():
            from instantavatar_ns.scripts.demo_data import DemoData  # here: machines that only train have no embreex

            fifth = max(self.train_frames // 5, 1)
            with written_whole(folder) as partial:
                DemoData(partial, self.size, self.train_frames, fifth, fifth, camera=camera, light=light).main()
                _pack_images(partial)
        return folder


def _pack_images(folder: Path) -> None:
    """Write a subject's images anew as lossless WebP, a third of the size."""
    for path in folder.rglob("images/*.png"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".webp"), lossless=True)
        path.unlink()


if __name__ == "__main__":
    tyro.cli(MovingCamera).main()
