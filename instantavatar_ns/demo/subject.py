"""The demo subject: the free body, dressed and with hair, as one skinned mesh.

The body is refined by Loop subdivision, loosened under the clothes (smoothed, so that cloth does not follow every
muscle) and moved outwards by the thickness of cloth and hair; shoes are shells of their own round the feet. Every
vertex keeps its place on the naked body in the T-pose, on which colours depend (`demo_texture`), and the body's
skinning weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.spatial import ConvexHull, KDTree
from trimesh.remesh import subdivide

from instantavatar_ns.body.files import FREE_BODY
from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.demo.outfit import (
    Landmarks,
    belt_depth,
    find_landmarks,
    hair_depth,
    shirt_depth,
    shoe_depth,
    smooth_step,
    trousers_depth,
)
from instantavatar_ns.demo.palette import Noise

# Per-vertex masks that colours need, in the order of the columns of `DemoSubject.masks`.
MASKS = ("ears", "lips")
_OCCLUSION_RAYS = 24
_OCCLUSION_REACH = 0.25


@dataclass(frozen=True)
class DemoSubject:
    """A dressed person as a skinned mesh in the T-pose.

    Attributes:
        body: The naked body.
        betas: Its shape.
        landmarks: Places on the naked body.
        faces: Triangles.
        places: Where each vertex lies on the naked body in the T-pose, metres.
        vertices: The dressed surface in the T-pose, metres.
        weights: Skinning weights of SMPL's joints.
        masks: Membership of the regions `MASKS`, 0 to 1.
        openness: Share of ambient light that reaches each vertex, 0 to 1.
    """

    body: BodyModel
    betas: Float[ndarray, "10"]
    landmarks: Landmarks
    faces: Int[ndarray, "faces 3"]
    places: Float[ndarray, "vertices 3"]
    vertices: Float[ndarray, "vertices 3"]
    weights: Float[ndarray, "vertices joints"]
    masks: Float[ndarray, "vertices 2"]
    openness: Float[ndarray, " vertices"]

    def posed(
        self, poses: Float[ndarray, "joints 3"], transl: Float[ndarray, "3"]
    ) -> tuple[Float[ndarray, "vertices 3"], Float[ndarray, "vertices 3"]]:
        """The dressed surface in a pose.

        Args:
            poses: Axis-angle rotations of all joints, radians.
            transl: Translation, metres.

        Returns:
            Vertices in the world, metres, and their unit normals.
        """
        flat = torch.from_numpy(np.asarray(poses, np.float32).reshape(1, -1))
        shift = torch.from_numpy(np.asarray(transl, np.float32)[None])
        transforms = self.body.transforms(torch.from_numpy(self.betas), flat[:, :3], flat[:, 3:], shift).double()
        vertices = skinned(torch.from_numpy(self.vertices), torch.from_numpy(self.weights), transforms)[0].numpy()
        return vertices, vertex_normals(vertices, self.faces)


def make_subject(body: BodyModel, betas: Float[ndarray, "10"], levels: int, seed: int) -> DemoSubject:
    """Dress the free body.

    Args:
        body: The free body.
        betas: Shape coefficients.
        levels: Loop subdivisions of its mesh; each quarters the triangles.
        seed: Draws folds of cloth and locks of hair.
    """
    rest, joints = (tensor.numpy().astype(np.float64) for tensor in body.rest(torch.from_numpy(betas)))
    parts = free_body_parts()
    landmarks = find_landmarks(rest, joints, parts)
    faces = body.faces.numpy()
    loose = _loosened(rest, faces, landmarks)
    masks = np.stack([parts[name] for name in MASKS], axis=-1).astype(np.float64)
    columns = np.concatenate([rest, loose, masks, body.skinning_weights.numpy()], axis=1)
    for _ in range(levels):
        columns, faces = loop_subdivide(columns, faces)
    places, loose, masks, weights = np.split(columns, [3, 6, 6 + len(MASKS)], axis=1)
    vertices = _dressed(places, loose, ears=masks[:, 0], faces=faces, marks=landmarks, noise=Noise(seed))
    shoes = _shoes(places, weights, landmarks, levels)
    hidden = (shoe_depth(places, landmarks) > 0.015)[faces].all(axis=1)
    faces = np.concatenate([faces[~hidden], shoes[3] + len(places)])
    bare = (places, vertices, weights)
    places, vertices, weights = (np.concatenate(pair) for pair in zip(bare, shoes[:3], strict=True))
    masks = np.concatenate([masks, np.zeros((len(places) - len(masks), len(MASKS)))])
    return DemoSubject(
        body=body,
        betas=betas,
        landmarks=landmarks,
        faces=faces,
        places=places,
        vertices=vertices,
        weights=weights,
        masks=masks,
        openness=_openness(vertices, faces),
    )


def free_body_parts() -> dict[str, Bool[ndarray, " vertices"]]:
    """Vertices of the free body's regions by name."""
    with np.load(FREE_BODY) as archive:
        parts = archive["parts"]
        return {str(name): parts == index for index, name in enumerate(archive["part_names"])}


def loop_subdivide(
    values: Float[ndarray, "vertices channels"], faces: Int[ndarray, "faces 3"]
) -> tuple[Float[ndarray, "more channels"], Int[ndarray, "more_faces 3"]]:
    """One level of Loop subdivision of a closed mesh, for positions and any other values at its vertices.

    Splitting each triangle in four and then moving each vertex by three quarters towards its neighbours' mean is Loop's
    scheme (Warren and Schaefer, "A factored approach to subdivision surfaces", 2004).

    Args:
        values: At the vertices; positions are among them.
        faces: Triangles.
    """
    split, faces = subdivide(values, faces)[:2]
    return 0.25 * split + 0.75 * (neighbor_mean(faces, len(split)) @ split), faces


def neighbor_mean(faces: Int[ndarray, "faces 3"], num_vertices: int) -> sp.csr_matrix:
    """The operator [V, V] that gives each vertex the mean of its neighbours.

    Args:
        faces: Triangles.
        num_vertices: Vertices of the mesh.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    links = sp.coo_matrix((np.ones(len(edges)), edges.T), shape=(num_vertices, num_vertices)).tocsr()
    # An edge between two triangles was counted twice; a vertex without any edge gives zero.
    links.data[:] = 1.0
    return sp.diags(1.0 / np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1.0)) @ links


def vertex_normals(
    vertices: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"]
) -> Float[ndarray, "vertices 3"]:
    """Unit normals, the mean of the adjacent triangles', weighted by their angles at the vertex.

    Args:
        vertices: Positions, metres.
        faces: Triangles.
    """
    return np.array(trimesh.Trimesh(vertices, faces, process=False).vertex_normals)


def _loosened(
    rest: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"], marks: Landmarks
) -> Float[ndarray, "vertices 3"]:
    """The body smoothed under clothes and hair: muscles vanish under cloth."""
    operator = neighbor_mean(faces, len(rest))
    cloth = smooth_step(np.maximum(shirt_depth(rest, marks), trousers_depth(rest, marks)), 0.06)
    hair = smooth_step(hair_depth(rest, marks), 0.03)
    loose = rest
    for passes, share in ((10, cloth), (4, hair)):
        for _ in range(passes):
            loose = loose + 0.5 * share[:, None] * (operator @ loose - loose)
    return loose


def _shoes(
    places: Float[ndarray, "vertices 3"], weights: Float[ndarray, "vertices joints"], marks: Landmarks, levels: int
) -> tuple[
    Float[ndarray, "more 3"], Float[ndarray, "more 3"], Float[ndarray, "more joints"], Int[ndarray, "more_faces 3"]
]:
    """A pair of shoes: rounded convex hulls of the feet, as closed meshes of their own, so that no toes show.

    Returns:
        Places below the shoes' opening, dressed positions, skinning weights and faces.
    """
    ball = trimesh.creation.icosphere(subdivisions=3 + min(levels, 1))
    smooth = neighbor_mean(ball.faces, len(ball.vertices))
    shoes = []
    for side in (1.0, -1.0):
        foot = np.flatnonzero((places[:, 0] * side > 0.0) & (shoe_depth(places, marks) > 0.0))
        hull = ConvexHull(places[foot]).equations
        low, high = places[foot].min(axis=0), places[foot].max(axis=0)
        center = [0.5 * (low[0] + high[0]), low[1] + 0.025, 0.5 * (low[2] + high[2])]
        rays = ball.vertices * 0.5 * (high - low)
        reach = np.min(-(hull[:, :3] @ center + hull[:, 3]) / np.maximum(rays @ hull[:, :3].T, 1e-9), axis=1)
        surface = center + reach[:, None] * rays
        nearest = foot[KDTree(places[foot]).query(surface)[1]]
        skinning = weights[nearest]
        for _ in range(6):
            surface, skinning = smooth @ surface, smooth @ skinning
        dressed = surface + 0.010 * vertex_normals(surface, ball.faces)
        dressed[:, 1] = np.maximum(dressed[:, 1], marks.floor - 0.008)
        inside = surface.copy()
        inside[:, 1] = np.minimum(inside[:, 1], marks.shoe_top - 0.004)
        shoes.append((inside, dressed, skinning))
    faces = np.concatenate([ball.faces, ball.faces + len(ball.vertices)])
    inside, dressed, skinning = (np.concatenate(both) for both in zip(*shoes, strict=True))
    return inside, dressed, skinning, faces


def _dressed(
    places: Float[ndarray, "vertices 3"],
    loose: Float[ndarray, "vertices 3"],
    *,
    ears: Float[ndarray, " vertices"],
    faces: Int[ndarray, "faces 3"],
    marks: Landmarks,
    noise: Noise,
) -> Float[ndarray, "vertices 3"]:
    """The surface of clothes, shoes and hair where there are any, of the skin elsewhere."""
    normals = vertex_normals(loose, faces)
    height = places[:, 1]
    ankle, knee = marks.joints["left_ankle"], marks.joints["left_knee"]

    # The tucked shirt bulges over the belt; sleeves hang wider than the arm.
    folds = noise(places * [9.0, 14.0, 9.0]) - 0.5
    bulge = 0.009 * np.exp(-(((height - marks.waist - 0.035) / 0.03) ** 2))
    along_arm = np.clip((np.abs(places[:, 0]) - 0.2) / (marks.sleeve_end - 0.2), 0.0, 1.0)
    shirt = 0.010 + bulge + 0.006 * along_arm + 0.010 * folds

    # Calves taper and trousers do not; cloth piles up over the shoe.
    below_knee = np.clip((knee[1] - height) / (knee[1] - ankle[1]), 0.0, 1.0)
    piled = np.exp(-(((height - marks.trouser_hem) / 0.09) ** 2)) * np.sin(height * 150.0)
    trousers = 0.009 + 0.019 * below_knee + 0.010 * (noise(places * [8.0, 13.0, 8.0] + 7.0) - 0.5) + 0.002 * piled
    trousers += 0.004 * smooth_step(belt_depth(places, marks), 0.006)

    crown = np.clip((height - marks.eyes[1]) / 0.11, 0.0, 1.0)
    hair = (0.009 + 0.013 * crown + 0.012 * (noise(places * 42.0) - 0.5)) * (1.0 - ears)

    out = places
    for depth, width, thickness in (
        (trousers_depth(places, marks), 0.010, trousers),
        (shirt_depth(places, marks), 0.010, shirt),
        (hair_depth(places, marks), 0.016, hair),
    ):
        share = (smooth_step(depth, width) * (1.0 - ears * (thickness is hair)))[:, None]
        out = out + share * (loose + thickness[:, None] * normals - out)
    return out


def _openness(vertices: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"]) -> Float[ndarray, " vertices"]:
    """Ambient occlusion in the T-pose: share of cosine-weighted directions in which nothing of the body is near."""
    normals = vertex_normals(vertices, faces)
    scene = EmbreeScene()
    TriangleMesh(scene, vertices.astype(np.float32), faces.astype(np.int32))
    origins = (vertices + 1e-3 * normals).astype(np.float32)
    open_share = np.zeros(len(vertices))
    golden = np.pi * (3.0 - np.sqrt(5.0))
    for ray in range(_OCCLUSION_RAYS):
        # Unit sphere points added to the normal are cosine-distributed about it.
        z = 1.0 - 2.0 * (ray + 0.5) / _OCCLUSION_RAYS
        ring = np.sqrt(1.0 - z * z)
        directions = normals + np.array([ring * np.cos(golden * ray), ring * np.sin(golden * ray), z])
        directions /= np.maximum(np.linalg.norm(directions, axis=-1, keepdims=True), 1e-6)
        hits = scene.run(origins, directions.astype(np.float32), output=1)
        distance = np.where(hits["primID"] >= 0, hits["tfar"], np.inf)
        open_share += np.clip(distance / _OCCLUSION_REACH, 0.0, 1.0)
    smooth = neighbor_mean(faces, len(vertices))
    return smooth @ (smooth @ (open_share / _OCCLUSION_RAYS))
