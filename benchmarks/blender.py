"""What Blender makes of an exported GLB or VRM, beside what the file says by the glTF specification.

The variable BLENDER_PYTHON names Blender, or a Python interpreter that has bpy (`pip install bpy`).
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tests.export.glb import Glb

VARIABLE = "BLENDER_PYTHON"
_ROOT, _HEAD = "pelvis", "head"
_SCRIPT = Path(__file__).with_name("blender_import.py")


@dataclass(frozen=True)
class BlenderImport:
    """A file in Blender, and how far it is from what was written.

    Attributes:
        version: Of Blender.
        same_bones: Names and parents are those of the file.
        weight_error: Largest difference of a vertex's weight.
        seconds_error: Largest difference of a clip's length, seconds.
        clip_error: Largest distance of a posed vertex, metres, over some moments of all clips.
        rest_height: Of the pose of binding, in which Blender edits skeletons, metres.
        rest_tilt: Angle between the vertical and the way from the hips to the head in it, degrees.
        shear: Largest difference of a bone's axes, at rest or posed, from orthogonal ones of unit length.
    """

    version: str
    same_bones: bool
    weight_error: float
    seconds_error: float
    clip_error: float
    rest_height: float
    rest_tilt: float
    shear: float

    @property
    def passes(self) -> bool:
        """Bones, weights and clips are what was written; the person is upright and not sheared."""
        small = self.weight_error < 1e-3 and self.seconds_error < 1e-3 and self.clip_error < 1e-3
        return self.same_bones and small and self.shear < 1e-4 and self.rest_tilt < 15 and 1.4 < self.rest_height < 2.2


def interpreter() -> str | None:
    """Blender, or the Python that has bpy; None where the variable names none."""
    return os.environ.get(VARIABLE) or None


def import_in_blender(blender: str, path: Path) -> BlenderImport:
    """Import a file into Blender, and compare.

    Args:
        blender: From `interpreter`.
        path: A GLB or a VRM, without compression.
    """
    with TemporaryDirectory() as name:
        glb, result = Path(name) / "avatar.glb", Path(name) / "result.npz"
        glb.write_bytes(path.read_bytes())  # Blender goes by the ending
        options = ["--background", "--factory-startup", "--python"] if "blender" in Path(blender).name.lower() else []
        command = [blender, *options, str(_SCRIPT), *(["--"] if options else []), str(glb), str(result)]
        without_ours = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        finished = subprocess.run(command, env=without_ours, capture_output=True, text=True, timeout=600, check=False)
        if not result.exists():
            raise RuntimeError(f"{' '.join(command)} failed: {finished.stdout[-2000:]}{finished.stderr[-2000:]}")
        with np.load(result) as archive:
            found = dict(archive)
    return compare(found, Glb(path))


def compare(found: dict[str, np.ndarray], glb: Glb) -> BlenderImport:
    """Compare what Blender has with the file.

    Args:
        found: Arrays of `blender_import.py`.
        glb: The file.
    """
    names = found["names"].tolist()
    joints = glb.json["skins"][0]["joints"]
    written = [glb.json["nodes"][joint]["name"] for joint in joints]
    parents = {child: joint for joint in joints for child in glb.json["nodes"][joint].get("children", [])}
    above = {glb.json["nodes"][child]["name"]: glb.json["nodes"][parent]["name"] for child, parent in parents.items()}
    parent_of = {name: names[parent] for name, parent in zip(names, found["parents"], strict=True) if parent >= 0}

    weights = np.zeros((len(glb.positions), len(names)))
    columns = np.array([names.index(name) for name in written])
    np.add.at(weights, (np.arange(len(weights))[:, None], columns[glb.joints]), glb.weights)

    seconds, moments = [0.0], [0.0]
    posed = iter(found["posed"])
    for clip, length in zip(found["clips"].tolist(), found["seconds"], strict=True):
        times = glb.clip_times(clip)
        seconds.append(abs(float(times[-1]) - float(length)))
        for share in found["samples"]:
            expected = glb.posed(clip, float(share) * float(times[-1]))
            moments.append(float(np.linalg.norm(next(posed) - expected, axis=1).max()))
    rest = found["rest_vertices"]
    head, hips = (np.average(rest, axis=0, weights=found["weights"][:, names.index(name)]) for name in (_HEAD, _ROOT))
    spine = (head - hips) / np.linalg.norm(head - hips)
    linear = np.concatenate([found["rest_linear"], found["posed_linear"].reshape(-1, 3, 3)])
    return BlenderImport(
        version=str(found["version"]),
        same_bones=set(names) == set(written) and parent_of == above,
        weight_error=float(np.abs(weights - found["weights"]).max()),
        seconds_error=max(seconds),
        clip_error=max(moments),
        rest_height=float(np.ptp(rest[:, 1])),
        rest_tilt=float(np.degrees(np.arccos(np.clip(spine[1], -1, 1)))),
        shear=float(np.abs(linear.transpose(0, 2, 1) @ linear - np.eye(3)).max()),
    )
