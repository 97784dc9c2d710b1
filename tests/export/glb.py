"""A reader of skinned GLB files that follows the glTF 2.0 specification and knows nothing of the exporter."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation, Slerp

_DTYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_SHAPES = {"SCALAR": (), "VEC2": (2,), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}


class Glb:
    """One file with one skinned mesh.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        size, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON"
        self.json = json.loads(data[20 : 20 + size])
        assert data[24 + size : 28 + size] == b"BIN\0"
        self.blob = data[28 + size :]
        (primitive,) = self.json["meshes"][0]["primitives"]
        read = {name: self.accessor(index) for name, index in primitive["attributes"].items()}
        self.positions, self.normals, self.uv = read["POSITION"], read["NORMAL"], read["TEXCOORD_0"]
        self.joints, self.weights = read["JOINTS_0"], read["WEIGHTS_0"]
        self.faces = self.accessor(primitive["indices"]).reshape(-1, 3).astype(np.int64)
        image, _ = self._view(self.json["bufferViews"][self.json["images"][0]["bufferView"]])
        self.texture = np.array(Image.open(io.BytesIO(image.tobytes())).convert("RGB"))

    def accessor(self, index: int) -> np.ndarray:
        """An accessor's values; matrices are transposed to rows."""
        accessor = self.json["accessors"][index]
        dtype, shape = np.dtype(_DTYPES[accessor["componentType"]]), _SHAPES[accessor["type"]]
        view = self.json["bufferViews"][accessor["bufferView"]]
        size = int(np.prod(shape, dtype=int)) * dtype.itemsize
        data, stride = self._view(view)
        rows = data[accessor.get("byteOffset", 0) :].reshape(-1, stride or size)[: accessor["count"], :size]
        values = np.ascontiguousarray(rows).view(dtype).reshape(accessor["count"], *shape)
        if accessor.get("normalized"):
            values = np.maximum(values / np.float64(np.iinfo(dtype).max), -1.0)
        return values.transpose(0, 2, 1) if len(shape) == 2 else values

    def _view(self, view: dict) -> tuple[np.ndarray, int | None]:
        """Bytes of a buffer view, unpacked, and those from one row to the next where it says so."""
        packed = view.get("extensions", {}).get("EXT_meshopt_compression")
        if packed is None:
            start = view.get("byteOffset", 0)
            return np.frombuffer(self.blob, np.uint8)[start : start + view["byteLength"]], view.get("byteStride")
        import meshoptimizer

        start, count, stride = packed["byteOffset"], packed["count"], packed["byteStride"]
        data = self.blob[start : start + packed["byteLength"]]
        if packed["mode"] == "TRIANGLES":
            indices = meshoptimizer.decode_index_buffer(count, 4, data)
            return indices.astype({2: np.uint16, 4: np.uint32}[stride]).view(np.uint8), stride
        row = np.dtype((np.void, stride))
        return meshoptimizer.decode_vertex_buffer(count, stride, data, dtype=row).view(np.uint8), stride

    def clip_times(self, name: str) -> np.ndarray:
        """Keyframes of a clip, seconds."""
        return self.accessor(self._clip(name)["samplers"][0]["input"])

    def local_transforms(self, name: str | None = None, time: float = 0.0) -> np.ndarray:
        """Local transforms of all nodes [nodes, 4, 4], at rest or at a time of a clip."""
        nodes = [dict(node) for node in self.json["nodes"]]
        for channel in self._clip(name)["channels"] if name else []:
            sampler = self._clip(name)["samplers"][channel["sampler"]]
            assert sampler.get("interpolation", "LINEAR") == "LINEAR"
            times, values = self.accessor(sampler["input"]), self.accessor(sampler["output"])
            target = channel["target"]
            nodes[target["node"]][target["path"]] = _sample(times, values, time, target["path"] == "rotation")
        locals_ = np.tile(np.eye(4), (len(nodes), 1, 1))
        for node, local in zip(nodes, locals_, strict=True):
            local[:3, :3] = Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix()
            local[:3, 3] = node.get("translation", [0, 0, 0])
        return locals_

    def posed(self, name: str | None = None, time: float = 0.0) -> np.ndarray:
        """Vertices [V, 3] in the scene, at rest or at a time of a clip, by linear blend skinning."""
        local, world = self.local_transforms(name, time), {}
        queue = [(root, np.eye(4)) for root in self.json["scenes"][self.json["scene"]]["nodes"]]
        while queue:
            node, above = queue.pop()
            world[node] = above @ local[node]
            queue += [(child, world[node]) for child in self.json["nodes"][node].get("children", [])]
        skin = self.json["skins"][0]
        inverse_bind = self.accessor(skin["inverseBindMatrices"])
        matrices = np.stack([world[joint] for joint in skin["joints"]]) @ inverse_bind
        blended = np.einsum("vk,vkrc->vrc", self.weights.astype(np.float64), matrices[self.joints][..., :3, :])
        return np.einsum("vrc,vc->vr", blended[..., :3], self.positions) + blended[..., 3]

    def sample_texture(self, uv: np.ndarray) -> np.ndarray:
        """Bilinear look-up [n, 3] of the texture, 0 to 1; v runs downwards."""
        height, width, _ = self.texture.shape
        place = (uv * [width, height] - 0.5).clip(0, [width - 1, height - 1])
        low = np.floor(place).astype(int).clip(max=[width - 2, height - 2])
        x, y = (place - low).T[..., None]
        (column, row), texture = low.T, self.texture / 255.0
        top = texture[row, column] * (1 - x) + texture[row, column + 1] * x
        bottom = texture[row + 1, column] * (1 - x) + texture[row + 1, column + 1] * x
        return top * (1 - y) + bottom * y

    def _clip(self, name: str) -> dict:
        return next(clip for clip in self.json["animations"] if clip["name"] == name)


def _sample(times: np.ndarray, values: np.ndarray, time: float, rotation: bool) -> list[float]:
    time = float(np.clip(time, times[0], times[-1]))
    if len(times) == 1:
        return values[0].tolist()
    if rotation:
        return Slerp(times, Rotation.from_quat(values))(time).as_quat().tolist()
    return [float(np.interp(time, times, values[:, axis])) for axis in range(values.shape[1])]
