"""Relief of the dense surface for programs that light the avatar: a normal map in tangent space.

Red points along the texture's u, green upwards in the image (OpenGL's way, as glTF asks for), blue out of the surface.
Readers make tangents from the texture coordinates (MikkTSpace); so do these, averaged over the triangles at a vertex.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from instantavatar_ns.export.glb_container import read_glb, write_glb
from instantavatar_ns.export.surface import Surface
from instantavatar_ns.export.texture import UnwrappedSurface, fill_unknown, rasterise

_UNLIT = "KHR_materials_unlit"
_ROUGHNESS = 0.9  # of cloth and skin
_NEIGHBORS = 4  # vertices of the dense surface whose normals are averaged


def bake_normals(surface: Surface, unwrapped: UnwrappedSurface, size: int) -> UInt8[ndarray, "size size 3"]:
    """Normal map of what decimation took off a surface.

    Args:
        surface: The surface, with its dense one.
        unwrapped: Its layout.
        size: Height and width, texels.
    """
    face, barycentric = rasterise(unwrapped, size)
    covered = face >= 0
    corners, weights = unwrapped.faces[face[covered]], barycentric[covered][..., None]
    source = unwrapped.source[corners]
    points = (surface.vertices[source] * weights).sum(axis=1)
    normal = _unit((surface.normals[source] * weights).sum(axis=1))
    tangent = (_tangents(surface, unwrapped)[corners] * weights).sum(axis=1)
    tangent = _unit(tangent - (tangent * normal).sum(axis=1, keepdims=True) * normal)
    dense = surface.dense_normals(points, _NEIGHBORS)
    upwards = _handedness(unwrapped)[face[covered]][:, None] * np.cross(normal, tangent)
    axes = np.stack([tangent, upwards, normal], axis=1)
    inside = np.einsum("nrc,nc->nr", axes, dense)
    inside[:, 2] = inside[:, 2].clip(min=0.1)  # what faces inwards is no relief
    texture = np.zeros((size, size, 3), np.uint8)
    texture[covered] = np.round((_unit(inside) * 0.5 + 0.5) * 255)
    return fill_unknown(texture, covered)


def with_normal_map(content: bytes, normals_png: bytes) -> bytes:
    """Let programs light the material of a GLB file, by a normal map.

    Args:
        content: Of the file, with one material, of a texture.
        normals_png: The map, a PNG file.
    """
    document, binary = read_glb(content)
    binary += bytes(-len(binary) % 4)
    document["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(normals_png)})
    image = {"name": "normals", "mimeType": "image/png", "bufferView": len(document["bufferViews"]) - 1}
    document["images"].append(image)
    document["textures"].append({"sampler": 0, "source": len(document["images"]) - 1})
    (material,) = document["materials"]
    material["normalTexture"] = {"index": len(document["textures"]) - 1}
    material["pbrMetallicRoughness"]["roughnessFactor"] = _ROUGHNESS
    material["extensions"].pop(_UNLIT)
    document["extensionsUsed"].remove(_UNLIT)
    for holder, key in ((material, "extensions"), (document, "extensionsUsed")):
        if not holder[key]:  # glTF has no empty ones
            del holder[key]
    binary += normals_png
    document["buffers"][0]["byteLength"] = len(binary)
    return write_glb(document, binary)


def _tangents(surface: Surface, unwrapped: UnwrappedSurface) -> Float[ndarray, "vertices 3"]:
    """Directions in which u grows, at the vertices of the layout, averaged over their triangles by area."""
    corners = surface.vertices[unwrapped.source[unwrapped.faces]].astype(np.float64)
    uv = unwrapped.uv[unwrapped.faces].astype(np.float64)
    (edge, other), (du, other_du) = (np.stack([of[:, 1] - of[:, 0], of[:, 2] - of[:, 0]]) for of in (corners, uv))
    determinant = du[:, 0] * other_du[:, 1] - du[:, 1] * other_du[:, 0]
    along = (edge * other_du[:, 1:] - other * du[:, 1:]) * np.sign(determinant)[:, None]
    area = np.linalg.norm(np.cross(edge, other), axis=1, keepdims=True)
    sums = np.zeros((len(unwrapped.uv), 3))
    for corner in range(3):
        np.add.at(sums, unwrapped.faces[:, corner], _unit(along) * area)
    return _unit(sums)


def _handedness(unwrapped: UnwrappedSurface) -> Float[ndarray, "faces"]:
    """1 for triangles that the layout shows as seen from outside, -1 for mirror images."""
    a, b, c = unwrapped.uv[unwrapped.faces].astype(np.float64).transpose(1, 0, 2)
    (edge_u, edge_v), (other_u, other_v) = (b - a).T, (c - a).T
    return np.where(edge_u * other_v - edge_v * other_u < 0, -1.0, 1.0)


def _unit(vectors: Float[ndarray, "n 3"]) -> Float[ndarray, "n 3"]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
