"""Functions that several kernels share: trilinear blending of a voxel grid's transforms, and bounds of positions."""

import triton
import triton.language as tl


@triton.jit
def vector(axis, first: tl.constexpr, second: tl.constexpr, third: tl.constexpr):
    """(first, second, third, 0) along `axis`, integers."""
    return tl.where(axis == 0, first, tl.where(axis == 1, second, tl.where(axis == 2, third, 0)))


@triton.jit
def box_scale(axis, lower, upper, NX: tl.constexpr, NY: tl.constexpr, NZ: tl.constexpr):
    """Voxels per metre; of the fourth component 0."""
    return vector(axis, NX - 1, NY - 1, NZ - 1).to(tl.float32) / (upper - lower)


@triton.jit
def component(values, axis, number: tl.constexpr):
    """One component of [1, n, 4], as [1, n, 1]."""
    return tl.sum(tl.where(axis == number, values, 0.0), axis=2, keep_dims=True)


@triton.jit
def raise_to(pointer, value, mask):
    """Atomic maximum.

    It looks first: thousands of programs that bound the same positions would wait for each other, and hardly any has a
    larger one than those before it.
    """
    seen = tl.load(pointer, mask=mask, other=float("inf"), volatile=True)
    tl.atomic_max(pointer, value, mask=mask & (value > seen), sem="relaxed")


@triton.jit
def blend_rows(
    blended_ptr,
    x,
    lane,
    axis,
    active,
    lower,
    scale,
    NX: tl.constexpr,
    NY: tl.constexpr,
    NZ: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Transforms [rows, n, 4] at positions x [1, n, 4], clamped to the box; the fourth row repeats the third.

    What is not active reads the first voxel: a mask would cost a sixth of the search's instructions."""
    unit = (x - lower) * scale
    unit = tl.where(tl.abs(unit) < 1e9, unit, 0.0)  # nor what is not a number
    unit = tl.minimum(tl.maximum(unit, 0.0), vector(axis, NX - 1, NY - 1, NZ - 1).to(tl.float32))
    base = tl.minimum(tl.floor(unit).to(tl.int32), vector(axis, NX - 2, NY - 2, NZ - 2))
    place = unit - base.to(tl.float32)
    row = tl.sum(base * vector(axis, NY * NZ, NZ, 1), axis=2, keep_dims=True)
    place_x, place_y, place_z = component(place, axis, 0), component(place, axis, 1), component(place, axis, 2)
    row = tl.where(active, row, 0)
    source = blended_ptr + (12 * row + 4 * tl.minimum(lane, 2) + axis)
    transform = tl.zeros([4, BLOCK, 4], tl.float32)
    for corner in tl.static_range(8):
        weight = place_x if corner & 1 else 1.0 - place_x
        weight *= place_y if corner >> 1 & 1 else 1.0 - place_y
        weight *= place_z if corner >> 2 else 1.0 - place_z
        voxel = (corner & 1) * (NY * NZ) + (corner >> 1 & 1) * NZ + (corner >> 2)
        transform = tl.fma(weight, tl.load(source + 12 * voxel), transform)  # where fusing is switched off, too
    return transform
