"""nerfstudio's own commands, from a recording to an avatar that is evaluated, rendered and moved."""

import json
import math

import cv2
import numpy as np
import pytest
import tyro
from nerfstudio.scripts.render import Commands, DatasetRender, RenderInterpolated
from PIL import Image

from instantavatar_ns.scripts.evaluate import Evaluate
from instantavatar_ns.utils.hidden_warnings import HARMLESS
from tests.commands import environment, run_command

TIMES = (0.0, 0.5, 1.0)
SIZE = 64


def image(path):
    return np.asarray(Image.open(path).convert("RGB"), np.float64) / 255


def on_white(subject, part, index):
    """A frame of the subject with its mask, over white."""
    mask = np.asarray(Image.open(subject / "masks" / f"mask_{index:04d}.png"), np.float64)[..., None] / 255
    return image(subject / part / f"image_{index:04d}.png") * mask + 1 - mask


def read_video(path):
    reader, frames = cv2.VideoCapture(str(path)), []
    while (frame := reader.read()[1]) is not None:
        frames.append(frame)
    return np.stack(frames)


def psnr(one, other):
    return -10 * math.log10(np.mean((one - other) ** 2))


@pytest.fixture(scope="module")
def evaluation(trained_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    arguments = ["--load-config", trained_run / "config.yml", "--output-path", folder / "results.json"]
    result = run_command("ns-eval", *arguments, "--render-output-path", folder / "images", folder=folder)
    assert result.returncode == 0, result.stderr[-4000:]
    (folder / "log").write_text(result.stdout + result.stderr)
    return folder


def test_evaluation_shows_no_warnings_of_libraries(evaluation):
    log = (evaluation / "log").read_text()
    assert not any(text in log for text, _, module in HARMLESS if "activations" not in module)  # imported before us


def test_held_out_frames_resemble_the_person(demo_subject, evaluation):
    results = json.loads((evaluation / "results.json").read_text())["results"]
    truth = np.stack([on_white(demo_subject, "images", index) for index in (8, 9, 10)])
    mean_image = np.mean([on_white(demo_subject, "images", index) for index in range(8)], axis=0)
    white = np.mean([psnr(np.ones_like(frame), frame) for frame in truth])
    blurred = np.mean([psnr(mean_image, frame) for frame in truth])
    assert results["psnr"] > max(white + 5, blurred + 2)
    assert 0.7 < results["ssim"] < 1


def test_evaluation_lists_every_frame(demo_subject, evaluation):
    results = json.loads((evaluation / "results.json").read_text())["results"]
    frames = results["frames"]
    assert [frame["image"] for frame in frames] == ["image_0008.png", "image_0009.png", "image_0010.png"]
    for key in ("psnr", "ssim"):
        assert results[key] == pytest.approx(np.mean([frame[key] for frame in frames]), rel=1e-5)
    # The image that is shown is the one that is measured: truth left, rendering right.
    shown = image(evaluation / "images" / "eval_img_0001.png")
    truth, rendering = shown[:, :96], shown[:, 96:]
    np.testing.assert_allclose(truth, on_white(demo_subject, "images", 9), atol=2 / 255)
    assert psnr(truth, rendering) == pytest.approx(frames[1]["psnr"], abs=0.1)


def test_evaluate_measures_what_ns_eval_measures(trained_run, evaluation, tmp_path):
    """Its own way to the figures, which imports less, gives the same ones, and the same images."""
    command = Evaluate(load_config=trained_run / "config.yml", sets=("heldout",), output_dir=tmp_path)
    command.main()
    own, stock = (json.loads(path.read_text()) for path in (tmp_path / "heldout.json", evaluation / "results.json"))
    assert own.keys() == stock.keys() and own["results"].keys() == stock["results"].keys()
    for one, other in zip(own["results"]["frames"], stock["results"]["frames"], strict=True):
        assert one["image"] == other["image"] and one["psnr"] == pytest.approx(other["psnr"], abs=1e-3)
    names = [sorted(path.name for path in folder.iterdir()) for folder in (tmp_path / "heldout", evaluation / "images")]
    assert names[0] == names[1] and len(names[0]) == 9
    for name in names[0]:
        np.testing.assert_allclose(image(tmp_path / "heldout" / name), image(evaluation / "images" / name), atol=0.01)


def test_camera_path_moves_the_person(trained_run, tmp_path, monkeypatch):
    """A camera that stands still sees the person turn, as time goes on; the same time gives the same image."""
    # In front of the person, whose pelvis is the origin, 3.5 metres away: right is x, up is z.
    camera = [[1, 0, 0, 0], [0, 0, -1, -3.5], [0, 1, 0, 0], [0, 0, 0, 1]]
    flat = [float(value) for row in camera for value in row]
    frames = [{"camera_to_world": flat, "fov": 40, "aspect": 1, "render_time": time} for time in (*TIMES, TIMES[0])]
    path = {"camera_type": "perspective", "render_height": SIZE, "render_width": SIZE, "seconds": 1, "fps": 4}
    (tmp_path / "path.json").write_text(json.dumps({**path, "camera_path": frames}))
    arguments = ["camera-path", "--load-config", trained_run / "config.yml", "--camera-path-filename", "path.json"]
    arguments += ["--output-path", "frames", "--output-format", "images", "--image-format", "png"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", environment(tmp_path)["PATH"])
    tyro.cli(Commands, args=[*map(str, arguments)]).main()  # what ns-render does

    rendered = [image(path) for path in sorted((tmp_path / "frames").glob("*.png"))]
    assert [frame.shape for frame in rendered] == [(SIZE, SIZE, 3)] * 4
    persons = [(frame < 0.8).any(axis=2) for frame in rendered]
    for person in persons:
        rows, columns = np.nonzero(person)
        assert 0.05 < person.mean() < 0.5
        assert np.ptp(rows) > np.ptp(columns) * 0.8, "a standing person is upright"
        assert abs(columns.mean() - SIZE / 2) < 6 and abs(rows.mean() - SIZE / 2) < 8
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert (persons[one] ^ persons[other]).sum() > 0.1 * persons[one].sum()
    np.testing.assert_allclose(rendered[0], rendered[3], atol=1.5 / 255)


def test_other_renderings(trained_run, evaluation, tmp_path, monkeypatch):
    """`ns-render dataset` gives the images of `ns-eval`, `ns-render interpolate` a video."""
    monkeypatch.setenv("PATH", environment(tmp_path)["PATH"])
    config = trained_run / "config.yml"
    DatasetRender(load_config=config, output_path=tmp_path / "frames", image_format="png").main()
    for name in ("rgb", "gt-rgb", "accumulation", "depth"):
        written = sorted(path.name for path in (tmp_path / "frames" / "test" / name).iterdir())
        assert written == ["image_0008.png", "image_0009.png", "image_0010.png"]
    evaluated = image(evaluation / "images" / "eval_img_0002.png")[:, 96:]
    rendered = image(tmp_path / "frames" / "test" / "rgb" / "image_0010.png")
    np.testing.assert_allclose(rendered, evaluated, atol=2 / 255)

    video = tmp_path / "between.mp4"
    options = {"output_path": video, "interpolation_steps": 2, "frame_rate": 4}
    RenderInterpolated(load_config=config, rendered_output_names=["rgb", "accumulation"], **options).main()
    frames = read_video(video)
    assert frames.shape[1:] == (96, 2 * 96, 3) and len(frames) >= 4
    assert (frames[:, :, :96] < 200).any(axis=3).mean() > 0.03, "the person is in the video"
