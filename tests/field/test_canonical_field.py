"""Density and colour of the canonical field, and the choice of what computes it."""

from __future__ import annotations

import copy

import pytest
import torch

from instantavatar_ns.field import implementation
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.field.hash_encoding import HashGrid
from instantavatar_ns.field.implementation import choose_implementation
from instantavatar_ns.field.tcnn import share_parameters, tinycudann

SMALL = HashGrid(levels=4, log2_entries=8, base_resolution=4, growth=1.6)
CENTER, HALF = torch.tensor([0.0, -0.2, 0.1]), torch.tensor(1.1)
needs_tcnn = pytest.mark.skipif(tinycudann() is None, reason="needs a GPU and tiny-cuda-nn")


def small_field() -> CanonicalField:
    """Features as large as those of a trained field."""
    torch.manual_seed(0)
    field = CanonicalField(CENTER, HALF, SMALL, width=16, implementation="torch")
    torch.nn.init.normal_(field.encoding.params)
    return field


def points_in_cube(count: int) -> torch.Tensor:
    return CENTER + HALF * (2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) - 1)


def test_default_field_has_thirteen_million_parameters() -> None:
    field = CanonicalField(CENTER, HALF, HashGrid(), implementation="torch")
    networks = (64 * 32 + 16 * 64) + (64 * 16 + 64 * 64 + 16 * 64)
    assert sum(p.numel() for p in field.density_head.parameters()) == 64 * 32 + 16 * 64
    assert sum(p.numel() for p in field.parameters()) == 2 * sum(HashGrid().entries) + networks == 13_036_208


def test_density_and_color_are_in_range_and_depend_on_place() -> None:
    density, color = small_field()(points_in_cube(500))
    assert density.shape == (500,) and color.shape == (500, 3)
    assert density.min() == 0 < density.max(), "a ReLU"
    assert 0 < color.min() and color.max() < 1
    assert color.std(dim=0).min() > 1e-3


def test_cube_is_mapped_to_the_unit_cube() -> None:
    field = small_field()
    corners = torch.stack([CENTER - HALF, CENTER + HALF])
    encoded = field.encoding(torch.tensor([[0.0] * 3, [1.0] * 3]))
    torch.testing.assert_close(field.density(corners)[1], field.density_head(encoded)[:, 1:])


def test_noise_is_added_before_the_relu() -> None:
    """It must bring density, and so gradient, to where the raw density is negative."""
    field, points = small_field(), points_in_cube(2000)
    dead = field.density(points)[0] == 0
    torch.manual_seed(0)
    noisy, features = field.density(points, noise=5.0)
    assert noisy[dead].count_nonzero() > 0.2 * dead.sum()
    assert noisy.min() == 0
    torch.testing.assert_close(features, field.density(points)[1])


def test_no_points_have_no_density() -> None:
    density, color = small_field()(torch.zeros(0, 3))
    assert density.shape == (0,) and color.shape == (0, 3)


def test_state_holds_the_parameters_alone() -> None:
    assert set(small_field().state_dict()) == {"encoding.params", "density_head.params", "color_head.params"}


def test_tcnn_by_name_without_tcnn_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementation, "tinycudann", lambda: None)
    monkeypatch.setattr(implementation, "triton_usable", lambda: False)
    choose_implementation.cache_clear()
    with pytest.raises(RuntimeError, match="'auto' or 'torch'"):
        CanonicalField(CENTER, HALF, SMALL, implementation="tcnn")
    assert choose_implementation("auto") == "torch"
    choose_implementation.cache_clear()


def test_other_layout_of_parameters_is_refused() -> None:
    native = torch.nn.Module()
    native.register_parameter("params", torch.nn.Parameter(torch.zeros(5)))
    with pytest.raises(RuntimeError, match="5 parameters where 4 were expected"):
        share_parameters(native, torch.nn.Parameter(torch.zeros(4)))


@needs_tcnn
def test_tcnn_computes_what_torch_does_and_loads_its_state() -> None:
    grid = HashGrid(log2_entries=15)
    fields = {
        name: CanonicalField(CENTER, HALF, grid, implementation=name).cuda()  # pyright: ignore[reportArgumentType]
        for name in ("torch", "tcnn")
    }
    torch.manual_seed(0)
    torch.nn.init.uniform_(fields["torch"].encoding.params, -1.0, 1.0)
    fields["tcnn"].load_state_dict(copy.deepcopy(fields["torch"].state_dict()))
    points = points_in_cube(4096).cuda()
    (density, color), (native_density, native_color) = (fields[name](points) for name in ("torch", "tcnn"))
    # Half precision: three decimal digits, a little less after two networks.
    torch.testing.assert_close(native_density, density, atol=0.02, rtol=0.02)
    torch.testing.assert_close(native_color, color, atol=0.01, rtol=0)
    assert native_density.dtype == native_color.dtype == torch.float32
    fields["torch"].load_state_dict(fields["tcnn"].state_dict())


@needs_tcnn
def test_tcnn_gives_torchs_gradients_and_accepts_no_points() -> None:
    grid, gradients = HashGrid(log2_entries=15), {}
    state = None
    for name in ("torch", "tcnn"):
        torch.manual_seed(0)
        field = CanonicalField(CENTER, HALF, grid, implementation=name).cuda()  # pyright: ignore[reportArgumentType]
        torch.nn.init.uniform_(field.encoding.params, -1.0, 1.0)
        state = state or copy.deepcopy(field.state_dict())
        field.load_state_dict(state)
        density, color = field(points_in_cube(4096).cuda())
        (density.mean() + color.mean()).backward()
        gradients[name] = {key: parameter.grad for key, parameter in field.named_parameters()}
        assert field(torch.zeros(0, 3).cuda())[0].shape == (0,)
    for key, expected in gradients["torch"].items():
        error = (gradients["tcnn"][key] - expected).norm() / expected.norm()
        assert error < 0.03, key
