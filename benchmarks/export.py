"""Export a trained avatar and measure the file: as it looks beside the truth, how large it is, how long it took.

    python -m benchmarks.export --load-config outputs/dev-male/instant-avatar/run/config.yml \
        --lpips-backbone path/to/alex_features.pth --output outputs/export.json

The data set needs a `novel/` folder. Its exact poses become a clip of the GLB; the file is read back by a reader that
knows the glTF specification only (tests/export/glb.py), posed, and ray-cast from the recording's camera, unlit, with
2x2 samples a pixel, on white. `neural_novel_psnr` is that of `instant-avatar evaluate` on the same frames.
`glb_field_novel_psnr` has the field's colours instead of the photographs'. `glb_meshopt_mb` and
`glb_meshopt_novel_psnr` are of the file packed by meshopt, with a WebP texture, which needs the extra `meshopt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, process_time
from typing import Any

import numpy as np
import tyro
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from PIL import Image

from benchmarks import record
from instantavatar_ns.motion.editing import MotionOptions
from instantavatar_ns.scripts.evaluate import Evaluate
from instantavatar_ns.scripts.export import Export
from instantavatar_ns.scripts.run_folder import pipeline_of
from instantavatar_ns.training.run_config import load_run_config
from tests.export.glb import Glb

SAMPLES = 2  # a pixel, along each axis
CLIP = "poses"
AS_GIVEN = MotionOptions(root="as-recorded", place="dataset")  # the clip's poses are the novel frames'


@dataclass
class ExportBenchmark:
    """Benchmark of the exported GLB."""

    load_config: Path
    """A run whose data has a novel/ folder."""
    output: Path | None = None
    """JSON to write; `benchmarks/everywhere.py` writes the same figures beside those of other formats."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    pictures: Path | None = None
    """Folder for pictures, a folder a file: the truth, the ray-cast GLB."""

    def main(self) -> None:
        """Export, evaluate and write the figures."""
        record.write(self.output, record.head() | self.measure())

    def measure(self) -> dict[str, float]:
        """Export, evaluate, and return the figures."""
        datamanager = pipeline_of(load_run_config(self.load_config)).datamanager
        novel = Path(datamanager.data or datamanager.dataparser.data) / "novel"
        with TemporaryDirectory() as folder:
            start, busy = monotonic(), process_time()
            path = self.export(Path(folder) / "plain.glb", novel)
            seconds, cpu_seconds = monotonic() - start, process_time() - busy
            record.progress(f"exported in {seconds:.1f} s, {cpu_seconds:.1f} s of all processors' time")
            files = {
                "glb": path,
                "glb_field": self.export(Path(folder) / "field.glb", novel, colors="field"),
            }
            if find_spec("meshoptimizer") is not None:
                packed = {"compression": "meshopt", "texture_format": "webp"}
                files["glb_meshopt"] = self.export(Path(folder) / "packed.glb", novel, **packed)
            figures = {}
            for name, file in files.items():
                figures[f"{name}_mb"] = file.stat().st_size / 1e6
                pictures = self.pictures and self.pictures / name
                figures[f"{name}_novel_psnr"] = float(np.mean(self.compare(Glb(file), novel, pictures)))
                record.progress(f"compared {name} with the novel frames: {figures[f'{name}_novel_psnr']:.2f} dB")
        neural = Evaluate(load_config=self.load_config, sets=("novel",), lpips_backbone=self.lpips_backbone).main()
        record.progress("evaluated")
        figures["neural_novel_psnr"] = neural["novel"]["psnr"]
        return figures | {"export_s": seconds, "export_cpu_s": cpu_seconds}

    def export(self, output: Path, novel: Path, **options: Any) -> Path:
        """Export the run with the novel frames' poses as a clip."""
        motion = (novel / f"{CLIP}.npz",)
        command = Export(self.load_config, output=output, motion=motion, motion_options=AS_GIVEN, **options)
        return command.main()

    def compare(self, glb: Glb, novel: Path, pictures: Path | None = None) -> list[float]:
        """PSNR of every frame of a folder, whole image on white, 8-bit."""
        cameras = np.load(novel / "cameras.npz")
        psnrs = []
        for index, time in enumerate(glb.clip_times(CLIP)):
            truth = on_white(novel, index)
            image = render(glb, float(time), cameras["intrinsic"], cameras["extrinsic"], truth.shape[:2])
            psnrs.append(-10 * np.log10(np.mean((np.round(image * 255) / 255 - truth) ** 2)))
            if pictures is not None:
                pictures.mkdir(parents=True, exist_ok=True)
                both = np.concatenate([truth, image], axis=1)
                Image.fromarray(np.round(both * 255).astype(np.uint8)).save(pictures / f"{index:04d}.png")
        return psnrs


def on_white(folder: Path, index: int) -> np.ndarray:
    """A frame of the data with its background replaced by white, 0 to 1."""
    image = np.array(Image.open(folder / "images" / f"image_{index:04d}.png").convert("RGB")) / 255.0
    alpha = np.array(Image.open(folder / "masks" / f"mask_{index:04d}.png").convert("L"))[..., None] / 255.0
    return image * alpha + 1 - alpha


def render(
    glb: Glb, time: float, intrinsics: np.ndarray, world_to_camera: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Ray-cast a moment of the clip on white from an OpenCV camera in the recording's world, 0 to 1.

    The extras of the file's node `avatar` hold the transform from the recording's world to the scene.
    """
    scene_to_world = np.linalg.inv(np.reshape(glb.json["nodes"][0]["extras"]["dataset_to_scene"], (4, 4)))
    return ray_cast(glb, glb.posed(CLIP, time), intrinsics, world_to_camera @ scene_to_world, size)


def ray_cast(
    glb: Glb, vertices: np.ndarray, intrinsics: np.ndarray, scene_to_camera: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Ray-cast posed vertices of a file on white from an OpenCV camera, 0 to 1 (height, width, 3)."""
    vertices = vertices @ scene_to_camera[:3, :3].T + scene_to_camera[:3, 3]
    height, width = size
    rows, columns = np.mgrid[: height * SAMPLES, : width * SAMPLES]
    # The center of the top-left pixel is at (0, 0), as in the recording's files.
    x, y = (columns + 0.5) / SAMPLES - 0.5, (rows + 0.5) / SAMPLES - 0.5
    pixels = np.stack([x, y, np.ones(rows.shape)], axis=-1).reshape(-1, 3)
    directions = np.ascontiguousarray(pixels @ np.linalg.inv(intrinsics).T, np.float32)
    scene = EmbreeScene()
    TriangleMesh(scene, vertices.astype(np.float32), glb.faces.astype(np.int32))
    hits = scene.run(np.zeros_like(directions), directions, output=1)
    hit = hits["primID"] >= 0
    u, v = hits["u"][hit, None], hits["v"][hit, None]
    a, b, c = glb.uv[glb.faces[hits["primID"][hit]]].swapaxes(0, 1)
    colors = np.ones((len(directions), 3))
    colors[hit] = glb.sample_texture(a * (1 - u - v) + b * u + c * v)
    return colors.reshape(height, SAMPLES, width, SAMPLES, 3).mean(axis=(1, 3))


if __name__ == "__main__":
    tyro.cli(ExportBenchmark).main()
