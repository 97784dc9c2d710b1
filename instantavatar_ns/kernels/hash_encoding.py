"""Hash encoding: gather, scatter to the table, gradient with respect to the points.

A program serves a block of points on one level, and consecutive programs serve the same level, so that one level's
table (4 MB) stays in the second-level cache. The eight vertices of a point are worked on by neighbouring lanes: the two
along x mostly share a 32-byte sector, which is then fetched, or added to, once.

Points are [n, 3] in the unit cube, encodings [features, stride] (levels outermost, two features each), the table
[rows, 2]. The stride is a multiple of 16 from `n` on, so that kernels are compiled once for all `n`.
`scale`, `stride`, `entries` and `offset` are the buffers of `HashEncoding`. Rows beyond `total` are left out.
"""

import triton
import triton.language as tl


@triton.jit
def num_rows(n, total_ptr):
    """Rows that are filled: all `n`, or what the counter on the device says."""
    rows = n
    if total_ptr is not None:
        rows = tl.minimum(tl.load(total_ptr), n)
    return rows


@triton.jit
def _axis(points_ptr, point, valid, level, scale_ptr, axis: tl.constexpr):
    """Coordinate, cell and place in the cell along an axis. A coordinate that is not a number counts as 0."""
    coordinate = tl.load(points_ptr + 3 * point + axis, mask=valid, other=0.0)
    clamped = tl.minimum(tl.maximum(coordinate, 0.0), 1.0)
    scale = tl.load(scale_ptr + level)
    cell = tl.floor(tl.fma(clamped, scale, 0.5))
    # Not the fraction of the rounded sum, which has but three decimals left on the finest levels.
    return coordinate, cell.to(tl.int32), tl.fma(clamped, scale, 0.5 - cell)


@triton.jit
def _rows(x, y, z, corner, level, stride_ptr, entries_ptr, offset_ptr, num_dense):
    """Table rows of the vertices `corner` (bit 0 is x) of the cells; products wrap round in 32 bits."""
    stride_x = tl.load(stride_ptr + 3 * level).to(tl.uint32, bitcast=True)
    stride_y = tl.load(stride_ptr + 3 * level + 1).to(tl.uint32, bitcast=True)
    stride_z = tl.load(stride_ptr + 3 * level + 2).to(tl.uint32, bitcast=True)
    entries = tl.load(entries_ptr + level).to(tl.uint32, bitcast=True)
    x = (x[None, :] + (corner & 1)).to(tl.uint32) * stride_x
    y = (y[None, :] + (corner >> 1 & 1)).to(tl.uint32) * stride_y
    z = (z[None, :] + (corner >> 2 & 1)).to(tl.uint32) * stride_z
    plain = x + y + z
    # The half-cell offset can lead one past the end of a dense level, where tiny-cuda-nn wraps round.
    plain = tl.where(plain < entries, plain, plain - entries)
    row = tl.where(level < num_dense, plain, (x ^ y ^ z) & (entries - 1))
    return row.to(tl.int32) + tl.load(offset_ptr + level)


@triton.jit
def _side(place, corner, axis: tl.constexpr):
    """Weight of the vertices along one axis."""
    return tl.where((corner >> axis & 1) == 1, place[None, :], 1.0 - place[None, :])


@triton.jit(do_not_specialize=["n"])
def gather_kernel(
    points_ptr,
    table_ptr,  # pairs of float32 as 64-bit words: a pair is one load
    encoding_ptr,
    jacobian_ptr,  # [levels, 2, 3, stride] in cells, or None
    total_ptr,
    scale_ptr,
    stride_ptr,
    entries_ptr,
    offset_ptr,
    n,
    stride,
    num_dense,
    BLOCK: tl.constexpr,
):
    """Encode points; on demand keep the derivatives, which are at hand here and would cost another gather later."""
    level = tl.program_id(1)
    rows = num_rows(n, total_ptr)
    start = tl.program_id(0) * BLOCK
    if start >= rows:
        return
    point = start + tl.arange(0, BLOCK)
    valid = point < rows
    corner = tl.arange(0, 8)[:, None]
    raw_x, x, place_x = _axis(points_ptr, point, valid, level, scale_ptr, 0)
    raw_y, y, place_y = _axis(points_ptr, point, valid, level, scale_ptr, 1)
    raw_z, z, place_z = _axis(points_ptr, point, valid, level, scale_ptr, 2)
    row = _rows(x, y, z, corner, level, stride_ptr, entries_ptr, offset_ptr, num_dense)
    pair = tl.load(table_ptr + row, mask=valid[None, :], other=0)
    first = pair.to(tl.int32).to(tl.float32, bitcast=True)
    second = (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    side_x, side_y, side_z = _side(place_x, corner, 0), _side(place_y, corner, 1), _side(place_z, corner, 2)
    weight = side_x * side_y * side_z
    out = encoding_ptr + 2 * level.to(tl.int64) * stride + point
    tl.store(out, tl.sum(weight * first, axis=0), mask=valid)
    tl.store(out + stride, tl.sum(weight * second, axis=0), mask=valid)
    if jacobian_ptr is not None:
        out = jacobian_ptr + 6 * level.to(tl.int64) * stride + point
        for axis in tl.static_range(3):
            if axis == 0:
                raw, face = raw_x, side_y * side_z
            elif axis == 1:
                raw, face = raw_y, side_x * side_z
            else:
                raw, face = raw_z, side_x * side_y
            slope = tl.where((corner >> axis & 1) == 1, face, -face)
            inside = (raw >= 0.0) & (raw <= 1.0)
            tl.store(out + axis * stride, tl.where(inside, tl.sum(slope * first, axis=0), 0.0), mask=valid)
            tl.store(out + (3 + axis) * stride, tl.where(inside, tl.sum(slope * second, axis=0), 0.0), mask=valid)


@triton.jit(do_not_specialize=["n"])
def scatter_kernel(
    points_ptr,
    encoding_grad_ptr,  # float32
    table_grad_ptr,  # float32, zeros at first
    total_ptr,
    scale_ptr,
    stride_ptr,
    entries_ptr,
    offset_ptr,
    n,
    stride,
    num_dense,
    first_level,
    MERGE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the gradient of the encoding to the table's.

    With MERGE the points of a block that share a cell are summed first, by a product with the matrix that says which
    do: on the coarse levels many points share few rows, and additions to one address wait for each other.
    """
    level = first_level + tl.program_id(1)
    rows = num_rows(n, total_ptr)
    start = tl.program_id(0) * BLOCK
    if start >= rows:
        return
    lane = tl.arange(0, BLOCK)
    point = start + lane
    valid = point < rows
    corner = tl.arange(0, 8)[:, None]
    _, x, place_x = _axis(points_ptr, point, valid, level, scale_ptr, 0)
    _, y, place_y = _axis(points_ptr, point, valid, level, scale_ptr, 1)
    _, z, place_z = _axis(points_ptr, point, valid, level, scale_ptr, 2)
    row = _rows(x, y, z, corner, level, stride_ptr, entries_ptr, offset_ptr, num_dense)
    weight = _side(place_x, corner, 0) * _side(place_y, corner, 1) * _side(place_z, corner, 2)
    grads = encoding_grad_ptr + 2 * level.to(tl.int64) * stride + point
    first = tl.load(grads, mask=valid, other=0.0)[None, :]
    second = tl.load(grads + stride, mask=valid, other=0.0)[None, :]
    grad = tl.join(weight * first, weight * second)
    if MERGE:
        cell = x | y << 10 | z << 20  # up to 1024 cells along an edge
        cell = tl.where(valid, cell, -1)
        same = cell[:, None] == cell[None, :]
        flat = tl.reshape(tl.permute(grad, 0, 2, 1), 16, BLOCK)
        flat = tl.dot(flat, same.to(tl.float32), input_precision=PRECISION)
        grad = tl.permute(tl.reshape(flat, 8, 2, BLOCK), 0, 2, 1)
        leader = tl.min(tl.where(same, lane[:, None], BLOCK), axis=0)
        valid = valid & (leader == lane)
    # The two features are added by one instruction on devices that can (compute capability 9.0).
    out = table_grad_ptr + 2 * row[:, :, None] + tl.arange(0, 2)[None, None, :]
    tl.atomic_add(out, grad, mask=valid[None, :, None], sem="relaxed")


@triton.jit(do_not_specialize=["n"])
def points_kernel(
    encoding_grad_ptr,  # float32
    jacobian_ptr,
    points_grad_ptr,
    total_ptr,
    scale_ptr,
    n,
    stride,
    LEVELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient with respect to the points, [n, 3], zero beyond `total`."""
    point = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = point < num_rows(n, total_ptr)
    x = tl.zeros([BLOCK], tl.float32)
    y = tl.zeros([BLOCK], tl.float32)
    z = tl.zeros([BLOCK], tl.float32)
    grads, slopes = encoding_grad_ptr + point, jacobian_ptr + point
    for level in range(LEVELS):
        scale = tl.load(scale_ptr + level)
        for _ in tl.static_range(2):
            grad = scale * tl.load(grads, mask=valid, other=0.0)
            x += grad * tl.load(slopes, mask=valid, other=0.0).to(tl.float32)
            y += grad * tl.load(slopes + stride, mask=valid, other=0.0).to(tl.float32)
            z += grad * tl.load(slopes + 2 * stride, mask=valid, other=0.0).to(tl.float32)
            grads += stride
            slopes += 3 * stride
    tl.store(points_grad_ptr + 3 * point, x, mask=point < n)
    tl.store(points_grad_ptr + 3 * point + 1, y, mask=point < n)
    tl.store(points_grad_ptr + 3 * point + 2, z, mask=point < n)
