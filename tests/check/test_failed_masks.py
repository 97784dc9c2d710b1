"""Masks that failed in a part of the frames are named, and stop a training where they are many."""

from dataclasses import replace

import pytest
import torch

from instantavatar_ns.check.diagnosis import diagnose
from instantavatar_ns.check.failed_masks import masks_beside, white_masks
from instantavatar_ns.check.guard import describe
from instantavatar_ns.check.overlap import measure
from tests.check.folders import FRAMES, Folder, read

NAMES = [f"frame_{number}.png" for number in range(FRAMES)]


@pytest.fixture(scope="module")
def right(tmp_path_factory, demo_subject):
    return read(Folder(tmp_path_factory.mktemp("failed") / "person", demo_subject))


def failed(recording, frames, change):
    masks = recording.masks.clone()
    masks[frames] = change(masks[frames])
    return replace(recording, masks=masks)


def white(masks):
    return torch.ones_like(masks)


def corner(masks):
    masks = torch.zeros_like(masks)
    masks[:, :12, :12] = True
    return masks


def other_side(masks):
    """Another person at the image's border."""
    return masks.roll(masks.shape[2] // 2, dims=2)


FAILURES = {
    "white": (white, "white all over"),
    "inverted": (torch.logical_not, "masks are black"),
    "corner": (corner, "does not fit the mask"),
    "other_person": (other_side, "does not fit the mask"),
}


@pytest.mark.parametrize("frames", [[2, 7], [0, 1, 2, 3, 4]], ids=["some", "half"])
@pytest.mark.parametrize(("change", "finding"), FAILURES.values(), ids=FAILURES)
def test_masks_that_failed_in_a_part_stop(right, change, finding, frames):
    diagnosis = diagnose(failed(right, frames, change))
    assert diagnosis.verdict == "wrong"
    assert diagnosis.poor_frames == tuple(frames)
    assert f"in {len(frames)} of {FRAMES} frames" in diagnosis.finding and finding in diagnosis.finding
    text = describe(diagnosis, NAMES)
    assert f"(in {', '.join(NAMES[frame] for frame in frames)})" in text
    assert "No single change" not in diagnosis.advice


@pytest.mark.parametrize(("change", "finding"), FAILURES.values(), ids=FAILURES)
def test_one_frame_of_many_is_named(right, change, finding):
    """The others make up for it."""
    frames = [*range(FRAMES), *range(FRAMES)]
    diagnosis = diagnose(failed(right.at(frames), [4], change))
    assert diagnosis.verdict == "doubtful" and diagnosis.poor_frames == (4,)
    assert f"in 1 of {len(frames)} frames" in diagnosis.finding and finding in diagnosis.finding


def test_inversion_of_some_masks_undoes_it(right):
    wrong = failed(right, [1, 5, 6], torch.logical_not)
    diagnosis = diagnose(wrong)
    assert diagnosis.change is not None and diagnosis.change.kind == "some masks inverted"
    assert torch.equal(diagnosis.change.apply(wrong).masks, right.masks)
    assert torch.equal(diagnosis.change.apply(wrong.at([5, 7])).masks, right.masks[[5, 7]])
    assert diagnosis.changed is not None and diagnosis.changed.coverage > 0.93


def test_another_mistake_is_named_beside_a_white_mask(right):
    mirrored = replace(right, masks=right.masks.flip(2)).at([*range(FRAMES), *range(FRAMES)])
    diagnosis = diagnose(failed(mirrored, [4], white))
    assert diagnosis.verdict == "wrong" and 4 in diagnosis.poor_frames
    assert diagnosis.change is not None and diagnosis.change.kind == "mirrored"
    assert "white all over in 1 of" in diagnosis.finding
    assert len(diagnosis.overlap.iou) == len(mirrored)


def test_person_who_fills_the_image_is_no_white_mask(right):
    near = replace(right, focal=6 * right.focal, masks=torch.ones_like(right.masks))
    covered = measure(near).coverage > 0.8
    assert covered.any()
    assert not white_masks(near, measure(near))[covered].any()


def test_little_of_a_person_at_the_border_is_not_called_foreign(right):
    """The body, in estimated poses, stands beside the image, and a hand is seen."""
    masks = right.masks.clone()
    masks[3] = False
    masks[3, 40:43, :2] = True
    points, joints = right.points.clone(), right.joints.clone()
    points[3, :, 0] -= 100.0
    joints[3, :, 0] -= 100.0
    border = replace(right, masks=masks, points=points, joints=joints)
    assert not masks_beside(border, measure(border)).any()
    foreign = replace(right, masks=masks)
    assert masks_beside(foreign, measure(foreign)).tolist() == [frame == 3 for frame in range(FRAMES)]
