"""Poses of held-out frames, fitted to their images with the avatar frozen.

The tables that papers publish are made so (InstantAvatar section 4.1, after Anim-NeRF): the poses of test frames are
estimates too, and a few pixels of misalignment would hide how good the avatar is. It looks at the test image, so its
figures only ever stand beside those without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import track
from torch import Tensor, nn

from instantavatar_ns.backgrounds import image_background
from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.correction.refinement import PoseRefinement
from instantavatar_ns.data.datamanager import AvatarDataManagerConfig, FrameStore
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.losses import mask_loss
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.optimizers import RowAdam
from instantavatar_ns.rendering.inputs import Rays
from instantavatar_ns.utils.cuda_graph import AutoCudaGraph

Recipe = Literal["published", "fast"]


@dataclass(frozen=True)
class FitRecipe:
    """Settings of a fit of poses.

    Attributes:
        steps_per_frame: Steps that each frame gets.
        num_rays: Rays of a step.
        lr: Learning rate at first.
        decay: Exponent of the rate's decay to zero; 0 keeps it.
        eps: Added to the root of Adam's second moment: coordinates with far less gradient hardly move.
        given_weight: Of the squared corrections, the prior to the given pose.
        surface: Adam's coordinates are those of `surface_coordinates`; otherwise rotation vectors and shift.
    """

    steps_per_frame: int
    num_rays: int
    lr: float
    decay: float
    eps: float
    given_weight: float
    surface: bool


RECIPES: dict[Recipe, FitRecipe] = {
    # 20 epochs over the test frames at a rate of 1e-5: a pose moves by a hundredth of a degree.
    "published": FitRecipe(20, 4096, 1e-5, 0.0, 1e-8, 0.0, surface=False),
    "fast": FitRecipe(120, 8192, 4e-3, 1.5, 5e-2, 1e-2, surface=True),
}
Drawn = tuple[RayBundle, dict[str, Tensor]]
_CHECKED_EVERY = 20  # steps: buffers that were too small lack a few samples until then
_SHARES = (0.6, 0.3, 0.1)  # of rays on the person, near the silhouette and anywhere


def fit_poses(
    model: InstantAvatarModel, dataset: AvatarDataset, config: AvatarDataManagerConfig, recipe: FitRecipe
) -> dict[int, PosedBody]:
    """Fit the poses of a dataset's frames to their images.

    Args:
        model: The avatar; it stays as it is.
        dataset: The frames, whose poses are rows of the model's poses.
        config: How rays are drawn, but for their shares.
        recipe: How to fit.

    Returns:
        The fitted pose of each row, for `PoseProvider.replacing`.
    """
    frames = FrameStore(dataset, model.device, replace(config, sampling="pixels", pixel_shares=_SHARES), rank=0)
    rows: list[int] = dataset.cameras.metadata["pose_id"].flatten().tolist()  # pyright: ignore[reportOptionalSubscript]
    subject = dataset.subject
    poses, times = subject.poses.rows(slice(rows[0], rows[-1] + 1)), subject.frame_numbers.float()
    body = model.poses.body
    coordinates = None if recipe.surface else torch.eye(3 * body.num_joints + 3)
    refinement = PoseRefinement(body, poses, times, subject.world_to_dataset, coordinates)
    refinement = refinement.to(model.device)
    # Each frame by itself, so that the figures do not depend on which others are evaluated: no knots.
    optimizer = RowAdam([refinement.remainders], lr=recipe.lr, betas=(0.9, 0.99), eps=recipe.eps)
    steps = recipe.steps_per_frame * len(frames)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, recipe.decay)
    number = torch.zeros((), dtype=torch.long, device=model.device)
    work: AutoCudaGraph[Tensor] = AutoCudaGraph(model.device)

    def gradient(drawn: Drawn) -> Tensor:
        loss = _image_loss(model, refinement[number], drawn)
        loss = loss + recipe.given_weight * refinement.corrections().index_select(0, number.view(1)).square().sum()
        return torch.autograd.grad(loss, refinement.remainders)[0]

    with _frozen(model):
        for step in track(range(steps), description="Fitting the poses", transient=True, console=CONSOLE):
            frame = frames.frame_of_step(step, world_size=1)
            drawn = frames.draw_rays(frame, recipe.num_rays, step)
            number.fill_(frame)
            if model.renderer.supports_cuda_graphs:
                settings = (id(drawn[0]), model.renderer.capacity(recipe.num_rays))
                refinement.remainders.grad = work(settings, partial(gradient, drawn))
            else:
                refinement.remainders.grad = gradient(drawn)
            optimizer.step()
            scheduler.step()
            if step % _CHECKED_EVERY == 0:
                model.renderer.check_capacity()
        with torch.no_grad():
            return {row: refinement[frame] for frame, row in enumerate(rows)}


def _image_loss(model: InstantAvatarModel, body: PosedBody, drawn: Drawn) -> Tensor:
    """Difference between an image and its rendering as it is evaluated, on white, at some of its pixels."""
    rays, batch = drawn
    pose, white = model.renderer.prepare(body), image_background(model.device)
    outputs = model.renderer.render_rays(Rays(rays.origins, rays.directions), pose, background=white)
    image, mask = batch["image"][:, :3], batch["image"][:, 3:]
    color = nn.functional.mse_loss(outputs["rgb"], image * mask + 1 - mask)
    return color + model.config.mask_loss_mult * mask_loss(outputs["accumulation"], mask)


@contextmanager
def _frozen(model: InstantAvatarModel) -> Iterator[None]:
    """The model in evaluation, its parameters without gradient, gradients themselves on."""
    training, trained = model.training, [value for value in model.parameters() if value.requires_grad]
    model.eval()
    for value in trained:
        value.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        model.train(training)
        for value in trained:
            value.requires_grad_(True)
