"""Smaller GLB files: numbers of 8 and 16 bits, packed by meshoptimizer, and a WebP texture.

`EXT_meshopt_compression` packs every array of the file so that a browser unpacks it in milliseconds. Before that,
`KHR_mesh_quantization` lets positions be of 16 bits: a cube around the mesh is divided into 65,535 steps, some 0.03 mm
for a person. The cube's place and size go into the inverse bind matrices, so the skeleton stays as it is. Readers need
to know both extensions, and `EXT_texture_webp` for the texture.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped
from numpy import ndarray
from PIL import Image

from instantavatar_ns.export.glb_container import read_glb, write_glb
from instantavatar_ns.utils.errors import InputError

MESHOPT, QUANTIZATION, WEBP = "EXT_meshopt_compression", "KHR_mesh_quantization", "EXT_texture_webp"

_WEBP_QUALITY = 90
_DTYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_COMPONENTS = {np.dtype(dtype): number for number, dtype in _DTYPES.items()}
_SHAPES = {"SCALAR": (), "VEC2": (2,), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}
_BITS = {"NORMAL": np.int8, "TANGENT": np.int8, "TEXCOORD_0": np.uint16}
_ARRAY_BUFFER = 34962
_ALIGNMENT = 4  # bytes between rows of an array that is packed

Document = dict[str, Any]


def with_webp_texture(content: bytes, quality: int = _WEBP_QUALITY) -> bytes:
    """Turn a GLB file's textures into WebP.

    Args:
        content: Of the file; its images lie in its buffer.
        quality: WebP's, 0 to 100.
    """
    document, binary = read_glb(content)
    data = _view_contents(document, binary)
    for image in document["images"]:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(data[image["bufferView"]])).save(buffer, "WEBP", quality=quality, method=6)
        data[image["bufferView"]], image["mimeType"] = buffer.getvalue(), "image/webp"
    for texture in document["textures"]:
        texture.setdefault("extensions", {})[WEBP] = {"source": texture.pop("source")}
    _require(document, WEBP)
    binary = _place(document["bufferViews"], data)
    document["buffers"][0]["byteLength"] = len(binary)
    return write_glb(document, binary)


def with_packed_buffers(content: bytes) -> bytes:
    """Quantize and pack a GLB file's arrays.

    Args:
        content: Of a file in which every array belongs to one primitive, skin or animation, as this package writes it.

    Raises:
        InputError: The package meshoptimizer is not installed.
    """
    meshopt = check_meshoptimizer()
    document, binary = read_glb(content)
    views = _view_contents(document, binary)
    arrays = [_array(accessor, views[accessor["bufferView"]]) for accessor in document["accessors"]]
    for primitive in _primitives(document):
        _reorder(primitive, arrays, meshopt)
    _quantize(document, arrays)
    triangles = {primitive["indices"] for primitive in _primitives(document)}
    packed, data, unpacked_size = [], [], 0
    for number, (accessor, array) in enumerate(zip(document["accessors"], arrays, strict=True)):
        rows = _rows(array)
        stride = rows.shape[1] * rows.itemsize
        extension: Document = {"buffer": 0, "byteStride": stride, "count": len(rows)}
        view = {"buffer": 1, "byteOffset": unpacked_size, "byteLength": rows.nbytes}
        if number in triangles:
            extension["mode"] = "TRIANGLES"
            data.append(meshopt.encode_index_buffer(array, len(array), int(array.max()) + 1))
        else:
            extension["mode"] = "ATTRIBUTES"
            data.append(meshopt.encode_vertex_buffer(rows, len(rows), stride))
        if target := document["bufferViews"][accessor["bufferView"]].get("target"):
            view["target"] = target
            view |= {"byteStride": stride} if target == _ARRAY_BUFFER else {}
        accessor["bufferView"] = len(packed)
        packed.append(view | {"extensions": {MESHOPT: extension}})
        unpacked_size += rows.nbytes + -rows.nbytes % _ALIGNMENT
    for image in document.get("images", []):
        data.append(views[image["bufferView"]])
        image["bufferView"] = len(packed)
        packed.append({"buffer": 0})
    binary = _place([view.get("extensions", {}).get(MESHOPT, view) for view in packed], data)
    document["bufferViews"] = packed
    fallback = {"byteLength": unpacked_size, "extensions": {MESHOPT: {"fallback": True}}}
    document["buffers"] = [{"byteLength": len(binary)}, fallback]
    _require(document, QUANTIZATION, MESHOPT)
    return write_glb(document, binary)


def check_meshoptimizer() -> Any:
    """Return the package meshoptimizer, set to the codecs that the extension takes.

    Raises:
        InputError: It is not installed.
    """
    try:
        import meshoptimizer  # pyright: ignore[reportMissingImports]  (optional)
    except ImportError as error:
        advice = "pip install instantavatar-ns[meshopt], or export without compression"
        raise InputError("--compression meshopt", "expected the package meshoptimizer, found none", advice) from error
    # Vertices in the codec's version 0, triangles in version 1.
    meshoptimizer.encode_vertex_version(0)
    meshoptimizer.encode_index_version(1)
    return meshoptimizer


def _primitives(document: Document) -> Iterator[Document]:
    return (primitive for mesh in document["meshes"] for primitive in mesh["primitives"])


def _require(document: Document, *extensions: str) -> None:
    for key in ("extensionsUsed", "extensionsRequired"):
        document[key] = sorted({*document.get(key, []), *extensions})


def _view_contents(document: Document, binary: bytes) -> list[bytes]:
    places = [(view.get("byteOffset", 0), view["byteLength"]) for view in document["bufferViews"]]
    return [binary[start : start + size] for start, size in places]


def _place(views: list[Document], data: list[bytes]) -> bytes:
    """Lay data out in one buffer, at multiples of four bytes, and note each one's place in its view."""
    binary = bytearray()
    for view, content in zip(views, data, strict=True):
        binary.extend(bytes(-len(binary) % _ALIGNMENT))
        view["byteOffset"], view["byteLength"] = len(binary), len(content)
        binary.extend(content)
    return bytes(binary)


def _array(accessor: Document, content: bytes) -> Shaped[ndarray, "rows ..."]:
    shape = (accessor["count"], *_SHAPES[accessor["type"]])
    return np.frombuffer(content, _DTYPES[accessor["componentType"]], math.prod(shape)).reshape(shape)


def _rows(array: Shaped[ndarray, "rows ..."]) -> Shaped[ndarray, "rows values"]:
    """An array's rows, flat, with zeros up to a multiple of four bytes."""
    flat = array.reshape(len(array), -1)
    values = 1 if array.ndim == 1 else max(1, _ALIGNMENT // flat.itemsize)  # indices and times have no gaps
    return np.pad(flat, ((0, 0), (0, -flat.shape[1] % values)))


def _reorder(primitive: Document, arrays: list[ndarray], meshopt: Any) -> None:
    """Sort triangles, and vertices as triangles first name them: neighbors in a file that are alike pack well."""
    indices = arrays[primitive["indices"]].astype(np.uint32)
    count = len(arrays[primitive["attributes"]["POSITION"]])
    sorted_indices, place = np.empty_like(indices), np.empty(count, np.uint32)
    meshopt.optimize_vertex_cache(sorted_indices, indices, len(indices), count)
    meshopt.optimize_vertex_fetch_remap(place, sorted_indices, len(indices), count)
    used = place < count  # of a vertex that no triangle names it is all ones
    for number in primitive["attributes"].values():
        moved = np.empty_like(arrays[number][used])
        moved[place[used]] = arrays[number][used]
        arrays[number] = moved
    arrays[primitive["indices"]] = place[sorted_indices].astype(np.uint16 if used.sum() < 1 << 16 else np.uint32)


def _quantize(document: Document, arrays: list[ndarray]) -> None:
    """Replace arrays by ones of fewer bits, and describe them in their accessors."""
    for quantize in (_quantize_positions, _quantize_attributes, _quantize_rotations):
        for number in quantize(document, arrays):
            document["accessors"][number]["normalized"] = True
    for accessor, array in zip(document["accessors"], arrays, strict=True):
        accessor.update(componentType=_COMPONENTS[array.dtype], count=len(array))
        if "min" in accessor:
            flat = array.reshape(len(array), -1)
            accessor["min"], accessor["max"] = flat.min(axis=0).tolist(), flat.max(axis=0).tolist()


def _quantize_positions(document: Document, arrays: list[ndarray]) -> Iterator[int]:
    """Quantize the positions of skinned meshes; yields the numbers of their accessors."""
    for node in document["nodes"]:
        if "skin" in node:
            (primitive,) = document["meshes"][node["mesh"]]["primitives"]
            number, bind = primitive["attributes"]["POSITION"], document["skins"][node["skin"]]["inverseBindMatrices"]
            arrays[number], cube_to_mesh = _in_cube(arrays[number])
            # Stored column by column, that is, transposed.
            arrays[bind] = (cube_to_mesh.T @ arrays[bind]).astype(np.float32)
            yield number


def _quantize_attributes(document: Document, arrays: list[ndarray]) -> Iterator[int]:
    """Quantize what else vertices have; yields the numbers of the accessors."""
    for primitive in _primitives(document):
        attributes = primitive["attributes"]
        for name in attributes.keys() & _BITS.keys():
            arrays[attributes[name]] = _integers(arrays[attributes[name]], _BITS[name])
            yield attributes[name]
        joints, weights = attributes["JOINTS_0"], attributes["WEIGHTS_0"]
        arrays[weights] = _weights(arrays[weights])
        arrays[joints] = np.where(arrays[weights] > 0, arrays[joints], 0).astype(arrays[joints].dtype)
        yield weights


def _quantize_rotations(document: Document, arrays: list[ndarray]) -> Iterator[int]:
    """Quantize the quaternions of clips; yields the numbers of their accessors."""
    for animation in document.get("animations", []):
        for channel in animation["channels"]:
            if channel["target"]["path"] == "rotation":
                number = animation["samplers"][channel["sampler"]]["output"]
                arrays[number] = _integers(arrays[number], np.int16)
                yield number


def _in_cube(positions: Float[ndarray, "n 3"]) -> tuple[Integer[ndarray, "n 3"], Float[ndarray, "4 4"]]:
    """Positions in the smallest cube around them, as signed 16-bit numbers, and the way back to metres."""
    lower, upper = positions.min(axis=0).astype(np.float64), positions.max(axis=0).astype(np.float64)
    center, half = (lower + upper) / 2, float((upper - lower).max()) / 2
    cube_to_mesh = np.diag([half, half, half, 1.0])
    cube_to_mesh[:3, 3] = center
    return _integers((positions - center) / half, np.int16), cube_to_mesh


def _integers(values: Float[ndarray, "*shape"], dtype: type[np.integer]) -> Integer[ndarray, "*shape"]:
    """glTF's normalized integers: the largest one is 1."""
    largest = np.iinfo(dtype).max
    least = -largest if np.iinfo(dtype).min < 0 else 0
    return np.round(values.astype(np.float64) * largest).clip(least, largest).astype(dtype)


def _weights(weights: Float[ndarray, "n 4"]) -> Integer[ndarray, "n 4"]:
    """Skinning weights as 16-bit numbers that sum to 1 exactly: the largest one takes what rounding leaves."""
    whole = np.iinfo(np.uint16).max
    rounded = np.round(weights.astype(np.float64) * whole).astype(np.int64)
    rows, largest = np.arange(len(rounded)), rounded.argmax(axis=1)
    rounded[rows, largest] += whole - rounded.sum(axis=1)
    return rounded.astype(np.uint16)
