"""Poses for cameras and training steps.

All poses turn about the same joints: those of the body's file, or those that the alignment found to be the person's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.posed import PosedBody, pose_body, rest_sequence
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.correction.refinement import PoseRefinement
from instantavatar_ns.data.subject import Subject
from instantavatar_ns.motion.motion import Motion

_KEPT = 64


class PoseProvider:
    """The poses of a person: of the frames, given or corrected, of the motion that time plays, and at rest.

    What is given for images is the same object until `forget`, so that what follows from it can be kept as well.

    Args:
        subject: The person and the given poses.
        body: The person's body, on the CPU, its joints those of its file.
        refinement: Corrected poses of the training frames; None where they are not corrected.
        motion: What time plays, of the person, in the dataset's world; None for the training frames.
        device: Where poses are wanted.
    """

    def __init__(
        self,
        subject: Subject,
        body: BodyModel,
        refinement: PoseRefinement | None,
        motion: Motion | None,
        device: torch.device | str,
    ) -> None:
        self.subject, self.given_body, self.refinement, self.motion = subject, body, refinement, motion
        self._device = torch.device(device)
        self._kept: dict[Hashable, PosedBody] = {}
        self._replaced: dict[int, PosedBody] = {}
        self.body = body
        self._pose_all()
        self.take_joints()

    # The body

    def take_joints(self) -> None:
        """Turn all poses about the joints of the refinement: to be called when these have changed."""
        if self.refinement is None:
            return  # and the poses stay where they are in memory: captured steps read them
        moved = self.refinement.joints.cpu() - self.given_body.rest(self.subject.poses.betas)[1]
        self.body = self.given_body.with_joints_moved(moved)
        self._pose_all()

    def _pose_all(self) -> None:
        poses = self.subject.poses
        self._given = self.posed(poses)
        self._rest = self.posed(rest_sequence(self.body, poses, 0))
        self.motion_poses = None if self.motion is None else self.posed(self.motion)
        self.forget()

    def posed(self, poses: PoseSequence) -> PosedBody:
        """Pose the person as it is now, one row a frame.

        Args:
            poses: In the dataset's world.
        """
        return pose_body(self.body, poses, self.subject.world_to_dataset).to(self._device)

    # Training

    def training_frame(self, pose_id: Int[Tensor, ""]) -> PosedBody:
        """Return a training frame's pose, differentiable with respect to its correction; blocks no host.

        Args:
            pose_id: Number of the frame, on any device.
        """
        return self._given[pose_id] if self.refinement is None else self.refinement[pose_id]

    def training_bones(self) -> Float[Tensor, "train joints 4 4"]:
        """Return the bone transforms of all training frames, from the canonical pose to root space."""
        if self.refinement is None:
            return self._given.bone_transforms[: self.subject.num_train]
        return self.refinement.bone_transforms

    # Images

    def seen_by(
        self,
        times: Shaped[Tensor, "*rays 1"] | None,
        metadata: dict[str, Any] | None,
        override: Callable[[Callable[[], PosedBody]], PosedBody] | None = None,
    ) -> PosedBody:
        """Return the pose that a camera or rays see; blocks the host, so it is called once per image.

        The first of these decides: `override`, which may ask for the pose that is seen without it; `pose_id`, by which
        a dataset's cameras name their pose; time, which plays the motion, or else the training frames, from 0 to 1.
        Without any of them it is the rest pose.

        Args:
            times: Of the camera or of each ray, of which the first counts.
            metadata: Of the camera or the rays.
            override: Chooses another pose, or changes this one, such as the viewer's panel.
        """
        of_camera = partial(self._of_camera, times, metadata)
        return of_camera() if override is None else override(of_camera)

    def _of_camera(self, times: Shaped[Tensor, "*rays 1"] | None, metadata: dict[str, Any] | None) -> PosedBody:
        if metadata and "pose_id" in metadata:
            return self.frame(int(metadata["pose_id"].flatten()[0]))
        if times is None:
            return self.rest
        # The viewer's splines overshoot between keyframes, and its slider gives NaN for a word. In this order 0 stays.
        time = min(max(0.0, float(times.flatten()[0])), 1.0)
        if self.motion_poses is not None:
            return self.motion_frame(round(time * (len(self.motion_poses) - 1)))
        return self.frame(round(time * (self.subject.num_train - 1)))

    @property
    def rest(self) -> PosedBody:
        """The canonical A-pose, standing where the person stands in the first training frame."""
        return self.kept("rest", lambda: self._rest[0])

    def frame(self, row: int) -> PosedBody:
        """Return a frame's pose: what `replacing` gives, or else the corrected one, or the given one.

        Args:
            row: Of the subject's poses; the training frames come first.
        """
        if row in self._replaced:
            return self._replaced[row]
        refinement = self.refinement
        if refinement is not None and row < len(refinement):
            return self.kept(("frame", row), lambda: refinement[row])
        return self.kept(("frame", row), lambda: self._given[row])

    def motion_frame(self, row: int) -> PosedBody:
        """Return the pose of a frame of the motion."""
        poses = self.motion_poses
        assert poses is not None
        return self.kept(("motion", row), lambda: poses[row])

    @torch.no_grad()
    def kept(self, key: Hashable, make: Callable[[], PosedBody]) -> PosedBody:
        """Return what `make` made when it was last called for this key, unless `forget` has been called since."""
        if key not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[key] = make()
        return self._kept[key]

    def forget(self) -> None:
        """Make all poses of images anew: the corrections have changed, or something else that images show."""
        self._kept.clear()

    @contextmanager
    def replacing(self, poses: dict[int, PosedBody]) -> Iterator[None]:
        """Show other poses in place of some frames, such as fitted to their images.

        Args:
            poses: By the rows of the subject's poses.
        """
        self._replaced = poses
        self.forget()
        try:
            yield
        finally:
            self._replaced = {}
            self.forget()
