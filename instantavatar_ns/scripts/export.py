"""`instant-avatar export`: the avatar as a mesh for Blender, Unity, three.js and everything else that reads glTF."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, cast

import tyro
from nerfstudio.utils.rich_utils import CONSOLE

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.export.avatar import AvatarMesh, model_surface
from instantavatar_ns.export.motions import closed, place
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.editing import MotionOptions, describe_jump, edit_motion
from instantavatar_ns.motion.motion import Motion, load_motion
from instantavatar_ns.scripts.run_folder import write_variant
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import write_files

_RANGES = {"voxel_size": (0.001, 0.05), "max_faces": (500, 2_000_000), "texture_size": (64, 8192)}


@dataclass
class Export:
    """Write the avatar as a mesh: a GLB with skeleton, texture and motions, or one pose as PLY or OBJ.

    All are in metres with y up and the floor at y = 0. The GLB's rest pose is the A-pose that the avatar was learnt in.
    """

    load_config: Path
    """The run's config.yml."""
    format: Literal["glb", "ply", "obj"] = "glb"
    """"glb": skinned, textured and animated. "ply": one pose, a colour per vertex. "obj": one pose, textured."""
    output: Path | None = None
    """File to write, which must not exist yet; by default export/avatar.<format> in the run's folder, replaced."""
    motion: tuple[Path, ...] = ()
    """Motions: the clips of a GLB; for PLY and OBJ the one that --frame counts in."""
    frame: int | None = None
    """For PLY and OBJ: the frame to show, of the motion or else of the training sequence; by default the A-pose."""
    voxel_size: float = 0.005
    """Distance of the samples of the density, metres."""
    max_faces: int = 30_000
    """Triangles to keep."""
    texture_size: int = 1024
    """Height and width of the texture of GLB and OBJ, texels."""
    show: Literal["color", "coverage"] = "color"
    """The person's colors, or what the training views saw: red nothing, yellow one side, green many sides."""
    motion_options: Annotated[MotionOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=MotionOptions)
    """Edits of the motions."""

    def main(self) -> Path:
        """Export, and return the file's path.

        Raises:
            InputError: An option, the run or a motion cannot be used; nothing is written then.
        """
        self._check()
        options = self.motion_options
        # Whatever is wrong with a motion is found before anything is written.
        edited = [edit_motion(load_motion(path, options.source_fps, options.up), options) for path in self.motion]
        config_path = write_variant(self.load_config, "export", lambda pipeline: None)
        output = self.output or config_path.with_name(f"avatar.{self.format}")
        from nerfstudio.utils.eval_utils import eval_setup  # takes seconds: it lists all methods there are

        model = cast(InstantAvatarModel, eval_setup(config_path, test_mode="inference")[1].model)
        motions = [place(path, model, options) for path in self.motion]
        pose = self._pose(model, motions)
        if self.show == "coverage":
            model.unseen.require_coverage()
        colors = model.coverage_renderer.avatar.field if self.show == "coverage" else model.field
        avatar = AvatarMesh(model, model_surface(model, self.voxel_size, self.max_faces), colors)
        if self.format == "glb":
            if options.loop > 0 and options.transition == 0:
                motions = [closed(motion) for motion in motions]
            for motion, edit in zip(motions, edited, strict=True):
                if jump := describe_jump(edit, options):
                    CONSOLE.log(f"{motion.name}: players repeat clips. {jump}.")
            files = {output.name: avatar.glb(motions, self.texture_size)}
        elif self.format == "ply":
            files = {output.name: avatar.ply(pose)}
        else:
            files = avatar.obj(output.stem, pose, self.texture_size)
        write_files(output.parent, files)
        megabytes = sum(map(len, files.values())) / 1e6
        CONSOLE.print(f"{output}: {len(avatar.surface.faces)} triangles, {megabytes:.1f} MB", soft_wrap=True)
        return output

    def _check(self) -> None:
        for option, (least, most) in _RANGES.items():
            value = getattr(self, option)
            if not least <= value <= most:
                flag = "--" + option.replace("_", "-")
                raise InputError(flag, f"expected {least} to {most}, found {value}", "Give a number in this range")
        if self.output is not None:
            self._check_output(self.output)
        names = [path.stem for path in self.motion]
        if self.format == "glb":
            if self.frame is not None:
                raise InputError("--frame", "expected with --format ply or obj only", "A GLB holds whole motions")
            if len(set(names)) < len(names):
                raise InputError("--motion", f"expected different names, found {', '.join(names)}", "Rename a file")
        elif self.motion and (self.frame is None or len(self.motion) > 1):
            found = f"{len(self.motion)} motions and {'no frame' if self.frame is None else 'a frame'}"
            raise InputError("--motion", f"expected one motion and a frame of it, found {found}", "Add --frame 0")

    def _check_output(self, output: Path) -> None:
        if output.suffix != f".{self.format}":
            raise InputError(output, f"expected a name ending in .{self.format}", "Give another --output or --format")
        for suffix in (".mtl", ".png", ".obj") if self.format == "obj" else (output.suffix,):
            if output.with_suffix(suffix).exists():
                advice = "Give another --output, or delete the file if you no longer need it"
                raise InputError(output.with_suffix(suffix), "expected no such file yet", advice)

    def _pose(self, model: InstantAvatarModel, motions: list[Motion]) -> PosedBody:
        """The pose that a PLY or OBJ shows."""
        if self.frame is None:
            return model.poses.rest
        count = len(motions[0]) if motions else model.subject.num_train
        if not 0 <= self.frame < count:
            raise InputError("--frame", f"expected 0 to {count - 1}, found {self.frame}", "Give a frame that exists")
        if not motions:
            return model.poses.frame(self.frame)
        return model.poses.posed(motions[0])[self.frame]
