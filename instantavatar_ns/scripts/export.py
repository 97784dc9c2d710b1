"""`instant-avatar export`: the avatar as a mesh for Blender, Unity, three.js and everything else that reads glTF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, cast

import tyro
from nerfstudio.utils.rich_utils import CONSOLE

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.export.avatar import AvatarMesh, model_surface
from instantavatar_ns.export.bone_names import with_mixamo_names
from instantavatar_ns.export.compression import check_meshoptimizer, with_packed_buffers, with_webp_texture
from instantavatar_ns.export.humanoid import humanoid_bones
from instantavatar_ns.export.mesh_files import png_bytes
from instantavatar_ns.export.motions import closed, place
from instantavatar_ns.export.normal_map import with_normal_map
from instantavatar_ns.export.page.avatar_page import Detail, avatar_page, splat_page
from instantavatar_ns.export.photographs import Photographs
from instantavatar_ns.export.splats.avatar_splats import AvatarSplats, Effort
from instantavatar_ns.export.usdz import check_openusd, usdz_bytes
from instantavatar_ns.export.vrm import VrmMeta, vrm_files, vrma_name
from instantavatar_ns.importing import motions as _tool_motions  # noqa: F401  # lets --motion be a pose estimator's result
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.editing import MotionOptions, describe_jump, edit_motion
from instantavatar_ns.motion.free_motions import library_names
from instantavatar_ns.motion.motion import Motion, load_motion
from instantavatar_ns.scripts.run_folder import open_run, write_variant
from instantavatar_ns.unseen.shown import CoverageField
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import write_files

_ANIMATED = ("glb", "html", "vrm", "usdz", "splat")
_SHOWS_A_FRAME = ("ply", "obj", "splat")
# Options of some formats: the formats, and what they are where they are not given.
_OF_SOME_FORMATS = {
    "material": (("glb",), "unlit"),
    "texture_format": (("glb",), "png"),
    "compression": (("glb",), "none"),
    "bone_names": (("glb",), "smpl"),
    "title": (("html",), None),
    "vrm": (("vrm",), VrmMeta()),
    "splats": (("splat", "html"), None),
}
_RANGES = {
    "voxel_size": (0.001, 0.05),
    "max_faces": (500, 2_000_000),
    "texture_size": (64, 8192),
    "splats": (100, 1_000_000),
}


@dataclass
class Export:
    """Write the avatar as a mesh: GLB, VRM, USDZ or a page with skeleton, texture and motions, or a pose as PLY or OBJ.

    Or as Gaussian splats, fitted to images of the avatar, with a skeleton and in one pose.

    All are in metres with y up and the floor at y = 0. The rest pose is the A-pose that the avatar was learnt in, and
    VRM's T-pose in a VRM.
    """

    load_config: Path
    """The run's config.yml."""
    format: Literal["glb", "html", "vrm", "usdz", "ply", "obj", "splat"] = "glb"
    """"glb": skinned, textured and animated. "html": a page to send, with the same in it. "vrm": VRM 1.0, with its
    author's terms (--vrm...), and a VRMA file a motion. "usdz": with one motion, for Apple's phones; needs the extra
    `usd`. "ply": one pose, a colour per vertex. "obj": one pose, textured. "splat": skinned, animated Gaussian splats
    as a GLB (KHR_gaussian_splatting), and a pose of them as PLY."""
    output: Path | None = None
    """File to write, which must not exist yet; by default export/avatar.<format> in the run's folder, replaced, and
    avatar_splats.glb and .ply for splats."""
    motion: tuple[Path, ...] = ()
    """Motions: the clips of a GLB or a page, which has all that come along where none is named; the files beside a VRM;
    the one clip of a USDZ; for PLY and OBJ the one that --frame counts in. Files and folders as of animate --motion."""
    frame: int | None = None
    """For PLY, of splats too, and OBJ: the frame to show, of the motion or else of the training sequence; by default
    the A-pose."""
    voxel_size: float = 0.005
    """Distance of the samples of the density, metres."""
    max_faces: int = 30_000
    """Triangles to keep."""
    texture_size: int = 1024
    """Height and width of the texture, texels."""
    material: Literal["unlit", "lit"] = "unlit"
    """Of a GLB: "unlit" shows colours as recorded; "lit" lets programs light them once more, and has a normal map."""
    texture_format: Literal["png", "webp"] = "png"
    """Of a GLB: "webp" is smaller, and not read by Blender before 4.0 and some engines."""
    compression: Literal["none", "meshopt"] = "none"
    """Of a GLB: "meshopt" packs mesh and clips, for browsers; needs the extra `meshopt`."""
    bone_names: Literal["smpl", "mixamo"] = "smpl"
    """Of a GLB: SMPL's "left_hip", or Mixamo's "LeftUpLeg", by which engines find motions for the skeleton."""
    colors: Literal["photographs", "field", "coverage"] = "photographs"
    """Texture: "photographs" averages the training frames that see a place; "field" is the avatar's own colour;
    "coverage" is what the training views saw: red nothing, yellow one side, green many sides."""
    splats: int | None = None
    """Number of splats; by default 40000 on a GPU, and 8000 on a CPU, whose images are smaller. A page shows that many
    in the place of the mesh, which it does without this option."""
    title: str | None = None
    """Of a page: the person's name; by default that of the experiment."""
    motion_options: Annotated[MotionOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=MotionOptions)
    """Edits of the motions."""
    vrm: VrmMeta = field(default_factory=VrmMeta)
    """Author and terms of a VRM."""

    def main(self) -> Path:
        """Export, and return the file's path.

        Raises:
            InputError: An option, the run or a motion cannot be used; nothing is written then.
        """
        self._check()
        options = self.motion_options
        self._take_free_motions()
        # Whatever is wrong with a motion is found before anything is written.
        edited = [edit_motion(load_motion(path, options.source_fps, options.up), options) for path in self.motion]
        config_path = write_variant(self.load_config, "export", lambda pipeline: None)
        name = "avatar_splats.glb" if self.format == "splat" else f"avatar.{self.format}"
        output = self.output or config_path.with_name(name)
        pipeline, _ = open_run(config_path)
        model = cast(InstantAvatarModel, pipeline.model)
        if self.format == "vrm":
            humanoid_bones(model.poses.body.rig.joint_names)
        motions = [place(path, model, options) for path in self.motion]
        pose = self._pose(model, motions)
        if self.colors == "coverage":
            model.unseen.require_coverage()
        shade = CoverageField(model.unseen, model.field) if self.colors == "coverage" else model.field
        photographs = Photographs.of_training(cast(AvatarDataset, pipeline.datamanager.train_dataset), model)

        @cache
        def mesh_of(faces: int) -> AvatarMesh:
            surface = model_surface(model, self.voxel_size, faces, photographs)
            return AvatarMesh(model, surface, photographs if self.colors == "photographs" else None, shade)

        if self.format in _ANIMATED:
            if options.loop > 0 and options.transition == 0:
                motions = [closed(motion) for motion in motions]
            for motion, edit in zip(motions, edited, strict=True):
                if jump := describe_jump(edit, options):
                    CONSOLE.log(f"{motion.name}: players repeat clips. {jump}.")
        name = self.load_config.resolve().parents[2].name
        files, avatar = self._files(output, name, mesh_of, motions, pose)
        write_files(output.parent, files)
        megabytes = sum(map(len, files.values())) / 1e6
        size = "" if self.format == "splat" or self.splats else f"{len(avatar.surface.faces)} triangles, "
        CONSOLE.print(f"{output}: {size}{megabytes:.1f} MB", soft_wrap=True)
        if len(files) > 1:
            CONSOLE.print(f"with {', '.join(name for name in files if name != output.name)}", soft_wrap=True)
        return output

    def _files(
        self, output: Path, name: str, mesh_of: Callable[[int], AvatarMesh], motions: list[Motion], pose: PosedBody
    ) -> tuple[dict[str, bytes], AvatarMesh]:
        """The files to write by their names, and the mesh that is in them."""
        avatar = mesh_of(self.max_faces)
        if self.format == "glb":
            return {output.name: self._finished(avatar.glb(motions, self.texture_size), avatar)}, avatar
        if self.format == "html":
            content, avatar = self._page(name, mesh_of, motions)
            return {output.name: content}, avatar
        if self.format == "vrm":
            meta = replace(self.vrm, name=self.vrm.name or name)
            return vrm_files(output.stem, avatar.rigged(self.texture_size), motions, meta), avatar
        if self.format == "usdz":
            rigged = avatar.rigged(self.texture_size)
            return {output.name: usdz_bytes(rigged, rigged.clip(motions[0]) if motions else None)}, avatar
        if self.format == "splat":
            splats = AvatarSplats(avatar, Effort.on(avatar.model.device, self.splats))
            return splats.files(output.stem, motions, pose), avatar
        posed = {output.name: avatar.ply(pose)} if self.format == "ply" else None
        return posed or avatar.obj(output.stem, pose, self.texture_size), avatar

    def _page(self, name: str, mesh_of: Callable[[int], AvatarMesh], motions: list[Motion]) -> tuple[bytes, AvatarMesh]:
        title = self.title or name
        if self.splats is None:
            return avatar_page(title, mesh_of, motions, Detail(self.max_faces, self.texture_size))
        avatar = mesh_of(self.max_faces)
        splats = AvatarSplats(avatar, Effort.on(avatar.model.device, self.splats))
        return splat_page(title, splats, motions, self.texture_size), avatar

    def _finished(self, glb: bytes, avatar: AvatarMesh) -> bytes:
        if self.material == "lit":
            glb = with_normal_map(glb, png_bytes(avatar.normal_map(self.texture_size)))
        if self.bone_names == "mixamo":
            glb = with_mixamo_names(glb)
        if self.texture_format == "webp":
            glb = with_webp_texture(glb)
        return with_packed_buffers(glb) if self.compression == "meshopt" else glb

    def _take_free_motions(self) -> None:
        """Let a page that nobody gave motions have those that come along."""
        if self.format == "html" and not self.motion:
            self.motion = tuple(map(Path, library_names()))
            CONSOLE.log(f"No --motion is given: the page gets {', '.join(library_names())}.")

    def _check(self) -> None:
        for option, (least, most) in _RANGES.items():
            value = getattr(self, option)
            if value is not None and not least <= value <= most:
                message = f"expected {least} to {most}, found {value}"
                raise InputError(_flag(option), message, "Give a number in this range")
        for option, (formats, usual) in _OF_SOME_FORMATS.items():
            if getattr(self, option) != usual and self.format not in formats:
                message = f"expected with --format {' or '.join(formats)} only, found --format {self.format}"
                raise InputError(_flag(option), message, "Leave it out, or give the other format")
        if self.compression == "meshopt":
            check_meshoptimizer()
        if self.format == "vrm":
            self.vrm.check()
        if self.format == "usdz":
            check_openusd()
        if self.output is not None:
            self._check_output(self.output)
        self._check_motions()

    def _check_motions(self) -> None:
        names = [path.stem for path in self.motion]
        if self.format not in _ANIMATED:
            if self.motion and (self.frame is None or len(names) > 1):
                found = f"{len(names)} motions and {'no frame' if self.frame is None else 'a frame'}"
                raise InputError("--motion", f"expected one motion and a frame of it, found {found}", "Add --frame 0")
            return
        if self.frame is not None and self.format not in _SHOWS_A_FRAME:
            found = f"expected with --format ply, obj or splat only, found --format {self.format}"
            raise InputError("--frame", found, "Leave it out: the file holds whole motions")
        if self.frame is not None and len(names) > 1:
            message = f"expected one motion, of which the PLY shows a frame, found {len(names)}"
            raise InputError("--motion", message, "Leave --frame or motions out")
        if self.format == "usdz" and len(names) > 1:
            message = f"expected one motion for a USDZ, which holds one clip, found {len(names)}"
            raise InputError("--motion", message, "Write a file for each, or a GLB")
        if len(set(names)) < len(names):
            raise InputError("--motion", f"expected different names, found {', '.join(names)}", "Rename a file")

    def _check_output(self, output: Path) -> None:
        ending = ".glb" if self.format == "splat" else f".{self.format}"
        if output.suffix != ending:
            raise InputError(output, f"expected a name ending in {ending}", "Give another --output or --format")
        suffixes = {"obj": (".mtl", ".png", ".obj"), "splat": (".ply", ".glb")}.get(self.format, (ending,))
        paths = [output.with_suffix(suffix) for suffix in suffixes]
        if self.format == "vrm":
            paths += [output.with_name(vrma_name(output.stem, path.stem)) for path in self.motion]
        for path in paths:
            if path.exists():
                advice = "Give another --output, or delete the file if you no longer need it"
                raise InputError(path, "expected no such file yet", advice)

    def _pose(self, model: InstantAvatarModel, motions: list[Motion]) -> PosedBody:
        """The pose that a PLY or OBJ shows, of splats too."""
        if self.frame is None:
            return model.poses.rest
        count = len(motions[0]) if motions else model.subject.num_train
        if not 0 <= self.frame < count:
            raise InputError("--frame", f"expected 0 to {count - 1}, found {self.frame}", "Give a frame that exists")
        if not motions:
            return model.poses.frame(self.frame)
        return model.poses.posed(motions[0])[self.frame]


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")
