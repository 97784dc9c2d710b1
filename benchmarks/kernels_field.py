"""Time the canonical field forward and backward, by each implementation that runs here, on points as in training.

    python -m benchmarks.kernels_field --output benchmarks/results/kernels_field.json

Points lie on rays through the surface of the free body in its canonical pose, 64 to a ray, 7.8 mm apart, as samples in
occupied cells do. Times are medians of `triton.testing.do_bench`, which empties the cache before each run. Gradients
are compared with the torch version in float64, on fewer points and a table of random numbers; a point at which a ReLU
is about to switch has no gradient to compare and is left out. `--sweep` times other sizes of programs besides.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import record
from instantavatar_ns.body.canonical import canonical_vertices
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.deformer.skinning_grid import canonical_box
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.field.hash_encoding import HashGrid
from instantavatar_ns.field.tcnn import tinycudann
from instantavatar_ns.kernels.usable import triton_usable

WIDTH = 64
SAMPLES, STEP = 64, 2 / 256  # of a ray, and metres between them
PATCH, PIXEL = 32, 0.004  # rays along an edge of a patch, and metres between them at the body
COPY_BANDWIDTH = 3.0e12  # bytes a second, measured on an H100
HALF_OPERATIONS = 8.0e14  # a second, dense

Clock = Callable[[Callable[[], Any]], float]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[1 << 18, 1 << 20])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--sweep", action="store_true", help="time other sizes of the programs, too")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/kernels_field.py times GPU kernels, and torch finds no GPU here.")
    from triton.testing import do_bench

    figures = record.head()
    figures |= measure(
        HashGrid(), args.points, "cuda", lambda run: float(do_bench(run, return_mode="median")), sweep=args.sweep
    )
    record.write(args.output, figures)


def measure(grid: HashGrid, point_counts: list[int], device: str, clock: Clock, sweep: bool = False) -> dict[str, Any]:
    """Times in milliseconds, errors and floors.

    Args:
        grid: Sizes of the encoding.
        point_counts: Numbers of points; `field_ms` is of the first, without tiny-cuda-nn.
        device: Where to.
        clock: Milliseconds that a call takes.
        sweep: Whether to time other sizes of the kernels' programs.
    """
    names = [name for name, usable in (("tcnn", tinycudann()), ("triton", triton_usable()), ("torch", True)) if usable]
    figures: dict[str, Any] = {"field": {}, "gradient_error": {}, "kernels_ms": {}, "floor": {}}
    for num_points in point_counts:
        key = str(num_points)
        figures["floor"][key] = floors(grid, num_points)
        for name in names:
            _say(f"{name}, {key} points")
            field, points = field_and_points(grid, name, num_points, device)
            figures["field"].setdefault(name, {})[key] = times(field, points, clock)
        if "triton" in names:
            field, points = field_and_points(grid, "triton", num_points, device)
            runs = kernel_runs(field, points)
            figures["kernels_ms"][key] = {name: clock(run) for name, run in runs.items()}
            if sweep:
                figures.setdefault("sweep_ms", {})[key] = sweep_times(runs, clock)
    without_tcnn = [figures["field"][name][str(point_counts[0])] for name in names if name != "tcnn"]
    figures["field_ms"] = min(timed["forward_backward_ms"] for timed in without_tcnn)
    for name in names:
        for precision in ("half", "float") if name == "triton" else ("",):
            _say(f"gradients of {name} {precision}")
            figures["gradient_error"][f"{name} {precision}".strip()] = gradient_error(
                grid, name, precision or "half", min(point_counts[0], 1 << 16), device
            )
    return figures


def field_and_points(
    grid: HashGrid, implementation: str, num_points: int, device: str
) -> tuple[CanonicalField, Tensor]:
    """A new field around the free body, and points [n, 3] on rays through its surface, metres."""
    body = load_body_model("free")
    vertices = canonical_vertices(body, torch.zeros(10))
    torch.manual_seed(0)
    field = CanonicalField(*canonical_box(vertices), grid, WIDTH, implementation)  # pyright: ignore
    generator = torch.Generator().manual_seed(0)
    num_patches = -(-num_points // (SAMPLES * PATCH**2))
    middles = vertices[torch.randint(len(vertices), (num_patches,), generator=generator)]
    pixels = PIXEL * (torch.arange(PATCH) - PATCH / 2)
    jitter = torch.rand(num_patches, PATCH, PATCH, 1, generator=generator)
    depths = STEP * (torch.arange(SAMPLES) - SAMPLES / 2 + jitter)
    x, y = torch.meshgrid(pixels, pixels, indexing="xy")
    offsets = torch.stack([*torch.broadcast_tensors(x[None, ..., None], y[None, ..., None], depths)], dim=-1)
    points = (middles[:, None, None, None] + offsets).reshape(-1, 3)[:num_points]
    return field.to(device), points.to(device).contiguous()


def times(field: CanonicalField, points: Tensor, clock: Clock) -> dict[str, float]:
    """Milliseconds of the ways in which the field is used."""
    density_grad, color_grad = torch.rand_like(points[:, 0]), torch.rand_like(points)
    params = list(field.parameters())
    leaf = points.clone().requires_grad_()

    def backward(inputs: Tensor, *wanted: Tensor) -> None:
        torch.autograd.grad(field(inputs), wanted, (density_grad, color_grad))

    def density_backward() -> None:
        wanted = [field.encoding.params, field.density_head.params]
        torch.autograd.grad(field.density(points)[0], wanted, density_grad)

    with torch.no_grad():
        forward, density = clock(lambda: field(points)), clock(lambda: field.density(points)[0])
    return {
        "forward_ms": forward,
        "density_ms": density,
        "forward_backward_ms": clock(lambda: backward(points, *params)),
        "forward_backward_points_ms": clock(lambda: backward(leaf, leaf, *params)),
        "density_backward_ms": clock(density_backward),
    }


def kernel_runs(field: CanonicalField, points: Tensor) -> dict[str, Callable[[], Any]]:
    """A launch of each of the Triton kernels, to be held against their floors."""
    from instantavatar_ns.field.hash_encoding_triton import encode, points_gradient, table_gradient
    from instantavatar_ns.field.heads_triton import HeadOutputs, HeadParams, evaluate_heads, heads_gradient

    encoding, heads = field.encoding, (field.density_head.params.detach(), field.color_head.params.detach())
    params = HeadParams(*heads, *field.density_head.shapes[0])
    unit = (points - field.lower) / field.edge
    table = encoding.params.detach()
    encoded, slopes = encode(encoding, table, unit, slopes_kind=torch.float16)
    assert slopes is not None
    outputs = evaluate_heads(params, encoded, len(points), with_color=True, precision="half")
    gradient = HeadOutputs(torch.rand_like(points[:, 0]), torch.rand_like(points), None)
    grads = heads_gradient(params, encoded, outputs, gradient, precision="half")
    return {
        "gather": lambda: encode(encoding, table, unit),
        "gather_slopes": lambda: encode(encoding, table, unit, slopes_kind=torch.float16),
        "heads_forward": lambda: evaluate_heads(params, encoded, len(points), with_color=True, precision="half"),
        "heads_backward": lambda: heads_gradient(params, encoded, outputs, gradient, precision="half"),
        "scatter": lambda: table_gradient(encoding, unit, grads.encoding, exact=False),
        "points": lambda: points_gradient(encoding, grads.encoding, slopes, len(points)),
    }


def sweep_times(runs: dict[str, Callable[[], Any]], clock: Clock) -> dict[str, float | None]:
    """Milliseconds of single kernels with other sizes of their programs; None where these do not fit the device."""
    from triton.runtime.errors import OutOfResources

    from instantavatar_ns.field import hash_encoding_triton, heads_triton
    from instantavatar_ns.field.hash_encoding_triton import Launch
    from instantavatar_ns.field.heads_triton import HeadLaunch

    backward = [HeadLaunch(128, 8, 1, 2), HeadLaunch(128, 8, 1, 1), HeadLaunch(64, 4, 2, 1), HeadLaunch(64, 8, 1, 1)]
    choices: list[tuple[str, Any, str, list[Any]]] = [
        (
            "gather",
            hash_encoding_triton,
            "GATHER",
            [Launch(block, warps) for block in (64, 128, 256) for warps in (4, 8)],
        ),
        ("scatter", hash_encoding_triton, "SCATTER", [Launch(64, 4), Launch(128, 4), Launch(256, 8)]),
        ("scatter", hash_encoding_triton, "SCATTER_MERGED", [Launch(32, 4), Launch(64, 4), Launch(64, 8)]),
        ("scatter", hash_encoding_triton, "MERGED_CELLS", [0, 20, 40, 60, 100]),
        ("heads_forward", heads_triton, "FORWARD", [HeadLaunch(64, 4, 3, 2), HeadLaunch(64, 4, 3, 1)]),
        ("heads_forward", heads_triton, "FORWARD", [HeadLaunch(128, 8, 1, 2), HeadLaunch(32, 4, 3, 2)]),
        ("heads_forward", heads_triton, "PRODUCTS", [{"half": ("half", "half")}]),
        ("heads_backward", heads_triton, "PRODUCTS", [{"half": ("half", "half")}]),
        ("heads_backward", heads_triton, "BACKWARD", [{"half": launch} for launch in backward]),
    ]
    swept: dict[str, float | None] = {}
    for kernel, module, name, values in choices:
        for value in values:
            key = f"{kernel}, {name} = {value}"
            with _set(module, name, value):
                try:
                    swept[key] = clock(runs[kernel])
                except OutOfResources:
                    swept[key] = None
    return swept


@contextmanager
def _set(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def gradient_error(
    grid: HashGrid, implementation: str, precision: str, num_points: int, device: str
) -> dict[str, float]:
    """Relative norms of the differences from float64: of outputs, and of the gradients of a weighted sum of them."""
    middle, half = torch.full((3,), 0.5), torch.tensor(0.5)
    torch.manual_seed(0)
    field = CanonicalField(middle, half, grid, WIDTH, implementation, precision=precision).to(device)  # pyright: ignore
    torch.nn.init.normal_(field.encoding.params)
    twin = CanonicalField(middle, half, grid, WIDTH, "torch").to(device)
    twin.load_state_dict(field.state_dict())
    twin = twin.double()
    # The same rounded coordinates for all: on the finest levels their rounding shows.
    around, points = field_and_points(grid, "torch", 1 << 20, "cpu")
    points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:num_points]]
    points = ((points - around.lower) / around.edge).to(device)
    weights = torch.rand(num_points, 4, device=device) - torch.tensor([0.0, 0.5, 0.5, 0.5], device=device)
    weights = weights * away_from_kinks(twin, points.double())[:, None]
    results = []
    for model in (field, twin):
        kind = model.encoding.params.dtype
        inputs = points.to(kind, copy=True).requires_grad_()
        density, color = model(inputs)
        loss = (density * weights[:, 0]).sum() + (color * weights[:, 1:]).sum()
        results.append([density, color, *torch.autograd.grad(loss, [inputs, *model.parameters()])])
    names = ("density", "color", "points_grad", "table_grad", "density_params_grad", "color_params_grad")
    return {
        name: float((value.detach() - wanted.detach()).norm() / wanted.detach().norm())
        for name, value, wanted in zip(names, *results, strict=True)
    }


@torch.no_grad()
def away_from_kinks(field: CanonicalField, points: Tensor, margin: float = 1e-3) -> Tensor:
    """Whether no point lies where its gradient jumps, and the side is a matter of rounding [n].

    That is where a ReLU's input is near zero, and, for the gradient by the point, on the faces of a level's cells.

    Args:
        field: A field of the torch version, in float64.
        points: Points, metres.
        margin: What counts as near zero, in standard deviations of the layer.
    """
    density_1, density_2 = field.density_head.layers()
    color_1, color_2, _ = field.color_head.layers()
    encoded = field.encoding(points)
    padding = density_1.shape[1] - encoded.shape[1]
    hidden = torch.nn.functional.pad(encoded, (0, padding), value=1.0) @ density_1.T
    outputs = hidden.relu() @ density_2.T
    color_hidden_1 = torch.nn.functional.pad(outputs[:, 1:], (0, 1), value=1.0) @ color_1.T
    color_hidden_2 = color_hidden_1.relu() @ color_2.T
    scales = field.encoding.level_scale
    places = points.T[:, None] * scales + 0.5  # axes, levels, points
    away = ((places - places.round()).abs() > 2**-22 * scales).all(dim=1).all(dim=0)  # rounding of the coordinates
    for layer in (hidden, outputs[:, :1], color_hidden_1, color_hidden_2):
        away &= (layer.abs() > margin * layer.std()).all(dim=1)
    return away


def floors(grid: HashGrid, num_points: int) -> dict[str, dict[str, float]]:
    """What each kernel must move and compute, and the time that takes at the bandwidth and rate of an H100.

    Bytes are those that cross the memory's interface at least: everything is read and written once, a table as a whole.
    Operations are those of the networks, three products for one on the way forward.
    """
    features = grid.num_outputs
    table = 8 * sum(grid.entries)
    points, encoded, slopes, outputs = (num_points * size for size in (12, 4 * features, 6 * features, 16))
    density = 2 * WIDTH * (-(-features // 16) * 16 + 16)
    hidden = 2 * WIDTH * (16 + WIDTH)
    color = hidden + 2 * WIDTH * 16
    moved_and_computed = {
        "gather": (points + table + encoded, 0),
        "gather_slopes": (points + table + encoded + slopes, 0),
        "heads_forward": (encoded + outputs, num_points * 3 * (density + color)),
        "heads_backward": (2 * encoded + 2 * outputs, num_points * (3 * (density + hidden) + 2 * (density + color))),
        "scatter": (points + encoded + 2 * table, 0),
        "points": (encoded + slopes + points, 0),
    }
    return {
        name: {
            "bytes": moved,
            "operations": computed,
            "floor_ms": 1e3 * max(moved / COPY_BANDWIDTH, computed / HALF_OPERATIONS),
        }
        for name, (moved, computed) in moved_and_computed.items()
    }


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
