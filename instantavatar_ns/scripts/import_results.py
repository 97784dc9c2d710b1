"""`instant-avatar import`: a pose estimator's result and its video become a folder to train on."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.data.cameras import check_cameras
from instantavatar_ns.data.splits import FrameRange
from instantavatar_ns.importing.folder import (
    Recording,
    is_ours,
    read_checked,
    read_masks,
    spread_rows,
    write_arrays,
    write_images,
)
from instantavatar_ns.importing.keypoint_fit import ROUGH_STEPS, fit_keypoints
from instantavatar_ns.importing.masks import Masks, masks_of_result, masks_of_user
from instantavatar_ns.importing.placement import in_world, poses_as_given, poses_on_body, small_silhouettes
from instantavatar_ns.importing.reading import read_result
from instantavatar_ns.importing.result import ToolResult, Track, pinhole
from instantavatar_ns.importing.shape import ShapeFit, fit_shape
from instantavatar_ns.importing.surface_fit import fit_surface
from instantavatar_ns.importing.tracks import Person, choose_track, in_video, without_gaps
from instantavatar_ns.importing.verdict import judge
from instantavatar_ns.importing.video import Video, open_video
from instantavatar_ns.process.masks_of_frames import masks_of_frames
from instantavatar_ns.scripts.next_commands import training
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import written_whole
from instantavatar_ns.utils.progress import shown_progress

_FITTED_FRAMES = 20
_NAMED_FRAMES = 8
_COVERED = 0.6
"""Share of the body's surface that MHR's vertices lie at, at least; of a body of other proportions it is nearly all."""


@dataclass
class ImportResults:
    """Make a folder to train on from a video and what a pose estimator found in it.

    Read are results of ROMP, 4D-Humans (PHALP), WHAM, GVHMR, TRAM, PromptHMR, SMPLer-X, NLF and SAM 3D Body, recognised
    by what they hold. The posed body is compared with the masks before the folder gets its name.
    """

    result: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RESULT")]]
    """The tool's result: its file, or the folder that it wrote."""
    video: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="VIDEO|FOLDER")]]
    """The video that the tool was run on, or a folder with its frames."""
    output: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUTPUT")]]
    """Folder to write; must not exist or be empty."""
    track: str | None = None
    """The person, by the number that the tool gave; by default who is seen in most frames."""
    masks: Path | None = None
    """Masks of the person: a folder with one a frame, the folder of `instant-avatar process`, or an .npy or .npz
    (frames, height, width). By default those of the result; where it has none, the largest person's are made."""
    frames: FrameRange | None = None
    """Frames of the video to use: start, end (not included) and step; by default all in which the person was found."""
    body_model: str = "free"
    """Body model: a path to an SMPL-format .pkl or .npz, or "free" for the body that comes with this package."""
    shape: Literal["auto", "given", "fitted"] = "auto"
    """"given": the tool's betas, which are right with the body that it used. "fitted": betas and a shift of all frames
    are fitted to the masks (of SAM 3D Body: betas to its vertices). "auto": given where the poses are SMPL's and
    body_model is a file, else fitted."""
    focal_length: float | None = None
    """Focal length in pixels of the video, in place of the tool's."""
    check_data: Literal["stop", "warn"] = "stop"
    """"stop": write nothing where the body does not lie where the masks are. "warn": say so, and write it."""
    dry_run: bool = False
    """Only say what would be written."""
    overwrite: bool = False
    """Replace a folder that this command wrote."""

    def main(self) -> None:
        """Read, fit, check and write.

        Raises:
            InputError: The result, the video or the masks cannot be used, or do not fit each other; nothing is written.
        """
        self._check_options()
        result, video = read_result(self.result), open_video(self.video)
        person = self._choose_person(result, video)
        masks = self._find_masks(result.tool, person, video)
        person = self._choose_frames(person, masks, video)
        intrinsics = self._intrinsics(result, person.track, video)
        body = load_body_model(self.body_model)
        is_given = self._is_given(result)
        if self.dry_run:
            CONSOLE.print(f"Would write {len(person.track)} frames to {escape(str(self.output))}.")
            return
        output = Path(os.path.abspath(self.output))
        with written_whole(output) as partial:
            partial.mkdir()
            write_images(partial, video, masks, person.track.frames.tolist())
            recording, oddity = self._place(partial, result, person, body, intrinsics, video, is_given)
            facts = {
                "tool": result.tool,
                "track": person.name,
                "interpolated": person.track.frames[person.interpolated].tolist(),
                "shape": "given" if is_given else "fitted",
            }
            write_arrays(partial, recording, self.body_model, facts)
            checked, estimated, names = read_checked(partial, recording, self.body_model)
            judge(self.result, result.tool, checked, estimated, names, video.size, oddity, self.check_data)
            if self.overwrite and output.exists():
                shutil.rmtree(output)
        self._print_summary(recording)

    def _check_options(self) -> None:
        if self.focal_length is not None and self.focal_length <= 0:
            message = f"expected a focal length in pixels, found {self.focal_length:g}"
            raise InputError("--focal-length", message, "Give the camera's, or leave it out")
        if self.frames is not None and (self.frames[2] < 1 or not range(*self.frames) or self.frames[0] < 0):
            start, end, step = self.frames
            message = f"expected frames START to END (not included) in steps of 1 or more, found {start} {end} {step}"
            raise InputError("--frames", message, "Give numbers of the video's frames, which count from 0")
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            ours = is_ours(self.output)
            if not (self.overwrite and ours):
                advice = "Give another folder, or --overwrite to replace it" if ours else "Give another folder"
                message = "expected a folder that is empty or does not exist yet, found files"
                if self.overwrite:
                    message += " that this command did not write"
                raise InputError(self.output, message, advice)

    def _choose_person(self, result: ToolResult, video: Video) -> Person:
        name, words = choose_track(self.result, result, self.track)
        CONSOLE.print(f"{result.tool}'s result. {escape(words)}")
        person = without_gaps(name, in_video(self.result, result, result.tracks[name], video))
        if person.interpolated.any():
            numbers = person.track.frames[person.interpolated].tolist()
            CONSOLE.print(f"Poses of {_named(numbers)} are interpolated: the person was not found there.")
        return person

    def _find_masks(self, tool: str, person: Person, video: Video) -> Masks:
        if self.masks is not None:
            return masks_of_user(self.masks, video)
        masks = masks_of_result(self.result, person.track.masks, video)
        if masks:
            return masks
        numbers = [number for number in person.track.frames.tolist() if number in self._wanted(video)]
        whom = "the largest person's are made" if not self.dry_run else "the largest person's would be made"
        CONSOLE.print(f"{tool}'s result has no masks: {whom}, as instant-avatar process does.")
        if self.dry_run:
            return dict.fromkeys(numbers, lambda: np.zeros(video.size, np.float32))

        def write_images(folder: Path) -> None:
            with shown_progress(f"Frames of {video.path.name}") as done:
                video.write_frames(numbers, folder, done)

        return masks_of_frames(write_images, numbers, video.size) if numbers else {}

    def _wanted(self, video: Video) -> set[int]:
        return set(range(*self.frames)) if self.frames else set(range(len(video)))

    def _choose_frames(self, person: Person, masks: Masks, video: Video) -> Person:
        wanted = self._wanted(video)
        numbers = person.track.frames.tolist()
        unmasked = [number for number in numbers if number in wanted and number not in masks]
        if unmasked:
            CONSOLE.print(f"{_named(unmasked).capitalize()} left out: there is no mask of the person.")
        rows = np.array([row for row, number in enumerate(numbers) if number in wanted and number in masks], int)
        if not len(rows):
            message = "expected frames that have a pose and a mask of the person, found none"
            raise InputError(self.masks or self.result, message, "Give masks of this video, or other --frames")
        missing = len(wanted) - len(set(numbers) & wanted)
        if missing:
            CONSOLE.print(f"The person was not found in {missing} of {len(wanted)} frames, which are left out.")
        return person.rows(rows)

    def _intrinsics(self, result: ToolResult, track: Track, video: Video) -> np.ndarray:
        if self.focal_length is not None:
            matrix = pinhole(self.focal_length)(video.size)
            words = "as given"
        elif track.intrinsics is not None:
            CONSOLE.print(f"Focal length {_range(track.intrinsics[:, 0, 0])} pixels: {result.camera}.")
            return track.intrinsics
        else:
            assert result.pinhole is not None
            matrix, words = result.pinhole(video.size), result.camera
        CONSOLE.print(f"Focal length {matrix[0, 0]:.1f} pixels: {words}.")
        return np.tile(matrix, (len(track), 1, 1))

    def _is_given(self, result: ToolResult) -> bool:
        is_given = self.shape == "given"
        if is_given and result.skeleton == "MHR":
            message = f"expected SMPL's betas, found the shape of MHR in {result.tool}'s result"
            raise InputError("--shape", message, "Leave it out: a body is fitted to the keypoints")
        if self.shape == "auto":
            is_given = result.skeleton == "SMPL" and self.body_model != "free"
        if is_given and (self.body_model == "free" or result.skeleton != "SMPL"):
            CONSOLE.print(
                f"[yellow]The betas are {result.skeleton}'s and taken as given; with another body they are wrong."
            )
        return is_given

    def _place(
        self,
        folder: Path,
        result: ToolResult,
        person: Person,
        body: BodyModel,
        intrinsics: np.ndarray,
        video: Video,
        is_given: bool,
    ) -> tuple[Recording, str]:
        """The recording's arrays, with the shape that is wanted, and `ShapeFit.oddity` of a fitted one."""
        track, oddity = person.track, ""
        if is_given:
            estimated = poses = poses_as_given(track)
        elif track.keypoints is None:
            estimated = poses_on_body(track, result.skeleton, body)
            fit = _fit_to_masks(folder, body, estimated, intrinsics)
            poses, oddity = fit.applied(estimated), fit.oddity(body)
            _say_shape(fit, result.skeleton)
        else:
            estimated, poses, oddity = self._fit_to_points(folder, body, track.keypoints, track.vertices, intrinsics)
        world_to_camera = np.tile(np.eye(4), (len(track), 1, 1))
        if result.camera_to_world is not None:
            camera_to_world = result.camera_to_world[track.frames]
            estimated, _ = in_world(estimated, body, camera_to_world)
            poses, world_to_camera = in_world(poses, body, camera_to_world)
        check_cameras(self.result, intrinsics, world_to_camera, video.size)
        return Recording(track.frames.tolist(), poses, estimated, intrinsics, world_to_camera, video.size), oddity

    def _fit_to_points(
        self,
        folder: Path,
        body: BodyModel,
        keypoints: np.ndarray,
        vertices: np.ndarray | None,
        intrinsics: np.ndarray,
    ) -> tuple[PoseSequence, PoseSequence, str]:
        """Poses before a shape is fitted to the masks, those that are wanted, and `ShapeFit.oddity`."""
        if vertices is not None:
            rough = fit_keypoints(body, keypoints, steps=ROUGH_STEPS).poses
            on_surface = fit_surface(body, rough, keypoints, vertices)
            if on_surface.covered < _COVERED:
                message = (
                    f"expected MHR's vertices all over the person, found some at {on_surface.covered:.0%} of the body"
                )
                advice = "Save pred_vertices as process_one_image returned them, in metres, or leave them out"
                raise InputError(self.result, message, advice)
            CONSOLE.print(
                "The body, its shape too, is fitted to MHR's keypoints and vertices: its surface lies "
                f"{1000 * on_surface.distance:.0f} mm from these in the median."
            )
            return on_surface.poses, on_surface.poses, ""
        estimated = fit_keypoints(body, keypoints).poses
        fit = _fit_to_masks(folder, body, estimated, intrinsics)
        fitted = fit_keypoints(body, keypoints, fit.betas)
        CONSOLE.print(
            f"The body is fitted to MHR's keypoints only, as not all images have pred_vertices: it lies "
            f"{1000 * fitted.distance:.0f} mm off in the mean. Its shape is fitted to the masks: {_outlines(fit)}."
        )
        return estimated, fitted.poses, fit.oddity(body)

    def _print_summary(self, recording: Recording) -> None:
        height, width = recording.size
        CONSOLE.print(
            f"Wrote {len(recording.numbers)} frames of {width} x {height} pixels to {escape(str(self.output))}."
        )
        CONSOLE.print(f"Next: {escape(training(self.output))}", soft_wrap=True, highlight=False)


def _fit_to_masks(folder: Path, body: BodyModel, poses: PoseSequence, intrinsics: np.ndarray) -> ShapeFit:
    rows = spread_rows(len(poses), _FITTED_FRAMES)
    silhouettes = small_silhouettes(read_masks(folder, rows), intrinsics[rows])
    return fit_shape(body, poses.rows(rows), silhouettes)


def _say_shape(fit: ShapeFit, skeleton: str) -> None:
    shift, pelvis = (
        ", ".join(f"{1000 * value:.0f}" for value in values.tolist()) for values in (fit.shift, fit.pelvis)
    )
    CONSOLE.print(
        f"The shape is fitted to the masks, as {skeleton}'s betas mean nothing with this body: {_outlines(fit)}; all "
        f"frames are shifted by ({shift}) mm, and the pelvis by ({pelvis}) mm in the trunk."
    )


def _outlines(fit: ShapeFit) -> str:
    before, after = (1000 * distance for distance in fit.distance)
    return f"outlines lay {before:.0f} mm apart, now {after:.0f} mm"


def _named(numbers: list[int]) -> str:
    some = ", ".join(map(str, numbers[:_NAMED_FRAMES]))
    more = f" and {len(numbers) - _NAMED_FRAMES} more" if len(numbers) > _NAMED_FRAMES else ""
    return f"frame{'s' if len(numbers) > 1 else ''} {some}{more}"


def _range(values: np.ndarray) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.1f}" if high - low < 0.05 else f"{low:.1f} to {high:.1f}"
