"""Bodies of fewer and of more joints than SMPL's, from their arrays to posed grids and an exported skeleton."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from instantavatar_ns.body.canonical import canonical_vertices
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.posed import PosedBody, pose_body, rest_sequence
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.body.rig import Rig
from instantavatar_ns.correction.refinement import PoseRefinement, surface_coordinates
from instantavatar_ns.deformer.candidates import MOST_BONES
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.deformer.search import RootBuffer
from instantavatar_ns.export.skeleton import make_clip, make_skeleton, strongest_bones
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy
from instantavatar_ns.occupancy.posed_grid import PoseUnionGrid, cell_edge, pose_cells, posed_bounds
from instantavatar_ns.utils.errors import InputError

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BETAS, FRAMES, RADIUS, LENGTH = torch.zeros(10), 3, 0.05, 2.0


class Search(NamedTuple):
    """Posed points, the bones whose gradient is asked for, masks of the bones to start from, and the roots found."""

    points: Tensor
    bones: Tensor
    masks: Tensor
    roots: RootBuffer


def worm(num_joints: int) -> BodyModel:
    """A tube along x with a root amid it and joints at equal distances; each vertex follows the nearest ones."""
    link = LENGTH / num_joints
    half = num_joints // 2
    order = [(0, 0), *((side, place) for place in range(1, half + 1) for side in (1, -1))][:num_joints]
    index = {place: joint for joint, place in enumerate(order)}
    names = ("root", *(f"{'left' if side > 0 else 'right'}{place}" for side, place in order[1:]))
    parents = (-1, *(index.get((side, place - 1), 0) for side, place in order[1:]))
    mirror = tuple(index.get((-side, place), joint) for joint, (side, place) in enumerate(order))
    joints = np.array([[side * place * link, 0.0, 0.0] for side, place in order])
    ring = RADIUS * np.array([[0.0, np.cos(angle), np.sin(angle)] for angle in np.arange(8) * np.pi / 4])
    along = np.linspace(joints[:, 0].min() - link / 2, joints[:, 0].max() + link / 2, 8 * num_joints)
    vertices = (np.array([1.0, 0.0, 0.0]) * along[:, None, None] + ring).reshape(-1, 3)
    closeness = np.exp(-((np.abs(vertices[:, None] - joints).sum(axis=-1) / (0.4 * link)) ** 2))
    regressor = np.zeros((num_joints, len(vertices)))
    for joint, place in enumerate(joints):
        nearest = np.abs(vertices[:, 0] - place[0]) < 1.1 * link
        # Weights that sum to 1 and whose mean is the joint.
        system = np.concatenate([np.ones((1, nearest.sum())), vertices[nearest].T])
        regressor[joint, nearest] = np.linalg.lstsq(system, np.array([1.0, *place]), rcond=None)[0]
    rows = np.arange(len(along) - 1)[:, None] * 8
    data = {
        "v_template": vertices.astype(np.float32),
        "f": np.concatenate([rows + np.array(corners) for corners in ([0, 8, 1], [1, 8, 9])]),
        "weights": (closeness / closeness.sum(axis=1, keepdims=True)).astype(np.float32),
        "J_regressor": regressor.astype(np.float32),
        "kintree_table": np.array([parents, range(num_joints)]),
        "shapedirs": np.zeros((len(vertices), 3, 10), np.float32),
        "posedirs": np.zeros((len(vertices), 3, 9 * (num_joints - 1)), np.float32),
    }
    return BodyModel(data, Rig(names, parents, mirror, {"left1": (0.0, 0.0, 0.3), "right1": (0.0, 0.0, -0.3)}))


def random_poses(body: BodyModel) -> PoseSequence:
    generator = torch.Generator().manual_seed(body.num_joints)
    body_pose = 2 / body.num_joints * torch.randn(FRAMES, 3 * body.num_joints - 3, generator=generator)
    global_orient, transl = torch.randn(2, FRAMES, 3, generator=generator)
    return PoseSequence(BETAS, global_orient, body_pose, transl)


@pytest.fixture(scope="module", params=[17, 55])  # fewer than SMPL's, and more than a mask of 32 bits holds
def body(request: pytest.FixtureRequest) -> BodyModel:
    return worm(request.param)


@pytest.fixture(scope="module")
def poses(body: BodyModel) -> PoseSequence:
    return random_poses(body)


@pytest.fixture(scope="module")
def posed_body(body: BodyModel, poses: PoseSequence) -> PosedBody:
    return pose_body(body, poses, torch.eye(4))


@pytest.fixture(scope="module")
def deformer(body: BodyModel) -> FastSnarfDeformer:
    return FastSnarfDeformer(canonical_vertices(body, BETAS), body.skinning_weights, (128, 48, 12)).to(DEVICE)


def by_kernels(deformer: FastSnarfDeformer) -> FastSnarfDeformer:
    kernels = FastSnarfDeformer.__new__(FastSnarfDeformer)
    kernels.__dict__.update(deformer.__dict__)
    kernels.settings = replace(deformer.settings, implementation="triton")
    return kernels


def surface_points(body: BodyModel) -> Tensor:
    """Points on the canonical surface, from one end to the other."""
    vertices = canonical_vertices(body, BETAS)
    return vertices[:: max(len(vertices) // 200, 1)].to(DEVICE)


def test_rest_pose_is_the_rigs(body: BodyModel, poses: PoseSequence) -> None:
    """Standing in frame 1, in its orientation, with the canonical pose's two rotations and no others."""
    rest = rest_sequence(body, poses, 1)
    assert body.num_joints == rest.axis_angles.shape[1] == len(body.parents)
    turned = rest.axis_angles[0, 1:].nonzero().tolist()
    assert turned == [[0, 2], [1, 2]] and torch.equal(rest.global_orient[0], poses.global_orient[1])
    bones = pose_body(body, rest, torch.eye(4)).bone_transforms
    torch.testing.assert_close(bones, torch.eye(4).expand(1, body.num_joints, 4, 4), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def searches(body: BodyModel, posed_body: PosedBody, deformer: FastSnarfDeformer) -> dict[str, Search]:
    """A search of the same posed points by each implementation: it takes nearly all of the time here."""
    bones = posed_body.bone_transforms[2].to(DEVICE)
    points = deformer.skin(surface_points(body), bones)
    made = {}
    for name, used in (("torch", deformer), ("triton", by_kernels(deformer))):
        leaf = bones.clone().requires_grad_()
        posed = used.pose(bones)
        roots = used.find_correspondences_into(points, replace(posed, bone_transforms=leaf), 1000)
        made[name] = Search(points, leaf, posed.candidates.masks, roots)
    return made


def test_search_finds_the_points_that_were_skinned(
    body: BodyModel, deformer: FastSnarfDeformer, searches: dict[str, Search]
) -> None:
    """Each implementation finds nearly every canonical point among the roots of its posed point."""
    canonical = surface_points(body)
    found = {}
    for name, (points, bones, _, roots) in searches.items():
        row = torch.full((len(canonical),), torch.inf, device=DEVICE)
        total = int(roots.total)
        point, root = roots.point[:total].long(), roots.canonical[:total].detach()
        row.scatter_reduce_(0, point, (root - canonical[point]).norm(dim=-1), "amin")
        found[name] = float((row < 1e-3).float().mean())
        torch.testing.assert_close(deformer.skin(root, bones.detach()), points[point], atol=2e-5, rtol=0)
    assert found["torch"] > 0.9 and abs(found["torch"] - found["triton"]) < 0.02


def test_candidates_of_both_implementations_are_the_same(body: BodyModel, searches: dict[str, Search]) -> None:
    expected, masks = searches["torch"].masks, searches["triton"].masks
    assert masks.dtype == expected.dtype == (torch.int32 if body.num_joints < 32 else torch.int64)
    assert (expected != masks).float().mean() < 1e-3  # a voxel's posed place may round to either side of a face
    named = (expected[:, None] >> torch.arange(body.num_joints, device=DEVICE) & 1).any(dim=0)
    assert named.all(), "each bone explains some voxel"


def test_gradients_of_the_bones_are_those_of_torch(searches: dict[str, Search]) -> None:
    gradients = []
    for _, bones, _, roots in searches.values():
        rows = roots.counts == 1
        canonical = roots.canonical[roots.starts[rows].long()]
        gradients.append(torch.autograd.grad(canonical.square().sum(), bones)[0][:, :3])
    assert gradients[0].abs().amax(dim=(1, 2)).min() > 0
    torch.testing.assert_close(*gradients, atol=2e-3 * float(gradients[0].abs().max()), rtol=0)


@pytest.mark.parametrize("body", [55], indirect=True)  # kernels take 17 joints as they take SMPL's, as 32
def test_posed_grids_hold_the_posed_body(body: BodyModel, posed_body: PosedBody) -> None:
    vertices = canonical_vertices(body, BETAS)
    deformer = FastSnarfDeformer(vertices, body.skinning_weights, (64, 24, 6)).to(DEVICE)
    occupancy = CanonicalOccupancy(deformer.box).to(DEVICE)
    occupancy.start_near(vertices, 0.02)
    lower, upper = posed_bounds(vertices, body.skinning_weights, posed_body.bone_transforms)
    bones = posed_body.bone_transforms.to(DEVICE)
    grids = []
    for implementation in ("torch", "triton"):
        grid = PoseUnionGrid(lower - 0.3, upper + 0.3, cell_edge(occupancy), implementation).to(DEVICE)
        grid.refresh(occupancy, deformer, bones)
        grids.append(grid.binaries[0])
        cells = pose_cells(occupancy, deformer, bones[0], implementation)
        posed = deformer.skin(vertices.to(DEVICE), bones[0])
        size = torch.tensor(cells.binaries.shape, device=DEVICE)
        place = ((posed - cells.aabb[:3]) / (cells.aabb[3:] - cells.aabb[:3]) * size).long()
        assert cells.binaries[tuple(place.unbind(dim=-1))].float().mean() > 0.99
    assert 0 < grids[0].float().mean() < 0.9 and (grids[0] != grids[1]).float().mean() < 1e-3


def test_skeleton_poses_the_body(body: BodyModel, poses: PoseSequence) -> None:
    """The export's local transforms, multiplied up the hierarchy, skin the mesh as the body model does."""
    skeleton = make_skeleton(body, BETAS)
    clip = make_clip("clip", poses, 30.0, skeleton)
    assert skeleton.names == list(body.rig.joint_names) and clip.rotations.shape == (FRAMES, body.num_joints, 4)
    chain: list[np.ndarray] = []
    for joint, parent in enumerate(skeleton.parents):
        local = np.eye(4)
        local[:3, :3] = Rotation.from_quat(clip.rotations[1, joint]).as_matrix()
        local[:3, 3] = skeleton.offsets[joint] if parent >= 0 else clip.root[1]
        chain.append(chain[parent] @ local if parent >= 0 else local)
    matrices = np.stack(chain) @ skeleton.inverse_bind
    canonical = np.concatenate([canonical_vertices(body, BETAS).numpy(), np.ones((len(body.skinning_weights), 1))], 1)
    skinned = np.einsum("vj,jrc,vc->vr", body.skinning_weights.numpy(), matrices[:, :3], canonical)
    rows = (poses.betas, poses.global_orient[1:2], poses.body_pose[1:2], poses.transl[1:2])
    stiff = body.skinning_weights.amax(dim=1).numpy() > 0.999  # skinning twice blends twice
    assert stiff.sum() > 50
    np.testing.assert_allclose(skinned[stiff], body.vertices(*rows)[0].numpy()[stiff], atol=1e-3)
    bones, weights = strongest_bones(body.skinning_weights.numpy())
    assert bones.max() == body.num_joints - 1 and np.allclose(weights.sum(axis=1), 1, atol=1e-6)


def test_poses_can_be_corrected(body: BodyModel, poses: PoseSequence) -> None:
    coordinates = surface_coordinates(body, poses)
    refinement = PoseRefinement(body, poses, torch.arange(float(FRAMES)), torch.eye(4), coordinates)
    assert refinement.corrections().shape == (FRAMES, body.num_joints + 1, 3)
    torch.testing.assert_close(
        refinement.bone_transforms, pose_body(body, poses, torch.eye(4)).bone_transforms, atol=1e-5, rtol=0
    )


def test_more_joints_than_the_search_can_name() -> None:
    body = worm(MOST_BONES + 2)
    with pytest.raises(InputError, match=f"at most {MOST_BONES} joints, found {MOST_BONES + 2}"):
        FastSnarfDeformer(canonical_vertices(body, BETAS), body.skinning_weights, (32, 16, 8))


def test_rig_and_arrays_must_have_the_same_tree() -> None:
    body = worm(17)
    data = {"kintree_table": np.array([[-1, *range(16)], range(17)])}
    with pytest.raises(ValueError, match="parents"):
        BodyModel(data, body.rig)
