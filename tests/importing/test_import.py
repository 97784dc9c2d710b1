"""Results of pose estimators become folders with the poses and cameras that they were made from."""

import json
import os
import pickle
import shlex

import cv2
import joblib
import numpy as np
import pytest
import torch
import tyro
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.files import FREE_BODY
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.data.subject import subject_of
from instantavatar_ns.motion.readers import read_motion_file
from instantavatar_ns.scripts.import_results import ImportResults
from instantavatar_ns.scripts.main import commands
from instantavatar_ns.utils.errors import InputError
from tests.importing import tool_files
from tests.importing.tool_files import FRAMES, SIZE, SMPLX_TOOLS, WRITERS, make_truth

HAS_MASKS = ("phalp", "tram", "prompthmr")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Truth, result, video and masks of each tool, made when they are asked for."""
    made = {}

    def get(tool):
        if tool not in made:
            folder = tmp_path_factory.mktemp(tool)
            truth = make_truth(tool, hands=tool not in SMPLX_TOOLS)
            write, name = WRITERS[tool]
            video = tool_files.write_frames(folder / "frames", truth)
            masks = None if tool in HAS_MASKS else tool_files.write_masks(folder / "masks", truth)
            made[tool] = truth, write(folder / name, truth), video, masks
        return made[tool]

    return get


def run(recording, output, **options):
    _, result, video, masks = recording
    options = {"masks": masks, "body_model": str(FREE_BODY), "shape": "given", **options}
    ImportResults(result, video, output, **options).main()
    return output


def check_truth(truth, output, rows=slice(None)):
    """Poses within 0.1 degrees and 1 mm, in the camera; focal length within 0.1 %."""
    poses, cameras = np.load(output / "poses.npz"), np.load(output / "cameras.npz")
    rows = np.arange(FRAMES)[rows]
    to_camera = np.broadcast_to(cameras["extrinsic"], (len(rows), 4, 4))
    thetas = poses["thetas"].reshape(len(rows), 24, 3).astype(float)
    root = Rotation.from_matrix(to_camera[:, :3, :3]) * Rotation.from_rotvec(thetas[:, 0])
    thetas[:, 0] = root.as_rotvec()
    wanted = Rotation.from_rotvec(truth.thetas[rows].reshape(-1, 3))
    errors = (wanted.inv() * Rotation.from_rotvec(thetas.reshape(-1, 3))).magnitude()
    assert np.degrees(errors.max()) < 0.1
    pelvis = tool_files.read_body(FREE_BODY).rest(torch.from_numpy(poses["betas"][0]))[1][0].numpy()
    places = np.einsum("frc,fc->fr", to_camera[:, :3, :3], poses["transl"] + pelvis) + to_camera[:, :3, 3]
    np.testing.assert_allclose(places, truth.transl[rows] + pelvis, atol=1e-3)
    np.testing.assert_allclose(poses["betas"][0], truth.betas, atol=1e-4)
    intrinsics = np.broadcast_to(cameras["intrinsic"], (len(rows), 3, 3))
    np.testing.assert_allclose(intrinsics[:, [0, 1], [0, 1]], truth.intrinsics[rows][:, [0, 1], [0, 1]], rtol=1e-3)
    np.testing.assert_allclose(intrinsics[:, :2, 2], truth.intrinsics[rows][:, :2, 2], atol=0.01)
    assert (cameras["height"], cameras["width"]) == SIZE


@pytest.mark.parametrize("tool", WRITERS)
def test_truth_comes_back(recordings, tool, tmp_path, capsys):
    output = run(recordings(tool), tmp_path / "out")
    check_truth(recordings(tool)[0], output)
    assert "Poses and masks fit" in capsys.readouterr().out
    outputs = InstantAvatarDataParserConfig(data=output).setup().get_dataparser_outputs("train")
    assert len(subject_of(outputs.metadata).poses) == FRAMES
    assert sorted(path.name for path in (output / "images").iterdir()) == [f"{n:05d}.png" for n in range(FRAMES)]
    facts = json.loads((output / "subject.json").read_text())
    assert facts["interpolated"] == [] and facts["shape"] == "given"
    assert sorted(tmp_path.iterdir()) == [output]


@pytest.fixture
def wham(recordings):
    return recordings("wham")


def with_result(recording, result):
    return recording[0], result, *recording[2:]


def test_romp_video_with_tracks(recordings, tmp_path, capsys):
    truth, _, *rest = recordings("romp")
    result = tool_files.write_romp_video(tmp_path / "video_results.npz", truth)
    check_truth(truth, run((truth, result, *rest), tmp_path / "out"))
    assert "track 7" in capsys.readouterr().out


def test_file_of_another_name(recordings, tmp_path):
    recording = recordings("gvhmr")
    renamed = tmp_path / "poses.dat"
    renamed.write_bytes(recording[1].read_bytes())
    check_truth(recording[0], run(with_result(recording, renamed), tmp_path / "out"))


def test_video_file(recordings, tmp_path):
    truth, result, _, masks = recordings("wham")
    path = tmp_path / "person.mp4"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30.0, SIZE[::-1])
    for number in range(FRAMES):
        video.write(np.full((*SIZE, 3), 20 * number + 10, np.uint8))
    video.release()
    output = run((truth, result, path, masks), tmp_path / "out", frames=(1, 8, 3))
    check_truth(truth, output, slice(1, 8, 3))
    images = sorted((output / "images").iterdir())
    assert [image.name for image in images] == ["00001.png", "00004.png", "00007.png"]
    np.testing.assert_allclose([cv2.imread(str(image)).mean() for image in images], [30, 90, 150], atol=4)


def test_longest_track_is_taken_and_another_one_can_be_chosen(wham, tmp_path, capsys):
    run(wham, tmp_path / "out")
    assert "Took the longest track, 0, of 0 (9 frames), 3 (2 frames)" in " ".join(capsys.readouterr().out.split())
    output = run(wham, tmp_path / "second", track="3")
    check_truth(wham[0], output, slice(0, 2))
    with pytest.raises(InputError, match=r"expected a track 1, found 0 \(9 frames\), 3 \(2 frames\)"):
        run(wham, tmp_path / "third", track="1")


def test_gap_is_interpolated_and_told(wham, tmp_path, capsys):
    truth = wham[0]
    content = tool_files.wham_content(truth)[0]
    kept = np.array([0, 1, 2, 4, 5, 6, 7, 8])
    result = tmp_path / "wham.pkl"
    joblib.dump({0: {key: value[kept] for key, value in content.items()}}, result)
    output = run(with_result(wham, result), tmp_path / "out")
    assert "frame 3 are interpolated" in " ".join(capsys.readouterr().out.split())
    poses = np.load(output / "poses.npz")
    between = (truth.transl[2] + truth.transl[4]) / 2
    np.testing.assert_allclose(poses["transl"][3], between, atol=1e-5)
    ends = Rotation.from_rotvec(truth.thetas[[2, 4], 51:54])
    half = Rotation.from_rotvec(poses["thetas"][3, 51:54])
    np.testing.assert_allclose((ends[0].inv() * half).magnitude(), (half.inv() * ends[1]).magnitude(), atol=1e-4)
    assert json.loads((output / "subject.json").read_text())["interpolated"] == [3]


def test_frames_without_a_mask_are_left_out(recordings, tmp_path, capsys):
    recording = recordings("phalp")
    content = tool_files.phalp_content(recording[0])
    frame = list(content.values())[4]
    frame["tracked_time"] = [1, 1]  # the person was lost there
    joblib.dump(content, tmp_path / "lost.pkl")
    output = run(with_result(recording, tmp_path / "lost.pkl"), tmp_path / "out")
    assert not (output / "images" / "00004.png").exists()
    assert "there is no mask" in " ".join(capsys.readouterr().out.split())


def test_images_numbered_from_one(recordings, tmp_path):
    truth, result, _, _ = recordings("phalp")
    frames = tmp_path / "img"
    frames.mkdir()
    for number in range(FRAMES):
        cv2.imwrite(str(frames / f"{number + 1:06d}.png"), truth.masks[number])
    check_truth(truth, run((truth, result, frames, None), tmp_path / "out"))


BROKEN = {
    "romp": ("cam_trans", "cam_trans"),
    "phalp": ("camera", "camera"),
    "wham": ("frame_ids", "frame_ids"),
    "gvhmr": ("K_fullimg", "K_fullimg"),
    "tram": ("pred_trans", "pred_trans"),
    "prompthmr": ("img_focal", "img_focal"),
    "smplerx": ("transl", "transl"),
    "nlf": ("betas", "betas"),
}
POSES = ("smpl_thetas", "global_orient", "pose", "pred_rotmat", "rotmat")


def changed(tree, change):
    """A copy of a result's content in which `change(key, value)` replaces values; None leaves them out."""
    if isinstance(tree, dict):
        items = {key: change(key, changed(value, change)) for key, value in tree.items()}
        return {key: value for key, value in items.items() if value is not None}
    return [changed(item, change) for item in tree] if isinstance(tree, list) else tree


def rewritten(tool, result, target, change):
    """Write a result again, changed."""
    if result.is_dir():
        for path in result.rglob("*"):
            copy = target / path.relative_to(result)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".npz":
                arrays = {key: value[()] for key, value in np.load(path, allow_pickle=True).items()}
                np.savez(copy, **changed(arrays, change))
            elif path.suffix == ".npy" and path.name != "masks.npy":
                np.save(copy, changed(np.load(path, allow_pickle=True)[()], change))
            elif path.is_file():
                copy.write_bytes(path.read_bytes())
    elif tool == "gvhmr":
        torch.save(changed(torch.load(result, weights_only=True), change), target)
    else:
        joblib.dump(changed(joblib.load(result), change), target)
    return target


@pytest.mark.parametrize("tool", WRITERS)
def test_missing_key(recordings, tool, tmp_path):
    key, named = BROKEN[tool]
    recording = recordings(tool)
    target = tmp_path / recording[1].name
    rewritten(tool, recording[1], target, lambda name, value: None if name == key else value)
    with pytest.raises(InputError, match=rf"expected .*{named}"):
        run(with_result(recording, target), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tool", WRITERS)
def test_nan(recordings, tool, tmp_path):
    def spoil(name, value):
        if name not in POSES:
            return value
        if isinstance(value, list):
            return [item * np.nan for item in value]
        return value * np.nan

    recording = recordings(tool)
    target = tmp_path / recording[1].name
    rewritten(tool, recording[1], target, spoil)
    with pytest.raises(InputError, match=r"NaN|expected rotation matrices"):
        run(with_result(recording, target), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tool", WRITERS)
def test_another_video(recordings, tool, tmp_path):
    truth, result, video, masks = recordings(tool)
    shorter = tmp_path / "frames"
    shorter.mkdir()
    for path in sorted(video.iterdir())[:-3]:
        (shorter / f"clip{path.name}").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"expected (a result of the 6 frames|frames within the 6)"):
        run((truth, result, shorter, masks), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("tool", "of"), [("romp", "phalp"), ("wham", "romp"), ("phalp", "wham"), ("gvhmr", "nlf")])
def test_camera_of_another_tool_is_named(tool, of, tmp_path):
    """The file of one tool, about a person as another tool's camera sees it."""
    focal = tool_files.FOCALS[of](SIZE)
    truth = make_truth(of, hands=tool not in SMPLX_TOOLS)
    write, name = WRITERS[tool]
    wrong = tool_files.replace(truth, intrinsics=make_truth(tool).intrinsics)
    result = write(tmp_path / name, wrong)
    recording = truth, result, tool_files.write_frames(tmp_path / "f", truth), None
    masks = tool_files.write_masks(tmp_path / "m", truth)
    with pytest.raises(InputError, match=rf"--focal-length {focal:.1f}"):
        run(recording, tmp_path / "out", masks=masks)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
    output = run(recording, tmp_path / "out", masks=masks, focal_length=focal)
    check_truth(truth, output)


def test_tool_that_is_not_known(tmp_path, wham):
    np.savez(tmp_path / "other.npz", vertices=np.zeros((3, 3)))
    with pytest.raises(InputError, match=r"other\.npz: expected a pose estimator's result, found vertices \(3, 3\)"):
        run(with_result(wham, tmp_path / "other.npz"), tmp_path / "out")
    with pytest.raises(InputError, match="expected a pose estimator's result, found no such file"):
        run(with_result(wham, tmp_path / "nothing.pkl"), tmp_path / "out")


class Shell:
    """Pickles into a call of `os.system`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def write_commands(folder, canary):
    """Files of each kind that call `os.system` when they are unpickled."""
    command = {0: {"pose": Shell(canary), "trans": np.zeros((1, 3)), "frame_ids": np.zeros(1)}}
    (folder / "plain.pkl").write_bytes(pickle.dumps(command))
    joblib.dump(command, folder / "joblib.pkl", compress=3)
    torch.save({"smpl_params_incam": Shell(canary)}, folder / "torch.pt")
    np.savez(folder / "frame.npz", results=np.array({"cam_trans": Shell(canary)}, dtype=object))
    (folder / "tram" / "hps").mkdir(parents=True)
    for name in ("camera.npy", "hps/hps_track_0.npy"):
        np.save(folder / "tram" / name, np.array({"pred_cam_R": Shell(canary)}, dtype=object))


@pytest.mark.parametrize("name", ["plain.pkl", "joblib.pkl", "torch.pt", "frame.npz", "tram"])
def test_nothing_is_run(wham, name, tmp_path):
    canary = tmp_path / "ran"
    write_commands(tmp_path, canary)
    with pytest.raises(InputError, match=r"nothing of it was run") as error:
        run(with_result(wham, tmp_path / name), tmp_path / "out")
    assert "posix.system" in str(error.value)
    assert "weights_only" not in str(error.value)
    assert not canary.exists()
    pickle.loads((tmp_path / "plain.pkl").read_bytes())
    assert canary.exists(), "the pickle of this test does not call what it should"


def test_masks_are_made_where_the_result_has_none(wham, tmp_path, monkeypatch, capsys):
    truth, asked = wham[0], []

    def made(write_images, numbers, size):
        (tmp_path / "images").mkdir()
        write_images(tmp_path / "images")
        asked.append((len(list((tmp_path / "images").iterdir())), list(numbers), size))
        return {number: lambda number=number: (truth.masks[number] > 127).astype(np.float32) for number in numbers}

    monkeypatch.setattr("instantavatar_ns.scripts.import_results.masks_of_frames", made)
    check_truth(truth, run(wham, tmp_path / "out", masks=None))
    assert asked == [(FRAMES, list(range(FRAMES)), SIZE)]
    run(wham, tmp_path / "few", masks=None, frames=(2, 8, 2), dry_run=True)
    assert len(asked) == 1, "a dry run makes no masks"
    assert "would be made" in " ".join(capsys.readouterr().out.split())


def test_masks_in_one_array(wham, tmp_path):
    np.savez(tmp_path / "masks.npz", masks=wham[0].masks > 0)
    check_truth(wham[0], run(wham, tmp_path / "out", masks=tmp_path / "masks.npz"))
    np.savez(tmp_path / "few.npz", masks=wham[0].masks[:4] > 0)
    with pytest.raises(InputError, match=r"few\.npz: expected masks \(9, height, width\)"):
        run(wham, tmp_path / "second", masks=tmp_path / "few.npz")


def test_folders_of_users_are_not_replaced(wham, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"expected a folder that is empty"):
            run(wham, output, overwrite=overwrite)
    assert [path.name for path in output.iterdir()] == ["mine.txt"]


def test_own_folder_is_replaced_where_it_is_wanted(wham, tmp_path):
    output = run(wham, tmp_path / "out")
    with pytest.raises(InputError, match="--overwrite"):
        run(wham, output)
    assert len(list((run(wham, output, overwrite=True, track="3") / "images").iterdir())) == 2


def test_dry_run_writes_nothing(wham, tmp_path, capsys):
    run(wham, tmp_path / "out", dry_run=True)
    assert "Would write 9 frames" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tool", "name", "moved"),
    [("wham", "wham.pkl", None), ("gvhmr", "hmr4d.pt", 5.0), ("phalp", "poses.npy", None)],
)
def test_world_poses_as_a_motion(tool, name, moved, tmp_path):
    """`--motion` takes the poses in the world of the longest track."""
    truth = make_truth(tool, hands=False)
    if name.endswith(".npy"):
        np.save(tmp_path / name, {"thetas": truth.thetas, "transl": truth.transl})
    else:
        WRITERS[tool][0](tmp_path / name, truth)
    motion, _ = read_motion_file(tmp_path / name)
    wanted = truth.transl + (moved or 0.0)
    root = Rotation.from_rotvec(truth.thetas[:, :3])
    if tool == "wham":
        turn = Rotation.from_rotvec([np.pi, 0, 0])
        wanted, root = turn.apply(truth.transl), turn * root
    np.testing.assert_allclose(motion.transl, wanted, atol=1e-4)
    found = Rotation.from_rotvec(motion.global_orient.double().numpy())
    assert np.degrees((root.inv() * found).magnitude().max()) < 0.1


def test_command_line(wham, tmp_path):
    _, result, video, masks = wham
    paths = [str(path) for path in (result, video, tmp_path / "out")]
    options = ["--masks", str(masks), "--track", "3", "--frames", "0", "2", "1", "--dry-run"]
    command = tyro.cli(commands(), args=["import", *paths, *options])
    assert isinstance(command, ImportResults)
    assert (command.track, command.frames, command.body_model) == ("3", (0, 2, 1), "free")
    command.main()
    assert not (tmp_path / "out").exists()


def test_place_that_romp_did_not_find(recordings, tmp_path, capsys):
    truth, _, *rest = recordings("romp")
    lost = truth.transl.copy()
    lost[4] = -1
    folder = tool_files.write_romp(tmp_path / "romp", tool_files.replace(truth, transl=lost))
    output = run((truth, folder, *rest), tmp_path / "out")
    assert "frame 4 are interpolated" in " ".join(capsys.readouterr().out.split())
    np.testing.assert_allclose(np.load(output / "poses.npz")["transl"][4], truth.transl[[3, 5]].mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("frames", [(0, 9, 0), (5, 5, 1), (-2, 4, 1)])
def test_frames_that_are_none(wham, frames, tmp_path):
    with pytest.raises(InputError, match="--frames: expected frames START to END"):
        run(wham, tmp_path / "out", frames=frames)


def test_masks_of_frames_that_were_chosen(wham, tmp_path):
    """`instant-avatar process` numbers its masks from 0 and lists the frames that it chose."""
    truth, result, video, _ = wham
    chosen = [1, 4, 6]
    for name in ("process", "masks"):
        (tmp_path / "clip" / name).mkdir(parents=True)
    (tmp_path / "clip" / "process" / "clip.json").write_text(json.dumps({"frames": chosen}))
    for place, number in enumerate(chosen):
        cv2.imwrite(str(tmp_path / "clip" / "masks" / f"{place:05d}.png"), truth.masks[number])
    output = run((truth, result, video, tmp_path / "clip"), tmp_path / "out")
    check_truth(truth, output, chosen)
    (tmp_path / "clip" / "process" / "clip.json").write_text(json.dumps({"frames": [1, 4]}))
    with pytest.raises(InputError, match=r"clip\.json: expected 3 frames"):
        run((truth, result, video, tmp_path / "clip"), tmp_path / "second")


def test_next_command_can_be_pasted(wham, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    output = run(wham, tmp_path / "my [first] import")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Next: "))
    method = ["instant-avatar-lite", "--machine.device-type", "cpu"]
    assert shlex.split(line) == ["Next:", "ns-train", *method, "--data", str(output)]
