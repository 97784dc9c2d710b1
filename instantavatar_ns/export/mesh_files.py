"""PLY and OBJ files of a posed mesh."""

from __future__ import annotations

import io

import trimesh
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from PIL import Image
from trimesh.exchange.obj import export_obj
from trimesh.exchange.ply import export_ply
from trimesh.visual.material import SimpleMaterial
from trimesh.visual.texture import TextureVisuals


def png_bytes(image: UInt8[ndarray, "height width 3"]) -> bytes:
    """An image as a PNG file: to make a texture 5% smaller would take seven times as long."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def ply_bytes(
    vertices: Float[ndarray, "vertices 3"], faces: Int[ndarray, "faces 3"], colors: UInt8[ndarray, "vertices 3"]
) -> bytes:
    """A mesh with a colour per vertex as a binary PLY file.

    Args:
        vertices: Positions, metres.
        faces: Triangles.
        colors: Of the vertices.
    """
    mesh = trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)
    return export_ply(mesh, vertex_normal=False)


def obj_files(
    name: str,
    vertices: Float[ndarray, "vertices 3"],
    faces: Int[ndarray, "faces 3"],
    uv: Float[ndarray, "vertices 2"],
    texture: UInt8[ndarray, "height width 3"],
) -> dict[str, bytes]:
    """A textured mesh as `<name>.obj`, `<name>.mtl` and `<name>.png`, the first one last.

    Args:
        name: Of the files, without an ending.
        vertices: Metres.
        faces: Triangles.
        uv: Texture coordinates, v upwards.
        texture: Colours.
    """
    material = SimpleMaterial(name=name, image=Image.fromarray(texture), diffuse=[255] * 3, ambient=[255] * 3)
    mesh = trimesh.Trimesh(vertices, faces, visual=TextureVisuals(uv, material=material), process=False)
    text, others = export_obj(mesh, return_texture=True, mtl_name=f"{name}.mtl", include_normals=False, header="")
    return {**{file: bytes(content) for file, content in others.items()}, f"{name}.obj": text.encode()}
