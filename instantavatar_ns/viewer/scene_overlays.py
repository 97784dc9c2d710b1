"""Drawings beside the rendering: body, skeleton, grids, training cameras, and the background."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer.viewer_elements import ViewerCheckbox, ViewerControl, ViewerText
from PIL import ImageColor
from torch import Tensor
from viser import SceneApi, SceneNodeHandle

from instantavatar_ns.body.canonical import canonical_vertices
from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.occupancy.cells import OccupiedCells
from instantavatar_ns.viewer.folder import Folder, Message
from instantavatar_ns.viewer.joint_sliders import Skeleton, canonical_skeleton

_BONE_RADIUS, _EDGE_RADIUS = 0.012, 0.004  # metres
_BODY, _SKELETON, _BOX = "Body mesh", "Skeleton", "Union box"
_SEEN = "Seen"
_UNION_CELLS, _POSE_CELLS = "Union cells", "Pose cells"
_SEEN_COLOR, _UNSEEN_COLOR = (90, 200, 120), (235, 80, 60)


@dataclass(frozen=True)
class CanonicalBody:
    """The person's body in the canonical pose.

    Attributes:
        body: The body.
        vertices: Metres.
        skeleton: Its joints.
    """

    body: BodyModel
    vertices: Float[Tensor, "vertices 3"]
    skeleton: Skeleton

    @classmethod
    def of(cls, body: BodyModel, betas: Float[Tensor, "10"]) -> CanonicalBody:
        """Pose a body of given shape."""
        return cls(body, canonical_vertices(body, betas), canonical_skeleton(body, betas))


class SceneOverlays(Folder):
    """Checkboxes of the overlays; they are drawn when an image has been rendered, so that both change together.

    Args:
        control: Leads to nerfstudio's viewer once there is one.
        unseen: Gives, of each vertex of the body, how little the training views show it, 0 to 1; None where that is
            not known.
    """

    def __init__(
        self, control: ViewerControl, unseen: Callable[[], Float[Tensor, "vertices"] | None] = lambda: None
    ) -> None:
        super().__init__("Scene")
        self._control, self._unseen = control, unseen
        hints = {
            _SEEN: "The body model, green where training views show it and red where none does",
            _BODY: "The body model in this pose",
            _SKELETON: "Its joints and bones",
            _BOX: "The box of the training poses' grid, which moves with the pelvis",
            _UNION_CELLS: "What is occupied in any training pose",
            _POSE_CELLS: "What is occupied in this pose, and is rendered",
        }
        # A field for text: in viser's own for colours nothing can be typed but a whole code at once.
        hint = "A colour: #204060, or a name such as gray"
        self._background = self.add(ViewerText("Background", "#ffffff", hint=hint))
        self._cameras = self.add(ViewerCheckbox("Training cameras", True, cb_hook=self._show_cameras))
        self._boxes = {name: self.add(ViewerCheckbox(name, False, hint=hints[name])) for name in hints}
        self._message = self.add(Message())
        self._color = (255, 255, 255)  # the last that was one
        self._nodes: dict[str, tuple[PosedBody, SceneNodeHandle]] = {}

    @property
    def in_front(self) -> bool:
        """Return True if something is shown that the person would hide, since it lies within."""
        return any(self._boxes[name].value for name in (_SEEN, _BODY, _SKELETON))

    def background(self, device: torch.device) -> Float[Tensor, "3"]:
        """Colour behind the person, 0 to 1."""
        # While a code is being typed, the colour before stays.
        with suppress(ValueError):
            self._color = ImageColor.getrgb(self._background.value.strip())[:3]
        return torch.tensor(self._color, device=device) / 255

    def draw(
        self, person: CanonicalBody, body: PosedBody, cells: Callable[[], OccupiedCells], union: OccupiedCells
    ) -> None:
        """Bring the scene up to date. What has not changed is not sent again.

        Args:
            person: The body that is drawn.
            body: The pose; another object whenever anything here has changed.
            cells: Gives its occupied cells, in root space; preparing them takes a while.
            union: The occupied cells of all training poses, in root space.
        """
        drawers: dict[str, Callable[[SceneApi, str], SceneNodeHandle]] = {
            _SEEN: partial(self._draw_seen, person, body),
            _BODY: partial(_draw_body, person, body),
            _SKELETON: partial(_draw_skeleton, person.skeleton, body),
            _BOX: partial(_draw_box, union, body),
            _UNION_CELLS: lambda scene, name: _draw_cells(union, body, (255, 150, 60), scene, name),
            _POSE_CELLS: lambda scene, name: _draw_cells(cells(), body, (110, 220, 110), scene, name),
        }
        scene = self._control.viser_server.scene
        for name, checkbox in self._boxes.items():
            drawn, node = self._nodes.get(name, (None, None))
            if name == _SEEN and checkbox.value and self._unseen() is None:
                checkbox.value = False
                self._message.text = "What the training views show was not recorded with this run."
            if not checkbox.value:
                if node is not None:
                    node.remove()
                    del self._nodes[name]
            elif drawn is not body:
                self._nodes[name] = body, drawers[name](scene, f"/avatar/{name}")

    def _show_cameras(self, _: object) -> None:
        viewer: Viewer | None = getattr(self._control, "viewer", None)
        if viewer is None or not hasattr(viewer, "camera_handles"):
            return  # they are drawn right after the panel
        viewer.set_camera_visibility(self._cameras.value)

    def _draw_seen(self, person: CanonicalBody, body: PosedBody, scene: SceneApi, name: str) -> SceneNodeHandle:
        import trimesh  # here: nerfstudio's commands start without it

        unseen = self._unseen()
        assert unseen is not None
        share = unseen.cpu().numpy()[:, None]
        colors = (1 - share) * np.array(_SEEN_COLOR) + share * np.array(_UNSEEN_COLOR)
        vertices, faces = _posed_body(person, body), person.body.faces.cpu().numpy()
        mesh = trimesh.Trimesh(vertices, faces, vertex_colors=colors.round().astype(np.uint8), process=False)
        return scene.add_mesh_trimesh(name, mesh)


# Each replaces the node of that name


def _posed_body(person: CanonicalBody, body: PosedBody) -> Float[np.ndarray, "vertices 3"]:
    """Vertices of the body in a pose, in the viewer's scene."""
    return to_scene(posed_vertices(person, body), body)


def _draw_body(person: CanonicalBody, body: PosedBody, scene: SceneApi, name: str) -> SceneNodeHandle:
    faces = person.body.faces.cpu().numpy()
    return scene.add_mesh_simple(
        name, _posed_body(person, body), faces, color=(90, 170, 255), opacity=0.6, side="double"
    )


def _draw_skeleton(skeleton: Skeleton, body: PosedBody, scene: SceneApi, name: str) -> SceneNodeHandle:
    frames = body.bone_transforms @ skeleton.frames.to(body.bone_transforms)
    joints = to_scene(frames[:, :3, 3], body)
    parents = np.array(skeleton.parents[1:])
    vertices, faces = bars(joints[parents], joints[1:], _BONE_RADIUS * VISER_NERFSTUDIO_SCALE_RATIO)
    return scene.add_mesh_simple(name, vertices, faces, color=(255, 211, 105), flat_shading=True, side="double")


def _draw_box(union: OccupiedCells, body: PosedBody, scene: SceneApi, name: str) -> SceneNodeHandle:
    corner = torch.tensor([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], device=union.aabb.device)
    corners = to_scene(torch.where(corner > 0, union.aabb[3:], union.aabb[:3]), body)
    # Corners that differ in one bit are the ends of an edge.
    edges = np.array([(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit])
    radius = _EDGE_RADIUS * VISER_NERFSTUDIO_SCALE_RATIO
    vertices, faces = bars(corners[edges[:, 0]], corners[edges[:, 1]], radius)
    return scene.add_mesh_simple(name, vertices, faces, color=(255, 110, 110), flat_shading=True, side="double")


def _draw_cells(
    cells: OccupiedCells, body: PosedBody, color: tuple[int, int, int], scene: SceneApi, name: str
) -> SceneNodeHandle:
    """The middles of the outermost occupied cells; the others cannot be seen."""
    free = F.pad(~cells.binaries, (1,) * 6, value=True)
    near_free = torch.stack([free.roll(shift, axis) for axis in range(3) for shift in (-1, 1)]).any(dim=0)
    surface = cells.binaries & near_free[1:-1, 1:-1, 1:-1]
    size = torch.tensor(cells.binaries.shape, device=cells.aabb.device)
    edges = (cells.aabb[3:] - cells.aabb[:3]) / size
    points = to_scene(cells.aabb[:3] + (surface.nonzero() + 0.5) * edges, body)
    # Small, so that the person remains visible in between.
    size = float(edges.min()) / 12 * VISER_NERFSTUDIO_SCALE_RATIO
    return scene.add_point_cloud(name, points, color, point_size=size)


def posed_vertices(person: CanonicalBody, body: PosedBody) -> Float[Tensor, "vertices 3"]:
    """Vertices of the body in a pose, metres, in root space.

    Args:
        person: The body in the canonical pose.
        body: The pose; the result is on its device.
    """
    bones = body.bone_transforms
    return skinned(person.vertices.to(bones), person.body.skinning_weights.to(bones), bones[None])[0]


def to_scene(points: Float[Tensor, "n 3"], body: PosedBody) -> Float[np.ndarray, "n 3"]:
    """Move points from root space to the viewer's scene, nerfstudio's world enlarged; blocks the host.

    Args:
        points: In root space, metres.
        body: The pose whose root space that is.

    Returns:
        Points of the scene, `VISER_NERFSTUDIO_SCALE_RATIO` to a metre.
    """
    rotation, translation = body.world_to_root[:3, :3], body.world_to_root[:3, 3]
    return ((points - translation) @ rotation * VISER_NERFSTUDIO_SCALE_RATIO).cpu().numpy()


def bars(
    starts: Float[np.ndarray, "bars 3"], ends: Float[np.ndarray, "bars 3"], radius: float
) -> tuple[Float[np.ndarray, "vertices 3"], Int[np.ndarray, "faces 3"]]:
    """Vertices and triangles of square bars, since viser's lines are curves, each a node of its own.

    Args:
        starts: One end of each bar.
        ends: The other.
        radius: From the middle of a bar to its long edges, in the unit of the ends.
    """
    along = ends - starts
    # The coordinate axis that is farthest from the bar's direction gives a first direction across it.
    across = np.cross(along, np.eye(3)[np.abs(along).argmin(axis=1)])
    across /= np.linalg.norm(across, axis=1, keepdims=True).clip(1e-12)
    other = np.cross(along, across)
    other /= np.linalg.norm(other, axis=1, keepdims=True).clip(1e-12)
    ring = radius * np.stack([across, other, -across, -other], axis=1)
    vertices = np.concatenate([starts[:, None] + ring, ends[:, None] + ring], axis=1)
    sides = [(i, (i + 1) % 4, i + 4) for i in range(4)] + [((i + 1) % 4, (i + 1) % 4 + 4, i + 4) for i in range(4)]
    caps = [(0, 2, 1), (0, 3, 2), (4, 5, 6), (4, 6, 7)]
    faces = np.array(sides + caps) + 8 * np.arange(len(starts))[:, None, None]
    return vertices.reshape(-1, 3), faces.reshape(-1, 3)
