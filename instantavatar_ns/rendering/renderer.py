"""The renderer: rays and images of an avatar, by whichever of three ways serves them.

Packed tensors (`packed`, PyTorch and nerfacc) serve every device. With Triton's kernels, training steps are rendered
in buffers of fixed capacity (`step_buffers`), and images in buffers that hold all of them (`image_buffers`), as CUDA
graphs where their kernels can be captured (`image_graphs`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from torch import Tensor

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.occupancy.cells import OccupiedCells
from instantavatar_ns.occupancy.posed_grid import pose_cells
from instantavatar_ns.rendering.image_buffers import ImageBuffers
from instantavatar_ns.rendering.image_graphs import ImageGraphs
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules, image_rules
from instantavatar_ns.rendering.outputs import pixel_outputs
from instantavatar_ns.rendering.packed import render_packed
from instantavatar_ns.rendering.step_buffers import StepBuffers
from instantavatar_ns.utils.pinhole_rays import PinholeCamera, pinhole_camera

_KEPT = 64


class Renderer:
    """Renders an avatar; owns the buffers, the CUDA graphs of images, and what was prepared of their poses.

    Args:
        avatar: The person; its parts may be moved and trained meanwhile.
        implementation: What takes samples, searches roots and composites.
        step: Distance between samples along a ray, metres.
        megabytes: Memory that the buffers of an image may take.
        cuda_graphs: Capture kernels, of images and by others of training steps, where they can be captured.
    """

    def __init__(
        self,
        avatar: Avatar,
        implementation: Literal["triton", "torch"],
        step: float,
        *,
        megabytes: float,
        cuda_graphs: bool,
    ) -> None:
        self.avatar, self.step, self.cuda_graphs, self._megabytes = avatar, step, cuda_graphs, megabytes
        self.implementation: Literal["triton", "torch"] = implementation
        self._steps = StepBuffers()
        self._images = ImageBuffers(megabytes)
        self._graphs = ImageGraphs(self._images)
        self._prepared: OrderedDict[PosedBody, RenderPose] = OrderedDict()

    @property
    def device(self) -> torch.device:
        """Device of the avatar."""
        return self.avatar.occupancy.binaries.device

    @property
    def supports_cuda_graphs(self) -> bool:
        """Return True if steps and images may and can be captured: nothing between their kernels blocks the host."""
        by_kernels = self.implementation == "triton" and self.avatar.field.has_kernels
        return self.cuda_graphs and by_kernels and self.device.type == "cuda"

    def with_field(self, field: Any) -> Renderer:
        """Return a renderer of the same person with other colours or densities, for images.

        Args:
            field: Called as a `CanonicalField` is; by no kernels if its `has_kernels` says so.
        """
        avatar = self.avatar._replace(field=field)
        return Renderer(avatar, self.implementation, self.step, megabytes=self._megabytes, cuda_graphs=False)

    # Poses

    def prepare(self, body: PosedBody, cells: OccupiedCells | None = None) -> RenderPose:
        """Prepare a pose; differentiable with respect to its bone transforms.

        Args:
            body: The pose.
            cells: Where to take samples, by default in its own occupied cells.
        """
        deformer, occupancy, _ = self.avatar
        if cells is None:
            cells = pose_cells(occupancy, deformer, body.bone_transforms, self.implementation)
        return RenderPose(body, deformer.pose(body.bone_transforms, occupancy.binaries[0]), cells)

    @torch.no_grad()
    def prepared(self, body: PosedBody) -> RenderPose:
        """Return an image's pose, prepared once until `forget`, while it is among the last that were asked for."""
        if body not in self._prepared:
            self._prepared[body] = self.prepare(body)
            if len(self._prepared) > _KEPT:
                self._prepared.popitem(last=False)
        self._prepared.move_to_end(body)
        return self._prepared[body]

    def forget(self) -> None:
        """Prepare all poses of images anew: what is occupied has changed."""
        self._prepared.clear()

    # Rays

    def render_rays(
        self,
        rays: Rays,
        pose: RenderPose,
        rules: SampleRules | None = None,
        background: Float[Tensor, "3"] | float | None = None,
        extra: Float[Tensor, "extra 3"] | None = None,
    ) -> dict[str, Tensor]:
        """Render rays that all see one pose; differentiable with respect to the field and the pose.

        Args:
            rays: The rays.
            pose: The pose.
            rules: Where samples lie, and which count; by default those of images.
            background: Colour behind the person; None leaves colours as they are in front of black.
            extra: Canonical points, metres, whose density is wanted too, without noise; of stratified samples only.

        Returns:
            `rgb` [rays, 3], `accumulation` [rays, 1], `depth` [rays, 1] (metres along the ray, the far side of the
            person where nothing is hit), and, where samples are stratified as in training, `sample_weights` [samples],
            `num_samples` [1] and, of `extra`, `extra_density` [extra], 1/metres.
        """
        density = None
        training = rules is not None and rules.stratified
        rules = rules or image_rules(self.step)
        if self.implementation == "torch":
            pixels = render_packed(rays, pose, self.avatar, rules)
            num_samples = torch.full((1,), len(pixels.weights), device=rays.directions.device)
            if extra is not None:
                density = self.avatar.field.density(extra)[0]
        elif training or torch.is_grad_enabled():
            pixels, num_samples, density = self._steps.render(rays, pose, self.avatar, rules, extra)
        else:
            pixels, num_samples = self._images.render(rays, pose, self.avatar, rules)
        outputs = pixel_outputs(pixels, rays.origins_in_root_space(pose.body), background)
        if training:
            outputs |= {"sample_weights": pixels.weights, "num_samples": num_samples}
            return outputs if extra is None or density is None else outputs | {"extra_density": density}
        return outputs | {"rgb": outputs["rgb"].clamp(0, 1)}

    def capacity(self, num_rays: int) -> Hashable:
        """Return the sizes of the buffers for so many rays that are differentiated; kernels depend on them."""
        return self._steps.sizes(num_rays)

    def check_capacity(self) -> None:
        """Fit the buffers of `render_rays` to what was needed; call it now and then while it is used.

        On a GPU it does not block the host. What did not fit was left out, which is said.
        """
        self._steps.check()

    # Images

    @torch.no_grad()
    def render_image(
        self,
        camera: Cameras,
        body: PosedBody,
        background: Float[Tensor, "3"],
        *,
        rays_per_chunk: int = 1 << 16,
        obb_box: OrientedBox | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, Tensor]:
        """Render a camera's image.

        Args:
            camera: One camera, on any device.
            body: The pose that it sees.
            background: Colour behind the person, 0 to 1.
            rays_per_chunk: Rays that PyTorch renders at once.
            obb_box: Box that nerfstudio's rays are cut by; none cuts this package's.
            check: Called between chunks; may end the image by an exception.

        Returns:
            `rgb` [height, width, 3], `accumulation` and `depth` [height, width, 1], on the avatar's device.
        """
        if self.implementation == "torch":
            return self._render_chunks(camera, body, background, rays_per_chunk, obb_box, check)
        pinhole = pinhole_camera(camera)
        if pinhole is None:
            rays, shape = _camera_rays(camera.to(self.device), obb_box)
        elif self.supports_cuda_graphs:
            rules = image_rules(self.step)
            return self._graphs.render(pinhole.to(self.device), body, self.avatar, rules, background)
        else:
            rays, shape = _pinhole_rays(pinhole.to(self.device))
        outputs = self.render_rays(rays, self.prepared(body), background=background)
        return {name: output.view(*shape, -1) for name, output in outputs.items()}

    def _render_chunks(
        self,
        camera: Cameras,
        body: PosedBody,
        background: Float[Tensor, "3"],
        rays_per_chunk: int,
        obb_box: OrientedBox | None,
        check: Callable[[], None],
    ) -> dict[str, Tensor]:
        """Render an image part by part, as nerfstudio does, to save memory."""
        pose, (rays, shape) = self.prepared(body), _camera_rays(camera, obb_box)
        chunks = []
        for origins, directions in zip(*(part.split(rays_per_chunk) for part in rays), strict=True):
            check()
            chunk = Rays(origins.to(self.device), directions.to(self.device))
            chunks.append(self.render_rays(chunk, pose, background=background))
        return {name: torch.cat([chunk[name] for chunk in chunks]).view(*shape, -1) for name in chunks[0]}


def _pinhole_rays(camera: PinholeCamera) -> tuple[Rays, tuple[int, int]]:
    """Rays of an image, and its height and width."""
    origins, directions = camera.rays()
    return Rays(origins, directions.view(-1, 3)), (camera.height, camera.width)


def _camera_rays(camera: Cameras, obb_box: OrientedBox | None) -> tuple[Rays, tuple[int, int]]:
    """Rays of an image by nerfstudio's generator, which serves cameras of any kind, and its height and width."""
    bundle = camera.generate_rays(camera_indices=0, keep_shape=True, obb_box=obb_box)
    height, width = bundle.directions.shape[:2]
    return Rays(bundle.origins.reshape(-1, 3), bundle.directions.reshape(-1, 3)), (height, width)
