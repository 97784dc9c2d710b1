"""Clips of a demo person, written to disk for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def person_images(subject: Path, count: int | None = None) -> list[np.ndarray]:
    """Images of a demo subject, its training frames first."""
    return [np.array(Image.open(path).convert("RGB")) for path in sorted((subject / "images").glob("*.png"))[:count]]


def write_video(
    path: Path,
    images: list[np.ndarray],
    times: list[float] | None = None,
    pixel_format: str = "yuv420p",
    codec: str = "libx264",
    **colors: int,
) -> Path:
    """Write a video.

    Args:
        path: The file.
        images: RGB, 8 or 16 bits.
        times: Of the images, seconds; ten a second where there are none.
        pixel_format: As ffmpeg names it.
        codec: Likewise.
        colors: Attributes of the codec's context, such as `color_trc`.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"crf": "8", "qp": "0"} if codec == "libx264" else {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in colors.items():
            setattr(stream.codec_context, name, value)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24" if image.dtype == np.uint8 else "rgb48le")
            frame.pts = round(1000 * (index / 10 if times is None else times[index]))
            frame.time_base = Fraction(1, 1000)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
