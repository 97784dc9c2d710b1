"""The buffers of a model: as large as its renderings have needed."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int32
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from instantavatar_ns.occupancy.compositing import Pixels
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules

_SAMPLES_PER_RAY = 128
_SPARE = 1.25
_MULTIPLE = 1 << 12


@dataclass(frozen=True)
class BufferSizes:
    """How many samples, and roots of them, one rendering may have."""

    samples: int
    roots: int

    def grown(self, num_samples: int, num_roots: int) -> BufferSizes:
        """Sizes that hold so many with something to spare; never smaller than these."""
        # Samples that were left out had no chance to have roots.
        num_roots = round(num_roots * max(1.0, num_samples / self.samples))
        return BufferSizes(_with_spare(self.samples, num_samples), _with_spare(self.roots, num_roots))

    def hold(self, num_samples: int, num_roots: int) -> bool:
        """Whether so many fit."""
        return num_samples <= self.samples and num_roots <= self.roots


def _with_spare(size: int, wanted: int) -> int:
    return size if wanted <= size else -(-int(wanted * _SPARE) // _MULTIPLE) * _MULTIPLE


class RenderBuffers:
    """Renders with `render_buffered`, and sees that nothing is lost for want of room; the host is not kept waiting.

    What did not fit is noticed at the next `check`, and said. Images must not lack anything: they have `ImageBuffers`.
    """

    def __init__(self) -> None:
        # By the number of rays: sizes, and what the last rendering would have filled.
        self._sizes: dict[int, BufferSizes] = {}
        self._wanted: dict[int, tuple[Int32[Tensor, "1"], Int32[Tensor, "1"]]] = {}

    def render(self, rays: Rays, pose: RenderPose, avatar: Avatar, rules: SampleRules) -> tuple[Pixels, Tensor]:
        """Pixels, and the number of their samples."""
        # Triton is imported where it is used: it is no part of PyTorch on every platform.
        from instantavatar_ns.rendering.buffered import render_buffered

        num_rays = len(rays.directions)
        room = _SAMPLES_PER_RAY * num_rays
        sizes = self._sizes.setdefault(num_rays, BufferSizes(room, room))
        pixels, num_samples, num_roots = render_buffered(rays, pose, avatar, rules, sizes)
        self._wanted[num_rays] = (num_samples, num_roots)
        return pixels, num_samples.clamp(max=sizes.samples)

    def check(self) -> None:
        """Enlarge buffers that were too small for the last step, and say so. Reads two numbers on the host."""
        for num_rays, counts in self._wanted.items():
            num_samples, num_roots = (int(count) for count in counts)
            sizes = self._sizes[num_rays]
            if not sizes.hold(num_samples, num_roots):
                CONSOLE.log(
                    f"[yellow]A step had {num_samples} samples and {num_roots} roots, more than its buffers hold "
                    f"({sizes.samples} and {sizes.roots}); some were left out. The buffers are enlarged.[/yellow]"
                )
                self._sizes[num_rays] = sizes.grown(num_samples, num_roots)
        self._wanted.clear()
