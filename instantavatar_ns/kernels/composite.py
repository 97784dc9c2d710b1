"""Compositing the samples of a ray, forward and backward; launched by `rendering/composite_triton.py`."""

import triton
import triton.language as tl


@triton.jit
def _densest_root(density, root_starts, root_counts, sample, valid):
    """Row and density of each sample's densest root, -1 and 0 where it has none; of equals the last."""
    row = tl.load(root_starts + sample, mask=valid, other=0)
    roots = tl.load(root_counts + sample, mask=valid, other=0)
    best = tl.full(sample.shape, -1.0, tl.float32)
    chosen = tl.full(sample.shape, -1, tl.int32)
    for k in range(0, tl.max(roots, axis=0)):
        here = k < roots
        value = tl.load(density + row + k, mask=here, other=-1.0)
        better = here & (value >= best)
        best = tl.where(better, value, best)
        chosen = tl.where(better, row + k, chosen)
    return chosen, tl.maximum(best, 0.0)


@triton.jit
def composite_kernel(
    density,  # [roots] float32, 1/metres
    rgb,  # [roots, 3] float32
    root_starts,  # [samples] int32
    root_counts,  # [samples] int32
    t_starts,  # [samples] float32
    starts,  # [rays] int32
    counts,  # [rays] int32
    out_rgb,  # [rays, 3] float32, written
    out_accumulation,  # [rays] float32, written
    out_depth,  # [rays] float32, written: the sum of weights times distance
    weights,  # [samples] float32, written
    chosen_root,  # [samples] int32, written
    step,
    alpha_threshold,
    most_depth,
    LANES: tl.constexpr,
):
    """One ray a program, front to back, as many samples at a time as there are lanes.

    Samples of less opacity than `alpha_threshold` count as empty, and those behind an optical depth of `most_depth` as
    hidden; nothing behind them is looked at.
    """
    ray = tl.program_id(0)
    begin, samples = tl.load(starts + ray), tl.load(counts + ray)
    lanes = tl.arange(0, LANES)
    red, green, blue, accumulation, depth, before = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    place = 0
    while (place < samples) & (before <= most_depth):
        valid = place + lanes < samples
        sample = begin + place + lanes
        chosen, sigma = _densest_root(density, root_starts, root_counts, sample, valid)
        optical = sigma * step
        optical = tl.where(1 - tl.exp(-optical) < alpha_threshold, 0.0, optical)
        in_front = before + tl.cumsum(optical, axis=0) - optical
        weight = tl.exp(-in_front) * (1 - tl.exp(-optical))
        weight = tl.where(in_front > most_depth, 0.0, weight)
        tl.store(weights + sample, weight, mask=valid)
        tl.store(chosen_root + sample, chosen, mask=valid)
        seen = valid & (chosen >= 0)
        red += tl.sum(weight * tl.load(rgb + 3 * chosen, mask=seen, other=0.0), axis=0)
        green += tl.sum(weight * tl.load(rgb + 3 * chosen + 1, mask=seen, other=0.0), axis=0)
        blue += tl.sum(weight * tl.load(rgb + 3 * chosen + 2, mask=seen, other=0.0), axis=0)
        middle = tl.load(t_starts + sample, mask=valid, other=0.0) + 0.5 * step
        accumulation += tl.sum(weight, axis=0)
        depth += tl.sum(weight * middle, axis=0)
        before += tl.sum(optical, axis=0)
        place += LANES
    tl.store(out_rgb + 3 * ray, red)
    tl.store(out_rgb + 3 * ray + 1, green)
    tl.store(out_rgb + 3 * ray + 2, blue)
    tl.store(out_accumulation + ray, accumulation)
    tl.store(out_depth + ray, depth)


@triton.jit
def _value_of_weight(
    ray, sample, valid, chosen, rgb, t_starts, grad_rgb, grad_accumulation, grad_depth, grad_weights, step
):
    """Derivative of the loss with respect to each sample's weight."""
    seen = valid & (chosen >= 0)
    value = tl.load(grad_rgb + 3 * ray) * tl.load(rgb + 3 * chosen, mask=seen, other=0.0)
    value += tl.load(grad_rgb + 3 * ray + 1) * tl.load(rgb + 3 * chosen + 1, mask=seen, other=0.0)
    value += tl.load(grad_rgb + 3 * ray + 2) * tl.load(rgb + 3 * chosen + 2, mask=seen, other=0.0)
    middle = tl.load(t_starts + sample, mask=valid, other=0.0) + 0.5 * step
    value += tl.load(grad_accumulation + ray) + tl.load(grad_depth + ray) * middle
    return value + tl.load(grad_weights + sample, mask=valid, other=0.0)


@triton.jit
def composite_backward_kernel(
    density,  # [roots] float32
    rgb,  # [roots, 3] float32
    t_starts,  # [samples] float32
    starts,  # [rays] int32
    counts,  # [rays] int32
    weights,  # [samples] float32
    chosen_root,  # [samples] int32
    grad_rgb,  # [rays, 3] float32
    grad_accumulation,  # [rays] float32
    grad_depth,  # [rays] float32
    grad_weights,  # [samples] float32
    grad_density,  # [roots] float32, written where chosen
    grad_root_rgb,  # [roots, 3] float32, written where chosen
    step,
    LANES: tl.constexpr,
):
    """One ray a program. The weight of sample i is T_i (1 - exp(-s_i)) with T_i = exp(-sum of the s in front), so that

    dL/ds_i = T_i exp(-s_i) v_i - sum of w_j v_j over the samples j behind, v_j being dL/dw_j.
    """
    ray = tl.program_id(0)
    begin, samples = tl.load(starts + ray), tl.load(counts + ray)
    lanes = tl.arange(0, LANES)
    total = 0.0
    for place in range(0, samples, LANES):
        valid = place + lanes < samples
        sample = begin + place + lanes
        chosen = tl.load(chosen_root + sample, mask=valid, other=-1)
        value = _value_of_weight(
            ray, sample, valid, chosen, rgb, t_starts, grad_rgb, grad_accumulation, grad_depth, grad_weights, step
        )
        total += tl.sum(tl.load(weights + sample, mask=valid, other=0.0) * value, axis=0)

    before, passed = 0.0, 0.0
    for place in range(0, samples, LANES):
        valid = place + lanes < samples
        sample = begin + place + lanes
        chosen = tl.load(chosen_root + sample, mask=valid, other=-1)
        value = _value_of_weight(
            ray, sample, valid, chosen, rgb, t_starts, grad_rgb, grad_accumulation, grad_depth, grad_weights, step
        )
        seen = valid & (chosen >= 0)
        optical = tl.load(density + chosen, mask=seen, other=0.0) * step
        behind_front = before + tl.cumsum(optical, axis=0)
        weight = tl.load(weights + sample, mask=valid, other=0.0)
        contribution = weight * value
        behind = total - passed - tl.cumsum(contribution, axis=0)
        tl.store(grad_density + chosen, (tl.exp(-behind_front) * value - behind) * step, mask=seen)
        tl.store(grad_root_rgb + 3 * chosen, weight * tl.load(grad_rgb + 3 * ray), mask=seen)
        tl.store(grad_root_rgb + 3 * chosen + 1, weight * tl.load(grad_rgb + 3 * ray + 1), mask=seen)
        tl.store(grad_root_rgb + 3 * chosen + 2, weight * tl.load(grad_rgb + 3 * ray + 2), mask=seen)
        before += tl.sum(optical, axis=0)
        passed += tl.sum(contribution, axis=0)
