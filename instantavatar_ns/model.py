"""InstantAvatar's model: a canonical hash field, a Fast-SNARF deformer and pose-aware occupancy (arXiv 2212.10550).

From rays to pixels: the pose is resolved once per bundle; rays go to root space; samples are placed in occupied cells,
deformed to the canonical body, shaded there and composited. `render` reads in that order.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from time import monotonic
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.models.base_model import Model
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn

from instantavatar_ns import losses
from instantavatar_ns.backgrounds import (
    TRAINING_BACKGROUNDS,
    blend,
    image_background,
    on_same_background,
    unblend_white,
)
from instantavatar_ns.body.bank import PoseBank, PosedBody, rest_sequence
from instantavatar_ns.body.canonical import canonical_vertices
from instantavatar_ns.body.model import BodyModel, load_body_model
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.correction.alignment import ROUNDS, align_to_silhouettes
from instantavatar_ns.correction.refinement import PoseRefinement, surface_coordinates
from instantavatar_ns.correction.silhouettes import pinhole_silhouettes
from instantavatar_ns.deformer.fast_snarf import FastSnarfDeformer
from instantavatar_ns.deformer.search import SearchSettings
from instantavatar_ns.deformer.skinning_grid import canonical_box
from instantavatar_ns.field.canonical_field import CanonicalField
from instantavatar_ns.field.hash_encoding import HashGrid
from instantavatar_ns.metrics import compare_images
from instantavatar_ns.model_config import InstantAvatarModelConfig
from instantavatar_ns.motion.motion import DEFAULT_FPS
from instantavatar_ns.motion.run_motion import load_run_motion
from instantavatar_ns.occupancy.canonical_grid import CanonicalOccupancy, opacity
from instantavatar_ns.occupancy.posed_grid import PoseUnionGrid, cell_edge, pose_cells, posed_bounds
from instantavatar_ns.patch_losses import lpips_vgg, patch_depth_loss, patch_lpips_loss
from instantavatar_ns.rendering.buffers import RenderBuffers
from instantavatar_ns.rendering.image_buffers import ImageBuffers
from instantavatar_ns.rendering.image_poses import ImagePoses
from instantavatar_ns.rendering.implementation import choose_renderer
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules, image_rules
from instantavatar_ns.rendering.outputs import pixel_outputs
from instantavatar_ns.rendering.packed import render_packed
from instantavatar_ns.rendering.recorded_images import RecordedImages
from instantavatar_ns.unseen.coverage import Views, view_coverage
from instantavatar_ns.unseen.prior import UnseenPrior
from instantavatar_ns.utils.pinhole_rays import PinholeCamera, pinhole_camera
from instantavatar_ns.utils.progress import shown_progress
from instantavatar_ns.viewer.controls import ViewerControls
from instantavatar_ns.viewer.motion_controls import Clip
from instantavatar_ns.viewer.opening_view import OpeningView
from instantavatar_ns.viewer.scene_overlays import ShownPose

# Metres of clothes and hair that may stand out from the body.
_UNION_MARGIN = 0.2


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
        self._given_body = (body,)  # in a tuple, so that it is no submodule, and no checkpoint holds it
        self.train_pose_ids: list[int] = metadata["train_pose_ids"].tolist()
        self._build_poses(body, poses, world_to_dataset)

        vertices = canonical_vertices(body, poses.betas)
        self.renderer: Literal["triton", "torch"] = choose_renderer(config.renderer, self.kwargs.get("device", "cpu"))
        search = SearchSettings(implementation=self.renderer)
        self.deformer = FastSnarfDeformer(
            vertices, body.skinning_weights, config.skinning_resolution, search, config.skinning
        )
        center, half_edge = canonical_box(vertices)
        grid = HashGrid(config.hash_levels, config.log2_hash_entries)
        self.field = CanonicalField(center, half_edge, grid, config.hidden_width, config.implementation)
        self.canonical_occupancy = CanonicalOccupancy(self.deformer.box, self.renderer)
        if config.occupancy_start == "body":
            self.canonical_occupancy.start_near(vertices, config.body_reach)
        lower, upper = posed_bounds(vertices, body.skinning_weights, self._train_bones().detach())
        edge = cell_edge(self.canonical_occupancy)
        self.union_grid = PoseUnionGrid(lower - _UNION_MARGIN, upper + _UNION_MARGIN, edge, self.renderer)
        self.unseen_prior: UnseenPrior | None = None
        if config.unseen_loss_mult:
            self.unseen_prior = UnseenPrior(vertices, body.faces, self.deformer.box)
        self.render_buffers = RenderBuffers()
        self.image_buffers = ImageBuffers(config.image_megabytes)
        self.recorded_images = RecordedImages(self.image_buffers)
        self.may_record = True

        self.density_noise = 1.0
        self.step = 0
        self._current: RenderPose | None = None
        self.image_metrics_log: list[dict[str, float]] | None = None
        self.opening_view = OpeningView()
        self.viewer_controls = ViewerControls(
            body,
            poses,
            world_to_dataset,
            self.train_pose_ids,
            run_motion=None if self.motion is None else Clip(self.motion, self._motion_fps),
            posed_body=self.image_poses.posed_body,
        )
        self.image_poses.banks["viewer_controls"] = self.viewer_controls
        self.register_load_state_dict_post_hook(lambda module, keys: self._share_body())
        if self.unseen_prior is not None:
            prior = self.unseen_prior
            prior.register_load_state_dict_post_hook(lambda module, keys: prior.prepare())

    @property
    def body(self) -> BodyModel:
        """The person's body, on the CPU, its joints those that the training poses turn about."""
        (body,) = self._given_body
        if self.pose_refinement is None:
            return body
        given_joints = body.rest(self.kwargs["metadata"]["poses"].betas)[1]
        return body.with_joints_moved(self.pose_refinement.joints.cpu() - given_joints)

    def _share_body(self) -> None:
        """Let all poses turn about the joints that the training poses turn about."""
        body = self.body
        for bank in (self.poses, self.rest_pose, self.motion):
            if bank is not None:
                bank.set_body(body)
        self.viewer_controls.set_body(body)
        self.image_poses.forget()

    def _build_poses(self, body: BodyModel, poses: PoseSequence, world_to_dataset: Float[Tensor, "4 4"]) -> None:
        """The poses there are, their corrections, and which of them images show."""
        config, first = self.config, self.train_pose_ids[0]
        self.poses = PoseBank(body, poses, world_to_dataset)
        self.pose_refinement: PoseRefinement | None = None
        if config.refine_poses:
            train = poses.rows(slice(len(self.train_pose_ids)))
            times = self.kwargs["metadata"]["train_frame_numbers"].float()
            coordinates = surface_coordinates(body, train)
            self.pose_refinement = PoseRefinement(
                body, train, times, world_to_dataset, coordinates, knot_spacing=config.pose_knot_spacing
            )
        self.rest_pose = PoseBank(body, rest_sequence(poses, first), world_to_dataset)
        self.motion: PoseBank | None = None
        self._motion_fps = DEFAULT_FPS
        if config.motion is not None:
            stand, up = poses.rows(slice(first, first + 1)), world_to_dataset[:3, 2]
            motion, self._motion_fps = load_run_motion(config.motion, config.motion_options, stand, up)
            self.motion = PoseBank(body, motion, world_to_dataset)
        self.image_poses = ImagePoses(
            self.poses, self.rest_pose, self.motion, self.train_pose_ids, self.pose_refinement, self.prepare_pose
        )

    def _train_bones(self) -> Float[Tensor, "poses 24 4 4"]:
        if self.pose_refinement is not None:
            return self.pose_refinement.bone_transforms
        # They are the first ones; a list of rows would be copied to the GPU.
        return self.poses.bone_transforms[: len(self.train_pose_ids)]

    # Training

    def align_poses(self, masks: UInt8[Tensor, "frames height width"], cameras: Cameras) -> None:
        """Correct the training poses, and where the joints are, so that the body fills the person's silhouettes.

        Args:
            masks: Opacity of the person in the training frames.
            cameras: Of these frames.
        """
        refinement, metadata = self.pose_refinement, self.kwargs["metadata"]
        if refinement is None or not self.config.align_poses:
            return
        assert cameras.metadata is not None
        rows = cameras.metadata["pose_id"].flatten().to(self.device)
        start = monotonic()
        CONSOLE.print(f"Aligning the poses of {len(rows)} training frames to their silhouettes in {ROUNDS} rounds")
        with shown_progress("Aligning the poses") as progress:
            body, betas = deepcopy(self._given_body[0]).to(self.device), metadata["poses"].betas.to(self.device)
            alignment = align_to_silhouettes(
                body,
                betas,
                refinement.given_rotations[rows],
                refinement.given_transl[rows],
                metadata["train_frame_numbers"].float().to(self.device)[rows],
                refinement.basis[rows],
                pinhole_silhouettes(masks, cameras.to(self.device), metadata["world_to_dataset"]),
                progress,
            )
        CONSOLE.print(
            f"Aligned the poses in {monotonic() - start:.0f} s; the given rotations seem to be off by "
            f"{math.degrees(alignment.spread):.2g} degrees an axis"
        )
        joints = body.rest(betas)[1]
        if self.config.move_joints:
            joints = joints + alignment.joint_offsets
        remainders = torch.zeros_like(refinement.start)
        remainders[rows] = alignment.remainders
        refinement.start_from(alignment.knots, remainders, alignment.spread, joints)
        self._share_body()

    def observe(self, cameras: Cameras) -> None:
        """Find out which parts of the person the training views show.

        Args:
            cameras: Of the training frames.
        """
        if self.unseen_prior is None or self.unseen_prior.has_observed:
            return
        assert cameras.metadata is not None
        rows, last = cameras.metadata["pose_id"].flatten().tolist(), cameras.camera_to_worlds.new_tensor([0, 0, 0, 1.0])
        bank = self.poses if self.pose_refinement is None else self.pose_refinement
        bodies = [bank[row] for row in rows]
        to_world = torch.cat([cameras.camera_to_worlds, last.expand(len(rows), 1, 4)], dim=1)
        to_root = torch.stack([body.world_to_root for body in bodies]) @ to_world
        focal, center = torch.cat([cameras.fx, cameras.fy], dim=1), torch.cat([cameras.cx, cameras.cy], dim=1)
        views = Views(to_root, focal, center, int(cameras.width[0]), int(cameras.height[0]))
        prior, weights = self.unseen_prior, self._given_body[0].skinning_weights.to(self.device)
        bones = torch.stack([body.bone_transforms for body in bodies])
        prior.observe(view_coverage(prior.vertices, prior.normals, weights, bones, views))

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
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], lambda step: self.image_poses.forget()),
        ]

    def update_to_step(self, step: int) -> None:
        """Set what depends on the step; called before each step and when a checkpoint is loaded."""
        self.step = step
        self.density_noise = 1.0 if step < self.config.density_noise_steps else 0.0

    @property
    def supports_cuda_graphs(self) -> bool:
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
        if self.unseen_prior is not None and step % (5 * self.config.occupancy_interval) == 0:
            self.unseen_prior.refresh(self.field, with_color=step >= self.config.unseen_color_start)

    # Rendering

    def prepare_pose(self, body: PosedBody) -> RenderPose:
        """Skinning and occupied cells of a pose."""
        bones = body.bone_transforms
        cells = pose_cells(self.canonical_occupancy, self.deformer, bones, self.renderer)
        return RenderPose(body, self.deformer.pose(bones), cells)

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """Render a camera's image; its pose is resolved once, not per chunk of rays."""
        viewer = self.viewer_controls if self.viewer_controls.asks(camera) else None
        bank, row = self.image_poses.resolve(camera.times, camera.metadata)
        if viewer is not None:
            viewer.mend(camera)
            bank, row = viewer.choose(bank, row)
        device = camera.device
        pinhole = pinhole_camera(camera) if self.renderer == "triton" else None
        if pinhole is not None:
            pinhole = pinhole.to(self.device)
        try:  # the viewer interrupts renderings by exceptions
            if pinhole is not None and self.supports_cuda_graphs and not self.training:
                body = self.image_poses.kept_body(bank, row)
                render = partial(self._render_recorded, pinhole, body)
            else:
                self._current = pose = self.image_poses.prepared(bank, row)
                body = pose.body
                if self.renderer == "triton":
                    render = partial(self._render_image, pinhole or camera, obb_box, pose)
                else:
                    render = partial(super().get_outputs_for_camera, camera, obb_box)
            if viewer is not None:
                # The grids change together, whenever the occupancy is refreshed.
                key = (bank, row, self.union_grid.binaries._version)
                shown = ShownPose(key, body, lambda: self.image_poses.prepared(bank, row).cells, self.union_grid.cells)
                render = partial(viewer.render, render, shown)
            return {name: output.to(device) for name, output in render().items()}
        finally:
            self._current = None

    def _render_recorded(self, camera: PinholeCamera, body: PosedBody) -> dict[str, Tensor]:
        """The image of a camera, as a recording that prepares the pose itself."""
        avatar = Avatar(self.deformer, self.canonical_occupancy, self.field)
        rules, background = image_rules(self.config.step_size), image_background(self.device)
        return self.recorded_images.render(camera, body, avatar, rules, background)

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
            images = self.image_poses
            pose = self._current or images.prepared(*images.resolve(ray_bundle.times, ray_bundle.metadata))
            return self.render(ray_bundle, pose)
        pose_id, refinement = ray_bundle.metadata["pose_id"].flatten()[0], self.pose_refinement
        with torch.set_grad_enabled(self.step >= self.config.pose_start):
            body = self.poses[pose_id] if refinement is None else refinement[pose_id]
        pose = RenderPose(body, self.deformer.pose(body.bone_transforms), self.union_grid.cells)
        outputs = self.render(ray_bundle, pose)
        points = self.canonical_occupancy.random_points(len(ray_bundle))
        outputs["space_opacity"] = opacity(self.field.density(points)[0])
        if self.unseen_prior is not None:
            outputs["unseen"] = self.unseen_prior.loss(self.field, len(ray_bundle))
        outputs["space_is_free"] = ~self.canonical_occupancy.occupied(points)
        if refinement is not None:
            # From the first step on, if without effect: torch's schedulers expect their optimizer to have stepped.
            corrects = float(self.step >= self.config.pose_start)
            outputs["pose_prior"] = corrects * refinement.prior(
                pose_id, self.config.pose_prior_mult, self.config.pose_smoothness_mult
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
        step = self.config.step_size
        rules = SampleRules(step, stratified=True, noise=self.density_noise) if self.training else image_rules(step)
        if self.renderer == "torch":
            pixels = render_packed(rays, pose, avatar, rules)
            num_samples = torch.full((1,), len(pixels.weights), device=self.device)
        elif self.training or torch.is_grad_enabled():
            pixels, num_samples = self.render_buffers.render(rays, pose, avatar, rules)
        else:
            pixels, num_samples = self.image_buffers.render(rays, pose, avatar, rules)

        background = self._background if self.training else image_background(self.device)
        outputs = pixel_outputs(pixels, rays.origins_in_root_space(pose.body), background)
        if not self.training:
            return outputs | {"rgb": outputs["rgb"].clamp(0, 1)}
        return outputs | {"sample_weights": pixels.weights, "num_samples": num_samples}

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """The person's own colour and opacity [..., 4], of outputs on white; white where there is nothing.

        nerfstudio calls this for `ns-render --rendered-output-names rgba`; its own would divide colours on white by
        opacity.
        """
        return unblend_white(outputs[output_name], outputs[output_name.replace("rgb", "accumulation")])

    # Losses and metrics

    @property
    def _background(self) -> float | None:
        """Colour on which rendered and true pixels are compared; None for random ones."""
        return TRAINING_BACKGROUNDS[self.config.background_color] if self.training else 1.0

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """PSNR of the batch, and samples per ray."""
        image = batch["image"].to(self.device)
        truth = blend(image, self._background or 0.0)
        metrics = {"psnr": -10 * torch.log10(torch.mean((outputs["rgb"].detach() - truth) ** 2))}
        if "sample_weights" in outputs:
            metrics["samples_per_ray"] = outputs["num_samples"][0] / len(image)
        return metrics

    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Loss terms with their weights (InstantAvatar section 3.4)."""
        config, accumulation = self.config, outputs["accumulation"]
        image = batch["image"].to(self.device)
        rgb, truth = on_same_background(outputs["rgb"], accumulation, image, self._background)
        loss_dict = {
            "rgb_loss": losses.rgb_loss(rgb, truth),
            "mask_loss": config.mask_loss_mult * losses.mask_loss(accumulation, image[:, 3:]),
        }
        if not self.training:
            return loss_dict
        surface = losses.hard_surface_loss(accumulation)
        surface = surface + losses.hard_surface_loss(outputs["sample_weights"], outputs["num_samples"])
        loss_dict["hard_surface_loss"] = config.hard_surface_loss_mult * surface
        outside = losses.opacity_loss(outputs["space_opacity"], outputs["space_is_free"])
        loss_dict["occupancy_loss"] = config.occupancy_loss_mult * outside
        if "unseen" in outputs:
            loss_dict["unseen_loss"] = config.unseen_loss_mult * outputs["unseen"]
        if "pose_prior" in outputs:
            loss_dict["pose_prior"] = outputs["pose_prior"]
        if self.step < config.empty_steps:
            loss_dict["empty_loss"] = config.empty_loss_mult * losses.opacity_loss(outputs["space_opacity"])
        size: int | None = batch.get("patch_size")
        if config.lpips_loss_mult:
            network = lpips_vgg(config.vgg_backbone, str(self.device))
            loss_dict["lpips_loss"] = config.lpips_loss_mult * patch_lpips_loss(rgb, truth, size, network)
        if config.depth_loss_mult:
            loss_dict["depth_loss"] = config.depth_loss_mult * patch_depth_loss(outputs["depth"], accumulation, size)
        return loss_dict

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics of a whole image on white, and the images to look at."""
        metrics, images = compare_images(outputs, batch["image"].to(self.device), self.config.lpips_backbone)
        if self.image_metrics_log is not None:
            self.image_metrics_log.append(metrics)
        return dict(metrics), images

    @contextmanager
    def logging_image_metrics(self) -> Iterator[list[dict[str, float]]]:
        """Collect the metrics of every image that is evaluated meanwhile."""
        self.image_metrics_log = []
        try:
            yield self.image_metrics_log
        finally:
            self.image_metrics_log = None
