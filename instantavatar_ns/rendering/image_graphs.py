"""Images of pinhole cameras as CUDA graphs: some hundred launches become one.

Preparing the pose, the rays, the rounds and what is made of their sums belong to a graph. What differs between two
images of the same size lies in one tensor that is filled before a replay: the pose, the camera and the background.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.occupancy.posed_grid import pose_cells
from instantavatar_ns.rendering.image_buffers import ImageBuffers, ImageLayout, render_parts
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules
from instantavatar_ns.rendering.outputs import pixel_outputs
from instantavatar_ns.utils.cuda_graph import CudaGraph, side_by_side
from instantavatar_ns.utils.pinhole_rays import PinholeCamera

# Sizes of images that are remembered, each graph with the memory of its buffers.
_KEPT = 3


class ImageInputs(NamedTuple):
    """Tensors on which an image depends; on the device, in `ImageGraphs` always at the same addresses.

    Attributes:
        bone_transforms: From the canonical pose to root space.
        world_to_root: From nerfstudio's world to root space.
        camera_to_world: Pose of the camera.
        intrinsics: fx, fy, cx, cy, pixels.
        background: Colour behind the person, 0 to 1.
    """

    bone_transforms: Float[Tensor, "joints 4 4"]
    world_to_root: Float[Tensor, "4 4"]
    camera_to_world: Float[Tensor, "3 4"]
    intrinsics: Float[Tensor, "4"]
    background: Float[Tensor, "3"]


class Image(NamedTuple):
    """An image, and how many samples and roots each round of each part has, or would have in buffers that hold all.

    Attributes:
        outputs: As of `pixel_outputs`, colours between 0 and 1.
        counts: Numbers of samples and roots.
    """

    outputs: dict[str, Tensor]
    counts: Int32[Tensor, "parts rounds 2"]


class ImageGraphs:
    """Renders images whose kernels are captured when two of the same size in succession have the same.

    An image with settings of its own (the first of its size, or buffers have grown) is rendered kernel by kernel. So
    are those that are rendered again because their buffers did not hold all, and those in parts, beside whose work
    launches hardly count. Several threads may ask for images.

    Args:
        buffers: Sizes of the buffers.
    """

    def __init__(self, buffers: ImageBuffers) -> None:
        self._buffers = buffers
        self._storage = torch.empty(0)
        self._inputs: ImageInputs | None = None
        # By width and height, the last one used at the end: settings, and what was captured with them.
        self._sizes: OrderedDict[tuple[int, int], tuple[Hashable, CudaGraph[Image] | None]] = OrderedDict()
        self._lock = threading.Lock()

    @torch.no_grad()
    def render(
        self, camera: PinholeCamera, body: PosedBody, avatar: Avatar, rules: SampleRules, background: Float[Tensor, "3"]
    ) -> dict[str, Tensor]:
        """An image: `rgb` [height, width, 3], `accumulation` and `depth` [height, width, 1]; new tensors.

        Args:
            camera: The camera; all tensors lie on the device of the avatar.
            body: The pose.
            avatar: The person; what it consists of may change its values between two images, not its place in memory,
                or else images are captured anew.
            rules: Where samples lie, and which count.
            background: Colour behind the person, 0 to 1.
        """
        size = camera.width, camera.height
        given = ImageInputs(
            body.bone_transforms, body.world_to_root, camera.camera_to_world, camera.intrinsics, background
        )
        with _undisturbed(), self._lock:
            inputs = self._filled(given)
            outputs = self._buffers.fit(
                camera.width * camera.height, partial(self._image, inputs, size, avatar, rules)
            ).outputs
        return {name: value.view(camera.height, camera.width, -1) for name, value in outputs.items()}

    def _filled(self, given: ImageInputs) -> ImageInputs:
        """The same values where graphs read them, by one launch."""
        device = given.bone_transforms.device
        if self._inputs is None or self._storage.device != device:
            sizes = [part.numel() for part in given]
            self._storage = torch.empty(sum(sizes), device=device)
            places = self._storage.split(sizes)
            self._inputs = ImageInputs(*(place.view(part.shape) for place, part in zip(places, given, strict=True)))
            self._sizes.clear()
        torch.cat([part.detach().reshape(-1) for part in given], out=self._storage)
        return self._inputs

    def _image(
        self, inputs: ImageInputs, size: tuple[int, int], avatar: Avatar, rules: SampleRules, layout: ImageLayout
    ) -> Image:
        settings = (layout, rules, _places(avatar))
        function = partial(draw_image, inputs, size, avatar, rules, layout)
        last, graph = self._sizes.pop(size, (None, None))
        if last != settings or layout.parts > 1:
            graph = None  # gives its memory back before this image takes some
            image = function()
            self._keep(size, settings, None)  # an image that has failed has not loaded all kernels
            return image
        if graph is None:
            graph = CudaGraph(function, inputs.background.device, warm=True)
        self._keep(size, settings, graph)
        outputs, counts = graph()
        # Copies: the next image overwrites these.
        return Image({name: value.clone() for name, value in outputs.items()}, counts)

    def _keep(self, size: tuple[int, int], settings: Hashable, graph: CudaGraph[Image] | None) -> None:
        self._sizes[size] = settings, graph
        if len(self._sizes) > _KEPT:
            self._sizes.popitem(last=False)


def draw_image(
    inputs: ImageInputs, size: tuple[int, int], avatar: Avatar, rules: SampleRules, layout: ImageLayout
) -> Image:
    """Render an image by Triton kernels; blocks no host.

    Args:
        inputs: What it shows.
        size: Width and height, pixels.
        avatar: The person.
        rules: Where samples lie, and which count.
        layout: How it is rendered; what its buffers do not hold is left out.
    """
    bones, camera = inputs.bone_transforms, PinholeCamera(*size, inputs.intrinsics, inputs.camera_to_world)
    body = PosedBody(inputs.world_to_root, bones)
    # Each of these leaves most of the GPU idle.
    cells, skinning, (origin, directions) = side_by_side(
        bones.device,
        lambda: pose_cells(avatar.occupancy, avatar.deformer, bones, "triton"),
        lambda: avatar.deformer.pose(bones, avatar.occupancy.binaries[0]),
        camera.rays,
    )
    pose, rays = RenderPose(body, skinning, cells), Rays(origin, directions.view(-1, 3))
    pixels, counts = render_parts(rays, pose, avatar, rules, layout)
    outputs = pixel_outputs(pixels, rays.origins_in_root_space(body), inputs.background)
    outputs["rgb"] = outputs["rgb"].clamp(0, 1)
    return Image(outputs, counts)


def _places(avatar: Avatar) -> tuple[int, ...]:
    """Addresses of the avatar in memory: a model that has been moved to another device is another one."""
    parts = (*avatar.field.parameters(), avatar.occupancy.binaries, avatar.deformer.skinning_weights)
    return tuple(part.data_ptr() for part in parts)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without nerfstudio's legacy viewer, which ends renderings by exceptions from a tracing function.

    One between two lines of PyTorch's `torch.cuda.graph` would leave the device capturing for ever, and one at the last
    line of a `with` its lock locked.
    """
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)
