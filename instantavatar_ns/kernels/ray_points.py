"""Points on rays in the root space of a pose; launched by `rendering/ray_points_triton.py`."""

import triton
import triton.language as tl


@triton.jit
def _world_point(origins, directions, ray_indices, t_starts, sample, valid, origin_stride, half_step):
    """Middles of samples in the world."""
    ray = tl.load(ray_indices + sample, mask=valid, other=0)
    middle = tl.load(t_starts + sample, mask=valid, other=0.0) + half_step
    origin, direction = origins + origin_stride * ray, directions + 3 * ray
    x = tl.load(origin, mask=valid, other=0.0) + middle * tl.load(direction, mask=valid, other=0.0)
    y = tl.load(origin + 1, mask=valid, other=0.0) + middle * tl.load(direction + 1, mask=valid, other=0.0)
    z = tl.load(origin + 2, mask=valid, other=0.0) + middle * tl.load(direction + 2, mask=valid, other=0.0)
    return x, y, z


@triton.jit(do_not_specialize=["origin_stride", "capacity"])
def ray_points_kernel(
    origins,  # [1 or rays, 3] float32
    directions,  # [rays, 3] float32
    ray_indices,  # [capacity] int32
    t_starts,  # [capacity] float32
    total,  # [1] int32: samples that there are
    world_to_root,  # [4, 4] float32
    points,  # [capacity, 3] float32, written
    half_step,
    origin_stride,  # 0 where all rays share their origin, else 3
    capacity,
    BLOCK: tl.constexpr,
):
    """Place the middle of each sample in root space. Rows beyond `total` are not written."""
    rows = tl.minimum(tl.load(total), capacity)
    if tl.program_id(0) * BLOCK >= rows:
        return
    sample = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = sample < rows
    x, y, z = _world_point(origins, directions, ray_indices, t_starts, sample, valid, origin_stride, half_step)
    for axis in tl.static_range(3):
        row = world_to_root + 4 * axis
        value = x * tl.load(row) + y * tl.load(row + 1) + z * tl.load(row + 2) + tl.load(row + 3)
        tl.store(points + 3 * sample + axis, value, mask=valid)


@triton.jit(do_not_specialize=["origin_stride", "capacity"])
def ray_points_backward_kernel(
    origins,  # [1 or rays, 3] float32
    directions,  # [rays, 3] float32
    ray_indices,  # [capacity] int32
    t_starts,  # [capacity] float32
    total,  # [1] int32
    points_grad,  # [capacity, 3] float32
    world_to_root_grad,  # [4, 4] float32, zeros at first
    half_step,
    origin_stride,
    capacity,
    BLOCK: tl.constexpr,
):
    """Sum the products of the points' gradients and of the points in the world, (x, y, z, 1).

    A lane sums over its share of the samples, and a program over its lanes, before twelve numbers are added.
    """
    rows = tl.minimum(tl.load(total), capacity)
    if tl.program_id(0) * BLOCK >= rows:
        return
    column = tl.arange(0, 4)[None, :]
    row_0 = tl.zeros([BLOCK, 4], tl.float32)
    row_1 = tl.zeros([BLOCK, 4], tl.float32)
    row_2 = tl.zeros([BLOCK, 4], tl.float32)
    for begin in range(tl.program_id(0) * BLOCK, rows, tl.num_programs(0) * BLOCK):
        sample = begin + tl.arange(0, BLOCK)[:, None]
        valid = sample < rows
        x, y, z = _world_point(origins, directions, ray_indices, t_starts, sample, valid, origin_stride, half_step)
        point = tl.where(column == 0, x, tl.where(column == 1, y, tl.where(column == 2, z, 1.0)))
        grad = points_grad + 3 * sample
        row_0 += tl.load(grad, mask=valid, other=0.0) * point
        row_1 += tl.load(grad + 1, mask=valid, other=0.0) * point
        row_2 += tl.load(grad + 2, mask=valid, other=0.0) * point
    place = world_to_root_grad + tl.arange(0, 4)
    tl.atomic_add(place, tl.sum(row_0, axis=0), sem="relaxed")
    tl.atomic_add(place + 4, tl.sum(row_1, axis=0), sem="relaxed")
    tl.atomic_add(place + 8, tl.sum(row_2, axis=0), sem="relaxed")
