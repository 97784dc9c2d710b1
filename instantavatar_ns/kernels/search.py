"""The correspondence search of Fast-SNARF, and its implicit gradient; launched by `deformer/_search_triton.py`.

A lane is a point, or a root. Transforms are read four numbers at a time, a row (r0, r1, r2, t) of a voxel's or a bone's
3x4 matrix, so vectors are kept as [lanes, 4] where rows are multiplied and as separate coordinates elsewhere.
"""

import triton
import triton.language as tl


@triton.jit
def _homogeneous(x, y, z):
    """[lanes, 4] of (x, y, z, 1)."""
    column = tl.arange(0, 4)[None, :]
    rest = tl.where(column == 2, z[:, None], 1.0)
    return tl.where(column == 0, x[:, None], tl.where(column == 1, y[:, None], rest))


@triton.jit
def _column(rows, index: tl.constexpr):
    """A column of [lanes, 4]."""
    return tl.sum(tl.where(tl.arange(0, 4)[None, :] == index, rows, 0.0), axis=1)


@triton.jit
def _along(value, lower, upper, samples):
    """Lower sample of a voxel grid along an axis, and the place between it and the next; outside is clamped."""
    place = (value - lower) * ((samples - 1) / (upper - lower))
    place = tl.minimum(tl.maximum(place, 0.0), samples - 1.0)
    base = tl.minimum(tl.floor(place), samples - 2.0)
    return base.to(tl.int32), place - base


@triton.jit
def _blend(blended, box, x, y, z, valid, nx, ny, nz):
    """Rows of the blended transform at canonical points."""
    i, u = _along(x, tl.load(box), tl.load(box + 3), nx)
    j, v = _along(y, tl.load(box + 1), tl.load(box + 4), ny)
    k, w = _along(z, tl.load(box + 2), tl.load(box + 5), nz)
    voxel = (i * ny + j) * nz + k
    column = tl.arange(0, 4)[None, :]
    row0 = tl.zeros((x.shape[0], 4), tl.float32)
    row1 = tl.zeros((x.shape[0], 4), tl.float32)
    row2 = tl.zeros((x.shape[0], 4), tl.float32)
    for corner in tl.static_range(8):
        a, b, c = corner & 1, (corner >> 1) & 1, corner >> 2
        share = (u if a else 1 - u) * (v if b else 1 - v) * (w if c else 1 - w)
        rows = blended + (voxel + (a * ny + b) * nz + c)[:, None] * 12 + column
        row0 += share[:, None] * tl.load(rows, mask=valid[:, None], other=0.0)
        row1 += share[:, None] * tl.load(rows + 4, mask=valid[:, None], other=0.0)
        row2 += share[:, None] * tl.load(rows + 8, mask=valid[:, None], other=0.0)
    return row0, row1, row2


@triton.jit
def _candidates(table, posed_box, x, y, z, valid, RESOLUTION: tl.constexpr):
    """Bits of the bones that are worth a start at posed points; none outside the posed box."""
    i = tl.floor((x - tl.load(posed_box)) / tl.load(posed_box + 3))
    j = tl.floor((y - tl.load(posed_box + 1)) / tl.load(posed_box + 4))
    k = tl.floor((z - tl.load(posed_box + 2)) / tl.load(posed_box + 5))
    inside = valid & (i >= 0) & (i < RESOLUTION) & (j >= 0) & (j < RESOLUTION) & (k >= 0) & (k < RESOLUTION)
    cell = (i.to(tl.int32) * RESOLUTION + j.to(tl.int32)) * RESOLUTION + k.to(tl.int32)
    return tl.load(table + cell, mask=inside, other=0)


@triton.jit
def _accepted(x, y, z, box, occupied, nx, ny, nz, HAS_OCCUPIED: tl.constexpr):
    """Whether canonical points lie in the box and, where there are cells, in an occupied one."""
    lx, ly, lz = tl.load(box), tl.load(box + 1), tl.load(box + 2)
    ux, uy, uz = tl.load(box + 3), tl.load(box + 4), tl.load(box + 5)
    inside = (x >= lx) & (x <= ux) & (y >= ly) & (y <= uy) & (z >= lz) & (z <= uz)
    if HAS_OCCUPIED:
        i = tl.floor((x - lx) / (ux - lx) * nx).to(tl.int32)
        j = tl.floor((y - ly) / (uy - ly) * ny).to(tl.int32)
        k = tl.floor((z - lz) / (uz - lz) * nz).to(tl.int32)
        inside = inside & (i < nx) & (j < ny) & (k < nz)
        inside = inside & (tl.load(occupied + (i * ny + j) * nz + k, mask=inside, other=0) != 0)
    return inside


@triton.jit
def _apart(found, ax, ay, az, bx, by, bz, same_root_squared):
    """Whether two roots are distinct, or the second is not there."""
    dx, dy, dz = ax - bx, ay - by, az - bz
    return (dx * dx + dy * dy + dz * dz >= same_root_squared) | (found == 0)


@triton.jit
def search_kernel(
    points,  # [points, 3] float32, root space
    num_points,  # [1] int32: points beyond are left out; may be more than there are rows
    table,  # [cells] int32: bits of the candidate bones
    posed_box,  # [6] float32: lower corner and edges of a cell
    starts,  # [bones, 3, 4] float32: inverse bone transforms
    blended,  # [voxels, 3, 4] float32
    box,  # [6] float32: the canonical voxels
    occupied,  # [nx, ny, nz] uint8: cells whose roots are kept, if HAS_OCCUPIED
    canonical,  # [capacity, 3] float32, written
    point_of_root,  # [capacity] int32, written
    first,  # [points] int32, written
    number,  # [points] int32, written
    count,  # [1] int32, added to
    rows,
    capacity,
    nx,
    ny,
    nz,
    converged,
    diverged,
    same_root,
    MAX_STEPS: tl.constexpr,
    RESOLUTION: tl.constexpr,
    HAS_OCCUPIED: tl.constexpr,
    LANES: tl.constexpr,
):
    """Broyden's method from each candidate bone of a point; up to four distinct roots are kept and written together."""
    begin = tl.program_id(0) * LANES
    end = tl.minimum(tl.load(num_points), rows)
    if begin < end:
        point = begin + tl.arange(0, LANES)
        valid = point < end
        px = tl.load(points + 3 * point, mask=valid, other=0.0)
        py = tl.load(points + 3 * point + 1, mask=valid, other=0.0)
        pz = tl.load(points + 3 * point + 2, mask=valid, other=0.0)
        target = _homogeneous(px, py, pz)
        column = tl.arange(0, 4)[None, :]
        bits = _candidates(table, posed_box, px, py, pz, valid, RESOLUTION)

        found = tl.zeros((LANES,), tl.int32)
        ax, ay, az = tl.zeros((LANES,), tl.float32), tl.zeros((LANES,), tl.float32), tl.zeros((LANES,), tl.float32)
        bx, by, bz, cx, cy, cz, dx, dy, dz = ax, ax, ax, ax, ax, ax, ax, ax, ax
        while tl.max(bits, axis=0) > 0:
            active = bits != 0
            lowest = bits & -bits
            bits = bits ^ lowest
            bone = tl.log2(tl.where(active, lowest, 1).to(tl.float32) + 0.25).to(tl.int32)
            start = starts + bone[:, None] * 12 + column
            x = tl.sum(tl.load(start, mask=active[:, None], other=0.0) * target, axis=1)
            y = tl.sum(tl.load(start + 4, mask=active[:, None], other=0.0) * target, axis=1)
            z = tl.sum(tl.load(start + 8, mask=active[:, None], other=0.0) * target, axis=1)

            row0, row1, row2 = _blend(blended, box, x, y, z, active, nx, ny, nz)
            at = _homogeneous(x, y, z)
            ex, ey, ez = tl.sum(row0 * at, axis=1) - px, tl.sum(row1 * at, axis=1) - py, tl.sum(row2 * at, axis=1) - pz
            # The inverse Jacobian begins as the transpose of the blended rotation.
            j00, j10, j20 = _column(row0, 0), _column(row0, 1), _column(row0, 2)
            j01, j11, j21 = _column(row1, 0), _column(row1, 1), _column(row1, 2)
            j02, j12, j22 = _column(row2, 0), _column(row2, 1), _column(row2, 2)
            error = tl.sqrt(ex * ex + ey * ey + ez * ez)
            done = active & (error < converged)
            going = active & (error >= converged) & (error < diverged)
            step = 0
            while (step < MAX_STEPS) & (tl.max(going.to(tl.int32), axis=0) > 0):
                mx = -(j00 * ex + j01 * ey + j02 * ez)
                my = -(j10 * ex + j11 * ey + j12 * ez)
                mz = -(j20 * ex + j21 * ey + j22 * ez)
                x, y, z = tl.where(going, x + mx, x), tl.where(going, y + my, y), tl.where(going, z + mz, z)
                row0, row1, row2 = _blend(blended, box, x, y, z, going, nx, ny, nz)
                at = _homogeneous(x, y, z)
                fx = tl.sum(row0 * at, axis=1) - px
                fy = tl.sum(row1 * at, axis=1) - py
                fz = tl.sum(row2 * at, axis=1) - pz
                # Broyden's good update of the inverse Jacobian.
                gx, gy, gz = fx - ex, fy - ey, fz - ez
                rx = j00 * mx + j10 * my + j20 * mz
                ry = j01 * mx + j11 * my + j21 * mz
                rz = j02 * mx + j12 * my + j22 * mz
                scale = rx * gx + ry * gy + rz * gz
                scale = tl.where(tl.abs(scale) < 1e-12, 1e-12, scale)
                qx = (mx - (j00 * gx + j01 * gy + j02 * gz)) / scale
                qy = (my - (j10 * gx + j11 * gy + j12 * gz)) / scale
                qz = (mz - (j20 * gx + j21 * gy + j22 * gz)) / scale
                j00, j01, j02 = j00 + qx * rx, j01 + qx * ry, j02 + qx * rz
                j10, j11, j12 = j10 + qy * rx, j11 + qy * ry, j12 + qy * rz
                j20, j21, j22 = j20 + qz * rx, j21 + qz * ry, j22 + qz * rz
                ex, ey, ez = fx, fy, fz
                error = tl.sqrt(ex * ex + ey * ey + ez * ez)
                done = done | (going & (error < converged))
                going = going & (error >= converged) & (error < diverged)
                step += 1

            new = done & _accepted(x, y, z, box, occupied, nx, ny, nz, HAS_OCCUPIED)
            near = same_root * same_root
            new = new & _apart(found, x, y, z, ax, ay, az, near)
            new = new & _apart(tl.maximum(found - 1, 0), x, y, z, bx, by, bz, near)
            new = new & _apart(tl.maximum(found - 2, 0), x, y, z, cx, cy, cz, near)
            new = new & _apart(tl.maximum(found - 3, 0), x, y, z, dx, dy, dz, near) & (found < 4)
            ax, ay, az = (
                tl.where(new & (found == 0), x, ax),
                tl.where(new & (found == 0), y, ay),
                tl.where(new & (found == 0), z, az),
            )
            bx, by, bz = (
                tl.where(new & (found == 1), x, bx),
                tl.where(new & (found == 1), y, by),
                tl.where(new & (found == 1), z, bz),
            )
            cx, cy, cz = (
                tl.where(new & (found == 2), x, cx),
                tl.where(new & (found == 2), y, cy),
                tl.where(new & (found == 2), z, cz),
            )
            dx, dy, dz = (
                tl.where(new & (found == 3), x, dx),
                tl.where(new & (found == 3), y, dy),
                tl.where(new & (found == 3), z, dz),
            )
            found += new.to(tl.int32)

        total = tl.sum(found, axis=0)
        if total > 0:
            row = tl.atomic_add(count, total, sem="relaxed") + tl.cumsum(found, axis=0) - found
            tl.store(first + point, tl.minimum(row, capacity), mask=valid)
            tl.store(number + point, tl.maximum(tl.minimum(found, capacity - row), 0), mask=valid)
            for slot in tl.static_range(4):
                if slot == 0:
                    x, y, z = ax, ay, az
                elif slot == 1:
                    x, y, z = bx, by, bz
                elif slot == 2:
                    x, y, z = cx, cy, cz
                else:
                    x, y, z = dx, dy, dz
                fits = (found > slot) & (row + slot < capacity)
                root = row + slot
                tl.store(canonical + 3 * root, x, mask=fits)
                tl.store(canonical + 3 * root + 1, y, mask=fits)
                tl.store(canonical + 3 * root + 2, z, mask=fits)
                tl.store(point_of_root + root, point, mask=fits)


@triton.jit
def implicit_gradient_kernel(
    canonical,  # [capacity, 3] float32
    point_of_root,  # [capacity] int32
    count,  # [1] int32: roots, of which the first `capacity` are there
    grad_canonical,  # [capacity, 3] float32
    blended,  # [voxels, 3, 4] float32
    weights,  # [voxels, BONES] float32
    box,  # [6] float32
    grad_points,  # [points, 3] float32, added to
    grad_bones,  # [BONES, 3, 4] float32, added to
    capacity,
    nx,
    ny,
    nz,
    BONES: tl.constexpr,
    BONES_PADDED: tl.constexpr,
    LANES: tl.constexpr,
):
    """Gradients to the posed points and the bone transforms, from those to the roots.

    A root x of d(x) = p moves by J^-1 (dp - dd), J being the derivative of the skinning d to x. With v = J^-T g its
    point gets v, and bone j, of weight w_j at x, gets -w_j v (x, y, z, 1)^T.
    """
    column = tl.arange(0, 4)[None, :]
    bone = tl.arange(0, BONES_PADDED)[None, :]
    end = tl.minimum(tl.load(count), capacity)
    sum0 = tl.zeros((BONES_PADDED, 4), tl.float32)
    sum1 = tl.zeros((BONES_PADDED, 4), tl.float32)
    sum2 = tl.zeros((BONES_PADDED, 4), tl.float32)
    for begin in range(tl.program_id(0) * LANES, end, tl.num_programs(0) * LANES):
        root = begin + tl.arange(0, LANES)
        valid = root < end
        x = tl.load(canonical + 3 * root, mask=valid, other=0.0)
        y = tl.load(canonical + 3 * root + 1, mask=valid, other=0.0)
        z = tl.load(canonical + 3 * root + 2, mask=valid, other=0.0)
        gx = tl.load(grad_canonical + 3 * root, mask=valid, other=0.0)
        gy = tl.load(grad_canonical + 3 * root + 1, mask=valid, other=0.0)
        gz = tl.load(grad_canonical + 3 * root + 2, mask=valid, other=0.0)
        i, u = _along(x, tl.load(box), tl.load(box + 3), nx)
        j, v = _along(y, tl.load(box + 1), tl.load(box + 4), ny)
        k, w = _along(z, tl.load(box + 2), tl.load(box + 5), nz)
        per_x = (nx - 1) / (tl.load(box + 3) - tl.load(box))
        per_y = (ny - 1) / (tl.load(box + 4) - tl.load(box + 1))
        per_z = (nz - 1) / (tl.load(box + 5) - tl.load(box + 2))
        voxel = (i * ny + j) * nz + k
        at = _homogeneous(x, y, z)

        j00, j01, j02 = tl.zeros((LANES,), tl.float32), tl.zeros((LANES,), tl.float32), tl.zeros((LANES,), tl.float32)
        j10, j11, j12, j20, j21, j22 = j00, j00, j00, j00, j00, j00
        shares = tl.zeros((LANES, BONES_PADDED), tl.float32)
        for corner in tl.static_range(8):
            a, b, c = corner & 1, (corner >> 1) & 1, corner >> 2
            fu, fv, fw = (u if a else 1 - u), (v if b else 1 - v), (w if c else 1 - w)
            share = fu * fv * fw
            slope_x = fv * fw * (per_x if a else -per_x)
            slope_y = fu * fw * (per_y if b else -per_y)
            slope_z = fu * fv * (per_z if c else -per_z)
            here = voxel + (a * ny + b) * nz + c
            rows = blended + here[:, None] * 12 + column
            row0 = tl.load(rows, mask=valid[:, None], other=0.0)
            row1 = tl.load(rows + 4, mask=valid[:, None], other=0.0)
            row2 = tl.load(rows + 8, mask=valid[:, None], other=0.0)
            moved0, moved1, moved2 = tl.sum(row0 * at, axis=1), tl.sum(row1 * at, axis=1), tl.sum(row2 * at, axis=1)
            j00 += share * _column(row0, 0) + slope_x * moved0
            j01 += share * _column(row0, 1) + slope_y * moved0
            j02 += share * _column(row0, 2) + slope_z * moved0
            j10 += share * _column(row1, 0) + slope_x * moved1
            j11 += share * _column(row1, 1) + slope_y * moved1
            j12 += share * _column(row1, 2) + slope_z * moved1
            j20 += share * _column(row2, 0) + slope_x * moved2
            j21 += share * _column(row2, 1) + slope_y * moved2
            j22 += share * _column(row2, 2) + slope_z * moved2
            known = valid[:, None] & (bone < BONES)
            shares += share[:, None] * tl.load(weights + here[:, None] * BONES + bone, mask=known, other=0.0)

        # v = J^-T g by cofactors.
        c00, c01, c02 = j11 * j22 - j12 * j21, j12 * j20 - j10 * j22, j10 * j21 - j11 * j20
        c10, c11, c12 = j02 * j21 - j01 * j22, j00 * j22 - j02 * j20, j01 * j20 - j00 * j21
        c20, c21, c22 = j01 * j12 - j02 * j11, j02 * j10 - j00 * j12, j00 * j11 - j01 * j10
        determinant = j00 * c00 + j01 * c01 + j02 * c02
        scale = tl.where(valid, 1 / tl.where(determinant == 0.0, 1.0, determinant), 0.0)
        vx = (c00 * gx + c01 * gy + c02 * gz) * scale
        vy = (c10 * gx + c11 * gy + c12 * gz) * scale
        vz = (c20 * gx + c21 * gy + c22 * gz) * scale

        point = tl.load(point_of_root + root, mask=valid, other=0)
        tl.atomic_add(grad_points + 3 * point, vx, mask=valid, sem="relaxed")
        tl.atomic_add(grad_points + 3 * point + 1, vy, mask=valid, sem="relaxed")
        tl.atomic_add(grad_points + 3 * point + 2, vz, mask=valid, sem="relaxed")
        sum0 -= tl.sum(shares[:, :, None] * (vx[:, None] * at)[:, None, :], axis=0)
        sum1 -= tl.sum(shares[:, :, None] * (vy[:, None] * at)[:, None, :], axis=0)
        sum2 -= tl.sum(shares[:, :, None] * (vz[:, None] * at)[:, None, :], axis=0)

    entry = grad_bones + tl.arange(0, BONES_PADDED)[:, None] * 12 + column
    known = tl.arange(0, BONES_PADDED)[:, None] < BONES
    tl.atomic_add(entry, sum0, mask=known, sem="relaxed")
    tl.atomic_add(entry + 4, sum1, mask=known, sem="relaxed")
    tl.atomic_add(entry + 8, sum2, mask=known, sem="relaxed")
