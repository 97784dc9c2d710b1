"""A ball as the body, and a field around it."""

from __future__ import annotations

import pytest
import torch
import trimesh

from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.unseen.coverage import Coverage
from instantavatar_ns.unseen.prior import UnseenPrior
from tests.unseen.shells import RADIUS


@pytest.fixture
def prior() -> UnseenPrior:
    """A ball whose front has been seen from the front."""
    torch.manual_seed(0)
    ball = trimesh.creation.icosphere(4, RADIUS)
    vertices, faces = torch.from_numpy(ball.vertices).float(), torch.from_numpy(ball.faces).long()
    half = torch.full((3,), 0.5)
    prior = UnseenPrior(vertices, faces, VoxelBox(-half, half, (40, 40, 40)))
    seen = (vertices[:, 2] > 0).float()
    prior.observe(Coverage(seen, 0.99 * seen))
    return prior
