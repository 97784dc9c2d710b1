"""The result of any tool that is known, recognised by what its files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instantavatar_ns.importing.result import ToolResult
from instantavatar_ns.importing.tools import gvhmr, nlf, phalp, prompthmr, romp, sam3d_body, smplerx, tram, wham
from instantavatar_ns.motion.pose_archives import read_content
from instantavatar_ns.motion.smpl_arrays import described
from instantavatar_ns.utils.errors import InputError

_FILES = (gvhmr, prompthmr, nlf, phalp, wham, sam3d_body)
_FOLDERS = (tram, smplerx)
_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".npz", ".npy")
_KNOWN = "ROMP, 4D-Humans (PHALP), WHAM, GVHMR, TRAM, PromptHMR, SMPLer-X, NLF or SAM 3D Body"
_ADVICE = f"Give the result of {_KNOWN} as the tool wrote it; poses of other tools go into poses.npz (docs/data.md)"


def read_result(path: Path) -> ToolResult:
    """Read a pose estimator's result.

    Args:
        path: Its file, or the folder that it wrote.

    Raises:
        InputError: It is missing, damaged, of no known tool, incomplete, holds NaN or nobody, or asks for code to be
            run, which is not done.
    """
    if not path.exists():
        raise InputError(path, "expected a pose estimator's result, found no such file or folder", _ADVICE)
    result = _read_folder(path) if path.is_dir() else _read_file(path)
    if not any(len(track) for track in result.tracks.values()):
        message = f"expected a person in {result.tool}'s result, found none"
        raise InputError(path, message, "Run the tool on a video in which it finds the person")
    return result


def _read_folder(folder: Path) -> ToolResult:
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
        return _read_file(whole[0])
    contents = {path: read_content(path) for path in whole}
    if all(romp.is_frame(content) for content in contents.values()):
        return romp.read_frames(folder, {path.name: content["results"] for path, content in contents.items()})
    if all(sam3d_body.is_person(content) for content in contents.values()):
        return sam3d_body.read_folder(folder, {path.stem: content for path, content in contents.items()})
    known = [path for path, content in contents.items() if _recognised(content)]
    if len(known) == 1:
        return _of_content(known[0], contents[known[0]])
    names = ", ".join(path.name for path in (known or whole)[:5])
    raise InputError(folder, f"expected one result, found {names}", f"Give the file itself. {_ADVICE}")


def _read_file(path: Path) -> ToolResult:
    return _of_content(path, read_content(path))


def _recognised(content: Any) -> bool:
    return romp.is_video(content) or any(tool.matches(content) for tool in _FILES)


def _of_content(path: Path, content: Any) -> ToolResult:
    if romp.is_video(content):
        return romp.read_video(path, content)
    if romp.is_frame(content):
        return romp.read_frames(path, {path.name: content["results"]})
    for tool in _FILES:
        if tool.matches(content):
            return tool.read(path, content)
    advice = _ADVICE
    if isinstance(content, dict) and {"pred_rotmat", "pred_cam_R"} & set(content):
        advice = "This is a part of TRAM's result: give the folder that holds camera.npy and hps/"
    raise InputError(path, f"expected a pose estimator's result, found {described(content)}", advice)
