"""Compiling Triton's kernels before training needs them, several at a time.

Triton compiles a kernel when it is first launched: a training would stop for seconds at its first step, at the first
refresh of the occupancy and at the first step that corrects poses. Compiling leaves the interpreter's lock for most of
its time, so threads shorten it to that of the slowest group. Triton keeps what it has compiled, per machine.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn

from instantavatar_ns.backgrounds import TRAINING_BACKGROUNDS
from instantavatar_ns.data.cropped_frames import Crop, CroppedFrames
from instantavatar_ns.data.pixel_sampling import PixelLists
from instantavatar_ns.deformer.candidates import RESOLUTION, BoneCandidates, mask_dtype
from instantavatar_ns.deformer.search import PosedSkinning
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.occupancy.posed_grid import pose_cells
from instantavatar_ns.optimizers import RowAdamConfig

_FEW = 16  # kernels know whether a number is a multiple of 16, and the real ones are


def wake_gpu() -> None:
    """Begin in threads what the first kernels wait for, while data is read: nothing of it needs Python.

    That is CUDA's context, cuBLAS, cuSOLVER, and Triton's fingerprint of its files, which are hundreds of megabytes.
    """
    for work in (_wake_libraries, _take_fingerprint):
        threading.Thread(target=work, name="wake the GPU", daemon=True).start()


def _wake_libraries() -> None:
    if torch.cuda.is_available():
        with suppress(RuntimeError):  # such as too little memory: the training says what is wrong
            some = torch.zeros(_FEW, _FEW, device="cuda")
            torch.mm(some, some)
            torch.linalg.pinv(some.double())


def _take_fingerprint() -> None:
    """Triton keeps it, but not while it is being taken: all groups of kernels would begin with it."""
    if torch.cuda.is_available():
        with suppress(ImportError):  # triton_key is no promise of Triton's
            from triton.runtime.cache import triton_key

            triton_key()


@contextmanager
def compiling_kernels(model: InstantAvatarModel) -> Iterator[None]:
    """Launch each kernel of training once, on a few made-up numbers, while the context does something else.

    Nothing of the model changes. The context ends when all kernels are compiled, or at once by an error: nobody shall
    wait for a compiler before hearing that the data is wrong.

    Args:
        model: On its GPU, with `renderer` "triton" and the field's kernels.
    """
    groups = (
        *(_draws, _color, _density, _pose, _search, _rays, _losses),
        *(_image, _canonical_grid, _union_grid, _pose_table),
    )
    pool = ThreadPoolExecutor(len(groups))
    try:
        prepared = [pool.submit(_on_device, group, model) for group in groups]
        yield
        with CONSOLE.status("Preparing the GPU's kernels; the first time on a machine this takes some seconds"):
            for group in prepared:
                group.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _on_device(group: Callable[[InstantAvatarModel], None], model: InstantAvatarModel) -> None:
    # On a stream of the thread's own: none of the groups' work is anyone else's.
    with torch.cuda.device(model.device), torch.cuda.stream(torch.cuda.Stream(model.device)):
        group(model)
        torch.cuda.current_stream().synchronize()


def _draws(model: InstantAvatarModel) -> None:
    """Patches of a frame of one crop, in no camera's view."""
    from instantavatar_ns.data.patch_rays_triton import draw_patches_triton

    crops, nothing = [Crop(torch.zeros(_FEW, _FEW, 4, dtype=torch.uint8), 0, 0)], torch.zeros(1, dtype=torch.long)
    frame = nothing.to(model.device)
    images = CroppedFrames(crops, (_FEW, _FEW), model.device)
    lists = PixelLists.of_frames([nothing.int()], model.device, in_host_memory=False)
    camera_to_worlds = torch.eye(4, device=model.device)[None, :3]
    cameras = Cameras(camera_to_worlds, fx=1.0, fy=1.0, cx=0.0, cy=0.0, height=_FEW, width=_FEW).to(model.device)
    shares = torch.zeros(1, dtype=torch.float64, device=model.device)
    draw_patches_triton(frame, lists, images, cameras, _FEW, shares)


def _color(model: InstantAvatarModel) -> None:
    """Colours of a buffer of points that is not full: with noise and without, with the poses' gradient and without."""
    params = [*model.field.parameters()]
    for noise in (1.0, 0.0):
        for wants_points in (True, False):
            points = torch.zeros(_FEW, 3, device=model.device, requires_grad=wants_points)
            density, rgb = model.field(points, noise, torch.ones(1, dtype=torch.int32, device=model.device))
            torch.autograd.grad(density.sum() + rgb.sum(), [*params, points] if wants_points else params)


def _density(model: InstantAvatarModel) -> None:
    """Density as the occupancy's refresh asks for it."""
    with torch.no_grad():
        model.field.density(torch.zeros(_FEW, 3, device=model.device))


def _pose(model: InstantAvatarModel) -> None:
    model.deformer.pose(_identities(model), model.canonical_occupancy.binaries[0])


def _search(model: InstantAvatarModel) -> None:
    """Search of points that have no candidates, and its gradient."""
    bones, box, device = _identities(model).requires_grad_(), model.deformer.box, model.device
    masks = torch.zeros(RESOLUTION**3, dtype=mask_dtype(len(bones)), device=device)
    candidates = BoneCandidates(torch.zeros(3, device=device), torch.ones(3, device=device), masks, len(bones))
    blended = torch.zeros(len(model.deformer.skinning_weights), 12, device=device)
    posed = PosedSkinning(bones, bones.detach(), blended, box, candidates)
    points = torch.zeros(_FEW, 3, device=device)
    count = torch.ones(1, dtype=torch.int32, device=device)
    roots = model.deformer.find_correspondences_into(points, posed, _FEW, count, model.canonical_occupancy.binaries[0])
    torch.autograd.grad(roots.canonical, bones, torch.zeros_like(roots.canonical))


def _rays(model: InstantAvatarModel) -> None:
    """Marching and compositing as in training."""
    from instantavatar_ns.rendering.composite_triton import composite_triton
    from instantavatar_ns.rendering.march_triton import sample_rays_triton
    from instantavatar_ns.rendering.ray_points_triton import sample_points_triton

    directions, step = _directions(model), model.config.step_size
    samples = sample_rays_triton(-9 * directions, directions, model.union_grid.cells, step, True, _FEW)
    world_to_root = torch.eye(4, device=model.device, requires_grad=True)
    points = sample_points_triton(-9 * directions, directions, samples, world_to_root, step)
    torch.autograd.grad(points, world_to_root, torch.zeros_like(points))
    density, rgb, root_starts, root_counts = _roots(model)
    pixels = composite_triton(density.requires_grad_(), rgb, root_starts, root_counts, samples, step)
    torch.autograd.grad(pixels.rgb.sum(), density)


def _losses(model: InstantAvatarModel) -> None:
    """Terms on the background of the options."""
    from instantavatar_ns.losses_triton import LossWeights, StepPixels, StepSamples, step_losses_triton

    background = TRAINING_BACKGROUNDS[model.config.background_color]
    colors, opacity = torch.zeros(_FEW, 4, device=model.device), torch.zeros(_FEW, device=model.device)
    rgb = colors[:, :3].contiguous().requires_grad_()
    pixels = StepPixels(rgb, opacity[:, None], colors, colors[:, :3] if background is None else background)
    count = torch.ones(1, dtype=torch.int32, device=model.device)
    terms = step_losses_triton(pixels, StepSamples(opacity, count, opacity, opacity > 0), LossWeights(*[1.0] * 5))
    torch.autograd.grad(torch.stack(terms).sum(), rgb)


def _image(model: InstantAvatarModel) -> None:
    """Marching and compositing as in images."""
    from instantavatar_ns.rendering.rounds_triton import MarchedRays, composite_round, march

    cells = pose_cells(model.canonical_occupancy, model.deformer, _identities(model), model.renderer.implementation)
    directions, step = _directions(model), model.config.step_size
    marched = MarchedRays.at_origins(_FEW, directions.device)
    samples = march(-9 * directions[:1], directions, cells, marched, step, 0.5, 1, _FEW)
    composite_round(*_roots(model), samples, marched, step, 0.5, 0.5)


def _canonical_grid(model: InstantAvatarModel) -> None:
    copy.deepcopy(model.canonical_occupancy).refresh(lambda points: torch.zeros_like(points[:, 0]))


def _union_grid(model: InstantAvatarModel) -> None:
    bones = _identities(model).expand(model.subject.num_train, -1, -1, -1)
    copy.deepcopy(model.union_grid).refresh(model.canonical_occupancy, model.deformer, bones.contiguous())


def _pose_table(model: InstantAvatarModel) -> None:
    refinement = model.pose_refinement
    if refinement is not None:
        body, params = refinement[0], [*refinement.parameters()]
        torch.autograd.grad(body.bone_transforms.sum() + body.world_to_root.sum(), params)
        table = nn.Parameter(torch.zeros_like(refinement.remainders))
        table.grad = torch.zeros_like(table)
        RowAdamConfig().setup([table]).step()


def _identities(model: InstantAvatarModel) -> Tensor:
    return torch.eye(4, device=model.device).repeat(model.poses.body.num_joints, 1, 1)


def _directions(model: InstantAvatarModel) -> Tensor:
    return torch.tensor([[0.0, 0.0, 1.0]], device=model.device).repeat(_FEW, 1)


def _roots(model: InstantAvatarModel) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Density and colour of a few roots, and no sample that has any."""
    nothing = torch.zeros(_FEW, dtype=torch.int32, device=model.device)
    density = torch.zeros(_FEW, device=model.device)
    return density, torch.zeros(_FEW, 3, device=model.device), nothing, nothing
