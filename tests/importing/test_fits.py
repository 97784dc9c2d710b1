"""Shapes and poses that are fitted, where the tool's body is not the one in use."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from instantavatar_ns.body.files import FREE_BODY
from instantavatar_ns.data.instantavatar_dataparser import find_body_model
from instantavatar_ns.scripts.import_results import ImportResults
from instantavatar_ns.utils.errors import InputError
from tests.importing import tool_files
from tests.importing.tool_files import FRAMES, make_truth, read_body

PELVIS = {"SMPL": np.array([-0.0018, -0.2233, 0.0282]), "SMPL-X": np.array([0.0031, -0.3514, 0.0120])}


def as_estimated(truth, skeleton):
    """The truth as a tool writes it whose body has its pelvis elsewhere, and other betas for the same person."""
    body = read_body(FREE_BODY)
    pelvis = body.rest(torch.from_numpy(truth.betas).float())[1][0].numpy()
    return tool_files.replace(truth, transl=truth.transl + pelvis - PELVIS[skeleton], betas=-2 * truth.betas)


def imported(folder, truth, result, **options):
    video = tool_files.write_frames(folder / "frames", truth)
    masks = tool_files.write_masks(folder / "masks", truth)
    ImportResults(result, video, folder / "out", masks=masks, **options).main()
    return {key: torch.from_numpy(value).float() for key, value in np.load(folder / "out" / "poses.npz").items()}


def joints(body, betas, thetas, transl):
    transforms = body.transforms(betas, thetas[:, :3], thetas[:, 3:], transl)
    rest = body.rest(betas)[1]
    return (transforms[..., :3, :3] @ rest[..., None])[..., 0] + transforms[..., :3, 3]


def joint_errors(truth, poses):
    """Millimetres by which joints are off, relative to the true pelvis' distance as one camera sees them."""
    body = read_body(FREE_BODY)
    values = (torch.from_numpy(value).float() for value in (truth.betas, truth.thetas, truth.transl))
    true = joints(body, *values)
    found = joints(body, poses["betas"][0], poses["thetas"], poses["transl"])
    return 1000 * (found - true).norm(dim=-1)


def test_shape_of_another_body_is_fitted(tmp_path, capsys):
    """SMPL-X's poses: its pelvis lies lower in the rest pose, and its betas mean nothing here."""
    truth = make_truth("gvhmr", hands=False)
    poses = imported(tmp_path, truth, tool_files.write_gvhmr(tmp_path / "gvhmr.pt", as_estimated(truth, "SMPL-X")))
    wanted, found = (Rotation.from_rotvec(np.reshape(values, (-1, 3))) for values in (truth.thetas, poses["thetas"]))
    assert np.degrees((wanted.inv() * found).magnitude().max()) < 0.1
    errors = joint_errors(truth, poses)
    shapeless = {**poses, "betas": torch.zeros(1, 10), "transl": torch.from_numpy(truth.transl).float()}
    assert errors.mean() < 25 < joint_errors(truth, shapeless).mean()
    text = " ".join(capsys.readouterr().out.split())
    assert "The shape is fitted to the masks, as SMPL-X's betas mean nothing with this body" in text
    assert "Poses and masks fit" in text
    assert find_body_model(tmp_path / "out", "auto") == str(tmp_path / "out" / "body" / "free_body.npz")


def write_pickle(path, content):
    """SAM 3D Body's people, one an image, in one file."""
    tool_files.joblib.dump([[person] for person in content], path)
    return path


def test_body_is_fitted_to_vertices_and_keypoints_of_sam_3d_body(tmp_path, capsys):
    truth = make_truth("wham")
    poses = imported(tmp_path, truth, tool_files.write_sam3d(tmp_path / "sam3d", truth))
    errors = joint_errors(truth, poses)
    assert errors.mean() < 5 and len(errors) == FRAMES
    text = " ".join(capsys.readouterr().out.split())
    assert "The body, its shape too, is fitted to MHR's keypoints and vertices" in text
    assert "Poses and masks fit" in text
    cameras = np.load(tmp_path / "out" / "cameras.npz")
    np.testing.assert_allclose(cameras["intrinsic"], np.broadcast_to(truth.intrinsics[0], (FRAMES, 3, 3)), rtol=1e-4)


def test_keypoints_of_sam_3d_body_do_where_an_image_has_no_vertices(tmp_path, capsys):
    truth = make_truth("wham")
    content = tool_files.sam3d_content(truth)
    del content[2]["pred_vertices"]
    poses = imported(tmp_path, truth, write_pickle(tmp_path / "outputs.pkl", content))
    assert joint_errors(truth, poses).mean() < 15
    text = " ".join(capsys.readouterr().out.split())
    assert "fitted to MHR's keypoints only, as not all images have pred_vertices" in text
    assert "Its shape is fitted to the masks" in text and "Poses and masks fit" in text


def test_sam_3d_body_has_no_betas_to_keep(tmp_path):
    truth = make_truth("wham")
    with pytest.raises(InputError, match="expected SMPL's betas, found the shape of MHR"):
        imported(tmp_path, truth, tool_files.write_sam3d(tmp_path / "sam3d", truth), shape="given")


@pytest.mark.parametrize("turned", [[0, 0, 0], [1, -1, -1], [1000, 1000, 1000]])
def test_vertices_of_sam_3d_body_that_lie_elsewhere(tmp_path, turned):
    """None, those of a world whose axes are others, and millimetres."""
    truth = make_truth("wham")
    content = tool_files.sam3d_content(truth)
    for person in content:
        person["pred_vertices"] *= np.array(turned, np.float32)
    with pytest.raises(InputError, match="expected MHR's vertices all over the person"):
        imported(tmp_path, truth, write_pickle(tmp_path / "outputs.pkl", content))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda person: person.pop("pred_cam_t"), r"expected pred_cam_t in 3"),
        (lambda person: person["pred_keypoints_3d"].fill(np.nan), r"expected finite numbers.* pred_keypoints_3d of 3"),
        (lambda person: person["pred_vertices"][7:8].fill(np.nan), r"expected finite numbers.* pred_vertices of 3"),
        (
            lambda person: person.update(pred_vertices=np.zeros((6890, 3))),
            r"expected pred_vertices of shape \(18439, 3\) in 3, found \(6890, 3\)",
        ),
    ],
)
def test_sam_3d_body_with_missing_or_wrong_parts(tmp_path, spoil, message):
    truth = make_truth("wham")
    content = tool_files.sam3d_content(truth)
    spoil(content[3])
    with pytest.raises(InputError, match=rf"outputs\.pkl: {message}"):
        imported(tmp_path, truth, write_pickle(tmp_path / "outputs.pkl", content))


def test_camera_of_another_tool_is_named(tmp_path):
    """A shape and shifts that are fitted do not hide a wrong focal length."""
    truth = make_truth("wham")
    wrong = tool_files.replace(as_estimated(truth, "SMPL"), intrinsics=make_truth("romp").intrinsics)
    with pytest.raises(InputError, match=rf"--focal-length {tool_files.FOCALS['wham'](truth.size):.1f}"):
        imported(tmp_path, truth, tool_files.write_romp(tmp_path / "romp", wrong))
    assert not (tmp_path / "out").exists()
