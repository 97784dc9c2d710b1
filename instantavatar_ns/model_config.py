"""What can be set of the model, as `--pipeline.model.*`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from nerfstudio.models.base_model import ModelConfig

from instantavatar_ns.backgrounds import Background
from instantavatar_ns.deformer.skinning_grid import BODY_SKINNING, SkinningSettings
from instantavatar_ns.motion.editing import DEFAULT_OPTIONS, MotionOptions
from instantavatar_ns.rendering.avatar import AvatarSizes
from instantavatar_ns.rendering.implementation import choose_renderer


def _model() -> type:
    from instantavatar_ns.model import InstantAvatarModel  # which imports this module

    return InstantAvatarModel


@dataclass
class InstantAvatarModelConfig(ModelConfig):
    """Configuration of the InstantAvatar model."""

    _target: type = field(default_factory=_model)
    """Class to instantiate."""
    enable_collider: bool = False
    """Near and far planes are not used: samples lie in occupied cells only."""
    eval_num_rays_per_chunk: int = 1 << 16
    """Rays that PyTorch renders at once; fewer take less memory."""
    image_megabytes: int = 2048
    """Memory for the buffers of an image where Triton kernels render it; what takes more is rendered in parts. CUDA
    graphs of the last three sizes keep theirs."""
    cuda_graphs: bool = True
    """Capture training steps and images as CUDA graphs where Triton kernels compute them."""
    implementation: Literal["auto", "tcnn", "triton", "torch"] = "auto"
    """What computes the field: tiny-cuda-nn, Triton kernels, plain PyTorch, or the fastest that runs here. Checkpoints
    fit all."""
    renderer: Literal["auto", "triton", "torch"] = "auto"
    """What takes samples, searches roots and composites: Triton kernels in buffers of a fixed size, PyTorch (with
    nerfacc where it can be used), or the fastest that runs here."""
    hash_levels: int = 16
    """Levels of the hash encoding."""
    log2_hash_entries: int = 19
    """Logarithm of the entries per level."""
    hidden_width: int = 64
    """Width of the density and colour networks."""
    skinning_resolution: tuple[int, int, int] = (128, 128, 32)
    """Voxels of the skinning weights and of the canonical occupancy along x, y and z; posed grids have cells twice as
    large, about 64 along the longest axis."""
    skinning: SkinningSettings = BODY_SKINNING
    """How the body's skinning weights get into the voxels."""
    step_size: float = 2 / 256
    """Distance between samples along a ray, metres."""
    background_color: Background = "random"
    """Background in training: random per pixel, or fixed. Everything is rendered on white otherwise."""
    occupancy_warmup: int = 60
    """Steps for which the occupancy stays as it started: a field that has seen little must not rule anything out."""
    occupancy_start: Literal["everywhere", "body"] = "everywhere"
    """What is taken as occupied at first: all space, or what lies within `body_reach` of the body."""
    body_reach: float = 0.05
    """Metres around the body that are occupied at first, where occupancy starts from the body: room for clothes."""
    occupancy_interval: int = 20
    """Steps between refreshes of the occupancy."""
    mask_loss_mult: float = 0.1
    """Weight of the mask."""
    hard_surface_loss_mult: float = 0.1
    """Weight of the hard-surface prior, on rays and on samples."""
    occupancy_loss_mult: float = 1.0
    """Weight of opacity outside the occupied cells. The release's 20, on every 20th step, is 1 per step."""
    empty_loss_mult: float = 0.025
    """Weight of opacity anywhere, in the first `empty_steps` steps. The release's 0.5, on every 20th step."""
    empty_steps: int = 500
    """Steps for which opacity anywhere is discouraged."""
    lpips_loss_mult: float = 0.0
    """Weight of LPIPS-VGG, summed over the patches of a step."""
    depth_loss_mult: float = 0.0
    """Weight of how far depth lies from its mean over the patch, metres."""
    unseen_loss_mult: float = 1.5
    """Weight of what is expected where the training views did not look: nothing off the body, colours carried on."""
    unseen_color_start: int = 1500
    """Step from which unseen parts take carried-on colours: those of the seen parts must have formed."""
    density_noise_steps: int = 1000
    """Steps for which normal noise is added to the raw density."""
    refine_poses: bool = True
    """Correct the training poses while the avatar is trained."""
    align_poses: bool = True
    """Correct the training poses before the first step already, so that the body fills the silhouettes; where
    `refine_poses` is on."""
    move_joints: bool = True
    """Turn all poses about the person's joints as silhouettes and symmetry tell, some millimetres from the body's;
    where `align_poses` is on."""
    pose_start: int = 500
    """Step at which the correction of poses begins: the shape must have formed."""
    pose_knot_spacing: float = 8.0
    """Frames of the recording between two knots of the spline that carries the poses' slow errors."""
    pose_prior_mult: float = 2e-2
    """Weight of the squared corrections (radians, metres) of a frame, summed: the prior to the pose that training began
    with, the given one or, with `align_poses`, the aligned one; larger by itself where poses were found to be exact."""
    pose_smoothness_mult: float = 1.0
    """Weight of the squared second derivative of the same corrections over time (in frames), summed over time."""
    motion: Path | None = None
    """Motion that nerfstudio's time plays, 0 its first frame and 1 its last: a file, or the name of one that comes
    along (walk, dance, stretch). By default time plays the training poses."""
    motion_options: MotionOptions = DEFAULT_OPTIONS
    """Edits applied before playback: cut, root, loop, transition."""
    lpips_backbone: Path | None = None
    """File with AlexNet's convolutions for LPIPS; by default torchvision downloads them."""
    vgg_backbone: Path | None = None
    """File with VGG16's convolutions for the loss of `lpips_loss_mult`; by default torchvision downloads them."""

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
