"""Poses of images: which one a camera asks for, and what renderers take of it, kept while the avatar stays the same.

A training step does without: it takes its frame's pose by a number on the device, and anew for the gradient.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from jaxtyping import Shaped
from torch import Tensor

from instantavatar_ns.body.bank import PoseBank, PosedBody
from instantavatar_ns.correction.refinement import PoseRefinement
from instantavatar_ns.rendering.inputs import RenderPose

_KEPT = 64


class Bank(Protocol):
    """What holds poses."""

    def __getitem__(self, row: Any, /) -> PosedBody:
        """The pose in a row."""
        ...


class ImagePoses:
    """The poses that images can show, each named by a bank and a row of it.

    The banks are "poses", "rest_pose" and "motion", whose rows are numbers, and those that are added to `banks`.

    Args:
        poses: Poses of the data set.
        rest_pose: One row, what a camera sees that asks for nothing.
        motion: What time plays; None for the training poses.
        train_pose_ids: The training frames among `poses`.
        refinement: Corrected poses in place of the first ones of `poses`; None where they are not corrected.
        prepare: Makes of a pose what renderers take.
    """

    def __init__(
        self,
        poses: PoseBank,
        rest_pose: PoseBank,
        motion: PoseBank | None,
        train_pose_ids: list[int],
        refinement: PoseRefinement | None,
        prepare: Callable[[PosedBody], RenderPose],
    ) -> None:
        self.banks: dict[str, Bank] = {"poses": poses, "rest_pose": rest_pose}
        if motion is not None:
            self.banks["motion"] = motion
        self._motion, self._train_pose_ids, self._refinement = motion, train_pose_ids, refinement
        self._prepare = prepare
        self._replaced: dict[int, PosedBody] = {}
        self._bodies: dict[tuple[str, Hashable], PosedBody] = {}
        self._prepared: OrderedDict[tuple[str, Hashable], RenderPose] = OrderedDict()

    def resolve(self, times: Shaped[Tensor, "*rays 1"] | None, metadata: dict | None) -> tuple[str, int]:
        """Bank and row of the pose that rays or a camera ask for.

        A dataset's cameras name their pose (`pose_id`); time plays the motion, or else the training poses, from 0 to 1;
        a camera with neither sees the rest pose. Reads a number from the device, so it is called once per image.
        """
        if metadata and "pose_id" in metadata:
            return "poses", int(metadata["pose_id"].flatten()[0])
        if times is None:
            return "rest_pose", 0
        # The viewer's splines overshoot between keyframes, and its slider gives NaN for a word. In this order 0 stays.
        time = min(max(0.0, float(times.flatten()[0])), 1.0)
        if self._motion is not None:
            return "motion", round(time * (len(self._motion) - 1))
        return "poses", self._train_pose_ids[round(time * (len(self._train_pose_ids) - 1))]

    def posed_body(self, bank: str, row: Hashable) -> PosedBody:
        """A pose, made anew; of training frames the corrected one, and what `replacing` gives in its place."""
        if bank == "poses" and isinstance(row, int):
            if row in self._replaced:
                return self._replaced[row]
            if self._refinement is not None and row < len(self._refinement):
                return self._refinement[row]
        return self.banks[bank][row]

    def kept_body(self, bank: str, row: Hashable) -> PosedBody:
        """A pose, kept until `forget`."""
        key = (bank, row)
        if key not in self._bodies:
            if len(self._bodies) >= _KEPT:
                self._bodies.clear()
            self._bodies[key] = self.posed_body(bank, row)
        return self._bodies[key]

    @torch.no_grad()
    def prepared(self, bank: str, row: Hashable) -> RenderPose:
        """A pose, prepared for rendering; kept until `forget`."""
        key = (bank, row)
        if key not in self._prepared:
            self._prepared[key] = self._prepare(self.kept_body(bank, row))
            if len(self._prepared) > _KEPT:
                self._prepared.popitem(last=False)
        self._prepared.move_to_end(key)
        return self._prepared[key]

    def forget(self) -> None:
        """The field has changed, with it what is occupied in any pose, and the corrections of poses."""
        self._prepared.clear()
        self._bodies.clear()

    @contextmanager
    def replacing(self, poses: dict[int, PosedBody]) -> Iterator[None]:
        """Show other poses in place of some rows of the data's, such as fitted to their images."""
        self._replaced = poses
        self.forget()
        try:
            yield
        finally:
            self._replaced = {}
            self.forget()
