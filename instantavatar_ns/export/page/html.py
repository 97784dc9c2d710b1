"""The page's text: the avatar's files, the viewer's programs, and a policy under which browsers load nothing else."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path

import instantavatar_ns
from instantavatar_ns.export.page.sliders import SLIDERS

HERE = Path(__file__).parent
HOMEPAGE = "https://github.com/instantavatar-ns/instantavatar_ns"
# Each uses what the ones before define.
PROGRAMS = ("splats.js", "avatar.js", "view.js", "room.js", "page.js")


@cache
def asset(name: str) -> str:
    """Text of a file that comes along."""
    return (HERE / name).read_text(encoding="utf-8")


def page_html(title: str, glb: bytes, usdz: bytes = b"") -> bytes:
    """Content of the HTML file.

    Args:
        title: Name of the person, any text.
        glb: The avatar with its clips, a GLB file.
        usdz: The same for Apple's Quick Look, a USDZ file; without it iPhones have no button for the room.
    """
    facts = {"sliders": {limb: [slider._asdict() for slider in sliders] for limb, sliders in SLIDERS.items()}}
    style, library = asset("page.css"), asset("three.min.js")
    program = "\n".join(map(asset, PROGRAMS))
    content = {
        "title": escape(title),
        "made_by": f"instantavatar-ns {instantavatar_ns.__version__}",
        "homepage": HOMEPAGE,
        "policy": _policy(style, library, program),
        "style": style,
        # "<" would end the script where a text holds "</script>".
        "facts": json.dumps(facts).replace("<", "\\u003c"),
        "glb": b64encode(glb).decode(),
        "usdz": b64encode(usdz).decode(),
        "library": library,
        "program": program,
    }
    # In one pass: what is filled in is not looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: content[place[1]], asset("page.html")).encode()


def _policy(style: str, *scripts: str) -> str:
    """Content security policy: the page's own scripts and style by their hashes, and no network.

    Textures are read through blob: addresses, the decoder of compressed meshes is WebAssembly.
    """

    def hashes(*texts: str) -> str:
        return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts)

    return (
        f"default-src 'none'; script-src {hashes(*scripts)} 'wasm-unsafe-eval'; style-src {hashes(style)}; "
        "img-src data: blob:; connect-src data: blob:; base-uri 'none'; form-action 'none'"
    )
