"""Buffers of training steps: as large as steps have needed."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from instantavatar_ns.rendering.capacity import BufferSizes, shrunk
from instantavatar_ns.rendering.composite import Pixels
from instantavatar_ns.rendering.inputs import Avatar, Rays, RenderPose, SampleRules

_SAMPLES_PER_RAY = 256  # enough for a step that takes all space as occupied
# Checks after which buffers may shrink, by the most that was needed meanwhile: steps of another size are captured anew,
# which takes longer than many empty rows.
_PATIENCE = 5


class StepBuffers:
    """Renders with `render_buffered` in buffers that grow on overflow, without synchronising.

    What did not fit is counted on the device, where a CUDA graph may do so too; `check` notices and says so. Images
    must not lack anything: they have `ImageBuffers`.
    """

    def __init__(self) -> None:
        # By the number of rays: sizes, and what renderings would have filled.
        self._sizes: dict[int, BufferSizes] = {}
        self._wanted: dict[int, _Wanted] = {}
        # The most that fitted since they could last have shrunk, and the number of checks since.
        self._recent: dict[int, tuple[int, int, int]] = {}

    def sizes(self, num_rays: int) -> BufferSizes | None:
        """Sizes of the buffers for so many rays, once they have been rendered."""
        return self._sizes.get(num_rays)

    def render(
        self,
        rays: Rays,
        pose: RenderPose,
        avatar: Avatar,
        rules: SampleRules,
        extra: Float[Tensor, "extra 3"] | None = None,
    ) -> tuple[Pixels, Tensor, Tensor]:
        """Pixels, the number of their samples, and the density at extra canonical points."""
        # Triton is imported where it is used: it is no part of PyTorch on every platform.
        from instantavatar_ns.rendering.buffered import render_buffered

        num_rays = len(rays.directions)
        capacity = _SAMPLES_PER_RAY * num_rays
        sizes = self._sizes.setdefault(num_rays, BufferSizes(capacity, capacity))
        pixels, num_samples, num_roots, density = render_buffered(rays, pose, avatar, rules, sizes, extra)
        if num_rays not in self._wanted:
            self._wanted[num_rays] = _Wanted(num_samples.device)
        self._wanted[num_rays].add(num_samples, num_roots)
        return pixels, num_samples.clamp(max=sizes.samples), density

    def check(self) -> bool:
        """Enlarge buffers that were too small for a step, and say so; at times shrink those that are far too large.

        On a GPU this looks at the steps before the last check, whose numbers have reached the host meanwhile.

        Returns:
            Whether any were enlarged: what was captured with the former ones must be captured again.
        """
        enlarged = False
        for num_rays, counts in self._wanted.items():
            wanted, sizes = counts.take(), self._sizes[num_rays]
            if wanted is None:
                continue
            if sizes.hold(*wanted):
                self._sizes[num_rays] = self._shrunk(num_rays, *wanted)
                continue
            CONSOLE.log(
                f"[yellow]A step had {wanted[0]} samples and {wanted[1]} roots, more than its buffers hold "
                f"({sizes.samples} and {sizes.roots}); some were left out. The buffers are enlarged.[/yellow]"
            )
            self._sizes[num_rays] = sizes.grown(*wanted)
            self._recent.pop(num_rays, None)
            enlarged = True
        return enlarged

    def _shrunk(self, num_rays: int, num_samples: int, num_roots: int) -> BufferSizes:
        """Sizes after a check at which all had fitted."""
        samples, roots, checks = self._recent.pop(num_rays, (0, 0, 0))
        samples, roots, checks = max(samples, num_samples), max(roots, num_roots), checks + 1
        if checks == _PATIENCE:
            return shrunk((self._sizes[num_rays],), (BufferSizes.fitting(samples, roots),))[0]
        self._recent[num_rays] = samples, roots, checks
        return self._sizes[num_rays]


class _Wanted:
    """The most samples and roots that any rendering would have filled since they were last sent to the host.

    Args:
        device: Where they are counted.
    """

    def __init__(self, device: torch.device) -> None:
        self._most = torch.zeros(2, dtype=torch.int32, device=device)
        # On the host: what was sent last, and the event after which it is there.
        self._sent: tuple[Tensor, torch.cuda.Event] | None = None

    def add(self, num_samples: Int32[Tensor, "1"], num_roots: Int32[Tensor, "1"]) -> None:
        """Count a rendering. Always in the same place, so that a captured step goes on counting."""
        torch.maximum(self._most, torch.cat([num_samples, num_roots]), out=self._most)

    def take(self) -> tuple[int, int] | None:
        """Return the previous asynchronous copy and start the next; counting begins anew.

        Nothing at the first call on a GPU, nor while it is not there yet. Without a GPU it is what has been counted.
        """
        counts = None
        if not self._most.is_cuda:
            counts = self._most.tolist()
        elif self._sent is None:
            self._sent = torch.zeros(2, dtype=torch.int32, pin_memory=True), torch.cuda.Event()
        elif self._sent[1].query():
            counts = self._sent[0].tolist()
        else:
            return None
        if self._sent is not None:
            self._sent[0].copy_(self._most, non_blocking=True)
            self._sent[1].record()
        self._most.zero_()
        return None if counts is None else (counts[0], counts[1])
