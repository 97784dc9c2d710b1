"""Images of all frames, cropped to the person, in the device's memory or in the host's."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import track
from torch import Tensor

from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.memory import (
    DEVICE_SHARE,
    HOST_SHARE,
    LESS_DATA,
    free_bytes,
    join,
    roomy_device,
    written_size,
)

_LISTED = 2  # with lists of the pixels that are drawn from, four bytes each, frames take about twice their crops


class Crop(NamedTuple):
    """Part of an image that the person lies in.

    Attributes:
        pixels: With a transparent border one pixel wide.
        top: Row of the border's first pixel in the image, -1 and up.
        left: The same of its column.
    """

    pixels: UInt8[Tensor, "rows columns 4"]
    top: int
    left: int

    @classmethod
    def of(cls, image: UInt8[np.ndarray, "height width 4"]) -> Crop:
        """Crop an image to all pixels that are not transparent."""
        rows, columns = (image[..., 3].any(axis=axis).nonzero()[0] for axis in (1, 0))
        top, left, bottom, right = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if len(rows) else (0, 0, 0, 0)
        pixels = np.pad(image[top:bottom, left:right], ((1, 1), (1, 1), (0, 0)))
        return cls(torch.from_numpy(pixels), int(top) - 1, int(left) - 1)


class CroppedFrames:
    """RGBA images of one size, of which the parts are held that the person lies in.

    Elsewhere an image reads as transparent black. What stood there is background, whose color nobody asks for: images
    are blended over other backgrounds by their opacity.

    Args:
        crops: Of each frame. The list is empty afterwards.
        size: Height and width of the images, pixels.
        device: Where they are read.
        in_host_memory: See `join`.

    Attributes:
        pixels: Of all crops, row by row, one after the other.
        layout: Of each frame: its crop's first and last row and column, its width, and where pixel (0, 0) would lie.
        in_host_memory: Whether they and the lists of their pixels lie in host memory.
        height: Of the images, pixels.
        width: Of the images, pixels.
    """

    def __init__(
        self, crops: list[Crop], size: tuple[int, int], device: torch.device, in_host_memory: bool = False
    ) -> None:
        self.in_host_memory, (self.height, self.width) = in_host_memory, size
        first, self._boxes, layout = 0, [], []
        for pixels, top, left in crops:
            height, width = pixels.shape[:2]
            self._boxes.append((first, top + 1, left + 1, height, width))
            layout.append((top, top + height - 1, left, left + width - 1, width, first - top * width - left))
            first += height * width
        self.layout = torch.tensor(layout, device=device)
        parts = [crop.pixels.view(-1, 4) for crop in crops]
        crops.clear()  # whatever is copied is freed
        self.pixels: UInt8[Tensor, "pixels 4"] = join(parts, device, in_host_memory)

    def __len__(self) -> int:
        return len(self._boxes)

    @property
    def device(self) -> torch.device:
        """Device that reads the pixels, which may lie in the host's memory."""
        return self.pixels.device

    def describe(self, listed: int) -> str:
        """Say where they lie and how much memory they take, one sentence.

        Args:
            listed: Bytes of the lists of their pixels.
        """
        place = "host memory" if self.device.type == "cpu" else f"the memory of {self.device}"
        if self.in_host_memory:
            place = f"host memory, as they would take too much of {self.device}'s"
        crops, whole = self.pixels.nbytes, 4 * len(self) * self.height * self.width
        return (
            f"{len(self)} frames of {self.width} x {self.height} lie in {place}: {written_size(crops)} cropped to the "
            f"person ({written_size(whole)} uncropped), and {written_size(listed)} of lists of their pixels"
        )

    def at(
        self, frame: Int[Tensor, "1"], row: Int[Tensor, "rays"], column: Int[Tensor, "rays"]
    ) -> UInt8[Tensor, "rays 4"]:
        """Colors and opacity of some pixels of a frame; capturable.

        Args:
            frame: Its index, on the device.
            row: Of each pixel in the image.
            column: The same.
        """
        top, bottom, left, right, width, origin = self.layout[frame].unbind(dim=1)
        # Pixels outside the crop take those of its border, which are all alike.
        row, column = torch.clamp(row, top, bottom), torch.clamp(column, left, right)
        return self.pixels[torch.addcmul(column, row, width) + origin]

    def mask(self, frame: int) -> UInt8[Tensor, "height width"]:
        """Opacity of a whole image, on the device."""
        first, top, left, height, width = self._boxes[frame]
        bordered = torch.zeros(self.height + 2, self.width + 2, dtype=torch.uint8, device=self.device)
        crop = self.pixels[first : first + height * width, 3].view(height, width)
        bordered[top : top + height, left : left + width] = crop
        return bordered[1:-1, 1:-1]

    def masks(self) -> UInt8[Tensor, "frames height width"]:
        """Opacity of all whole images: on the device if they fit there, otherwise on the CPU."""
        size = len(self), self.height, self.width
        masks = torch.empty(size, dtype=torch.uint8, device=roomy_device(math.prod(size), self.device))
        for frame in range(len(self)):
            masks[frame] = self.mask(frame)
        return masks


def read_frames(dataset: AvatarDataset, device: torch.device) -> CroppedFrames:
    """Read all frames, several at a time: decoding images leaves the interpreter's lock.

    They lie in the device's memory, or in the host's where that has not the space to spare.

    Args:
        dataset: The frames.
        device: Where they are read from.

    Raises:
        InputError: A frame or its mask cannot be used, or they fit neither memory.
    """
    on_device, on_host = DEVICE_SHARE * free_bytes(device), HOST_SHARE * free_bytes(torch.device("cpu"))
    crops, needed, size = [], 0, (int(dataset.cameras.height[0]), int(dataset.cameras.width[0]))
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda index: Crop.of(dataset.get_numpy_image(index)), range(len(dataset)))
        shown = track(read, description="Reading frames", total=len(dataset), transient=True, console=CONSOLE)
        for crop in shown:
            crops.append(crop)
            needed += _LISTED * crop.pixels.nbytes
            if needed > max(on_device, on_host) or needed > _LISTED * on_host:
                pool.shutdown(cancel_futures=True)
                expected = needed * len(dataset) / len(crops)
                raise _too_large(dataset, size, device, (expected, on_device, on_host))
    return CroppedFrames(crops, size, device, _is_short(needed, on_device, device))


def _is_short(needed: int, on_device: float, device: torch.device) -> bool:
    """Return True if a device other than the host's own has too little memory."""
    return device.type != "cpu" and needed > on_device


def _too_large(
    dataset: AvatarDataset, size: tuple[int, int], device: torch.device, sizes: tuple[float, float, float]
) -> InputError:
    needed, on_device, on_host = map(written_size, sizes)
    spaces = [f"{on_host} on the host"]
    if device.type != "cpu":
        spaces.insert(0, f"{on_device} on {device}")
    message = (
        f"expected frames that fit in memory, found {len(dataset)} of {size[1]} x {size[0]} pixels: cropped to the "
        f"person they take about {needed}, and there is space for {' and '.join(spaces)}"
    )
    return InputError(dataset.image_filenames[0].parent, message, LESS_DATA)
