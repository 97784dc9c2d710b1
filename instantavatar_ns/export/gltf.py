"""glTF 2.0 in one binary file: a skinned mesh with an unlit texture, its skeleton, and animations.

The mesh is in the canonical pose, in which it is bound. In the scene y is up, and the floor lies at y = 0. The root
joint holds where the person is; no node above it is turned, since programs that show the pose of binding, as Blender
does when a skeleton is edited, would turn that too. Colours have the light of the recording in them, so the material is
unlit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pygltflib as gl
from jaxtyping import Float, Float32, Int, UInt8
from numpy import ndarray

import instantavatar_ns
from instantavatar_ns.export.skeleton import Clip, Skeleton, moved

DATASET_TO_SCENE = "dataset_to_scene"
"""Key of the extras of the node `avatar`."""
_COMPONENT = {"float32": gl.FLOAT, "uint8": gl.UNSIGNED_BYTE, "uint32": gl.UNSIGNED_INT}
_TYPE = {(): gl.SCALAR, (2,): gl.VEC2, (3,): gl.VEC3, (4,): gl.VEC4, (4, 4): gl.MAT4}


@dataclass(frozen=True)
class SkinnedMesh:
    """Mesh as glTF keeps it, in the canonical pose.

    Attributes:
        positions: Metres.
        normals: Of unit length.
        uv: Texture coordinates, v upwards.
        joints: Four bones per vertex.
        weights: Their skinning weights, which sum to 1.
        faces: Triangles.
    """

    positions: Float32[ndarray, "vertices 3"]
    normals: Float32[ndarray, "vertices 3"]
    uv: Float32[ndarray, "vertices 2"]
    joints: UInt8[ndarray, "vertices 4"]
    weights: Float32[ndarray, "vertices 4"]
    faces: Int[ndarray, "faces 3"]


def glb_bytes(
    mesh: SkinnedMesh,
    *,
    texture_png: bytes,
    skeleton: Skeleton,
    rest: Clip,
    clips: list[Clip],
    dataset_to_upright: Float[ndarray, "4 4"],
) -> bytes:
    """The content of a GLB file.

    Args:
        mesh: The mesh.
        texture_png: Its texture, a PNG file.
        skeleton: The joints.
        rest: The pose, of one frame, that is shown where no clip plays.
        clips: Motions.
        dataset_to_upright: Rigid transform from the world of `rest` and `clips`, which the file notes, row by row, at
            the node `avatar`.
    """
    file = GltfFile()
    attributes = gl.Attributes(
        POSITION=file.accessor(mesh.positions, gl.ARRAY_BUFFER, bounds=True),
        NORMAL=file.accessor(mesh.normals, gl.ARRAY_BUFFER),
        # glTF's v runs downwards.
        TEXCOORD_0=file.accessor(np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], axis=1), gl.ARRAY_BUFFER),
        JOINTS_0=file.accessor(mesh.joints, gl.ARRAY_BUFFER),
        WEIGHTS_0=file.accessor(mesh.weights, gl.ARRAY_BUFFER),
    )
    indices = file.accessor(mesh.faces.astype(np.uint32).reshape(-1), gl.ELEMENT_ARRAY_BUFFER)
    file.add_body(gl.Primitive(attributes=attributes, indices=indices, material=0), skeleton, rest, dataset_to_upright)
    file.add_material(texture_png)
    file.add_clips(clips, dataset_to_upright)
    return file.content()


def motion_glb_bytes(skeleton: Skeleton, rest: Clip, clip: Clip) -> bytes:
    """The content of a GLB file of joints and a clip, without a mesh.

    Args:
        skeleton: The joints.
        rest: Their pose where the clip does not play, of one frame, y up.
        clip: The motion.
    """
    file = GltfFile()
    file.gltf.nodes = _joint_nodes(skeleton, rest)
    file.gltf.scenes = [gl.Scene(name="scene", nodes=[0])]
    file.gltf.scene = 0
    file.gltf.animations = [_animation(file, clip, _numbers(skeleton))]
    return file.content()


def with_extension(glb: bytes, name: str, content: dict[str, Any]) -> bytes:
    """A GLB file with an extension of the whole document.

    Args:
        glb: Content of the file.
        name: Of the extension.
        content: What the extension holds.
    """
    gltf = gl.GLTF2.load_from_bytes(glb)
    assert gltf is not None
    gltf.extensions = {**(gltf.extensions or {}), name: content}
    gltf.extensionsUsed = [*(gltf.extensionsUsed or []), name]
    return b"".join(gltf.save_to_bytes())


@dataclass
class GltfFile:
    """A glTF document whose binary buffer grows."""

    gltf: gl.GLTF2 = field(default_factory=lambda: gl.GLTF2())  # noqa: PLW0108 (pyright)
    blob: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.gltf.asset = gl.Asset(version="2.0", generator=f"instantavatar-ns {instantavatar_ns.__version__}")

    def view(self, data: bytes, target: int | None = None) -> int:
        """Append bytes at a multiple of four; the index of their buffer view.

        Args:
            data: Bytes to append.
            target: glTF's kind of buffer, if any.
        """
        self.blob.extend(bytes(-len(self.blob) % 4))
        view = gl.BufferView(buffer=0, byteOffset=len(self.blob), byteLength=len(data), target=target)
        self.gltf.bufferViews.append(view)
        self.blob.extend(data)
        return len(self.gltf.bufferViews) - 1

    def accessor(
        self, values: ndarray, target: int | None = None, *, bounds: bool = False, normalized: bool = False
    ) -> int:
        """Append an array; the index of its accessor.

        Args:
            values: One element a row.
            target: glTF's kind of buffer, if any.
            bounds: Note the least and the largest values too.
            normalized: Integers stand for numbers from 0 to 1.
        """
        accessor = gl.Accessor(
            bufferView=self.view(np.ascontiguousarray(values).tobytes(), target),
            componentType=_COMPONENT[values.dtype.name],
            type=_TYPE[values.shape[1:]],
            count=len(values),
            normalized=normalized,
        )
        if bounds:
            flat = values.reshape(len(values), -1)
            accessor.min, accessor.max = flat.min(axis=0).tolist(), flat.max(axis=0).tolist()
        self.gltf.accessors.append(accessor)
        return len(self.gltf.accessors) - 1

    def add_body(
        self, primitive: gl.Primitive, skeleton: Skeleton, rest: Clip, dataset_to_upright: Float[ndarray, "4 4"]
    ) -> None:
        """All nodes: `avatar` is number 0, then come the joints, and last what they move.

        Args:
            primitive: In the pose of binding, with joints and weights.
            skeleton: The joints.
            rest: Their pose where no clip plays, of one frame.
            dataset_to_upright: Rigid transform from the world of `rest`, noted at the node `avatar`.
        """
        self.gltf.nodes = _joint_nodes(skeleton, moved(rest, dataset_to_upright))
        self.gltf.nodes[0].extras = {DATASET_TO_SCENE: dataset_to_upright.reshape(-1).tolist()}
        self.gltf.nodes.append(gl.Node(name="body", mesh=0, skin=0))
        self.gltf.scenes = [gl.Scene(name="scene", nodes=[0, len(self.gltf.nodes) - 1])]
        self.gltf.scene = 0
        self.gltf.meshes = [gl.Mesh(name="body", primitives=[primitive])]
        # Column-major, as glTF stores matrices.
        inverse_bind = self.accessor(skeleton.inverse_bind.transpose(0, 2, 1).astype(np.float32))
        joints = _numbers(skeleton)
        self.gltf.skins = [gl.Skin(name="skeleton", joints=joints, inverseBindMatrices=inverse_bind, skeleton=1)]

    def add_clips(self, clips: list[Clip], dataset_to_upright: Float[ndarray, "4 4"]) -> None:
        """Animations of the joints that `add_body` has added.

        Args:
            clips: Motions.
            dataset_to_upright: Rigid transform from their world.
        """
        joints = self.gltf.skins[0].joints or []
        self.gltf.animations = [_animation(self, moved(clip, dataset_to_upright), joints) for clip in clips]

    def add_material(self, texture_png: bytes) -> None:
        """The one material: an unlit texture."""
        self.gltf.images = [gl.Image(name="texture", bufferView=self.view(texture_png), mimeType="image/png")]
        wrap = gl.CLAMP_TO_EDGE
        sampler = gl.Sampler(magFilter=gl.LINEAR, minFilter=gl.LINEAR_MIPMAP_LINEAR, wrapS=wrap, wrapT=wrap)
        self.gltf.samplers = [sampler]
        self.gltf.textures = [gl.Texture(sampler=0, source=0)]
        surface = gl.PbrMetallicRoughness(
            baseColorTexture=gl.TextureInfo(index=0), metallicFactor=0.0, roughnessFactor=1.0
        )
        unlit = "KHR_materials_unlit"
        self.gltf.extensionsUsed = [unlit]
        self.gltf.materials = [
            gl.Material(name="skin and clothes", pbrMetallicRoughness=surface, extensions={unlit: {}}, alphaCutoff=None)
        ]

    def content(self) -> bytes:
        """The document and its buffer in one."""
        self.gltf.buffers = [gl.Buffer(byteLength=len(self.blob))]
        self.gltf.set_binary_blob(bytes(self.blob))
        return b"".join(self.gltf.save_to_bytes())


def _numbers(skeleton: Skeleton) -> list[int]:
    """The joints' nodes, behind the node `avatar`."""
    return [1 + joint for joint in range(len(skeleton.names))]


def _joint_nodes(skeleton: Skeleton, rest: Clip) -> list[gl.Node]:
    """Node `avatar` and the joints below it, in the rest pose."""
    root = gl.Node(name="avatar", children=[1])
    nodes = [root]
    for joint, name in enumerate(skeleton.names):
        place = rest.root[0] if joint == 0 else skeleton.offsets[joint]
        children = [1 + int(child) for child in np.flatnonzero(skeleton.parents == joint)]
        rotation = rest.rotations[0, joint].astype(float).tolist()
        nodes.append(gl.Node(name=name, rotation=rotation, translation=place.astype(float).tolist(), children=children))
    return nodes


def _animation(file: GltfFile, clip: Clip, joint_nodes: list[int]) -> gl.Animation:
    """Channels of one clip: every joint's rotation, the root's translation."""
    animation = gl.Animation(name=clip.name)
    times = file.accessor(clip.times, bounds=True)
    tracks = [(node, "rotation", clip.rotations[:, joint]) for joint, node in enumerate(joint_nodes)]
    for node, path, values in [*tracks, (joint_nodes[0], "translation", clip.root)]:
        sampler = gl.AnimationSampler(input=times, output=file.accessor(values), interpolation=gl.ANIM_LINEAR)
        target = gl.AnimationChannelTarget(node=node, path=path)
        animation.channels.append(gl.AnimationChannel(sampler=len(animation.samplers), target=target))
        animation.samplers.append(sampler)
    return animation
