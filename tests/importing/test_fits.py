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


def test_body_is_fitted_to_keypoints_of_sam_3d_body(tmp_path, capsys):
    truth = make_truth("wham")
    poses = imported(tmp_path, truth, tool_files.write_sam3d(tmp_path / "sam3d", truth))
    errors = joint_errors(truth, poses)
    assert errors.mean() < 20 and len(errors) == FRAMES
    assert "Poses and masks fit" in capsys.readouterr().out
    cameras = np.load(tmp_path / "out" / "cameras.npz")
    np.testing.assert_allclose(cameras["intrinsic"], np.broadcast_to(truth.intrinsics[0], (FRAMES, 3, 3)), rtol=1e-4)


def test_sam_3d_body_has_no_betas_to_keep(tmp_path):
    truth = make_truth("wham")
    with pytest.raises(InputError, match="expected SMPL's betas, found the shape of MHR"):
        imported(tmp_path, truth, tool_files.write_sam3d(tmp_path / "sam3d", truth), shape="given")


@pytest.mark.parametrize("spoil", ["pred_cam_t", "nan"])
def test_sam_3d_body_with_missing_parts(tmp_path, spoil):
    truth = make_truth("wham")
    content = tool_files.sam3d_content(truth)
    if spoil == "nan":
        content[3]["pred_keypoints_3d"][5, 1] = np.nan
    else:
        del content[3][spoil]
    tool_files.joblib.dump([[person] for person in content], tmp_path / "outputs.pkl")
    with pytest.raises(InputError, match=r"outputs\.pkl: expected (pred_cam_t in 3|finite numbers)"):
        imported(tmp_path, truth, tmp_path / "outputs.pkl")


def test_camera_of_another_tool_is_named(tmp_path):
    """A shape and shifts that are fitted do not hide a wrong focal length."""
    truth = make_truth("wham")
    wrong = tool_files.replace(as_estimated(truth, "SMPL"), intrinsics=make_truth("romp").intrinsics)
    with pytest.raises(InputError, match=rf"--focal-length {tool_files.FOCALS['wham'](truth.size):.1f}"):
        imported(tmp_path, truth, tool_files.write_romp(tmp_path / "romp", wrong))
    assert not (tmp_path / "out").exists()
