"""The container of a binary glTF file: a JSON document and one binary buffer."""

from __future__ import annotations

import json
import struct
from typing import Any

_MAGIC, _VERSION = b"glTF", 2
_JSON, _BINARY = b"JSON", b"BIN\0"
_HEADER, _CHUNK = struct.Struct("<4sII"), struct.Struct("<I4s")


def read_glb(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return a GLB file's document and its binary buffer.

    Args:
        content: Of the file.

    Raises:
        ValueError: It is no GLB file of version 2.
    """
    if len(content) < _HEADER.size or _HEADER.unpack_from(content)[:2] != (_MAGIC, _VERSION):
        raise ValueError("expected a GLB file of version 2")
    chunks, place = {}, _HEADER.size
    while place + _CHUNK.size <= len(content):
        size, kind = _CHUNK.unpack_from(content, place)
        chunks[kind] = content[place + _CHUNK.size : place + _CHUNK.size + size]
        place += _CHUNK.size + size
    return json.loads(chunks[_JSON]), chunks.get(_BINARY, b"")


def write_glb(document: dict[str, Any], binary: bytes) -> bytes:
    """Return the content of a GLB file.

    Args:
        document: glTF's JSON, whose first buffer is `binary`.
        binary: The buffer.
    """
    text = json.dumps(document, separators=(",", ":")).encode()
    chunks = [(_JSON, text + b" " * (-len(text) % 4)), (_BINARY, binary + bytes(-len(binary) % 4))]
    body = b"".join(_CHUNK.pack(len(data), kind) + data for kind, data in chunks)
    return _HEADER.pack(_MAGIC, _VERSION, _HEADER.size + len(body)) + body
