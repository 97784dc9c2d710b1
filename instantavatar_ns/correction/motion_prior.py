"""Gaussian-process prior over pose corrections: people move steadily, errors of estimated poses do not.

The path of a given joint is the true one less its correction. The true one is taken for a Gaussian process about a
steady turn, smooth over some length of time and with a sway of the joint's own; the error for another over a shorter
time, of which a spline corrects what it can, and jitter. How long, how wide and how far off are hyperparameters. Their
evidence is the probability of the given path; those that are best for a joint that moves fast correct next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation
from torch import Tensor

# Metres of shift that are as likely as a radian of a joint's turn, of errors as of motion.
SHIFT_PER_TURN = 0.4
# Radians, the deviation of a joint's motion from a steady turn: a joint of somebody who stands, to one of a dancer.
_SWAYS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)
# Radians, and per frame: where a steady turn begins and how fast it is, of which next to nothing is known.
_START, _SPEED = 3.0, 0.5
_ERRORS_LENGTH = 8.0  # frames over which errors of an estimator are smooth
_ROUNDING = 1e-4  # of the errors' variance, that each knot has of its own: their covariance is nearly singular


class Hyperparameters(NamedTuple):
    """Sizes of errors, and kind of motion.

    Attributes:
        spread: Deviation of errors that are smooth, radians; of shifts `SHIFT_PER_TURN` of that.
        jitter: The same of errors that each frame has of its own.
        correlation: Of the true motion about a steady turn, by distance in lengths: `matern52` or `gaussian`.
        length: Over which it is smooth, frames. A Gaussian's should be clearly longer than that of errors: which of two
            alike is the motion, no path tells.
    """

    spread: float
    jitter: float
    correlation: Callable[[Tensor], Tensor]
    length: float


class KnotPrior(NamedTuple):
    """Knots of a correction [knots, 25, 3] are normal, the joints and their three coordinates independent.

    Attributes:
        precision: Inverse covariance of the knots, for each joint and the shift.
        pull: Precision times mean.
        log_probability: Logarithm of the joint probability of the given path and of knots that are zero, but for what
            no hyperparameter changes; of knots k it is this `- 0.5 k precision k + pull k`.
    """

    precision: Float[Tensor, "vectors knots knots"]
    pull: Float[Tensor, "knots vectors 3"]
    log_probability: Float[Tensor, ""]


class MotionPrior:
    """Priors of the knots for several hyperparameters.

    Args:
        rotations: Of the joints relative to their parents, as given.
        transl: Of the body, metres, as given.
        times: Of the frames, ascending, in frames of the recording.
        basis: Weight of each knot in each frame.
    """

    def __init__(
        self,
        rotations: Float[Tensor, "frames joints 3 3"],
        transl: Float[Tensor, "frames 3"],
        times: Float[Tensor, "frames"],
        basis: Float[Tensor, "frames knots"],
    ) -> None:
        way = (transl - transl[:1]).double() / SHIFT_PER_TURN
        path = torch.cat([turning_path(rotations), way[:, None]], dim=1)
        self.path, self.basis = path.flatten(1), basis.double()
        self.times = times.double() - times.double().mean()
        # Of errors of unit deviation: what the spline corrects, what is beyond it, and the knots' inverse covariance.
        errors = gaussian((self.times[:, None] - self.times) / _ERRORS_LENGTH)
        to_knots = torch.linalg.pinv(self.basis)
        knots = to_knots @ errors @ to_knots.T + _ROUNDING * torch.eye(basis.shape[1]).to(errors)
        beyond = torch.eye(len(times)).to(errors) - self.basis @ to_knots
        self.corrected, self.beyond = self.basis @ knots @ self.basis.T, beyond @ errors @ beyond.T
        self.precision = torch.linalg.inv(knots)

    def of_knots(self, hyperparameters: Hyperparameters) -> KnotPrior:
        """Return the prior of the knots for given sizes of errors and kind of motion."""
        joints, knots, spread = self.path.shape[1] // 3, self.basis.shape[1], hyperparameters.spread
        covariance, sway = self._covariance(hyperparameters)
        values, probability = _whitened(covariance, torch.cat([self.basis, self.path], dim=1), joints)
        basis, path = values[..., :knots], values[..., knots:]
        joint = torch.arange(joints, device=sway.device)
        pull = -(basis.mT @ path).view(-1, knots, joints, 3)[sway, :, joint].transpose(0, 1)
        precision = (basis.mT @ basis)[sway] + self.precision / spread**2
        log_probability = probability[sway, joint].sum() - 3 * joints * knots * math.log(spread)
        unit = pull.new_ones(joints)
        unit[-1] = 1 / SHIFT_PER_TURN
        return KnotPrior(precision * unit[:, None, None] ** 2, pull * unit[:, None], log_probability)

    def of_frames(
        self, knots: Float[Tensor, "knots vectors 3"], hyperparameters: Hyperparameters
    ) -> Float[Tensor, "frames vectors 3"]:
        """Return the most probable corrections of the jitter that is left when these knots have corrected the rest.

        Args:
            knots: Rotation vectors, radians, and shift, metres.
            hyperparameters: Of errors and motion.
        """
        unit = knots.new_ones(knots.shape[1], 1)
        unit[-1] = SHIFT_PER_TURN
        covariance, sway = self._covariance(hyperparameters)
        path = self.path + self.basis @ (knots / unit).flatten(1).double()
        explained = torch.linalg.solve(covariance, path.expand(len(covariance), -1, -1))
        explained = explained.view(len(covariance), len(path), -1, 3)[
            sway, :, torch.arange(len(sway), device=sway.device)
        ]
        return (-(hyperparameters.jitter**2) * explained.transpose(0, 1)).to(knots) * unit

    def _covariance(
        self, hyperparameters: Hyperparameters
    ) -> tuple[Float[Tensor, "sways frames frames"], Int[Tensor, "joints"]]:
        """Return the covariance of what the spline does not correct, for each sway, and each joint's sway."""
        joints, spread = self.path.shape[1] // 3, hyperparameters.spread
        identity = torch.eye(len(self.times)).to(self.path)
        steady = _START**2 + _SPEED**2 * torch.outer(self.times, self.times) + hyperparameters.jitter**2 * identity
        smooth = hyperparameters.correlation((self.times[:, None] - self.times).abs() / hyperparameters.length)
        true = steady + smooth * self.path.new_tensor(_SWAYS)[:, None, None] ** 2
        # A joint's sway is the one that makes its given path most probable, errors included.
        given = _whitened(true + spread**2 * (self.corrected + self.beyond), self.path, joints)[1]
        return true + spread**2 * self.beyond, given.argmax(dim=0)


def _whitened(
    covariance: Float[Tensor, "sways frames frames"], values: Float[Tensor, "frames columns"], joints: int
) -> tuple[Float[Tensor, "sways frames columns"], Float[Tensor, "sways joints"]]:
    """Return values of unit variance, and log-probabilities of the joints' paths, which are the last columns."""
    factor = torch.linalg.cholesky(covariance)
    result = torch.linalg.solve_triangular(factor, values.expand(len(factor), -1, -1), upper=False)
    squares = result[..., -3 * joints :].square().sum(dim=1).view(-1, joints, 3).sum(dim=-1)
    volume = 3 * factor.diagonal(dim1=1, dim2=2).log().sum(dim=1, keepdim=True)
    return result, -0.5 * squares - volume


def turning_path(rotations: Float[Tensor, "frames joints 3 3"]) -> Float[Tensor, "frames joints 3"]:
    """Sum the turns from frame to frame, rotation vectors in the parents' axes, radians; double precision.

    A small correction of a frame adds to its row, as far as a joint turns little between neighbouring frames.
    """
    rotations = rotations.double()
    steps = (rotations[1:] @ rotations[:-1].mT).cpu()
    vectors = torch.from_numpy(Rotation.from_matrix(steps.reshape(-1, 3, 3).numpy()).as_rotvec()).view(steps.shape[:-1])
    return torch.cat([vectors.new_zeros(1, *vectors.shape[1:]), vectors.cumsum(dim=0)]).to(rotations.device)


def matern52(distance: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Matérn's correlation of degree 5/2, of what has finite accelerations, by distance in lengths.

    Rasmussen and Williams, Gaussian Processes for Machine Learning, equation 4.17.
    """
    scaled = 5**0.5 * distance
    return (1 + scaled + scaled**2 / 3) * torch.exp(-scaled)


def gaussian(distance: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Gaussian correlation, of what has all derivatives, by distance in lengths."""
    return torch.exp(-0.5 * distance**2)
