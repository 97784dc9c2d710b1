"""Write an avatar in every format, and have the files judged by the programs of others.

    python -m benchmarks.everywhere --load-config outputs/dev-male/instant-avatar/run/config.yml \
        --lpips-backbone path/to/alex_features.pth --output benchmarks/results/everywhere.json

Parts may run on different machines, one after the other, with the same `--files`; each adds its keys to the JSON:

- `export`: `<format>_mb`, and `<format>_s`, seconds of the whole command, start-up included. `glb_charts` counts the
  charts of the texture. `splat_psnr` is that of `splat_count` splats beside the neural images of the 24 views that
  they are fitted to, and `splat_psnr_between` beside those of 24 views that they are not: each is halfway from one of
  the first to the next, around the person and in height.
- `novel`: `glb_novel_psnr` and others of `benchmarks/export.py`, which needs a data set with a `novel/` folder.
- `check`: what validators say of the files: Khronos' for glTF, the rules of `usdchecker`, TypeScript about the types of
  VRM, and whether three-vrm plays the motions. It needs node, npm's registry, Chromium and usd-core; what is not there
  is left out.
- `blender`: what Blender imports. The variable BLENDER_PYTHON names it.

Date, device, commit and command of each part are kept under its name.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Literal, cast, get_args

import numpy as np
import pytest
import torch
import trimesh
import tyro
from torch import Tensor

from benchmarks import record
from benchmarks.blender import VARIABLE, import_in_blender, interpreter
from benchmarks.instant import INSTANT
from instantavatar_ns.export.glb_container import read_glb
from instantavatar_ns.export.splats.avatar_splats import FIT, neural_images
from instantavatar_ns.export.splats.cloud import Splats
from instantavatar_ns.export.splats.files import EXTENSION, HARMONIC
from instantavatar_ns.export.splats.fitting import psnr
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.scripts.run_folder import open_run
from tests.export.glb import Glb

Part = Literal["export", "novel", "check", "blender"]
MOTIONS = ("--motion", "walk", "dance")
VRM_TERMS = (
    *("--vrm.author", "benchmark", "--vrm.avatar-permission", "onlyAuthor", "--vrm.credit-notation", "required"),
    *("--vrm.commercial-usage", "personalNonProfit", "--vrm.modification", "prohibited"),
)
FORMATS: dict[str, tuple[str, ...]] = {
    "glb": ("--format", "glb", *MOTIONS),
    "glb_webp": ("--format", "glb", *MOTIONS, "--texture-format", "webp"),
    "glb_meshopt": ("--format", "glb", *MOTIONS, "--texture-format", "webp", "--compression", "meshopt"),
    "vrm": ("--format", "vrm", *MOTIONS, *VRM_TERMS),
    "usdz": ("--format", "usdz", "--motion", "dance"),
    "html": ("--format", "html", *MOTIONS),
    "splat": ("--format", "splat", "--motion", "dance"),
    "splat_html": ("--format", "html", "--motion", "dance", "--splats", "40000"),
}
"""Options of `instant-avatar export` by the names of the keys."""
PACKAGES = {"glb_meshopt": "meshoptimizer", "usdz": "pxr"}
"""Modules of the optional packages that a format needs."""


@dataclass
class Everywhere:
    """Benchmark of the export formats."""

    load_config: Path
    """A run."""
    output: Path = Path("benchmarks/results/everywhere.json")
    """JSON to write, or to add to."""
    files: Path = Path("outputs/benchmark-everywhere")
    """Folder of the exported files; those of the part `export` are replaced."""
    parts: tuple[Part, ...] = get_args(Part)
    """What to do."""
    lpips_backbone: Path | None = None
    """AlexNet's convolutions, on machines without network."""
    formats: tuple[str, ...] = ()
    """Of the part `export`, by their names in `FORMATS`; by default all. Files of others stay."""
    voxel_size: float = 0.005
    """As of every export."""
    max_faces: int = 30_000
    """As of every export."""

    def main(self) -> None:
        """Do the parts, and write the figures after each."""
        figures = json.loads(self.output.read_text()) if self.output.exists() else {}
        parts: dict[Part, Callable[[], dict[str, Any]]] = {
            "export": self.export,
            "novel": self.novel,
            "check": self.check,
            "blender": self.blender,
        }
        for part in self.parts:
            found = parts[part]()
            if part == "export" and not self.formats:
                figures |= record.head()
            figures |= found | ({"_".join((part, *self.formats)): record.head()} if found else {})
            record.write(self.output, figures)

    def export(self) -> dict[str, Any]:
        """Write the avatar in all formats."""
        figures = {}
        for name in self.formats or FORMATS:
            shutil.rmtree(self.files / name, ignore_errors=True)
        wanted = {name: options for name, options in available().items() if name in (self.formats or FORMATS)}
        for name, options in wanted.items():
            ending = "glb" if options[1] == "splat" else options[1]
            output = self.files / name / f"avatar.{ending}"
            command = [*INSTANT, "export"]
            command += ["--load-config", str(self.load_config), "--output", str(output), *options]
            command += ["--voxel-size", str(self.voxel_size), "--max-faces", str(self.max_faces)]
            start = monotonic()
            subprocess.run(command, check=True)
            figures[f"{name}_s"] = monotonic() - start
            figures[f"{name}_mb"] = sum(file.stat().st_size for file in output.parent.iterdir()) / 1e6
            record.progress(f"{name}: {figures[f'{name}_mb']:.2f} MB in {figures[f'{name}_s']:.1f} s")
        figures["glb_charts"] = chart_count(self.files / "glb" / "avatar.glb")
        if "splat_mb" in figures:
            glb = self.files / "splat" / "avatar.glb"
            figures |= splat_fit(glb) | {"splat_psnr_between": splat_psnr_between(self.load_config, glb)}
        return figures

    def novel(self) -> dict[str, Any]:
        """Compare the GLB with the novel frames."""
        from benchmarks.export import ExportBenchmark

        measured = ExportBenchmark(self.load_config, lpips_backbone=self.lpips_backbone).measure()
        return {name: value for name, value in measured.items() if name.endswith("_psnr")}

    def check(self) -> dict[str, Any]:
        """Have the files judged."""
        figures: dict[str, Any] = {}
        with TemporaryDirectory() as name:
            for judge in (gltf_errors, vrm_figures, usdz_problems):
                folder = Path(name) / judge.__name__
                folder.mkdir()
                try:
                    figures |= judge(self.files, folder)
                except pytest.skip.Exception as reason:
                    record.progress(f"{judge.__name__} is left out: {reason}")
        return figures

    def blender(self) -> dict[str, Any]:
        """Import GLB and VRM into Blender."""
        blender = interpreter()
        if blender is None:
            record.progress(f"Blender is left out: {VARIABLE} names none")
            return {}
        found = {}
        for path in sorted((*self.files.glob("glb/*.glb"), *self.files.glob("vrm/*.vrm"))):
            imported = import_in_blender(blender, path)
            found[f"{path.parent.name}_blender"] = {"passes": imported.passes, **asdict(imported)}
        return found


def available() -> dict[str, tuple[str, ...]]:
    """`FORMATS` whose packages are installed."""
    missing = {name: package for name, package in PACKAGES.items() if find_spec(package) is None}
    for name, package in missing.items():
        record.progress(f"{name} is left out: {package} is not installed")
    return {name: options for name, options in FORMATS.items() if name not in missing}


def chart_count(glb: Path) -> int:
    """Number of the texture's charts: parts of the mesh that no edge connects."""
    mesh = Glb(glb)
    edges = mesh.faces[:, [0, 1, 1, 2]].reshape(-1, 2)
    return len(trimesh.graph.connected_components(edges, nodes=np.arange(len(mesh.positions))))


def splat_fit(glb: Path) -> dict[str, float]:
    """What the export notes in the splats' GLB: their number, and their PSNR beside the avatar's images, decibels."""
    document, _ = read_glb(glb.read_bytes())
    (primitive,) = document["meshes"][0]["primitives"]
    count = document["accessors"][primitive["attributes"]["POSITION"]]["count"]
    return {"splat_psnr": document["asset"]["extras"][FIT]["psnr"], "splat_count": count}


def splat_psnr_between(load_config: Path, glb: Path) -> float:
    """PSNR of a file's splats beside the avatar's images from views halfway between the fitted ones, decibels.

    Args:
        load_config: The run that was exported.
        glb: The splats.
    """
    model = cast(InstantAvatarModel, open_run(load_config)[0].model)
    splats = splats_in(glb).to(model.device)
    size = read_glb(glb.read_bytes())[0]["asset"]["extras"][FIT]["image_size"]
    images, views = neural_images(model, splats.centers, size, shift=0.5)
    return psnr(splats, views, images)


def splats_in(glb: Path) -> Splats:
    """The splats of a file that the export has written, in the canonical pose, on the CPU."""
    document, binary = read_glb(glb.read_bytes())
    (primitive,) = document["meshes"][0]["primitives"]

    def read(name: str) -> Tensor:
        accessor = document["accessors"][primitive["attributes"][name]]
        start = document["bufferViews"][accessor["bufferView"]]["byteOffset"]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        values = np.frombuffer(binary, "<f4", accessor["count"] * width, start)
        return torch.from_numpy(values.reshape(-1, width).copy())

    return Splats(
        read("POSITION"),
        read(f"{EXTENSION}:SCALE").log(),
        read(f"{EXTENSION}:ROTATION").roll(1, dims=1),  # (x, y, z, w) in the file
        read(f"{EXTENSION}:OPACITY")[:, 0].logit(eps=1e-6),
        read(f"{EXTENSION}:SH_DEGREE_0_COEF_0") * HARMONIC + 0.5,
    )


def gltf_errors(files: Path, folder: Path) -> dict[str, Any]:
    """Errors and warnings of Khronos' validator, `<format>_gltf_errors` and `<format>_gltf_warnings`.

    It does not know KHR_gaussian_splatting, and calls the names of its attributes invalid. Those are counted apart, as
    `<format>_gltf_unknown_names`.

    Args:
        files: Folder of the exported files.
        folder: Empty folder for npm's packages.
    """
    from tests.npm import gltf_issues, npm_packages

    npm_packages(folder, "gltf-validator@2.0.0-dev.3.10")
    figures = {}
    for path in sorted(file for ending in ("glb", "vrm", "vrma") for file in files.glob(f"*/*.{ending}")):
        issues = gltf_issues(folder, path.resolve())
        unknown = sum(is_unknown_name(message) for message in issues["messages"])
        counts = {"errors": issues["numErrors"] - unknown, "warnings": issues["numWarnings"]}
        for kind, count in (counts | ({"unknown_names": unknown} if unknown else {})).items():
            name = f"{path.parent.name}_gltf_{kind}"
            figures[name] = figures.get(name, 0) + count
    return figures


def is_unknown_name(message: dict[str, Any]) -> bool:
    """Whether the validator complains of an attribute's name that the extension for splats has defined."""
    attribute = message["pointer"].rpartition("/")[2]
    return message["code"] == "MESH_PRIMITIVE_INVALID_ATTRIBUTE" and attribute.startswith(f"{EXTENSION}:")


def vrm_figures(files: Path, folder: Path) -> dict[str, Any]:
    """What TypeScript says of the VRM, and how far a motion moves its hands in three-vrm, metres.

    Args:
        files: Folder of the exported files.
        folder: Empty folder for npm's packages.
    """
    from tests.export.three_vrm import PACKAGES, extension_of, three_vrm, type_errors
    from tests.npm import npm_packages

    (vrm,) = files.glob("vrm/*.vrm")
    motions = sorted(path.name for path in files.glob("vrm/*.vrma"))
    types = "types-vrmc-vrm-1.0"
    npm_packages(folder, *PACKAGES, "typescript@5", f"@pixiv/{types}")
    said = type_errors(folder, types, "VRMC_vrm", extension_of(vrm, "VRMC_vrm"))
    moved = {}
    with three_vrm(folder, vrm.parent.resolve(), vrm.name, motions) as (page, errors):
        rest = page.evaluate("window.show(null, 0)")
        for name in motions:
            posed = page.evaluate("name => window.show(name, 1.0)", name)
            hands = [np.subtract(posed[hand], rest[hand]) for hand in ("leftHand", "rightHand")]
            moved[name] = float(np.linalg.norm(hands, axis=1).max())
            page.screenshot(path=vrm.with_name(f"{Path(name).stem}.png"))
        page_errors = list(errors)
    return {"vrm_type_errors": said.splitlines(), "vrm_page_errors": page_errors, "vrm_hands_moved_m": moved}


def usdz_problems(files: Path, folder: Path) -> dict[str, Any]:
    """What the rules of `usdchecker` find in the USDZ.

    Args:
        files: Folder of the exported files.
        folder: Is not used.
    """
    usd = pytest.importorskip("pxr.Usd", reason="OpenUSD is not installed (pip install usd-core)")
    validation = pytest.importorskip("pxr.UsdValidation", reason="this usd-core has no UsdValidation")
    (path,) = files.glob("usdz/*.usdz")
    rules = validation.ValidationRegistry().GetOrLoadAllValidators()
    found = validation.ValidationContext(rules).Validate(usd.Stage.Open(str(path)))
    return {"usdz_problems": [error.GetErrorAsString() for error in found]}


if __name__ == "__main__":
    tyro.cli(Everywhere).main()
