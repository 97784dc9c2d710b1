"""`instant-avatar animate`: a video of the avatar in a motion."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, cast

import mediapy
import torch
import tyro
from jaxtyping import Float
from nerfstudio.cameras.camera_paths import get_path_from_json
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.pipelines.base_pipeline import Pipeline
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.importing import motions as _tool_motions  # noqa: F401  # lets --motion be a pose estimator's result
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.editing import MotionOptions, describe_jump, edit_motion
from instantavatar_ns.motion.free_motions import find_motion
from instantavatar_ns.motion.motion import DEFAULT_FPS, load_motion
from instantavatar_ns.pipeline import AvatarPipelineConfig
from instantavatar_ns.scripts.camera_path import (
    camera_path_json,
    film_motion,
    orbit_path,
    read_camera_path,
    static_path,
)
from instantavatar_ns.scripts.framing import body_points, cut_frames, frame_ranges
from instantavatar_ns.scripts.partial_frames import FRAME_PATTERN, PartialFrames
from instantavatar_ns.scripts.run_folder import open_run, write_variant
from instantavatar_ns.scripts.video import check_output, encode, has_alpha, is_folder
from instantavatar_ns.utils.errors import InputError


@dataclass
class Animate:
    """Film the avatar in a motion, and print nerfstudio's own command that gives the same frames.

    Motions: SMPL, AIST++, AMASS and BVH files, results of pose estimators, and those that come along: walk, dance,
    stretch. A rendering that was stopped goes on where it was when it is started again with the same options.
    """

    load_config: Path
    """The run's config.yml."""
    motion: Path
    """Motion: a .npz, .npy, .pkl, .pt or .bvh file; the file or folder that ROMP, 4D-Humans, WHAM, GVHMR, TRAM,
    PromptHMR, SMPLer-X or NLF wrote; or walk, dance or stretch."""
    output: Path | None = None
    """Output: a video .mp4 or .gif on white, a video .webm with a transparent background, or, for a name without
    ending, a new folder of PNG images with a transparent background. By default animate/<motion>.mp4 in the run's
    folder; an existing video is replaced once the new one is complete."""
    camera: Literal["static", "orbit"] | Path = "static"
    """The first training camera, standing still or going round the person once, or a camera path saved by nerfstudio's
    viewer (.json). The first two move back where they would cut the person in any frame. The path says how long the
    video is, and how large; where no keyframe sets a time, the motion plays at its own speed."""
    size: int | None = None
    """Height of the video, pixels; by default the training images', or the camera path's."""
    motion_options: Annotated[MotionOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=MotionOptions)
    """Edits of the motion. Unless given, fps is the camera path's, else 30."""

    def main(self) -> Path:
        """Render, and return the path of what was written.

        Raises:
            InputError: An option, the run, the motion or the camera path cannot be used; nothing is written then.
        """
        output = self.output or self.load_config.parent / "animate" / f"{self.motion.stem}.mp4"
        check_output(output)
        if self.size is not None and self.size < 2:
            raise InputError("--size", f"expected at least 2 pixels, found {self.size}", "Give a larger height")
        saved_path = read_camera_path(self.camera) if isinstance(self.camera, Path) else None
        options = self.motion_options
        if options.fps is None:
            fps = DEFAULT_FPS if saved_path is None else len(saved_path["camera_path"]) / float(saved_path["seconds"])
            options = replace(options, fps=fps)
        assert options.fps is not None
        # Whatever is wrong with the motion is found before anything is written.
        jump = describe_jump(edit_motion(load_motion(self.motion, options.source_fps, options.up), options), options)
        if jump and output.suffix.lower() == ".gif":
            CONSOLE.log(f"{output.name} repeats for ever. {jump}.")

        def edit(config: AvatarPipelineConfig) -> None:
            config.model.motion, config.model.motion_options = find_motion(self.motion).resolve(), options

        config_path = write_variant(self.load_config, f"animate/{self.motion.stem}", edit)
        pipeline, checkpoint = open_run(config_path)
        path = self._camera_path(pipeline, saved_path, options)
        name = self.camera.stem if isinstance(self.camera, Path) else self.camera
        json_path = config_path.with_name(f"camera_path_{name}.json")
        json_path.write_text(json.dumps(path), encoding="utf8")
        _print_stock_command(config_path, json_path, has_alpha(output))

        output.parent.mkdir(parents=True, exist_ok=True)
        settings = _fingerprint(config_path, checkpoint, _motion_poses(pipeline), json.dumps(path), has_alpha(output))
        frames = PartialFrames(output, settings)
        _render_missing(pipeline, get_path_from_json(path), frames, has_alpha(output))
        if is_folder(output):
            frames.finish(frames.images)
        else:
            result = frames.folder / f"video{output.suffix}"
            with CONSOLE.status("Encoding"):
                encode(frames.images / FRAME_PATTERN, result, options.fps)
            frames.finish(result)
        CONSOLE.print(f"Wrote {output}", soft_wrap=True)
        return output

    def _camera_path(self, pipeline: Pipeline, saved_path: dict | None, options: MotionOptions) -> dict:
        """The cameras and times of all frames, as `ns-render camera-path` takes them."""
        poses = _motion_poses(pipeline)
        points = body_points(cast(InstantAvatarModel, pipeline.model), poses)
        assert options.fps is not None
        if saved_path is not None:
            path = film_motion(saved_path, len(poses), options.fps, options.loop > 0)
            width, height = path["render_width"], path["render_height"]
            if self.size is not None:
                path.update(render_width=max(1, round(self.size * width / height)), render_height=self.size)
            self._warn_of_cuts(path, points)
            return path
        assert pipeline.datamanager.train_dataset is not None
        camera = pipeline.datamanager.train_dataset.cameras[0:1]
        height, width = int(camera.height.flatten()[0]), int(camera.width.flatten()[0])
        wanted = _even(self.size or height)
        wide = _even(wanted * width / height)
        matrices = {"static": static_path, "orbit": orbit_path}[str(self.camera)](camera, points, wide / wanted)
        moved = float((matrices[0, :3, 3] - camera.camera_to_worlds[0, :, 3]).norm())
        if moved > 1e-3:
            CONSOLE.log(f"The camera is {moved:.2f} m from the first training camera, to show the whole person always.")
        return camera_path_json(camera, matrices, options.fps, wide, wanted)

    def _warn_of_cuts(self, path: dict, points: Float[Tensor, "poses points 3"]) -> None:
        """Say in which frames a saved path cuts the person."""
        if str(path.get("camera_type", "perspective")).lower() != "perspective":
            return  # those that see all around cut nobody
        rows = [round(min(max(frame["render_time"], 0.0), 1.0) * (len(points) - 1)) for frame in path["camera_path"]]
        cut = cut_frames(points[rows], get_path_from_json(path))
        if cut.any():
            found = f"{self.camera} cuts the person in {int(cut.sum())} of {len(cut)} frames: {frame_ranges(cut)}."
            CONSOLE.log(f"{found} Move its keyframes back, or use --camera static or orbit.", markup=False)


def _motion_poses(pipeline: Pipeline) -> PosedBody:
    poses = cast(InstantAvatarModel, pipeline.model).poses.motion_poses
    assert poses is not None
    return poses


def _print_stock_command(config_path: Path, json_path: Path, alpha: bool) -> None:
    options = ["--load-config", config_path, "--camera-path-filename", json_path]
    options += ["--output-path", json_path.with_suffix(""), "--output-format", "images", "--image-format", "png"]
    options += ["--rendered-output-names", "rgba"] if alpha else []
    command = shlex.join(["ns-render", "camera-path", *map(str, options)])
    CONSOLE.print(f"The same frames with nerfstudio's own command:\n{command}", soft_wrap=True, highlight=False)


def _fingerprint(config_path: Path, checkpoint: Path, poses: PosedBody, path: str, alpha: bool) -> str:
    """Differs when the frames would."""
    digest = hashlib.sha256(config_path.read_bytes())
    # The poses tell of the motion's file, the training poses and the body.
    for values in (poses.world_to_root, poses.bone_transforms):
        digest.update(values.cpu().numpy().tobytes())
    state = checkpoint.stat()
    digest.update(f"{checkpoint} {state.st_size} {state.st_mtime_ns} {path} {alpha}".encode())
    return digest.hexdigest()


@torch.no_grad()
def _render_missing(pipeline: Pipeline, cameras: Cameras, frames: PartialFrames, alpha: bool) -> None:
    """Render the frames that are not there yet, exactly as ns-render does."""
    cameras = cameras.to(pipeline.device)
    columns = (TextColumn("Rendering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=CONSOLE) as progress:
        for index in progress.track(range(len(cameras))):
            if not frames.has(index):
                outputs = pipeline.model.get_outputs_for_camera(cameras[index : index + 1])
                image = pipeline.model.get_rgba_image(outputs) if alpha else outputs["rgb"]
                frames.write(index, mediapy.to_uint8(image.cpu().numpy()))


def _even(pixels: float) -> int:
    """The nearest even size: H.264 encodes no other."""
    return max(2, round(pixels / 2) * 2)
