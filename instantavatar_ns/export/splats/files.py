"""Splats as files: glTF with the extension KHR_gaussian_splatting, and PLY as programs for 3D Gaussian splatting read.

Both keep a colour as the zeroth spherical harmonic. glTF has opacities and standard deviations as they are, quaternions
(x, y, z, w); PLY has their logits and logarithms, and quaternions (w, x, y, z).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pygltflib as gl
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from instantavatar_ns.export.gltf import GltfFile
from instantavatar_ns.export.skeleton import Clip, Skeleton
from instantavatar_ns.export.splats.cloud import Splats

EXTENSION = "KHR_gaussian_splatting"
HARMONIC = 0.28209479177387814  # the zeroth spherical harmonic; a color is 0.5 more than it times its coefficient
_PLY_COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


def ply_bytes(splats: Splats) -> bytes:
    """A binary PLY file in the layout of the 3D Gaussian splatting paper's code, without normals.

    Args:
        splats: On the CPU.
    """
    centers = splats.centers.numpy()
    columns = [
        *(centers, np.zeros_like(centers), _coefficients(splats), splats.opacity_logits.numpy()[:, None]),
        *(splats.log_scales.numpy(), F.normalize(splats.quaternions, dim=-1).numpy()),
    ]
    table = np.concatenate(columns, axis=1).astype("<f4")
    properties = "".join(f"property float {name}\n" for name in _PLY_COLUMNS)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(table)}\n{properties}end_header\n"
    return header.encode() + table.tobytes()


def splat_glb_bytes(
    splats: Splats,
    joints: UInt8[ndarray, "n 4"],
    weights: Float32[ndarray, "n 4"],
    *,
    skeleton: Skeleton,
    rest: Clip,
    clips: list[Clip],
    dataset_to_upright: Float[ndarray, "4 4"],
    extras: dict[str, Any],
) -> bytes:
    """A GLB file of skinned splats; readers without the extension show coloured points.

    Args:
        splats: In the canonical pose, on the CPU.
        joints: Four bones a splat.
        weights: Their skinning weights, which sum to 1.
        skeleton: The joints.
        rest: The pose, of one frame, that is shown where no clip plays.
        clips: Motions.
        dataset_to_upright: Rigid transform from the world of `rest` and `clips`.
        extras: Facts to note at the file's `asset`, as JSON knows them.
    """
    file = GltfFile()
    file.gltf.asset.extras = extras
    quaternions = F.normalize(splats.quaternions, dim=-1).numpy()
    values = {
        "ROTATION": quaternions[:, [1, 2, 3, 0]],
        "SCALE": splats.log_scales.exp().numpy(),
        "OPACITY": splats.opacity_logits.sigmoid().numpy(),
        "SH_DEGREE_0_COEF_0": _coefficients(splats),
    }
    attributes = gl.Attributes(
        POSITION=file.accessor(splats.centers.numpy(), gl.ARRAY_BUFFER, bounds=True),
        COLOR_0=file.accessor(_linear_colors(splats), gl.ARRAY_BUFFER, normalized=True),
        JOINTS_0=file.accessor(joints, gl.ARRAY_BUFFER),
        WEIGHTS_0=file.accessor(weights, gl.ARRAY_BUFFER),
        **{f"{EXTENSION}:{name}": file.accessor(array, gl.ARRAY_BUFFER) for name, array in values.items()},
    )
    # Colours are blended as they are displayed, as training does.
    extension = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    primitive = gl.Primitive(attributes=attributes, mode=gl.POINTS, extensions={EXTENSION: extension})
    file.gltf.extensionsUsed = [EXTENSION]
    file.add_body(primitive, skeleton, rest, dataset_to_upright)
    file.add_clips(clips, dataset_to_upright)
    return file.content()


def _coefficients(splats: Splats) -> Float32[ndarray, "n 3"]:
    """Coefficients of the zeroth spherical harmonic."""
    return (splats.colors.numpy() - 0.5) / np.float32(HARMONIC)


def _linear_colors(splats: Splats) -> UInt8[ndarray, "n 4"]:
    """Colours of glTF's points, linear, and opacities."""
    encoded = splats.colors.numpy()
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    values = np.concatenate([linear, splats.opacity_logits.sigmoid().numpy()[:, None]], axis=1)
    return (values * 255).round().astype(np.uint8)
