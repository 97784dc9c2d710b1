"""Every command of README and docs that renders or exports: the person is whole, to the last frame."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from nerfstudio.scripts.render import Commands
from PIL import Image
from scipy.spatial.transform import Rotation

from instantavatar_ns.export.splats.avatar_splats import Effort
from instantavatar_ns.motion.motion import load_motion
from instantavatar_ns.scripts import animate as animate_module
from instantavatar_ns.scripts.animate import Animate
from instantavatar_ns.scripts.export import Export
from instantavatar_ns.scripts.framing import body_points, cut_frames
from tests.commands import environment
from tests.export.glb import Glb
from tests.pictures import is_whole

REPO_ROOT = Path(__file__).resolve().parents[1]
PAGES = [REPO_ROOT / "README.md", REPO_ROOT / "configs" / "README.md", *sorted(REPO_ROOT.glob("docs/**/*.md"))]
COMMANDS = ("instant-avatar animate ", "instant-avatar export ", "ns-render ")
ORBIT = "configs/camera_paths/orbit_still.json"
SIZE = 48
REPLACED = ("--load-config", "--output", "--output-path", "--split")


def examples(text):
    """Arguments of the commands in a page's bash blocks, the name of the program first."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S):
        lines = block.replace("\\\n", " ").splitlines()
        found += [shlex.split(line, comments=True) for line in lines if line.startswith(COMMANDS)]
    return found


def all_examples(program, *subcommand):
    """Each once, whatever it calls its output, its split, or a path that the reader is to save."""
    words = {}
    for page in PAGES:
        for arguments in examples(page.read_text(encoding="utf8")):
            if arguments[: 1 + len(subcommand)] == [program, *subcommand]:
                arguments = [saved_path(word) if word.endswith(".json") else word for word in arguments]
                rest = without(
                    arguments[1 + len(subcommand) :], "--load-config", "--output", "--output-path", "--split"
                )
                words.setdefault(" ".join(rest), rest)
    return [pytest.param(rest, id=name or "plain") for name, rest in words.items()]


def saved_path(word):
    """A camera path of this repository, instead of one that the reader is to save."""
    return word if (REPO_ROOT / word).is_file() else ORBIT


def without(arguments, *options):
    """Arguments without some options and their values."""
    kept = list(arguments)
    for option in options:
        if option in kept:
            place = kept.index(option)
            del kept[place : place + 2]
    return kept


def test_examples_are_found():
    bash = "ns-render a --x 1 \\\n    --y '2 3'   # why\ncd x\ninstant-avatar export --b\n"
    text = f"```bash\n{bash}```\n```python\nns-render z\n```\n"
    assert examples(text) == [["ns-render", "a", "--x", "1", "--y", "2 3"], ["instant-avatar", "export", "--b"]]
    assert len(all_examples("instant-avatar", "animate")) >= 3
    assert len(all_examples("instant-avatar", "export")) >= 2
    assert len(all_examples("ns-render")) >= 3


def write_motions(arguments, folder):
    """Write the motion files that a reader is to have: here the walk that comes along, z up, without a rate."""
    walk, z_up = load_motion(Path("walk")), Rotation.from_euler("x", 90, degrees=True)
    orients = (z_up * Rotation.from_rotvec(walk.global_orient.numpy())).as_rotvec()
    poses = np.concatenate([orients, walk.body_pose.numpy()], axis=1)
    for name in arguments:
        if name.endswith(".npz"):
            np.savez(folder / name, poses=poses, trans=z_up.apply(walk.transl.numpy()))


class Looked(Exception):
    """Ends animate when its frames have been looked at."""


@pytest.mark.parametrize("arguments", all_examples("instant-avatar", "animate"))
def test_animate(arguments, trained_run, tmp_path, monkeypatch):
    def look(pipeline, cameras, frames, alpha):
        """The body lies within all frames; of five, the first and the last among them, the image shows the person."""
        model = pipeline.model
        rows = (cameras.times[:, 0] * (len(model.poses.motion_poses) - 1)).round().long()
        assert rows.min() == 0 and rows.max() == len(model.poses.motion_poses) - 1, "the whole motion"
        assert not cut_frames(body_points(model, model.poses.motion_poses)[rows], cameras).any()
        cameras.rescale_output_resolution(SIZE / int(cameras.height[0]))
        for index in np.linspace(0, len(cameras) - 1, 5).round().astype(int).tolist():
            with torch.no_grad():
                outputs = model.get_outputs_for_camera(cameras[index : index + 1])
            assert is_whole(outputs["accumulation"][..., 0].numpy()), index
        raise Looked

    monkeypatch.chdir(tmp_path)
    write_motions(arguments, tmp_path)
    monkeypatch.setattr(animate_module, "_render_missing", look)
    place = ["--load-config", str(trained_run / "config.yml"), "--output", str(tmp_path / "video.mp4")]
    with pytest.raises(Looked):
        tyro.cli(Animate, args=[*place, *arguments]).main()


@pytest.mark.parametrize("arguments", all_examples("instant-avatar", "export"))
def test_export(arguments, trained_run, tmp_path, monkeypatch):
    """Clips stay in the picture of a camera that stands before the rest pose, and repeat without a jump."""
    monkeypatch.chdir(tmp_path)
    write_motions(arguments, tmp_path)
    command = tyro.cli(Export, args=["--load-config", str(trained_run / "config.yml"), *arguments])
    command.output = tmp_path / ("avatar.glb" if command.format == "splat" else f"avatar.{command.format}")
    monkeypatch.setattr(Effort, "on", lambda device, splats: Effort(300, 32, 20))
    command.voxel_size, command.max_faces, command.texture_size = 0.025, 2000, 64
    path = command.main()
    if command.format != "glb" or command.compression != "none":
        assert path.stat().st_size > 10_000
        return
    glb = Glb(path)
    middle = glb.posed().mean(axis=0)
    for motion in command.motion:
        times = glb.clip_times(motion.stem)
        chosen = times[np.linspace(0, len(times) - 1, 9).round().astype(int)]
        posed = np.stack([glb.posed(motion.stem, float(time)) for time in chosen])
        assert np.abs(posed - middle)[..., [0, 2]].max() < 1.2
        assert np.linalg.norm(posed[-1] - posed[0], axis=1).max() < 0.02


@pytest.mark.parametrize("arguments", all_examples("ns-render"))
def test_ns_render(arguments, trained_run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", environment(tmp_path)["PATH"])
    arguments = [*arguments, "--load-config", str(trained_run / "config.yml"), "--output-path", str(tmp_path / "out")]
    arguments += ["--rendered-output-names", "rgb", "--image-format", "png"]
    if arguments[0] != "dataset":
        arguments += ["--output-format", "images"]
    if arguments[0] == "interpolate":
        arguments += ["--interpolation-steps", "2"]
    if arguments[0] == "camera-path":
        place = arguments.index("--camera-path-filename") + 1
        path = json.loads((REPO_ROOT / arguments[place]).read_text(encoding="utf8"))
        chosen = np.linspace(0, len(path["camera_path"]) - 1, 5).round().astype(int)
        path["camera_path"] = [path["camera_path"][index] for index in chosen]
        path["render_width"] = path["render_height"] = SIZE
        arguments[place] = str(tmp_path / "path.json")
        (tmp_path / "path.json").write_text(json.dumps(path), encoding="utf8")
    tyro.cli(Commands, args=arguments).main()
    images = sorted((tmp_path / "out").rglob("*.png"))
    assert len(images) >= 2
    for image in images:
        opacity = 1 - np.asarray(Image.open(image).convert("RGB")).min(axis=2) / 255  # on white
        assert is_whole(opacity), image
