"""Differences between demo subjects: colours, prints and the noise that makes cloth and hair irregular."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import map_coordinates

_Choice = TypeVar("_Choice")

_SKINS = ("#e3b494", "#c98f6b", "#a56c48", "#75482f")
_HAIRS = ("#4a2f1d", "#1d1512", "#5b3a22", "#2c1d16")
_SHIRTS = (("#c8402f", "#f1e9da"), ("#23707a", "#efe6cf"), ("#e0a526", "#2a3550"), ("#5b4a8a", "#e6e2ee"))
_TROUSERS = ("#2f4468", "#4a4038", "#33383d")
_SHOES = ("#30333a", "#7c2f2a", "#2c4d45")
_IRISES = ("#4d6f86", "#4b3320", "#55683c")


class Noise:
    """Smooth noise in [0, 1] over space, with features about one unit in size.

    Args:
        seed: Draws the noise.
    """

    _PERIOD = 32

    def __init__(self, seed: int) -> None:
        self._lattice = np.random.default_rng([seed, 3]).random((self._PERIOD,) * 3)

    def __call__(self, points: Float[ndarray, "n 3"]) -> Float[ndarray, " n"]:
        """The noise at some points."""
        cell = np.floor(points)
        t = points - cell
        eased = cell + t * t * (3.0 - 2.0 * t)
        return map_coordinates(self._lattice, eased.T, order=1, mode="grid-wrap")


@dataclass(frozen=True)
class Palette:
    """Colours of one person, and the picture printed on the T-shirt."""

    skin: Float[ndarray, "3"]
    hair: Float[ndarray, "3"]
    shirt: Float[ndarray, "3"]
    stripe: Float[ndarray, "3"]
    trousers: Float[ndarray, "3"]
    shoe: Float[ndarray, "3"]
    iris: Float[ndarray, "3"]
    noise: Noise
    front: Float[ndarray, "256 256"]
    back: Float[ndarray, "256 256"]


def make_palette(seed: int) -> Palette:
    """Draw a person's colours. Seed 0 is the person of the documentation."""

    # Different strides for each choice, so that neighbouring seeds share little.
    def pick(choices: Sequence[_Choice], stride: int) -> _Choice:
        return choices[(seed // stride + seed) % len(choices)]

    shirt, stripe = pick(_SHIRTS, 3)
    return Palette(
        skin=rgb(pick(_SKINS, 5)),
        hair=rgb(pick(_HAIRS, 7)),
        shirt=rgb(shirt),
        stripe=rgb(stripe),
        trousers=rgb(pick(_TROUSERS, 4)),
        shoe=rgb(pick(_SHOES, 6)),
        iris=rgb(pick(_IRISES, 9)),
        noise=Noise(seed),
        front=_emblem(),
        back=_number(str(10 + (seed * 7 + 14) % 90)),
    )


def rgb(code: str) -> Float[ndarray, "3"]:
    """The colour of a code such as "#c8402f"."""
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0


def _emblem() -> Float[ndarray, "256 256"]:
    """A star in a ring."""
    picture = Image.new("L", (512, 512), 0)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((16, 16, 496, 496), fill=255)
    draw.ellipse((52, 52, 460, 460), fill=0)
    angles = np.pi / 5.0 * np.arange(10)
    radii = np.where(np.arange(10) % 2 == 0, 190.0, 78.0)
    points = np.stack([256.0 + radii * np.sin(angles), 256.0 - radii * np.cos(angles)], axis=-1)
    draw.polygon([tuple(point) for point in points.tolist()], fill=255)
    return np.asarray(picture.resize((256, 256), Image.Resampling.LANCZOS)) / 255.0


def _number(text: str) -> Float[ndarray, "256 256"]:
    """Digits filling the picture."""
    picture = Image.new("L", (256, 256), 0)
    font = ImageFont.load_default(210)
    ImageDraw.Draw(picture).text((128, 128), text, fill=255, font=font, anchor="mm", stroke_width=6, stroke_fill=255)
    return np.asarray(picture) / 255.0
