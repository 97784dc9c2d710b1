"""Images in rounds, front to back: marching and compositing; launched by `rendering/rounds_triton.py`.

A lane is a ray, a program a warp: neighbouring pixels take much the same way, and lanes wait for no other warp.
"""

import triton
import triton.language as tl

from instantavatar_ns.kernels.composite import _densest_root
from instantavatar_ns.kernels.march import _FILLER, MOST_STEPS, _occupied, _slab


@triton.jit(do_not_specialize=["num_rays", "origin_stride", "limit", "capacity", "nx", "ny", "nz"])
def march_kernel(
    origins,  # [1 or rays, 3] float32
    directions,  # [rays, 3] float32
    box,  # [6] float32
    filled,  # [6] float32, box around the occupied cells
    binaries,  # [nx, ny, nz] uint8
    optical_depth,  # [rays] float32: what the rounds before have passed through
    next_step,  # [rays] int32: the step that this round begins with at the earliest, updated
    points,  # [capacity, 3] float32, written: the samples' middles
    t_starts,  # [capacity] float32, written
    starts,  # [rays] int32, written
    counts,  # [rays] int32, written
    total,  # [1] int32, added to
    step,
    most_depth,
    num_rays,
    origin_stride,  # 0 where all rays share their origin, else 3
    limit,  # most samples of a ray
    capacity,
    nx,
    ny,
    nz,
    RAYS: tl.constexpr,
):
    """Take the next samples of rays that are not opaque yet: count them, take rows for a warp's, write them."""
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    valid = ray < num_rays
    origin, direction = origins + origin_stride * ray, directions + 3 * ray
    ox = tl.load(origin, mask=valid, other=0.0)
    oy = tl.load(origin + 1, mask=valid, other=0.0)
    oz = tl.load(origin + 2, mask=valid, other=0.0)
    dx = tl.load(direction, mask=valid, other=1.0)
    dy = tl.load(direction + 1, mask=valid, other=1.0)
    dz = tl.load(direction + 2, mask=valid, other=1.0)
    near_x, far_x = _slab(ox, dx, tl.load(filled), tl.load(filled + 3))
    near_y, far_y = _slab(oy, dy, tl.load(filled + 1), tl.load(filled + 4))
    near_z, far_z = _slab(oz, dz, tl.load(filled + 2), tl.load(filled + 5))
    near = tl.maximum(tl.maximum(tl.maximum(near_x, near_y), near_z), 0.0)
    far = tl.minimum(tl.minimum(far_x, far_y), far_z)
    is_open = valid & (far > near) & (tl.load(optical_depth + ray, mask=valid, other=0.0) <= most_depth)

    # Only numbers of steps in the box fit an integer.
    near = tl.where(is_open, near, 0.0)
    entry = tl.maximum(tl.ceil(near / step - 0.5), 0.0).to(tl.int32)
    steps = tl.minimum(tl.ceil(tl.where(is_open, far - near, 0.0) / step) + 1, MOST_STEPS)
    end = tl.where(is_open, entry + steps.to(tl.int32), 0)
    begin = tl.maximum(entry, tl.load(next_step + ray, mask=valid, other=0))

    half_step = step * 0.5
    at, taken, going = begin, tl.zeros([RAYS], tl.int32), begin < end
    while tl.max(going.to(tl.int32), axis=0) > 0:
        middle = (2 * at + 1).to(tl.float32) * half_step
        hit = going & _occupied(middle, far, ox, oy, oz, dx, dy, dz, box, binaries, nx, ny, nz)
        taken += hit.to(tl.int32)
        at += going.to(tl.int32)
        going = (at < end) & (taken < limit)
    tl.store(next_step + ray, at, mask=valid)

    wanted = tl.sum(taken, axis=0)
    place = 0
    if wanted > 0:
        place = tl.atomic_add(total, wanted, sem="relaxed")
    slot = place + tl.cumsum(taken, axis=0) - taken
    tl.store(starts + ray, tl.minimum(slot, capacity), mask=valid)
    tl.store(counts + ray, tl.maximum(tl.minimum(taken, capacity - slot), 0), mask=valid)
    last, at, left = at, begin, taken
    going = left > 0
    while tl.max(going.to(tl.int32), axis=0) > 0:
        middle = (2 * at + 1).to(tl.float32) * half_step
        hit = going & _occupied(middle, far, ox, oy, oz, dx, dy, dz, box, binaries, nx, ny, nz)
        fits = hit & (slot < capacity)
        tl.store(t_starts + slot, at.to(tl.float32) * step, mask=fits)
        tl.store(points + 3 * slot, ox + middle * dx, mask=fits)
        tl.store(points + 3 * slot + 1, oy + middle * dy, mask=fits)
        tl.store(points + 3 * slot + 2, oz + middle * dz, mask=fits)
        slot += hit.to(tl.int32)
        left -= hit.to(tl.int32)
        at += 1
        going = (left > 0) & (at < last)
    while tl.max(left, axis=0) > 0:  # never, as far as is known: see _occupied
        fits = (left > 0) & (slot < capacity)
        tl.store(t_starts + slot, _FILLER, mask=fits)
        tl.store(points + 3 * slot, _FILLER, mask=fits)
        tl.store(points + 3 * slot + 1, _FILLER, mask=fits)
        tl.store(points + 3 * slot + 2, _FILLER, mask=fits)
        slot += 1
        left -= 1


@triton.jit(do_not_specialize=["num_rays"])
def composite_round_kernel(
    density,  # [roots] float32, 1/metres
    rgb,  # [roots, 3] float32
    root_starts,  # [samples] int32
    root_counts,  # [samples] int32
    t_starts,  # [samples] float32
    starts,  # [rays] int32
    counts,  # [rays] int32
    out_rgb,  # [rays, 3] float32, added to
    out_accumulation,  # [rays] float32, added to
    out_depth,  # [rays] float32, added to: the sum of weights times distance
    optical_depth,  # [rays] float32, added to
    step,
    alpha_threshold,
    most_depth,
    num_rays,
    RAYS: tl.constexpr,
):
    """Add a round's samples to their pixels, by the rules of `composite_kernel`."""
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    valid = ray < num_rays
    samples = tl.load(counts + ray, mask=valid, other=0)
    longest = tl.max(samples, axis=0)
    if longest > 0:
        sample = tl.load(starts + ray, mask=valid, other=0)
        red = tl.load(out_rgb + 3 * ray, mask=valid, other=0.0)
        green = tl.load(out_rgb + 3 * ray + 1, mask=valid, other=0.0)
        blue = tl.load(out_rgb + 3 * ray + 2, mask=valid, other=0.0)
        accumulation = tl.load(out_accumulation + ray, mask=valid, other=0.0)
        depth = tl.load(out_depth + ray, mask=valid, other=0.0)
        before = tl.load(optical_depth + ray, mask=valid, other=0.0)
        for place in range(0, longest):
            seen = (place < samples) & (before <= most_depth)
            chosen, sigma = _densest_root(density, root_starts, root_counts, sample + place, seen)
            optical = sigma * step
            alpha = 1 - tl.exp(-optical)
            shown = seen & (chosen >= 0) & (alpha >= alpha_threshold)
            weight = tl.where(shown, tl.exp(-before) * alpha, 0.0)
            red += weight * tl.load(rgb + 3 * chosen, mask=shown, other=0.0)
            green += weight * tl.load(rgb + 3 * chosen + 1, mask=shown, other=0.0)
            blue += weight * tl.load(rgb + 3 * chosen + 2, mask=shown, other=0.0)
            start = tl.load(t_starts + sample + place, mask=shown, other=0.0)
            accumulation += weight
            depth += weight * (start + step * 0.5)
            before += tl.where(shown, optical, 0.0)
        tl.store(out_rgb + 3 * ray, red, mask=valid)
        tl.store(out_rgb + 3 * ray + 1, green, mask=valid)
        tl.store(out_rgb + 3 * ray + 2, blue, mask=valid)
        tl.store(out_accumulation + ray, accumulation, mask=valid)
        tl.store(out_depth + ray, depth, mask=valid)
        tl.store(optical_depth + ray, before, mask=valid)
