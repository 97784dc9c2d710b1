"""Frames, masks and rays for the training device; a step draws its rays there, without a loader on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.pixel_samplers import PixelSampler, PixelSamplerConfig
from nerfstudio.data.utils.dataloaders import FixedIndicesEvalDataloader, RandIndicesEvalDataloader
from nerfstudio.utils import comms
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from tyro.conf import Suppress

from instantavatar_ns.data.cropped_frames import read_frames
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.data.pixel_sampling import (
    PersonPixels,
    PixelClasses,
    PixelLists,
    patches,
    person_pixels,
    pixel_classes,
    proportions,
    random_shares,
)
from instantavatar_ns.kernels.usable import triton_usable
from instantavatar_ns.utils.background import begin
from instantavatar_ns.utils.cuda_graph import CudaGraph
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.options import Advanced
from instantavatar_ns.utils.pinhole_rays import pixel_directions


@dataclass
class AvatarDataManagerConfig(VanillaDataManagerConfig):
    """Configuration of the AvatarDataManager."""

    _target: type = field(default_factory=lambda: AvatarDataManager)
    """Class to instantiate."""
    dataparser: AnnotatedDataParserUnion = field(default_factory=InstantAvatarDataParserConfig)
    """Format of the data."""
    train_num_rays_per_batch: int = 4096
    """Rays of a training step, all of one frame."""
    late_rays_mult: Advanced[int] = 1
    """Multiple of these rays that a step has from `late_rays_start` on, when detail is learned and the noise of few
    rays shows."""
    late_rays_start: Advanced[int] = 1500
    """Step from which on steps have `late_rays_mult` times as many rays."""
    eval_num_rays_per_batch: Advanced[int] = 4096
    """Rays per evaluated batch, all of one frame."""
    sampling: Literal["patches", "pixels"] = "patches"
    """Rays of a step: square patches on the person, or single pixels on it, near the silhouette and anywhere."""
    patch_size: Advanced[int] = 32
    """Edge of a patch, pixels; the number of patches follows from the number of rays."""
    mask_dilation: float = 0.0
    """Distance from the person within which patches are centered too, as part of the image's larger side."""
    surroundings: Advanced[float] = 1 / 8
    """Share of the patches that are centered farther off, where nothing else tells that the space is empty."""
    surroundings_end: Advanced[int] = 1500
    """Step from which on none is: fog is of early steps, and late ones learn detail."""
    pixel_shares: Advanced[tuple[float, float, float]] = (0.6, 0.3, 0.1)
    """Shares of pixels within the person, near the silhouette and anywhere, where sampling is "pixels"."""
    seed: Advanced[int] = 0
    """Seed of the draws: a step's frame and pixels follow from it, the step and the process's rank alone."""
    masks_on_gpu: Suppress[bool] = False
    """Not used: frames lie on the training device if they fit."""
    images_on_gpu: Suppress[bool] = False
    """Not used."""
    train_num_images_to_sample_from: Suppress[int] = -1
    """Not used."""
    train_num_times_to_repeat_images: Suppress[int] = -1
    """Not used."""
    eval_num_images_to_sample_from: Suppress[int] = -1
    """Not used."""
    eval_num_times_to_repeat_images: Suppress[int] = -1
    """Not used."""
    eval_image_indices: Suppress[tuple[int, ...] | None] = (0,)
    """Not used."""
    camera_res_scale_factor: Suppress[float] = 1.0
    """Factor of the size of cameras and images; see also `downscale` of the data formats."""
    pixel_sampler: Suppress[PixelSamplerConfig] = field(default_factory=PixelSamplerConfig)
    """Not used."""


class FrameStore:
    """All frames of a dataset, and rays drawn from them on a device. The frames lie there if they fit.

    Args:
        dataset: The frames.
        device: Where to draw.
        config: How to draw.
        rank: Which of several processes this is; each draws its own frames.

    Raises:
        InputError: See `read_frames`; or `config.surroundings` is not a share, or all.
    """

    def __init__(
        self, dataset: AvatarDataset, device: torch.device | str, config: AvatarDataManagerConfig, rank: int
    ) -> None:
        if not 0 <= config.surroundings < 1:
            message = f"expected a share from 0 to less than 1, found {config.surroundings:g}"
            raise InputError("--pipeline.datamanager.surroundings", message, "Give 0 for patches on the person only")
        self.config, self.rank = config, rank
        device = torch.device(device)
        self.images = images = read_frames(dataset, device)
        self.cameras: Cameras = dataset.cameras.to(device)
        masks = (images.mask(frame).float() / 255 for frame in range(len(images)))
        if config.sampling == "patches":
            lists = person_pixels(masks, device, config.mask_dilation, config.surroundings, images.in_host_memory)
            listed = lists.with_surroundings.pixels.nbytes
        else:
            lists = pixel_classes(masks, device, images.in_host_memory)
            listed = sum(pixels.pixels.nbytes for pixels in lists)
        self.pixels: PersonPixels | PixelClasses = lists
        CONSOLE.print(images.describe(listed))
        self.generator = torch.Generator(device=device)
        self._frame = torch.zeros(1, dtype=torch.long, device=device)
        self._order: tuple[int, list[int]] = -1, []  # of the frames in a pass: its number, and the permutation
        self._draws: dict[tuple[int, bool], CudaGraph[tuple[RayBundle, dict[str, Any]]]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def frame_of_step(self, step: int, world_size: int) -> int:
        """Return the frame of a step: every pass over the frames is a new permutation, shared among the processes.

        Args:
            step: Number of the step.
            world_size: Number of processes.
        """
        turn = step * world_size + self.rank
        epoch, place = divmod(turn, len(self))
        if self._order[0] != epoch:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self.config.seed + epoch))
            self._order = epoch, order.tolist()
        return self._order[1][place]

    def draw_rays(
        self, frame: int, num_rays: int, step: int, with_surroundings: bool = False
    ) -> tuple[RayBundle, dict[str, Any]]:
        """Draw rays of one frame; the same for the same seed, step and rank. Of patches the size comes along.

        On a GPU what is returned is overwritten by the next draw of as many rays: the kernels are captured once and
        replayed, on the same tensors.

        Args:
            frame: Index of the frame.
            num_rays: Number of rays; of patches, that of whole ones within it.
            step: Number of the step.
            with_surroundings: Center a share of the patches beside the person.

        Returns:
            Rays, and what their pixels show: `image` [rays, RGBA], 0 to 1, and `indices` [rays, (frame, row, column)].
        """
        kind = num_rays, with_surroundings
        if kind not in self._draws:
            self._draws[kind] = CudaGraph(partial(self._draw, *kind), self.images.device, self.generator)
        self.generator.manual_seed(hash((self.config.seed, self.rank, step)))
        self._frame.fill_(frame)
        return self._draws[kind]()

    def _draw(self, num_rays: int, with_surroundings: bool) -> tuple[RayBundle, dict[str, Any]]:
        """Draw rays of the frame that `_frame` names, on the device alone."""
        if isinstance(self.pixels, PixelClasses):
            return self._draw_single(self.pixels, num_rays)
        listed = self.pixels.with_surroundings if with_surroundings else self.pixels.person
        draw = self._draw_by_kernel if self._frame.is_cuda and triton_usable() else self._draw_by_torch
        return draw(listed, num_rays)

    def _draw_single(self, classes: PixelClasses, num_rays: int) -> tuple[RayBundle, dict[str, Any]]:
        """Draw single pixels in their shares."""
        *counts, anywhere = proportions(num_rays, self.config.pixel_shares)
        frame, generator = self._frame, self.generator
        drawn = [pixels.draw(frame, count, generator) for pixels, count in zip(classes, counts, strict=True)]
        num_pixels = self.images.height * self.images.width
        drawn.append(torch.randint(num_pixels, (anywhere,), device=frame.device, generator=generator))
        return self._shown(torch.cat(drawn))

    def _draw_by_torch(self, listed: PixelLists, num_rays: int) -> tuple[RayBundle, dict[str, Any]]:
        """Draw patches around some of the listed pixels."""
        size = self.config.patch_size
        centers = listed.draw(self._frame, self._num_patches(num_rays), self.generator)
        rays, batch = self._shown(patches(centers, size, self.images.height, self.images.width))
        return rays, batch | {"patch_size": size}

    def _shown(self, pixels: Int[Tensor, "rays"]) -> tuple[RayBundle, dict[str, Any]]:
        """Rays through pixels, given by their flat indices, and what these show."""
        frame, width = self._frame, self.images.width
        row, column = pixels // width, pixels % width
        indices = torch.stack([frame.expand_as(pixels), row, column], dim=-1)
        return self.rays(frame, pixels), {"image": self.images.at(frame, row, column).float() / 255, "indices": indices}

    def _num_patches(self, num_rays: int) -> int:
        return max(1, num_rays // self.config.patch_size**2)

    def _draw_by_kernel(self, listed: PixelLists, num_rays: int) -> tuple[RayBundle, dict[str, Any]]:
        """Do the same in one launch, besides that of the random numbers, which are the same."""
        # Triton is imported where it is used: it is no part of PyTorch on every platform.
        from instantavatar_ns.data.patch_rays_triton import draw_patches_triton

        frame, cameras, size = self._frame, self.cameras, self.config.patch_size
        shares = random_shares(self._num_patches(num_rays), frame.device, self.generator)
        drawn = draw_patches_triton(frame, listed, self.images, cameras, size, shares)
        bundle = self._bundle(frame, drawn.origins, drawn.directions, drawn.lengths, drawn.areas)
        return bundle, {"image": drawn.image, "indices": drawn.indices, "patch_size": size}

    def rays(self, frame: Int[Tensor, "1"], pixels: Int[Tensor, "rays"]) -> RayBundle:
        """Rays through the middles of a frame's pixels.

        The data parsers make pinhole cameras only.

        Args:
            frame: Index of the frame, on the device.
            pixels: Flat indices of pixels of its image.
        """
        cameras, width = self.cameras, self.images.width
        # Indexed by tensors of one element: one without dimensions would block the host.
        intrinsics = torch.cat([value[frame, 0] for value in (cameras.fx, cameras.fy, cameras.cx, cameras.cy)])
        camera_to_world = cameras.camera_to_worlds[frame][0]
        directions = pixel_directions(pixels % width, pixels // width, intrinsics, camera_to_world)
        length = directions.norm(dim=-1, keepdim=True)
        pixel_area = 1 / (intrinsics[:2].prod() * length**2)  # of a pixel on the unit sphere, roughly
        origins = camera_to_world[:, 3].expand_as(directions).contiguous()
        return self._bundle(frame, origins, directions / length, length, pixel_area)

    def _bundle(
        self,
        frame: Int[Tensor, "1"],
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        lengths: Float[Tensor, "rays 1"],
        pixel_area: Float[Tensor, "rays 1"],
    ) -> RayBundle:
        """Rays of a frame, and what else nerfstudio wants of them."""
        times, metadata = self.cameras.times, self.cameras.metadata
        assert times is not None and metadata is not None
        return RayBundle(
            origins=origins,
            directions=directions,
            pixel_area=pixel_area,
            camera_indices=frame.expand(len(lengths))[:, None],
            times=times[frame].expand_as(lengths),
            metadata={
                "directions_norm": lengths,
                "pose_id": metadata["pose_id"][frame].view(1, 1).expand_as(lengths),
            },
        )


class AvatarDataManager(VanillaDataManager[AvatarDataset]):
    """One frame per step, its rays drawn on the training device.

    Everything that nerfstudio's commands ask of a `VanillaDataManager` is there; only the training and evaluation
    batches are made otherwise.
    """

    config: AvatarDataManagerConfig

    @property
    def data_folder(self) -> Path:
        """The recording's folder."""
        return Path(self.config.data or self.config.dataparser.data)

    @property
    def eval_folder(self) -> Path:
        """Folder of the evaluated frames: the recording's, or that of another motion in it."""
        is_novel = getattr(self.config.dataparser, "eval_set", "heldout") == "novel"
        return self.data_folder / "novel" if is_novel else self.data_folder

    @property
    def train_frames(self) -> FrameStore:
        """The training frames; waits until all are read.

        Raises:
            InputError: See `FrameStore`.
        """
        return self._train_frames.result()

    def setup_train(self) -> None:
        """Begin to put the training frames on the device, and go on meanwhile."""
        store = partial(FrameStore, self.train_dataset, self.device, self.config, comms.get_rank())
        self._train_frames = begin(store, self.device)
        self.train_pixel_sampler = _stock_sampler(self.config.train_num_rays_per_batch)

    def setup_eval(self) -> None:
        """Prepare whole evaluation images; evaluation batches are drawn when the first is asked for."""
        self._eval_frames: FrameStore | None = None
        self.eval_pixel_sampler = _stock_sampler(self.config.eval_num_rays_per_batch)
        self.fixed_indices_eval_dataloader = FixedIndicesEvalDataloader(
            input_dataset=self.eval_dataset, device=self.device
        )
        self.eval_dataloader = RandIndicesEvalDataloader(input_dataset=self.eval_dataset, device=self.device)

    def next_train(self, step: int) -> tuple[RayBundle, dict]:
        """Rays of one training frame and their colours (RGBA, the mask as alpha)."""
        self.train_count += 1
        config, frame = self.config, self.train_frames.frame_of_step(step, self.world_size)
        multiple = config.late_rays_mult if step >= config.late_rays_start else 1
        is_early = step < config.surroundings_end
        return self.train_frames.draw_rays(frame, multiple * config.train_num_rays_per_batch, step, is_early)

    def next_eval(self, step: int) -> tuple[RayBundle, dict]:
        """Rays of one evaluation frame and their colours."""
        self.eval_count += 1
        if self._eval_frames is None:
            self._eval_frames = FrameStore(self.eval_dataset, self.device, self.config, comms.get_rank())
        frame = self._eval_frames.frame_of_step(step, self.world_size)
        return self._eval_frames.draw_rays(frame, self.config.eval_num_rays_per_batch, step)


def _stock_sampler(num_rays: int) -> PixelSampler:
    """Sampler from which nerfstudio's exporter and progress report read the number of rays."""
    return PixelSamplerConfig(num_rays_per_batch=num_rays).setup()
