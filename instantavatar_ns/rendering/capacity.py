"""Capacity of buffers: how it grows on overflow, and shrinks where most of it is not needed.

Training steps and images follow the same rules; they differ in when they learn what was needed (`step_buffers`,
`image_buffers`).
"""

from __future__ import annotations

from dataclasses import dataclass

_SPARE = 1.25
_WASTE = 2
_MULTIPLE = 1 << 12


@dataclass(frozen=True)
class BufferSizes:
    """Most samples, and roots of them, that one rendering may have."""

    samples: int
    roots: int

    @classmethod
    def fitting(cls, num_samples: float, num_roots: float) -> BufferSizes:
        """Return sizes that hold so many with something to spare."""
        return cls(_rounded(_SPARE * num_samples), _rounded(_SPARE * num_roots))

    def hold(self, num_samples: int, num_roots: int) -> bool:
        """Return True if so many fit."""
        return num_samples <= self.samples and num_roots <= self.roots

    def needed(self, num_samples: int, num_roots: int) -> tuple[int, int]:
        """Return how many samples and roots a rendering needs that had so many in buffers of these sizes.

        If all fitted, this is exact. Else roots are estimated: samples that were left out had no chance to have any.
        """
        return num_samples, round(num_roots * max(1.0, num_samples / self.samples))

    def grown(self, num_samples: int, num_roots: int) -> BufferSizes:
        """Return sizes, no smaller than these, that hold what was `needed`, with something to spare."""
        larger = self.fitting(*self.needed(num_samples, num_roots))
        return BufferSizes(max(self.samples, larger.samples), max(self.roots, larger.roots))

    def waste(self, fitting: BufferSizes) -> bool:
        """Return True if either is over twice the needed size: empty rows are worked on, too."""
        return self.samples > _WASTE * fitting.samples or self.roots > _WASTE * fitting.roots


def shrunk(sizes: tuple[BufferSizes, ...], fitting: tuple[BufferSizes, ...]) -> tuple[BufferSizes, ...]:
    """Return no larger sizes than fit, if any of these is wasteful; else these, since each change is captured anew.

    Args:
        sizes: Capacity in use, of each round of rendering.
        fitting: Capacity that is needed, of each round.
    """
    if not any(old.waste(new) for old, new in zip(sizes, fitting, strict=True)):
        return sizes
    pairs = zip(sizes, fitting, strict=True)
    return tuple(BufferSizes(min(old.samples, new.samples), min(old.roots, new.roots)) for old, new in pairs)


def _rounded(size: float) -> int:
    return max(1, -(-int(size) // _MULTIPLE)) * _MULTIPLE
