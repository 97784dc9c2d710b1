"""A trained model as a mesh: its surface, skin, colours and poses, in an upright world."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Float32, UInt8
from numpy import ndarray
from scipy.spatial import KDTree
from torch import Tensor

from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.posed import PosedBody, rest_sequence
from instantavatar_ns.deformer.voxels import interpolate
from instantavatar_ns.export.gltf import SkinnedMesh, glb_bytes
from instantavatar_ns.export.mesh_files import obj_files, ply_bytes, png_bytes
from instantavatar_ns.export.normal_map import bake_normals
from instantavatar_ns.export.photographs import Photographs, Places, photographed_colors
from instantavatar_ns.export.rigged import RiggedAvatar
from instantavatar_ns.export.silhouettes import fitted_to_masks
from instantavatar_ns.export.skeleton import Clip, Skeleton, make_clip, make_skeleton, strongest_bones
from instantavatar_ns.export.surface import Body, Surface, extract_surface
from instantavatar_ns.export.texture import Shade, UnwrappedSurface, bake, surface_colors, unwrap
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.motion import Motion

_ONE_SIDED = 0.3  # of the prior's measure, 0 to 1: from here on views do not tell a surface's depth
# From nerfstudio's world, z up, to glTF's, y up.
_Z_UP_TO_Y_UP = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def model_surface(
    model: InstantAvatarModel, voxel_size: float, max_faces: int, photographs: Photographs | None = None
) -> Surface:
    """Surface of a trained model.

    Args:
        model: A trained model.
        voxel_size: Distance of the density's samples, metres.
        max_faces: Triangles to keep.
        photographs: Frames whose masks say how wide the person is; without them it is the density alone.

    Raises:
        InputError: The model has not been trained enough to have a surface.
    """
    prior = model.unseen
    body = Body(
        prior.vertices.cpu().numpy(),
        prior.faces.cpu().numpy(),
        hand_vertices(model.poses.body),
        guessed_vertices(model),
    )
    surface = extract_surface(
        lambda points: model.field.density(points)[0],
        model.canonical_occupancy,
        voxel_size,
        max_faces,
        unseen_points(model),
        body,
    )
    return surface if photographs is None else fitted_to_masks(surface, photographs, model.deformer.skin)


def hand_vertices(body: BodyModel) -> Bool[ndarray, "vertices"]:
    """Vertices of a body that move with a wrist, or with what hangs on it, more than with the rest.

    Args:
        body: Of any rig; one without joints of the name `wrist` has no hands.
    """
    hands: set[int] = set()
    for joint, (name, parent) in enumerate(zip(body.rig.joint_names, body.rig.parents, strict=True)):
        if "wrist" in name or parent in hands:
            hands.add(joint)
    return (body.skinning_weights[:, sorted(hands)].sum(dim=1) > 0.5).cpu().numpy()


def guessed_vertices(model: InstantAvatarModel) -> Bool[ndarray, "vertices"] | None:
    """At which vertices of the body no view tells the depth, or all from one side; None where most is seen all round.

    Args:
        model: A trained model.
    """
    prior = model.unseen
    if not prior.active:
        return None
    return ((prior.unseen > 0) | (prior.one_sided > _ONE_SIDED)).cpu().numpy()


def unseen_points(model: InstantAvatarModel) -> Callable[[Float[ndarray, "n 3"]], Bool[ndarray, "n"]] | None:
    """Function that marks canonical points beside vertices that no training view shows; None without coverage.

    Args:
        model: A trained model.
    """
    prior = model.unseen
    if prior is None or not prior.has_observed:
        return None
    tree, unseen = KDTree(prior.vertices.cpu().numpy()), prior.unseen.cpu().numpy() > 0
    return lambda points: unseen[tree.query(points, workers=-1)[1]]


class AvatarMesh:
    """The surface of a trained avatar, and what is needed to write it to a file.

    The upright world is nerfstudio's, with y up and the floor, the lowest point of the rest pose, at y = 0.

    Args:
        model: A trained model.
        surface: Its surface, from `model_surface`.
        photographs: Frames whose colours textures take where they show the surface; without them, and where they do
            not, it is the field's.
        shade: Gives density and colour of canonical points, by default the model's field.
    """

    def __init__(
        self,
        model: InstantAvatarModel,
        surface: Surface,
        photographs: Photographs | None = None,
        shade: Shade | None = None,
    ) -> None:
        self.model, self.surface, self.photographs = model, surface, photographs
        self._field = shade or model.field
        self._rigged: tuple[int, RiggedAvatar] | None = None
        self._layout: tuple[int, UnwrappedSurface] | None = None
        self.poses, self.world_to_dataset = model.subject.poses, model.subject.world_to_dataset
        self._world_to_upright = _Z_UP_TO_Y_UP.clone()
        self._world_to_upright[1, 3] = -float(self.posed_vertices(model.poses.rest)[:, 1].min())

    @property
    def dataset_to_upright(self) -> Float[ndarray, "4 4"]:
        """Rigid transform from the dataset's world to the upright one."""
        return (self._world_to_upright.double() @ torch.linalg.inv(self.world_to_dataset.double().cpu())).numpy()

    def root_to_upright(self, pose: PosedBody) -> Float[Tensor, "4 4"]:
        """Rigid transform from a pose's root space to the upright world, on the CPU."""
        return self._world_to_upright @ torch.linalg.inv(pose.world_to_root.cpu())

    @torch.no_grad()
    def posed_vertices(self, pose: PosedBody) -> Float[ndarray, "vertices 3"]:
        """The surface's vertices in a pose, in the upright world, metres."""
        device = self.model.device
        canonical = torch.from_numpy(self.surface.vertices).to(device)
        vertices = self.model.deformer.skin(canonical, pose.bone_transforms.to(device)).cpu()
        transform = self.root_to_upright(pose)
        return (vertices @ transform[:3, :3].T + transform[:3, 3]).numpy()

    def glb(self, motions: list[Motion], texture_size: int) -> bytes:
        """A GLB file: the canonical mesh with skin, texture, and a clip per motion.

        Args:
            motions: Motions of the person.
            texture_size: Height and width of the texture, texels.
        """
        rigged = self.rigged(texture_size)
        rest, clips = self.clips(rigged.skeleton, motions)
        return glb_bytes(
            rigged.mesh,
            texture_png=rigged.texture_png,
            skeleton=rigged.skeleton,
            rest=rest,
            clips=clips,
            dataset_to_upright=self.dataset_to_upright,
        )

    def skeleton(self) -> Skeleton:
        """The person's joints, bound in the canonical pose."""
        return make_skeleton(self.model.poses.body, self.poses.betas)

    def clips(self, skeleton: Skeleton, motions: list[Motion]) -> tuple[Clip, list[Clip]]:
        """The rest pose and motions in the dataset's world, as clips.

        Args:
            skeleton: The joints.
            motions: Motions of the person.
        """
        rest = make_clip("rest", rest_sequence(self.model.poses.body, self.poses, 0), 1.0, skeleton)
        return rest, [make_clip(motion.name, motion, motion.fps, skeleton) for motion in motions]

    @torch.no_grad()
    def strongest_bones(self, canonical: Float[Tensor, "n 3"]) -> tuple[UInt8[ndarray, "n 4"], Float32[ndarray, "n 4"]]:
        """The four bones that move canonical points most, and their weights."""
        deformer = self.model.deformer
        weights = interpolate(deformer.skinning_weights, canonical.to(self.model.device), deformer.box)
        return strongest_bones(weights.cpu().numpy())

    def rigged(self, texture_size: int) -> RiggedAvatar:
        """The avatar as formats with a skeleton keep it, bound in the canonical pose; the latest is kept.

        Args:
            texture_size: Height and width of the texture, texels.
        """
        if self._rigged is None or self._rigged[0] != texture_size:
            self._rigged = texture_size, self._make_rigged(texture_size)
        return self._rigged[1]

    def _make_rigged(self, texture_size: int) -> RiggedAvatar:
        surface, body = self.surface, self.model.poses.body
        joints, skinning_weights = self.strongest_bones(torch.from_numpy(surface.vertices))
        unwrapped, texture = self._textured(texture_size)
        source = unwrapped.source
        mesh = SkinnedMesh(
            surface.vertices[source],
            surface.normals[source],
            unwrapped.uv,
            joints[source],
            skinning_weights[source],
            unwrapped.faces,
        )
        return RiggedAvatar(mesh, png_bytes(texture), self.skeleton(), body.rig.joint_names)

    def ply(self, pose: PosedBody) -> bytes:
        """A PLY file of one pose, with a colour per vertex."""
        colors, _ = surface_colors(self.shade, self.surface.vertices, self.surface.normals)
        return ply_bytes(self.posed_vertices(pose), self.surface.faces, colors)

    def obj(self, name: str, pose: PosedBody, texture_size: int) -> dict[str, bytes]:
        """The files of an OBJ of one pose: its material, its texture, and the mesh.

        Args:
            name: Of the files, without ending.
            pose: The pose.
            texture_size: Height and width of the texture, texels.
        """
        unwrapped, texture = self._textured(texture_size)
        vertices = self.posed_vertices(pose)[unwrapped.source]
        return obj_files(name, vertices, unwrapped.faces, unwrapped.uv, texture)

    def normal_map(self, size: int) -> UInt8[ndarray, "size size 3"]:
        """Relief of the surface before decimation, laid out as the texture is.

        Args:
            size: Height and width, texels.
        """
        return bake_normals(self.surface, self._unwrapped(size), size)

    def _unwrapped(self, size: int) -> UnwrappedSurface:
        """Layout of the surface in a texture; the latest is kept."""
        if self._layout is None or self._layout[0] != size:
            self._layout = size, unwrap(self.surface, size)
        return self._layout[1]

    def _textured(self, size: int) -> tuple[UnwrappedSurface, UInt8[ndarray, "size size 3"]]:
        unwrapped = self._unwrapped(size)
        photographed = None if self.photographs is None else self._photographed
        return unwrapped, bake(self.shade, self.surface, unwrapped, size, photographed)

    @torch.no_grad()
    def _photographed(self, places: Places) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
        assert self.photographs is not None
        device = self.model.device
        vertices, faces = (torch.from_numpy(array).to(device) for array in (self.surface.vertices, self.surface.faces))
        posed = torch.stack([self.model.deformer.skin(vertices, bones) for bones in self.photographs.bone_transforms])
        return photographed_colors(self.photographs, posed, faces.long(), places.to(device))

    def shade(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Density, 1/metres, and colour of canonical points, on the model's device."""
        return self._field(points.to(self.model.device))
