"""Connected components of a grid by union-find; launched by `occupancy/components_triton.py`.

Each cell's label is the row of a cell of the same component, its own at first; following labels ends at a root, the
lowest row of what has been joined so far. Labels only ever sink, so a stale one still leads to the root.
"""

import triton
import triton.language as tl


@triton.jit
def _root(labels, row, active):
    """Follow labels to their roots."""
    label = tl.load(labels + row, mask=active, other=0, volatile=True)
    while tl.max((active & (label != row)).to(tl.int32), axis=0) > 0:
        row = tl.where(active, label, row)
        label = tl.load(labels + row, mask=active, other=0, volatile=True)
    return row


@triton.jit
def _join(labels, a, b, active):
    """Join the components of two cells each: the higher root is hung below the lower one."""
    while tl.max(active.to(tl.int32), axis=0) > 0:
        a, b = _root(labels, a, active), _root(labels, b, active)
        high, low = tl.maximum(a, b), tl.minimum(a, b)
        active = active & (high != low)
        former = tl.atomic_min(labels + high, low, mask=active)
        # Another program was faster and hung `high` elsewhere: that component is to be joined with `low` now.
        a, b = tl.where(active, former, a), tl.where(active, low, b)
        active = active & (former != high)


@triton.jit
def join_kernel(occupied, labels, nx, ny, nz, BLOCK: tl.constexpr):
    """Join every occupied cell [nx, ny, nz] with those behind it along x, y and z.

    `labels` holds each cell's own row to begin with.
    """
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = tl.load(occupied + row, mask=row < nx * ny * nz, other=0) != 0
    x, y, z = row // (ny * nz), row // nz % ny, row % nz
    for axis in tl.static_range(3):
        if axis == 0:
            stride, within = ny * nz, x < nx - 1
        elif axis == 1:
            stride, within = nz, y < ny - 1
        else:
            stride, within = 1, z < nz - 1
        both = here & within
        both = both & (tl.load(occupied + row + stride, mask=both, other=0) != 0)
        _join(labels, row, row + stride, both)


@triton.jit
def count_kernel(occupied, labels, sizes, num_cells, BLOCK: tl.constexpr):
    """Give every occupied cell its root as its label, and count the cells of each root."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = tl.load(occupied + row, mask=row < num_cells, other=0) != 0
    root = _root(labels, row, here)
    tl.store(labels + row, root, mask=here)
    tl.atomic_add(sizes + root, 1, mask=here)
