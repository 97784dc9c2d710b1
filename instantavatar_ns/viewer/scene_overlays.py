"""What the viewer draws beside the rendering: body, skeleton, grids, training cameras, and the background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer.viewer_elements import ViewerCheckbox, ViewerControl, ViewerRGB
from torch import Tensor
from viser import SceneApi, SceneNodeHandle

from instantavatar_ns.body.bank import PosedBody
from instantavatar_ns.occupancy.cells import OccupiedCells
from instantavatar_ns.viewer.folder import Folder, finite

_BONE_RADIUS, _EDGE_RADIUS = 0.012, 0.004  # metres
_BODY, _SKELETON, _BOX = "Body mesh", "Skeleton", "Union box"
_UNION_CELLS, _POSE_CELLS = "Union cells", "Pose cells"
# Floats, although viser says integers: it gets NaN for a word, and cannot make an integer of it.
_WHITE = (255.0, 255.0, 255.0)


@dataclass(frozen=True)
class ShownPose:
    """What overlays are drawn of.

    Attributes:
        key: Changes whenever anything else here does.
        body: The pose.
        cells: Gives its occupied cells, in root space; preparing them takes a while.
        union: The occupied cells of all training poses, in root space.
    """

    key: object
    body: PosedBody
    cells: Callable[[], OccupiedCells]
    union: OccupiedCells


@dataclass(frozen=True)
class CanonicalBody:
    """The person's body in the canonical pose.

    Attributes:
        vertices: Metres.
        faces: Vertices of each triangle.
        weights: Skinning weights.
        joints: Joints, metres.
        parents: Parent of each joint, -1 for the root.
    """

    vertices: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    weights: Float[Tensor, "vertices joints"]
    joints: Float[Tensor, "joints 3"]
    parents: tuple[int, ...]


class SceneOverlays(Folder):
    """Checkboxes of the overlays; they are drawn when an image has been rendered, so that both change together.

    Args:
        body: The person; may be replaced.
        control: Leads to nerfstudio's viewer once there is one.
    """

    def __init__(self, body: CanonicalBody, control: ViewerControl) -> None:
        super().__init__()
        self.body, self._control = body, control
        self._drawers: dict[str, Callable[[SceneApi, str, ShownPose], SceneNodeHandle]] = {
            _BODY: self._draw_body,
            _SKELETON: self._draw_skeleton,
            _BOX: self._draw_box,
            _UNION_CELLS: lambda scene, name, pose: _draw_cells(scene, name, pose.union, pose.body, (255, 150, 60)),
            _POSE_CELLS: lambda scene, name, pose: _draw_cells(scene, name, pose.cells(), pose.body, (110, 220, 110)),
        }
        hints = {
            _BODY: "The body model in this pose",
            _SKELETON: "Its joints and bones",
            _BOX: "The box of the training poses' grid, which moves with the pelvis",
            _UNION_CELLS: "What is occupied in any training pose",
            _POSE_CELLS: "What is occupied in this pose, and is rendered",
        }
        self._boxes = {name: self.add(ViewerCheckbox(name, False, hint=hints[name])) for name in self._drawers}
        self._cameras = self.add(ViewerCheckbox("Training cameras", True, cb_hook=self._show_cameras))
        self._background = self.add(ViewerRGB("Background", _WHITE))  # pyright: ignore[reportArgumentType]
        self._nodes: dict[str, tuple[object, SceneNodeHandle]] = {}

    @property
    def in_front(self) -> bool:
        """Whether something is shown that the person would hide, since it lies within."""
        return self._boxes[_BODY].value or self._boxes[_SKELETON].value

    def background(self, device: torch.device) -> Float[Tensor, "3"]:
        """Colour behind the person, 0 to 1."""
        values = [finite(value, 255.0, 0.0, 255.0) / 255 for value in self._background.value]
        return torch.tensor(values, device=device)

    def draw(self, pose: ShownPose) -> None:
        """Bring the scene up to date. What has not changed is not sent again."""
        scene = self._control.viser_server.scene
        for name, checkbox in self._boxes.items():
            key, node = self._nodes.get(name, (None, None))
            if not checkbox.value:
                if node is not None:
                    node.remove()
                    del self._nodes[name]
            elif key != pose.key:
                node = self._drawers[name](scene, f"/avatar/{name}", pose)
                self._nodes[name] = (pose.key, node)

    def _show_cameras(self, _: object) -> None:
        viewer: Viewer | None = getattr(self._control, "viewer", None)
        if viewer is None or not hasattr(viewer, "camera_handles"):
            return  # they are drawn right after the panel
        shown = self._cameras.value
        viewer.set_camera_visibility(shown)
        viewer.hide_images.visible, viewer.show_images.visible = shown, not shown

    # Each replaces the node of that name

    def _draw_body(self, scene: SceneApi, name: str, pose: ShownPose) -> SceneNodeHandle:
        bones = pose.body.bone_transforms
        transforms = (self.body.weights.to(bones) @ bones[:, :3].reshape(-1, 12)).view(-1, 3, 4)
        points = F.pad(self.body.vertices.to(bones), (0, 1), value=1.0)
        vertices = to_scene((transforms @ points[..., None])[..., 0], pose.body)
        faces = self.body.faces.cpu().numpy()
        return scene.add_mesh_simple(name, vertices, faces, color=(90, 170, 255), opacity=0.6, side="double")

    def _draw_skeleton(self, scene: SceneApi, name: str, pose: ShownPose) -> SceneNodeHandle:
        bones = pose.body.bone_transforms
        points = F.pad(self.body.joints.to(bones), (0, 1), value=1.0)
        joints = to_scene((bones[:, :3] @ points[..., None])[..., 0], pose.body)
        parents = np.array(self.body.parents[1:])
        vertices, faces = bars(joints[parents], joints[1:], _BONE_RADIUS * VISER_NERFSTUDIO_SCALE_RATIO)
        return scene.add_mesh_simple(name, vertices, faces, color=(255, 211, 105), flat_shading=True, side="double")

    def _draw_box(self, scene: SceneApi, name: str, pose: ShownPose) -> SceneNodeHandle:
        corner = torch.tensor([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], device=pose.union.aabb.device)
        corners = to_scene(torch.where(corner > 0, pose.union.aabb[3:], pose.union.aabb[:3]), pose.body)
        # Corners that differ in one bit are the ends of an edge.
        edges = np.array([(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit])
        radius = _EDGE_RADIUS * VISER_NERFSTUDIO_SCALE_RATIO
        vertices, faces = bars(corners[edges[:, 0]], corners[edges[:, 1]], radius)
        return scene.add_mesh_simple(name, vertices, faces, color=(255, 110, 110), flat_shading=True, side="double")


def _draw_cells(
    scene: SceneApi, name: str, cells: OccupiedCells, body: PosedBody, color: tuple[int, int, int]
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


def to_scene(points: Float[Tensor, "n 3"], body: PosedBody) -> Float[np.ndarray, "n 3"]:
    """From root space to the viewer's scene, which is nerfstudio's world enlarged; waits for the device."""
    rotation, translation = body.world_to_root[:3, :3], body.world_to_root[:3, 3]
    return ((points - translation) @ rotation * VISER_NERFSTUDIO_SCALE_RATIO).cpu().numpy()


def bars(
    starts: Float[np.ndarray, "bars 3"], ends: Float[np.ndarray, "bars 3"], radius: float
) -> tuple[Float[np.ndarray, "vertices 3"], Int[np.ndarray, "faces 3"]]:
    """Vertices and triangles of square bars, since viser's lines are curves, each a node of its own."""
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
