"""`instant-avatar process` from end to end, on a video of the demo person, with poses that the user brings."""

import json
import re
import shlex
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from instantavatar_ns.data.folder import list_images, list_masks
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.process import landmarks as landmark_stage
from instantavatar_ns.process.people import Follower
from instantavatar_ns.scripts.process import Process
from instantavatar_ns.utils.errors import InputError
from tests.process.clips import person_images, write_video


@pytest.fixture(scope="module")
def clip(demo_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | float]:
    """A video of the demo person, and the true poses, focal length and masks of its frames."""
    folder = tmp_path_factory.mktemp("clip")
    images = person_images(demo_subject)
    cameras = np.load(demo_subject / "cameras.npz")
    np.testing.assert_allclose(cameras["extrinsic"], np.eye(4), atol=1e-6)
    masks = list_masks(demo_subject, list_images(demo_subject))
    (folder / "masks").mkdir()
    for index, path in enumerate(masks):
        (folder / "masks" / f"{index}{path.suffix}").write_bytes(path.read_bytes())
    return {
        "source": write_video(folder / "person.mp4", images),
        "poses": demo_subject / "poses.npz",
        "focal": float(cameras["intrinsic"][0, 0]),
        "masks": folder / "masks",
    }


@pytest.fixture(scope="module")
def processed(clip: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip, processed with its own poses; masks and landmarks are the command's."""
    output = tmp_path_factory.mktemp("processed") / "person"
    Process(clip["source"], output, poses=clip["poses"], focal=clip["focal"]).main()
    return output


def test_folder_trains(processed: Path, clip: dict) -> None:
    parser = InstantAvatarDataParserConfig(data=processed).setup()
    train, test = (parser.get_dataparser_outputs(split) for split in ("train", "test"))
    assert len(train.image_filenames) == 10
    assert [path.name for path in test.image_filenames] == ["00005.png"]
    assert float(train.cameras.fx[0]) == pytest.approx(clip["focal"])


def test_masks_are_those_of_the_person(processed: Path, clip: dict) -> None:
    overlaps = []
    truths = sorted(clip["masks"].iterdir(), key=lambda path: int(path.stem))
    for mine, truth in zip(list_masks(processed, list_images(processed)), truths, strict=True):
        a, b = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127 for path in (mine, truth))
        overlaps.append((a & b).sum() / (a | b).sum())
    assert len(overlaps) == 11
    assert np.mean(overlaps) > 0.88


def test_landmarks_have_the_agreed_layout(processed: Path) -> None:
    with np.load(processed / "process" / "landmarks.npz") as file:
        shapes = {name: (file[name].shape, file[name].dtype.name) for name in file.files}
    assert shapes == {
        "pixels": ((11, 33, 2), "float32"),
        "visibility": ((11, 33), "float32"),
        "world": ((11, 33, 3), "float32"),
        "found": ((11,), "bool"),
    }


def test_page_shows_frames_and_charts_and_needs_no_other_file(processed: Path) -> None:
    page = (processed / "process" / "report.html").read_text()
    assert page.count("<img ") >= 6
    assert page.count("<svg ") >= 4
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "ns-train instant-avatar" in page


def test_finished_folder_is_not_made_again(processed: Path, clip: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Follower, "look", lambda *arguments, **options: pytest.fail("the person was looked for again"))
    before = {path: path.stat().st_mtime_ns for path in processed.rglob("*.png")}
    Process(clip["source"], processed, poses=clip["poses"], focal=clip["focal"]).main()
    assert {path: path.stat().st_mtime_ns for path in processed.rglob("*.png")} == before


def test_stopped_command_goes_on(processed: Path, clip: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    prediction, _ = landmark_stage.read_prediction(processed / "process" / "network" / "00000.npz")

    def look(*arguments, **options):
        looks.append("look")
        if len(looks) == 4:
            raise KeyboardInterrupt
        return prediction, 1

    monkeypatch.setattr(Follower, "look", look)
    command = Process(clip["source"], tmp_path / "out", frames=8, poses=clip["poses"], focal=clip["focal"])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 130
    assert not (tmp_path / "out" / "masks").exists()
    with pytest.raises(SystemExit) as ended:  # all frames show the same person, which does not fit the poses
        command.main()
    assert ended.value.code == 1
    assert len(looks) == 4 + 5
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 8


def test_own_masks_and_poses_need_no_network(clip: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Follower, "look", lambda *arguments, **options: pytest.fail("the network was run"))
    output = tmp_path / "out"
    Process(clip["source"], output, masks=clip["masks"], poses=clip["poses"], focal=clip["focal"]).main()
    mask = cv2.imread(str(output / "masks" / "00003.png"), cv2.IMREAD_GRAYSCALE)
    truth = cv2.imread(str(next(clip["masks"].glob("3.*"))), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(mask > 127, truth > 127)
    assert not (output / "process" / "landmarks.npz").exists()


def test_wrong_poses_end_with_an_error_but_keep_the_page(clip: dict, tmp_path: Path) -> None:
    with np.load(clip["poses"]) as file:
        poses = {name: file[name] for name in file.files}
    np.savez(tmp_path / "moved.npz", **(poses | {"transl": poses["transl"] + np.array([0.6, 0, 0])}))
    output = tmp_path / "out"
    command = Process(clip["source"], output, masks=clip["masks"], poses=tmp_path / "moved.npz", focal=clip["focal"])
    with pytest.raises(SystemExit) as error:
        command.main()
    assert error.value.code == 1
    assert "misses the mask in 11 of 11 frames" in (output / "process" / "report.html").read_text()


def test_dry_run_writes_nothing(clip: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Process(clip["source"], tmp_path / "out", dry_run=True).main()
    assert not (tmp_path / "out").exists()
    shown = capsys.readouterr().out
    assert "96 x 96" in shown
    assert shown.count("to do") == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 500}, "8 to 200 frames"),
        ({"start": 3.0, "end": 2.0}, "an end after the start"),
        ({"start": -3.0}, "--start: expected seconds from the clip's beginning, found -3"),
        ({"start": float("nan")}, "--start: expected seconds"),
        ({"end": float("nan")}, "an end after the start, found 0 to nan seconds"),
        ({"start": 50.0}, r"at least 8 frames after 50 seconds, found 0 in a clip of 1\.1 seconds"),
        ({"focal": 9.0}, "--focal: expected a focal length in pixels of images of 96x96, found 9"),
        ({"focal": -1.0}, "expected pixels"),
        ({"frames": 3}, "8 to 200 frames"),
        ({"poses": Path(__file__)}, "the focal length that the poses were estimated with"),
        ({"masks": Path("no_masks")}, "found nothing there"),
        ({"body": "SMPL_NONE.pkl"}, "found nothing there"),
        ({"longest_side": 10}, "at least 64"),
    ],
)
def test_wrong_options_are_told(clip: dict, tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Process(clip["source"], tmp_path / "out", **options).main()
    assert not (tmp_path / "out").exists()


def test_split_holds_out_every_tenth_frame(processed: Path) -> None:
    split = json.loads((processed / "subject.json").read_text())
    assert split["test"] == {"frames": [5]}
    assert split["train"] == {"frames": [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]}


def test_frames_without_the_person_are_in_neither_set(clip: dict, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for path in clip["masks"].iterdir():
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(tmp_path / "masks" / f"{path.stem}.png"), mask * (path.stem not in ("2", "3")))
    output = tmp_path / "out"
    Process(clip["source"], output, masks=tmp_path / "masks", poses=clip["poses"], focal=clip["focal"]).main()
    parser = InstantAvatarDataParserConfig(data=output).setup()
    frames = {path.stem for split in ("train", "test") for path in parser.get_dataparser_outputs(split).image_filenames}
    assert frames == {f"{index:05d}" for index in range(11)} - {"00002", "00003"}


def test_page_says_what_is_wrong_where_no_body_fits(
    processed: Path, clip: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Landmarks in a single frame: no body can be fitted to them."""
    with np.load(processed / "process" / "landmarks.npz") as file:
        arrays = {name: file[name] for name in file.files}
    found = np.arange(len(arrays["found"])) == 4
    np.savez(tmp_path / "lost.npz", **(arrays | {"found": found}))
    output = tmp_path / "out"
    command = Process(clip["source"], output, masks=clip["masks"], landmarks=tmp_path / "lost.npz")
    with pytest.raises(InputError, match="found them in 1 of 11"):
        command.main()
    shown = " ".join(capsys.readouterr().out.split())
    page = (output / "process" / "report.html").read_text()
    assert "Nobody is found in 10 of 11 frames." in shown
    assert "report.html" in shown
    for words in ("No body was fitted", "found them in 1 of 11", "Nobody is found in 10 of 11 frames."):
        assert words in page
    assert page.count("<img ") >= 6
    assert "the fitted body" not in page
    assert "ns-train" not in page


def test_dry_run_tells_what_overwriting_replaces(processed: Path, clip: dict, capsys: pytest.CaptureFixture) -> None:
    options = {"poses": clip["poses"], "focal": clip["focal"], "dry_run": True}
    Process(clip["source"], processed, **options).main()
    assert capsys.readouterr().out.count("finished") == 6
    Process(clip["source"], processed, **(options | {"frames": 9}), overwrite=True).main()
    assert capsys.readouterr().out.count("to do, replaced") == 6
    Process(clip["source"], processed, **(options | {"focal": 2 * clip["focal"]}), overwrite=True).main()
    shown = capsys.readouterr().out
    assert (shown.count("finished"), shown.count("to do, replaced")) == (4, 2)


@pytest.mark.parametrize("step", ["_check", "write_report"])
def test_stopped_after_the_last_stage(
    processed: Path, clip: dict, step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(f"instantavatar_ns.scripts.process.{step}", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(SystemExit) as stopped:
        Process(clip["source"], processed, poses=clip["poses"], focal=clip["focal"]).main()
    assert stopped.value.code == 130
    assert "goes on from there" in capsys.readouterr().out


def test_next_command_can_be_pasted(clip: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "my [first] clip"
    Process(clip["source"], output, masks=clip["masks"], poses=clip["poses"], focal=clip["focal"]).main()
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Next: "))
    assert shlex.split(line)[-1] == str(output)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("masks", "expected masks of the 11 chosen frames, or of all 11 or more of the source, found 3"),
        ("poses", "expected poses of the 11 chosen frames, or of all 11 or more of the source, found 3"),
        ("landmarks", "landmarks"),
        ("unreadable", "damaged.npz: expected"),
    ],
)
def test_results_that_do_not_fit_are_told_at_once(
    clip: dict, tmp_path: Path, option: str, message: str, dry_run: bool
) -> None:
    options: dict = {"poses": clip["poses"], "focal": clip["focal"]}
    if option == "masks":
        options["masks"] = tmp_path / "masks"
        options["masks"].mkdir()
        for path in sorted(clip["masks"].iterdir())[:3]:
            (options["masks"] / path.name).write_bytes(path.read_bytes())
    elif option == "poses":
        with np.load(clip["poses"]) as file:
            few = {name: file[name][:3] if name != "betas" else file[name] for name in file.files}
        options["poses"] = tmp_path / "few.npz"
        np.savez(options["poses"], **few)
    else:
        name = "landmarks" if option == "landmarks" else "poses"
        options[name] = tmp_path / "damaged.npz"
        options[name].write_bytes(b"damaged")
    with pytest.raises(InputError, match=message):
        Process(clip["source"], tmp_path / "out", **options, dry_run=dry_run).main()
    assert not (tmp_path / "out").exists()


def test_empty_folder_is_told_with_what_belongs_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected pictures .*found none\. Check the name: the pictures"):
        Process(tmp_path / "empty", tmp_path / "out").main()
