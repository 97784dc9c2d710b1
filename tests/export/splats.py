"""A GLB with skinned splats of KHR_gaussian_splatting, one a face of a skinned mesh, to see how programs show them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tests.export.glb import Glb

NAME = "KHR_gaussian_splatting"


def with_splats(path: Path) -> bytes:
    """Content of a GLB whose mesh is replaced by splats in its skin.

    Args:
        path: A GLB with one skinned mesh.
    """
    glb = Glb(path)
    corners = glb.positions[glb.faces].astype(np.float64)
    edge = corners[:, 1] - corners[:, 0]
    normal = np.cross(edge, corners[:, 2] - corners[:, 0])
    size = np.sqrt(np.linalg.norm(normal, axis=1)).clip(1e-4)
    x = edge / np.linalg.norm(edge, axis=1, keepdims=True).clip(1e-9)
    z = normal / np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-12)
    frames = np.stack([x, np.cross(z, x), z], axis=2)
    frames[np.abs(np.linalg.det(frames) - 1) > 1e-3] = np.eye(3)
    first = glb.faces[:, 0]
    colors = glb.sample_texture(glb.uv[glb.faces].mean(axis=1))
    arrays = {
        "POSITION": corners.mean(axis=1),
        "JOINTS_0": glb.joints[first],
        "WEIGHTS_0": glb.weights[first],
        f"{NAME}:ROTATION": Rotation.from_matrix(frames).as_quat(),
        f"{NAME}:SCALE": np.stack([0.35 * size, 0.35 * size, np.full(len(size), 0.001)], axis=1),
        f"{NAME}:OPACITY": np.full(len(size), 0.95),
        f"{NAME}:SH_DEGREE_0_COEF_0": (colors - 0.5) / 0.28209479177387814,
    }
    document, binary = glb.json, bytearray(glb.blob)
    attributes = {}
    for name, values in arrays.items():
        data = np.ascontiguousarray(values if values.dtype == np.uint8 else values.astype(np.float32))
        binary += bytes(-len(binary) % 4)
        document["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": data.nbytes})
        binary += data.tobytes()
        accessor = {
            "bufferView": len(document["bufferViews"]) - 1,
            "componentType": 5121 if data.dtype == np.uint8 else 5126,
            "type": {1: "SCALAR", 3: "VEC3", 4: "VEC4"}[data.size // len(data)],
            "count": len(data),
        }
        if name == "POSITION":
            accessor |= {"min": data.min(axis=0).tolist(), "max": data.max(axis=0).tolist()}
        document["accessors"].append(accessor)
        attributes[name] = len(document["accessors"]) - 1
    extension = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    document["meshes"][0]["primitives"] = [{"mode": 0, "attributes": attributes, "extensions": {NAME: extension}}]
    document["extensionsUsed"] = [*document.get("extensionsUsed", []), NAME]
    document["buffers"] = [{"byteLength": len(binary)}]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary += bytes(-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
