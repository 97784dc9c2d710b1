"""Checkpoints to go on from: which file it is, whether it is whole, and whether it fits the model."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.base_model import ModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from instantavatar_ns.utils.errors import InputError, explain_with

_NAME = re.compile(r"step-(\d+)\.ckpt")
_CONTENT = ("step", "pipeline", "optimizers", "scalers")
# Options of the model on which the sizes of its parameters depend.
_SIZES = (
    "hash_levels",
    "log2_hash_entries",
    "hidden_width",
    "skinning_resolution",
    "refine_poses",
    "pose_knot_spacing",
)
_SAME_BOX = 1e-4  # metres


def checkpoint_to_resume(config: TrainerConfig) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that `load_dir` and `load_step`, or `load_checkpoint`, ask for, and its file; None without them.

    `load_dir` is the folder of a run or that of its checkpoints. Unless `load_step` chooses one, it is the newest, or,
    where that is damaged, the newest that is whole; which is said.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    if config.load_dir is None:
        return None if config.load_checkpoint is None else (config.load_checkpoint, read(config.load_checkpoint))
    checkpoints = _checkpoints(config.load_dir)
    if config.load_step is not None:
        if config.load_step not in checkpoints:
            there = ", ".join(map(str, checkpoints))
            message = f"expected a checkpoint of step {config.load_step}, found those of {there}"
            raise InputError(config.load_dir, message, "Give another load-step, or none for the newest")
        path = checkpoints[config.load_step]
        return path, read(path)
    damaged: InputError | None = None
    for path in checkpoints.values():
        try:
            content = read(path)
        except InputError as error:
            damaged = damaged or error
            continue
        if damaged is not None:
            CONSOLE.log(f"[yellow]{damaged} It goes on from {path.name}, the newest that is whole.[/yellow]")
        return path, content
    assert damaged is not None
    raise damaged


def read(path: Path) -> dict[str, Any]:
    """Content of a checkpoint's file, on the CPU; nothing but tensors and numbers is unpickled.

    Raises:
        InputError: There is no such file, it is damaged, or it is something else.
    """
    if not path.is_file():
        raise InputError(path, "expected a checkpoint, found no such file", "Give a file step-<number>.ckpt of a run")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError) as error:
        message = f"expected a whole checkpoint, found a damaged one of {path.stat().st_size} bytes, maybe cut off"
        raise InputError(path, message, "Copy it anew, or use an older checkpoint of the run") from error
    except pickle.UnpicklingError as error:
        message = "expected a checkpoint, found something else, of which nothing was run"
        raise InputError(path, message, "Give a file step-<number>.ckpt of a run") from error
    if not isinstance(content, dict) or not all(name in content for name in _CONTENT):
        message = f"expected a checkpoint of nerfstudio, with {', '.join(_CONTENT)}, found something else"
        raise InputError(path, message, "Give a file step-<number>.ckpt of a run")
    return content


@explain_with
def _explain(traceback: TracebackType | None) -> InputError | None:
    """Explain why ns-eval, ns-render or ns-viewer could not read a checkpoint; None of other errors.

    nerfstudio's function for all three reads the file itself.
    """
    for frame, _ in walk_tb(traceback):
        if frame.f_code.co_name == "eval_load_checkpoint":
            try:
                if "load_path" in frame.f_locals:
                    read(frame.f_locals["load_path"])
                else:
                    checkpoint_to_resume(frame.f_locals["config"])
            except InputError as found:
                return found
    return None


def _checkpoints(folder: Path) -> dict[int, Path]:
    """Files by their step, the newest first."""
    if folder.is_file():
        message = "expected the folder of a run, found a file"
        raise InputError(folder, message, "Give a checkpoint's file with --load-checkpoint in place of --load-dir")
    if not folder.is_dir():
        message = "expected the folder of a run, found no such folder"
        raise InputError(
            folder, message, "Check --load-dir; runs are at <output-dir>/<experiment-name>/<method>/<time>"
        )
    inside = folder / "nerfstudio_models"
    files = (inside if inside.is_dir() else folder).iterdir()
    numbers = {int(match[1]): path for path in files if (match := _NAME.fullmatch(path.name))}
    if not numbers:
        runs = sorted({str(path.parent.parent) for path in folder.glob("*/**/step-*.ckpt")})
        advice = f"Give the run itself: {', '.join(runs[-3:])}" if runs else "Train first, without --load-dir"
        raise InputError(
            folder, "expected the folder of a run with checkpoints (step-<number>.ckpt), found none", advice
        )
    return dict(sorted(numbers.items(), reverse=True))


def check_options(path: Path, of_run: ModelConfig, given: ModelConfig) -> None:
    """Compare options on which the sizes of the model depend with those that a checkpoint's run had.

    Args:
        path: The checkpoint, for errors.
        of_run: Options of the checkpoint's run.
        given: Options of this run.

    Raises:
        InputError: Some differ.
    """
    differ = [name for name in _SIZES if getattr(of_run, name) != getattr(given, name)]
    if differ:
        values = [f"{name} {getattr(of_run, name)} (now {getattr(given, name)})" for name in differ]
        options = []
        for name in differ:
            value = getattr(of_run, name)
            value = " ".join(map(str, value)) if isinstance(value, tuple) else value
            options.append(f"--pipeline.model.{name.replace('_', '-')} {value}")
        advice = f"Add {' '.join(options)}, or train anew without --load-dir"
        raise InputError(path, f"expected a checkpoint of a model of the same size, found {', '.join(values)}", advice)


def check_fit(data: Path | None, model: Mapping[str, Tensor], checkpoint: Mapping[str, Tensor]) -> None:
    """Compare a model's state with that of a checkpoint.

    Args:
        data: Folder that the model's frames, poses and body come from.
        model: State of the model.
        checkpoint: State that is to replace it, by the same names.

    Raises:
        InputError: It is that of other data or of other options.
    """
    folder = data or "--data"
    shapes = {name: (value.shape, checkpoint[name].shape) for name, value in model.items() if name in checkpoint}
    differ = {name for name, (ours, theirs) in shapes.items() if ours != theirs}
    if "field.encoding.params" not in checkpoint:
        raise InputError("checkpoint", "expected that of an avatar, found another method's", "Give another --load-dir")
    if ("pose_refinement.remainders" in model) != ("pose_refinement.remainders" in checkpoint):
        was = "pose_refinement.remainders" in checkpoint
        message = f"expected {not was}, as it is now, found a checkpoint of a run with {was}"
        raise InputError("--pipeline.model.refine-poses", message, f"Add --pipeline.model.refine-poses {was}")
    if "pose_refinement.remainders" in differ:
        ours, theirs = (shape[0] for shape in shapes["pose_refinement.remainders"])
        message = f"expected the {theirs} training frames that the checkpoint has learnt from, found {ours}"
        advice = "Put the folder and its split back as they were, or train anew"
        raise InputError(folder, message, advice)
    field = {name for name in differ if name.startswith("field.")}
    if field:
        sizes = ", ".join(
            f"{name} of {tuple(shapes[name][1])} (now {tuple(shapes[name][0])})" for name in sorted(field)
        )
        message = f"expected the same size of the field as now, found a checkpoint with {sizes}"
        options = "--pipeline.model.hash-levels, .log2-hash-entries and .hidden-width"
        raise InputError("checkpoint", message, f"Give {options} as in the config.yml of its run")
    boxes = model["canonical_occupancy.aabbs"].cpu(), checkpoint["canonical_occupancy.aabbs"].cpu()
    if not torch.allclose(*boxes, rtol=0, atol=_SAME_BOX):
        message = "expected the body that the checkpoint has learnt, found one of another shape"
        raise InputError(
            folder, message, "Put back the body model, the betas and body_model as they were, or train anew"
        )
    if differ and all(name.startswith("union_grid.") for name in differ):
        message = "expected the training poses that the checkpoint has learnt from, found some that take other space"
        raise InputError(folder, message, "Choose the same poses and split as for the run, or train anew")
    if differ:
        message = f"expected the model that the checkpoint has learnt; {', '.join(sorted(differ))} have another size"
        advice = "Put poses and options back as they were (the config.yml of the run holds them), or train anew"
        raise InputError(folder, message, advice)
