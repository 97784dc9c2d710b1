"""Priors of corrections: steady motion shows errors, and fast motion is not taken for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.distributions import MultivariateNormal

from instantavatar_ns.body.model import rotation_matrices
from instantavatar_ns.body.smpl import NUM_JOINTS
from instantavatar_ns.correction.motion_prior import (
    SHIFT_PER_TURN,
    Hyperparameters,
    KnotPrior,
    MotionPrior,
    gaussian,
    matern52,
    turning_path,
)
from instantavatar_ns.correction.pose_error import pose_error
from instantavatar_ns.correction.refinement import spline_basis

FRAMES = 120
TIMES = torch.arange(FRAMES).float()
BASIS = spline_basis(TIMES, 8.0)
NO_WAY = torch.zeros(FRAMES, 3)
SPREADS, JITTERS = (0.0001, 0.001, 0.008, 0.03), (0.001, 0.01)
MOTIONS = [(matern52, length) for length in (1.0, 5.0, 20.0, 40.0)] + [(gaussian, 20.0)]


def swaying(frames_a_sway: float, angle: float) -> Tensor:
    """All joints sway, each about its own axis; the root turns once around, too."""
    random = np.random.default_rng(0)
    axes = random.normal(size=(NUM_JOINTS, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    phase = 2 * math.pi * (TIMES.numpy()[:, None] / frames_a_sway + random.random(NUM_JOINTS))
    vectors = angle * np.sin(phase)[..., None] * axes
    turns = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(FRAMES, NUM_JOINTS, 3, 3)
    around = Rotation.from_rotvec(np.outer(2 * math.pi * TIMES.numpy() / FRAMES, [0, 1, 0])).as_matrix()
    turns[:, 0] = around @ turns[:, 0]
    return torch.from_numpy(turns).float()


def errors(spread: float) -> Tensor:
    """Rotations that are smooth over 8 frames."""
    covariance = gaussian((TIMES[:, None] - TIMES).double() / 8) + 1e-9 * torch.eye(FRAMES)
    drawn = torch.randn(FRAMES, NUM_JOINTS, 3, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    return rotation_matrices(spread * torch.einsum("fg,gjr->fjr", torch.linalg.cholesky(covariance), drawn).float())


def mode(prior: KnotPrior) -> Tensor:
    """Knots that are most probable where no image is looked at."""
    return torch.linalg.solve(prior.precision, prior.pull.transpose(0, 1)).transpose(0, 1)


def evidence(prior: KnotPrior) -> float:
    """Logarithm of the probability of the path, whatever the knots."""
    fit = 0.5 * (prior.pull * mode(prior)).sum()
    return float(fit - 1.5 * torch.linalg.slogdet(prior.precision).logabsdet.sum() + prior.log_probability)


def most_probable(rotations: Tensor) -> tuple[Hyperparameters, MotionPrior]:
    prior = MotionPrior(rotations, NO_WAY, TIMES, BASIS)
    choices = (
        Hyperparameters(spread, jitter, *motion) for spread, jitter, motion in product(SPREADS, JITTERS, MOTIONS)
    )
    return max(choices, key=lambda chosen: evidence(prior.of_knots(chosen))), prior


def correction(prior: MotionPrior, chosen: Hyperparameters) -> Tensor:
    """Most probable where no image is looked at."""
    knots = mode(prior.of_knots(chosen))
    return (torch.einsum("fk,kjr->fjr", BASIS.double(), knots) + prior.of_frames(knots, chosen))[:, :-1].float()


def test_small_corrections_add_to_the_path() -> None:
    rotations = swaying(40.0, 0.05)
    correction = 1e-3 * torch.randn(FRAMES, NUM_JOINTS, 3, generator=torch.Generator().manual_seed(2))
    moved = turning_path(rotation_matrices(correction) @ rotations) - turning_path(rotations)
    expected = (correction - correction[:1]).double()
    # Turns of the root by 6 degrees a frame change directions by a tenth.
    torch.testing.assert_close(moved[:, 1:], expected[:, 1:], atol=2e-4, rtol=0)
    assert turning_path(rotations)[-1, 0, 1] == pytest.approx(2 * math.pi * (FRAMES - 1) / FRAMES, rel=0.02)


@pytest.mark.parametrize("correlation", [matern52, gaussian])
def test_evidence_is_the_probability_of_the_path(correlation: Callable[[Tensor], Tensor]) -> None:
    """By PyTorch, for the sway that makes it largest: differences of evidence are those of log-densities."""
    prior = MotionPrior(errors(0.02) @ swaying(40.0, 0.05), NO_WAY, TIMES, BASIS)
    apart = (prior.times[:, None] - prior.times).abs()
    smooth, of_errors = correlation(apart / 20), gaussian(apart / 8)
    steady = 3.0**2 + 0.5**2 * torch.outer(prior.times, prior.times) + 0.001**2 * torch.eye(FRAMES)
    spline = BASIS.double() @ torch.linalg.pinv(BASIS.double())  # the rest is taken to be independent of it
    beyond = torch.eye(FRAMES) - spline
    of_errors = spline @ of_errors @ spline + beyond @ of_errors @ beyond

    def expected(spread: float) -> float:
        total = 0.0
        for joint in prior.path.view(FRAMES, -1, 3).unbind(dim=1):
            of_sways = []
            for sway in (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28):
                covariance = steady + sway**2 * smooth + spread**2 * of_errors
                density = MultivariateNormal(torch.zeros(FRAMES).double(), covariance)
                of_sways.append(float(density.log_prob(joint.T).sum()))
            total += max(of_sways)
        return total

    found = [evidence(prior.of_knots(Hyperparameters(spread, 0.001, correlation, 20.0))) for spread in (0.004, 0.03)]
    assert found[1] - found[0] == pytest.approx(expected(0.03) - expected(0.004), rel=2e-3)


@pytest.mark.parametrize(("spread", "jitter"), [(0.008, 0.0), (0.03, 0.0), (0.03, 0.01)])
def test_errors_are_found_in_the_motion_of_somebody_who_stands(spread: float, jitter: float) -> None:
    true = swaying(80.0, 0.03)
    shaken = jitter * torch.randn(FRAMES, NUM_JOINTS, 3, generator=torch.Generator().manual_seed(4))
    given = rotation_matrices(shaken) @ errors(spread) @ true
    chosen, prior = most_probable(given)
    assert chosen == (spread, max(jitter, 0.001), gaussian, 20.0)
    given_error, smooth_error, error = (
        pose_error(rotations, true).aligned_deg
        for rotations in (given, errors(spread) @ true, rotation_matrices(correction(prior, chosen)) @ given)
    )
    assert error < 0.85 * min(given_error, smooth_error)


def test_exact_poses_of_somebody_who_stands_are_told_from_wrong_ones() -> None:
    chosen, prior = most_probable(swaying(80.0, 0.03))
    assert chosen[:2] == (0.0001, 0.001)
    assert correction(prior, chosen).abs().max() < 1e-3


def test_a_dance_is_not_flattened() -> None:
    """Joints that turn 10 degrees a frame: what is expected of them corrects nothing."""
    chosen, prior = most_probable(swaying(8.0, 0.4))
    assert correction(prior, chosen).abs().max() < 0.01


def test_shifts_are_metres() -> None:
    """A way that is `SHIFT_PER_TURN` times a joint's path asks for as much less of a correction."""
    true = swaying(80.0, 0.03)
    given = errors(0.02) @ true
    way = SHIFT_PER_TURN * turning_path(given)[:, 5].float()
    knots = mode(MotionPrior(given, way, TIMES, BASIS).of_knots(Hyperparameters(0.02, 0.001, matern52, 20.0)))
    torch.testing.assert_close(knots[:, -1], SHIFT_PER_TURN * knots[:, 5], atol=1e-5, rtol=1e-3)


def test_gaps_between_frames_count_as_time() -> None:
    """A joint that turns steadily has turned by as much more while 40 frames were left out."""
    times = torch.cat([torch.arange(20.0), torch.arange(60.0, 80.0)])
    angle = 0.01 * times
    rotations = rotation_matrices(torch.stack([angle, 0 * angle, 0 * angle], dim=-1)[:, None].repeat(1, NUM_JOINTS, 1))

    def prior(numbers: Tensor) -> KnotPrior:
        basis = spline_basis(numbers, 8.0)
        return MotionPrior(rotations, torch.zeros(len(times), 3), numbers, basis).of_knots(
            Hyperparameters(0.03, 0.001, matern52, 20.0)
        )

    corrections = torch.einsum("fk,kjr->fjr", spline_basis(times, 8.0).double(), mode(prior(times)))
    assert corrections.abs().max() < 1e-3
    assert evidence(prior(times)) > evidence(prior(torch.arange(40.0))) + 100
