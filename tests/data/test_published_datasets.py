"""NeuMan, SURREAL and ZJU-MoCap in their published layouts, written from a person with known poses."""

import shutil
from dataclasses import replace

import cv2
import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.files import FREE_BODY
from instantavatar_ns.check.diagnosis import diagnose
from instantavatar_ns.check.recording import read_recording
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.neuman_dataparser import NeuManDataParserConfig
from instantavatar_ns.data.surreal_dataparser import SurrealDataParserConfig
from instantavatar_ns.data.zju_mocap_dataparser import ZjuMocapDataParserConfig
from instantavatar_ns.utils.errors import InputError
from tests.importing.tool_files import FRAMES, SIZE, Truth, camera_path, make_truth, read_body

BODY = str(FREE_BODY)


def true_joints(truth):
    """Joints in the camera."""
    body = read_body(FREE_BODY)
    betas = torch.from_numpy(truth.betas).float()
    values = (truth.thetas[:, :3], truth.thetas[:, 3:], truth.transl)
    transforms = body.transforms(betas, *(torch.from_numpy(value).float() for value in values)).numpy()
    joints = body.rest(betas)[1].numpy()
    return (transforms[..., :3, :3] @ joints[..., None])[..., 0] + transforms[..., :3, 3]


def check_frames(config, split, truth, rows):
    """The parsed body lies where the truth is as each camera sees it, and where the masks are."""
    outputs = config.setup().get_dataparser_outputs(split)
    dataset = AvatarDataset(outputs)
    recording = read_recording(dataset)
    to_camera = recording.world_to_camera
    found = recording.joints @ to_camera[:, :3, :3].mT + to_camera[:, None, :3, 3]
    np.testing.assert_allclose(found, true_joints(truth)[rows], atol=1e-3)
    cameras = outputs.cameras
    np.testing.assert_allclose(cameras.fx[:, 0], truth.intrinsics[rows][:, 0, 0], rtol=1e-3)
    centers = np.stack([cameras.cx[:, 0], cameras.cy[:, 0]], axis=1)
    np.testing.assert_allclose(centers, truth.intrinsics[rows][:, :2, 2] + 0.5, atol=0.01)
    assert diagnose(recording).verdict == "good"
    return outputs


def write_neuman(data, truth):
    """A scene whose unit is a third of a metre; alignments' scales differ by a few percent."""
    for name in ("images", "segmentations", "sparse"):
        (data / name).mkdir(parents=True)
    unit, to_world = 3.2, camera_path(len(truth))
    alignments, lines = {}, ["# Image list"]
    random = np.random.default_rng(0)
    for number, mask in enumerate(truth.masks):
        name = f"{number:05d}.png"
        Image.fromarray(np.repeat(mask[..., None] // 2 + 60, 3, axis=2)).save(data / "images" / name)
        Image.fromarray(255 - mask).save(data / "segmentations" / name)
        rotation, position = to_world[number, :3, :3], to_world[number, :3, 3]
        center, scale = unit * position, unit * random.uniform(0.97, 1.03)
        place = unit * (rotation @ truth.transl[number] + position)
        place = center + scale / unit * (place - center)
        alignments[name] = np.concatenate([scale * rotation, place[:, None]], axis=1).T
        qx, qy, qz, qw = Rotation.from_matrix(rotation.T).as_quat()
        quaternion, shift = [qw, qx, qy, qz], -rotation.T @ center
        lines += [" ".join(map(str, [number + 1, *quaternion, *shift, 1])) + f" {name}", "1.0 2.0 -1"]
    (data / "sparse" / "images.txt").write_text("\n".join(lines) + "\n")
    matrix = truth.intrinsics[0]
    params = [matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5]
    camera = " ".join(map(str, ["1 PINHOLE", SIZE[1], SIZE[0], *params]))
    (data / "sparse" / "cameras.txt").write_text(f"# Camera list\n{camera}\n")
    np.save(data / "alignments.npy", alignments)
    joblib.dump({1: {"pose": list(truth.thetas), "betas": [truth.betas] * FRAMES}}, data / "smpl_output_optimized.pkl")


@pytest.fixture(scope="module")
def neuman(tmp_path_factory):
    truth = make_truth("tram")
    data = tmp_path_factory.mktemp("neuman") / "bike"
    write_neuman(data, truth)
    return truth, data


def test_neuman_with_a_moving_camera(neuman):
    truth, data = neuman
    config = NeuManDataParserConfig(data=data, body_model=BODY)
    outputs = check_frames(config, "train", truth, [0, 1, 2, 3, 5, 6, 7, 8])
    check_frames(config, "test", truth, [4])
    positions = outputs.cameras.camera_to_worlds[:, :, 3]
    assert (positions[-1] - positions[0]).norm() == pytest.approx(np.linalg.norm([0.5, 0.1, 0.3]), rel=0.02)


def test_published_split_of_neuman(neuman):
    truth, data = neuman
    for name, rows in (("train", [0, 2, 4]), ("test", [3, 7])):
        (data / f"{name}_split.txt").write_text("".join(f"{row:05d}.png\n" for row in rows))
    config = NeuManDataParserConfig(data=data, body_model=BODY)
    check_frames(config, "train", truth, [0, 2, 4])
    check_frames(config, "test", truth, [3, 7])
    check_frames(replace(config, test_frames=(1, 9, 3)), "test", truth, [1, 4, 7])
    (data / "test_split.txt").write_text("00099.png\n")
    with pytest.raises(InputError, match=r"test_split\.txt: expected names of images, found no image 00099\.png"):
        config.setup().get_dataparser_outputs("test")
    for name in ("train", "test"):
        (data / f"{name}_split.txt").unlink()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("alignments.npy", "expected the scene's alignments"),
        ("sparse/images.txt", "expected COLMAP's text model"),
        ("smpl_output_optimized.pkl", "expected the poses"),
        ("segmentations/00003.png", "expected a mask for each image, found none for 00003"),
    ],
)
def test_incomplete_scene_of_neuman(neuman, missing, message):
    _, data = neuman
    path, kept = data / missing, data.parent / "kept"
    path.rename(kept)
    try:
        with pytest.raises(InputError, match=message):
            NeuManDataParserConfig(data=data, body_model=BODY).setup().get_dataparser_outputs("train")
    finally:
        kept.rename(path)


def test_free_body_of_neuman_is_said_to_be_worse(neuman, notices_given):
    NeuManDataParserConfig(data=neuman[1], body_model="free").setup().get_dataparser_outputs("train")
    assert any("NeuMan's betas and joints do not fit" in text for text in notices_given)
    with pytest.raises(InputError, match="expected the subject's SMPL model"):
        NeuManDataParserConfig(data=neuman[1]).setup().get_dataparser_outputs("train")


def write_surreal(data, name="walk_c0001", turn=0.0):
    """A clip of a standing person; returns the truth in the camera."""
    data.mkdir(exist_ok=True)
    base = make_truth("tram")
    height, width = 96, 128
    focal = width * 60 / 32
    matrix = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1.0]])
    # Blender's matrix of the camera is left-handed, so pictures are mirrored; the truth is that of the mirror image.
    blender = np.array([[0, 0, 1.0], [0, -1, 0], [-1, 0, 0]])
    camera_axes = np.diag([-1.0, 1, 1]) @ np.diag([1.0, -1, -1]) @ blender.T
    position = np.array([focal * 1.9 / 75, 0.0, 0.0])
    zrot = 0.7
    # The motion's world has z up; the person turns about it.
    spin = Rotation.from_rotvec(np.linspace(turn, turn + 5, FRAMES)[:, None] * [0, 0, 1])
    root = spin * Rotation.from_euler("x", 90, degrees=True)
    scene = Rotation.from_euler("x", 90, degrees=True) * Rotation.from_euler("z", zrot)
    in_camera = Rotation.from_matrix(camera_axes) * scene * root
    pelvis = read_body(FREE_BODY).rest(torch.from_numpy(base.betas).float())[1][0].numpy()
    places = np.stack([[0.1 * np.sin(t), -0.05, 0.03 * t] for t in np.linspace(-1, 1, FRAMES)])
    thetas = base.thetas.copy()
    thetas[:, :3] = in_camera.as_rotvec()
    transl = (places - position) @ camera_axes.T - pelvis
    masks = np.zeros((FRAMES, height, width), np.uint8)
    truth = Truth(base.betas, thetas, transl, np.tile(matrix, (FRAMES, 1, 1)), masks).with_masks()
    pose = np.concatenate([root.as_rotvec(), thetas[:, 3:]], axis=1)
    joints = np.zeros((3, 24, FRAMES))
    joints[:, 0] = places.T
    info = {
        "pose": pose.T,
        "shape": np.tile(base.betas[:, None], (1, FRAMES)),
        "joints3D": joints,
        "joints2D": np.zeros((2, 24, FRAMES)),
        "zrot": np.full((FRAMES, 1), zrot),
        "camLoc": position[:, None],
        "camDist": position[0],
        "gender": np.zeros((FRAMES, 1)),
        "sequence": name,
    }
    savemat(data / f"{name}_info.mat", info)
    segments = {f"segm_{number + 1}": mask[:, ::-1] // 255 * 7 for number, mask in enumerate(truth.masks)}
    savemat(data / f"{name}_segm.mat", segments)
    video = cv2.VideoWriter(str(data / f"{name}.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30.0, (width, height))
    for number in range(FRAMES):
        image = np.full((height, width, 3), 20 * number + 10, np.uint8)
        image[:, : width // 2] += 20  # darker on the right
        video.write(image)
    video.release()
    return truth


def test_clip_of_surreal(tmp_path):
    truth = write_surreal(tmp_path / "clip")
    config = SurrealDataParserConfig(data=tmp_path / "clip", body_model=BODY, cache_dir=tmp_path / "cache")
    outputs = check_frames(config, "train", truth, range(FRAMES - 1))
    check_frames(config, "test", truth, [FRAMES - 1])
    image = AvatarDataset(outputs).get_numpy_image(3)
    assert image[:, 80:, :3].mean() == pytest.approx(90, abs=4)
    assert image[:, :48, :3].mean() == pytest.approx(70, abs=4)
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png"))
    config.setup().get_dataparser_outputs("train")
    assert before == sorted(path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png"))


def test_other_clip_of_surreal_to_measure_on(tmp_path):
    first = write_surreal(tmp_path / "clip")
    other = write_surreal(tmp_path / "clip", "walk_c0002", turn=2.0)
    clip = tmp_path / "clip" / "walk_c0001.mp4"
    config = SurrealDataParserConfig(data=clip, body_model=BODY, cache_dir=tmp_path / "cache")
    config.heldout_clip = tmp_path / "clip" / "walk_c0002_info.mat"
    check_frames(config, "train", first, range(FRAMES - 1))
    check_frames(config, "test", other, range(FRAMES))
    with pytest.raises(InputError, match=r"expected one clip.s _info\.mat, found walk_c0001_info\.mat, walk_c0002"):
        replace(config, data=tmp_path / "clip").setup().get_dataparser_outputs("train")


def test_incomplete_clip_of_surreal(tmp_path):
    write_surreal(tmp_path / "clip")
    config = SurrealDataParserConfig(data=tmp_path / "clip", body_model=BODY, cache_dir=tmp_path / "cache")
    (tmp_path / "clip" / "walk_c0001_segm.mat").unlink()
    with pytest.raises(InputError, match=r"walk_c0001_segm\.mat: expected a part of the clip"):
        config.setup().get_dataparser_outputs("train")
    savemat(tmp_path / "clip" / "walk_c0001_info.mat", {"pose": np.zeros((72, FRAMES))})
    with pytest.raises(InputError, match="found no shape, joints3D, zrot, camLoc"):
        config.setup().get_dataparser_outputs("train")


def write_zju(data, truth, first=0):
    """Two cameras: the truth's, and one a metre beside it; numbers of images begin at `first`."""
    shift = np.array([[-0.8, 0, 0.2], [0.0, 0.0, 0.0]])
    turns = Rotation.from_rotvec([[0, 0.25, 0], [0, 0, 0]]).as_matrix()
    to_world = Rotation.from_euler("xyz", [100, 20, 30], degrees=True)
    origin = np.array([0.4, -1.0, 2.0])
    names = [f"Camera_B{camera + 1}" for camera in range(2)]
    seen = []
    for camera, name in enumerate(names):
        # From the truth's camera to this one.
        root = Rotation.from_matrix(turns[camera]) * Rotation.from_rotvec(truth.thetas[:, :3])
        pelvis = read_body(FREE_BODY).rest(torch.from_numpy(truth.betas).float())[1][0].numpy()
        transl = (truth.transl + pelvis) @ turns[camera].T + shift[camera] - pelvis
        thetas = np.concatenate([root.as_rotvec(), truth.thetas[:, 3:]], axis=1)
        seen.append(replace(truth, thetas=thetas, transl=transl).with_masks())
        for folder in (data / name, data / "mask" / name):
            folder.mkdir(parents=True)
        for number, mask in enumerate(seen[-1].masks):
            image = np.repeat(mask[..., None] // 2 + 60, 3, axis=2)
            cv2.imwrite(str(data / name / f"{number + first:06d}.jpg"), image)
            cv2.imwrite(str(data / "mask" / name / f"{number + first:06d}.png"), mask // 255 * 3)
    world = Rotation.from_matrix(turns) * to_world.inv()
    cams = {
        "K": [truth.intrinsics[0]] * 2,
        "R": list(world.as_matrix()),
        "T": [1000 * (shift[camera] - world[camera].apply(origin))[:, None] for camera in range(2)],
        "D": [np.zeros((5, 1))] * 2,
    }
    ims = [{"ims": [f"{name}/{number + first:06d}.jpg" for name in names], "kpts2d": None} for number in range(FRAMES)]
    np.save(data / "annots.npy", {"cams": cams, "ims": ims})
    (data / "new_params").mkdir()
    for number in range(FRAMES):
        pose = truth.thetas[number].copy()
        pose[:3] = [0.1, -0.2, 0.05]  # the file's own root rotation, about the pelvis
        inner = Rotation.from_rotvec(pose[:3])
        root = to_world * Rotation.from_rotvec(truth.thetas[number, :3]) * inner.inv()
        place = to_world.apply(truth.transl[number] + pelvis) + origin - root.apply(pelvis)
        content = {"poses": pose[None], "shapes": truth.betas[None], "Rh": root.as_rotvec()[None], "Th": place[None]}
        np.save(data / "new_params" / f"{number + first}.npy", content)
    return seen


@pytest.fixture(scope="module")
def zju(tmp_path_factory):
    """Truth in both cameras, and the subject's folder, whose images are numbered from 1."""
    data = tmp_path_factory.mktemp("zju") / "CoreView_377"
    return write_zju(data, make_truth("tram"), first=1), data


def test_zju_mocap_from_one_camera(zju, tmp_path):
    (beside, front), data = zju
    config = ZjuMocapDataParserConfig(data=data, body_model=BODY, camera=1, downscale=1, cache_dir=tmp_path / "cache")
    check_frames(config, "train", front, [0, 5])
    check_frames(config, "test", beside, [0])
    several = replace(config, train_frames=(0, 9, 2), test_frames=(1, 9, 4))
    check_frames(several, "test", beside, [1, 5])
    check_frames(replace(several, downscale=2), "train", front_at_half(front), [0, 2, 4, 6, 8])


def front_at_half(truth):
    intrinsics = truth.intrinsics.copy()
    intrinsics[:, :2, :2] /= 2
    intrinsics[:, :2, 2] = (intrinsics[:, :2, 2] + 0.5) / 2 - 0.5
    return replace(truth, intrinsics=intrinsics)


def test_lens_of_zju_mocap_is_corrected(zju, tmp_path):
    data = shutil.copytree(zju[1], tmp_path / "CoreView_377")
    content = np.load(data / "annots.npy", allow_pickle=True)[()]
    content["cams"]["D"] = [np.array([[-0.4], [0], [0], [0], [0]])] * 2
    np.save(data / "annots.npy", content)
    config = ZjuMocapDataParserConfig(data=data, body_model=BODY, camera=1, downscale=1, cache_dir=tmp_path / "cache")
    outputs = config.setup().get_dataparser_outputs("train")
    image = AvatarDataset(outputs).get_numpy_image(0)
    raw = cv2.imread(str(data / "Camera_B2" / "000001.jpg"))
    expected = cv2.undistort(raw, content["cams"]["K"][1], content["cams"]["D"][1])
    np.testing.assert_allclose(image[..., :3], expected[..., ::-1], atol=1)
    assert np.abs(image[..., :3].astype(int) - raw[..., ::-1]).max() > 20


def test_incomplete_subject_of_zju_mocap(zju, tmp_path):
    data = shutil.copytree(zju[1], tmp_path / "CoreView_377")
    config = ZjuMocapDataParserConfig(data=data, body_model=BODY, camera=1, cache_dir=tmp_path / "cache")
    with pytest.raises(InputError, match=r"expected one of the 2 cameras of annots\.npy, asked for 4"):
        replace(config, camera=4).setup().get_dataparser_outputs("train")
    with pytest.raises(InputError, match=r"expected frames within the 9 of annots\.npy"):
        replace(config, train_frames=(0, 20, 1)).setup().get_dataparser_outputs("train")
    (data / "new_params" / "6.npy").unlink()
    with pytest.raises(InputError, match=r"6\.npy: expected the pose of Camera_B2/000006\.jpg"):
        config.setup().get_dataparser_outputs("train")
    (data / "mask" / "Camera_B2" / "000001.png").unlink()
    with pytest.raises(InputError, match="expected the mask of an image"):
        config.setup().get_dataparser_outputs("train")
