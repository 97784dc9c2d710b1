"""Fast-SNARF's correspondence search and its gradient.

Four neighbouring lanes share a point. Lane r loads row r of a voxel's transform, 16 bytes, so that the four fetch a
voxel from its one or two sectors at once; it holds component r of the residual and column r of the inverse Jacobian.
Shapes are [lanes, points, 4]: what varies along the last axis lies in one lane's registers, and the compiler takes
lanes from the first axis first. Positions are homogeneous, (x, y, z, 1), and the same in all four lanes.

Broyden's update needs no product but `shift`, the old inverse Jacobian B times the new residual: with the last move m,
B times the change of the residual is shift + m, and so the next move is -shift |m|^2 / (|m|^2 + m.shift).
"""

import triton
import triton.language as tl

from instantavatar_ns.kernels.voxels import blend_rows, box_scale, vector


@triton.jit(do_not_specialize=["n", "capacity", "max_steps"])
def search_kernel(
    points_ptr,  # [n, 3]
    num_points_ptr,  # [1], or None: all n
    blended_ptr,  # [voxels, 12]
    to_canonical_ptr,  # [bones, 4, 4], transposed
    masks_ptr,  # [posed cells]: bit b is bone b; integers of 32 bits, or of 64
    posed_lower_ptr,  # [3]
    posed_cell_ptr,  # [3]
    lower_ptr,  # [3], canonical box
    upper_ptr,
    occupied_ptr,  # [cells] bytes, or None: all
    canonical_ptr,  # [capacity, 3]
    point_ptr,  # [capacity]
    total_ptr,  # [1], the first free row at first
    starts_ptr,  # [n]
    counts_ptr,  # [n]
    n,
    capacity,
    max_steps,
    converged_squared,
    diverged_squared,
    same_squared,
    passed_squared,
    NX: tl.constexpr,  # canonical voxels
    NY: tl.constexpr,
    NZ: tl.constexpr,
    OX: tl.constexpr,  # canonical cells that are occupied or free
    OY: tl.constexpr,
    OZ: tl.constexpr,
    POSED: tl.constexpr,  # posed cells along an axis
    SLOTS: tl.constexpr,  # most roots of a point
    BLOCK: tl.constexpr,
):
    """Find all roots of a block of points and append them to the buffers.

    A point works through its candidate bones; when a start ends, by a root or without, the next begins in the same
    iteration, so that points wait for each other at the end of the block only. A start that comes near a root that is
    found already ends too: nearly always it would find the same one.

    All four lanes of a point must decide alike: this is not to be launched with fused products and sums.
    """
    point = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :, None]
    rows = n
    if num_points_ptr is not None:
        rows = tl.minimum(tl.load(num_points_ptr), n)
    if tl.program_id(0) * BLOCK >= rows:
        tl.store(starts_ptr + point, 0, mask=point < n)
        tl.store(counts_ptr + point, 0, mask=point < n)
        return
    valid = point < rows
    lane = tl.arange(0, 4)[:, None, None]
    axis = tl.arange(0, 4)[None, None, :]

    target = tl.load(points_ptr + 3 * point + lane, mask=valid & (lane < 3), other=0.0)
    posed_lower = tl.load(posed_lower_ptr + lane, mask=lane < 3, other=0.0)
    posed_cell = tl.load(posed_cell_ptr + lane, mask=lane < 3, other=1.0)
    cell = tl.floor((target - posed_lower) / posed_cell)
    outside = tl.where((cell >= 0.0) & (cell < POSED), 0, 1)
    stride = vector(lane, POSED * POSED, POSED, 1)
    known = valid & (tl.max(outside, axis=0, keep_dims=True) == 0)
    place = tl.sum(tl.where(outside == 0, cell, 0.0).to(tl.int32) * stride, axis=0, keep_dims=True)
    pending = tl.load(masks_ptr + place, mask=known, other=0)

    lower = tl.load(lower_ptr + axis, mask=axis < 3, other=0.0)
    upper = tl.load(upper_ptr + axis, mask=axis < 3, other=1.0)
    box = box_scale(axis, lower, upper, NX, NY, NZ)
    occupied_scale = vector(axis, OX, OY, OZ).to(tl.float32) / (upper - lower)

    x = tl.zeros([1, BLOCK, 4], tl.float32)
    move = tl.zeros([1, BLOCK, 4], tl.float32)
    inverse = tl.zeros([4, BLOCK, 4], tl.float32)
    residual = tl.zeros([4, BLOCK, 1], tl.float32)
    steps = tl.zeros([1, BLOCK, 1], tl.int32)
    fresh = pending != 0
    slot = tl.arange(0, SLOTS)[:, None, None]
    found = tl.full([SLOTS, BLOCK, 4], 1e18, tl.float32)  # far from every root
    num_found = tl.zeros([1, BLOCK, 1], tl.int32)

    while tl.max(tl.reshape(pending, BLOCK), axis=0) != 0:
        active = pending != 0
        # The exponent of the lowest bit is the bone's number.
        bit = (pending & -pending).to(tl.float32)
        bone = (bit.to(tl.int32, bitcast=True) >> 23) - 127
        start = tl.load(to_canonical_ptr + bone * 16 + lane * 4 + axis, mask=active & fresh, other=0.0)
        factor = tl.where(fresh, tl.where(lane < 3, target, 1.0), residual)
        shift = tl.sum(tl.where(fresh, start, inverse) * factor, axis=0, keep_dims=True)

        squared = tl.sum(move * move, axis=2, keep_dims=True)
        scale = squared + tl.sum(move * shift, axis=2, keep_dims=True)
        scale = 1.0 / tl.where(tl.abs(scale) < 1e-12, 1e-12, scale)
        is_first = steps == 0
        row = tl.sum(move * inverse, axis=2, keep_dims=True)
        inverse = tl.where(is_first, inverse, inverse - row * (shift * scale))
        move = tl.where(fresh, 0.0, -shift * tl.where(is_first, 1.0, squared * scale))
        x = tl.where(fresh, shift, x + move)

        transform = blend_rows(blended_ptr, x, lane, axis, active, lower, box, NX, NY, NZ, BLOCK)
        residual = tl.where(lane < 3, tl.sum(transform * x, axis=2, keep_dims=True) - target, 0.0)
        error = tl.sum(residual * residual, axis=0, keep_dims=True)
        inverse = tl.where(fresh, tl.where((axis < 3) & (lane < 3), transform, 0.0), inverse)
        steps = tl.where(fresh, 0, steps + 1)

        converged = active & (error < converged_squared)
        beyond = tl.where((axis < 3) & ((x < lower) | (x > upper)), 1, 0)
        keep = converged & (tl.max(beyond, axis=2, keep_dims=True) == 0)
        if occupied_ptr is not None:
            inner = tl.minimum(tl.maximum(tl.floor((x - lower) * occupied_scale), 0.0), 1e6).to(tl.int32)
            at = tl.sum(inner * vector(axis, OY * OZ, OZ, 1), axis=2, keep_dims=True)
            over = tl.where((axis < 3) & (inner >= vector(axis, OX, OY, OZ)), 1, 0)
            keep = keep & (tl.max(over, axis=2, keep_dims=True) == 0)
            keep = keep & (tl.load(occupied_ptr + at, mask=keep, other=0) != 0)
        gap = found - x
        nearest = tl.min(tl.sum(gap * gap, axis=2, keep_dims=True), axis=0, keep_dims=True)
        keep = keep & (nearest >= same_squared) & (num_found < SLOTS)
        found = tl.where(keep & (slot == num_found), x, found)
        num_found += keep.to(tl.int32)

        # Not "error >= diverged": what is not a number must end too.
        fresh = converged | ~(error < diverged_squared) | (steps >= max_steps) | (nearest < passed_squared)
        pending = tl.where(fresh, pending & (pending - 1), pending)

    flat = tl.reshape(num_found, BLOCK)
    before = tl.reshape(tl.cumsum(flat, axis=0) - flat, 1, BLOCK, 1)
    begin = tl.atomic_add(total_ptr, tl.sum(flat, axis=0), sem="relaxed") + before
    written = tl.minimum(num_found, tl.maximum(capacity - begin, 0))
    tl.store(starts_ptr + point, begin, mask=point < n)
    tl.store(counts_ptr + point, written, mask=point < n)
    out = begin + slot
    tl.store(point_ptr + out, point + tl.zeros([SLOTS, 1, 1], tl.int32), mask=slot < written)
    tl.store(canonical_ptr + 3 * out + axis, found, mask=(slot < written) & (axis < 3))


@triton.jit(do_not_specialize=["first", "capacity"])
def gradient_kernel(
    canonical_ptr,  # [capacity, 3]
    point_ptr,  # [capacity]
    total_ptr,  # [1]
    canonical_grad_ptr,  # [capacity, 3]
    blended_ptr,  # [voxels, 12]
    weights_ptr,  # [voxels, BONES]
    lower_ptr,
    upper_ptr,
    points_grad_ptr,  # [n, 3], zeros at first
    bones_grad_ptr,  # [BONES, 4, 4], zeros at first
    first,  # row of the first root
    capacity,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    BONES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient of the implicit function (InstantAvatar eq. 9) with respect to the posed points and the bone transforms.

    With y = J^-T times a root's gradient, the point's is y, and that of bone b is -w_b y (x, y, z, 1)^T. A program sums
    the bones' gradients over its share of the roots before it adds them.
    """
    LANES: tl.constexpr = 32 if BONES <= 32 else 64
    num_roots = tl.minimum(tl.load(total_ptr), capacity)
    begin = first + tl.program_id(0) * BLOCK
    if begin >= num_roots:
        return
    axis = tl.arange(0, 4)[None, :]
    bone = tl.arange(0, LANES)[None, :]
    entry = tl.arange(0, 16)[None, :]
    lower = tl.load(lower_ptr + axis, mask=axis < 3, other=0.0)
    upper = tl.load(upper_ptr + axis, mask=axis < 3, other=1.0)
    box = box_scale(axis, lower, upper, NX, NY, NZ)
    total = tl.zeros([LANES, 16], tl.float32)
    for start in range(begin, num_roots, tl.num_programs(0) * BLOCK):
        root = start + tl.arange(0, BLOCK)[:, None]
        valid = root < num_roots
        x = tl.load(canonical_ptr + 3 * root + axis, mask=valid & (axis < 3), other=1.0)
        grad = tl.load(canonical_grad_ptr + 3 * root + axis, mask=valid & (axis < 3), other=0.0)
        unit = tl.minimum(tl.maximum((x - lower) * box, 0.0), vector(axis, NX - 1, NY - 1, NZ - 1).to(tl.float32))
        base = tl.minimum(tl.floor(unit).to(tl.int32), vector(axis, NX - 2, NY - 2, NZ - 2))
        place = unit - base.to(tl.float32)
        row = tl.sum(base * vector(axis, NY * NZ, NZ, 1), axis=1, keep_dims=True)

        # Rows of the Jacobian: the blended rotation, and what the weights' slopes move.
        jacobian_0 = tl.zeros([BLOCK, 4], tl.float32)
        jacobian_1 = tl.zeros([BLOCK, 4], tl.float32)
        jacobian_2 = tl.zeros([BLOCK, 4], tl.float32)
        weights = tl.zeros([BLOCK, LANES], tl.float32)
        for corner in tl.static_range(8):
            up = vector(axis, corner & 1, corner >> 1 & 1, corner >> 2)
            side = tl.where(axis < 3, tl.where(up == 1, place, 1.0 - place), 1.0)
            side_x = tl.sum(tl.where(axis == 0, side, 0.0), axis=1, keep_dims=True)
            side_y = tl.sum(tl.where(axis == 1, side, 0.0), axis=1, keep_dims=True)
            side_z = tl.sum(tl.where(axis == 2, side, 0.0), axis=1, keep_dims=True)
            weight = side_x * side_y * side_z
            face = tl.where(axis == 0, side_y * side_z, tl.where(axis == 1, side_x * side_z, side_x * side_y))
            slope = tl.where(up == 1, face, -face) * box
            voxel = row + (corner & 1) * (NY * NZ) + (corner >> 1 & 1) * NZ + (corner >> 2)
            source = blended_ptr + 12 * voxel + axis
            transform = tl.load(source, mask=valid, other=0.0)
            jacobian_0 += weight * transform + slope * tl.sum(transform * x, axis=1, keep_dims=True)
            transform = tl.load(source + 4, mask=valid, other=0.0)
            jacobian_1 += weight * transform + slope * tl.sum(transform * x, axis=1, keep_dims=True)
            transform = tl.load(source + 8, mask=valid, other=0.0)
            jacobian_2 += weight * transform + slope * tl.sum(transform * x, axis=1, keep_dims=True)
            skinning = tl.load(weights_ptr + BONES * voxel + bone, mask=valid & (bone < BONES), other=0.0)
            weights += weight * skinning

        # Columns of the cofactors solve J^T y = grad.
        cofactor_0, cofactor_1 = _cross(jacobian_1, jacobian_2, axis), _cross(jacobian_2, jacobian_0, axis)
        cofactor_2 = _cross(jacobian_0, jacobian_1, axis)
        determinant = tl.sum(tl.where(axis < 3, jacobian_0 * cofactor_0, 0.0), axis=1, keep_dims=True)
        scale = tl.where(valid, 1.0 / determinant, 0.0)
        y_0 = scale * tl.sum(cofactor_0 * grad, axis=1, keep_dims=True)
        y_1 = scale * tl.sum(cofactor_1 * grad, axis=1, keep_dims=True)
        y_2 = scale * tl.sum(cofactor_2 * grad, axis=1, keep_dims=True)
        y = tl.where(axis == 0, y_0, tl.where(axis == 1, y_1, y_2))
        point = tl.load(point_ptr + root, mask=valid, other=0)
        tl.atomic_add(points_grad_ptr + 3 * point + axis, y, mask=valid & (axis < 3), sem="relaxed")

        y = tl.where(entry < 4, y_0, tl.where(entry < 8, y_1, tl.where(entry < 12, y_2, 0.0)))
        x_0 = tl.sum(tl.where(axis == 0, x, 0.0), axis=1, keep_dims=True)
        x_1 = tl.sum(tl.where(axis == 1, x, 0.0), axis=1, keep_dims=True)
        x_2 = tl.sum(tl.where(axis == 2, x, 0.0), axis=1, keep_dims=True)
        along = entry & 3
        x_all = tl.where(along == 0, x_0, tl.where(along == 1, x_1, tl.where(along == 2, x_2, 1.0)))
        total += tl.dot(tl.trans(weights), y * x_all, input_precision="ieee")
    to_bone = tl.arange(0, LANES)[:, None]
    tl.atomic_add(bones_grad_ptr + 16 * to_bone + entry, -total, mask=(to_bone < BONES) & (entry < 12), sem="relaxed")


@triton.jit
def _cross(left, right, axis):
    """Cross product of rows [n, 4], of which the first three components count; the fourth is zero."""
    left_0 = tl.sum(tl.where(axis == 0, left, 0.0), axis=1, keep_dims=True)
    left_1 = tl.sum(tl.where(axis == 1, left, 0.0), axis=1, keep_dims=True)
    left_2 = tl.sum(tl.where(axis == 2, left, 0.0), axis=1, keep_dims=True)
    right_0 = tl.sum(tl.where(axis == 0, right, 0.0), axis=1, keep_dims=True)
    right_1 = tl.sum(tl.where(axis == 1, right, 0.0), axis=1, keep_dims=True)
    right_2 = tl.sum(tl.where(axis == 2, right, 0.0), axis=1, keep_dims=True)
    cross_0 = left_1 * right_2 - left_2 * right_1
    cross_1 = left_2 * right_0 - left_0 * right_2
    cross_2 = left_0 * right_1 - left_1 * right_0
    return tl.where(axis == 0, cross_0, tl.where(axis == 1, cross_1, tl.where(axis == 2, cross_2, 0.0)))
