"""Make the picture of an exported GLB: its rest pose, moments of its clips, and its texture.

    python -m tools.export_picture --glb avatar.glb --output docs/images/export.png

The file is read by a reader that knows the glTF specification only, and ray-cast without light.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float
from numpy import ndarray
from PIL import Image
from scipy.spatial.transform import Rotation

from benchmarks.export import ray_cast
from tests.export.glb import Glb

_DISTANCE, _MARGIN = 6.0, 1.06  # metres; the person's height in the picture, with what is left free


@dataclass
class ExportPicture:
    """Picture of an exported GLB."""

    glb: Path
    """An exported file with clips."""
    output: Path
    """Picture to write."""
    moments: tuple[tuple[str, float, float], ...] = (("walk", 0.3, 40.0), ("dance", 0.6, 0.0), ("dance", 0.15, 160.0))
    """Of each picture beside the rest pose: clip, share of its time that has passed, degrees of turn."""
    size: int = 460
    """Height of the picture, pixels."""

    def main(self) -> None:
        """Write the picture."""
        glb = Glb(self.glb)
        poses = [(glb.posed(), 0.0)]
        for clip, share, degrees in self.moments:
            poses.append((glb.posed(clip, share * float(glb.clip_times(clip)[-1])), degrees))
        images = [self.view(glb, vertices, degrees) for vertices, degrees in poses]
        texture = Image.fromarray(glb.texture).resize((self.size, self.size))
        row = np.concatenate([*images, np.asarray(texture) / 255], axis=1)
        Image.fromarray(np.round(row * 255).astype(np.uint8)).save(self.output, optimize=True)

    def view(self, glb: Glb, vertices: Float[ndarray, "n 3"], degrees: float) -> Float[ndarray, "h w 3"]:
        """A picture from the height of the middle of the person, who is turned about the vertical axis."""
        turned = (vertices - vertices[:, [0, 2]].mean(axis=0) @ [[1, 0, 0], [0, 0, 1]]) @ Rotation.from_euler(
            "y", degrees, degrees=True
        ).as_matrix().T
        low, high = turned[:, 1].min(), turned[:, 1].max()
        focal = self.size * _DISTANCE / (2.0 * _MARGIN)
        width = self.size * 4 // 5
        intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (self.size - 1) / 2], [0, 0, 1]])
        scene_to_camera = np.diag([1.0, -1.0, -1.0, 1.0])
        scene_to_camera[1:3, 3] = (low + high) / 2, _DISTANCE
        return ray_cast(glb, turned, intrinsics, scene_to_camera, (self.size, width))


if __name__ == "__main__":
    tyro.cli(ExportPicture).main()
