"""Fields that show the coverage."""

from __future__ import annotations

import pytest
import torch

from instantavatar_ns.unseen.coverage import Coverage
from instantavatar_ns.unseen.prior import UnseenPrior
from instantavatar_ns.unseen.shown import CoverageField, SeenField
from tests.unseen.shells import Shell

POINTS = torch.tensor([[0.0, 0.0, 0.31], [0.0, 0.0, -0.31], [0.0, 0.0, 9.0]])


def test_seen_is_white_and_unseen_black(prior: UnseenPrior) -> None:
    field = Shell()
    density, color = SeenField(prior, field)(POINTS)
    assert torch.equal(density, field(POINTS)[0])
    assert color.tolist() == [[1, 1, 1], [0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(("agreement", "hue"), [(0.99, "yellow"), (0.7, "green")])
def test_coverage_is_told_by_hue_and_the_person_by_brightness(prior: UnseenPrior, agreement: float, hue: str) -> None:
    seen = (prior.vertices[:, 2] > 0).float()
    prior.observe(Coverage(seen, agreement * seen))
    dark, bright = (CoverageField(prior, Shell(back=(v, v, v)))(POINTS)[1] for v in (0.0, 1.0))
    red, green, blue = dark[0].tolist()
    assert (red > green > blue) if hue == "yellow" else (green > red and green > blue)
    red, green, blue = dark[1].tolist()
    assert red > 3 * green and red > 2 * blue
    assert (bright[1] > 1.5 * dark[1]).all()


def test_coverage_of_a_person_who_turned_is_known_too(prior: UnseenPrior) -> None:
    """There the prior is not used, and its tables are not made before they are asked for."""
    other = UnseenPrior(prior.vertices, prior.faces, prior.box)
    everywhere = torch.ones_like(other.share)
    other.observe(Coverage(torch.where(other.vertices[:, 2] > -0.29, everywhere, 0.0), 0.7 * everywhere))
    assert not other.active
    assert SeenField(other, Shell())(POINTS)[1][:, 0].tolist() == [1, 0, 1]
