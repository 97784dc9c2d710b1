"""`instant-avatar process`: from a video of a person to a folder that trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Bool
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from rich.table import Table

from instantavatar_ns.check.report import Section
from instantavatar_ns.data.folder import list_pictures
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.motion.readers import read_pose_file
from instantavatar_ns.process.camera import choose_camera
from instantavatar_ns.process.clip_folder import FREE
from instantavatar_ns.process.findings import Finding, find_faults, poor_overlap
from instantavatar_ns.process.frames import FEWEST_FRAMES, ChosenFrames, check_count, image_size, rows_needed
from instantavatar_ns.process.landmarks import LANDMARKS_FILE, Landmarks, pick_rows
from instantavatar_ns.process.masks import read_masks
from instantavatar_ns.process.network import NETWORK
from instantavatar_ns.process.pipeline import ClipOptions, stages_of
from instantavatar_ns.process.report import Report, overlap_of_frames, write_report
from instantavatar_ns.process.stages import Stage, StagedFolder
from instantavatar_ns.process.video import Clip, open_clip, picture_times
from instantavatar_ns.scripts.check import check_set, frame_sets
from instantavatar_ns.scripts.next_commands import training
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.interrupts import STOPPED

_MOST_FRAMES = 200
_FIT_FILE, _REPROJECTION = "fit.npz", "reprojection"


@dataclass
class Process:
    """Turn a video of one person into a folder that ns-train takes: frames, masks, landmarks, camera and poses.

    Each stage that is finished is kept: the same command goes on where it was stopped. The last stage is a check, and a
    page with what it found. Nothing is downloaded, and no licensed body model is needed.
    """

    source: tyro.conf.Positional[Path]
    """Video, or folder of pictures in the order of their names."""
    output: tyro.conf.Positional[Path]
    """Folder to fill; new, empty, or of an earlier run of this command."""
    start: float = 0.0
    """Seconds of the clip to leave out at its beginning."""
    end: float | None = None
    """Seconds from the clip's beginning at which to stop; None for its end."""
    frames: int = 100
    """Most frames to take, at most 200: the sharpest, spread over the time."""
    longest_side: int = 1080
    """Most pixels of the images' longer side; larger pictures are reduced."""
    masks: Path | None = None
    """Folder of your own masks, one for each frame of the clip or for each chosen frame; none are made then."""
    landmarks: Path | None = None
    """File of your own landmarks, in the layout of process/landmarks.npz."""
    poses: Path | None = None
    """File of your own SMPL poses in the camera, for each frame of the clip or each chosen frame; needs the focal
    length."""
    focal: float | None = None
    """Focal length, pixels of the clip's pictures; None for that of the clip's tags, else it is fitted, too."""
    body: str = "free"
    """Body model to fit, or that your poses were fitted with: an SMPL file, or "free" for the body of this package."""
    landmark_model: Path | None = None
    """Another pose_landmark_*.tflite of MediaPipe's than the one of this package."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to fit the body."""
    overwrite: bool = False
    """Make stages again that were finished with other options, and those after them."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""

    def main(self) -> None:
        """Run all stages, check the result and write the page.

        Raises:
            InputError: The clip or an option cannot be used, or no body fits it; of the latter the page tells more.
            SystemExit: The check found that training would stop, or the user stopped the command.
        """
        self._check_options()
        clip = open_clip(self.source)
        self._check_clip(clip)
        folder = StagedFolder(self.output, self.overwrite)
        stages = stages_of(clip, self.output, self._options())
        folder.check(stages)
        if self.dry_run:
            self._print_plan(clip, folder, stages)
            return
        try:
            self._run(folder, stages)
        except KeyboardInterrupt:
            CONSOLE.print("\nStopped. What is finished is kept; the same command goes on from there.")
            raise SystemExit(STOPPED) from None

    def _run(self, folder: StagedFolder, stages: list[Stage]) -> None:
        try:
            folder.run(stages)
        except InputError as error:
            if next(stage.name for stage in stages if not folder.is_finished(stage)) == "fit":
                self._explain(folder, stages, error)
            raise
        self._finish(folder, stages)

    def _check_options(self) -> None:
        if not FEWEST_FRAMES <= self.frames <= _MOST_FRAMES:
            message = f"expected {FEWEST_FRAMES} to {_MOST_FRAMES} frames, found {self.frames}"
            raise InputError("--frames", message, "A hundred show a person who turns around once")
        if not 0 <= self.start < np.inf:
            message = f"expected seconds from the clip's beginning, found {self.start:g}"
            raise InputError("--start", message, "Give 0 or more")
        if self.end is not None and not self.end > self.start:
            message = f"expected an end after the start, found {self.start:g} to {self.end:g} seconds"
            raise InputError("--end", message, "Give seconds from the clip's beginning")
        if self.longest_side < 64:
            raise InputError("--longest-side", f"expected at least 64 pixels, found {self.longest_side}", "Give more")
        if self.focal is not None and not 0 < self.focal < np.inf:
            raise InputError("--focal", f"expected pixels, found {self.focal}", "Give a positive number")
        body = None if self.body == FREE else Path(self.body)
        for path in (self.masks, self.landmarks, self.poses, self.landmark_model, body):
            if path is not None and not path.exists():
                raise InputError(path, "expected a file or folder of yours, found nothing there", "Check the name")

    def _check_clip(self, clip: Clip) -> None:
        """Refuse what does not fit the clip before the stages take minutes."""
        if self.focal is not None:
            choose_camera(clip.width, clip.height, self.focal, None)
        elif self.poses is not None and clip.focal is None:
            message = "expected the focal length that the poses were estimated with, found none in the clip's tags"
            raise InputError("--poses", message, "Give it with --focal, in pixels of the clip's pictures")
        is_trimmed = self.start > 0 or self.end is not None
        if not is_trimmed and not any((self.masks, self.landmarks, self.poses)):
            return
        end = np.inf if self.end is None else self.end
        times = np.array(picture_times(clip))
        numbers = np.flatnonzero((times >= self.start) & (times <= end))
        check_count(clip, len(numbers), self.start, end)
        rows = rows_needed(numbers, times[numbers], self.frames)
        if self.masks is not None:
            pick_rows(self.masks, "masks", len(list_pictures(self.masks)), rows)
        if self.landmarks is not None:
            Landmarks.read(self.landmarks, rows)
        if self.poses is not None:
            pick_rows(self.poses, "poses", len(read_pose_file(self.poses)), rows)

    def _options(self) -> ClipOptions:
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return ClipOptions(
            start=self.start,
            end=self.end,
            frames=self.frames,
            longest_side=self.longest_side,
            masks=self.masks,
            landmarks=self.landmarks,
            poses=self.poses,
            focal=self.focal,
            body=self.body,
            landmark_model=self.landmark_model or NETWORK,
            device=device,
        )

    def _print_plan(self, clip: Clip, folder: StagedFolder, stages: list[Stage]) -> None:
        height, width = image_size(clip, self.longest_side)
        CONSOLE.print(
            f"{escape(str(clip.path))}: {clip.width} x {clip.height}, {clip.fps:.4g} frames a second, "
            f"{clip.seconds:.3g} seconds; at most {self.frames} images of {width} x {height}",
            highlight=False,
        )
        for stage, state in zip(stages, folder.plan(stages), strict=True):
            CONSOLE.print(f"  {stage.words:<26} {state:<17} {', '.join(stage.results)}", highlight=False)

    def _explain(self, folder: StagedFolder, stages: list[Stage], error: InputError) -> None:
        """Write the page of a clip that no body was fitted to, and print what looks wrong with it."""
        clip, landmarks, masks, facts = self._read(folder, stages)
        findings = find_faults(clip, landmarks, masks, facts) if landmarks is not None else []
        no_body = np.full(len(clip.frames), np.nan)
        summary = _summary(clip, facts, no_body, _seconds(folder, stages))
        shown = [Finding("No body was fitted to this clip.", str(error)), *findings]
        title = f"{Path(clip.source).name}, processed up to the masks"
        page = write_report(self.output, Report(title, summary, shown, None, []), landmarks, masks)
        _print_summary(summary, findings)
        CONSOLE.print(f"Pictures and charts: {escape(str(page))}", soft_wrap=True)

    def _read(
        self, folder: StagedFolder, stages: list[Stage]
    ) -> tuple[ChosenFrames, Landmarks | None, Bool[np.ndarray, "frames height width"], dict[str, Any]]:
        """Frames, landmarks, masks, and the facts of the stages that are finished."""
        clip = ChosenFrames.read(self.output)
        landmarks = None
        if any(stage.name == "landmarks" for stage in stages):
            landmarks = Landmarks.read(self.output / "process" / LANDMARKS_FILE, [list(range(len(clip.frames)))])
        facts: dict[str, Any] = {"focal_given": self.focal is not None}
        for stage in stages:
            if folder.is_finished(stage):
                facts |= folder.facts(stage.name)
        return clip, landmarks, read_masks(self.output), facts

    def _finish(self, folder: StagedFolder, stages: list[Stage]) -> None:
        """Check the folder, write the page and print the summary."""
        sections, errors = _check(self.output)
        clip, landmarks, masks, facts = self._read(folder, stages)
        iou = overlap_of_frames([f"{index:05d}.png" for index in range(len(clip.frames))], sections)
        findings = [
            *(Finding(section.description, "") for section in sections if section.diagnosis.verdict != "good"),
            *(Finding(f"The {name} frames cannot be read: {error}", "") for name, error in errors.items()),
            *poor_overlap(np.nan_to_num(iou, nan=1.0)),
            *(find_faults(clip, landmarks, masks, facts) if landmarks is not None else []),
        ]
        command = training(self.output)
        summary = _summary(clip, facts, iou, _seconds(folder, stages))
        title = f"{Path(clip.source).name}, processed"
        report = Report(title, summary, findings, command, sections, _reprojection(self.output))
        page = write_report(self.output, report, landmarks, masks)
        _print_summary(summary, findings)
        CONSOLE.print(f"Pictures and charts: {escape(str(page))}", soft_wrap=True)
        if errors or any(section.diagnosis.verdict == "wrong" for section in sections):
            CONSOLE.print("[red]Training would stop: the body does not lie where the masks are.")
            raise SystemExit(1)
        CONSOLE.print(f"Next: {escape(command)}", soft_wrap=True, highlight=False)


def _seconds(folder: StagedFolder, stages: list[Stage]) -> float:
    return sum(folder.seconds(stage.name) for stage in stages if folder.is_finished(stage))


def _check(folder: Path) -> tuple[list[Section], dict[str, str]]:
    sections, errors = [], {}
    for name, (split, parser) in frame_sets(folder, InstantAvatarDataParserConfig()).items():
        try:
            sections.append(check_set(name, split, parser))
        except InputError as error:
            errors[name] = str(error)
    return sections, errors


def _reprojection(folder: Path) -> np.ndarray | None:
    path = folder / "process" / _FIT_FILE
    if not path.is_file():
        return None
    with np.load(path) as file:
        return file[_REPROJECTION].astype(float) if _REPROJECTION in file.files else None


def _summary(clip: ChosenFrames, facts: dict[str, Any], iou: np.ndarray, seconds: float) -> dict[str, str]:
    turned = f", turned by {clip.rotation} degrees" if clip.rotation else ""
    lines = {
        "images": f"{len(clip.frames)} of {clip.source_frames} frames, {clip.width} x {clip.height}{turned}",
        "time": f"{clip.times[0]:.2f} to {clip.times[-1]:.2f} s",
    }
    if "found" in facts:
        lines["landmarks"] = f"in {facts['found']} frames"
        if facts["swaps"]:
            lines["landmarks"] += f"; left and right put right in {len(facts['swaps'])}"
    lines["masks"] = "your own"
    if "plate" in facts:
        followed = "with the background, the camera moves" if facts.get("followed", False) else "the camera moves"
        lines["masks"] = "with the background, the camera stands still" if facts["plate"] else followed
    if np.isfinite(iou).any():
        lines["overlap of body and mask"] = f"{np.nanmean(iou):.3f}, least {np.nanmin(iou):.3f}"
    if "train" in facts:
        lines["frames"] = f"{facts['train']} train, {facts['held_out']} held out"
    lines["took"] = f"{seconds:.0f} s, {seconds / len(clip.frames):.2f} s a frame"
    return lines


def _print_summary(summary: dict[str, str], findings: list[Finding]) -> None:
    table = Table(show_header=False)
    for name, value in summary.items():
        table.add_row(name, escape(value))
    CONSOLE.print(table)
    for finding in findings:
        CONSOLE.print(f"[yellow]{escape(finding.words)}[/] {escape(finding.advice)}", highlight=False)
