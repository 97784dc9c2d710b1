"""Video files from numbered images, encoded by the ffmpeg that comes with imageio-ffmpeg."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg

from instantavatar_ns.utils.errors import InputError

# H.264 takes even sizes only, and players expect HD video in BT.709.
_MP4 = (
    *("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white,scale=out_color_matrix=bt709:out_range=tv"),
    *("-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart"),
    *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
)
# 256 colours chosen for the whole video; repeated for ever.
_GIF = ("-filter_complex", "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse", "-loop", "0")
# Frames that are never shown (alt-ref) cannot carry alpha.
_WEBM = (
    *("-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0"),
    *("-row-mt", "1", "-cpu-used", "3"),
)
_ENCODERS = {".mp4": _MP4, ".gif": _GIF, ".webm": _WEBM}


def check_output(output: Path) -> None:
    """Check where to write: a video of a known format, or a new folder for images.

    Raises:
        InputError: The ending is unknown, or something is in the way.
    """
    if output.suffix.lower() not in ("", *_ENCODERS):
        advice = "Give a name that ends in .mp4, .gif or .webm, or one without ending for a folder of PNG images"
        raise InputError(output, f"expected a video or a folder, found the ending {output.suffix}", advice)
    if is_folder(output) and output.exists() and (not output.is_dir() or any(output.iterdir())):
        advice = "Give another --output, or delete this one if you no longer need it"
        raise InputError(output, "expected a folder that is empty or does not exist yet, found files", advice)
    if not is_folder(output) and output.is_dir():
        raise InputError(output, "expected a file to write, found a folder", "Give another --output")


def is_folder(output: Path) -> bool:
    """True for a folder of images, False for a video."""
    return output.suffix == ""


def has_alpha(output: Path) -> bool:
    """True for an output whose format keeps the background transparent."""
    return is_folder(output) or output.suffix.lower() == ".webm"


def encode(images: Path, output: Path, fps: float) -> None:
    """Make a video of images.

    Args:
        images: Pattern of the images' paths, numbered from 0, such as `frames/%05d.png`.
        output: File to write; its ending chooses the format.
        fps: Frames per second.

    Raises:
        RuntimeError: ffmpeg failed, for a reason that it told.
    """
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin", "-y"]
    options = [*ffmpeg, "-framerate", f"{fps:.6g}", "-i", str(images), *_ENCODERS[output.suffix.lower()], str(output)]
    finished = subprocess.run(options, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"ffmpeg could not encode {output}: {finished.stderr.strip()[-500:]}")
