"""`instant-avatar demo-data`: render a person to train on, so that everything can be tried without any download.

The person is the free body in clothes (`instantavatar_ns.demo.subject`); the folder has InstantAvatar's layout.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image
from rich.progress import Progress
from tyro.conf import Suppress

from instantavatar_ns.body.files import FREE_BODY, load_body_model, read_body_file
from instantavatar_ns.body.smpl import NUM_BETAS, NUM_JOINTS
from instantavatar_ns.demo.camera_path import PATHS, moving_camera
from instantavatar_ns.demo.motion import add_pose_noise, dance_poses, turn_poses
from instantavatar_ns.demo.palette import Palette, make_palette
from instantavatar_ns.demo.render import LIGHT, camera_intrinsics, interpolate, render_frame
from instantavatar_ns.demo.subject import MASKS, DemoSubject, make_subject
from instantavatar_ns.demo.texture import albedo
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import written_whole

_LICENSE = "CC0-1.0 (body shapes derived from MakeHuman's CC0 data; clothes and textures are procedural)"
_SPREAD = 0.7
"""Standard deviation of the person's shape coefficients; 1 is the spread of adults."""
_REFINED = {"degrees": 0.4, "millimeters": 1.6}
_ESTIMATED = {"degrees": 2.0, "millimeters": 8.0}
_CORRELATION = 0.08
"""Over which share of the turn the errors of a pose estimator stay alike."""
_DANCE_SECONDS = 3.0
"""Duration of the dance's two bars; the motion's file gives its frame rate accordingly."""
_MARGIN = 3.2
"""Distance of the person in body heights: a waving hand stays in the image."""


@dataclass
class DemoData:
    """Render a person turning round, held-out frames and a dance, in InstantAvatar's folder layout.

    Written are `images`, `masks`, `cameras.npz`, poses as a pose estimator gives them (`poses.npz`, errors of 2 degrees
    and 8 mm an axis), refined ones (`poses/anim_nerf_{train,val,test}.npz`, 0.4 degrees and 1.6 mm), exact ones
    (`truth.npz`, for scoring only), the dance with exact poses (`novel/`), and the body (`body/SMPL_NEUTRAL.npz`).
    """

    output: Path = Path("data/demo")
    """Folder to write; must not exist or be empty."""
    size: int = 256
    """Height and width of the images, pixels."""
    train_frames: int = 60
    """Frames of one full turn."""
    heldout_frames: int = 15
    """Frames of a second turn, to test with."""
    novel_frames: int = 15
    """Frames of the dance."""
    camera: Literal["still", "handheld", "carried"] = "still"
    """"still": one camera for all frames. "handheld": that of somebody who stands with a phone. "carried": of somebody
    who walks 25 degrees to both sides, lifts it and lowers it. cameras.npz has one for each frame then. The still one
    films the dance."""
    light: Suppress[Literal["fixed", "even"]] = "fixed"
    """"fixed": one light that stands still in the world. "even": from all sides, so that no part of the person changes
    its brightness with the turn; for benchmarks."""
    seed: int = 0
    """Draws the person's shape and colours, the sway and the pose errors; 0 is the person of the documentation."""

    def main(self) -> None:
        """Write the folder, which appears when it is complete.

        Raises:
            InputError: The folder holds files, or an option is out of range.
        """
        self._check()
        output = Path(os.path.abspath(self.output))
        with written_whole(output) as partial:
            for folder in ("images", "masks", "poses", "novel/images", "novel/masks", "body"):
                (partial / folder).mkdir(parents=True)
            self._write(partial)

    def _check(self) -> None:
        smallest = {"size": 16, "train_frames": 2, "heldout_frames": 1, "novel_frames": 1, "seed": 0}
        for option, lowest in smallest.items():
            value = getattr(self, option)
            if value < lowest:
                flag = "--" + option.replace("_", "-")
                raise InputError(flag, f"expected at least {lowest}, found {value}", "Give a larger number")
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            advice = "Give another --output, or delete this one if you no longer need it"
            raise InputError(self.output, "expected a folder that is empty or does not exist yet, found files", advice)

    def film_dance(self) -> None:
        """Write the dance alone, filmed by `camera`, as a folder like `novel/` that appears when it is complete.

        A moving camera goes on to where its path leads after both turns; `train_frames` and `heldout_frames` do not
        matter.

        Raises:
            InputError: As of `main`.
        """
        self._check()
        subject, betas = self._person()
        dance, transl = self._dance(subject)
        phases = 2.0 + np.arange(self.novel_frames) / self.novel_frames
        with written_whole(Path(os.path.abspath(self.output))) as partial, Progress() as progress:
            for folder in ("images", "masks"):
                (partial / folder).mkdir(parents=True)
            task = progress.add_task("Rendering the dance", total=len(dance))
            advance = functools.partial(progress.advance, task)
            self._film(partial, subject, dance, transl, self._cameras(phases, subject), advance)
            self._write_dance_poses(partial, betas, dance, transl)

    def _write(self, folder: Path) -> None:
        """Render and write all files into a folder whose subfolders exist."""
        subject, betas = self._person()
        turn, transl = self._turn(subject)
        dance, dance_transl = self._dance(subject)

        with Progress() as progress:
            task = progress.add_task("Rendering the demo subject", total=len(turn) + len(dance))
            advance = functools.partial(progress.advance, task)
            self._film(folder, subject, turn, transl, self._cameras(self._phases(), subject), advance)
            self._film(folder / "novel", subject, dance, dance_transl, np.eye(4), advance)
        self._write_dance_poses(folder / "novel", betas, dance, dance_transl)
        self._write_turn_poses(folder, betas, turn, transl)
        _write_body(folder / "body" / "SMPL_NEUTRAL.npz")
        facts = {
            "source": "instant-avatar demo-data",
            "license": _LICENSE,
            "size": self.size,
            "train": [0, self.train_frames],
            "test": [self.train_frames, len(turn)],
            "seed": self.seed,
        }
        (folder / "subject.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def _person(self) -> tuple[DemoSubject, Float[ndarray, " betas"]]:
        """The person to film, and the coefficients of their shape."""
        # Triangles of the body's own mesh are some 3 pixels wide at 256; finer ones would not show in smaller images.
        levels = 1 if self.size <= 256 else 2
        betas = (_SPREAD * self._draws(0).standard_normal(NUM_BETAS)).astype(np.float32)
        return make_subject(load_body_model(FREE_BODY), betas, levels, self.seed), betas

    def _cameras(self, phases: Float[ndarray, " frames"], subject: DemoSubject) -> Float[ndarray, "*frames 4 4"]:
        """Transforms from the world to the camera: one for all frames of the still camera, else one a frame."""
        return np.eye(4) if self.camera == "still" else moving_camera(PATHS[self.camera], phases, _place(subject))

    def _film(
        self,
        folder: Path,
        subject: DemoSubject,
        poses: Float[ndarray, "frames joints 3"],
        transl: Float[ndarray, "frames 3"],
        cameras: Float[ndarray, "*frames 4 4"],
        advance: Callable[[], None],
    ) -> None:
        """Render frames and write their images, masks and cameras; `advance` is called after each."""
        palette = make_palette(self.seed)
        of_frames = np.broadcast_to(cameras, (len(poses), 4, 4))
        for index, (pose, shift, camera) in enumerate(zip(poses, transl, of_frames, strict=True)):
            self._render(subject, palette, pose, shift, camera, files=(folder, index))
            advance()
        _write_camera(folder / "cameras.npz", self.size, cameras)

    def _draws(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream])

    def _phases(self) -> Float[ndarray, " frames"]:
        """Turns until each frame: the training turn, then the held-out one, midway between training views."""
        first = np.arange(self.train_frames) / self.train_frames
        before = np.arange(self.heldout_frames) * self.train_frames // self.heldout_frames
        return np.concatenate([first, 1.0 + (before + 0.5) / self.train_frames])

    def _turn(self, subject: DemoSubject) -> tuple[Float[ndarray, "frames joints 3"], Float[ndarray, "frames 3"]]:
        """Poses of the training turn and of the held-out one."""
        poses, sway = turn_poses(self._phases(), self._draws(1))
        return _as_stored(poses, _place(subject) + sway)

    def _dance(self, subject: DemoSubject) -> tuple[Float[ndarray, "frames joints 3"], Float[ndarray, "frames 3"]]:
        """Poses of two bars of the dance, on the floor on which the turn takes place."""
        poses, shifts = dance_poses(2.0 * np.arange(self.novel_frames) / self.novel_frames)
        place = _place(subject)
        turning = turn_poses(np.zeros(1), self._draws(1))[0][0]
        floor = subject.posed(turning, place)[0][:, 1].max()
        transl = place + shifts
        for pose, shift in zip(poses, transl, strict=True):
            shift[1] += floor - subject.posed(pose, shift)[0][:, 1].max()
        return _as_stored(poses, transl)

    def _render(
        self,
        subject: DemoSubject,
        palette: Palette,
        pose: ndarray,
        transl: ndarray,
        camera: Float[ndarray, "4 4"],
        *,
        files: tuple[Path, int],
    ) -> None:
        """Render one frame and write its image and mask; `files` are their parent folder and number."""
        folder, index = files
        vertices, normals = subject.posed(pose, transl)
        colors = _color_function(subject, palette)
        turn, shift = camera[:3, :3], camera[:3, 3]
        image, alpha = render_frame(
            vertices @ turn.T + shift,
            subject.faces,
            normals @ turn.T,
            intrinsics=camera_intrinsics(self.size),
            size=self.size,
            samples=3 if self.size <= 256 else 2,
            albedo=colors,
            light=turn @ LIGHT if self.light == "fixed" else None,
        )
        for name, values in (("image", image), ("mask", alpha)):
            eight_bit = np.round(values * 255.0).astype(np.uint8)
            Image.fromarray(eight_bit).save(folder / f"{name}s" / f"{name}_{index:04d}.png")

    def _write_dance_poses(self, folder: Path, betas: ndarray, poses: ndarray, transl: ndarray) -> None:
        _write_poses(folder / "poses.npz", betas, poses, transl, self.novel_frames / _DANCE_SECONDS)

    def _write_turn_poses(self, folder: Path, betas: ndarray, poses: ndarray, transl: ndarray) -> None:
        """Write exact, estimated and refined poses of the two turns."""
        np.savez(folder / "truth.npz", betas=betas[None], poses=poses.reshape(len(poses), -1), transl=transl)
        correlation = max(_CORRELATION * self.train_frames, 0.5)
        estimated = add_pose_noise(poses, transl, **_ESTIMATED, correlation=correlation, rng=self._draws(2))
        _write_poses(folder / "poses.npz", betas, *_as_stored(*estimated))
        refined = add_pose_noise(poses, transl, **_REFINED, correlation=correlation, rng=self._draws(3))
        refined_poses, refined_transl = _as_stored(*refined)
        n = self.train_frames
        # As in InstantAvatar's folders the validation frame is the first test frame.
        for split, rows in (("train", slice(0, n)), ("val", slice(n, n + 1)), ("test", slice(n, None))):
            np.savez(
                folder / "poses" / f"anim_nerf_{split}.npz",
                betas=betas[None],
                global_orient=refined_poses[rows, 0],
                body_pose=refined_poses[rows, 1:].reshape(-1, 3 * (NUM_JOINTS - 1)),
                transl=refined_transl[rows],
            )


def _place(subject: DemoSubject) -> Float[ndarray, "3"]:
    """Translation that puts an upright person before the camera, the middle of the body at the camera's height."""
    top, bottom = subject.vertices[:, 1].max(), subject.vertices[:, 1].min()
    pelvis = subject.landmarks.joints["pelvis"]
    upright = 0.5 * (top + bottom) - pelvis[1]
    return np.array([-pelvis[0], upright - pelvis[1], _MARGIN * (top - bottom) - pelvis[2]])


def _color_function(subject: DemoSubject, palette: Palette) -> Callable[[ndarray, ndarray], ndarray]:
    """Colours of hits on the subject: its texture, darker where little ambient light arrives."""
    columns = [subject.places, subject.vertices, subject.masks, subject.openness[:, None]]
    values = np.concatenate(columns, axis=1)

    def colors(face: ndarray, barycentric: ndarray) -> ndarray:
        hits = interpolate(values, subject.faces, face, barycentric)
        places, dressed, masks, openness = np.split(hits, [3, 6, 6 + len(MASKS)], axis=1)
        return albedo(places, dressed, masks, subject.landmarks, palette) * (0.5 + 0.5 * openness)

    return colors


def _as_stored(poses: ndarray, transl: ndarray) -> tuple[Float[ndarray, "frames joints 3"], Float[ndarray, "frames 3"]]:
    """In the precision of the files, so that the images show exactly what the files say."""
    return poses.astype(np.float32), transl.astype(np.float32)


def _write_poses(path: Path, betas: ndarray, poses: ndarray, transl: ndarray, fps: float | None = None) -> None:
    rate = {} if fps is None else {"fps": np.float64(fps)}
    np.savez(path, betas=betas[None], thetas=poses.reshape(len(poses), -1), transl=transl, **rate)


def _write_camera(path: Path, size: int, world_to_camera: ndarray) -> None:
    np.savez(path, intrinsic=camera_intrinsics(size), extrinsic=world_to_camera, height=size, width=size)


def _write_body(path: Path) -> None:
    """Write the free body with every key that programs for SMPL's files expect."""
    data = read_body_file(FREE_BODY)
    data["kintree_table"] = data["kintree_table"].copy()
    data["kintree_table"][0, 0] = 2**32 - 1
    data["f"] = data["f"].astype(np.uint32)
    np.savez_compressed(
        path, **data, J=data["J_regressor"] @ data["v_template"], bs_type=np.array("lrotmin"), bs_style=np.array("lbs")
    )
