"""Verdict on a recording: whether the body fits the masks, and the single change that would make it fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from instantavatar_ns.check.camera_changes import focal_length_change
from instantavatar_ns.check.change import Change
from instantavatar_ns.check.changes import changes_to_try
from instantavatar_ns.check.failed_masks import inversion_of, inverted_masks, masks_beside, white_masks
from instantavatar_ns.check.order_changes import best_poses, shift_changes
from instantavatar_ns.check.overlap import Overlap, measure
from instantavatar_ns.check.recording import Recording

Verdict = Literal["good", "doubtful", "wrong"]

# Means over the frames, drawn between right and wrong data (benchmarks/results/check_data.json has both): below the
# first something is wrong, below the second other changes are tried.
_WRONG_COVERAGE, _WRONG_JOINTS = 0.70, 0.80
_DOUBTFUL_COVERAGE, _DOUBTFUL_JOINTS, _DOUBTFUL_IOU = 0.75, 0.85, 0.60
# Of a body that lies within its masks: loose clothes stand out from it all around.
_WITHIN, _WITHIN_WRONG_COVERAGE = 0.9, 0.45
# Without a change that helps: what is seen behind a table is right and has few joints within its mask.
_HOPELESS_COVERAGE, _HOPELESS_JOINTS = 0.50, 0.55
_POOR_FRAME_COVERAGE, _POOR_FRAME_JOINTS = 0.5, 0.5
_MIN_JOINTS = 4  # within the image: fewer tell nothing
_FAILED_SHARE = 0.1  # of the frames; fewer are made up for by the others
_TRIED_FRAMES, _ALL_FRAMES, _FEW_FRAMES = 24, 240, 4
# Of the mean intersection over union, and of that mean's standard errors; of fitted changes, and of few frames.
_GAIN, _GAIN_ERRORS, _LARGE_GAIN = 0.05, 3.0, 0.15
_CERTAIN_IOU = 0.65
_LEAST_IOU = 0.35  # with a change: a body that fills the image covers every mask
_RUN_GAIN, _RUN_LENGTH = 0.15, 3


class Means(NamedTuple):
    """Means of `Overlap` over the frames.

    Attributes:
        coverage: Share of the masks that the body covers.
        iou: Intersection over union of body and mask.
        joints: Share of the joints within the images that lie within the masks.
        joints_seen: Number of joints within the images.
    """

    coverage: float
    iou: float
    joints: float
    joints_seen: float

    def __str__(self) -> str:
        """Coverage and joints, to follow "it"."""
        covers = f"covers {100 * self.coverage:.0f} % of the masks"
        seen = round(self.joints_seen)
        if seen == 0:
            return f"{covers}, and no joint lies within the images"
        return f"{covers}, and {round(self.joints * self.joints_seen)} of {seen} joints lie within them"


@dataclass(frozen=True)
class Diagnosis:
    """Findings about a recording.

    Attributes:
        verdict: "wrong" for what must not be trained on, "doubtful" for what should be looked at.
        overlap: Body and mask in each frame.
        means: Of `overlap`.
        finding: What was found, a sentence without a full stop; empty where the verdict is "good".
        change: Single change that makes it right.
        changed: Means with that change.
        poor_frames: Indices of the frames that are worst, or that the finding is about.
        about_poor: Whether the finding is about these frames alone.
        remedy: What to do where no change to the recording helps.
    """

    verdict: Verdict
    overlap: Overlap
    means: Means
    finding: str = ""
    change: Change | None = None
    changed: Means | None = None
    poor_frames: tuple[int, ...] = ()
    about_poor: bool = False
    remedy: str = "No single change was found that makes it fit"

    @property
    def advice(self) -> str:
        """Advice to the user, one sentence without a full stop; empty where the verdict is "good"."""
        if self.change is None or self.changed is None:
            return "" if self.verdict == "good" else self.remedy
        return f"With {self.change.words} it {self.changed}. {self.change.advice}"


def diagnose(recording: Recording) -> Diagnosis:
    """Measure a recording, and try changes where the body does not fit the masks, or might fit better."""
    overlap = measure(recording)
    white = white_masks(recording, overlap)
    if bool(white.any()):
        return _with_white_masks(recording, overlap, white)
    diagnosis = _of_whole_masks(recording, overlap)
    if not diagnosis.poor_frames:
        return diagnosis
    return _with_inverted_masks(recording, diagnosis) or _with_poor_frames(recording, diagnosis)


def _with_white_masks(recording: Recording, overlap: Overlap, white: Tensor) -> Diagnosis:
    found = f"masks that are white all over{_of_frames(white)}"
    remedy = "Segment them again, the person in white, everything else in black, or leave these frames out"
    means, finding = mean_overlap(overlap), f"found {found}"
    own = Diagnosis("wrong", overlap, means, finding, poor_frames=_rows(white), about_poor=True, remedy=remedy)
    if _is_large_share(white):
        return own
    rows = _rows(~white)
    rest = diagnose(recording.at(list(rows)))
    if rest.verdict == "good":
        return replace(own, verdict="doubtful")
    poor = sorted((*own.poor_frames, *(rows[index] for index in rest.poor_frames)))
    return replace(rest, overlap=overlap, finding=f"{rest.finding}, and {found}", poor_frames=tuple(poor))


def _with_inverted_masks(recording: Recording, diagnosis: Diagnosis) -> Diagnosis | None:
    inverted = inverted_masks(recording, diagnosis.overlap)
    if not bool(inverted.any()) or bool(inverted.all()):
        return None
    rest = _of_whole_masks(*_without(recording, diagnosis.overlap, inverted))
    if rest.verdict == "wrong":  # a body in a wrong place may fit anything
        return None
    change = inversion_of(recording, inverted)
    changed = mean_overlap(measure(change.apply(recording)))
    verdict: Verdict = "wrong" if _is_large_share(inverted) else "doubtful"
    finding = f"found that the body lies where the masks are black{_of_frames(inverted)}"
    means = diagnosis.means
    return Diagnosis(verdict, diagnosis.overlap, means, finding, change, changed, _rows(inverted), about_poor=True)


def _with_poor_frames(recording: Recording, diagnosis: Diagnosis) -> Diagnosis:
    """Name the frames that do not fit, where no change explains them and all others fit."""
    overlap, change = diagnosis.overlap, diagnosis.change
    poor = torch.zeros_like(overlap.iou, dtype=torch.bool)
    poor[list(diagnosis.poor_frames)] = True
    beside = masks_beside(recording, overlap)
    # A body can be moved onto any mask: where some masks lie elsewhere, that says nothing of the translations.
    moved = change is not None and change.kind == "translation" and torch.equal(poor, beside)
    if bool(poor.all()) or not (change is None or moved):
        return diagnosis
    rest = _without(recording, overlap, poor)[1]
    means = mean_overlap(rest)
    if _is_wrong(rest, means) or _is_low(means):
        return diagnosis
    verdict: Verdict = "wrong" if _is_large_share(beside) else diagnosis.verdict
    finding = f"found that the body does not fit the mask{_of_frames(poor)}, and fits the others"
    remedy = (
        "Masks or poses of these frames are wrong, or something hides the person: look at them, and correct them or "
        "leave these frames out"
    )
    return Diagnosis(
        verdict, overlap, diagnosis.means, finding, poor_frames=_rows(poor), about_poor=True, remedy=remedy
    )


def _without(recording: Recording, overlap: Overlap, left_out: Tensor) -> tuple[Recording, Overlap]:
    return recording.at(list(_rows(~left_out))), Overlap(*(values[~left_out] for values in overlap))


def _is_large_share(chosen: Tensor) -> bool:
    return float(chosen.float().mean()) >= _FAILED_SHARE


def _of_frames(chosen: Tensor) -> str:
    return f" in {int(chosen.sum())} of {len(chosen)} frames" if not bool(chosen.all()) else ""


def _of_whole_masks(recording: Recording, overlap: Overlap) -> Diagnosis:
    means = mean_overlap(overlap)
    wrong, low = _is_wrong(overlap, means), _is_low(means)
    some = recording.subset(_TRIED_FRAMES)
    found = best_change(some, changes_to_try(some, recording, everything=wrong or low))
    if found is None and (wrong or low):
        found = best_change(some, [best_poses(some)])
    if found is not None and found.change.kind in ("betas missing", "betas of another body"):
        found = _of_size(some, found)
    poor = _poor_frames(overlap)
    if not (wrong or low) and found is None:
        run = _shifted_run(recording)
        if run is not None:
            return Diagnosis("doubtful", overlap, means, *run)
        if not poor:
            return Diagnosis("good", overlap, means)
    finding = f"found that it {means}"
    hopeless = means.coverage < _HOPELESS_COVERAGE or means.joints < _HOPELESS_JOINTS
    verdict: Verdict = "wrong" if wrong and (found is not None or hopeless) else "doubtful"
    if found is None:
        return Diagnosis(verdict, overlap, means, finding, poor_frames=poor)
    change = found.change
    clear = found.gain >= change.certain_gain + 2 * change.freedom and found.means.iou >= _CERTAIN_IOU
    verdict = "wrong" if change.certain and clear else verdict
    return Diagnosis(verdict, overlap, means, finding, change, found.means, poor)


class Trial(NamedTuple):
    """A change that makes the body fit better.

    Attributes:
        change: The change.
        means: With it.
        gain: Of the mean intersection over union.
    """

    change: Change
    means: Means
    gain: float


def best_change(recording: Recording, changes: Iterable[Change]) -> Trial | None:
    """Return the change that makes the body fit best; None where none makes it fit clearly better than before.

    Args:
        recording: Some frames.
        changes: The changes to try.
    """
    before = measure(recording)
    best, best_score = None, 0.0
    for change in changes:
        after = measure(change.apply(recording))
        means, gains = mean_overlap(after), after.iou - before.iou
        gain, score = float(gains.mean()), means.iou - change.freedom
        covers = means.coverage >= _WRONG_COVERAGE and means.joints >= _WRONG_JOINTS
        fits = covers and means.iou >= _LEAST_IOU
        if fits and score > best_score + 1e-3 and _is_clear(gains, _LARGE_GAIN if change.freedom else _GAIN):
            best, best_score = Trial(change, means, gain), score
    return best


def _of_size(recording: Recording, shape: Trial) -> Trial:
    """Name all causes of a body of another size than the masks' where another shape fits no better than another lens.

    Args:
        recording: Some frames.
        shape: Other betas, which make the body fit better.
    """
    lens = focal_length_change(recording)
    means = mean_overlap(measure(lens.apply(recording)))
    gain = means.iou - mean_overlap(measure(recording)).iou
    if shape.gain >= gain + lens.freedom:
        return shape
    best = shape if shape.gain > gain else Trial(lens, means, gain)
    advice = (
        "Body and masks are of different size: the focal length is not the one that the poses were estimated with, "
        "transl is too near or too far, or the betas are not the person's. Give all three as one estimate has them"
    )
    return best._replace(change=replace(best.change, kind="size", advice=advice))


def _is_clear(gains: Tensor, least: float) -> bool:
    mean, count = float(gains.mean()), len(gains)
    if mean >= _LARGE_GAIN or count < _FEW_FRAMES:
        return mean >= _LARGE_GAIN
    return mean >= least and mean >= _GAIN_ERRORS * float(gains.std()) / count**0.5


def _is_wrong(overlap: Overlap, means: Means) -> bool:
    if min(float(overlap.inside.mean()), means.joints) >= _WITHIN:
        return means.coverage < _WITHIN_WRONG_COVERAGE
    return means.coverage < _WRONG_COVERAGE or means.joints < _WRONG_JOINTS


def _is_low(means: Means) -> bool:
    low_share = means.coverage < _DOUBTFUL_COVERAGE or means.joints < _DOUBTFUL_JOINTS
    return low_share or means.iou < _DOUBTFUL_IOU


def mean_overlap(overlap: Overlap) -> Means:
    """Means over the frames."""
    counted = overlap.joints_seen >= _MIN_JOINTS
    # Of a face alone there are no joints to count, nor of a body beside the image, which covers nothing.
    joints = torch.where(counted, overlap.joints, (overlap.coverage >= _HOPELESS_COVERAGE).float())
    return Means(*(float(values.mean()) for values in (overlap.coverage, overlap.iou, joints, overlap.joints_seen)))


def _poor_frames(overlap: Overlap) -> tuple[int, ...]:
    few = (overlap.joints < _POOR_FRAME_JOINTS) & (overlap.joints_seen >= _MIN_JOINTS)
    return _rows((overlap.coverage < _POOR_FRAME_COVERAGE) | few)


def _rows(chosen: Tensor) -> tuple[int, ...]:
    return tuple(chosen.nonzero().flatten().tolist())


def _shifted_run(recording: Recording) -> tuple[str, Change, Means, tuple[int, ...]] | None:
    """Neighbouring frames that fit the pose of a frame before or after: something is missing between them."""
    recording = recording.subset(_ALL_FRAMES)
    before = measure(recording).iou
    best = None
    for change in _small_shifts(recording):
        after = measure(change.apply(recording))
        gain = after.iou - before
        first, last, total = _largest_run((gain - _RUN_GAIN / 2).tolist())
        length = last - first
        if length >= _RUN_LENGTH and float(gain[first:last].mean()) >= _RUN_GAIN and (best is None or total > best[0]):
            start, end = (recording.numbers[place].item() for place in (first, last - 1))
            finding = f"found that frames {start} to {end} fit better with {change.words}"
            of_run = mean_overlap(Overlap(*(values[first:last] for values in after)))
            best = total, finding, change, of_run, tuple(range(first, last))
    return None if best is None else best[1:]


def _small_shifts(recording: Recording) -> Iterator[Change]:
    for count, change in enumerate(shift_changes(recording)):
        if count < 4:
            yield change


def _largest_run(values: list[float]) -> tuple[int, int, float]:
    """Start, end (not included) and sum of the neighbouring values of the largest sum."""
    best, start, total = (0, 0, 0.0), 0, 0.0
    for place, value in enumerate(values):
        if total <= 0:
            start, total = place, 0.0
        total += value
        if total > best[2]:
            best = start, place + 1, total
    return best
