"""Marching rays through a grid of occupied cells; launched by `rendering/march_triton.py`."""

import triton
import triton.language as tl

MOST_STEPS = tl.constexpr(1 << 16)  # of a ray: the box is some thousand steps wide
_FILLER = tl.constexpr(1e6)  # metres: a sample where nothing is


@triton.jit
def _slab(origin, direction, lower, upper):
    """Distances at which a ray enters and leaves the space between two planes."""
    # A ray along the planes is given a direction so flat that it never leaves: no infinity times zero.
    direction = tl.where(tl.abs(direction) < 1e-12, 1e-12, direction)
    a = (lower - origin) / direction
    b = (upper - origin) / direction
    return tl.minimum(a, b), tl.maximum(a, b)


@triton.jit
def _occupied(middle, far, ox, oy, oz, dx, dy, dz, box, binaries, nx, ny, nz):
    """Mark the steps whose middles lie in occupied cells in front of `far`.

    Kernels ask twice, to count and to write. The compiler is free to round a product and a sum at once in one place and
    one by one in the other; middles made without such a pair are the same in both. Should a middle at a cell's face
    still be counted and not found again, `_FILLER` takes its row.
    """
    lx, ly, lz = tl.load(box), tl.load(box + 1), tl.load(box + 2)
    x = tl.floor((ox + middle * dx - lx) / (tl.load(box + 3) - lx) * nx).to(tl.int32)
    y = tl.floor((oy + middle * dy - ly) / (tl.load(box + 4) - ly) * ny).to(tl.int32)
    z = tl.floor((oz + middle * dz - lz) / (tl.load(box + 5) - lz) * nz).to(tl.int32)
    inside = (middle < far) & (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & (z >= 0) & (z < nz)
    return inside & (tl.load(binaries + (x * ny + y) * nz + z, mask=inside, other=0) != 0)


@triton.jit
def traverse_kernel(
    origins,  # [rays, 3] float32
    directions,  # [rays, 3] float32
    shifts,  # [rays] float32: part of a step by which each ray's samples are shifted
    box,  # [6] float32
    filled,  # [6] float32, box around the occupied cells
    binaries,  # [nx, ny, nz] uint8
    ray_indices,  # [capacity] int32, written
    t_starts,  # [capacity] float32, written
    starts,  # [rays] int32, written
    counts,  # [rays] int32, written
    total,  # [1] int32, added to
    step,
    capacity,
    nx,
    ny,
    nz,
    LANES: tl.constexpr,
):
    """One ray a program: its occupied steps are counted, take rows of the buffer, and are written.

    Looking the cells up twice, in cache, is cheaper than a prefix sum over the rays between two launches.
    """
    ray = tl.program_id(0)
    ox, oy, oz = tl.load(origins + 3 * ray), tl.load(origins + 3 * ray + 1), tl.load(origins + 3 * ray + 2)
    dx, dy, dz = tl.load(directions + 3 * ray), tl.load(directions + 3 * ray + 1), tl.load(directions + 3 * ray + 2)
    near_x, far_x = _slab(ox, dx, tl.load(filled), tl.load(filled + 3))
    near_y, far_y = _slab(oy, dy, tl.load(filled + 1), tl.load(filled + 4))
    near_z, far_z = _slab(oz, dz, tl.load(filled + 2), tl.load(filled + 5))
    near = tl.maximum(tl.maximum(tl.maximum(near_x, near_y), near_z), 0.0)
    far = tl.minimum(tl.minimum(far_x, far_y), far_z)

    shift = tl.load(shifts + ray)
    first_step = tl.maximum(tl.ceil(near / step - shift - 0.5), 0.0)
    # A pose that training has spoilt may give rays without direction, which would never leave the box.
    steps = tl.where(far > near, tl.minimum(tl.ceil((far - near) / step) + 1, MOST_STEPS), 0.0).to(tl.int32)
    lanes = tl.arange(0, LANES)

    wanted = 0
    for begin in range(0, steps, LANES):
        middle = (first_step + (begin + lanes).to(tl.float32) + shift + 0.5) * step
        hit = _occupied(middle, far, ox, oy, oz, dx, dy, dz, box, binaries, nx, ny, nz)
        wanted += tl.sum(hit.to(tl.int32), axis=0)

    place = 0
    if wanted > 0:
        place = tl.atomic_add(total, wanted, sem="relaxed")
    tl.store(starts + ray, tl.minimum(place, capacity))
    tl.store(counts + ray, tl.maximum(tl.minimum(wanted, capacity - place), 0))
    if wanted > 0:
        end = tl.minimum(place + wanted, capacity)
        for begin in range(0, steps, LANES):
            place_on_ray = first_step + (begin + lanes).to(tl.float32) + shift
            hit = _occupied((place_on_ray + 0.5) * step, far, ox, oy, oz, dx, dy, dz, box, binaries, nx, ny, nz)
            ones = hit.to(tl.int32)
            slot = place + tl.cumsum(ones, axis=0) - 1
            fits = hit & (slot < end)
            tl.store(ray_indices + slot, ray, mask=fits)
            tl.store(t_starts + slot, place_on_ray * step, mask=fits)
            place += tl.sum(ones, axis=0)
        unwritten = place + lanes
        tl.store(ray_indices + unwritten, ray, mask=unwritten < end)
        tl.store(t_starts + unwritten, _FILLER, mask=unwritten < end)
