"""`instant-avatar refined-poses`: the corrected training poses of a run, as files that load again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.table import Table
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.poses import PoseSequence, posed_joints
from instantavatar_ns.correction.pose_error import PoseError, joint_rotations, pose_error
from instantavatar_ns.correction.refinement import PoseRefinement
from instantavatar_ns.data.folder import list_images
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.data.pose_files import find_pose_file, read_split_poses
from instantavatar_ns.data.splits import choose_split
from instantavatar_ns.data.subject import Subject, subject_of
from instantavatar_ns.scripts.run_folder import pipeline_of, write_variant
from instantavatar_ns.training.checkpoints import read
from instantavatar_ns.training.run_config import load_run_config
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import written_whole
from instantavatar_ns.utils.npz import read_npz


class Errors(NamedTuple):
    """Distance of poses from the true ones.

    Attributes:
        rotations: Of the joints relative to their parents.
        joints_mm: Mean distance of the joints' positions in the data set's world, millimetres, both with the joints of
            the body model: turns that nothing shows, such as the twist of a wrist, count little.
    """

    rotations: PoseError
    joints_mm: float


@dataclass
class RefinedPoses:
    """Write a run's corrected poses in the layout of the poses it was given.

    Poses of all images of the recording (poses.npz) become refined.npz, in which frames that were not trained on keep
    the given pose; poses of a split become refined_train.npz and refined_test.npz. Put into the recording's folder
    poses/, they are used by `--poses refined`.
    """

    load_config: Path
    """The run's config.yml."""
    output_dir: Path | None = None
    """Folder to write to; by default poses/ in the run's folder. Elsewhere no file is replaced."""
    truth: str | None = None
    """Name of true poses in the recording's folder: print how far the given and the corrected poses are from them."""

    def main(self) -> list[Path]:
        """Write, and return the paths of the files.

        Raises:
            InputError: The run has no corrected poses, a file exists already, or there are no poses named `truth`.
        """
        config = write_variant(self.load_config, "poses", lambda pipeline: None)
        _, test, refined = load_refined(config)
        folder = self.output_dir or config.parent
        files = self._layout(config, refined, test)
        for name in files:
            if self.output_dir is not None and (folder / name).exists():
                raise InputError(folder / name, "expected no such file yet", "Give another output-dir, or move it away")
        for name, arrays in files.items():
            with written_whole(folder / name) as partial:
                np.savez(partial, **arrays)
        paths = [folder / name for name in files]
        CONSOLE.print("Corrected poses:", *paths)
        if self.truth is not None:
            print_errors(*self.errors(self.truth))
        return paths

    def errors(self, truth: str) -> tuple[Errors, Errors]:
        """Errors of the given and of the corrected training poses against those of a file; see `truth`.

        Raises:
            InputError: The run is not on InstantAvatar's layout, or there are no poses of that name.
        """
        config = write_variant(self.load_config, "poses", lambda pipeline: None)
        dataparser = pipeline_of(load_run_config(config)).datamanager.dataparser
        if not isinstance(dataparser, InstantAvatarDataParserConfig):
            raise InputError(self.load_config, "expected a run on InstantAvatar's layout", "Leave truth out")
        count = len(list_images(dataparser.data))
        numbers = choose_split(dataparser.data, count, dataparser.train_frames, dataparser.test_frames).train
        true = read_split_poses(dataparser.data, truth, "train", numbers, count)
        true = true.rows([numbers.index(number) for number in _trained_frames(dataparser)])
        given, _, refined = load_refined(config)
        body = _subject(dataparser).load_body()
        true_joints = posed_joints(body, true)

        def error(poses: PoseSequence) -> Errors:
            distance = (posed_joints(body, poses) - true_joints).norm(dim=-1).mean()
            return Errors(pose_error(joint_rotations(poses), joint_rotations(true)), 1000 * float(distance))

        return error(given), error(refined)

    def _layout(self, config: Path, refined: PoseSequence, test: PoseSequence) -> dict[str, dict[str, np.ndarray]]:
        """Arrays of each file to write, by its name."""
        dataparser = pipeline_of(load_run_config(config)).datamanager.dataparser
        if isinstance(dataparser, InstantAvatarDataParserConfig):
            source, covers_split = find_pose_file(dataparser.data, dataparser.poses, "train")
            if not covers_split:
                return {"refined.npz": self._whole(dataparser, source, refined)}
        refined, test = _with_skipped_frames(dataparser, refined, test)
        return {"refined_train.npz": _arrays(refined), "refined_test.npz": _arrays(test)}

    @staticmethod
    def _whole(dataparser: InstantAvatarDataParserConfig, source: Path, refined: PoseSequence) -> dict[str, np.ndarray]:
        """The given file's arrays, with the training frames' rows replaced."""
        data = dataparser.data
        count = len(list_images(data))
        given = read_split_poses(data, source.stem, None, range(count), count)
        poses = _with_frames(given, _trained_frames(dataparser), refined)
        keys = read_npz(source, "SMPL poses", "Give an .npz") if source.suffix == ".npz" else {}
        whole = next((key for key in ("thetas", "poses", "smpl_poses", "pose") if key in keys), None)
        if whole is None or "global_orient" in keys:
            return _arrays(poses)
        transl = next((key for key in ("transl", "trans") if key in keys), "transl")
        thetas = poses.axis_angles.flatten(1).numpy()
        return {"betas": poses.betas.numpy()[None], whole: thetas, transl: poses.transl.numpy()}


def _trained_frames(dataparser: DataParserConfig) -> list[int]:
    """Numbers of the training frames, without those that were left out because nobody is in them."""
    return _subject(dataparser).train_numbers.tolist()


def _subject(dataparser: DataParserConfig) -> Subject:
    return subject_of(dataparser.setup().get_dataparser_outputs("train").metadata)


def _with_skipped_frames(
    dataparser: DataParserConfig, refined: PoseSequence, test: PoseSequence
) -> tuple[PoseSequence, PoseSequence]:
    """Poses of all training and held-out frames: those left out, because nobody is in them, keep the given ones."""
    if not getattr(dataparser, "skip_frames_without_person", False):
        return refined, test
    trained = _trained_frames(dataparser)
    whole = replace(dataparser, skip_frames_without_person=False)  # pyright: ignore[reportCallIssue]
    subject = _subject(whole)
    numbers, poses = subject.train_numbers.tolist(), subject.poses
    rows, count = [numbers.index(number) for number in trained], len(numbers)
    return _with_frames(poses.rows(slice(count)), rows, refined), poses.rows(slice(count, None))


def _with_frames(given: PoseSequence, rows: list[int], refined: PoseSequence) -> PoseSequence:
    """Poses of which some rows are others', all of the given shape."""
    angles, transl = given.axis_angles.clone(), given.transl.clone()
    angles[rows], transl[rows] = refined.axis_angles, refined.transl
    return given.with_pose(angles, transl)


def load_refined(config_path: Path) -> tuple[PoseSequence, PoseSequence, PoseSequence]:
    """Given poses of the training frames, those of the held-out frames, and the corrected ones of the training frames.

    Args:
        config_path: A run's configuration, with the data's absolute path.

    Raises:
        InputError: The run has no checkpoint that can be read, or its poses were not corrected.
    """
    config = load_run_config(config_path)
    pipeline = pipeline_of(config)
    folder = config.get_checkpoint_dir()
    checkpoints = sorted(folder.glob("step-*.ckpt"))
    if not checkpoints:
        raise InputError(folder, "expected a checkpoint, found none", "Train the run first")
    state = read(checkpoints[-1])["pipeline"]
    corrections = {key.rpartition(".")[2]: value for key, value in state.items() if ".pose_refinement." in key}
    if not corrections:
        advice = "Train with --pipeline.model.refine-poses True, which is the default"
        raise InputError(config_path, "expected a run whose poses were corrected, found one without", advice)
    subject = _subject(pipeline.datamanager.dataparser)
    spacing, train = pipeline.model.pose_knot_spacing, subject.train_poses
    refinement = PoseRefinement.of_training_frames(subject, subject.load_body(), spacing)
    refinement.load_state_dict(corrections)
    return train, subject.poses.rows(slice(subject.num_train, None)), corrected_sequence(train, refinement)


def corrected_sequence(given: PoseSequence, refinement: PoseRefinement) -> PoseSequence:
    """Return corrected poses as SMPL parameters.

    Args:
        given: The poses that were corrected.
        refinement: Their corrections.
    """
    with torch.no_grad():
        rotations, transl = refinement.corrected()
    vectors = Rotation.from_matrix(rotations.double().reshape(-1, 3, 3).numpy()).as_rotvec()
    return given.with_pose(torch.from_numpy(vectors).float().view(len(transl), -1, 3), transl)


def print_errors(before: Errors, after: Errors) -> None:
    """Print the distances of given and corrected poses from the truth.

    Args:
        before: Of the given poses.
        after: Of the corrected ones.
    """
    table = Table("mean over joints and frames", "given", "corrected")
    labels = ("rotations, degrees", "rotations without drift, degrees", "drift (constant per joint), degrees")
    for label, given, corrected in zip(labels, before.rotations, after.rotations, strict=True):
        table.add_row(label, f"{given:.2f}", f"{corrected:.2f}")
    table.add_row("positions of the joints, millimetres", f"{before.joints_mm:.1f}", f"{after.joints_mm:.1f}")
    CONSOLE.print(table)


def _arrays(poses: PoseSequence) -> dict[str, np.ndarray]:
    """InstantAvatar's layout of poses."""
    names = ("global_orient", "body_pose", "transl")
    return {"betas": poses.betas.numpy()[None], **{name: getattr(poses, name).numpy() for name in names}}
