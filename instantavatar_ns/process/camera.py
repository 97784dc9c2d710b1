"""The camera of a clip: a pinhole at the origin that looks along z."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from instantavatar_ns.utils.errors import InputError

# Focal lengths by the longer side of the image: phones' main cameras film with 0.8 to 0.9, zoomed in with up to 2.5.
ASSUMED = 1.2
_LEAST, _MOST = 0.1, 100.0


class Camera(NamedTuple):
    """Pinhole whose axis goes through the middle of the image.

    Attributes:
        focal: Focal length, pixels.
        width: Of the image, pixels.
        height: Of the image, pixels.
        origin: Where the focal length is from.
    """

    focal: float
    width: int
    height: int
    origin: Literal["given", "tags", "assumed", "estimated"]

    @property
    def center(self) -> tuple[float, float]:
        """Principal point, pixels, the center of the top-left pixel at (0, 0)."""
        return (self.width - 1) / 2, (self.height - 1) / 2

    @property
    def description(self) -> str:
        """A sentence about the focal length."""
        value = f"{self.focal:.0f} pixels, {self.focal / max(self.width, self.height):.2f} of the longer side"
        unknown = "The person's distance depends on it, pictures of the avatar hardly do; --focal sets the true one."
        return {
            "given": f"The focal length is {value}, as given.",
            "tags": f"The focal length is {value}, from the tags of the video.",
            "assumed": f"The focal length is not known: {value}, is assumed. {unknown}",
            "estimated": f"The focal length is not known: {value}, fits the clip best. {unknown}",
        }[self.origin]

    def write(self, path: Path) -> None:
        """Write `cameras.npz` as InstantAvatar's folder has it."""
        x, y = self.center
        intrinsic = np.array([[self.focal, 0.0, x], [0.0, self.focal, y], [0.0, 0.0, 1.0]])
        np.savez(path, intrinsic=intrinsic, extrinsic=np.eye(4), height=self.height, width=self.width)


def choose_camera(width: int, height: int, given: float | None, tagged: float | None) -> Camera:
    """Choose the focal length: the user's, else that of the video's tags, else an assumption.

    Args:
        width: Of the images, pixels.
        height: Of the images, pixels.
        given: By the user, pixels of the images.
        tagged: From the tags, pixels of the images.

    Raises:
        InputError: The user's can be none.
    """
    longer = max(width, height)
    if given is not None and not _LEAST * longer <= given <= _MOST * longer:
        message = f"expected a focal length in pixels of images of {width}x{height}, found {given:g}"
        advice = f"Phones have about {0.85 * longer:.0f}; of a lens of F mm (as on 35 mm film) it is F / 36 x {longer}"
        raise InputError("--focal", message, advice)
    if given is not None:
        return Camera(float(given), width, height, "given")
    if tagged is not None and _LEAST * longer <= tagged <= _MOST * longer:
        return Camera(float(tagged), width, height, "tags")
    return Camera(ASSUMED * longer, width, height, "assumed")
