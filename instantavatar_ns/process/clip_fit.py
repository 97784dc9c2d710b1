"""Camera, shape and poses of a person over a whole clip, from landmarks and masks.

A body is moved until its landmarks lie on the network's and its outline in the masks' (Bogo et al., Keep it SMPL, ECCV
2016, but for all frames together): one shape, a pose that all frames share, and smooth motion beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from nerfstudio.utils.rich_utils import CONSOLE
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.files import FREE_BODY, load_body_model
from instantavatar_ns.body.kinematics import skinned
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.correction.silhouettes import Silhouettes, distance_to_mask
from instantavatar_ns.process.anatomical_body import load_anatomical_body, write_anatomical_body
from instantavatar_ns.process.camera import Camera
from instantavatar_ns.process.clip_body import ClipUnknowns, PosedClip
from instantavatar_ns.process.clip_outlines import ClipOutlines, OutlinePoints
from instantavatar_ns.process.clip_terms import ClipTerms
from instantavatar_ns.process.drawn_body import drawn_silhouette, intersection_over_union
from instantavatar_ns.process.first_guess import first_guess
from instantavatar_ns.process.observations import Observations, read_observations
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import written_whole
from instantavatar_ns.utils.npz import read_npz

# Metres, deviations of landmarks: far-off limbs are caught first; then as the network errs; then less than silhouettes
# are trusted.
_LANDMARKS, _BESIDE_OUTLINES = (0.15, 0.05, 0.018), 0.05
_ITERATIONS, _ROUNDS, _ITERATIONS_A_ROUND = 60, 12, 40
_SETTLED = 1e-6  # change of an unknown, or of the log-probability, at which a minimum is reached
_COARSE_ROUNDS, _COARSE_REACH, _REACH = 4, 0.1, 0.05  # metres within which an outline belongs to another
# A frame is not fitted if landmarks are off by more than this share of the person's height, or if the body overlaps
# less of the mask; a clip is not if most of its frames are not.
_FAR_OFF, _LITTLE_OVERLAP = 0.06, 0.6


class ClipFit(NamedTuple):
    """Result of a fit; the files hold the rest.

    Attributes:
        camera: That was used.
        reprojection: Mean distance of body's and network's landmarks in each frame, pixels; NaN where there are none.
        iou: Overlap of body and mask in each frame, 0 to 1.
        interpolated: Frames without landmarks, whose poses are interpolated.
        poor: Frames that the body does not fit.
    """

    camera: Camera
    reprojection: Float[np.ndarray, " frames"]
    iou: Float[np.ndarray, " frames"]
    interpolated: list[int]
    poor: list[int]


def fit_clip(
    folder: Path,
    focal: float | None = None,
    body: str = "free",
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] = lambda share: None,
) -> ClipFit:
    """Fit a body to a clip: write `cameras.npz`, `poses.npz`, `body/` and `process/fit.npz`.

    Args:
        folder: With `images/`, `masks/`, `process/clip.json` and `process/landmarks.npz`.
        focal: Focal length, pixels of the images; None for that of the video's tags, or an assumption.
        body: Path of a body in SMPL's format, or "free".
        device: Where to compute.
        progress: Called now and then with the share of the work that is done.

    Raises:
        InputError: Something is missing or unreadable, or the body cannot be fitted to most of the frames.
    """
    free = body == "free"
    model = (load_anatomical_body() if free else load_body_model(body)).to(device)
    source = FREE_BODY if free else Path(body)
    _check_bodies(folder, source)
    seen = read_observations(folder, focal)
    terms, clip, unknowns = _fit(model, seen, progress)
    camera = seen.camera
    if camera.origin == "assumed":
        camera = camera._replace(focal=camera.focal * float(clip.zoom), origin="estimated")
    reprojection = terms.reprojection_errors(clip, unknowns).cpu().double().numpy()
    iou = _overlaps(model, clip, seen)
    poor, interpolated = _poor_frames(seen, reprojection, iou), np.flatnonzero(~seen.found).tolist()
    if len(poor) > seen.found.sum() / 2:
        message = f"expected a body that fits the landmarks and masks, found none for {_listed(poor, len(iou))}"
        advice = (
            "Film one person who stands upright and turns, from head to feet, with the camera upright too; free motion "
            "needs the poses of an estimator (instant-avatar import)"
        )
        raise InputError(folder / "process" / "landmarks.npz", message, advice)
    CONSOLE.print(camera.description, highlight=False, soft_wrap=True)
    if interpolated:
        _warn(f"Nobody was found in {_listed(interpolated, len(iou))}: poses there are interpolated.")
    if poor:
        _warn(f"The body does not fit {_listed(poor, len(iou))}: look at them, and leave out those that are wrong.")
    _write(folder, source, camera, clip, reprojection, iou)
    return ClipFit(camera, reprojection, iou, interpolated, poor)


def _fit(
    body: BodyModel, seen: Observations, progress: Callable[[float], None]
) -> tuple[ClipTerms, PosedClip, ClipUnknowns]:
    model = first_guess(body, seen)
    terms, outlines = ClipTerms(model, seen), ClipOutlines(body, _silhouettes(seen, model.place.device))
    share = 1 / (_ROUNDS + 2)

    unknowns = model.start()
    for deviation in _LANDMARKS:

        def by_landmarks(unknowns: ClipUnknowns, deviation: float = deviation) -> torch.Tensor:
            likelihood = terms.of_landmarks(model.posed(unknowns), unknowns, deviation)
            return likelihood + terms.of_hinges(unknowns) + model.prior(unknowns)

        unknowns = _minimise(by_landmarks, unknowns, _ITERATIONS)
    progress(2 * share)
    for number in range(_ROUNDS):
        points = outlines.match(model.posed(unknowns), _COARSE_REACH if number < _COARSE_ROUNDS else _REACH)

        def by_outlines(unknowns: ClipUnknowns, points: OutlinePoints = points) -> torch.Tensor:
            clip = model.posed(unknowns)
            likelihood = terms.of_landmarks(clip, unknowns, _BESIDE_OUTLINES)
            likelihood = likelihood + terms.of_outlines(outlines.distances(clip, points), points.patches)
            return likelihood + terms.of_hinges(unknowns) + model.prior(unknowns)

        unknowns = _minimise(by_outlines, unknowns, _ITERATIONS_A_ROUND)
        progress((number + 3) * share)
    with torch.no_grad():
        return terms, model.posed(unknowns), unknowns


def _minimise(function: Callable[[ClipUnknowns], torch.Tensor], start: ClipUnknowns, iterations: int) -> ClipUnknowns:
    """Minimise by L-BFGS."""
    values = [value.clone().requires_grad_() for value in start]
    optimizer = torch.optim.LBFGS(
        values, max_iter=iterations, history_size=20, tolerance_change=_SETTLED, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = function(ClipUnknowns(*values))
        loss.backward()
        return loss

    optimizer.step(closure)
    return ClipUnknowns(*(value.detach() for value in values))


def _silhouettes(seen: Observations, device: torch.device) -> Silhouettes:
    """The person's, in cameras at the origin; pixels count from the corner there."""
    frames = len(seen.times)
    center = torch.tensor(seen.camera.center) + 0.5
    return Silhouettes(
        distance_to_mask(torch.from_numpy(seen.masks)).to(device),
        torch.full((frames, 2), seen.camera.focal, device=device),
        center.to(device).expand(frames, 2),
        torch.eye(4, device=device).expand(frames, 4, 4),
    )


@torch.no_grad()
def _overlaps(body: BodyModel, clip: PosedClip, seen: Observations) -> Float[np.ndarray, " frames"]:
    """Intersection over union of body and mask in each frame."""
    rest, faces = body.rest(clip.betas)[0], body.faces.cpu().numpy()
    overlaps = []
    for transforms, mask in zip(clip.seen, seen.masks, strict=True):
        vertices = skinned(rest, body.skinning_weights, transforms[None])[0].cpu().numpy()
        overlaps.append(intersection_over_union(drawn_silhouette(vertices, faces, seen.camera), mask > 127))
    return np.array(overlaps)


def _poor_frames(
    seen: Observations, reprojection: Float[np.ndarray, " frames"], iou: Float[np.ndarray, " frames"]
) -> list[int]:
    """Frames with landmarks that the body does not fit."""
    known = seen.pixels[seen.found]
    height = float(np.median(np.ptp(known[..., 1], axis=1)))
    wrong: Bool[np.ndarray, " frames"] = (reprojection > _FAR_OFF * height) | (iou < _LITTLE_OVERLAP)
    return np.flatnonzero(wrong & seen.found).tolist()


def _listed(frames: list[int], count: int) -> str:
    """Name frames, the first of many."""
    shown = ", ".join(map(str, frames[:10])) + (", ..." if len(frames) > 10 else "")
    return f"{len(frames)} of {count} frames ({shown})"


def _warn(text: str) -> None:
    CONSOLE.print(f"[yellow]{text}", highlight=False, soft_wrap=True)


def _check_bodies(folder: Path, source: Path) -> None:
    """Refuse to put a second body beside another: poses would be read with either."""
    others = {path for path in (folder / "body").glob("*") if path.name != source.name}
    earlier = folder / "process" / "fit.npz"
    if earlier.is_file():
        others.discard(folder / "body" / str(read_npz(earlier, "an earlier fit", "Delete it").get("body")))
    if others:
        message = f"expected no body but {source.name}, found {', '.join(sorted(path.name for path in others))}"
        raise InputError(folder / "body", message, f"Fit that one (--body {sorted(others)[0]}), or take it away")


def _write(
    folder: Path,
    source: Path,
    camera: Camera,
    clip: PosedClip,
    reprojection: Float[np.ndarray, " frames"],
    iou: Float[np.ndarray, " frames"],
) -> None:
    """Write the result; `poses.npz`, by which the fit is known to be done, last."""
    target = folder / "body" / source.name
    if not target.exists() or not target.samefile(source):
        for path in (folder / "body").glob("*"):
            path.unlink()
        target.parent.mkdir(exist_ok=True)
        if source == FREE_BODY:
            write_anatomical_body(target)
        else:
            shutil.copyfile(source, target)
    camera.write(folder / "cameras.npz")
    np.savez(folder / "process" / "fit.npz", reprojection=reprojection, iou=iou, body=np.array(source.name))
    rotations = Rotation.from_matrix(clip.rotations.cpu().double().numpy().reshape(-1, 3, 3))
    with written_whole(folder / "poses.npz") as partial:
        np.savez(
            partial,
            betas=clip.betas.cpu().numpy()[None],
            thetas=rotations.as_rotvec().reshape(len(clip.transl), -1).astype(np.float32),
            transl=clip.transl.cpu().numpy(),
        )
