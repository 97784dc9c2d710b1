"""The field's Triton kernels against the torch version in float64: on a GPU, or else by Triton's interpreter."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from benchmarks.kernels_field import away_from_kinks
from instantavatar_ns.field import implementation
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.field.hash_encoding import HashEncoding, HashGrid
from instantavatar_ns.field.implementation import choose_implementation
from instantavatar_ns.kernels.usable import triton_usable
from instantavatar_ns.utils.errors import InputError

pytestmark = pytest.mark.skipif(not triton_usable(), reason="needs triton, and a GPU or its interpreter")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Dense and hashed levels, merged ones and others. Resolutions stay low, because the interpreter rounds each product
# where the GPU fuses, which is felt where coordinates are large; 10 features are padded to 16.
GRID = HashGrid(levels=5, log2_entries=10, base_resolution=4, growth=2.0)
CENTER, HALF = torch.tensor([0.5, 0.5, 0.5]), torch.tensor(0.5)
POINTS = 150  # no multiple of any block


class Results(NamedTuple):
    """Outputs and gradients; colour or features are second."""

    density: Tensor
    second: Tensor
    points: Tensor
    table: Tensor
    density_head: Tensor
    color_head: Tensor | None


def make_field(precision: str = "half", width: int = 32, grid: HashGrid = GRID) -> CanonicalField:
    torch.manual_seed(0)
    field = CanonicalField(CENTER, HALF, grid, width, "triton", precision=precision)  # pyright: ignore
    torch.nn.init.normal_(field.encoding.params)
    return field.to(DEVICE)


def reference(field: CanonicalField) -> CanonicalField:
    twin = CanonicalField(CENTER, HALF, field.encoding.grid, field.density_head.shapes[0][0], "torch")
    twin.load_state_dict(field.state_dict())
    return twin.double().to(DEVICE)


def smooth_points(field: CanonicalField) -> Tensor:
    """Mark points [n, 1] at which rounding can switch no ReLU; at others gradients cannot be compared."""
    return away_from_kinks(reference(field), points_along_rays().double(), margin=1e-3)[:, None]


def points_along_rays() -> Tensor:
    """Some cells hold many points in a row, others one; some points lie on or beyond the faces of the cube."""
    generator = torch.Generator().manual_seed(1)
    ray = torch.tensor([0.3, 0.4, 0.2]) + torch.linspace(0, 0.3, POINTS // 2)[:, None] * torch.tensor([0.2, 0.1, 1.0])
    points = torch.cat([ray, torch.rand(POINTS - len(ray), 3, generator=generator)])
    points[-4:-1] = torch.tensor([[0.0, 0.5, 1.0], [-0.5, 0.5, 1.5], [1.0, 1.0, 1.0]])
    return points.to(DEVICE)


def evaluate(
    field: CanonicalField, method: str = "forward", scale: float = 1.0, total: Tensor | None = None
) -> Results:
    """Outputs and the gradients of a weighted sum of them."""
    kind = field.encoding.params.dtype
    generator = torch.Generator().manual_seed(2)
    points = points_along_rays().to(kind).requires_grad_()
    density, second = getattr(field, method)(points, total=total)
    weights = torch.rand(POINTS, 1 + second.shape[1], generator=generator).to(DEVICE, kind) * smooth_points(field)
    field.zero_grad()
    (scale * ((density * weights[:, 0]).sum() + (second * weights[:, 1:]).sum())).backward()
    grads = [module.params.grad for module in (field.encoding, field.density_head, field.color_head)]
    assert points.grad is not None
    return Results(density.detach(), second.detach(), points.grad, *grads)  # pyright: ignore


def errors(results: Results, expected: Results) -> dict[str, float]:
    return {
        name: float((value - wanted).norm() / wanted.norm())
        for name, value, wanted in zip(Results._fields, results, expected, strict=True)
        if wanted is not None
    }


@pytest.mark.parametrize(("precision", "tolerance"), [("half", 1e-2), ("float", 1e-4)])
@pytest.mark.parametrize("method", ["forward", "density"])
def test_outputs_and_gradients_are_those_of_float64(precision: str, tolerance: float, method: str) -> None:
    field = make_field(precision)
    results, expected = evaluate(field, method), evaluate(reference(field), method)
    assert (expected.color_head is None) == (results.color_head is None) == (method == "density")
    assert max(errors(results, expected).values()) < tolerance


def test_sizes_of_the_default_networks() -> None:
    """32 features without padding, width 64."""
    field = make_field(width=64, grid=HashGrid(16, 9, 4, 1.2))
    assert max(errors(evaluate(field), evaluate(reference(field))).values()) < 1e-2


def test_small_gradients_are_as_good_as_large_ones() -> None:
    """Those of a mean over many rays lie far below the smallest number of half precision, 6e-8."""
    field = make_field()
    results, expected = evaluate(field, scale=1e-12), evaluate(reference(field), scale=1e-12)
    assert 0 < expected.points.abs().max() < 1e-9
    assert max(errors(results, expected).values()) < 1e-2


def test_points_of_very_different_gradients_are_equally_good() -> None:
    field, points = make_field(), points_along_rays()
    weights = torch.logspace(-8, 0, POINTS, device=DEVICE)
    grads = []
    for model in (field, reference(field)):
        inputs = points.clone().to(model.encoding.params.dtype).requires_grad_()
        density, color = model(inputs)
        ((density + color.sum(dim=-1)) * weights).sum().backward()
        assert inputs.grad is not None
        grads.append(inputs.grad)
    error = (grads[0] - grads[1]).norm(dim=-1) / grads[1].norm(dim=-1).clamp_min(1e-30)
    assert error.quantile(0.95) < 1e-2


def test_color_is_trained_where_density_has_far_larger_gradients() -> None:
    field = make_field()
    grads = []
    for model in (field, reference(field)):
        density, color = model(points_along_rays().to(model.encoding.params.dtype))
        smooth = smooth_points(field)
        (1e9 * (density * smooth[:, 0]).sum() + (color * smooth).sum()).backward()
        grads.append(model.color_head.params.grad)
    assert (grads[0] - grads[1]).norm() < 1e-2 * grads[1].norm()


@pytest.mark.parametrize(("method", "filled"), [("forward", 0), ("forward", 70), ("density", 70)])
def test_rows_beyond_total_are_zero_and_have_no_gradient(method: str, filled: int) -> None:
    field = make_field()
    total = torch.tensor([filled], dtype=torch.int32, device=DEVICE)
    results, expected = evaluate(field, method, total=total), evaluate(reference(field), method, total=total)
    for name in ("density", "second", "points"):
        assert not getattr(results, name)[filled:].any()
        assert not getattr(expected, name)[filled:].any(), "the torch version must do the same"
    if filled:
        assert max(errors(results, expected).values()) < 1e-2
    else:
        assert not results.table.any() and not results.density_head.any()


def test_rows_beyond_total_may_hold_anything() -> None:
    for field in (make_field(), reference(make_field())):
        points = points_along_rays().to(field.encoding.params.dtype)
        points[70:] = torch.nan
        density, color = field(points.requires_grad_(), total=torch.tensor([70], dtype=torch.int32, device=DEVICE))
        (density.sum() + color.sum()).backward()
        assert points.grad is not None and field.encoding.params.grad is not None
        assert points.grad.isfinite().all() and field.encoding.params.grad.isfinite().all()
        assert density.isfinite().all() and color.isfinite().all()


def test_features_lead_to_the_same_color_and_gradient() -> None:
    field = make_field()
    colors, grads = [], []
    for composed in (False, True):
        field.zero_grad()
        points = points_along_rays().requires_grad_()
        color = field.color(field.density(points)[1]) if composed else field(points)[1]
        color.square().sum().backward()
        colors.append(color)
        grads.append(torch.cat([parameter.grad for parameter in field.parameters()]))  # pyright: ignore
    torch.testing.assert_close(colors[1], colors[0], atol=1e-3, rtol=0)
    assert (grads[1] - grads[0]).norm() < 1e-2 * grads[0].norm()


def test_first_rows_may_be_without_noise() -> None:
    field, points = make_field(), points_along_rays()[:100]
    for has_kernels in (True, False):
        field.has_kernels = has_kernels
        noisy, _ = field(points, noise=1000.0, quiet=30)
        torch.testing.assert_close(noisy[:30], field(points)[0][:30])
        assert 20 < noisy[30:].count_nonzero() < 50


def test_noise_is_added_before_the_relu() -> None:
    field, points = make_field(), points_along_rays()
    dead = field.density(points)[0] == 0
    noisy, _ = field.density(points, noise=1000.0)
    assert noisy[dead].count_nonzero() > 0.2 * dead.sum()
    assert noisy.min() == 0
    total = torch.tensor([70], dtype=torch.int32, device=DEVICE)
    assert not field.density(points, noise=1000.0, total=total)[0][70:].any()


def test_a_gradient_to_one_output_alone() -> None:
    field = make_field()
    twin = reference(field)
    smooth = smooth_points(field)
    for output in (0, 1):
        grads = []
        for model in (field, twin):
            model.zero_grad()
            value = model(points_along_rays().to(model.encoding.params.dtype))[output]
            value[smooth[:, 0]].square().sum().backward()
            grads.append(torch.cat([model.encoding.params.grad, model.density_head.params.grad]))  # pyright: ignore
        assert (grads[0] - grads[1]).norm() < 1e-2 * grads[1].norm()


def test_frozen_parameters_still_give_the_gradient_to_points() -> None:
    """Poses are fitted to test frames with a frozen avatar."""
    field = make_field()
    expected = evaluate(field).points
    field.requires_grad_(False)
    points = points_along_rays().requires_grad_()
    density, color = field(points)
    weights = torch.rand(POINTS, 4, generator=torch.Generator().manual_seed(2)).to(DEVICE) * smooth_points(field)
    ((density * weights[:, 0]).sum() + (color * weights[:, 1:]).sum()).backward()
    torch.testing.assert_close(points.grad, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


def test_without_gradients_nothing_is_kept() -> None:
    field = make_field()
    with torch.no_grad():
        density, color = field(points_along_rays().requires_grad_())
    assert not density.requires_grad and not color.requires_grad


def test_no_points_have_no_density() -> None:
    field = make_field()
    density, color = field(torch.zeros(0, 3, device=DEVICE))
    assert density.shape == (0,) and color.shape == (0, 3)
    (density.sum() + color.sum()).backward()
    assert field.encoding.params.grad is None or not field.encoding.params.grad.any()


def test_checkpoints_are_those_of_torch() -> None:
    field = make_field()
    state = copy.deepcopy(field.state_dict())
    twin = CanonicalField(CENTER, HALF, GRID, 32, "torch").to(DEVICE)
    assert {name: value.shape for name, value in twin.state_dict().items()} == {
        name: value.shape for name, value in state.items()
    }
    twin.load_state_dict(state)
    again = CanonicalField(CENTER, HALF, GRID, 32, "triton").to(DEVICE)
    again.load_state_dict(twin.state_dict())
    points = points_along_rays()
    for output, expected in zip(again(points), twin(points), strict=True):
        torch.testing.assert_close(output, expected, atol=1e-3, rtol=1e-3)


def test_points_need_not_be_contiguous() -> None:
    field = make_field()
    points = points_along_rays()
    strided = torch.cat([points, points], dim=1)[:, :3]
    assert not strided.is_contiguous()
    torch.testing.assert_close(field(strided)[0], field(points)[0])


def test_merged_levels_are_both_dense_and_fine_enough() -> None:
    """Else the comparisons above would leave a path out."""
    from instantavatar_ns.field.hash_encoding_triton import MERGED_CELLS

    merged = sum(scale <= MERGED_CELLS for scale in GRID.scales)
    assert 0 < HashEncoding(GRID).num_dense < merged < GRID.levels


def test_sizes_that_make_no_tiles_are_refused() -> None:
    with pytest.raises(InputError, match=r"a network has 48.*'auto' or 'torch'"):
        CanonicalField(CENTER, HALF, HashGrid(levels=20, log2_entries=8), 32, "triton")
    with pytest.raises(InputError, match="a network has 24"):
        CanonicalField(CENTER, HALF, GRID, 24, "triton")


def test_triton_by_name_where_it_cannot_run_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementation, "triton_usable", lambda: False)
    choose_implementation.cache_clear()
    with pytest.raises(RuntimeError, match=r"implementation 'triton', but .* 'auto' or 'torch'"):
        CanonicalField(CENTER, HALF, GRID, 32, "triton")
    choose_implementation.cache_clear()


def test_auto_takes_the_first_of_its_list_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementation, "tinycudann", lambda: None)
    monkeypatch.setattr(implementation, "triton_usable", lambda: True)
    for order, interpreted, chosen in (
        (("tcnn", "triton", "torch"), False, "triton"),
        (("tcnn", "torch", "triton"), False, "torch"),
        (("tcnn", "triton", "torch"), True, "torch"),
    ):
        monkeypatch.setattr(implementation, "AUTO_ORDER", order)
        monkeypatch.setattr(implementation, "interpreting", lambda interpreted=interpreted: interpreted)
        choose_implementation.cache_clear()
        assert choose_implementation("auto") == chosen
    assert choose_implementation("auto", triton_fits=False) == "torch"
    choose_implementation.cache_clear()
