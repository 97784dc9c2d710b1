"""`instant-avatar demo`: everything once, on a generated person, in minutes on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from rich.markup import escape

from instantavatar_ns.motion.editing import MotionOptions
from instantavatar_ns.scripts.animate import Animate
from instantavatar_ns.scripts.evaluate import Evaluate, print_results
from instantavatar_ns.scripts.export import Export
from instantavatar_ns.scripts.next_commands import of_run
from instantavatar_ns.utils import hidden_warnings
from instantavatar_ns.utils.files import move_into_place

CLIP = Path(__file__).parents[1] / "demo" / "clip.mp4"
_CLIP_SIDE = 400  # pixels
_PICTURE_COLUMNS = 4


@dataclass
class Demo:
    """Generate a person, train an avatar of them, evaluate it, film it in a motion it was not trained on, and write a
    page to send.

    On a GPU the full method is trained, on a CPU the light one. What an earlier run of the demo finished is kept: the
    person is not drawn again, and a training that was killed goes on from its last checkpoint.
    """

    output: Path = Path("outputs/demo")
    """Folder for the data, the run and the results."""
    size: int = 160
    """Height and width of the images, pixels."""
    steps: int = 800
    """Training steps."""
    clip: bool = False
    """Start from a video instead, as you would with your own: the clip that comes with this package goes through
    instant-avatar process. The results are in the output's folder clip."""

    def main(self) -> None:
        """Run all parts."""
        start = monotonic()
        output = self.output / "clip" if self.clip else self.output
        data = output / "data"
        self._make_data(data)
        config = self._train(data, output)
        results = Evaluate(load_config=config, output_dir=output / "eval").main()
        picture = side_by_side(output / "eval", output / "comparison.png")
        dance = Path("dance") if self.clip else data / "novel" / "poses.npz"
        options = MotionOptions() if self.clip else MotionOptions(root="as-recorded", place="dataset", fps=15.0)
        video = Animate(
            load_config=config, motion=dance, output=output / "novel_pose.mp4", motion_options=options
        ).main()
        # The default output is the one that may be replaced.
        page = output / "avatar.html"
        move_into_place(Export(load_config=config, format="html", title="Demo person").main(), page)
        CONSOLE.rule(f"Done in {monotonic() - start:.0f} s")
        print_results(results)
        CONSOLE.print(f"Truth beside renderings: {picture}\nA motion not trained on: {video}")
        CONSOLE.print(f"A page to open and to send: {page}", soft_wrap=True)
        CONSOLE.print(f"Look at it live:          {escape(of_run(config)['view'])}", soft_wrap=True, highlight=False)

    def _make_data(self, data: Path) -> None:
        """Make what an earlier run has not made."""
        if self.clip:
            from instantavatar_ns.scripts.process import Process

            Process(CLIP, data, longest_side=_CLIP_SIDE).main()
        elif not data.is_dir():
            from instantavatar_ns.scripts.demo_data import DemoData

            DemoData(output=data, size=self.size).main()

    def _train(self, data: Path, output: Path) -> Path:
        """Train with ns-train, or go on with an earlier training; returns the run's config.yml."""
        gpu = torch.cuda.is_available()
        method = "instant-avatar" if gpu else "instant-avatar-lite"
        run = output / "avatar" / method / "run"
        done = [int(path.stem.split("-")[1]) + 1 for path in (run / "nerfstudio_models").glob("step-*.ckpt")]
        remaining = self.steps - max(done, default=0)
        if remaining > 0:
            command = [str(Path(sys.executable).with_name("ns-train")), method]
            command += ["--data", str(data), "--output-dir", str(output), "--experiment-name", "avatar"]
            command += ["--timestamp", "run", "--vis", "tensorboard", "--max-num-iterations", str(remaining)]
            command += ["--machine.device-type", "cuda" if gpu else "cpu", "--steps-per-save", "200"]
            for group in ("field", "poses"):
                command += [f"--optimizers.{group}.scheduler.max-steps", str(self.steps)]
            if done:
                command += ["--load-dir", str(run / "nerfstudio_models")]
            if not sys.stdout.isatty():  # nerfstudio draws the last ten lines anew for each that it adds
                command += ["--logging.local-writer.max-log-size", "0"]
            if self.clip:
                command += ["instant-avatar-data", "--downscale", str(max(_CLIP_SIDE // self.size, 1))]
            known = [os.environ["PYTHONWARNINGS"]] if os.environ.get("PYTHONWARNINGS") else []
            quiet = {"PYTHONWARNINGS": ",".join([hidden_warnings.as_variable(), *known])}
            subprocess.run(command, check=True, env=os.environ | quiet)
        return run / "config.yml"


def side_by_side(eval_dir: Path, output: Path) -> Path:
    """Write a picture of some evaluated images, the truth on the left of each pair; a row for each set of frames.

    Args:
        eval_dir: Folder with a folder of images for each set.
        output: File to write.
    """
    rows = []
    for folder in sorted(path for path in eval_dir.iterdir() if path.is_dir()):
        images = sorted(folder.glob("*_img_*.png"))
        chosen = np.linspace(0, len(images) - 1, _PICTURE_COLUMNS).round().astype(int)
        rows.append(np.concatenate([np.array(Image.open(images[index]).convert("RGB")) for index in chosen], axis=1))
    Image.fromarray(np.concatenate(rows)).save(output)
    return output
