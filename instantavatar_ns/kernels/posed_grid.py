"""Occupied canonical cells, skinned forward into a posed grid; launched by `occupancy/posed_grid_triton.py`.

A point marks the 2x2x2 cells nearest to it. The kernels mark only the first of these, in a grid with one more cell
along each axis, in which cell -1 has the place 0; `spread_kernel` gives each cell the marks of the eight that reach it.
"""

import triton
import triton.language as tl

from instantavatar_ns.kernels.voxels import raise_to, vector


@triton.jit
def _skinning_terms(
    cell,
    here,
    weights_ptr,
    box_ptr,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    BONES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each bone's weight at the centres of cells [n, 1], times the centre (x, y, z, 1): [n, 4 * LANES].

    A coordinate of the skinned centre is the sum of these times that row of the bones' transforms. Weights are sampled
    from corner to corner of the box, so they are interpolated at the centres of cells.
    """
    LANES: tl.constexpr = 32 if BONES <= 32 else 64
    x, y, z = cell // (NY * NZ), cell // NZ % NY, cell % NZ
    unit_x = (x.to(tl.float32) + 0.5) * ((NX - 1) / NX)
    unit_y = (y.to(tl.float32) + 0.5) * ((NY - 1) / NY)
    unit_z = (z.to(tl.float32) + 0.5) * ((NZ - 1) / NZ)
    base_x = tl.minimum(tl.floor(unit_x), NX - 2)
    base_y = tl.minimum(tl.floor(unit_y), NY - 2)
    base_z = tl.minimum(tl.floor(unit_z), NZ - 2)
    place_x, place_y, place_z = unit_x - base_x, unit_y - base_y, unit_z - base_z
    row = (base_x.to(tl.int32) * NY + base_y.to(tl.int32)) * NZ + base_z.to(tl.int32)
    bone = tl.arange(0, LANES)[None, :]
    weights = tl.zeros([BLOCK, LANES], tl.float32)
    for corner in tl.static_range(8):
        share = place_x if corner & 1 else 1.0 - place_x
        share *= place_y if corner >> 1 & 1 else 1.0 - place_y
        share *= place_z if corner >> 2 else 1.0 - place_z
        voxel = row + (corner & 1) * (NY * NZ) + (corner >> 1 & 1) * NZ + (corner >> 2)
        weights += share * tl.load(weights_ptr + BONES * voxel + bone, mask=here & (bone < BONES), other=0.0)

    axis = tl.arange(0, 4)[None, :]
    lower = tl.load(box_ptr + axis, mask=axis < 3, other=0.0)
    upper = tl.load(box_ptr + 3 + axis, mask=axis < 3, other=0.0)
    index = tl.where(axis == 0, x, tl.where(axis == 1, y, z)).to(tl.float32) + 0.5
    size = tl.where(axis < 3, vector(axis, NX, NY, NZ), 1).to(tl.float32)
    center = tl.where(axis < 3, lower + index / size * (upper - lower), 1.0)
    return tl.reshape(weights[:, :, None] * center[:, None, :], BLOCK, 4 * LANES)


@triton.jit
def _first_cell(position, lower, upper, size):
    """Place, along one axis, of the first of the two cells nearest to a position; beyond the box that of its border."""
    cell = tl.floor((position - lower) / (upper - lower) * size - 0.5)
    return tl.minimum(tl.maximum(cell, -1.0), size - 1.0).to(tl.int32) + 1


@triton.jit
def union_kernel(
    occupied_ptr,  # [NX, NY, NZ] uint8
    weights_ptr,  # [NX * NY * NZ, BONES]
    box_ptr,  # [6], canonical
    bones_ptr,  # [poses, BONES, 4, 4]
    posed_box_ptr,  # [6]
    marks_ptr,  # [PX + 1, PY + 1, PZ + 1] uint8, zeros at first
    poses,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    PX: tl.constexpr,
    PY: tl.constexpr,
    PZ: tl.constexpr,
    BONES: tl.constexpr,
    POSES: tl.constexpr,  # that are skinned into at a time
    BLOCK: tl.constexpr,
):
    """Skin a block of occupied cells into all poses and mark where they come to lie."""
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    here = tl.load(occupied_ptr + cell, mask=cell < NX * NY * NZ, other=0) != 0
    if tl.max(tl.max(here.to(tl.int32), axis=0), axis=0) == 0:
        return
    terms = _skinning_terms(cell, here, weights_ptr, box_ptr, NX, NY, NZ, BONES, BLOCK)
    term = tl.arange(0, 128 if BONES <= 32 else 256)[:, None]
    for first in range(0, poses, POSES):
        pose = first + tl.arange(0, POSES)[None, :]
        source = bones_ptr + pose * (16 * BONES) + term // 4 * 16 + term % 4
        known = (pose < poses) & (term < 4 * BONES)
        place = tl.zeros([BLOCK, POSES], tl.int32)
        for axis in tl.static_range(3):
            rows = tl.load(source + 4 * axis, mask=known, other=0.0)
            posed = tl.dot(terms, rows, input_precision="tf32x3")
            size = PX if axis == 0 else (PY if axis == 1 else PZ)
            lower, upper = tl.load(posed_box_ptr + axis), tl.load(posed_box_ptr + 3 + axis)
            place = place * (size + 1) + _first_cell(posed, lower, upper, size)
        # Most find their cell marked already: looking costs less than writing.
        valid = here & (pose < poses)
        seen = tl.load(marks_ptr + place, mask=valid, other=1)
        tl.store(marks_ptr + place, tl.full([BLOCK, POSES], 1, tl.uint8), mask=valid & (seen == 0))


@triton.jit
def skin_kernel(
    occupied_ptr,  # [NX, NY, NZ] uint8
    weights_ptr,  # [NX * NY * NZ, BONES]
    box_ptr,  # [6], canonical
    bones_ptr,  # [BONES, 4, 4]
    posed_ptr,  # [3, NX * NY * NZ], written where occupied
    bounds_ptr,  # [2, 3]: largest of minus the posed centres, and of the centres; minus infinity at first
    marks_ptr,  # [MARKS] uint8, zeros afterwards
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    BONES: tl.constexpr,
    MARKS: tl.constexpr,
    SHARE: tl.constexpr,  # of the marks, per program
    BLOCK: tl.constexpr,
):
    """Skin a block of occupied cells into one pose, bound them, and clear a share of the marks."""
    mark = tl.program_id(0) * SHARE + tl.arange(0, SHARE)
    tl.store(marks_ptr + mark, tl.zeros([SHARE], tl.uint8), mask=mark < MARKS)
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    here = tl.load(occupied_ptr + cell, mask=cell < NX * NY * NZ, other=0) != 0
    if tl.max(tl.max(here.to(tl.int32), axis=0), axis=0) == 0:
        return
    terms = _skinning_terms(cell, here, weights_ptr, box_ptr, NX, NY, NZ, BONES, BLOCK)
    term = tl.arange(0, 128 if BONES <= 32 else 256)[None, :]
    far = float("-inf")
    for axis in tl.static_range(3):
        row = tl.load(bones_ptr + term // 4 * 16 + 4 * axis + term % 4, mask=term < 4 * BONES, other=0.0)
        posed = tl.sum(terms * row, axis=1, keep_dims=True)
        tl.store(posed_ptr + axis * (NX * NY * NZ) + cell, posed, mask=here)
        least = tl.max(tl.max(tl.where(here, -posed, far), axis=0), axis=0)
        most = tl.max(tl.max(tl.where(here, posed, far), axis=0), axis=0)
        raise_to(bounds_ptr + axis, least, least > far)
        raise_to(bounds_ptr + 3 + axis, most, most > far)


@triton.jit
def mark_kernel(
    occupied_ptr,  # [NX, NY, NZ] uint8
    posed_ptr,  # [3, NX * NY * NZ]
    bounds_ptr,  # [2, 3]
    box_ptr,  # [6], canonical
    posed_box_ptr,  # [6], written
    filled_box_ptr,  # [6], written
    marks_ptr,  # [SIZE + 1, SIZE + 1, SIZE + 1] uint8, zeros at first
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    SIZE: tl.constexpr,  # cells of the posed grid along each axis
    SPACING: tl.constexpr,  # edge of its cells, in that of canonical ones
    BLOCK: tl.constexpr,
):
    """Lay the posed grid around what was skinned and mark where the centres lie.

    Its cells have an edge of SPACING canonical ones, or one that is large enough for the grid to hold the pose.
    """
    edge = SPACING * (tl.load(box_ptr + 3) - tl.load(box_ptr)) / NX
    edge = tl.maximum(edge, SPACING * (tl.load(box_ptr + 4) - tl.load(box_ptr + 1)) / NY)
    edge = tl.maximum(edge, SPACING * (tl.load(box_ptr + 5) - tl.load(box_ptr + 2)) / NZ)
    found = tl.load(bounds_ptr + 3) >= -tl.load(bounds_ptr)
    for axis in tl.static_range(3):
        # The cells nearest to a point reach up to one and a half edges beyond it.
        edge = tl.maximum(edge, (tl.load(bounds_ptr + 3 + axis) + tl.load(bounds_ptr + axis)) / (SIZE - 3))

    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = tl.load(occupied_ptr + cell, mask=cell < NX * NY * NZ, other=0) != 0
    place = tl.zeros([BLOCK], tl.int32)
    for axis in tl.static_range(3):
        least, most = -tl.load(bounds_ptr + axis), tl.load(bounds_ptr + 3 + axis)
        lower = tl.where(found, (least + most) / 2 - edge * (SIZE / 2), 0.0)
        upper = tl.where(found, lower + edge * SIZE, 1.0)
        if tl.program_id(0) == 0:
            tl.store(posed_box_ptr + axis, lower)
            tl.store(posed_box_ptr + 3 + axis, upper)
            tl.store(filled_box_ptr + axis, tl.where(found, least - 1.5 * edge, 0.0))
            tl.store(filled_box_ptr + 3 + axis, tl.where(found, most + 1.5 * edge, 1.0))
        posed = tl.load(posed_ptr + axis * (NX * NY * NZ) + cell, mask=here, other=0.0)
        place = place * (SIZE + 1) + _first_cell(posed, lower, upper, SIZE)
    tl.store(marks_ptr + place, tl.full([BLOCK], 1, tl.uint8), mask=here)


@triton.jit
def spread_kernel(marks_ptr, binaries_ptr, nx, ny, nz, BLOCK: tl.constexpr):
    """Give each cell [nx, ny, nz] the marks of the eight places that reach it."""
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = cell < nx * ny * nz
    source = marks_ptr + (cell // (ny * nz) * (ny + 1) + cell // nz % ny) * (nz + 1) + cell % nz
    marked = tl.zeros([BLOCK], tl.uint8)
    for corner in tl.static_range(8):
        place = ((corner & 1) * (ny + 1) + (corner >> 1 & 1)) * (nz + 1) + (corner >> 2)
        marked |= tl.load(source + place, mask=valid, other=0)
    tl.store(binaries_ptr + cell, marked, mask=valid)
