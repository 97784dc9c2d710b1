"""A person with a random field, and rays at it. On the GPU if there is one, else for Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.deformer.search import SearchSettings
from instantavatar_ns.deformer.skinning_grid import canonical_box
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.field.hash_encoding import HashGrid
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.rendering.inputs import Avatar, Rays
from tests.avatars import Avatar as Body
from tests.avatars import body_density, random_bones
from tests.rendering.scenes import DEVICE, Scene, posed


@pytest.fixture(scope="module")
def scene(small_avatar: Body) -> Scene:
    """Rays at a person with a random field in the body's occupied cells."""
    torch.manual_seed(0)
    body, search = small_avatar.body, SearchSettings(implementation="triton")
    resolution = small_avatar.deformer.box.resolution
    deformer = FastSnarfDeformer(small_avatar.vertices, body.skinning_weights, resolution, search)
    occupancy = CanonicalOccupancy(deformer.box)
    occupancy.refresh(body_density(small_avatar.vertices, small_avatar.body.faces))
    occupancy, deformer = occupancy.to(DEVICE), deformer.to(DEVICE)
    field = CanonicalField(*canonical_box(small_avatar.vertices), HashGrid(4, 10), 16, "torch")
    with torch.no_grad():
        # Before it goes to the GPU, which would draw other numbers: the same field, and as many samples, anywhere.
        field.encoding.params.normal_()
        field.density_head.params.mul_(12)
    field = field.to(DEVICE)
    bones = random_bones(small_avatar.body, 1)[0].to(DEVICE)
    world_to_root = torch.eye(4, device=DEVICE)
    world_to_root[:3, 3] = torch.tensor([0.1, -0.05, 0.2])
    x, y = torch.meshgrid(torch.linspace(-0.5, 0.5, 6), torch.linspace(-0.9, 0.6, 6), indexing="ij")
    target = torch.stack([x, y, torch.zeros_like(x)], dim=-1).view(-1, 3)
    origins = torch.tensor([0.2, 0.1, 2.0]).expand_as(target)
    rays = Rays(origins.to(DEVICE), torch.nn.functional.normalize(target - origins, dim=-1).to(DEVICE))
    avatar = Avatar(deformer, occupancy, field)
    return Scene(rays, bones, world_to_root, avatar, posed(avatar, bones, world_to_root))
