"""InstantAvatar's folder: layout, splits, poses, cameras, and the errors of folders that do not fit."""

import numpy as np
import pytest
import torch
from PIL import Image

from instantavatar_ns.body.files import load_body_model
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.data.subject import subject_of
from instantavatar_ns.utils.errors import InputError
from tests.body.bodies import random_body
from tests.data.subjects import HEIGHT, INTRINSIC, WIDTH, write_instantavatar_folder


def parse(data, split="train", **options):
    return InstantAvatarDataParserConfig(data=data, **options).setup().get_dataparser_outputs(split)


def frame_numbers(outputs):
    return [int(path.stem.split("_")[1]) for path in outputs.image_filenames]


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "person"
    write_instantavatar_folder(data, 10, {"train": [0, 8], "test": [8, 10]})
    return data


def test_default_split_holds_out_the_last_fifth(tmp_path):
    write_instantavatar_folder(tmp_path / "person", 10)
    assert frame_numbers(parse(tmp_path / "person")) == list(range(8))
    assert frame_numbers(parse(tmp_path / "person", "val")) == [8, 9]
    assert frame_numbers(parse(tmp_path / "person", "test")) == [8, 9]


def test_subject_json_and_options_choose_the_frames(tmp_path):
    data = tmp_path / "person"
    write_instantavatar_folder(data, 10, {"train": [0, 7, 3], "test": [8, 10]})
    assert frame_numbers(parse(data)) == [0, 3, 6]
    options = {"train_frames": (1, 6, 2), "test_frames": (0, 1, 1)}
    assert frame_numbers(parse(data, **options)) == [1, 3, 5]
    assert frame_numbers(parse(data, "test", **options)) == [0]


def test_poses_follow_their_frames(folder):
    poses = np.load(folder / "poses.npz")
    outputs = parse(folder, "test", train_frames=(1, 8, 3))
    bank, ids = subject_of(outputs.metadata).poses, outputs.cameras.metadata["pose_id"].flatten()
    assert len(bank) == 5
    assert subject_of(outputs.metadata).num_train == 3
    assert ids.tolist() == [3, 4] and ids.dtype == torch.int64
    rows = [1, 4, 7, 8, 9]
    np.testing.assert_allclose(torch.cat([bank.global_orient, bank.body_pose], 1), poses["thetas"][rows], rtol=1e-6)
    np.testing.assert_allclose(bank.transl, poses["transl"][rows], rtol=1e-6)


def test_times_run_over_the_training_frames(folder):
    torch.testing.assert_close(parse(folder).cameras.times[:, 0], torch.arange(8) / 7)
    torch.testing.assert_close(parse(folder, "test").cameras.times[:, 0], torch.ones(2))
    between = parse(folder, "test", train_frames=(0, 9, 4), test_frames=(2, 3, 1))
    torch.testing.assert_close(between.cameras.times, torch.tensor([[0.25]]))


def test_files_of_a_split_cover_it_in_order(folder):
    (folder / "poses").mkdir()
    for split, count, shift in (("train", 4, 100.0), ("test", 2, 200.0)):
        np.savez(
            folder / "poses" / f"anim_nerf_{split}.npz",
            betas=np.ones((1, 10)),
            global_orient=np.zeros((count, 3)),
            body_pose=np.zeros((count, 69)),
            transl=np.arange(count)[:, None] * np.ones((1, 3)) + shift,
        )
    outputs = parse(folder, train_frames=(0, 8, 2))
    assert subject_of(outputs.metadata).poses.transl[:, 0].tolist() == [100, 101, 102, 103, 200, 201]
    assert subject_of(outputs.metadata).poses.betas.tolist() == [1.0] * 10
    assert subject_of(parse(folder, poses="poses.npz").metadata).poses.transl[0, 0] < 1
    with pytest.raises(InputError, match=r"anim_nerf_train\.npz: expected 8 poses, .* the split, found 4"):
        parse(folder)


def test_order_of_preference_among_pose_files(folder):
    def write(name, x):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        np.savez(path, poses=np.zeros((10, 72)), trans=np.full((10, 3), x), betas=np.zeros(10))

    def found(**options):
        return subject_of(
            parse(folder, test_frames=(0, 10, 1), train_frames=(0, 10, 1), **options).metadata
        ).poses.transl[0, 0]

    for name, x in [("poses_optimized.npz", 1), ("poses/train.npz", 2), ("poses/anim_nerf_train.npz", 3)]:
        write(name, x)
        write(name.replace("train", "test"), x)
        assert found() == x
    write("truth.npz", 4)
    assert found() == 3
    assert found(poses="truth") == 4


def test_cameras_see_what_the_dataset_sees(folder):
    """Projections of posed vertices by the dataset's own camera and by nerfstudio's agree."""
    angle = 0.3
    extrinsics = np.stack([np.eye(4)] * 10)
    extrinsics[:, :3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    extrinsics[:, 2, 3] = np.linspace(0, 0.5, 10)
    np.savez(folder / "cameras.npz", intrinsic=INTRINSIC, extrinsic=extrinsics, height=HEIGHT, width=WIDTH)
    outputs = parse(folder, "test", downscale=2)
    bank, cameras = subject_of(outputs.metadata).poses, outputs.cameras
    body = load_body_model(subject_of(outputs.metadata).body_model)
    vertices = body.vertices(bank.betas, bank.global_orient, bank.body_pose, bank.transl).double()
    to_world = torch.linalg.inv(subject_of(outputs.metadata).world_to_dataset.double())
    for index in range(2):
        posed = vertices[cameras.metadata["pose_id"][index, 0]]
        seen = posed.numpy() @ extrinsics[8 + index, :3, :3].T + extrinsics[8 + index, :3, 3]
        pixels = seen @ INTRINSIC.T
        world = posed @ to_world[:3, :3].T + to_world[:3, 3]
        camera_to_world = cameras.camera_to_worlds[index].double()
        local = (world - camera_to_world[:, 3]) @ camera_to_world[:, :3]
        np.testing.assert_allclose(-local[:, 2], seen[:, 2], atol=1e-5)
        u = cameras.fx[index] * local[:, 0] / -local[:, 2] + cameras.cx[index]
        v = cameras.fy[index] * local[:, 1] / local[:, 2] + cameras.cy[index]
        # The file counts pixel centers from 0, nerfstudio from a half.
        expected = (pixels[:, :2] / pixels[:, 2:] + 0.5) / 2
        np.testing.assert_allclose(torch.stack([u, v], 1), expected, atol=1e-3)
    assert (int(cameras.width[0]), int(cameras.height[0])) == (WIDTH // 2, HEIGHT // 2)


def test_world_is_upright_around_the_person(folder):
    outputs = parse(folder)
    bank = subject_of(outputs.metadata).poses
    to_dataset = subject_of(outputs.metadata).world_to_dataset
    torch.testing.assert_close(to_dataset[:3, :3] @ to_dataset[:3, :3].T, torch.eye(3), atol=1e-5, rtol=0)
    assert torch.linalg.det(to_dataset[:3, :3]) == pytest.approx(1.0, abs=1e-5)
    # The dataset has OpenCV axes: z ahead of the camera becomes y, up is -y.
    torch.testing.assert_close(to_dataset[:3, 1:3].T, torch.tensor([[0.0, 0, 1], [0, -1, 0]]), atol=0.02, rtol=0)
    pelvis = bank.transl[:8].mean(0) + load_body_model(subject_of(outputs.metadata).body_model).rest(bank.betas)[1][0]
    torch.testing.assert_close(to_dataset[:3, 3], pelvis, atol=1e-5, rtol=0)
    to_world = torch.linalg.inv(to_dataset)
    torch.testing.assert_close(outputs.dataparser_transform, to_world[:3], atol=1e-5, rtol=0)


def test_scene_box_holds_the_person(shared_subjects):
    outputs = parse(shared_subjects / "dev-female", "test", eval_set="novel")
    bank, body = subject_of(outputs.metadata).poses, load_body_model(subject_of(outputs.metadata).body_model)
    rows = torch.arange(0, len(bank), 10)
    vertices = body.vertices(bank.betas, bank.global_orient[rows], bank.body_pose[rows], bank.transl[rows])
    to_world = torch.linalg.inv(subject_of(outputs.metadata).world_to_dataset)
    world = (vertices @ to_world[:3, :3].T + to_world[:3, 3]).reshape(-1, 3)
    low, high = outputs.scene_box.aabb
    assert (world > low + 0.1).all() and (world < high - 0.1).all()
    assert (high - low).max() < 3.5


def test_camera_that_looks_straight_down(folder):
    extrinsic = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 5], [0, 0, 0, 1]])  # looks along -y of the dataset
    poses = np.load(folder / "poses.npz")
    thetas = poses["thetas"].copy()
    thetas[:, :3] = 0  # y is up
    np.savez(folder / "poses.npz", thetas=thetas, transl=poses["transl"], betas=poses["betas"])
    np.savez(folder / "cameras.npz", intrinsic=INTRINSIC, extrinsic=extrinsic, height=HEIGHT, width=WIDTH)
    outputs = parse(folder)
    assert outputs.cameras.camera_to_worlds.isfinite().all()
    # OpenGL's -z, where the camera looks, is the world's -z; OpenGL's y, the image's top, is the world's y.
    torch.testing.assert_close(outputs.cameras.camera_to_worlds[0, :, :3], torch.eye(3), atol=1e-5, rtol=0)


def test_no_novel_recording(folder):
    with pytest.raises(InputError, match=r"novel: expected a recording of another motion .*--eval-set novel"):
        parse(folder, eval_set="novel")


def test_novel_recording(folder):
    write_instantavatar_folder(folder / "novel", 4)
    (folder / "novel" / "body" / "SMPL_NEUTRAL.npz").unlink()
    (folder / "novel" / "body").rmdir()
    train, test = parse(folder, eval_set="novel"), parse(folder, "test", eval_set="novel")
    assert len(train.image_filenames) == 8 and len(test.image_filenames) == 4
    assert all("novel" in path.parts for path in [*test.image_filenames, *subject_of(test.metadata).mask_filenames])
    assert len(subject_of(train.metadata).poses) == len(subject_of(test.metadata).poses) == 14
    assert test.cameras.metadata["pose_id"].flatten().tolist() == [10, 11, 12, 13]
    torch.testing.assert_close(subject_of(train.metadata).world_to_dataset, subject_of(test.metadata).world_to_dataset)
    # Given as a subject of its own, it still has the subject's body.
    assert subject_of(parse(folder / "novel").metadata).body_model == str(folder / "body" / "SMPL_NEUTRAL.npz")


@pytest.mark.parametrize(("difference", "said"), [(0.1, 0), (1.5, 1)])
def test_betas_of_another_motion(folder, notices_given, difference, said):
    write_instantavatar_folder(folder / "novel", 4)
    poses = dict(np.load(folder / "novel" / "poses.npz"))
    np.savez(folder / "novel" / "poses.npz", **{**poses, "betas": poses["betas"] + difference})
    parse(folder)
    assert notices_given == []
    parse(folder, eval_set="novel")
    assert len(notices_given) == said and all("betas of the evaluated frames differ" in text for text in notices_given)


def test_frames_without_a_person_are_left_out(folder, notices_given):
    """Cameras and poses, of the split or of all images, stay with their frames."""
    extrinsics = np.stack([np.eye(4)] * 10)
    extrinsics[:, 0, 3] = np.arange(10) / 100
    np.savez(folder / "cameras.npz", intrinsic=INTRINSIC, extrinsic=extrinsics, height=HEIGHT, width=WIDTH)
    for number in (0, 5, 9):
        Image.new("L", (WIDTH, HEIGHT)).save(folder / "masks" / f"mask_{number:04d}.png")
    (folder / "poses").mkdir()
    for split, first, count in (("train", 0, 8), ("test", 8, 2)):
        transl = [[0, 0, 3 + number] for number in range(first, first + count)]
        arrays = {"global_orient": np.zeros((count, 3)), "body_pose": np.zeros((count, 69)), "transl": np.array(transl)}
        np.savez(folder / "poses" / f"anim_nerf_{split}.npz", **arrays, betas=np.zeros(10))
    given = np.load(folder / "poses.npz")["transl"]
    kept, kept_test = [1, 2, 3, 4, 6, 7], [8]
    for poses in ("anim_nerf", "poses"):
        train = parse(folder, poses=poses, skip_frames_without_person=True)
        test = parse(folder, "test", poses=poses, skip_frames_without_person=True)
        assert frame_numbers(train) == subject_of(train.metadata).frame_numbers.tolist() == kept
        assert frame_numbers(test) == subject_of(test.metadata).frame_numbers.tolist() == kept_test
        assert list(range(subject_of(train.metadata).num_train)) == train.cameras.metadata["pose_id"].flatten().tolist()
        assert test.cameras.metadata["pose_id"].flatten().tolist() == [6]
        rows = kept + kept_test
        expected = given[rows] if poses == "poses" else [[0, 0, 3 + number] for number in rows]
        np.testing.assert_allclose(subject_of(train.metadata).poses.transl, expected, rtol=1e-6)
        for outputs, numbers in ((train, kept), (test, kept_test)):
            to_dataset = subject_of(outputs.metadata).world_to_dataset
            centers = outputs.cameras.camera_to_worlds[:, :, 3] @ to_dataset[:3, :3].T + to_dataset[:3, 3]
            np.testing.assert_allclose(centers[:, 0], -extrinsics[numbers, 0, 3], atol=1e-6)
            for index, number in enumerate(numbers):
                assert AvatarDataset(outputs).get_numpy_image(index)[0, 0, 0] == number * 10
    assert (
        len(notices_given) == 2
        and "2 of 8 frames are left out" in notices_given[0]
        and "mask_0000.png" in notices_given[0]
    )
    assert "1 of 2 frames are left out" in notices_given[1] and "mask_0009.png" in notices_given[1]


def test_nobody_in_any_frame(folder):
    for path in (folder / "masks").iterdir():
        Image.new("L", (WIDTH, HEIGHT)).save(path)
    with pytest.raises(InputError, match=r"the 8 training frames .* found all their masks black.*--train-frames"):
        parse(folder, skip_frames_without_person=True)


def test_nobody_in_the_held_out_frames(folder):
    """The person left before the end: other frames must be held out, and the message says how."""
    for number in (8, 9):
        Image.new("L", (WIDTH, HEIGHT)).save(folder / "masks" / f"mask_{number:04d}.png")
    message = r"in some of the 2 held-out frames \(number 8 to 9\), found all .*--test-frames START END STEP"
    with pytest.raises(InputError, match=message):
        parse(folder, skip_frames_without_person=True)
    others = {"train_frames": (0, 6, 1), "test_frames": (6, 10, 1), "skip_frames_without_person": True}
    assert frame_numbers(parse(folder, "test", **others)) == [6, 7]


def test_poses_of_all_images_under_the_name_of_the_split(folder):
    (folder / "poses").mkdir()
    (folder / "poses.npz").rename(folder / "poses" / "train.npz")
    np.savez(folder / "poses_optimized.npz", **np.load(folder / "poses" / "train.npz"))
    with pytest.raises(
        InputError, match=r"8 poses.*found 10, as many as images.*--poses train;.*--train-frames 0 10 1"
    ):
        parse(folder)
    # Both ways out are ways out.
    assert len(subject_of(parse(folder, poses="train").metadata).poses) == 10
    assert len(parse(folder, train_frames=(0, 10, 1)).image_filenames) == 10


def test_held_out_frames_that_are_trained_on(tmp_path, notices_given):
    write_instantavatar_folder(tmp_path / "one", 1)
    assert frame_numbers(parse(tmp_path / "one")) == frame_numbers(parse(tmp_path / "one", "test")) == [0]
    assert len(notices_given) == 1 and "one: 1 of 1 held-out frames are training frames too" in notices_given[0]
    write_instantavatar_folder(tmp_path / "four", 4)
    parse(tmp_path / "four", "test")
    assert len(notices_given) == 1
    parse(tmp_path / "four", test_frames=(2, 4, 1))
    assert "1 of 2 held-out frames" in notices_given[1]


def test_body_model_choice(folder):
    assert subject_of(parse(folder).metadata).body_model == str(folder / "body" / "SMPL_NEUTRAL.npz")
    np.savez(folder / "body" / "SMPL_MALE.npz", **random_body(1))
    chosen = str(folder / "body" / "SMPL_MALE.npz")
    assert subject_of(parse(folder, body_model=chosen).metadata).body_model == chosen
    with pytest.raises(InputError, match=r"found SMPL_MALE\.npz, SMPL_NEUTRAL\.npz"):
        parse(folder)


def test_missing_cameras(folder):
    (folder / "cameras.npz").unlink()
    with pytest.raises(InputError, match=r"cameras\.npz: expected the cameras, found no such file"):
        parse(folder)


def test_incomplete_cameras(folder):
    np.savez(folder / "cameras.npz", intrinsic=INTRINSIC, height=HEIGHT)
    with pytest.raises(InputError, match=r"cameras\.npz: .*found no extrinsic, width"):
        parse(folder)


def test_cameras_of_another_number_of_frames(folder):
    extrinsics = np.stack([np.eye(4)] * 3)
    np.savez(folder / "cameras.npz", intrinsic=INTRINSIC, extrinsic=extrinsics, height=HEIGHT, width=WIDTH)
    with pytest.raises(InputError, match=r"extrinsic of shape \(4, 4\) or \(10, 4, 4\), found \(3, 4, 4\)"):
        parse(folder)


def test_cameras_of_another_size(folder):
    np.savez(folder / "cameras.npz", intrinsic=INTRINSIC, extrinsic=np.eye(4), height=96, width=72)
    with pytest.raises(InputError, match=r"image_0000\.png: .*\(96, 72\), as cameras.npz says, found \(48, 36\)"):
        parse(folder)


def test_fewer_poses_than_images(folder):
    np.savez(folder / "poses.npz", thetas=np.zeros((9, 72)), transl=np.zeros((9, 3)), betas=np.zeros(10))
    with pytest.raises(InputError, match=r"poses\.npz: expected 10 poses, one for each of the images, found 9"):
        parse(folder)


def test_nan_pose(folder):
    thetas = np.zeros((10, 72))
    thetas[4, 7] = np.nan
    np.savez(folder / "poses.npz", thetas=thetas, transl=np.zeros((10, 3)))
    with pytest.raises(InputError, match=r"poses\.npz: .*NaN or infinity in the poses of frame 4"):
        parse(folder)


def test_no_poses(folder):
    (folder / "poses.npz").unlink()
    with pytest.raises(InputError, match=r"poses\.npz: expected poses .*found none"):
        parse(folder)
    with pytest.raises(InputError, match=r"truth\.npz: expected poses"):
        parse(folder, poses="truth")


def test_missing_mask(folder):
    (folder / "masks" / "mask_0003.png").unlink()
    with pytest.raises(InputError, match=r"masks: expected a mask for each of the 10 images, found 9"):
        parse(folder)


def test_empty_folder(tmp_path):
    with pytest.raises(InputError, match=r"images: expected images .* found no such folder"):
        parse(tmp_path)


@pytest.mark.parametrize("frames", [(5, 5, 1), (0, 11, 1), (-3, 5, 1), (8, 2, -1)])
def test_frames_outside_the_recording(folder, frames):
    with pytest.raises(InputError, match="expected training frames within the 10 frames found"):
        parse(folder, train_frames=frames)


def test_frames_of_subject_json_outside_the_recording(folder):
    """Images were removed since it was written."""
    (folder / "subject.json").write_text('{"train": [0, 8], "test": [8, 14]}')
    with pytest.raises(InputError, match=r"subject\.json: expected held-out frames within the 10 .*\. Correct it, or"):
        parse(folder)
    assert len(parse(folder, test_frames=(8, 10, 1)).image_filenames) == 8


def test_subject_json_of_an_editor_that_marks_the_byte_order(folder):
    (folder / "subject.json").write_text('{"train": [0, 3], "test": [3, 5]}', encoding="utf-8-sig")
    assert frame_numbers(parse(folder)) == [0, 1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[0, 3]",
        '{"train": [0, 3]}',
        '{"train": 3, "test": 4}',
        '{"train": "05", "test": "58"}',
        '{"train": [0, 5.5], "test": [6, 8]}',
        '{"train": [0, 1e400], "test": [6, 8]}',
        '{"train": [0, 5, 0], "test": [6, 8]}',
        '{"train": [5], "test": [0]}',
    ],
)
def test_broken_subject_json(folder, text):
    (folder / "subject.json").write_text(text)
    with pytest.raises(InputError, match=r"subject\.json: expected .*train and test frame ranges"):
        parse(folder)


@pytest.mark.parametrize("downscale", [0, -2, 100])
def test_downscale_that_leaves_no_image(folder, downscale):
    with pytest.raises(InputError, match=r"downscale: expected a divisor between 1 and the image's 36 pixels"):
        parse(folder, downscale=downscale)


def test_numbers_in_names_count_by_value(folder):
    for path in folder.glob("*/*_000?.png"):
        path.rename(path.with_name(path.name.replace("_000", "_")))
    for kind in ("image", "mask"):
        (folder / f"{kind}s" / f"{kind}_9.png").rename(folder / f"{kind}s" / f"{kind}_10.png")
    assert frame_numbers(parse(folder, "test")) == [8, 10]


def test_silhouettes_lie_on_the_masks(shared_subjects):
    """Vertices of the posed body, projected with nerfstudio's cameras, fall on the person in the mask."""
    for eval_set in ("heldout", "novel"):
        outputs = parse(shared_subjects / "dev-male", "test", eval_set=eval_set, poses="truth")
        bank, cameras = subject_of(outputs.metadata).poses, outputs.cameras
        body = load_body_model(subject_of(outputs.metadata).body_model)
        to_world = torch.linalg.inv(subject_of(outputs.metadata).world_to_dataset)
        dataset = AvatarDataset(outputs)
        for index in (0, 13, 29):
            row = cameras.metadata["pose_id"][index]
            vertices = body.vertices(bank.betas, bank.global_orient[row], bank.body_pose[row], bank.transl[row])[0]
            world = vertices @ to_world[:3, :3].T + to_world[:3, 3]
            camera_to_world = cameras.camera_to_worlds[index]
            local = (world - camera_to_world[:, 3]) @ camera_to_world[:, :3]
            u = (cameras.fx[index] * local[:, 0] / -local[:, 2] + cameras.cx[index]).long()
            v = (cameras.fy[index] * local[:, 1] / local[:, 2] + cameras.cy[index]).long()
            alpha = torch.from_numpy(dataset.get_numpy_image(index)[..., 3])
            assert (alpha[v, u] > 127).float().mean() > 0.99, (eval_set, index)
            # The other way round, most of the person lies near a vertex.
            covered = torch.zeros_like(alpha, dtype=torch.float32)
            covered[v, u] = 1
            covered = torch.nn.functional.max_pool2d(covered[None, None], 15, 1, 7)[0, 0]
            assert covered[alpha > 127].mean() > 0.9, (eval_set, index)
