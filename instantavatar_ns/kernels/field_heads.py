"""Density and colour networks of the canonical field, each direction one kernel.

Activations never leave the chip: the backward kernel computes them again, which costs fewer bytes than keeping them. A
program holds the weights, and in the backward kernel their gradients, while it works through its share of the tiles.

Encodings are [FEATURES, stride] (see `hash_encoding`), densities [n], colours [n, 3], all single precision. Weights are
[outputs, inputs] matrices as in `MLP`: density INPUTS -> WIDTH -> 16, colour 16 -> WIDTH -> WIDTH -> 16, of whose
outputs 3 are used. The colour network takes the 15 features and a one; here that one stands first, where the density is
among the outputs before.

Products have a precision: "half" rounds the factors, "bf16x3" and "tf32x3" split each in two and sum three products.
"""

import triton
import triton.language as tl

from instantavatar_ns.kernels.hash_encoding import num_rows


@triton.jit
def _product(left, right, PRECISION: tl.constexpr):
    if PRECISION == "half":
        product = tl.dot(left.to(tl.float16), right.to(tl.float16))
    else:
        product = tl.dot(left.to(tl.float32), right.to(tl.float32), input_precision=PRECISION)
    return product


@triton.jit
def _kept(activation, PRECISION: tl.constexpr):
    """Return an activation at the precision in which later products read it."""
    if PRECISION == "half":
        activation = activation.to(tl.float16)
    return activation


@triton.jit
def _normalised(grad):
    """Gradients of points [points, 16] over the largest of each; these, their share of the tile's largest, and that."""
    largest = tl.max(tl.abs(grad), axis=1)[:, None]
    tile_largest = tl.max(tl.max(largest, axis=1), axis=0)
    return grad / tl.maximum(largest, 1e-30), largest, largest / tl.maximum(tile_largest, 1e-30), tile_largest


@triton.jit
def _matrix(pointer, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ROLL: tl.constexpr):
    """Pointers to a matrix, its last column first with ROLL = 1."""
    column = (tl.arange(0, COLUMNS) + COLUMNS - ROLL) % COLUMNS
    return pointer + tl.arange(0, ROWS)[:, None] * COLUMNS + column[None, :]


@triton.jit
def _encoded(pointer, stride, point, feature):
    """Pointers to [points, features] of an encoding."""
    return pointer + feature.to(tl.int64) * stride + point[:, None]


@triton.jit(do_not_specialize=["n"])
def forward_kernel(
    encoding_ptr,
    density_weights_ptr,
    color_weights_ptr,
    noise_ptr,  # added to the raw density, or None
    density_ptr,
    color_ptr,  # or None: no colour
    features_ptr,  # [n, 15], or None
    total_ptr,
    n,
    stride,
    FEATURES: tl.constexpr,
    INPUTS: tl.constexpr,
    WIDTH: tl.constexpr,
    FORWARD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Density and, as asked for, colour or features. Rows beyond `total` are not written."""
    rows = num_rows(n, total_ptr)
    column = tl.arange(0, 16)[None, :]
    feature = tl.arange(0, INPUTS)[None, :]
    density_1 = tl.load(_matrix(density_weights_ptr, WIDTH, INPUTS, 0))
    density_2 = tl.load(_matrix(density_weights_ptr + WIDTH * INPUTS, 16, WIDTH, 0))
    if color_ptr is not None:
        color_1 = tl.load(_matrix(color_weights_ptr, WIDTH, 16, 1))
        color_2 = tl.load(_matrix(color_weights_ptr + 16 * WIDTH, WIDTH, WIDTH, 0))
        color_3 = tl.load(_matrix(color_weights_ptr + (16 + WIDTH) * WIDTH, 16, WIDTH, 0))
    for tile in range(tl.program_id(0), tl.cdiv(rows, BLOCK), tl.num_programs(0)):
        point = tile * BLOCK + tl.arange(0, BLOCK)
        valid = point < rows
        # Padded inputs are one.
        pointers = _encoded(encoding_ptr, stride, point, feature)
        inputs = tl.load(pointers, mask=valid[:, None] & (feature < FEATURES), other=1.0)
        hidden = tl.maximum(_product(inputs, tl.trans(density_1), FORWARD), 0.0)
        outputs = _product(hidden, tl.trans(density_2), FORWARD)
        raw = tl.sum(tl.where(column == 0, outputs, 0.0), axis=1)
        if noise_ptr is not None:
            raw += tl.load(noise_ptr + point, mask=valid, other=0.0)
        tl.store(density_ptr + point, tl.maximum(raw, 0.0), mask=valid)
        if features_ptr is not None:
            pointers = features_ptr + 15 * point[:, None] + column - 1
            tl.store(pointers, outputs, mask=valid[:, None] & (column > 0))
        if color_ptr is not None:
            inputs = tl.where(column == 0, 1.0, outputs)
            hidden = tl.maximum(_product(inputs, tl.trans(color_1), FORWARD), 0.0)
            hidden = tl.maximum(_product(hidden, tl.trans(color_2), FORWARD), 0.0)
            color = tl.sigmoid(_product(hidden, tl.trans(color_3), FORWARD))
            tl.store(color_ptr + 3 * point[:, None] + column, color, mask=valid[:, None] & (column < 3))


@triton.jit(do_not_specialize=["n"])
def backward_kernel(
    encoding_ptr,
    density_weights_ptr,
    color_weights_ptr,
    density_ptr,
    color_ptr,  # or None: no gradient with respect to the colour
    density_grad_ptr,
    color_grad_ptr,
    features_grad_ptr,  # [n, 15], or None; only without colour
    encoding_grad_ptr,
    density_weights_grad_ptr,  # zeros at first
    color_weights_grad_ptr,
    total_ptr,
    n,
    stride,
    FEATURES: tl.constexpr,
    INPUTS: tl.constexpr,
    WIDTH: tl.constexpr,
    FORWARD: tl.constexpr,
    BACKWARD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients with respect to the encoding and the weights. The encoding's are not written beyond row `total`.

    Half precision would lose small gradients. All layers are linear in the gradient, so each point's is divided by its
    largest value on its way into a network and multiplied by it on the way out, as good for any size of the loss. Sums
    over the points of a tile weigh each point by its share of the largest.
    """
    rows = num_rows(n, total_ptr)
    column = tl.arange(0, 16)[None, :]
    feature = tl.arange(0, INPUTS)[None, :]
    density_1 = tl.load(_matrix(density_weights_ptr, WIDTH, INPUTS, 0))
    density_2 = tl.load(_matrix(density_weights_ptr + WIDTH * INPUTS, 16, WIDTH, 0))
    density_1_grad = tl.zeros([WIDTH, INPUTS], tl.float32)
    density_2_grad = tl.zeros([16, WIDTH], tl.float32)
    if color_ptr is not None:
        color_1 = tl.load(_matrix(color_weights_ptr, WIDTH, 16, 1))
        color_2 = tl.load(_matrix(color_weights_ptr + 16 * WIDTH, WIDTH, WIDTH, 0))
        color_3 = tl.load(_matrix(color_weights_ptr + (16 + WIDTH) * WIDTH, 16, WIDTH, 0))
        color_1_grad = tl.zeros([WIDTH, 16], tl.float32)
        color_2_grad = tl.zeros([WIDTH, WIDTH], tl.float32)
        color_3_grad = tl.zeros([16, WIDTH], tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(rows, BLOCK), tl.num_programs(0)):
        point = tile * BLOCK + tl.arange(0, BLOCK)
        valid = point < rows
        pointers = _encoded(encoding_ptr, stride, point, feature)
        inputs = tl.load(pointers, mask=valid[:, None] & (feature < FEATURES), other=1.0)
        hidden = tl.maximum(_product(inputs, tl.trans(density_1), FORWARD), 0.0)
        outputs = _product(hidden, tl.trans(density_2), FORWARD)
        inputs, hidden = _kept(inputs, BACKWARD), _kept(hidden, BACKWARD)

        grad = tl.zeros([BLOCK, 16], tl.float32)
        if features_grad_ptr is not None:
            pointers = features_grad_ptr + 15 * point[:, None] + column - 1
            grad = tl.load(pointers, mask=valid[:, None] & (column > 0), other=0.0)
        if color_ptr is not None:
            color_inputs = tl.where(column == 0, 1.0, outputs)
            color_hidden_1 = tl.maximum(_product(color_inputs, tl.trans(color_1), FORWARD), 0.0)
            color_hidden_2 = tl.maximum(_product(color_hidden_1, tl.trans(color_2), FORWARD), 0.0)
            color_inputs, color_hidden_1 = _kept(color_inputs, BACKWARD), _kept(color_hidden_1, BACKWARD)
            color_hidden_2 = _kept(color_hidden_2, BACKWARD)

            mask = valid[:, None] & (column < 3)
            color = tl.load(color_ptr + 3 * point[:, None] + column, mask=mask, other=0.0)
            grad = tl.load(color_grad_ptr + 3 * point[:, None] + column, mask=mask, other=0.0)
            grad, largest, share, tile_largest = _normalised(grad * color * (1.0 - color))
            color_3_grad += tile_largest * _product(tl.trans(grad * share), color_hidden_2, BACKWARD)
            grad = tl.where(color_hidden_2 > 0.0, _product(grad, color_3, BACKWARD), 0.0)
            color_2_grad += tile_largest * _product(tl.trans(grad * share), color_hidden_1, BACKWARD)
            grad = tl.where(color_hidden_1 > 0.0, _product(grad, color_2, BACKWARD), 0.0)
            color_1_grad += tile_largest * _product(tl.trans(grad * share), color_inputs, BACKWARD)
            grad = largest * _product(grad, color_1, BACKWARD)

        density = tl.load(density_ptr + point, mask=valid, other=0.0)
        raw_grad = tl.load(density_grad_ptr + point, mask=valid & (density > 0.0), other=0.0)
        grad, largest, share, tile_largest = _normalised(tl.where(column == 0, raw_grad[:, None], grad))
        density_2_grad += tile_largest * _product(tl.trans(grad * share), hidden, BACKWARD)
        grad = tl.where(hidden > 0.0, _product(grad, density_2, BACKWARD), 0.0)
        density_1_grad += tile_largest * _product(tl.trans(grad * share), inputs, BACKWARD)
        grad = largest * _product(grad, density_1, BACKWARD)
        pointers = _encoded(encoding_grad_ptr, stride, point, feature)
        tl.store(pointers, grad, mask=valid[:, None] & (feature < FEATURES))

    tl.atomic_add(_matrix(density_weights_grad_ptr, WIDTH, INPUTS, 0), density_1_grad, sem="relaxed")
    pointers = _matrix(density_weights_grad_ptr + WIDTH * INPUTS, 16, WIDTH, 0)
    tl.atomic_add(pointers, density_2_grad, sem="relaxed")
    if color_ptr is not None:
        tl.atomic_add(_matrix(color_weights_grad_ptr, WIDTH, 16, 1), color_1_grad, sem="relaxed")
        pointers = _matrix(color_weights_grad_ptr + 16 * WIDTH, WIDTH, WIDTH, 0)
        tl.atomic_add(pointers, color_2_grad, sem="relaxed")
        pointers = _matrix(color_weights_grad_ptr + (16 + WIDTH) * WIDTH, 16, WIDTH, 0)
        tl.atomic_add(pointers, color_3_grad, sem="relaxed")
