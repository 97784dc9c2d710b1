"""InstantAvatar (arXiv 2212.10550) as a model of nerfstudio: `PoseProvider` has its poses, `Renderer` its pixels."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.models.base_model import Model
from torch import Tensor, nn

from instantavatar_ns.backgrounds import TRAINING_BACKGROUNDS, blend, image_background, unblend_white
from instantavatar_ns.correction.refinement import PoseRefinement
from instantavatar_ns.data.subject import subject_of
from instantavatar_ns.losses import loss_terms
from instantavatar_ns.metrics import compare_images
from instantavatar_ns.model_config import InstantAvatarModelConfig
from instantavatar_ns.motion.run_motion import load_run_motion
from instantavatar_ns.rendering.avatar import OccupancyRefresh, make_avatar
from instantavatar_ns.rendering.inputs import Rays, SampleRules
from instantavatar_ns.rendering.poses import PoseProvider
from instantavatar_ns.rendering.renderer import Renderer
from instantavatar_ns.unseen.prior import UnseenPrior
from instantavatar_ns.viewer.controls import ViewerControls
from instantavatar_ns.viewer.opening_view import OpeningView


class InstantAvatarModel(Model):
    """See the module's docstring. `metadata` is what this package's data parsers hand over, a `Subject`.

    Attributes:
        subject: The person, and the poses that are known.
        poses: Which pose a camera or a training step sees.
        renderer: Renders rays and images.
        pose_refinement: Corrections of the training poses; None where they are not corrected.
        deformer: Finds canonical correspondences of posed points.
        canonical_occupancy: Where the canonical person is.
        field: Density and colour of the canonical person.
        union_grid: Where training takes samples: what is occupied in any training pose.
        unseen: What no training view shows, and a prior of it.
    """

    config: InstantAvatarModelConfig

    def populate_modules(self) -> None:
        """Build the person from the body model and the poses of the data set."""
        super().populate_modules()
        config, device = self.config, self.kwargs.get("device", "cpu")
        self.subject = subject = subject_of(self.kwargs["metadata"])
        body = subject.load_body()
        self.pose_refinement: PoseRefinement | None = None
        if config.refine_poses:
            self.pose_refinement = PoseRefinement.of_training_frames(subject, body, config.pose_knot_spacing)
        motion = config.motion and load_run_motion(config.motion, config.motion_options, subject.stand, subject.up)
        self.poses = PoseProvider(subject, body, self.pose_refinement, motion, device)
        sizes = config.avatar_sizes(device)
        bones = self.poses.training_bones().detach().cpu()  # where the body is, until nerfstudio moves the model
        avatar, self.union_grid = make_avatar(body, subject.poses.betas, bones, sizes)
        self.deformer, self.canonical_occupancy, self.field = avatar
        self.renderer = Renderer(
            avatar, sizes.renderer, config.step_size, megabytes=config.image_megabytes, cuda_graphs=config.cuda_graphs
        )
        self._cells = OccupancyRefresh(self.union_grid, self.poses.training_bones, device)
        self.unseen = UnseenPrior.of_body(body, subject.poses.betas, self.deformer.box)
        self.step = 0
        self.opening_view = OpeningView()
        self.viewer_controls = ViewerControls(self.poses, self.unseen.shown)
        # Whoever loads a state, a checkpoint or another process's, has all poses about the joints that came with it.
        self.register_load_state_dict_post_hook(lambda module, keys: self.take_joints())

    def take_joints(self) -> None:
        """Turn all poses about the joints that the training poses turn about, once these have been set."""
        self.poses.take_joints()
        self.forget_images()

    def forget_images(self) -> None:
        """Make anew what images show: field, occupancy or corrections have changed."""
        self.poses.forget()
        self.renderer.forget()

    # Training

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
        before, after = TrainingCallbackLocation.BEFORE_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN_ITERATION
        interval = self.config.occupancy_interval
        return [
            TrainingCallback([before], self.update_to_step),
            TrainingCallback([before], self.refresh_occupancy, update_every_num_iters=interval),
            TrainingCallback([after], lambda step: self.forget_images()),
        ]

    def update_to_step(self, step: int) -> None:
        """Set what depends on the step; called before each step and when a checkpoint is loaded."""
        self.step = step

    @property
    def density_noise(self) -> float:
        """Standard deviation of noise on the raw density."""
        return 1.0 if self.step < self.config.density_noise_steps else 0.0

    @property
    def _with_pictures(self) -> bool:
        return self.unseen.pictures is not None and self.step >= self.config.unseen_color_start

    def step_settings(self, num_rays: int) -> Hashable:
        """Settings of a step besides its tensors: while they stay the same, so do its kernels."""
        config, step = self.config, self.step
        schedule = (step >= config.pose_start, step < config.empty_steps, self.density_noise, self._with_pictures)
        return (*schedule, self.renderer.capacity(num_rays))

    @torch.no_grad()
    def refresh_occupancy(self, step: int) -> None:
        """Look where the field is dense, and skin that into all training poses."""
        self.renderer.check_capacity()
        has_learned = step >= self.config.occupancy_warmup
        if not has_learned and self.config.occupancy_start == "everywhere":
            return
        self._cells.refresh(self.renderer.avatar, has_learned, captures=self.renderer.supports_cuda_graphs)
        if self.config.unseen_loss_mult and step % (5 * self.config.occupancy_interval) == 0:
            self.unseen.refresh(self.field, with_color=step >= self.config.unseen_color_start)
        self.forget_images()

    # Rendering

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Render rays that all see one pose, that of the first ray."""
        rays = Rays(ray_bundle.origins, ray_bundle.directions)
        if self.training:
            return self._training_outputs(rays, ray_bundle.metadata["pose_id"].flatten()[0])
        pose = self.renderer.prepared(self.poses.seen_by(ray_bundle.times, ray_bundle.metadata))
        return self.renderer.render_rays(rays, pose, background=image_background(self.device))

    def _training_outputs(self, rays: Rays, pose_id: Tensor) -> dict[str, Tensor]:
        """Outputs of a training step, with the opacity of random points, and the prior of the pose."""
        corrects = self.step >= self.config.pose_start
        with torch.set_grad_enabled(corrects):
            body = self.poses.training_frame(pose_id)
        pose = self.renderer.prepare(body, self.union_grid.cells)
        rules = SampleRules(self.config.step_size, stratified=True, noise=self.density_noise)
        space, is_occupied = self.canonical_occupancy.random_points(len(rays.directions))
        outputs = self.renderer.render_rays(rays, pose, rules, self._background, space)
        outputs["space_opacity"] = self.canonical_occupancy.opacity(outputs.pop("extra_density"))
        outputs["space_is_free"] = ~is_occupied
        if self.config.unseen_loss_mult and (self.unseen.active or self._with_pictures):
            outputs["unseen"] = self.unseen.loss(self.field, len(rays.directions), self._with_pictures)
        if self.pose_refinement is not None:
            # From the first step on, if without effect: torch's schedulers expect their optimizer to have stepped.
            given, smoothness = self.config.pose_prior_mult, self.config.pose_smoothness_mult
            outputs["pose_prior"] = float(corrects) * self.pose_refinement.prior(pose_id, given, smoothness)
        return outputs

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Tensor]:
        """Render a camera's image; outputs lie on the camera's device."""
        viewer = self.viewer_controls if self.viewer_controls.asks(camera) else None
        if viewer is not None:
            viewer.give_size(camera)
        body = self.poses.seen_by(camera.times, camera.metadata, viewer and viewer.shown_pose)

        def render() -> dict[str, Tensor]:
            return self.renderer.render_image(
                camera,
                body,
                image_background(self.device),  # which the viewer may have set for this image
                rays_per_chunk=self.config.eval_num_rays_per_chunk,
                obb_box=obb_box,
                check=self.viewer_controls.check_outdated,
            )

        if viewer is None:
            outputs = render()
        else:
            outputs = viewer.render(render, body, lambda: self.renderer.prepared(body).cells, self.union_grid.cells)
        return {name: output.to(camera.device) for name, output in outputs.items()}

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Tensor:
        """Colour and opacity [..., 4] of outputs on white; nerfstudio would divide colours on white by opacity."""
        return unblend_white(outputs[output_name], outputs[output_name.replace("rgb", "accumulation")])

    # Losses and metrics

    @property
    def _background(self) -> float | None:
        """Colour on which rendered and true pixels are compared; None for random ones."""
        return TRAINING_BACKGROUNDS[self.config.background_color] if self.training else 1.0

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """PSNR of the batch, and samples per ray."""
        truth = blend(batch["image"].to(self.device), self._background or 0.0)
        metrics = {"psnr": -10 * torch.log10((outputs["rgb"].detach() - truth).square().mean())}
        if "sample_weights" in outputs:
            metrics["samples_per_ray"] = outputs["num_samples"][0] / len(truth)
        return metrics

    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Loss terms with their weights (InstantAvatar section 3.4)."""
        return loss_terms(outputs, batch, self.config, self._background, self.step if self.training else None)

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics of a whole image on white, and the images to look at."""
        return compare_images(outputs, batch["image"].to(self.device), self.config.lpips_backbone)
