"""Renderer inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.deformer.search import PosedSkinning
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.occupancy.cells import OccupiedCells

_IMAGE_ALPHA_THRESHOLD = 0.01
_IMAGE_EARLY_STOP_EPS = 1 / 512  # what lies behind changes an 8-bit colour by half a level at most


@dataclass(frozen=True)
class RenderPose:
    """A pose, prepared for rendering.

    Attributes:
        body: Where the root stands, and its bones.
        skinning: What the deformer inverts.
        cells: Where samples are taken.
    """

    body: PosedBody
    skinning: PosedSkinning
    cells: OccupiedCells


class Avatar(NamedTuple):
    """The canonical person.

    Attributes:
        deformer: Finds the canonical roots of posed points.
        occupancy: Where the person is; roots in free cells are left out.
        field: Density and colour.
    """

    deformer: FastSnarfDeformer
    occupancy: CanonicalOccupancy
    field: CanonicalField


@dataclass(frozen=True)
class SampleRules:
    """Rules for the places of samples, and for which of them count.

    Attributes:
        step: Distance between samples, metres.
        stratified: Shift each ray's samples by a random part of a step.
        noise: Standard deviation of noise on the raw density.
        alpha_threshold: Opacity under which a sample counts as empty; for rendering only.
        early_stop_eps: Samples behind less than this are not seen; for rendering only.
    """

    step: float
    stratified: bool = False
    noise: float = 0.0
    alpha_threshold: float = 0.0
    early_stop_eps: float = 0.0


def image_rules(step: float) -> SampleRules:
    """Rules of what is not trained on.

    Args:
        step: Distance between samples, metres.
    """
    return SampleRules(step, alpha_threshold=_IMAGE_ALPHA_THRESHOLD, early_stop_eps=_IMAGE_EARLY_STOP_EPS)


class Rays(NamedTuple):
    """Rays that all see one pose.

    Attributes:
        origins: Where they start, metres, in the world; one row where all start together.
        directions: Unit vectors.
    """

    origins: Float[Tensor, "#rays 3"]
    directions: Float[Tensor, "rays 3"]

    def in_root_space(self, body: PosedBody) -> tuple[Float[Tensor, "#rays 3"], Float[Tensor, "rays 3"]]:
        """Origins and directions in the root space of a pose, without gradient."""
        return self.origins_in_root_space(body), self.directions @ body.world_to_root[:3, :3].detach().T

    def origins_in_root_space(self, body: PosedBody) -> Float[Tensor, "#rays 3"]:
        """Origins in the root space of a pose, without gradient."""
        world_to_root = body.world_to_root.detach()
        return self.origins @ world_to_root[:3, :3].T + world_to_root[:3, 3]

    def points(self, body: PosedBody, ray: Tensor, distance: Float[Tensor, "samples"]) -> Float[Tensor, "samples 3"]:
        """Points on rays in the root space of a pose.

        They are moved there as points: so the gradient with respect to the pose is one product, not a sum over each
        ray's samples.

        Args:
            body: The pose.
            ray: Of each point.
            distance: From the ray's origin, metres.
        """
        points = self.origins.expand_as(self.directions)[ray] + self.directions[ray] * distance[:, None]
        return points @ body.world_to_root[:3, :3].T + body.world_to_root[:3, 3]
