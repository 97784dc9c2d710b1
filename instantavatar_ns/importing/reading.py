"""The result of any tool that is known, recognised by what its files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instantavatar_ns.importing.result import Space, ToolResult
from instantavatar_ns.importing.tools import gvhmr, nlf, phalp, prompthmr, romp, sam3d_body, smplerx, tram, wham
from instantavatar_ns.motion.pose_archives import read_content
from instantavatar_ns.motion.smpl_arrays import described
from instantavatar_ns.utils.errors import InputError

_WITH_WORLD = (gvhmr, prompthmr, wham)
_ALONE = (nlf, phalp, sam3d_body)
_FILES = (*_WITH_WORLD, *_ALONE)
_FOLDERS = (tram, smplerx)
_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".npz", ".npy")
_KNOWN = "ROMP, 4D-Humans (PHALP), WHAM, GVHMR, TRAM, PromptHMR, SMPLer-X, NLF or SAM 3D Body"
_ADVICE = f"Give the result of {_KNOWN} as the tool wrote it; poses of other tools go into poses.npz (docs/data.md)"


def read_result(path: Path, space: Space = "camera") -> ToolResult:
    """Read a pose estimator's result.

    Args:
        path: Its file, or the folder that it wrote.
        space: Which poses to prefer where the tool wrote them in the camera and in the world.

    Raises:
        InputError: It is missing, damaged, of no known tool, incomplete, holds NaN or nobody, or asks for code to be
            run, which is not done.
    """
    if not path.exists():
        raise InputError(path, "expected a pose estimator's result, found no such file or folder", _ADVICE)
    if not path.is_dir():
        return result_of_content(path, read_content(path), space)
    return _with_somebody(path, _read_folder(path, space))


def result_of_content(path: Path, content: Any, space: Space = "camera") -> ToolResult:
    """Interpret the content of a file as a pose estimator's result.

    Args:
        path: The file, for errors.
        content: As of `read_content`.
        space: As of `read_result`.

    Raises:
        InputError: See `read_result`.
    """
    return _with_somebody(path, _of_content(path, content, space))


def is_result(content: Any) -> bool:
    """Find out if the content of a file is a result of all images of a video."""
    return romp.is_video(content) or any(tool.matches(content) for tool in _FILES)


def _with_somebody(path: Path, result: ToolResult) -> ToolResult:
    if not any(len(track) for track in result.tracks.values()):
        message = f"expected a person in {result.tool}'s result, found none"
        raise InputError(path, message, "Run the tool on a video in which it finds the person")
    return result


def _read_folder(folder: Path, space: Space) -> ToolResult:
    for tool in _FOLDERS:
        if tool.matches(folder):
            return tool.read(folder)
    if folder.name == "smplx" and smplerx.matches(folder.parent):
        return smplerx.read(folder.parent)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.name[0] != ".")
    whole = [path for path in files if path.stem == "video_results"] or files
    if not whole:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise InputError(folder, f"expected a pose estimator's result, found {found}", _ADVICE)
    if len(whole) == 1:
        return _of_content(whole[0], read_content(whole[0]), space)
    contents = {path: read_content(path) for path in whole}
    if all(romp.is_frame(content) for content in contents.values()):
        return romp.read_frames(folder, {path.name: content["results"] for path, content in contents.items()})
    if all(sam3d_body.is_person(content) for content in contents.values()):
        return sam3d_body.read_folder(folder, {path.stem: content for path, content in contents.items()})
    known = [path for path, content in contents.items() if is_result(content)]
    if len(known) == 1:
        return _of_content(known[0], contents[known[0]], space)
    names = ", ".join(path.name for path in (known or whole)[:5])
    raise InputError(folder, f"expected one result, found {names}", f"Give the file itself. {_ADVICE}")


def _of_content(path: Path, content: Any, space: Space) -> ToolResult:
    if romp.is_video(content):
        return romp.read_video(path, content)
    if romp.is_frame(content):
        return romp.read_frames(path, {path.name: content["results"]})
    for tool in _WITH_WORLD:
        if tool.matches(content):
            return tool.read(path, content, space)
    for tool in _ALONE:
        if tool.matches(content):
            return tool.read(path, content)
    advice = _ADVICE
    if isinstance(content, dict) and {"pred_rotmat", "pred_cam_R"} & set(content):
        advice = "This is a part of TRAM's result: give the folder that holds camera.npy and hps/"
    raise InputError(path, f"expected a pose estimator's result, found {described(content)}", advice)
