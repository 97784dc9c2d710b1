"""A person with known poses, and result files of pose estimators about them, in each tool's structure and camera."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.files import FREE_BODY, load_body_model
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.importing.placement import PELVIS

SIZE = (128, 96)
FRAMES = 9
FOCALS: dict[str, Callable[[tuple[int, int]], float]] = {
    "romp": lambda size: 443.4 * max(size) / 512,
    "phalp": lambda size: 5000 / 256 * max(size),
    "wham": lambda size: float(np.hypot(*size)),
    "nlf": lambda size: max(size) / 2 / float(np.tan(np.radians(27.5))),
}
"""Focal length in pixels that a tool assumes of images of a height and width; others have it in their files."""
_OTHER_FOCAL = 190.0
SMPL_VERTICES = 6890
UPRIGHT = Rotation.from_rotvec([np.pi, 0, 0])
"""From a camera's axes, y down, to a world's with y up."""


@dataclass(frozen=True)
class Truth:
    """Poses in the camera, the camera, and masks as it sees them, of a person with a body's shape."""

    betas: np.ndarray
    thetas: np.ndarray
    transl: np.ndarray
    intrinsics: np.ndarray
    masks: np.ndarray
    body: Path = FREE_BODY

    def __len__(self) -> int:
        return len(self.thetas)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.masks.shape[1:]

    @property
    def matrices(self) -> np.ndarray:
        """Rotation matrices of all joints."""
        return Rotation.from_rotvec(self.thetas.reshape(-1, 3)).as_matrix().reshape(len(self), 24, 3, 3)

    def vertices(self) -> np.ndarray:
        """Posed vertices in the camera."""
        values = (self.thetas[:, :3], self.thetas[:, 3:], self.transl)
        pose = [torch.from_numpy(value).float() for value in values]
        return read_body(self.body).vertices(torch.from_numpy(self.betas).float(), *pose).numpy()

    def with_masks(self) -> Truth:
        """The same with masks drawn anew."""
        faces = read_body(self.body).faces.numpy()
        masks = np.zeros_like(self.masks)
        for mask, points, matrix in zip(masks, self.vertices(), self.intrinsics, strict=True):
            pixels = points @ matrix.T
            pixels = np.rint(16 * pixels[:, :2] / pixels[:, 2:]).astype(np.int32)
            corners = pixels[faces]
            (ax, ay), (bx, by) = ((corners[:, corner] - corners[:, 0]).T for corner in (1, 2))
            for triangle in corners[ax * by < ay * bx]:  # those that look at the camera
                cv2.fillConvexPoly(mask, triangle, 255, shift=4)
        return replace(self, masks=masks)


@cache
def read_body(path: Path) -> BodyModel:
    """The body model, read once."""
    return load_body_model(path)


@cache
def make_truth(tool: str, hands: bool = True) -> Truth:
    """A person who turns, some 100 pixels tall in the tool's camera, with the free body.

    Args:
        tool: Whose camera.
        hands: Whether the hands turn, as SMPL's and not SMPL-X's can.
    """
    random = np.random.default_rng(3)
    turns = np.linspace(0, 1.5 * np.pi, FRAMES)
    orient = Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec(turns[:, None] * [0, 1, 0])
    joints = random.normal(size=(FRAMES, 24, 3)) * 0.12
    joints[:, 0] = orient.as_rotvec()
    joints[:, 16, 2], joints[:, 17, 2] = -0.8, 0.8
    if not hands:
        joints[:, 22:] = 0
    transl = random.normal(size=(FRAMES, 3)) * 0.02 + [0.0, -0.05, _OTHER_FOCAL * 1.75 / 100]
    matrix = np.array([[_OTHER_FOCAL, 0, SIZE[1] / 2], [0, _OTHER_FOCAL, SIZE[0] / 2], [0, 0, 1.0]])
    intrinsics, masks = np.tile(matrix, (FRAMES, 1, 1)), np.zeros((FRAMES, *SIZE), np.uint8)
    return seen_by(tool, Truth(random.normal(size=10) * 0.5, joints.reshape(FRAMES, 72), transl, intrinsics, masks))


def seen_by(tool: str, truth: Truth) -> Truth:
    """The person as large as before in a tool's own camera, farther away where that has a longer focal length."""
    intrinsics, transl = truth.intrinsics.copy(), truth.transl.copy()
    if tool in FOCALS:
        scale = np.full(len(truth), FOCALS[tool](truth.size) / intrinsics[:, 0, 0])
        intrinsics[:, :2, 2] = np.array(truth.size[::-1]) / 2
    elif tool == "smplerx":  # each frame's crop has its own camera
        scale = 10 + 0.5 * np.sin(np.arange(len(truth)))
        intrinsics[:, :2, 2] += np.sin(np.arange(len(truth)))[:, None]
    else:
        scale = np.ones(len(truth))
    intrinsics[:, [0, 1], [0, 1]] *= scale[:, None]
    transl[:, 2] *= scale
    return replace(truth, intrinsics=intrinsics, transl=transl).with_masks()


def write_frames(folder: Path, truth: Truth, first: int = 0) -> Path:
    """A folder of the video's frames."""
    folder.mkdir()
    for number, mask in enumerate(truth.masks):
        image = np.repeat(mask[..., None] // 2 + 60, 3, axis=2)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{number + first:08d}.png")
    return folder


def write_masks(folder: Path, truth: Truth) -> Path:
    """A folder of masks, one a frame."""
    folder.mkdir()
    for number, mask in enumerate(truth.masks):
        Image.fromarray(mask).save(folder / f"{number:05d}.png")
    return folder


def write_romp(folder: Path, truth: Truth) -> Path:
    """ROMP's `.npz` of each frame, with another person in some of them."""
    folder.mkdir()
    for number in range(len(truth)):
        rows = [(truth.thetas[number], truth.betas, truth.transl[number])]
        if number % 4 == 1:
            rows.insert(0, (np.zeros(72), np.zeros(10), truth.transl[number] + [1.5, 0, 0]))
        thetas, betas, transl = (np.stack(values).astype(np.float32) for values in zip(*rows, strict=True))
        frame = {
            "cam": np.ones((len(rows), 3)),
            "global_orient": thetas[:, :3],
            "body_pose": thetas[:, 3:],
            "smpl_thetas": thetas,
            "smpl_betas": betas,
            "cam_trans": transl,
            "center_confs": np.ones((len(rows), 1)),
        }
        np.savez(folder / f"{number:08d}.npz", results=frame)
    return folder


def write_romp_video(path: Path, truth: Truth) -> Path:
    """ROMP's `video_results.npz` with tracking."""
    names = [f"{number:08d}.png" for number in range(len(truth))]
    parts = {"smpl_thetas": truth.thetas, "smpl_betas": np.tile(truth.betas, (len(truth), 1))}
    parts["cam_trans"] = truth.transl
    frames = {name: {key: value[row : row + 1] for key, value in parts.items()} for row, name in enumerate(names)}
    tracks = {np.int64(7): {"frame_id": list(range(len(truth))), **{key: list(value) for key, value in parts.items()}}}
    np.savez(path, results=frames, sequence_results=tracks)  # pyright: ignore[reportArgumentType]
    return path


def phalp_content(truth: Truth) -> dict[str, dict[str, Any]]:
    """Frames with the person (track 1), and another one who was lost after the first three (track 2)."""
    content = {}
    for number in range(len(truth)):
        matrices = truth.matrices[number].astype(np.float32)
        smpl = {"global_orient": matrices[:1], "body_pose": matrices[1:], "betas": truth.betas.astype(np.float32)}
        size = list(truth.size)
        lengths = coco.encode(np.asfortranarray(truth.masks[number] // 255))
        lost = max(0, number - 2)
        content[f"outputs/img/{number + 1:06d}.jpg"] = {
            "time": number,
            "shot": 0,
            "tid": [1, 2],
            "tracked_ids": [1] if lost else [1, 2],
            "tracked_time": [0, lost],
            "bbox": [np.array([1.0, 2, 3, 4])] * 2,
            "size": [size, size],
            "smpl": [smpl, smpl],
            "camera": [truth.transl[number], truth.transl[number] + 1],
            "conf": [np.float32(0.9), np.float32(0.8)],
            "mask": [lengths, lengths],
        }
    return content


def write_phalp(path: Path, truth: Truth) -> Path:
    """4D-Humans' file of joblib, compressed."""
    joblib.dump(phalp_content(truth), path, compress=3)
    return path


def wham_content(truth: Truth) -> dict[int, dict[str, np.ndarray]]:
    """The person as subject 0, and a shorter one as subject 3."""
    turned = truth.thetas.copy()
    turned[:, :3] = (UPRIGHT * Rotation.from_rotvec(turned[:, :3])).as_rotvec()
    vertices = truth.vertices()
    chosen = np.linspace(0, vertices.shape[1] - 1, SMPL_VERTICES).round().astype(int)
    person = {
        "pose": truth.thetas.astype(np.float32),
        "trans": truth.transl.astype(np.float32),
        "pose_world": turned.astype(np.float32),
        "trans_world": (truth.transl @ UPRIGHT.as_matrix().T).astype(np.float32),
        "betas": np.tile(truth.betas, (len(truth), 1)).astype(np.float32),
        "verts": vertices[:, chosen].astype(np.float32),
        "frame_ids": np.arange(len(truth)),
    }
    return {0: person, 3: {key: value[:2] for key, value in person.items()}}


def write_wham(path: Path, truth: Truth) -> Path:
    """WHAM's file of joblib."""
    joblib.dump(wham_content(truth), path)
    return path


def gvhmr_content(truth: Truth) -> dict[str, Any]:
    """SMPL-X's 21 joints."""
    values = {
        "global_orient": truth.thetas[:, :3],
        "body_pose": truth.thetas[:, 3:66],
        "betas": np.tile(truth.betas, (len(truth), 1)),
        "transl": truth.transl,
    }
    tensors = {key: torch.from_numpy(value).float() for key, value in values.items()}
    return {
        "smpl_params_incam": tensors,
        "smpl_params_global": {**tensors, "transl": tensors["transl"] + 5},
        "K_fullimg": torch.from_numpy(truth.intrinsics).float(),
        "net_outputs": {"pred_smpl_params_incam": tensors},
    }


def write_gvhmr(path: Path, truth: Truth) -> Path:
    """GVHMR's file of PyTorch."""
    torch.save(gvhmr_content(truth), path)
    return path


def camera_path(frames: int) -> np.ndarray:
    """Camera-to-world transforms of a camera that walks and turns."""
    transforms = np.tile(np.eye(4), (frames, 1, 1))
    turns = np.linspace(0, 0.4, frames)[:, None] * [0.1, 1.0, 0.2]
    transforms[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix()
    transforms[:, :3, 3] = np.linspace(0, 1, frames)[:, None] * [0.5, -0.1, 0.3]
    return transforms


def write_tram(folder: Path, truth: Truth) -> Path:
    """TRAM's folder."""
    (folder / "hps").mkdir(parents=True)
    to_world = camera_path(len(truth)).astype(np.float32)
    camera = {
        "pred_cam_R": to_world[:, :3, :3],
        "pred_cam_T": to_world[:, :3, 3],
        "img_focal": truth.intrinsics[0, 0, 0],
        "img_center": truth.intrinsics[0, :2, 2],
    }
    np.save(folder / "camera.npy", camera)  # pyright: ignore[reportArgumentType]
    lengths = [coco.encode(np.asfortranarray(mask // 255)) for mask in truth.masks]
    np.save(folder / "masks.npy", np.array(lengths, dtype=object), allow_pickle=True)
    person = {
        "pred_rotmat": torch.from_numpy(truth.matrices).float(),
        "pred_shape": torch.from_numpy(np.tile(truth.betas, (len(truth), 1))).float(),
        "pred_trans": torch.from_numpy(truth.transl[:, None]).float(),
        "frame": torch.arange(len(truth)),
    }
    np.save(folder / "hps" / "hps_track_0.npy", person)  # pyright: ignore[reportArgumentType]
    return folder


def prompthmr_content(truth: Truth) -> dict[str, Any]:
    """Frames were halved, with their pixels' edges where they were; the world is the cameras', turned to have y up."""
    to_world = camera_path(len(truth))
    upright = Rotation.from_matrix(UPRIGHT.as_matrix() @ to_world[:, :3, :3])
    places, pelvis = to_world[:, :3, 3] @ UPRIGHT.as_matrix().T, np.array(PELVIS["SMPL-X"])
    matrix = truth.intrinsics[0]
    center = (matrix[:2, 2] + 0.5) / 2 - 0.5
    rotations = np.zeros((len(truth), 55, 3, 3))
    rotations[:, :22] = truth.matrices[:, :22]
    half = truth.size[1] // 2, truth.size[0] // 2
    masks = np.stack([cv2.resize(mask, half, interpolation=cv2.INTER_AREA) for mask in truth.masks])
    pose = {"rotmat": rotations, "shape": np.tile(truth.betas, (len(truth), 1)), "trans": truth.transl}
    whole = np.zeros((len(truth), 165))
    whole[:, :66] = truth.thetas[:, :66]
    whole[:, :3] = (upright * Rotation.from_rotvec(truth.thetas[:, :3])).as_rotvec()
    in_world = {**pose, "pose": whole, "trans": upright.apply(truth.transl + pelvis) - pelvis + places}
    del in_world["rotmat"]
    return {
        "camera": {
            "pred_cam_R": to_world[:, :3, :3],
            "pred_cam_T": to_world[:, :3, 3],
            "img_focal": np.float64(matrix[0, 0] / 2),
            "img_center": center,
        },
        "camera_world": {"Rwc": upright.as_matrix(), "Twc": places},
        "masks": masks > 127,
        "people": {1: {"frames": np.arange(len(truth)), "smplx_cam": pose, "smplx_world": in_world, "track_id": 1}},
        "timings": {},
        "has_tracks": True,
    }


def write_prompthmr(path: Path, truth: Truth) -> Path:
    """PromptHMR's file of joblib."""
    joblib.dump(prompthmr_content(truth), path)
    return path


def write_smplerx(folder: Path, truth: Truth) -> Path:
    """SMPLer-X's folders; frames count from 1."""
    for name in ("smplx", "meta"):
        (folder / name).mkdir(parents=True)
    for number in range(len(truth)):
        pose = {
            "global_orient": truth.thetas[number, None, :3],
            "body_pose": truth.thetas[number, 3:66].reshape(21, 3),
            "left_hand_pose": np.zeros((15, 3)),
            "right_hand_pose": np.zeros((15, 3)),
            "jaw_pose": np.zeros((1, 3)),
            "betas": truth.betas[None],
            "expression": np.zeros((1, 10)),
            "transl": truth.transl[number, None],
        }
        name = f"{number + 1:05d}_0"
        np.savez(folder / "smplx" / f"{name}.npz", **pose)
        matrix = truth.intrinsics[number]
        meta = {
            "focal": [matrix[0, 0], matrix[1, 1]],
            "princpt": matrix[:2, 2].tolist(),
            "bbox": [0, 0, 1, 1],
            "bbox_id": 0,
            "img_path": f"imgs/{number + 1:06d}.jpg",
        }
        (folder / "meta" / f"{name}.json").write_text(json.dumps(meta))
    return folder


def nlf_content(truth: Truth) -> dict[str, list[np.ndarray]]:
    """Millimetres; one image shows a second person."""
    content: dict[str, list[np.ndarray]] = {"pose": [], "betas": [], "trans": [], "joints3d": [], "joints2d": []}
    vertices = truth.vertices()[:, ::300]
    for number in range(len(truth)):
        pixels = vertices[number] @ truth.intrinsics[number].T
        people = 2 if number == 2 else 1
        shift = np.array([0.0, 0, 0]), np.array([1.5, 0, 0])
        content["pose"].append(np.stack([truth.thetas[number]] * people))
        content["betas"].append(np.stack([truth.betas] * people))
        content["trans"].append(np.stack([1000 * (truth.transl[number] + shift[row]) for row in range(people)]))
        content["joints3d"].append(np.stack([1000 * vertices[number]] * people))
        content["joints2d"].append(np.stack([pixels[:, :2] / pixels[:, 2:]] * people))
    return content


def write_nlf(path: Path, truth: Truth) -> Path:
    """A pickle of what NLF returned, as callers save it."""
    joblib.dump(nlf_content(truth), path)
    return path


WRITERS: dict[str, tuple[Callable[[Path, Truth], Path], str]] = {
    "romp": (write_romp, "romp_output"),
    "phalp": (write_phalp, "demo_video.pkl"),
    "wham": (write_wham, "wham_output.pkl"),
    "gvhmr": (write_gvhmr, "hmr4d_results.pt"),
    "tram": (write_tram, "tram_output"),
    "prompthmr": (write_prompthmr, "results.pkl"),
    "smplerx": (write_smplerx, "smplerx_output"),
    "nlf": (write_nlf, "nlf.pkl"),
}
"""Writer of each tool's result, and the usual name of the result."""
SMPLX_TOOLS = ("gvhmr", "prompthmr", "smplerx")
MHR_VERTICES, MHR_INNER = 18439, 439
"""Vertices of SAM 3D Body's mesh, and how many of them are eyes and teeth here."""


def sam3d_content(truth: Truth) -> list[dict[str, Any]]:
    """MHR's keypoints, at the joints of the body and at points of its surface, and vertices, all over that surface."""
    body = read_body(truth.body)
    betas = torch.from_numpy(truth.betas).float()
    rest, joints = (values.numpy() for values in body.rest(betas))
    places = mhr_places(rest, joints)
    values = (truth.thetas[:, :3], truth.thetas[:, 3:], truth.transl)
    transforms = body.transforms(betas, *(torch.from_numpy(value).float() for value in values))
    cloud = mhr_vertices(truth, transforms)
    content = []
    for number in range(len(truth)):
        points = np.zeros((70, 3))
        for index, (bone, place) in places.items():
            matrix = transforms[number, JOINT_NAMES.index(bone)].numpy()
            points[index] = matrix[:3, :3] @ place + matrix[:3, 3]
        points[[index for index in range(70) if index not in places]] = points[41]  # fingers
        matrix = truth.intrinsics[number]
        pixels = points @ matrix.T
        content.append(
            {
                "pred_keypoints_3d": (points - truth.transl[number]).astype(np.float32),
                "pred_keypoints_2d": (pixels[:, :2] / pixels[:, 2:]).astype(np.float32),
                "pred_cam_t": truth.transl[number].astype(np.float32),
                "focal_length": np.float32(matrix[0, 0]),
                "bbox": np.zeros(4, np.float32),
                "pred_vertices": (cloud[number] - truth.transl[number]).astype(np.float32),
                "mhr_model_params": np.zeros(204, np.float32),
                "shape_params": np.zeros(45, np.float32),
                "mask": (truth.masks[number] // 255)[..., None],
            }
        )
    return content


def mhr_vertices(truth: Truth, transforms: torch.Tensor) -> np.ndarray:
    """Points on the surface, the same places in all frames; the last ones are eyes and teeth, within the head."""
    random = np.random.default_rng(0)
    posed, faces = truth.vertices(), read_body(truth.body).faces.numpy()
    corners = posed[0][faces].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = random.choice(len(faces), MHR_VERTICES - MHR_INNER, p=areas / areas.sum())
    shares = random.dirichlet(np.ones(3), len(chosen))
    surface = np.einsum("pc,fpcr->fpr", shares, posed[:, faces[chosen]])
    head = read_body(truth.body).rest(torch.from_numpy(truth.betas).float())[1][JOINT_NAMES.index("head")].numpy()
    balls = np.array([[-0.03, 0.08, 0.08], [0.03, 0.08, 0.08], [0.0, 0.02, 0.07]])[random.integers(3, size=MHR_INNER)]
    directions = random.normal(size=(MHR_INNER, 3))
    inner = head + balls + 0.012 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    matrices = transforms[:, JOINT_NAMES.index("head")].numpy()
    inner = np.einsum("frc,pc->fpr", matrices[:, :3, :3], inner) + matrices[:, None, :3, 3]
    return np.concatenate([surface, inner], axis=1)


def mhr_places(rest: np.ndarray, joints: np.ndarray) -> dict[int, tuple[str, np.ndarray]]:
    """Bone, and place in the rest pose, of each of MHR's keypoints that does not belong to a finger."""
    place = dict(zip(JOINT_NAMES, joints, strict=True))
    sides = {}
    for side, sign, first in (("left", 1.0, 0), ("right", -1.0, 1)):
        wrist = {"left": 62, "right": 41}[side]
        knuckles = {"left": (49, 53, 61), "right": (28, 32, 40)}[side]
        foot = {"left": (15, 16, 17), "right": (18, 19, 20)}[side]
        hand, ankle = place[f"{side}_hand"], place[f"{side}_ankle"]
        toes = rest[np.abs(rest[:, 0] - ankle[0]) < 0.08]
        toes = toes[toes[:, 1] < ankle[1]]
        sides |= {
            1 + first: ("head", place["head"] + [0.035 * sign, 0.08, 0.12]),
            3 + first: ("head", place["head"] + [0.08 * sign, 0.07, 0.01]),
            5 + first: (f"{side}_shoulder", place[f"{side}_shoulder"] + [0.005 * sign, 0.008, 0.0]),
            67 + first: (f"{side}_collar", place[f"{side}_shoulder"] + [-0.02 * sign, 0.04, 0.0]),
            7 + first: (f"{side}_elbow", place[f"{side}_elbow"]),
            63 + first: (f"{side}_elbow", place[f"{side}_elbow"] + [0, 0, -0.045]),
            65 + first: (f"{side}_elbow", place[f"{side}_elbow"] + [0, 0, 0.035]),
            wrist: (f"{side}_wrist", place[f"{side}_wrist"]),
            knuckles[0]: (f"{side}_wrist", np.add(hand, [-0.01 * sign, 0, 0.03])),
            knuckles[1]: (f"{side}_wrist", hand),
            knuckles[2]: (f"{side}_wrist", np.add(hand, [-0.02 * sign, 0, -0.035])),
            9 + first: ("pelvis", place[f"{side}_hip"] + [0.01 * sign, 0.02, 0]),
            11 + first: (f"{side}_knee", place[f"{side}_knee"] + [0, 0.005, 0]),
            13 + first: (f"{side}_ankle", place[f"{side}_ankle"]),
            foot[0]: (f"{side}_foot", toes[(toes[:, 2] - 0.3 * sign * toes[:, 0]).argmax()]),
            foot[1]: (f"{side}_foot", toes[(toes[:, 2] + 1.0 * sign * toes[:, 0]).argmax()]),
            foot[2]: (f"{side}_ankle", toes[toes[:, 2].argmin()]),
        }
    sides |= {0: ("head", place["head"] + [0, 0.05, 0.14]), 69: ("neck", place["neck"] + [0, 0.01, -0.01])}
    return {index: (bone, np.asarray(point)) for index, (bone, point) in sides.items()}


def write_sam3d(folder: Path, truth: Truth) -> Path:
    """SAM 3D Body's `.npz` of each image and person."""
    folder.mkdir()
    for number, person in enumerate(sam3d_content(truth)):
        np.savez(folder / f"{number:08d}_subj00.npz", **person)
    return folder
