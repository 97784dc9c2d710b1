"""Adam for the rows of a table that a step has seen; launched by `optimizers.RowAdam`."""

import triton
import triton.language as tl


@triton.jit
def row_adam_kernel(
    values,  # [rows, columns] float32, updated
    gradients,  # [rows, columns] float32
    steps,  # [rows] float32, updated
    means,  # [rows, columns] float32, updated
    squares,  # [rows, columns] float32, updated
    lr,  # [1] float32
    first,
    second,
    eps,
    columns,
    WIDTH: tl.constexpr,
):
    """One row a program; rows without gradient rest."""
    row, column = tl.program_id(0), tl.arange(0, WIDTH)
    inside = column < columns
    place = row * columns + column
    gradient = tl.load(gradients + place, mask=inside, other=0.0)
    if tl.max((gradient != 0.0).to(tl.int32), axis=0) > 0:
        count = tl.load(steps + row) + 1.0
        mean = tl.load(means + place, mask=inside, other=0.0)
        square = tl.load(squares + place, mask=inside, other=0.0)
        mean += (1.0 - first) * (gradient - mean)
        square += (1.0 - second) * (gradient * gradient - square)
        spread = tl.sqrt(square / (1.0 - tl.exp2(count * tl.log2(second)))) + eps
        change = tl.load(lr) * mean / (1.0 - tl.exp2(count * tl.log2(first))) / spread
        value = tl.load(values + place, mask=inside, other=0.0)
        tl.store(steps + row, count)
        tl.store(means + place, mean, mask=inside)
        tl.store(squares + place, square, mask=inside)
        tl.store(values + place, value - change, mask=inside)
