"""The page of a trained avatar, as a mesh or as splats, at the size that can be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from instantavatar_ns.export.avatar import AvatarMesh
from instantavatar_ns.export.page.html import page_html
from instantavatar_ns.export.splats.avatar_splats import AvatarSplats
from instantavatar_ns.motion.motion import Motion
from instantavatar_ns.utils.errors import InputError

MAX_BYTES = 12_000_000
"""What mail programs and messengers still take."""
_FEW_FACES, _SMALL_TEXTURE, _SMALLEST_TEXTURE = 10_000, 1024, 256


class Detail(NamedTuple):
    """Sizes on which most of a page's size depends.

    Attributes:
        faces: Triangles to keep at most.
        texture: Height and width of the texture, texels.
    """

    faces: int
    texture: int


def avatar_page(
    title: str, mesh_of: Callable[[int], AvatarMesh], motions: list[Motion], detail: Detail
) -> tuple[bytes, AvatarMesh]:
    """Content of the HTML file, and the mesh in it, which is a simpler one where the file would be too large.

    Args:
        title: Name of the person.
        mesh_of: Returns the avatar with at most that many triangles; asked for the same number again, the same mesh.
        motions: Clips of the page; the first one plays when it is opened.
        detail: The mesh and texture to begin with.

    Raises:
        InputError: The motions are too long for a page.
    """

    def build(detail: Detail) -> bytes:
        mesh = mesh_of(detail.faces)
        glb = mesh.glb(motions, detail.texture)
        return page_html(title, glb, quick_look(mesh, motions, detail.texture))

    content, used = fit(build, detail)
    if used != detail:
        CONSOLE.log(
            f"The page would be larger than {MAX_BYTES / 1e6:.0f} MB with {detail.faces} triangles and a texture of "
            f"{detail.texture} texels: it has {used.faces} and {used.texture}."
        )
    return content, mesh_of(used.faces)


def splat_page(title: str, splats: AvatarSplats, motions: list[Motion], texture_size: int) -> bytes:
    """Content of an HTML file that shows splats; in the room, iPhones show the mesh.

    Args:
        title: Name of the person.
        splats: The avatar.
        motions: Clips of the page; the first one plays when it is opened.
        texture_size: Height and width of the mesh's texture, texels.

    Raises:
        InputError: The file would be too large.
    """
    content = page_html(title, splats.glb(motions), quick_look(splats.avatar, motions, texture_size))
    if len(content) > MAX_BYTES:
        found = f"expected a page of at most {MAX_BYTES / 1e6:.0f} MB, found {len(content) / 1e6:.1f}"
        raise InputError("--splats", found, "Give fewer splats, or fewer or shorter motions")
    return content


def fit(build: Callable[[Detail], bytes], detail: Detail, max_bytes: int = MAX_BYTES) -> tuple[bytes, Detail]:
    """Simplify until the page is small enough: the texture first, which eyes miss least on a page.

    Args:
        build: Makes the page.
        detail: To begin with.
        max_bytes: Size of the page.

    Returns:
        The page, and what it was made with.

    Raises:
        InputError: The simplest page is too large.
    """
    while len(content := build(detail)) > max_bytes:
        simpler = _simpler(detail)
        if simpler is None:
            found = len(content) / 1e6
            message = f"expected motions that fit into a page of {max_bytes / 1e6:.0f} MB, found {found:.1f}"
            raise InputError("--motion", message, "Give fewer or shorter motions, or a lower rate by --fps")
        detail = simpler
    return content, detail


def _simpler(detail: Detail) -> Detail | None:
    faces, texture = detail
    if texture > _SMALL_TEXTURE:
        return Detail(faces, max(texture // 2, _SMALL_TEXTURE))
    if faces > _FEW_FACES:
        return Detail(max(faces // 2, _FEW_FACES), texture)
    if texture > _SMALLEST_TEXTURE:
        return Detail(faces, max(texture // 2, _SMALLEST_TEXTURE))
    return None


def quick_look(mesh: AvatarMesh, motions: list[Motion], texture_size: int) -> bytes:
    """The USDZ with the first motion that iPhones and iPads show in the room; empty where OpenUSD is not installed.

    Args:
        mesh: The avatar.
        motions: Its motions.
        texture_size: Height and width of the texture, texels.
    """
    try:
        import pxr.UsdSkel  # noqa: F401

        from instantavatar_ns.export.usdz import usdz_bytes
    except ImportError:
        message = "iPhones get no button for the room: that needs OpenUSD (pip install instantavatar-ns[usd])."
        CONSOLE.log(escape(message))
        return b""
    rigged = mesh.rigged(texture_size)
    return usdz_bytes(rigged, rigged.clip(motions[0]) if motions else None)
