"""`instant-avatar animate`: a video of the avatar in a motion."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal

import imageio_ffmpeg
from nerfstudio.scripts.render import RenderCameraPath
from nerfstudio.utils.rich_utils import CONSOLE

from instantavatar_ns.motion.motion import load_motion, resample
from instantavatar_ns.pipeline import AvatarPipelineConfig
from instantavatar_ns.scripts.camera_path import camera_path_json, orbit_path, static_path
from instantavatar_ns.scripts.run_folder import load_run_config, pipeline_of, write_variant


@dataclass
class Animate:
    """Film the avatar in a motion with nerfstudio's ns-render, and print the ns-render line that does the same.

    Motions: AIST++ and SMPL files (poses + trans, thetas + transl, global_orient + body_pose), AMASS .npz.
    """

    load_config: Path
    """The run's config.yml."""
    motion: Path
    """Motion file, .npz or .pkl."""
    output: Path | None = None
    """Video to write; by default animate/<motion>.mp4 in the run's folder."""
    camera: Literal["static", "orbit"] = "static"
    """The first training camera, standing still or going round the person once."""
    in_place: bool = True
    """Start the motion where the person stands in the first training frame; otherwise take it as given in the data's
    world, as for a motion recorded together with the training frames."""
    fps: float = 30.0
    """Frames per second of the video; the motion is resampled to it."""
    size: int | None = None
    """Height of the video, pixels; by default the training images'."""

    def main(self) -> Path:
        """Render, and return the video's path."""
        motion = resample(load_motion(self.motion), self.fps)
        name = f"animate/{self.motion.stem}"
        config_path = write_variant(self.load_config, name, self._edit)
        # The training cameras; no image is read for them.
        dataparser = pipeline_of(load_run_config(config_path)).datamanager.dataparser.setup()
        camera = dataparser.get_dataparser_outputs("train").cameras[0:1]
        height = _even(self.size or int(camera.height.flatten()[0]))
        width = _even(height * int(camera.width.flatten()[0]) / int(camera.height.flatten()[0]))
        path = {"static": static_path, "orbit": orbit_path}[self.camera](camera, len(motion))
        json_path = config_path.with_name(f"camera_path_{self.camera}.json")
        json_path.write_text(json.dumps(camera_path_json(camera, path, self.fps, width, height)), encoding="utf8")

        output = self.output or config_path.parent.with_suffix(".mp4")
        output.parent.mkdir(parents=True, exist_ok=True)
        make_ffmpeg_available()
        options = ["--load-config", config_path, "--camera-path-filename", json_path, "--output-path", output]
        CONSOLE.print(
            "The same with nerfstudio's own command:", shlex.join(["ns-render", "camera-path", *map(str, options)])
        )
        RenderCameraPath(load_config=config_path, camera_path_filename=json_path, output_path=output).main()
        return output

    def _edit(self, pipeline: AvatarPipelineConfig) -> None:
        model = pipeline.model
        model.motion, model.motion_in_place, model.motion_fps = self.motion.resolve(), self.in_place, self.fps


def make_ffmpeg_available() -> None:
    """Put an `ffmpeg` on the PATH of this process where there is none: ns-render refuses to start without."""
    if shutil.which("ffmpeg") is None:
        folder = Path(mkdtemp(prefix="ffmpeg-"))
        (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def _even(pixels: float) -> int:
    """The nearest size that H.264 can encode."""
    return max(2, round(pixels / 2) * 2)
