"""Loss terms of a training step's rays, samples and random points; launched by `losses_triton.py`."""

import triton
import triton.language as tl

# log(1 + 1/e), which the prior of `hard_surface_loss` is shifted by.
_HARD_SURFACE_MINIMUM = tl.constexpr(0.31326168751822286)


@triton.jit
def _hard_surface(opacity):
    """Prior that opacities are 0 or 1, and its slope."""
    clamped = tl.minimum(tl.maximum(opacity, 0.0), 1.0)
    low, high = tl.exp(-clamped), tl.exp(clamped - 1.0)
    inside = (opacity >= 0.0) & (opacity <= 1.0)
    return _HARD_SURFACE_MINIMUM - tl.log(low + high), tl.where(inside, (low - high) / (low + high), 0.0)


@triton.jit
def _color_difference(rgb, image, drawn, background, ray, valid, opacity, mask, channel: tl.constexpr):
    """Rendered less true color on the same background, and the rendered one's slope along opacity."""
    difference = tl.load(rgb + 3 * ray + channel, mask=valid, other=0.0)
    slope = 0.0 * opacity
    behind = background + slope
    if drawn is not None:
        behind = tl.load(drawn + 3 * ray + channel, mask=valid, other=0.0)
        difference += behind * (1.0 - opacity)
        slope = -behind
    truth = tl.load(image + 4 * ray + channel, mask=valid, other=0.0)
    return difference - (truth * mask + behind * (1.0 - mask)), slope


@triton.jit(do_not_specialize=["num_rays", "capacity", "num_points"])
def ray_losses_kernel(
    rgb,  # [rays, 3] float32
    accumulation,  # [rays] float32
    image,  # [rays, 4] float32: true colors and opacity
    drawn,  # [rays, 3] float32: colors behind the person, which rendered ones still lack; or None
    weights,  # [samples] float32
    total,  # [1] integer: samples that are there
    space,  # [points] float32: opacity
    is_free,  # [points] uint8
    partial,  # [programs, 5] float32, written
    background,  # color behind the person without `drawn`, rendered ones being in front of it
    color_weight,
    mask_weight,
    surface_weight,
    free_weight,
    empty_weight,
    num_rays,
    capacity,
    num_points,
    BLOCK: tl.constexpr,
):
    """Sum a program's share of the terms: color, mask, hard surface, free space, any space."""
    colors = tl.zeros([BLOCK], tl.float32)
    masks = tl.zeros([BLOCK], tl.float32)
    of_rays = tl.zeros([BLOCK], tl.float32)
    of_samples = tl.zeros([BLOCK], tl.float32)
    free = tl.zeros([BLOCK], tl.float32)
    anywhere = tl.zeros([BLOCK], tl.float32)
    first, stride = tl.program_id(0) * BLOCK, tl.num_programs(0) * BLOCK
    for begin in range(first, num_rays, stride):
        ray = begin + tl.arange(0, BLOCK)
        valid = ray < num_rays
        opacity = tl.load(accumulation + ray, mask=valid, other=0.0)
        mask = tl.load(image + 4 * ray + 3, mask=valid, other=0.0)
        for channel in tl.static_range(3):
            difference, _ = _color_difference(rgb, image, drawn, background, ray, valid, opacity, mask, channel)
            colors += tl.where(valid, difference * difference, 0.0)
        masks += (opacity - mask) * (opacity - mask)
        prior, _ = _hard_surface(opacity)
        of_rays += tl.where(valid, prior, 0.0)
    samples = tl.minimum(tl.load(total).to(tl.int32), capacity)
    for begin in range(first, samples, stride):
        sample = begin + tl.arange(0, BLOCK)
        valid = sample < samples
        prior, _ = _hard_surface(tl.load(weights + sample, mask=valid, other=0.0))
        of_samples += tl.where(valid, prior, 0.0)
    for begin in range(first, num_points, stride):
        point = begin + tl.arange(0, BLOCK)
        valid = point < num_points
        opacity = tl.load(space + point, mask=valid, other=0.0)
        free += tl.where(tl.load(is_free + point, mask=valid, other=0) != 0, opacity, 0.0)
        anywhere += opacity
    out = partial + 5 * tl.program_id(0)
    surface = tl.sum(of_rays, axis=0) / num_rays + tl.sum(of_samples, axis=0) / tl.maximum(samples, 1)
    tl.store(out, color_weight * tl.sum(colors, axis=0) / (3 * num_rays))
    tl.store(out + 1, mask_weight * tl.sum(masks, axis=0) / num_rays)
    tl.store(out + 2, surface_weight * surface)
    tl.store(out + 3, free_weight * tl.sum(free, axis=0) / num_points)
    tl.store(out + 4, empty_weight * tl.sum(anywhere, axis=0) / num_points)


@triton.jit(do_not_specialize=["num_rays", "capacity", "num_points"])
def ray_losses_backward_kernel(
    rgb,  # as of `ray_losses_kernel`, down to `is_free`
    accumulation,
    image,
    drawn,
    weights,
    total,
    space,
    is_free,
    color_grad,  # [] float32: gradient with respect to the terms
    mask_grad,
    surface_grad,
    free_grad,
    empty_grad,
    rgb_grad,  # [rays, 3] float32, written
    accumulation_grad,  # [rays] float32, written
    weights_grad,  # [samples] float32, written below `total`
    space_grad,  # [points] float32, written
    background,
    color_weight,
    mask_weight,
    surface_weight,
    free_weight,
    empty_weight,
    num_rays,
    capacity,
    num_points,
    BLOCK: tl.constexpr,
):
    """Gradients of the terms."""
    first, stride = tl.program_id(0) * BLOCK, tl.num_programs(0) * BLOCK
    of_color = tl.load(color_grad) * color_weight * 2.0 / (3 * num_rays)
    of_mask = tl.load(mask_grad) * mask_weight * 2.0 / num_rays
    of_surface = tl.load(surface_grad) * surface_weight
    for begin in range(first, num_rays, stride):
        ray = begin + tl.arange(0, BLOCK)
        valid = ray < num_rays
        opacity = tl.load(accumulation + ray, mask=valid, other=0.0)
        mask = tl.load(image + 4 * ray + 3, mask=valid, other=0.0)
        _, slope = _hard_surface(opacity)
        grad = of_mask * (opacity - mask) + of_surface / num_rays * slope
        for channel in tl.static_range(3):
            difference, along_opacity = _color_difference(
                rgb, image, drawn, background, ray, valid, opacity, mask, channel
            )
            tl.store(rgb_grad + 3 * ray + channel, of_color * difference, mask=valid)
            grad += of_color * difference * along_opacity
        tl.store(accumulation_grad + ray, grad, mask=valid)
    samples = tl.minimum(tl.load(total).to(tl.int32), capacity)
    for begin in range(first, samples, stride):
        sample = begin + tl.arange(0, BLOCK)
        valid = sample < samples
        _, slope = _hard_surface(tl.load(weights + sample, mask=valid, other=0.0))
        tl.store(weights_grad + sample, of_surface / tl.maximum(samples, 1) * slope, mask=valid)
    of_free = tl.load(free_grad) * free_weight / num_points
    of_empty = tl.load(empty_grad) * empty_weight / num_points
    for begin in range(first, num_points, stride):
        point = begin + tl.arange(0, BLOCK)
        valid = point < num_points
        here = tl.load(is_free + point, mask=valid, other=0) != 0
        tl.store(space_grad + point, tl.where(here, of_free, 0.0) + of_empty, mask=valid)
