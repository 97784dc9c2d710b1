"""Poses that make the body fill the person's silhouettes, before there is an avatar.

An avatar that is trained in wrong poses agrees with them: images then tell little of what is wrong. The body model's
shape is known beforehand. Its outline in a frame must lie inside the person's by the thickness of clothes, the same for
a patch of the body in all frames; errors of poses change slowly or jitter, and motion is steadier than both. The
person's joints are not quite where the body's are, which no turn should make up for. People, and mostly their clothes,
are symmetric. The corrections that do this best are found by Gauss-Newton over all frames together. What turns towards
the camera and away from it is found where outlines show it; elsewhere a pose stays as given, but for what makes it
steady.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy.linalg import solveh_banded
from torch import Tensor

from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.correction.motion_prior import Hyperparameters, MotionPrior, gaussian, matern52
from instantavatar_ns.correction.outline_equations import Equations, Observations, OutlineEquations, Unknowns, join
from instantavatar_ns.correction.silhouettes import Silhouettes
from instantavatar_ns.correction.windows import blend, spread_evenly, windows

ROUNDS = 8
_COARSE_ROUNDS, _COARSE_REACH, _REACH = 3, 0.08, 0.03  # metres within which an outline belongs to another
# Deviations of smooth errors and of each frame's own, radians, and frames over which motion is smooth. Those are taken
# that make silhouettes and given poses most probable: poses can be exact, tenths of a degree off as those of a good
# fit, degrees as those of an estimator, or jitter; people stand, sway or dance. A length of one frame expects nothing.
_SPREADS = (0.0001, 0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.011, 0.015, 0.022, 0.03, 0.045)
_JITTERS = (0.001, 0.003, 0.01, 0.03)
_LENGTHS: dict[Callable[[Tensor], Tensor], tuple[float, ...]] = {
    matern52: (1.0, 5.0, 10.0, 20.0, 40.0, 80.0),
    gaussian: (20.0, 28.0, 40.0),
}
_FIRST = Hyperparameters(0.03, 0.01, matern52, 10.0)
_ROUNDING = 1e-9
_SEARCHED = 2  # windows at most, on which the search is done: errors are of one estimator, motion is one person's
_USUAL_EVIDENCES, _ROUNDS_A_SEARCH = 60, 6  # of a search: how many, and how many rounds last as long


class Alignment(NamedTuple):
    """Corrections of poses.

    Attributes:
        knots: Of splines over time: rotation vectors in the parents' axes, radians, and a shift, metres.
        remainders: Of each frame, the same beside the splines.
        spread: Deviation of the given rotations' smooth errors that was found likely, radians.
        joint_offsets: From the body's joints to the person's, in the T-pose, metres.
    """

    knots: Float[Tensor, "knots vectors 3"]
    remainders: Float[Tensor, "frames vectors 3"]
    spread: float
    joint_offsets: Float[Tensor, "joints 3"]


@torch.no_grad()
def align_to_silhouettes(
    body: BodyModel,
    betas: Float[Tensor, "10"],
    rotations: Float[Tensor, "frames joints 3 3"],
    transl: Float[Tensor, "frames 3"],
    times: Float[Tensor, "frames"],
    basis: Float[Tensor, "frames knots"],
    silhouettes: Silhouettes,
    progress: Callable[[float], None] = lambda share: None,
) -> Alignment:
    """Find corrections of poses: splines over time, and of each frame's own what looks like jitter beside them.

    Where the body is on the average, in the world and up and ahead in its own axes, is left as it was given: hair and
    shoes that stand off to one side would move it. Time and memory grow linearly with the frames.

    Args:
        body: The person's body, on the device that computes.
        betas: Its shape.
        rotations: Of the joints relative to their parents, as given.
        transl: Of the body in the dataset's world, metres, as given.
        times: Of the frames, ascending, in frames of the recording.
        basis: Weight of each knot in each frame.
        silhouettes: What to fill.
        progress: Called now and then with the share of the work that is done.
    """
    parts, cells = windows(basis)
    priors = [
        MotionPrior(rotations[frames], transl[frames], times[frames], basis[frames, knots]) for frames, knots in parts
    ]
    problem = OutlineEquations(body, betas, min(basis.shape[1] / basis.shape[0], 1.0))
    unknowns, chosen = problem.start(basis.shape[1]), _FIRST
    work = _Work(progress, len(cells))
    # One silhouette alone does not tell a lean from thin clothes: its pose stays as it is.
    for number in range(ROUNDS if len(rotations) > 1 else 0):
        reach, of_cells = _COARSE_REACH if number < _COARSE_ROUNDS else _REACH, []
        for frames, knots in cells:
            observed = Observations(rotations[frames], transl[frames], basis[frames, knots], silhouettes.of(frames))
            of_cells.append(problem.linearise(observed, unknowns._replace(knots=unknowns.knots[knots]), reach))
            work.linearised()
        equations = [join(of_cells, cells, part) for part in parts]
        if number == _COARSE_ROUNDS - 1:
            some = spread_evenly(len(parts), _SEARCHED)
            chosen = _maximise_evidence(problem, [equations[i] for i in some], [priors[i] for i in some], work)
        knots, *shared = problem.solve(equations, [prior.of_knots(chosen) for prior in priors])[:3]
        unknowns = Unknowns(blend(knots, [part.knots for part in parts], basis.shape[1]), *shared)
    remainders = [
        prior.of_frames(unknowns.knots[part.knots], chosen) for part, prior in zip(parts, priors, strict=True)
    ]
    remainders = blend(remainders, [part.frames for part in parts], len(basis))
    knots, offsets = unknowns.knots.to(basis), unknowns.joint_offsets.to(basis)
    knots[:, -1] = _in_place(knots[:, -1], basis, rotations[:, 0])
    return Alignment(knots, remainders.to(basis), chosen.spread, offsets)


class _Work:
    """Share of the work that is done, told to `progress`.

    Args:
        progress: See `align_to_silhouettes`.
        num_cells: Over which the frames are distributed.
    """

    def __init__(self, progress: Callable[[float], None], num_cells: int) -> None:
        self.progress, self.num_cells = progress, num_cells
        self.done, self.searched = 0.0, 0.0

    def linearised(self) -> None:
        """Count a cell in a round."""
        self.done += 1 / self.num_cells
        self._tell()

    def solved(self) -> None:
        """Count one evidence, of as many as are usual."""
        self.searched = min(self.searched + 1 / _USUAL_EVIDENCES, 1.0)
        self._tell()

    def found(self) -> None:
        """End the search, however long it was."""
        self.searched = 1.0
        self._tell()

    def _tell(self) -> None:
        self.progress((self.done + _ROUNDS_A_SEARCH * self.searched) / (ROUNDS + _ROUNDS_A_SEARCH))


def _maximise_evidence(
    problem: OutlineEquations, equations: list[Equations], priors: list[MotionPrior], work: _Work
) -> Hyperparameters:
    """Maximise the evidence by hill climbing, once per kernel."""

    @cache
    def evidence(chosen: Hyperparameters) -> float:
        work.solved()
        return problem.solve(equations, [prior.of_knots(chosen) for prior in priors]).evidence

    best = max((_hill_climb(evidence, correlation) for correlation in _LENGTHS), key=evidence)
    work.found()
    return best


def _hill_climb(
    evidence: Callable[[Hyperparameters], float], correlation: Callable[[Tensor], Tensor]
) -> Hyperparameters:
    """By neighbours on the grid of spreads, jitters and lengths, from the first errors and the lengths' middle."""
    axes = _SPREADS, _JITTERS, _LENGTHS[correlation]

    def at(place: tuple[int, ...]) -> Hyperparameters:
        spread, jitter, length = (values[index] for values, index in zip(axes, place, strict=True))
        return Hyperparameters(spread, jitter, correlation, length)

    def near(place: tuple[int, ...], most: int) -> list[tuple[int, ...]]:
        """The place itself, then those a step off along at most so many axes."""
        steps = sorted(product((0, -1, 1), repeat=len(axes)), key=lambda step: sum(map(abs, step)))
        moved = (tuple(map(sum, zip(place, step, strict=True))) for step in steps if sum(map(abs, step)) <= most)
        return [one for one in moved if all(0 <= i < len(values) for i, values in zip(one, axes, strict=True))]

    place = _SPREADS.index(_FIRST.spread), _JITTERS.index(_FIRST.jitter), len(axes[-1]) // 2
    best = None
    while place != best:
        best = place
        for most in (1, len(axes)):  # the diagonals are looked at last: they are most of the neighbours
            if place == best:
                place = max(near(best, most), key=lambda other: evidence(at(other)))
    return at(place)


def _in_place(
    shift: Float[Tensor, "knots 3"], basis: Float[Tensor, "frames knots"], root: Float[Tensor, "frames 3 3"]
) -> Float[Tensor, "knots 3"]:
    """Take out of shifts what all frames have in common: up and ahead in the root's axes, and in the world's.

    To the left and right of the root's middle clothes and hair stand off alike, so a common shift is an error of the
    given poses, and stays.
    """
    frames = basis @ shift
    common = torch.einsum("frc,fr->fc", root, frames).mean(dim=0)
    frames = frames - root @ (common * common.new_tensor([0.0, 1.0, 1.0]))
    return _fitted_knots(basis.double(), (frames - frames.mean(dim=0)).double()).to(shift)


def _fitted_knots(basis: Float[Tensor, "frames knots"], values: Float[Tensor, "frames 3"]) -> Float[Tensor, "knots 3"]:
    """Knots of the cubic spline next to some values, by least squares: a banded system, whose cost is linear."""
    knots = basis.shape[1]
    bands = [(basis[:, offset:] * basis[:, : knots - offset]).sum(dim=0) for offset in range(min(4, knots))]
    matrix = torch.stack([torch.nn.functional.pad(band, (0, knots - len(band))) for band in bands])
    matrix[0] += _ROUNDING  # knots in gaps of the recording have no weight in any frame, and stay at zero
    solution = solveh_banded(matrix.cpu().numpy(), (basis.T @ values).cpu().numpy(), lower=True)
    return torch.from_numpy(solution).to(values)
