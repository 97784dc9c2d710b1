"""Preparation of a pose before its points are searched: blended transforms and the table of candidate bones."""

import triton
import triton.language as tl

from instantavatar_ns.kernels.voxels import raise_to, vector


@triton.jit
def blend_kernel(
    weights_ptr,  # [voxels, BONES]
    bones_ptr,  # [BONES, 4, 4]
    lower_ptr,  # [3], canonical box
    upper_ptr,
    blended_ptr,  # [voxels, 12]
    inverse_ptr,  # [BONES, 4, 4], transposed
    bounds_ptr,  # [2, 3]: largest of minus the posed positions, and of the positions; minus infinity at first
    masks_ptr,  # [CELLS], zeros afterwards
    occupied_ptr,  # [NX, NY, NZ] bytes, or None: all
    voxels,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    BONES: tl.constexpr,
    STRIDE: tl.constexpr,  # of the voxels that count for the bounds
    REACH: tl.constexpr,  # cells around an occupied one whose voxels count
    CELLS: tl.constexpr,
    SHARE: tl.constexpr,  # of the cells, per program
    BLOCK: tl.constexpr,
):
    """Blend the bones' transforms per voxel, bound the posed voxels, clear the table, invert the bones."""
    LANES: tl.constexpr = 32 if BONES <= 32 else 64
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    bone = tl.arange(0, LANES)
    entry = tl.arange(0, 16)[None, :]
    weights = tl.load(
        weights_ptr + BONES * voxel + bone[None, :], mask=(voxel < voxels) & (bone < BONES)[None, :], other=0.0
    )
    bones = tl.load(bones_ptr + 16 * bone[:, None] + entry, mask=(bone[:, None] < BONES) & (entry < 12), other=0.0)
    blended = tl.dot(weights, bones, input_precision="ieee")
    tl.store(blended_ptr + 12 * voxel + entry, blended, mask=(voxel < voxels) & (entry < 12))

    x, y, z = voxel // (NY * NZ), voxel // NZ % NY, voxel % NZ
    counts = (voxel < voxels) & (x % STRIDE == 0) & (y % STRIDE == 0) & (z % STRIDE == 0)
    if occupied_ptr is not None:
        counts = _near_occupied(occupied_ptr, x, y, z, counts, NX, NY, NZ, REACH, BLOCK)
    along = entry & 3
    intervals = tl.where(along < 3, vector(along, NX - 1, NY - 1, NZ - 1), 1).to(tl.float32)
    index = tl.where(along == 0, x, tl.where(along == 1, y, z)).to(tl.float32)
    lower = tl.load(lower_ptr + along, mask=along < 3, other=0.0)
    upper = tl.load(upper_ptr + along, mask=along < 3, other=0.0)
    position = tl.where(along < 3, lower + index / intervals * (upper - lower), 1.0)
    posed = tl.sum(tl.reshape(blended * position, BLOCK, 4, 4), axis=2)
    axis = tl.arange(0, 4)
    far = float("-inf")
    raise_to(bounds_ptr + axis, tl.max(tl.where(counts, -posed, far), axis=0), axis < 3)
    raise_to(bounds_ptr + 3 + axis, tl.max(tl.where(counts, posed, far), axis=0), axis < 3)

    cell = tl.program_id(0) * SHARE + tl.arange(0, SHARE)
    tl.store(masks_ptr + cell, tl.zeros([SHARE], masks_ptr.dtype.element_ty), mask=cell < CELLS)
    if tl.program_id(0) == 0:
        _invert(bones_ptr + 16 * bone, inverse_ptr + 16 * bone, bone < BONES)


@triton.jit
def _near_occupied(
    occupied_ptr,
    x,
    y,
    z,
    valid,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    REACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Mark the valid voxels [n, 1] within REACH cells of an occupied one."""
    near = tl.zeros([BLOCK, 1], tl.int32)
    for dx in tl.static_range(-REACH, REACH + 1):
        for dy in tl.static_range(-REACH, REACH + 1):
            for dz in tl.static_range(-REACH, REACH + 1):
                inside = (x + dx >= 0) & (x + dx < NX) & (y + dy >= 0) & (y + dy < NY)
                inside = valid & inside & (z + dz >= 0) & (z + dz < NZ)
                at = ((x + dx) * NY + y + dy) * NZ + z + dz
                near |= tl.load(occupied_ptr + at, mask=inside, other=0).to(tl.int32)
    return valid & (near != 0)


@triton.jit
def _invert(source, target, mask):
    """Inverses of affine 4x4 matrices, written transposed."""
    a, b, c = _entry(source, 0, mask), _entry(source, 1, mask), _entry(source, 2, mask)
    d, e, f = _entry(source, 4, mask), _entry(source, 5, mask), _entry(source, 6, mask)
    g, h, i = _entry(source, 8, mask), _entry(source, 9, mask), _entry(source, 10, mask)
    scale = 1.0 / (a * (e * i - f * h) + b * (f * g - d * i) + c * (d * h - e * g))
    t_x, t_y, t_z = _entry(source, 3, mask), _entry(source, 7, mask), _entry(source, 11, mask)
    _write_row(target, scale, e * i - f * h, c * h - b * i, b * f - c * e, t_x, t_y, t_z, mask)
    _write_row(target + 1, scale, f * g - d * i, a * i - c * g, c * d - a * f, t_x, t_y, t_z, mask)
    _write_row(target + 2, scale, d * h - e * g, b * g - a * h, a * e - b * d, t_x, t_y, t_z, mask)
    for column in tl.static_range(4):
        tl.store(target + 4 * column + 3, scale * 0.0 + (1.0 if column == 3 else 0.0), mask=mask)


@triton.jit
def _entry(source, number: tl.constexpr, mask):
    return tl.load(source + number, mask=mask, other=1.0 if number % 5 == 0 else 0.0)


@triton.jit
def _write_row(target, scale, first, second, third, t_x, t_y, t_z, mask):
    """A row of the inverse: that of the linear part's (cofactors by `scale`), and what it makes of the translation."""
    first, second, third = scale * first, scale * second, scale * third
    tl.store(target, first, mask=mask)
    tl.store(target + 4, second, mask=mask)
    tl.store(target + 8, third, mask=mask)
    tl.store(target + 12, -(first * t_x + second * t_y + third * t_z), mask=mask)


@triton.jit
def candidates_kernel(
    blended_ptr,  # [voxels, 12]
    main_bones_ptr,  # [thin voxels, 2]; BONES stands for none
    bounds_ptr,  # [2, 3]
    lower_ptr,  # [3], canonical box
    upper_ptr,
    posed_lower_ptr,  # [3]
    posed_cell_ptr,  # [3]
    masks_ptr,  # [POSED ** 3], zeros at first
    occupied_ptr,  # [NX, NY, NZ] bytes, or None: all
    thin_voxels,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    BONES: tl.constexpr,
    STRIDE: tl.constexpr,
    REACH: tl.constexpr,  # cells around an occupied one whose voxels count
    POSED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Mark the main bones of every few voxels in the 2x2x2 posed cells nearest to them.

    Only voxels near occupied cells count, where these are given.
    """
    thin = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    valid = thin < thin_voxels
    MY: tl.constexpr = (NY + STRIDE - 1) // STRIDE
    MZ: tl.constexpr = (NZ + STRIDE - 1) // STRIDE
    x, y, z = thin // (MY * MZ) * STRIDE, thin // MZ % MY * STRIDE, thin % MZ * STRIDE
    axis = tl.arange(0, 4)[None, :]
    lower = tl.load(lower_ptr + axis, mask=axis < 3, other=0.0)
    upper = tl.load(upper_ptr + axis, mask=axis < 3, other=0.0)
    intervals = tl.where(axis < 3, vector(axis, NX - 1, NY - 1, NZ - 1), 1).to(tl.float32)
    index = tl.where(axis == 0, x, tl.where(axis == 1, y, z)).to(tl.float32)
    position = tl.where(axis < 3, lower + index / intervals * (upper - lower), 1.0)

    if occupied_ptr is not None:
        valid = _near_occupied(occupied_ptr, x, y, z, valid, NX, NY, NZ, REACH, BLOCK)
    first = tl.load(main_bones_ptr + 2 * thin, mask=valid, other=BONES)
    second = tl.load(main_bones_ptr + 2 * thin + 1, mask=valid, other=BONES)
    one = tl.full([BLOCK, 1], 1, masks_ptr.dtype.element_ty)
    bits = ((one << first) | (one << second)) & ((1 << BONES) - 1)
    corner = tl.arange(0, 8)[None, :]
    place = tl.zeros([BLOCK, 8], tl.int32)
    source = blended_ptr + 12 * ((x * NY + y) * NZ + z) + axis
    for row in tl.static_range(3):
        posed = tl.sum(tl.load(source + 4 * row, mask=valid, other=0.0) * position, axis=1, keep_dims=True)
        posed_lower = -tl.load(bounds_ptr + row)
        # No smaller than the distance between two of these voxels: a flat pose would have empty cells between them.
        samples = NX if row == 0 else (NY if row == 1 else NZ)
        spacing = STRIDE * (tl.load(upper_ptr + row) - tl.load(lower_ptr + row)) / (samples - 1)
        posed_cell = tl.maximum((tl.load(bounds_ptr + 3 + row) - posed_lower) / POSED, spacing)
        if tl.program_id(0) == 0:
            tl.store(posed_lower_ptr + row, posed_lower)
            tl.store(posed_cell_ptr + row, posed_cell)
        cell = tl.floor((posed - posed_lower) / posed_cell - 0.5).to(tl.int32) + (corner >> row & 1)
        place = place * POSED + tl.minimum(tl.maximum(cell, 0), POSED - 1)
    # Most voxels find their bones marked already: looking costs less than adding.
    seen = tl.load(masks_ptr + place, mask=valid, other=0)
    tl.atomic_or(masks_ptr + place, bits, mask=valid & ((seen & bits) != bits), sem="relaxed")
