"""A frame's pose from its corrections, and back; launched by `correction/frame_pose_triton.py`.

One program does it all: there are some twenty joints, and in torch each of a hundred tiny operations is a launch. Lanes
are joints. What lanes ask of each other goes through memory, behind a barrier. Transforms are [lanes, 4, 4].
"""

import triton
import triton.language as tl

_CHUNK = tl.constexpr(32)


@triton.jit
def _product(left, right):
    """Products of matrices."""
    return tl.sum(left[:, :, :, None] * right[:, None, :, :], axis=2)


@triton.jit
def _translation(transform, column):
    """Last columns, [lanes, 4, 1]."""
    return tl.sum(tl.where(column == 3, transform, 0.0), axis=2, keep_dims=True)


@triton.jit
def _of_axis(axis, x, y, z):
    """Components of vectors along an axis."""
    return tl.where(axis == 0, x, tl.where(axis == 1, y, tl.where(axis == 2, z, 0.0)))


@triton.jit
def _vector(pointer, mask):
    return (
        tl.load(pointer, mask=mask, other=0.0),
        tl.load(pointer + 1, mask=mask, other=0.0),
        tl.load(pointer + 2, mask=mask, other=0.0),
    )


@triton.jit
def _cross(ax, ay, az, bx, by, bz):
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


@triton.jit(do_not_specialize=["num_knots"])
def frame_pose_kernel(
    frame_ptr,  # [1] int64
    basis,  # [frames, knots] float32
    knots,  # [knots, coordinates] float32
    remainders,  # [frames, coordinates] float32
    coordinates,  # [coordinates, coordinates] float32
    given_rotations,  # [frames, joints, 3, 3] float32
    given_transl,  # [frames, 3] float32
    joints,  # [joints, 3] float32
    ancestors,  # [rounds, joints] int64, the number of joints for none
    to_canonical,  # [joints, 4, 4] float32: from the canonical pose to the T-pose
    world_to_dataset,  # [4, 4] float32
    world_to_root,  # [4, 4] float32, written
    bones,  # [joints, 4, 4] float32, written
    correction,  # [joints + 1, 3] float32, written
    turns,  # [joints + 1, 4, 4] float32, written: parent's axes and joint in root space; the root's axes
    chains,  # [rounds + 1, LANES, 4, 4] float32, written
    num_knots,
    JOINTS: tl.constexpr,
    ROUNDS: tl.constexpr,
    LANES: tl.constexpr,  # joints
    WIDTH: tl.constexpr,  # coordinates
):
    """Pose of a frame: its correction, the joints' rotations, and the transforms that follow."""
    NUMBERS: tl.constexpr = 3 * JOINTS + 3
    frame = tl.load(frame_ptr)
    coordinate = tl.arange(0, WIDTH)[None, :]
    inside = coordinate < NUMBERS
    value = tl.load(remainders + frame * NUMBERS + coordinate, mask=inside, other=0.0)
    for begin in range(0, num_knots, _CHUNK):
        knot = begin + tl.arange(0, _CHUNK)[:, None]
        share = tl.load(basis + frame * num_knots + knot, mask=knot < num_knots, other=0.0)
        of_knot = tl.load(knots + knot * NUMBERS + coordinate, mask=(knot < num_knots) & inside, other=0.0)
        value += tl.sum(share * of_knot, axis=0, keep_dims=True)
    for begin in range(0, NUMBERS, _CHUNK):
        number = begin + tl.arange(0, _CHUNK)[:, None]
        here = (number < NUMBERS) & inside
        column_of = tl.load(coordinates + number * NUMBERS + coordinate, mask=here, other=0.0)
        total = tl.sum(column_of * value, axis=1, keep_dims=True)
        tl.store(correction + number, total, mask=number < NUMBERS)
    tl.debug_barrier()

    lane = tl.arange(0, LANES)[:, None, None]
    row, column = tl.arange(0, 4)[None, :, None], tl.arange(0, 4)[None, None, :]
    is_joint, is_turn = lane < JOINTS, (row < 3) & (column < 3)
    identity = tl.where(row == column, 1.0, 0.0)
    entry = 4 * row + column

    # Rodrigues' formula, with the small number that smplx adds.
    x, y, z = _vector(correction + 3 * lane, is_joint)
    angle = tl.sqrt((x + 1e-8) * (x + 1e-8) + (y + 1e-8) * (y + 1e-8) + (z + 1e-8) * (z + 1e-8))
    x, y, z = x / angle, y / angle, z / angle
    skew = _of_axis(row, _of_axis(column, 0.0, -z, y), _of_axis(column, z, 0.0, -x), _of_axis(column, -y, x, 0.0))
    outer = _of_axis(row, x, y, z) * _of_axis(column, x, y, z)
    squared = tl.where(is_turn, outer - (x * x + y * y + z * z) * identity, 0.0)
    turn = tl.where(is_turn, identity, 0.0) + tl.sin(angle) * skew + (1.0 - tl.cos(angle)) * squared
    source = given_rotations + (frame * JOINTS + lane) * 9 + 3 * row + column
    turn = _product(turn, tl.load(source, mask=is_joint & is_turn, other=0.0))

    # Each round doubles how many ancestors a joint's transform includes.
    parent = tl.load(ancestors + lane, mask=is_joint, other=JOINTS)
    place = tl.load(joints + 3 * lane + row, mask=is_joint & (row < 3), other=0.0)
    place -= tl.load(joints + 3 * parent + row, mask=(parent < JOINTS) & (row < 3), other=0.0)
    chain = tl.where(column == 3, tl.where(row == 3, 1.0, place), turn)
    for step in tl.static_range(ROUNDS):
        tl.store(chains + (step * LANES + lane) * 16 + entry, chain)
        tl.debug_barrier()
        ancestor = tl.load(ancestors + step * JOINTS + lane, mask=is_joint, other=JOINTS)
        before = tl.load(chains + (step * LANES + ancestor) * 16 + entry, mask=ancestor < JOINTS, other=0.0)
        chain = _product(tl.where(ancestor < JOINTS, before, identity), chain)
    done = chains + ROUNDS * LANES * 16
    tl.store(done + lane * 16 + entry, chain)
    tl.debug_barrier()

    # The root's transform is undone: what lies in front of `anchor` turns about the root.
    root = tl.load(done + entry)
    undo = tl.where(is_turn, tl.load(done + 4 * column + row), identity)
    root_joint = tl.load(joints + column, mask=column < 3, other=0.0)
    anchor = _translation(root, column) - tl.sum(root * root_joint, axis=2, keep_dims=True)
    joint = tl.load(joints + 3 * lane + column, mask=is_joint & (column < 3), other=0.0)
    moved = _translation(chain, column) - tl.sum(chain * joint, axis=2, keep_dims=True) - anchor
    posed = _product(undo, tl.where(column == 3, tl.where(row == 3, 1.0, moved), chain))
    source = to_canonical + 16 * lane + entry
    posed = _product(posed, tl.load(source, mask=is_joint, other=0.0))
    tl.store(bones + 16 * lane + entry, posed, mask=is_joint)

    of_parent = tl.load(done + parent * 16 + entry, mask=parent < JOINTS, other=0.0)
    of_parent = tl.where(parent < JOINTS, of_parent, identity)
    about = tl.where(row == 3, 1.0, _translation(chain, column) - anchor)
    axes = _product(undo, tl.where(column == 3, about, of_parent))
    tl.store(turns + 16 * lane + entry, axes, mask=is_joint)
    tl.store(turns + 16 * JOINTS + entry, root)

    shift = tl.load(given_transl + 3 * frame + row, mask=row < 3, other=0.0)
    shift += tl.load(correction + 3 * JOINTS + row, mask=row < 3, other=0.0)
    moved = tl.load(world_to_dataset + entry)
    moved = tl.where((column == 3) & (row < 3), moved - anchor - shift, moved)
    tl.store(world_to_root + entry, _product(undo, moved))


@triton.jit(do_not_specialize=["num_knots"])
def frame_pose_backward_kernel(
    frame_ptr,  # [1] int64
    basis,  # [frames, knots] float32
    coordinates,  # [coordinates, coordinates] float32
    descendants,  # [joints, joints] float32: 1 where a joint moves another or itself
    world_to_root,  # [4, 4] float32
    bones,  # [joints, 4, 4] float32
    correction,  # [joints + 1, 3] float32
    turns,  # [joints + 1, 4, 4] float32
    world_to_root_grad,  # [4, 4] float32
    bones_grad,  # [joints, 4, 4] float32
    correction_grad,  # [joints + 1, 3] float32, written
    knots_grad,  # [knots, coordinates] float32, written
    remainders_grad,  # [frames, coordinates] float32, zeros at first
    num_knots,
    JOINTS: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Gradient with respect to knots and remainders.

    A turn of joint k moves the bones below it about the joint. The gradient with respect to that turn is the sum of
    their torques about the root, less the joint's place times the sum of their forces, a transform's gradient being
    forces on its columns. The root's own turn and the shift move the world about the root, the other way.
    """
    NUMBERS: tl.constexpr = 3 * JOINTS + 3
    frame = tl.load(frame_ptr)
    other, entry = tl.arange(0, LANES)[:, None], tl.arange(0, 4)[None, :]
    mask = other < JOINTS
    at = 16 * other + entry
    ax = tl.load(bones + at, mask=mask, other=0.0)
    ay = tl.load(bones + at + 4, mask=mask, other=0.0)
    az = tl.load(bones + at + 8, mask=mask, other=0.0)
    gx = tl.load(bones_grad + at, mask=mask, other=0.0)
    gy = tl.load(bones_grad + at + 4, mask=mask, other=0.0)
    gz = tl.load(bones_grad + at + 8, mask=mask, other=0.0)
    tx, ty, tz = _cross(ax, ay, az, gx, gy, gz)

    joint, below = tl.arange(0, LANES)[:, None], tl.arange(0, LANES)[None, :]
    moves = tl.load(descendants + joint * JOINTS + below, mask=(joint < JOINTS) & (below < JOINTS), other=0.0)
    torque_x, torque_y = _sum_below(moves, tl.sum(tx, axis=1)), _sum_below(moves, tl.sum(ty, axis=1))
    torque_z = _sum_below(moves, tl.sum(tz, axis=1))
    force_x = _sum_below(moves, tl.sum(tl.where(entry == 3, gx, 0.0), axis=1))
    force_y = _sum_below(moves, tl.sum(tl.where(entry == 3, gy, 0.0), axis=1))
    force_z = _sum_below(moves, tl.sum(tl.where(entry == 3, gz, 0.0), axis=1))

    ax, ay, az = tl.load(world_to_root + entry), tl.load(world_to_root + 4 + entry), tl.load(world_to_root + 8 + entry)
    gx, gy = tl.load(world_to_root_grad + entry), tl.load(world_to_root_grad + 4 + entry)
    gz = tl.load(world_to_root_grad + 8 + entry)
    tx, ty, tz = _cross(ax, ay, az, gx, gy, gz)
    is_root = joint == 0
    pull_x = tl.sum(tl.where(entry == 3, gx, 0.0), axis=1, keep_dims=True)
    pull_y = tl.sum(tl.where(entry == 3, gy, 0.0), axis=1, keep_dims=True)
    pull_z = tl.sum(tl.where(entry == 3, gz, 0.0), axis=1, keep_dims=True)
    torque_x = tl.where(is_root, -tl.sum(tx, axis=1, keep_dims=True), torque_x)
    torque_y = tl.where(is_root, -tl.sum(ty, axis=1, keep_dims=True), torque_y)
    torque_z = tl.where(is_root, -tl.sum(tz, axis=1, keep_dims=True), torque_z)
    force_x = tl.where(is_root, -pull_x, force_x)
    force_y = tl.where(is_root, -pull_y, force_y)
    force_z = tl.where(is_root, -pull_z, force_z)

    mask = joint < JOINTS
    axes = turns + 16 * joint
    px, py = tl.load(axes + 3, mask=mask, other=0.0), tl.load(axes + 7, mask=mask, other=0.0)
    pz = tl.load(axes + 11, mask=mask, other=0.0)
    lever_x, lever_y, lever_z = _cross(px, py, pz, force_x, force_y, force_z)
    gx, gy, gz = torque_x - lever_x, torque_y - lever_y, torque_z - lever_z
    # Into the axes of the parent, in which corrections are.
    rx, ry, rz = _vector(axes, mask)
    sx, sy, sz = _vector(axes + 4, mask)
    ux, uy, uz = _vector(axes + 8, mask)
    gx, gy, gz = rx * gx + sx * gy + ux * gz, ry * gx + sy * gy + uy * gz, rz * gx + sz * gy + uz * gz

    # The transposed left Jacobian of SO(3): from the turn to the rotation vector.
    x, y, z = _vector(correction + 3 * joint, mask)
    squared = x * x + y * y + z * z
    angle = tl.sqrt(squared)
    half = tl.sin(0.5 * angle)
    safe = tl.where(squared < 0.09, 1.0, squared)
    first = tl.where(squared < 0.09, 0.5 - squared / 24.0 + squared * squared / 720.0, 2.0 * half * half / safe)
    series = 1.0 / 6.0 - squared / 120.0 + squared * squared / 5040.0
    second = tl.where(squared < 0.09, series, (angle - tl.sin(angle)) / (safe * tl.sqrt(safe)))
    cx, cy, cz = _cross(x, y, z, gx, gy, gz)
    dx, dy, dz = _cross(x, y, z, cx, cy, cz)
    target = correction_grad + 3 * joint
    tl.store(target, gx - first * cx + second * dx, mask=mask)
    tl.store(target + 1, gy - first * cy + second * dy, mask=mask)
    tl.store(target + 2, gz - first * cz + second * dz, mask=mask)
    root = turns + 16 * JOINTS
    axis = tl.arange(0, 4)[:, None]
    shift = tl.load(root + 4 * axis) * pull_x + tl.load(root + 4 * axis + 1) * pull_y
    shift += tl.load(root + 4 * axis + 2) * pull_z
    tl.store(correction_grad + 3 * JOINTS + axis, -shift, mask=axis < 3)
    tl.debug_barrier()

    coordinate = tl.arange(0, WIDTH)[None, :]
    inside = coordinate < NUMBERS
    value = tl.zeros([1, WIDTH], tl.float32)
    for begin in range(0, NUMBERS, _CHUNK):
        number = begin + tl.arange(0, _CHUNK)[:, None]
        gradient = tl.load(correction_grad + number, mask=number < NUMBERS, other=0.0)
        here = (number < NUMBERS) & inside
        column_of = tl.load(coordinates + number * NUMBERS + coordinate, mask=here, other=0.0)
        value += tl.sum(gradient * column_of, axis=0, keep_dims=True)
    tl.store(remainders_grad + frame * NUMBERS + coordinate, value, mask=inside)
    for begin in range(0, num_knots, _CHUNK):
        knot = begin + tl.arange(0, _CHUNK)[:, None]
        share = tl.load(basis + frame * num_knots + knot, mask=knot < num_knots, other=0.0)
        tl.store(knots_grad + knot * NUMBERS + coordinate, share * value, mask=(knot < num_knots) & inside)


@triton.jit
def _sum_below(moves, values):
    """Sum what belongs to the joints that each joint moves, [lanes, 1]."""
    return tl.sum(moves * values[None, :], axis=1, keep_dims=True)
