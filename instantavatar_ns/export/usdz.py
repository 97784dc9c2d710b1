"""USDZ: the avatar with its skeleton and one clip in one file, as Apple's phones and headsets show it in the room.

The schema is UsdSkel. A package is an archive without compression whose files start at multiples of 64 bytes; OpenUSD
writes it. Colours have the light of the recording in them, so the material emits its texture and reflects nothing.
"""

# OpenUSD's modules are compiled and come without types.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

import instantavatar_ns
from instantavatar_ns.export.rigged import RiggedAvatar, bounds, joint_transforms
from instantavatar_ns.export.skeleton import BONES_PER_VERTEX, Clip, Skeleton
from instantavatar_ns.utils.errors import InputError

_ROOT, _TEXTURE = "/avatar", "./texture.png"
_RATE = 30.0  # time codes a second of a scene that stands still


def check_openusd() -> None:
    """Find out if OpenUSD is installed.

    Raises:
        InputError: It is not.
    """
    try:
        import pxr.UsdSkel  # noqa: F401
    except ImportError:
        message = "expected OpenUSD, which writes this format, found no module pxr"
        raise InputError("--format usdz", message, "pip install instantavatar-ns[usd]") from None


def usdz_bytes(avatar: RiggedAvatar, clip: Clip | None = None) -> bytes:
    """The content of a USDZ file.

    Args:
        avatar: The avatar, from `AvatarMesh.rigged`.
        clip: The motion that it plays, from `RiggedAvatar.clip`; without one it stands in the pose of its mesh.

    Raises:
        InputError: OpenUSD is not installed.
    """
    check_openusd()
    from pxr import Sdf, Usd, UsdUtils

    with TemporaryDirectory() as name:
        layer, package = Path(name) / "avatar.usdc", Path(name) / "avatar.usdz"
        (Path(name) / _TEXTURE).write_bytes(avatar.texture_png)
        stage = Usd.Stage.CreateNew(str(layer))
        _write_scene(stage, avatar, clip)
        stage.GetRootLayer().Save()
        if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(package)):
            raise OSError(f"{package}: OpenUSD could not write the package")
        return package.read_bytes()


def _write_scene(stage: Any, avatar: RiggedAvatar, clip: Clip | None) -> None:
    """A root, and below it mesh, material, skeleton and clip."""
    from pxr import Kind, Usd, UsdGeom, UsdShade, UsdSkel, Vt

    stage.GetRootLayer().documentation = f"instantavatar-ns {instantavatar_ns.__version__}"
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdSkel.Root.Define(stage, _ROOT)
    stage.SetDefaultPrim(root.GetPrim())
    Usd.ModelAPI(root).SetKind(Kind.Tokens.component)

    skeleton = avatar.skeleton
    bind = np.linalg.inv(skeleton.inverse_bind)
    to_floor = avatar.rest.root[0] - bind[0, :3, 3]  # programs that know no skeletons show a person who stands, too
    bind[:, :3, 3] += to_floor
    prim = UsdSkel.Skeleton.Define(stage, f"{_ROOT}/skeleton")
    prim.CreateJointsAttr(joint_paths(skeleton))
    # USD's matrices act on rows.
    prim.CreateBindTransformsAttr(Vt.Matrix4dArray.FromNumpy(bind.transpose(0, 2, 1).copy()))
    rest = _relative(skeleton, joint_transforms(skeleton, avatar.rest)[0])
    prim.CreateRestTransformsAttr(Vt.Matrix4dArray.FromNumpy(rest.transpose(0, 2, 1).copy()))

    mesh = _write_mesh(stage, avatar, to_floor)
    UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(_write_material(stage))
    UsdSkel.BindingAPI.Apply(mesh.GetPrim()).CreateSkeletonRel().SetTargets([prim.GetPath()])
    if clip is not None:
        animation = _write_clip(stage, skeleton, clip)
        UsdSkel.BindingAPI.Apply(prim.GetPrim()).CreateAnimationSourceRel().SetTargets([animation.GetPath()])
    shown = joint_transforms(skeleton, clip or avatar.rest) @ skeleton.inverse_bind
    root.CreateExtentAttr(_extent(np.concatenate(bounds(avatar.mesh, shown))))


def joint_paths(skeleton: Skeleton) -> list[str]:
    """Path of each joint from the root, as UsdSkel names joints.

    Args:
        skeleton: The joints.
    """
    from pxr import Tf

    paths: list[str] = []
    for name, parent in zip(skeleton.names, skeleton.parents, strict=True):
        name = Tf.MakeValidIdentifier(name)
        paths.append(name if parent < 0 else f"{paths[parent]}/{name}")
    return paths


def _relative(skeleton: Skeleton, transforms: Float[ndarray, "joints 4 4"]) -> Float[ndarray, "joints 4 4"]:
    """Transforms relative to the joints' parents."""
    parents = [np.eye(4) if parent < 0 else transforms[parent] for parent in skeleton.parents]
    return np.linalg.inv(np.stack(parents)) @ transforms


def _write_mesh(stage: Any, avatar: RiggedAvatar, to_floor: Float[ndarray, "3"]) -> Any:
    from pxr import Gf, Sdf, UsdGeom, UsdSkel, Vt

    source = avatar.mesh
    points = source.positions + to_floor.astype(np.float32)
    mesh = UsdGeom.Mesh.Define(stage, f"{_ROOT}/body")
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(points))
    mesh.CreateExtentAttr(_extent(points))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(source.faces), 3, np.int32)))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(source.faces.astype(np.int32).reshape(-1)))
    mesh.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(source.normals.astype(np.float32)))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    uv = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
    uv.Set(Vt.Vec2fArray.FromNumpy(source.uv.astype(np.float32)))
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    joints = Vt.IntArray.FromNumpy(source.joints.astype(np.int32).reshape(-1))
    binding.CreateJointIndicesPrimvar(False, BONES_PER_VERTEX).Set(joints)
    binding.CreateJointWeightsPrimvar(False, BONES_PER_VERTEX).Set(Vt.FloatArray.FromNumpy(source.weights.reshape(-1)))
    binding.CreateGeomBindTransformAttr().Set(Gf.Matrix4d(1.0))
    return mesh


def _write_material(stage: Any) -> Any:
    from pxr import Gf, Sdf, UsdShade

    types = Sdf.ValueTypeNames
    material = UsdShade.Material.Define(stage, f"{_ROOT}/material")
    coordinates = UsdShade.Shader.Define(stage, f"{_ROOT}/material/coordinates")
    coordinates.CreateIdAttr("UsdPrimvarReader_float2")
    coordinates.CreateInput("varname", types.String).Set("st")
    texture = UsdShade.Shader.Define(stage, f"{_ROOT}/material/texture")
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", types.Asset).Set(Sdf.AssetPath(_TEXTURE))
    texture.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
    for axis in ("wrapS", "wrapT"):
        texture.CreateInput(axis, types.Token).Set("clamp")
    texture.CreateInput("st", types.Float2).ConnectToSource(coordinates.CreateOutput("result", types.Float2))
    surface = UsdShade.Shader.Define(stage, f"{_ROOT}/material/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("useSpecularWorkflow", types.Int).Set(1)
    for color in ("diffuseColor", "specularColor"):
        surface.CreateInput(color, types.Color3f).Set(Gf.Vec3f(0.0))
    surface.CreateInput("roughness", types.Float).Set(1.0)
    colors = texture.CreateOutput("rgb", types.Float3)
    surface.CreateInput("emissiveColor", types.Color3f).ConnectToSource(colors)
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", types.Token))
    return material


def _write_clip(stage: Any, skeleton: Skeleton, clip: Clip) -> Any:
    """The clip, whose frames are the time codes 0, 1, ..., and the times at which the scene starts and ends."""
    from pxr import Tf, UsdSkel, Vt

    rate = (len(clip.times) - 1) / float(clip.times[-1]) if len(clip.times) > 1 else _RATE
    stage.SetTimeCodesPerSecond(rate)
    stage.SetFramesPerSecond(rate)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(len(clip.times) - 1)
    animation = UsdSkel.Animation.Define(stage, f"{_ROOT}/skeleton/{Tf.MakeValidIdentifier(clip.name)}")
    animation.CreateJointsAttr(joint_paths(skeleton))
    animation.CreateScalesAttr(Vt.Vec3hArray.FromNumpy(np.ones((len(skeleton.names), 3), np.float16)))
    rotations, translations = animation.CreateRotationsAttr(), animation.CreateTranslationsAttr()
    offsets = skeleton.offsets.astype(np.float32)
    for frame in range(len(clip.times)):
        rotations.Set(Vt.QuatfArray.FromNumpy(clip.rotations[frame].copy()), frame)
        offsets[0] = clip.root[frame]
        translations.Set(Vt.Vec3fArray.FromNumpy(offsets.copy()), frame)
    return animation


def _extent(points: Float[ndarray, "points 3"]) -> Any:
    from pxr import Vt

    return Vt.Vec3fArray.FromNumpy(np.stack([points.min(axis=0), points.max(axis=0)]).astype(np.float32))
