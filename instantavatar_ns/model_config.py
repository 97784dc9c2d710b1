"""Options of the model, as `--pipeline.model.*`."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Literal

import torch
from nerfstudio.models.base_model import ModelConfig
from tyro.conf import Suppress

from instantavatar_ns.backgrounds import Background
from instantavatar_ns.deformer.skinning_grid import BODY_SKINNING, SkinningSettings
from instantavatar_ns.motion.editing import DEFAULT_OPTIONS, MotionOptions
from instantavatar_ns.rendering.avatar import AvatarSizes
from instantavatar_ns.rendering.implementation import choose_renderer
from instantavatar_ns.utils.options import Advanced


def _model() -> type:
    # By name: the model lies in a layer above, and imports this module.
    return import_module("instantavatar_ns.model").InstantAvatarModel


@dataclass
class InstantAvatarModelConfig(ModelConfig):
    """Configuration of the InstantAvatar model."""

    _target: type = field(default_factory=_model)
    """Class to instantiate."""
    enable_collider: Suppress[bool] = False
    """Near and far planes are not used: samples lie in occupied cells only."""
    collider_params: Suppress[dict[str, float] | None] = None
    """Not used."""
    loss_coefficients: Suppress[dict[str, float]] = field(default_factory=dict)
    """Not used."""
    prompt: Suppress[str | None] = None
    """Not used."""
    eval_num_rays_per_chunk: Advanced[int] = 1 << 16
    """Rays that PyTorch renders at once; fewer take less memory."""
    image_megabytes: int = 2048
    """Memory for an image on a GPU, megabytes; larger images are rendered in parts."""
    cuda_graphs: Advanced[bool] = True
    """Capture training steps and images as CUDA graphs where Triton kernels compute them."""
    implementation: Literal["auto", "tcnn", "triton", "torch"] = "auto"
    """Library that computes the field; "auto" is the fastest that runs here, and checkpoints fit all."""
    renderer: Literal["auto", "triton", "torch"] = "auto"
    """Library that deforms, samples and composites; "auto" is the fastest that runs here."""
    hash_levels: Advanced[int] = 16
    """Levels of the hash encoding."""
    log2_hash_entries: int = 19
    """Size of the hash encoding: binary logarithm of the entries of a level."""
    hidden_width: int = 64
    """Width of the networks for density and colour."""
    skinning_resolution: Advanced[tuple[int, int, int]] = (128, 128, 32)
    """Voxels of the skinning weights and of the canonical occupancy along x, y and z; posed grids have cells twice as
    large, about 64 along the longest axis."""
    skinning: Advanced[SkinningSettings] = BODY_SKINNING
    """Spread of the body's skinning weights into the voxels."""
    step_size: float = 2 / 256
    """Distance between samples along a ray, metres."""
    background_color: Background = "random"
    """Background of the training images: random for each pixel, or fixed."""
    occupancy_warmup: Advanced[int] = 60
    """Steps for which the occupancy stays as it started: a field that has seen little must not rule anything out."""
    occupancy_start: Literal["everywhere", "body"] = "everywhere"
    """Space that is sampled at first: all of it, or that around the body."""
    body_reach: Advanced[float] = 0.05
    """Reach of the space that `occupancy_start` "body" samples around the body, with clothes in mind, metres."""
    occupancy_interval: Advanced[int] = 20
    """Steps between refreshes of the occupancy."""
    mask_loss_mult: float = 0.1
    """Weight of the loss between opacity and mask."""
    hard_surface_loss_mult: Advanced[float] = 0.1
    """Weight of the prior for opacities of 0 or 1, on rays and on samples."""
    occupancy_loss_mult: Advanced[float] = 1.0
    """Weight of opacity outside the occupied cells. The release's 20, on every 20th step, is 1 per step."""
    empty_loss_mult: Advanced[float] = 0.025
    """Weight of opacity anywhere, in the first `empty_steps` steps. The release's 0.5, on every 20th step."""
    empty_steps: Advanced[int] = 500
    """Steps for which opacity anywhere is discouraged."""
    lpips_loss_mult: float = 0.0
    """Weight of the perceptual loss LPIPS-VGG, summed over the patches of a step."""
    depth_loss_mult: Advanced[float] = 0.0
    """Weight of the deviation of depth from its mean over a patch, metres."""
    unseen_loss_mult: float = 1.5
    """Weight of the prior of parts that no training view shows: close to the body, in colours of seen parts."""
    unseen_color_start: Advanced[int] = 1500
    """Step from which parts that no training view shows take carried-on colours."""
    unseen_views: Path | None = None
    """Folder of `instant-avatar unseen-views` with filled views, for colors of what no training view shows."""
    density_noise_steps: Advanced[int] = 1000
    """Steps for which normal noise is added to the raw density."""
    refine_poses: bool = True
    """Correct the training poses while the avatar is trained."""
    align_poses: bool = True
    """Correct the training poses by the silhouettes before the first step; needs `refine_poses`."""
    move_joints: Advanced[bool] = True
    """Place the person's joints by silhouettes and symmetry, some millimetres from the body's; needs `align_poses`."""
    pose_start: Advanced[int] = 500
    """Step from which images correct the poses: the shape must have formed."""
    pose_knot_spacing: Advanced[float] = 8.0
    """Frames of the recording between two knots of the spline that carries the poses' slow errors."""
    pose_prior_mult: Advanced[float] = 2e-2
    """Weight of the squared corrections (radians, metres) of a frame, summed: the prior to the pose that training began
    with, the given one or, with `align_poses`, the aligned one; larger by itself where poses were found to be exact."""
    pose_smoothness_mult: Advanced[float] = 1.0
    """Weight of the squared second derivative of the same corrections over time (in frames), summed over time."""
    motion: Path | None = None
    """Motion that the viewer's time plays: a file, or walk, dance or stretch; by default the training poses."""
    motion_options: Advanced[MotionOptions] = DEFAULT_OPTIONS
    """Edits applied before playback: cut, loop, resample and more."""
    lpips_backbone: Path | None = None
    """Weights of AlexNet for the metric LPIPS; by default torchvision downloads them."""
    vgg_backbone: Path | None = None
    """Weights of VGG16 for the perceptual loss; by default torchvision downloads them."""

    def avatar_sizes(self, device: torch.device | str) -> AvatarSizes:
        """Return the sizes of the avatar's parts, and what computes them.

        Args:
            device: Where the avatar will be.
        """
        return AvatarSizes(
            skinning_resolution=self.skinning_resolution,
            skinning=self.skinning,
            hash_levels=self.hash_levels,
            log2_hash_entries=self.log2_hash_entries,
            hidden_width=self.hidden_width,
            field=self.implementation,
            renderer=choose_renderer(self.renderer, device),
            body_reach=self.body_reach if self.occupancy_start == "body" else None,
        )
