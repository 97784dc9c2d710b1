"""Rays through patches of a frame and what their pixels show; launched by `data/patch_rays_triton.py`."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_rays", "height", "width", "size"])
def patch_rays_kernel(
    frame_ptr,  # [1] int64
    shares,  # [patches] float64: place in the frame's list of pixels, 0 to 1, of each patch's center
    listed,  # [pixels] int32: flat pixels that may be centers, frame by frame
    first,  # [frames] int64: place of each frame's first
    end,  # [frames] int64: place behind each frame's last
    layout,  # [frames, 6] int64: see `CroppedFrames`
    colors,  # [pixels of crops] int32: RGBA of a byte each
    fx_ptr,  # [frames] float32, pixels
    fy_ptr,
    cx_ptr,
    cy_ptr,
    camera_to_world,  # [frames, 3, 4] float32
    image,  # [rays, 4] float32, written
    indices,  # [rays, 3] int64, written: frame, row, column
    origins,  # [rays, 3] float32, written
    directions,  # [rays, 3] float32, written
    lengths,  # [rays] float32, written: of the directions before they were unit vectors
    areas,  # [rays] float32, written: of the pixels on the unit sphere
    num_rays,
    height,
    width,
    size,  # edge of a patch
    BLOCK: tl.constexpr,
):
    """One lane a ray, patch by patch and row by row, as `pixel_sampling.patches` and `FrameStore.rays` make them."""
    ray = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = ray < num_rays
    frame = tl.load(frame_ptr)
    patch, within = ray // (size * size), ray % (size * size)
    begin = tl.load(first + frame)
    count = (tl.load(end + frame) - begin).to(tl.float64)
    place = begin + (tl.load(shares + patch, mask=valid, other=0.0) * count).to(tl.int64)
    center = tl.load(listed + place, mask=valid, other=0)
    row = tl.minimum(tl.maximum(center // width - size // 2, 0), tl.maximum(height - size, 0))
    column = tl.minimum(tl.maximum(center % width - size // 2, 0), tl.maximum(width - size, 0))
    row = tl.minimum(row + within // size, height - 1)
    column = tl.minimum(column + within % size, width - 1)
    tl.store(indices + 3 * ray, frame, mask=valid)
    tl.store(indices + 3 * ray + 1, row.to(tl.int64), mask=valid)
    tl.store(indices + 3 * ray + 2, column.to(tl.int64), mask=valid)

    box = layout + 6 * frame
    at_row = tl.minimum(tl.maximum(row.to(tl.int64), tl.load(box)), tl.load(box + 1))
    at_column = tl.minimum(tl.maximum(column.to(tl.int64), tl.load(box + 2)), tl.load(box + 3))
    source = colors + at_column + at_row * tl.load(box + 4) + tl.load(box + 5)
    color = tl.load(source, mask=valid, other=0)
    for channel in tl.static_range(4):
        value = (color >> (8 * channel)) & 255
        tl.store(image + 4 * ray + channel, value.to(tl.float32) / 255, mask=valid)

    fx, fy = tl.load(fx_ptr + frame), tl.load(fy_ptr + frame)
    x = (column.to(tl.float32) + (0.5 - tl.load(cx_ptr + frame))) / fx
    y = (row.to(tl.float32) + (0.5 - tl.load(cy_ptr + frame))) / fy
    pose = camera_to_world + 12 * frame
    dx = x * tl.load(pose) - (y * tl.load(pose + 1) + tl.load(pose + 2))
    dy = x * tl.load(pose + 4) - (y * tl.load(pose + 5) + tl.load(pose + 6))
    dz = x * tl.load(pose + 8) - (y * tl.load(pose + 9) + tl.load(pose + 10))
    squared = dx * dx + dy * dy + dz * dz
    length = tl.sqrt(squared)
    tl.store(lengths + ray, length, mask=valid)
    tl.store(areas + ray, 1.0 / (fx * fy * squared), mask=valid)
    tl.store(directions + 3 * ray, dx / length, mask=valid)
    tl.store(directions + 3 * ray + 1, dy / length, mask=valid)
    tl.store(directions + 3 * ray + 2, dz / length, mask=valid)
    for axis in tl.static_range(3):
        origin = tl.load(pose + 4 * axis + 3)
        tl.store(origins + 3 * ray + axis, tl.where(valid, origin, 0.0), mask=valid)
