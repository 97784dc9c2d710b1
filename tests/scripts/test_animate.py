"""`instant-avatar animate`: nerfstudio's frames, transparent ones, and renderings that were stopped."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from nerfstudio.cameras.camera_paths import get_path_from_json
from nerfstudio.scripts.render import Commands
from nerfstudio.utils.eval_utils import eval_setup
from PIL import Image

from instantavatar_ns.body.posed import rest_sequence
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.editing import MotionOptions
from instantavatar_ns.scripts import animate as animate_module
from instantavatar_ns.scripts.animate import Animate
from instantavatar_ns.scripts.framing import body_points, cut_frames
from instantavatar_ns.utils.errors import InputError
from tests.commands import environment

SIZE = 48
FOUR_FRAMES = MotionOptions(start_frame=4, end_frame=17, fps=10.0)  # of 30 a second


@pytest.fixture(scope="module")
def run(trained_run, tmp_path_factory):
    """A copy of a run, for animate writes beneath it."""
    folder = tmp_path_factory.mktemp("animate") / "person" / "instant-avatar-lite" / "run"
    return shutil.copytree(trained_run, folder) / "config.yml"


def images_of(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(Path(folder).glob("*.png"))]).astype(int)


def opaque_frames(monkeypatch, **arguments):
    """The images that animate hands to the encoder."""
    kept = []

    def keep(images, output, fps):
        kept.append(images_of(images.parent))
        output.write_bytes(b"video")

    with monkeypatch.context() as patch:
        patch.setattr(animate_module, "encode", keep)
        written = Animate(**arguments).main()
    assert written.read_bytes() == b"video"
    return kept[0]


def stock_command(output):
    """The arguments of the ns-render line that animate printed."""
    (line,) = [line for line in output.splitlines() if line.startswith("ns-render camera-path")]
    return shlex.split(line)[1:]


def render_stock(arguments):
    """Images of ns-render."""
    tyro.cli(Commands, args=arguments).main()
    return images_of(arguments[arguments.index("--output-path") + 1])


def test_frames_are_those_of_ns_render_and_of_the_model(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", environment(tmp_path)["PATH"])
    arguments = {"load_config": run, "motion": Path("walk"), "size": SIZE, "motion_options": FOUR_FRAMES}
    frames = opaque_frames(monkeypatch, output=tmp_path / "walk.mp4", camera="orbit", **arguments)
    command = stock_command(capsys.readouterr().out)
    assert frames.shape == (5, SIZE, SIZE, 3)
    persons = (frames < 200).any(axis=3)
    assert (persons.mean(axis=(1, 2)) > 0.03).all() and (persons[0] ^ persons[2]).mean() > 0.01
    assert np.abs(frames - render_stock(command)).max() <= 1

    config, path = (Path(command[command.index(option) + 1]) for option in command[1:5:2])
    model = eval_setup(config, test_mode="inference")[1].model
    cameras = get_path_from_json(json.loads(path.read_text()))
    with torch.no_grad():
        direct = [model.get_outputs_for_camera(cameras[index : index + 1])["rgb"] for index in range(5)]
    assert np.abs(frames - 255 * torch.stack(direct).numpy()).max() <= 1

    # The same frames with alpha: seen on white they are the opaque ones.
    Animate(output=tmp_path / "walk", camera="orbit", **arguments).main()
    transparent = images_of(tmp_path / "walk")
    assert transparent.shape == (5, SIZE, SIZE, 4)
    alpha = transparent[..., 3:] / 255
    assert alpha.min() == 0 and alpha.max() > 0.95
    assert np.abs(transparent[..., :3] * alpha + 255 * (1 - alpha) - frames).max() <= 2
    # At the silhouette the colour is the person's, not a mixture with white.
    edge = (alpha[..., 0] > 0.2) & (alpha[..., 0] < 0.6)
    assert edge.any() and transparent[..., :3][edge].mean() < frames[edge].mean() - 20
    assert np.abs(transparent - render_stock(stock_command(capsys.readouterr().out))).max() <= 1


def test_stopped_rendering_goes_on_where_it_was(run, tmp_path, monkeypatch):
    rendered = []
    render, stop_after = InstantAvatarModel.get_outputs_for_camera, [2]

    def count(self, camera, obb_box=None):
        if len(rendered) == stop_after[0]:
            raise KeyboardInterrupt
        rendered.append(float(camera.times))
        return render(self, camera, obb_box)

    monkeypatch.setattr(InstantAvatarModel, "get_outputs_for_camera", count)
    output = tmp_path / "video" / "stretch.webm"
    command = Animate(run, Path("stretch"), output, size=24, motion_options=FOUR_FRAMES)
    with pytest.raises(KeyboardInterrupt):
        command.main()
    assert not output.exists() and [path.name for path in output.parent.iterdir()] == [".stretch.webm.partial"]

    stop_after[0] = None
    command.main()
    assert rendered == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0]), "each frame once"
    assert output.stat().st_size > 500 and list(output.parent.iterdir()) == [output]

    # Other settings start anew, though the name is the same.
    rendered.clear()
    stop_after[0] = 2
    with pytest.raises(KeyboardInterrupt):
        command.main()
    rendered.clear()
    stop_after[0] = None
    Animate(run, Path("stretch"), output, size=26, motion_options=FOUR_FRAMES).main()
    assert len(rendered) == 5


def test_saved_camera_path_films_the_motion(run, tmp_path, monkeypatch):
    """Its size, its length and its frame rate; the motion plays at its own speed."""
    matrix = [1, 0, 0, 0, 0, 0, -1, -3.5, 0, 1, 0, 0, 0, 0, 0, 1]
    frame = {"camera_to_world": matrix, "fov": 40, "aspect": 1.5, "render_time": 0.0}
    path = {"camera_type": "perspective", "render_height": 31, "render_width": 45, "seconds": 0.3, "fps": 10}
    (tmp_path / "round.json").write_text(json.dumps({**path, "camera_path": [frame] * 3}))
    arguments = {"load_config": run, "motion": Path("dance"), "output": tmp_path / "dance.mp4"}
    frames = opaque_frames(monkeypatch, camera=tmp_path / "round.json", **arguments)
    assert frames.shape == (3, 31, 45, 3)
    written = json.loads((run.parent / "animate" / "dance" / "camera_path_round.json").read_text())
    # Ten frames a second are every third of the motion's 121.
    np.testing.assert_allclose([frame["render_time"] for frame in written["camera_path"]], np.arange(3) / 40)
    frames = opaque_frames(monkeypatch, camera=tmp_path / "round.json", size=20, **arguments)
    assert frames.shape == (3, 20, 29, 3)


def test_saved_path_that_cuts_the_person_is_told(run, tmp_path, monkeypatch, capsys):
    """Two frames from near by, one from farther away."""
    matrices = [[1, 0, 0, 0, 0, 0, -1, -meters, 0, 1, 0, 0, 0, 0, 0, 1] for meters in (1, 4, 1)]
    frames = [{"camera_to_world": matrix, "fov": 40, "aspect": 1} for matrix in matrices]
    path = {"camera_type": "perspective", "render_height": 20, "render_width": 20, "seconds": 0.3, "fps": 10}
    (tmp_path / "near.json").write_text(json.dumps({**path, "camera_path": frames}))
    arguments = {"load_config": run, "motion": Path("walk"), "camera": tmp_path / "near.json"}
    opaque_frames(monkeypatch, output=tmp_path / "walk.mp4", **arguments)
    told = " ".join(re.sub(r"animate\.py:\d+", "", capsys.readouterr().out).split())  # beside each line of a log
    assert "near.json cuts the person in 2 of 3 frames: 0, 2." in told


@pytest.mark.parametrize(("camera", "root"), [("static", "follow"), ("orbit", "as-recorded")])
def test_training_camera_that_would_cut_the_person_moves_back(run, tmp_path, monkeypatch, capsys, camera, root):
    """Such as a portrait, of which only half of the person is seen."""
    asked = Animate._camera_path

    def with_longer_lens(self, pipeline, *others):
        cameras = pipeline.datamanager.train_dataset.cameras
        cameras.fx, cameras.fy = 2 * cameras.fx, 2 * cameras.fy
        path = get_path_from_json(asked(self, pipeline, *others))
        cut = cut_frames(body_points(pipeline.model, pipeline.model.poses.motion_poses), path)
        raise StopIteration(len(cut), int(cut.sum()))

    monkeypatch.setattr(Animate, "_camera_path", with_longer_lens)
    command = Animate(run, Path("walk"), tmp_path / "walk.mp4", camera, motion_options=MotionOptions(root=root))
    with pytest.raises(StopIteration) as found:
        command.main()
    assert found.value.args == (97, 0)
    assert "m from the first training camera" in " ".join(capsys.readouterr().out.split())


def test_body_points_lie_on_the_body(run):
    model = eval_setup(run, test_mode="inference")[1].model
    poses = rest_sequence(model.subject.poses, 0)
    points = body_points(model, model.poses.posed(poses))
    expected = model.poses.body.vertices(poses.betas, poses.global_orient, poses.body_pose, poses.transl)
    to_world = torch.linalg.inv(model.subject.world_to_dataset)
    expected = expected @ to_world[:3, :3].T + to_world[:3, 3]
    # The body's pose-dependent offsets are left out, as in the deformer.
    assert torch.cdist(points[0], expected[0]).amin(dim=1).max() < 0.02
    assert (points.amax(dim=1) - expected.amax(dim=1)).abs().max() < 0.03


def text_named_npz(folder):
    (folder / "m.npz").write_text("version https://git-lfs.github.com/spec/v1")
    return {"motion": folder / "m.npz"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (text_named_npz, r"m\.npz: expected SMPL poses"),
        (lambda _: {"motion": Path("jump")}, "jump: expected a motion, .* walk"),
        (lambda _: {"output": Path("video.avi")}, "ending"),
        (lambda _: {"camera": Path("no.json")}, r"no\.json: expected a camera path"),
        (lambda _: {"size": 0}, "--size"),
        (lambda _: {"motion_options": MotionOptions(start_frame=500)}, "start_frame"),
        (lambda _: {"motion_options": MotionOptions(transition=-1.0)}, "transition"),
        (lambda folder: {"load_config": folder / "config.yml"}, r"config\.yml: .*no such file"),
    ],
    ids="text unknown ending path size start transition run".split(),
)
def test_wrong_input_leaves_nothing_behind(run, tmp_path, arguments, message):
    before = sorted(run.parent.rglob("*"))
    given = {"load_config": run, "motion": Path("walk"), "output": tmp_path / "walk.mp4", **arguments(tmp_path)}
    kept = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        Animate(**given).main()
    assert sorted(run.parent.rglob("*")) == before and sorted(tmp_path.iterdir()) == kept
