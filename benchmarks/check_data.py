"""Count false alarms of the check before training on right data, and how many faulty folders it stops.

    python -m benchmarks.check_data --subjects path/to/dev-male path/to/dev-female

Right data are the given folders, generated persons, and variants of both: poses 3 degrees off, frames cut to half a
body or to a person at the border, small images, loose clothes, another world, a moving camera. Faulty folders are the
given ones, with estimated poses, with one mistake each. All are written as folders and read by the data parser.

Figures:

- `folders`, `false_alarms` (stopped), `warnings`: of right data, and the lowest coverage and joints among them
- `faults`: by kind of mistake the folders, how many were `stopped` or only `warned` about, and for how many the
  suggested change was the `right` one
- `processor_seconds`: mean time of the check by itself, without reading, of right folders and of faulty ones

Generated persons are right only.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import tyro
from nerfstudio.utils.rich_utils import CONSOLE
from scipy.spatial.transform import Rotation

from benchmarks import record
from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.check.diagnosis import Diagnosis, diagnose
from instantavatar_ns.check.recording import read_recording
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.demo.motion import add_pose_noise
from instantavatar_ns.scripts.demo_data import DemoData

Edit = Callable[["Folder"], None]


@dataclass
class Folder:
    """What a variant is made of; `write` makes a folder of it.

    Attributes:
        images: Files of the images.
        masks: Files of the masks.
        camera: Arrays of cameras.npz.
        poses: Rotations (frames, 24, 3), radians.
        transl: Translations, metres.
        betas: Shape coefficients.
        body: File of the body model.
        pelvis: Of the body's rest pose, metres.
        pixels: What is done to images and masks; None where they stay as they are.
    """

    images: list[Path]
    masks: list[Path]
    camera: dict[str, np.ndarray]
    poses: np.ndarray
    transl: np.ndarray
    betas: np.ndarray
    body: Path
    pelvis: np.ndarray
    pixels: Callable[[np.ndarray, bool], np.ndarray] | None = None

    def write(self, path: Path) -> None:
        """Write the folder; images and masks that stay as they are get linked."""
        for name, files in (("images", self.images), ("masks", self.masks)):
            (path / name).mkdir(parents=True)
            for index, file in enumerate(files):
                target = path / name / f"{index:04d}{file.suffix}"
                if self.pixels is None:
                    target.symlink_to(file.resolve())
                else:
                    cv2.imwrite(str(target), self.pixels(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), name == "masks"))
        np.savez(path / "cameras.npz", **self.camera)
        np.savez(path / "poses.npz", betas=self.betas, thetas=self.poses.reshape(-1, 72), transl=self.transl)
        (path / "body").mkdir()
        (path / "body" / "SMPL_NEUTRAL.npz").symlink_to(self.body.resolve())


def read(data: Path, poses: str, numbers: np.ndarray) -> Folder:
    """Some frames of a folder, with the poses of a file that covers all its frames."""
    camera, arrays = dict(np.load(data / "cameras.npz")), dict(np.load(data / f"{poses}.npz"))
    thetas = arrays["thetas" if "thetas" in arrays else "poses"][numbers]
    files = [sorted((data / name).glob("*.png")) for name in ("images", "masks")]
    images, masks = ([some[number] for number in numbers] for some in files)
    body = (data if (data / "body").is_dir() else data.parent) / "body" / "SMPL_NEUTRAL.npz"
    betas = arrays["betas"].reshape(-1)[:10]
    pelvis = load_body_model(body).rest(torch.from_numpy(betas).float())[1][0].numpy().astype(np.float64)
    transl = arrays["transl"][numbers].astype(np.float64)
    return Folder(images, masks, camera, thetas.reshape(-1, 24, 3).astype(np.float64), transl, betas, body, pelvis)


# Right data


def more_noise(degrees: float) -> Edit:
    """Poses that are off as an estimator's are."""

    def edit(folder: Folder) -> None:
        noise = {"degrees": degrees, "millimeters": 4 * degrees, "correlation": 8.0}
        rng = np.random.default_rng(0)
        folder.poses, folder.transl = add_pose_noise(folder.poses, folder.transl, **noise, rng=rng)

    return edit


def cut(top: float, bottom: float, left: float, right: float) -> Edit:
    """Images cut to a part of the box around the person, in shares of it; the box's rest of the image stays."""

    def edit(folder: Folder) -> None:
        boxes = [np.argwhere(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127) for path in folder.masks[::10]]
        low, high = np.mean([box.min(axis=0) for box in boxes], axis=0), np.mean([box.max(axis=0) for box in boxes], 0)
        height, width = int(folder.camera["height"]), int(folder.camera["width"])
        size = high - low

        def edge(share: float, axis: int, outer: int) -> int:
            return outer if share in (0.0, 1.0) else int(low[axis] + share * size[axis])

        rows = slice(edge(top, 0, 0), edge(bottom, 0, height))
        columns = slice(edge(left, 1, 0), edge(right, 1, width))
        intrinsic = folder.camera["intrinsic"].copy()
        intrinsic[:2, 2] -= columns.start, rows.start
        new_size = {"height": np.array(rows.stop - rows.start), "width": np.array(columns.stop - columns.start)}
        folder.camera = {**folder.camera, **new_size, "intrinsic": intrinsic}
        folder.pixels = lambda image, is_mask: image[rows, columns]
        keep_seen(folder, rows, columns)

    return edit


def keep_seen(folder: Folder, rows: slice, columns: slice) -> None:
    """Leave out frames of which nothing of the person is left."""
    seen = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[rows, columns].max() > 127 for path in folder.masks]
    for name in ("images", "masks"):
        setattr(folder, name, [path for path, is_seen in zip(getattr(folder, name), seen, strict=True) if is_seen])
    folder.poses, folder.transl = folder.poses[seen], folder.transl[seen]


def resized(side: int) -> Edit:
    """Images of another resolution."""

    def edit(folder: Folder) -> None:
        height, width = int(folder.camera["height"]), int(folder.camera["width"])
        scale = side / max(height, width)
        size = round(width * scale), round(height * scale)
        intrinsic = folder.camera["intrinsic"].copy()
        intrinsic[:2] *= scale
        new = {"intrinsic": intrinsic, "height": np.array(size[1]), "width": np.array(size[0])}
        folder.camera = {**folder.camera, **new}
        folder.pixels = lambda image, is_mask: cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    return edit


def clothes(meters: float) -> Edit:
    """Masks that stand out from the body all around, or were segmented too tightly."""

    def edit(folder: Folder) -> None:
        focal = folder.camera["intrinsic"][0, 0]
        reach = max(round(abs(meters) * focal / float(np.median(folder.transl[:, 2]))), 1)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        change = cv2.dilate if meters > 0 else cv2.erode
        folder.pixels = lambda image, is_mask: change(image, kernel) if is_mask else image

    return edit


def hidden(share: float) -> Edit:
    """Legs that something in front of the person hides, from a share of the height on."""

    def edit(folder: Folder) -> None:
        def pixels(image: np.ndarray, is_mask: bool) -> np.ndarray:
            if not is_mask:
                return image
            rows = np.flatnonzero((image > 127).any(axis=1))
            image = image.copy()
            image[int(rows[0] + share * (rows[-1] - rows[0])) :] = 0
            return image

        folder.pixels = pixels

    return edit


def some_masks(step: int, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """Masks that failed in one of so many frames."""

    def edit(folder: Folder) -> None:
        frames = count()
        folder.pixels = lambda image, is_mask: change(image) if is_mask and next(frames) % step == 0 else image

    return edit


def in_corner(mask: np.ndarray) -> np.ndarray:
    """The mask of something else, in the image's corner."""
    mask = np.zeros_like(mask)
    mask[: len(mask) // 8, : len(mask) // 8] = 255
    return mask


def every(step: int) -> Edit:
    """A few of the frames."""

    def edit(folder: Folder) -> None:
        folder.images, folder.masks = folder.images[::step], folder.masks[::step]
        folder.poses, folder.transl = folder.poses[::step], folder.transl[::step]

    return edit


def other_world(folder: Folder) -> None:
    """A world that is not the camera's: y up, the person near the origin, the camera 30 degrees to the side."""
    to_world = Rotation.from_euler("yxz", [30, 160, 10], degrees=True)
    matrix = to_world.as_matrix()
    shift = -matrix @ folder.transl.mean(axis=0) + [0.3, 1.0, -0.2]
    root = to_world * Rotation.from_rotvec(folder.poses[:, 0])
    folder.poses = folder.poses.copy()
    folder.poses[:, 0] = root.as_rotvec()
    folder.transl = (folder.transl + folder.pelvis) @ matrix.T + shift - folder.pelvis
    camera_to_world = np.eye(4)
    camera_to_world[:3, :3], camera_to_world[:3, 3] = matrix, shift
    folder.camera = {**folder.camera, "extrinsic": folder.camera["extrinsic"] @ np.linalg.inv(camera_to_world)}


def moving_camera(folder: Folder, turns: Rotation, shifts: np.ndarray) -> None:
    """A world that the camera moves through: in each frame turned and shifted beside the camera, metres."""
    matrices = turns.as_matrix()
    transl, camera_to_world = folder.transl, np.tile(np.eye(4), (len(matrices), 1, 1))
    folder.poses = folder.poses.copy()
    folder.poses[:, 0] = (turns * Rotation.from_rotvec(folder.poses[:, 0])).as_rotvec()
    folder.transl = np.einsum("fij,fj->fi", matrices, transl + folder.pelvis) + shifts - folder.pelvis
    camera_to_world[:, :3, :3], camera_to_world[:, :3, 3] = matrices, shifts
    folder.camera = {**folder.camera, "extrinsic": folder.camera["extrinsic"] @ np.linalg.inv(camera_to_world)}


def orbit(folder: Folder) -> None:
    """A camera that goes a little around the person, 11 degrees to both sides, looking at them."""
    turns = Rotation.from_euler("y", np.linspace(-11, 11, len(folder.poses))[:, None], degrees=True)
    person = folder.transl.mean(axis=0) + folder.pelvis
    moving_camera(folder, turns, person - turns.apply(person))


def handheld(folder: Folder) -> None:
    """A camera that shakes by a few centimetres and degrees."""
    time = np.arange(len(folder.poses))
    turns = Rotation.from_euler("yx", np.stack([3 * np.cos(0.8 * time), np.sin(0.5 * time)], axis=-1), degrees=True)
    moving_camera(folder, turns, 0.1 * np.stack([np.sin(0.7 * time), 0.3 * np.cos(time), 0 * time], axis=-1))


RIGHT: dict[str, tuple[Edit, ...]] = {
    "as_given": (),
    "poses_3_degrees_off": (more_noise(3.0),),
    "upper_half": (cut(0.0, 0.55, 0.0, 1.0),),
    "lower_half": (cut(0.45, 1.0, 0.0, 1.0),),
    "head_and_shoulders": (cut(0.0, 0.3, 0.0, 1.0),),
    "upper_half_3_degrees_off": (more_noise(3.0), cut(0.0, 0.55, 0.0, 1.0)),
    "at_left_border": (cut(0.0, 1.0, 0.4, 1.0),),
    "at_right_border": (cut(0.0, 1.0, 0.0, 0.6),),
    "side_64": (resized(64),),
    "side_64_3_degrees_off": (more_noise(3.0), resized(64)),
    "loose_clothes": (clothes(0.05),),
    "tight_masks": (clothes(-0.015),),
    "legs_hidden": (hidden(0.6),),
    "other_world": (other_world,),
    "orbit": (orbit,),
    "handheld": (handheld,),
    "handheld_3_degrees_off": (more_noise(3.0), handheld),
    "few_frames": (every(12),),
}
NOVEL = ("as_given", "poses_3_degrees_off", "upper_half", "at_left_border", "loose_clothes", "legs_hidden")
ESTIMATED = ("as_given", "upper_half", "side_64", "orbit", "handheld")


# Mistakes


def camera(**values: Callable[[Folder], np.ndarray]) -> Edit:
    """Other arrays in cameras.npz."""

    def edit(folder: Folder) -> None:
        folder.camera = {**folder.camera, **{key: value(folder) for key, value in values.items()}}

    return edit


def extrinsic(change: Callable[[np.ndarray], np.ndarray]) -> tuple[Edit, Edit]:
    """Another extrinsic, in another world than the camera's."""
    return other_world, camera(extrinsic=lambda folder: change(folder.camera["extrinsic"]))


def intrinsic(*factors: float) -> Edit:
    """The intrinsic's focal lengths and principal point times a factor each."""
    scale = np.array([[factors[0], 1, factors[-1]], [1, factors[0], factors[-1]], [1, 1, 1]])
    return camera(intrinsic=lambda folder: folder.camera["intrinsic"] * scale)


def moved(change: Callable[[Folder], np.ndarray]) -> Edit:
    """Other translations."""

    def edit(folder: Folder) -> None:
        folder.transl = change(folder)

    return edit


def in_order(order: Callable[[int], Any]) -> Edit:
    """Poses in another order, those of the places that `order` gives for a number of frames."""

    def edit(folder: Folder) -> None:
        rows = np.asarray(order(len(folder.poses)))
        folder.poses, folder.transl = folder.poses[rows], folder.transl[rows]

    return edit


def pixels(change: Callable[[np.ndarray], np.ndarray], images_too: bool = True) -> Edit:
    """Other masks, and mostly other images."""

    def edit(folder: Folder) -> None:
        folder.pixels = lambda image, is_mask: np.ascontiguousarray(change(image) if is_mask or images_too else image)

    return edit


def rotation_transposed(matrix: np.ndarray) -> np.ndarray:
    """The rotation of a transform transposed."""
    matrix = matrix.copy()
    matrix[:3, :3] = matrix[:3, :3].T
    return matrix


def position_as_translation(matrix: np.ndarray) -> np.ndarray:
    """The camera's position in place of the translation."""
    matrix = matrix.copy()
    matrix[:3, 3] = np.linalg.inv(matrix)[:3, 3]
    return matrix


def millimeters(matrix: np.ndarray) -> np.ndarray:
    """The translation of a transform in millimetres."""
    matrix = matrix.copy()
    matrix[:3, 3] *= 1000
    return matrix


FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
# Edits, and the kinds of change that would be right to suggest.
FAULTS: dict[str, tuple[tuple[Edit, ...], set[str]]] = {
    "camera_to_world": (extrinsic(np.linalg.inv), {"camera-to-world"}),
    "row_vectors": (extrinsic(rotation_transposed), {"row vectors"}),
    "opengl_axes": (extrinsic(lambda matrix: FLIP @ matrix), {"OpenGL axes"}),
    "opengl_camera_to_world": (extrinsic(lambda matrix: np.linalg.inv(FLIP @ matrix)), {"OpenGL camera-to-world"}),
    "camera_in_millimetres": (extrinsic(millimeters), {"camera's unit"}),
    "camera_position_as_translation": (extrinsic(position_as_translation), {"position as translation"}),
    "extrinsic_of_another_world": ((camera(extrinsic=lambda folder: FLIP),), {"OpenGL axes", "world upside down"}),
    "orbit_camera_to_world": (
        (orbit, camera(extrinsic=lambda folder: np.linalg.inv(folder.camera["extrinsic"]))),
        {"camera-to-world"},
    ),
    "handheld_one_frame_late": (
        (handheld, camera(extrinsic=lambda folder: np.roll(folder.camera["extrinsic"], 1, axis=0))),
        {"cameras shifted"},
    ),
    "K_of_half_the_size": ((intrinsic(0.5),), {"K of another resolution"}),
    "K_of_a_quarter_of_the_size": ((intrinsic(0.25),), {"K of another resolution"}),
    "K_of_1.5_times_the_size": ((intrinsic(1.5),), {"K of another resolution"}),
    "K_of_1.25_times_the_size": ((intrinsic(1.25),), {"K of another resolution"}),
    "focal_length_third": ((intrinsic(0.35, 1.0),), {"focal length"}),
    "focal_length_double": ((intrinsic(2.2, 1.0),), {"focal length"}),
    "masks_inverted": ((pixels(lambda mask: 255 - mask, images_too=False),), {"masks inverted"}),
    "masks_all_white": ((pixels(lambda mask: np.full_like(mask, 255), images_too=False),), {"none"}),
    "half_the_masks_white": ((some_masks(2, lambda mask: np.full_like(mask, 255)),), {"none"}),
    "a_quarter_of_the_masks_inverted": ((some_masks(4, lambda mask: 255 - mask),), {"some masks inverted"}),
    "a_quarter_of_the_masks_of_other_things": ((some_masks(4, in_corner),), {"none"}),
    "mirrored": ((pixels(lambda image: image[:, ::-1]),), {"mirrored"}),
    "upside_down": ((pixels(lambda image: image[::-1, ::-1]),), {"images turned", "mirrored top to bottom"}),
    "on_their_side": ((pixels(np.rot90),), {"images turned"}),
    "translation_in_millimetres": ((moved(lambda folder: folder.transl * 1000),), {"poses' unit"}),
    "translation_in_centimetres": ((moved(lambda folder: folder.transl * 100),), {"poses' unit"}),
    "translation_missing": ((moved(lambda folder: folder.transl * 0),), {"translation missing"}),
    "translation_of_opengl": ((moved(lambda folder: folder.transl * [1, -1, -1]),), {"OpenGL translation"}),
    "pelvis_0.22_lower": (
        (moved(lambda folder: folder.transl - [0.0, 0.22, 0.03]),),
        {"constant offset"},
    ),
    "string_order": ((in_order(lambda count: sorted(range(count), key=str)),), {"string order"}),
    "reversed": ((in_order(lambda count: range(count)[::-1]),), {"reversed"}),
    "shuffled": ((in_order(lambda count: np.random.default_rng(0).permutation(count)),), {"another order"}),
    "shifted_by_6": ((in_order(lambda count: np.clip(np.arange(count) + 6, 0, count - 1)),), {"poses shifted"}),
    "shifted_by_15": ((in_order(lambda count: np.clip(np.arange(count) - 15, 0, count - 1)),), {"poses shifted"}),
}


class Checked(NamedTuple):
    """A folder's diagnosis, and how long it took, without reading."""

    diagnosis: Diagnosis
    seconds: float


def check(path: Path) -> Checked:
    """Read and check a folder, all frames of which are training frames."""
    count = len(list((path / "images").glob("*")))
    parser = InstantAvatarDataParserConfig(data=path, train_frames=(0, count, 1), test_frames=(0, count, 1))
    outputs = parser.setup().get_dataparser_outputs("train")
    recording = read_recording(AvatarDataset(outputs), "cuda" if torch.cuda.is_available() else "cpu")
    start = process_time()
    diagnosis = diagnose(recording)
    return Checked(diagnosis, process_time() - start)


@contextmanager
def images_read_once() -> Iterator[None]:
    """Keep decoded images and masks: most variants link to the same files."""
    decoded: dict[tuple[Path, Path], np.ndarray] = {}
    decode = AvatarDataset.get_numpy_image

    def kept(self: AvatarDataset, image_idx: int) -> Any:
        key = self.image_filenames[image_idx].resolve(), self.subject.mask_filenames[image_idx].resolve()
        if not self.image_filenames[image_idx].is_symlink():
            return decode(self, image_idx)
        if key not in decoded:
            decoded[key] = decode(self, image_idx)
        return decoded[key]

    AvatarDataset.get_numpy_image = kept
    try:
        yield
    finally:
        AvatarDataset.get_numpy_image = decode


@dataclass
class CheckData:
    """Benchmark of the check before training."""

    subjects: tuple[Path, ...]
    """Folders in InstantAvatar's layout, with poses.npz, truth.npz and novel/, the camera at the origin."""
    output: Path = Path("benchmarks/results/check_data.json")
    """JSON to write."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Generated persons."""
    size: int = 128
    """Their images' height and width, pixels."""
    frames: int = 40
    """Frames of a folder, spread over the training frames."""
    only: str = ""
    """Measure the variants whose name contains this, and write nothing."""

    def main(self) -> None:
        """Measure all folders and write the figures."""
        CONSOLE.quiet = True
        head = record.head()
        right: dict[str, Checked] = {}
        faulty: dict[str, dict[str, Checked]] = {}
        with TemporaryDirectory() as temporary:
            work = Path(temporary)
            persons = list(self.subjects)
            for seed in self.seeds:
                persons.append(work / f"person-{seed}")
                DemoData(
                    persons[-1], size=self.size, train_frames=24, heldout_frames=1, novel_frames=8, seed=seed
                ).main()
            for person in persons:
                with images_read_once():
                    self._measure(person, work / "variant", right, faulty)
                if not self.only:
                    record.write(self.output, head | figures(right, faulty), quiet=True)

    def _measure(
        self, person: Path, path: Path, right: dict[str, Checked], faulty: dict[str, dict[str, Checked]]
    ) -> None:
        train = json.loads((person / "subject.json").read_text())["train"][1]
        numbers = np.unique(np.linspace(0, train - 1, self.frames).astype(int))
        exact, estimated = read(person, "truth", numbers), read(person, "poses", numbers)
        novel = read(person / "novel", "poses", np.arange(len(list((person / "novel" / "images").glob("*.png")))))
        variants = {f"exact_{kind}": (exact, edits) for kind, edits in RIGHT.items()}
        variants |= {f"novel_{kind}": (novel, RIGHT[kind]) for kind in NOVEL}
        variants |= {f"estimated_{kind}": (estimated, RIGHT[kind]) for kind in ESTIMATED}
        for name, (source, edits) in variants.items():
            if self.only in name:
                right[f"{person.name}_{name}"] = self._check(source, edits, path, f"{person.name} {name}")
        for kind, (edits, _) in FAULTS.items():
            if self.only in kind and person in self.subjects:
                faulty.setdefault(kind, {})[person.name] = self._check(estimated, edits, path, f"{person.name} {kind}")

    @staticmethod
    def _check(source: Folder, edits: tuple[Edit, ...], path: Path, name: str) -> Checked:
        folder = replace(source)
        for edit in edits:
            edit(folder)
        folder.write(path)
        try:
            checked = check(path)
        finally:
            shutil.rmtree(path)
        diagnosis, means = checked.diagnosis, checked.diagnosis.means
        kind = diagnosis.change.kind if diagnosis.change else "none"
        share = f"{means.coverage:.2f} {means.joints:.2f} {means.iou:.2f}"
        record.progress(f"{name}: {diagnosis.verdict}, {share}, {kind}, {checked.seconds:.2f} s")
        return checked


def figures(right: dict[str, Checked], faulty: dict[str, dict[str, Checked]]) -> dict[str, Any]:
    """What is written, of the right folders by name and of the faulty ones by kind and name."""
    verdicts = {name: checked.diagnosis.verdict for name, checked in right.items()}
    means = [checked.diagnosis.means for checked in right.values()]

    def of_kind(kind: str) -> dict[str, Any]:
        found = [checked.diagnosis for checked in faulty[kind].values()]
        kinds = [diagnosis.change.kind if diagnosis.change else "none" for diagnosis in found]
        return {
            "folders": len(found),
            "stopped": sum(diagnosis.verdict == "wrong" for diagnosis in found),
            "warned": sum(diagnosis.verdict == "doubtful" for diagnosis in found),
            "right": sum(name in FAULTS[kind][1] for name in kinds),
            "coverage": fmean(diagnosis.means.coverage for diagnosis in found),
            "joints": fmean(diagnosis.means.joints for diagnosis in found),
        }

    return {
        "folders": len(right),
        "false_alarms": [name for name, verdict in verdicts.items() if verdict == "wrong"],
        "warnings": [name for name, verdict in verdicts.items() if verdict == "doubtful"],
        "lowest_coverage": min(mean.coverage for mean in means),
        "lowest_joints": min(mean.joints for mean in means),
        "faults": {kind: of_kind(kind) for kind in faulty},
        "processor_seconds": {
            "right": fmean(checked.seconds for checked in right.values()),
            "faulty": fmean(checked.seconds for by_name in faulty.values() for checked in by_name.values()),
        },
    }


if __name__ == "__main__":
    tyro.cli(CheckData).main()
