"""What is expected of the field where no view looked."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import trimesh
from torch import Tensor

from instantavatar_ns.deformer.voxels import VoxelBox
from instantavatar_ns.unseen.coverage import Coverage
from instantavatar_ns.unseen.prior import UnseenPrior
from instantavatar_ns.utils.errors import InputError
from tests.unseen.shells import RADIUS, Shell, with_a_fold


def test_thickness_and_color_of_the_front_go_on_to_the_back(prior: UnseenPrior) -> None:
    prior.refresh(Shell(thickness=0.02, behind=0.035), with_color=True)
    torch.testing.assert_close(prior.thickness, torch.full_like(prior.thickness, 0.02), atol=0.004, rtol=0)
    torch.testing.assert_close(prior.color, torch.tensor([1.0, 0, 0]).expand_as(prior.color), atol=1e-4, rtol=0)


def test_loss_is_small_for_what_is_expected_and_large_for_what_is_not(prior: UnseenPrior) -> None:
    right = Shell(back=(1, 0, 0))
    prior.refresh(right, with_color=True)
    losses = {
        "right": prior.loss(right, 8192),
        "puffed": prior.loss(Shell(behind=0.12, back=(1, 0, 0)), 8192),
        "hollow": prior.loss(Shell(behind=-0.04, back=(1, 0, 0)), 8192),
        "color": prior.loss(Shell(back=(0, 0, 1)), 8192),
    }
    assert losses["right"] < 1e-3
    assert all(loss > 10 * losses["right"] and loss > 0.01 for name, loss in losses.items() if name != "right"), losses


@pytest.mark.parametrize(("kind", "most"), [("a fold", 1e-6), ("normals that point anywhere", 1e-3)])
def test_no_density_is_asked_for_in_the_air(prior: UnseenPrior, kind: str, most: float) -> None:
    """Fitted bodies have such vertices. What is right around a smooth body is right around them, and fog is fog."""
    vertices = prior.vertices
    if kind == "a fold":
        vertices = with_a_fold(vertices, int(vertices[:, 2].argmin()))
    rough = UnseenPrior(vertices, prior.faces, prior.box)
    if kind != "a fold":
        some = (vertices[:, 2] < 0).nonzero()[::16, 0]
        rough.normals[some] = F.normalize(torch.randn(len(some), 3), dim=-1)
    rough.observe(Coverage(prior.share, prior.agreement))
    right, fog = Shell(thickness=0.0, behind=0.0), Shell(thickness=0.1, behind=0.1)
    losses = []
    for each in (prior, rough):
        each.refresh(right, with_color=False)
        torch.manual_seed(0)
        losses.append([each.loss(field, 1 << 17).detach() for field in (right, fog)])
    torch.testing.assert_close(losses[1][1], losses[0][1], rtol=0.01, atol=0)
    assert losses[0][0] == 0 and losses[1][0] < most


def test_body_with_large_openings_is_told(prior: UnseenPrior, capsys: pytest.CaptureFixture[str]) -> None:
    upper = prior.vertices[prior.faces].mean(dim=1)[:, 1] > 0.2
    told = []
    for faces in (prior.faces, prior.faces[~upper]):
        UnseenPrior(prior.vertices, faces, prior.box).observe(Coverage(prior.share, prior.agreement))
        told.append("large openings" in capsys.readouterr().out)
    assert told == [False, True]


def test_gradient_leads_to_the_expected_color(prior: UnseenPrior) -> None:
    field = Shell(back=(0, 0, 1))
    prior.refresh(field, with_color=True)
    optimizer = torch.optim.SGD([field.back], lr=2.0)
    for _ in range(30):
        optimizer.zero_grad()
        prior.loss(field, 1024).backward()
        optimizer.step()
    torch.testing.assert_close(field.back.detach(), torch.tensor([1.0, 0.0, 0.0]), atol=0.1, rtol=0)


def test_colors_are_not_asked_for_before_they_have_formed(prior: UnseenPrior) -> None:
    field = Shell(back=(0, 0, 1))
    prior.refresh(field, with_color=False)
    prior.loss(field, 2048).backward()
    assert field.back.grad is None or not field.back.grad.any()


def test_what_was_seen_from_all_sides_is_left_alone(prior: UnseenPrior) -> None:
    everywhere = torch.ones_like(prior.share)
    prior.observe(Coverage(everywhere, 0.7 * everywhere))
    odd = Shell(thickness=0.1, behind=0.12, back=(0, 1, 0))
    prior.refresh(odd, with_color=True)
    assert prior.loss(odd, 4096) == 0


def test_little_that_is_unseen_is_left_to_the_images(prior: UnseenPrior) -> None:
    assert prior.active
    prior.observe(Coverage((prior.vertices[:, 1] < 0.25).float(), prior.agreement))
    assert 0 < prior.unseen_share < 0.15 and not prior.active


def test_seen_front_is_held_to_its_own_thickness_where_views_agree(prior: UnseenPrior) -> None:
    prior.refresh(Shell(), with_color=False)
    assert prior.loss(Shell(thickness=0.1), 8192) > 10 * prior.loss(Shell(), 8192)


def test_buffers_keep_their_addresses(prior: UnseenPrior) -> None:
    """A CUDA graph of the loss reads where they lay."""
    before = {name: buffer.data_ptr() for name, buffer in prior.named_buffers() if not name.startswith("completion")}
    prior.observe(Coverage(prior.share.roll(5), prior.agreement))
    prior.refresh(Shell(), with_color=True)
    assert before == {n: b.data_ptr() for n, b in prior.named_buffers() if not n.startswith("completion")}


def test_checkpoint_holds_what_was_seen_and_nothing_that_follows(prior: UnseenPrior) -> None:
    state = prior.state_dict()
    assert set(state) == {"share", "agreement"}
    before = prior.geometry_weight.clone()
    other = UnseenPrior(prior.vertices, prior.faces, VoxelBox(prior.lower, -prior.lower, (40, 40, 40)))
    assert not other.has_observed
    other.load_state_dict(state)
    assert other.has_observed and torch.equal(other.geometry_weight, before)


def test_run_without_a_record_of_coverage_is_told_what_to_do(prior: UnseenPrior) -> None:
    prior.require_coverage()
    other = UnseenPrior(prior.vertices, prior.faces, prior.box)
    with pytest.raises(InputError, match=r"record of what the training views saw.*Train it anew"):
        other.require_coverage()


class _Wisp(Shell):
    """The shell with a little ball of density before it, a ten-thousandth of the space near the body."""

    distance = 0.08

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        density, color = super().forward(points)
        middle = torch.tensor([0.0, 0.0, RADIUS + self.distance])
        return density + 100.0 * ((points - middle).norm(dim=-1) < 0.015), color


@pytest.mark.parametrize("distance", [0.08, 0.17], ids=["near", "far"])
def test_wisps_off_the_body_are_met_often_once_the_surface_has_formed(prior: UnseenPrior, distance: float) -> None:
    field = _Wisp()
    field.distance = distance
    mass, calm = prior.mass.clone(), prior.loss(field, 1 << 19)
    prior.refresh(field, with_color=False)
    assert prior.mass == mass
    for _ in range(3):
        prior.refresh(field, with_color=True)
    torch.testing.assert_close(prior.thickness, torch.full_like(prior.thickness, 0.02), atol=0.004, rtol=0)
    prior.color_weight.zero_()
    assert prior.loss(field, 1 << 19) > 3 * calm


def test_wisps_do_not_change_what_is_said_of_the_surface(prior: UnseenPrior) -> None:
    """A shell that is a little too thick behind is told so as before, though points are drawn elsewhere."""
    near = Shell(behind=0.035)
    prior.refresh(near, with_color=False)
    before = prior.loss(near, 1 << 19)
    for _ in range(3):
        prior.refresh(_Wisp(), with_color=True)
    prior.color_weight.zero_()
    assert prior.usual.min() < 0.2
    torch.testing.assert_close(prior.loss(near, 1 << 19), before, rtol=0.1, atol=0)


def test_much_fog_does_not_drown_the_images(prior: UnseenPrior) -> None:
    """Where there are wisps in all cells, the loss must not grow with their number."""
    mass = prior.mass.clone()
    prior.refresh(lambda points: (torch.full_like(points[:, 0], 20.0), points), with_color=True)
    assert mass < prior.mass < 2.01 * mass


def test_loose_clothes_that_are_seen_stay_and_are_not_carried_on(prior: UnseenPrior) -> None:
    loose = Shell(thickness=0.09, behind=0.04)
    prior.refresh(loose, with_color=False)
    front, unseen = prior.vertices[:, 2] > 0.05, prior.unseen > 0
    torch.testing.assert_close(
        prior.thickness[front], torch.full_like(prior.thickness[front], 0.09), atol=0.006, rtol=0
    )
    # Right beside what stands off, too: below the thickness the prior asks for skin, which is not in the air.
    assert unseen.any() and prior.thickness[unseen].max() < 0.041
    assert prior.loss(loose, 1 << 15) < 0.3 * prior.loss(Shell(thickness=0.115, behind=0.04), 1 << 15)


def test_lone_peaks_are_no_loose_clothes(prior: UnseenPrior) -> None:
    class Spike(Shell):
        def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
            density, color = super().forward(points)
            spike = (points[:, :2].norm(dim=-1) < 0.012) & (points[:, 2] > 0) & (points[:, 2] < RADIUS + 0.1)
            return density + 2000.0 * spike, color

    prior.refresh(Spike(), with_color=False)
    assert prior.thickness.max() < 0.035


def test_other_thigh_is_no_clothes_of_a_thigh() -> None:
    """Two balls near each other, seen from the front: neither takes the other's surface for its own."""
    left, right = (trimesh.creation.icosphere(3, 0.1) for _ in range(2))
    left.apply_translation([-0.15, 0, 0])
    right.apply_translation([0.15, 0, 0])
    whole = trimesh.util.concatenate([left, right])
    vertices, faces = torch.from_numpy(whole.vertices).float(), torch.from_numpy(whole.faces).long()
    half = torch.full((3,), 0.4)
    prior = UnseenPrior(vertices, faces, VoxelBox(-half, half, (64, 64, 64)))
    seen = (vertices[:, 2] > 0).float()
    prior.observe(Coverage(seen, 0.99 * seen))

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        aside = torch.stack([points[:, 0].abs() - 0.15, points[:, 1], points[:, 2]], dim=-1)
        return 2000.0 * (aside.norm(dim=-1) < 0.11), points

    prior.refresh(field, with_color=False)
    torch.testing.assert_close(prior.thickness, torch.full_like(prior.thickness, 0.01), atol=0.006, rtol=0)
