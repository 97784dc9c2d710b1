"""InstantAvatar's model: a canonical hash field, a Fast-SNARF deformer and pose-aware occupancy (arXiv 2212.10550).

From rays to pixels: the pose is resolved once per bundle; rays go to root space; samples are placed in occupied cells,
deformed to the canonical body, shaded there and composited. `render` reads in that order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.model_components import renderers
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.utils import colormaps
from torch import Tensor, nn

from instantavatar_ns import losses
from instantavatar_ns.body.body_model import load_body_model
from instantavatar_ns.body.canonical import canonical_vertices
from instantavatar_ns.body.pose_bank import PoseBank, PosedBody, rest_sequence
from instantavatar_ns.body.pose_refinement import PoseRefinement, surface_coordinates
from instantavatar_ns.data.frames import PoseSequence
from instantavatar_ns.data.pinhole_rays import PinholeCamera, pinhole_camera
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.deformer.search import SearchSettings
from instantavatar_ns.deformer.skinning_grid import canonical_box
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.field.hash_encoding import HashGrid
from instantavatar_ns.metrics import image_metrics, quantise
from instantavatar_ns.motion.editing import DEFAULT_OPTIONS, MotionOptions, prepare_motion
from instantavatar_ns.motion.motion import DEFAULT_FPS, Motion, load_motion
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy, opacity
from instantavatar_ns.occupancy.posed_grid import PoseUnionGrid, cell_edge, pose_cells, posed_bounds
from instantavatar_ns.patch_losses import lpips_vgg, patch_depth_loss, patch_lpips_loss
from instantavatar_ns.rendering.image_buffers import ImageBuffers
from instantavatar_ns.rendering.implementation import choose_renderer
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules
from instantavatar_ns.rendering.outputs import pixel_outputs
from instantavatar_ns.rendering.packed import render_packed
from instantavatar_ns.rendering.recorded_images import RecordedImages
from instantavatar_ns.rendering.render_buffers import RenderBuffers
from instantavatar_ns.viewer.controls import ViewerControls
from instantavatar_ns.viewer.motion_controls import Clip
from instantavatar_ns.viewer.opening_view import OpeningView
from instantavatar_ns.viewer.scene_overlays import ShownPose

# Metres of clothes and hair that may stand out from the body.
_UNION_MARGIN = 0.2
_CACHED_POSES = 64
_EVAL_LEAST_ALPHA = 0.01
_EVAL_LEAST_TRANSMITTANCE = 1e-4
# Numbers, not nerfstudio's colours, which lie on the CPU. "random" is drawn where the loss is computed.
_BACKGROUNDS: dict[str, float | None] = {"random": None, "white": 1.0, "black": 0.0}


@dataclass
class InstantAvatarModelConfig(ModelConfig):
    """Configuration of the InstantAvatar model."""

    _target: type = field(default_factory=lambda: InstantAvatarModel)
    """Class to instantiate."""
    enable_collider: bool = False
    """Near and far planes are not used: samples lie in occupied cells only."""
    eval_num_rays_per_chunk: int = 1 << 16
    """Rays that PyTorch renders at once; fewer take less memory."""
    image_megabytes: int = 2048
    """Memory for the buffers of an image where Triton kernels render it; what takes more is rendered in parts. Recorded
    images of the last three sizes keep theirs."""
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
    step_size: float = 2 / 256
    """Distance between samples along a ray, metres."""
    background_color: Literal["random", "white", "black"] = "random"
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
    density_noise_steps: int = 1000
    """Steps for which normal noise is added to the raw density."""
    refine_poses: bool = True
    """Correct the training poses while the avatar is trained."""
    pose_start: int = 500
    """Step at which the correction of poses begins: the shape must have formed."""
    pose_knot_spacing: float = 8.0
    """Frames of the recording between two knots of the spline that carries the drift of the poses' errors."""
    pose_given_mult: float = 2e-2
    """Weight of the squared corrections (radians, metres) of a frame, summed: the prior to the given pose."""
    pose_bending_mult: float = 1.0
    """Weight of the squared second derivative of the corrections over time (in frames), summed over time."""
    motion: Path | None = None
    """Motion that nerfstudio's time plays, 0 its first frame and 1 its last: a file, or the name of one that comes
    along (walk, dance, stretch). By default time plays the training poses."""
    motion_options: MotionOptions = DEFAULT_OPTIONS
    """What is made of the motion before."""
    lpips_backbone: Path | None = None
    """File with AlexNet's convolutions for LPIPS; by default torchvision downloads them."""
    vgg_backbone: Path | None = None
    """File with VGG16's convolutions for the loss of `lpips_loss_mult`; by default torchvision downloads them."""


class InstantAvatarModel(Model):
    """See the module's docstring. `metadata` is what this package's data parsers hand over."""

    config: InstantAvatarModelConfig

    def populate_modules(self) -> None:
        """Build the person from the body model and the poses of the data set."""
        super().populate_modules()
        config, metadata = self.config, self.kwargs["metadata"]
        poses: PoseSequence = metadata["poses"]
        world_to_dataset = metadata["world_to_dataset"]
        body = load_body_model(metadata["body_model"])
        self.train_pose_ids: list[int] = metadata["train_pose_ids"].tolist()

        vertices = canonical_vertices(body, poses.betas)
        self.poses = PoseBank(body, poses, world_to_dataset)
        self.pose_refinement: PoseRefinement | None = None
        if config.refine_poses:
            train, times = poses.rows(slice(len(self.train_pose_ids))), metadata["train_frame_numbers"].float()
            coordinates = surface_coordinates(body, train)
            self.pose_refinement = PoseRefinement(
                body, train, times, world_to_dataset, coordinates, knot_spacing=config.pose_knot_spacing
            )
        self.rest_pose = PoseBank(body, rest_sequence(poses, self.train_pose_ids[0]), world_to_dataset)
        self.motion: PoseBank | None = None
        self._motion_fps = DEFAULT_FPS
        if config.motion is not None:
            self.motion = PoseBank(
                body, self._load_motion(config.motion, poses, world_to_dataset[:3, 2]), world_to_dataset
            )

        self.renderer: Literal["triton", "torch"] = choose_renderer(config.renderer, self.kwargs.get("device", "cpu"))
        search = SearchSettings(implementation=self.renderer)
        self.deformer = FastSnarfDeformer(vertices, body.skinning_weights, config.skinning_resolution, search)
        centre, half_edge = canonical_box(vertices)
        grid = HashGrid(config.hash_levels, config.log2_hash_entries)
        self.field = CanonicalField(centre, half_edge, grid, config.hidden_width, config.implementation)
        self.canonical_occupancy = CanonicalOccupancy(self.deformer.box, self.renderer)
        if config.occupancy_start == "body":
            self.canonical_occupancy.start_near(vertices, config.body_reach)
        lower, upper = posed_bounds(vertices, body.skinning_weights, self._train_bones().detach())
        edge = cell_edge(self.canonical_occupancy)
        self.union_grid = PoseUnionGrid(lower - _UNION_MARGIN, upper + _UNION_MARGIN, edge, self.renderer)
        self.render_buffers = RenderBuffers()
        self.image_buffers = ImageBuffers(config.image_megabytes)
        self.recorded_images = RecordedImages(self.image_buffers)
        self.may_record = True

        self.density_noise = 1.0
        self.step = 0
        self._render_poses: OrderedDict[tuple[str, Hashable], RenderPose] = OrderedDict()
        self._bodies: dict[tuple[str, Hashable], PosedBody] = {}
        self._current: RenderPose | None = None
        self._shown_poses: dict[int, PosedBody] = {}
        self.image_metrics_log: list[dict[str, float]] | None = None
        self.opening_view = OpeningView()
        self.viewer_controls = ViewerControls(
            body,
            poses,
            world_to_dataset,
            self.train_pose_ids,
            run_motion=None if self.motion is None else Clip(self.motion, self._motion_fps),
            posed_body=self.posed_body,
        )

    def _load_motion(self, path: Path, poses: PoseSequence, up: Float[Tensor, "3"]) -> PoseSequence:
        """The motion that time plays, prepared as the options say, with the person's shape."""
        first = slice(self.train_pose_ids[0], self.train_pose_ids[0] + 1)
        stand = Motion(poses.global_orient[first], poses.body_pose[first], poses.transl[first], DEFAULT_FPS, up)
        motion = prepare_motion(load_motion(path), self.config.motion_options, stand)
        self._motion_fps = motion.fps
        return PoseSequence(poses.betas, motion.global_orient, motion.body_pose, motion.transl)

    def _train_bones(self) -> Float[Tensor, "poses 24 4 4"]:
        if self.pose_refinement is not None:
            return self.pose_refinement.bone_transforms
        # They are the first ones; a list of rows would be copied to the GPU.
        return self.poses.bone_transforms[: len(self.train_pose_ids)]

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        """The field, and the corrections of the training poses."""
        groups = {"field": list(self.field.parameters())}
        if self.pose_refinement is not None:
            groups["poses"] = list(self.pose_refinement.parameters())
        return groups

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Keep schedules and occupancy in step with training."""
        return [
            TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self.update_to_step),
            TrainingCallback(
                [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION],
                self.refresh_occupancy,
                update_every_num_iters=self.config.occupancy_interval,
            ),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self._forget_render_poses),
        ]

    def update_to_step(self, step: int) -> None:
        """Set what depends on the step; called before each step and when a checkpoint is loaded."""
        self.step = step
        self.density_noise = 1.0 if step < self.config.density_noise_steps else 0.0

    @property
    def is_recordable(self) -> bool:
        """Whether training steps and images wait for nothing, so that their kernels can be recorded, and may be."""
        return self.may_record and self.renderer == "triton" and self.field.has_kernels and self.device.type == "cuda"

    def step_settings(self, num_rays: int) -> Hashable:
        """What a training step depends on besides tensors: while it stays the same, so do the step's kernels."""
        config, step = self.config, self.step
        switches = (step >= config.pose_start, step < config.empty_steps, self.density_noise)
        return (*switches, self.render_buffers.sizes(num_rays))

    @torch.no_grad()
    def refresh_occupancy(self, step: int) -> None:
        """Look where the field is dense, and skin that into all training poses."""
        self.render_buffers.check()
        if step >= self.config.occupancy_warmup:
            self.canonical_occupancy.refresh(lambda points: self.field.density(points)[0])
        elif self.config.occupancy_start == "everywhere":
            return
        self.union_grid.refresh(self.canonical_occupancy, self.deformer, self._train_bones())

    def _forget_render_poses(self, step: int | None = None) -> None:
        """The field has changed, and with it what is occupied in any pose."""
        self._render_poses.clear()
        self._bodies.clear()

    # Poses

    def resolve_pose(self, times: Tensor | None, metadata: dict | None) -> tuple[str, int]:
        """Bank and row of the pose that rays or a camera ask for.

        A dataset's cameras name their pose (`pose_id`); time plays the motion, or else the training poses, from 0 to 1;
        a camera with neither sees the rest pose. Reads a number from the device, so it is called once per image.
        """
        if metadata and "pose_id" in metadata:
            return "poses", int(metadata["pose_id"].flatten()[0])
        if times is None:
            return "rest_pose", 0
        # The viewer's splines overshoot between keyframes, and its slider gives NaN for a word. In this order 0 stays.
        time = min(max(0.0, float(times.flatten()[0])), 1.0)
        if self.motion is not None:
            return "motion", round(time * (len(self.motion) - 1))
        return "poses", self.train_pose_ids[round(time * (len(self.train_pose_ids) - 1))]

    def posed_body(self, bank: str, row: Hashable) -> PosedBody:
        """A pose of a bank; of training frames the corrected one, and what `showing_poses` gives in its place.

        Args:
            bank: "poses", "rest_pose" or "motion", whose rows are numbers, or "viewer_controls".
            row: Row of the bank.
        """
        if bank == "poses" and isinstance(row, int):
            if row in self._shown_poses:
                return self._shown_poses[row]
            if self.pose_refinement is not None and row < len(self.pose_refinement):
                return self.pose_refinement[row]
        return getattr(self, bank)[row]

    @contextmanager
    def showing_poses(self, poses: dict[int, PosedBody]) -> Iterator[None]:
        """Show some rows of the data's poses otherwise, such as fitted to their images."""
        self._shown_poses = poses
        self._forget_render_poses()
        try:
            yield
        finally:
            self._shown_poses = {}
            self._forget_render_poses()

    @torch.no_grad()
    def render_pose(self, bank: str, row: Hashable) -> RenderPose:
        """Skinning and occupied cells of a pose; kept until the field changes."""
        key = (bank, row)
        if key not in self._render_poses:
            body = self._body(bank, row)
            skinning = self.deformer.pose(body.bone_transforms)
            cells = pose_cells(self.canonical_occupancy, self.deformer, body.bone_transforms, self.renderer)
            self._render_poses[key] = RenderPose(body, skinning, cells)
            if len(self._render_poses) > _CACHED_POSES:
                self._render_poses.popitem(last=False)
        self._render_poses.move_to_end(key)
        return self._render_poses[key]

    def _body(self, bank: str, row: Hashable) -> PosedBody:
        """A pose of a bank, kept until the field and with it the training poses change."""
        key = (bank, row)
        if key not in self._bodies:
            if len(self._bodies) >= _CACHED_POSES:
                self._bodies.clear()
            self._bodies[key] = self.posed_body(bank, row)
        return self._bodies[key]

    # Rendering

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """Render a camera's image; its pose is resolved once, not per chunk of rays."""
        viewer = self.viewer_controls if self.viewer_controls.asks(camera) else None
        bank, row = self.resolve_pose(camera.times, camera.metadata)
        if viewer is not None:
            viewer.mend(camera)
            bank, row = viewer.choose(bank, row)
        device = camera.device
        pinhole = pinhole_camera(camera) if self.renderer == "triton" else None
        if pinhole is not None:
            pinhole = pinhole.to(self.device)
        try:  # the viewer interrupts renderings by exceptions
            if pinhole is not None and self.is_recordable and not self.training:
                body = self._body(bank, row)
                render = partial(self._render_recorded, pinhole, body)
            else:
                self._current = pose = self.render_pose(bank, row)
                body = pose.body
                if self.renderer == "triton":
                    render = partial(self._render_image, pinhole or camera, obb_box, pose)
                else:
                    render = partial(super().get_outputs_for_camera, camera, obb_box)
            if viewer is not None:
                # The grids change together, whenever the occupancy is refreshed.
                key = (bank, row, self.union_grid.binaries._version)
                shown = ShownPose(key, body, lambda: self.render_pose(bank, row).cells, self.union_grid.cells)
                render = partial(viewer.render, render, shown)
            return {name: output.to(device) for name, output in render().items()}
        finally:
            self._current = None

    def _render_recorded(self, camera: PinholeCamera, body: PosedBody) -> dict[str, Tensor]:
        """The image of a camera, as a recording that prepares the pose itself."""
        avatar, background = Avatar(self.deformer, self.canonical_occupancy, self.field), self._image_background()
        if not isinstance(background, Tensor):
            background = torch.full((3,), background, device=self.device)
        return self.recorded_images.render(camera, body, avatar, self._image_rules(), background)

    def _render_image(
        self, camera: PinholeCamera | Cameras, obb_box: OrientedBox | None, pose: RenderPose
    ) -> dict[str, Tensor]:
        """All rays of a camera together, where nerfstudio would render them chunk by chunk."""
        if isinstance(camera, PinholeCamera):
            origins, directions = camera.rays()
        else:
            bundle = camera.to(self.device).generate_rays(camera_indices=0, keep_shape=True, obb_box=obb_box)
            origins, directions = bundle.origins.reshape(-1, 3), bundle.directions
        outputs = self.render(Rays(origins, directions.reshape(-1, 3)), pose)
        return {name: output.view(*directions.shape[:2], -1) for name, output in outputs.items()}

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Render rays that all see one pose, that of the first ray."""
        if not self.training:
            self.viewer_controls.interruptions.check()
            pose = self._current or self.render_pose(*self.resolve_pose(ray_bundle.times, ray_bundle.metadata))
            return self.render(ray_bundle, pose)
        pose_id, refinement = ray_bundle.metadata["pose_id"].flatten()[0], self.pose_refinement
        with torch.set_grad_enabled(self.step >= self.config.pose_start):
            body = self.poses[pose_id] if refinement is None else refinement[pose_id]
        pose = RenderPose(body, self.deformer.pose(body.bone_transforms), self.union_grid.cells)
        outputs = self.render(ray_bundle, pose)
        outputs.update(self._occupancy_samples(len(ray_bundle)))
        if refinement is not None:
            # From the first step on, if without effect: torch's schedulers expect their optimizer to have stepped.
            outputs["pose_prior"] = refinement.prior(
                pose_id, self.config.pose_given_mult, self.config.pose_bending_mult
            )
        return outputs

    def render(self, ray_bundle: RayBundle | Rays, pose: RenderPose) -> dict[str, Tensor]:
        """Colour, opacity and depth of rays in one pose.

        Returns:
            `rgb` [rays, 3], `accumulation` [rays, 1], `depth` [rays, 1] (metres along the ray, the far side of the
            person where nothing is hit), and in training `sample_weights` [samples] and `num_samples` [1].
        """
        rays = Rays(ray_bundle.origins, ray_bundle.directions)
        avatar = Avatar(self.deformer, self.canonical_occupancy, self.field)
        if self.training:
            rules = SampleRules(self.config.step_size, stratified=True, noise=self.density_noise)
        else:
            rules = self._image_rules()
        if self.renderer == "torch":
            pixels = render_packed(rays, pose, avatar, rules)
            num_samples = torch.full((1,), len(pixels.weights), device=self.device)
        elif self.training or torch.is_grad_enabled():
            pixels, num_samples = self.render_buffers.render(rays, pose, avatar, rules)
        else:
            pixels, num_samples = self.image_buffers.render(rays, pose, avatar, rules)

        # Random colours are blended where the loss is computed.
        background = _BACKGROUNDS[self.config.background_color] if self.training else self._image_background()
        outputs = pixel_outputs(pixels, rays.origins_in_root_space(pose.body), background)
        if not self.training:
            return outputs | {"rgb": outputs["rgb"].clamp(0, 1)}
        return outputs | {"sample_weights": pixels.weights, "num_samples": num_samples}

    def _image_rules(self) -> SampleRules:
        """Of what is not trained on."""
        return SampleRules(
            self.config.step_size, least_alpha=_EVAL_LEAST_ALPHA, least_transmittance=_EVAL_LEAST_TRANSMITTANCE
        )

    def _image_background(self) -> Float[Tensor, "3"] | float:
        """Colour behind the person in images: white, or what nerfstudio's viewer asks for."""
        color = renderers.BACKGROUND_COLOR_OVERRIDE
        return 1.0 if color is None else color.to(self.device)

    def _occupancy_samples(self, count: int) -> dict[str, Tensor]:
        """Opacity at random canonical points, and whether they lie outside what is occupied, for the regulariser."""
        box = self.deformer.box
        points = box.lower + torch.rand(count, 3, device=self.device) * (box.upper - box.lower)
        return {
            "space_opacity": opacity(self.field.density(points)[0]),
            "space_is_free": ~self.canonical_occupancy.occupied(points),
        }

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """The person's own colour and opacity [..., 4], of outputs on white; white where there is nothing.

        nerfstudio calls this for `ns-render --rendered-output-names rgba`; its own would divide colours on white by
        opacity.
        """
        alpha = outputs[output_name.replace("rgb", "accumulation")]
        # rgb = alpha * colour + (1 - alpha)
        colour = 1 - (1 - outputs[output_name]) / alpha.clamp_min(1e-6)
        return torch.cat([colour.clamp(0, 1), alpha], dim=-1)

    # Losses and metrics

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """PSNR of the batch, and samples per ray."""
        image = batch["image"].to(self.device)
        background = _BACKGROUNDS[self.config.background_color] if self.training else 1.0
        truth = _blend(image, background or 0.0)
        metrics = {"psnr": -10 * torch.log10(torch.mean((outputs["rgb"].detach() - truth) ** 2))}
        if "sample_weights" in outputs:
            metrics["samples_per_ray"] = outputs["num_samples"][0] / len(image)
        return metrics

    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Loss terms with their weights (InstantAvatar section 3.4)."""
        config = self.config
        image = batch["image"].to(self.device)
        rgb, background = outputs["rgb"], 1.0
        if self.training:
            background = _BACKGROUNDS[config.background_color]
            if background is None:
                background = torch.rand_like(rgb)
                rgb = rgb + background * (1 - outputs["accumulation"])
        truth = _blend(image, background)
        loss_dict = {
            "rgb_loss": nn.functional.mse_loss(rgb, truth),
            "mask_loss": config.mask_loss_mult * losses.mask_loss(outputs["accumulation"], image[:, 3:]),
        }
        if self.training:
            surface = losses.hard_surface_loss(outputs["accumulation"])
            surface = surface + losses.hard_surface_loss(outputs["sample_weights"], outputs["num_samples"])
            loss_dict["hard_surface_loss"] = config.hard_surface_loss_mult * surface
            outside = (outputs["space_opacity"] * outputs["space_is_free"]).mean()
            loss_dict["occupancy_loss"] = config.occupancy_loss_mult * outside
            if "pose_prior" in outputs:
                loss_dict["pose_prior"] = outputs["pose_prior"]
            if self.step < config.empty_steps:
                loss_dict["empty_loss"] = config.empty_loss_mult * outputs["space_opacity"].mean()
            size: int | None = batch.get("patch_size")
            if config.lpips_loss_mult:
                network = lpips_vgg(config.vgg_backbone, str(self.device))
                loss_dict["lpips_loss"] = config.lpips_loss_mult * patch_lpips_loss(rgb, truth, size, network)
            if config.depth_loss_mult:
                depth_loss = patch_depth_loss(outputs["depth"], outputs["accumulation"], size)
                loss_dict["depth_loss"] = config.depth_loss_mult * depth_loss
        return loss_dict

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics of a whole image on white, and the images to look at."""
        truth = batch["image"].to(self.device)
        if truth.shape[-1] == 4:  # nerfstudio's datasets may have blended them
            truth = _blend(truth, 1.0)
        rendered = outputs["rgb"]
        metrics = image_metrics(rendered, truth, self.config.lpips_backbone)
        if self.image_metrics_log is not None:
            self.image_metrics_log.append(metrics)
        images = {
            "img": torch.cat([truth, quantise(rendered)], dim=1),
            "accumulation": colormaps.apply_colormap(outputs["accumulation"]),
            "depth": colormaps.apply_depth_colormap(outputs["depth"], accumulation=outputs["accumulation"]),
        }
        return dict(metrics), images

    @contextmanager
    def logging_image_metrics(self) -> Iterator[list[dict[str, float]]]:
        """Collect the metrics of every image that is evaluated meanwhile."""
        self.image_metrics_log = []
        try:
            yield self.image_metrics_log
        finally:
            self.image_metrics_log = None


def _blend(image: Float[Tensor, "*pixels 4"], background: float | Tensor) -> Float[Tensor, "*pixels 3"]:
    """Colours of an image with opacity, on a background."""
    return image[..., :3] * image[..., 3:] + background * (1 - image[..., 3:])
