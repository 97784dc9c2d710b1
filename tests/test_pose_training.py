"""Poses corrected while training and fitted afterwards: gradients through the rendering, repair, files, figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from benchmarks import training
from instantavatar_ns.data.datamanager import AvatarDataManagerConfig, FrameStore
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.data.subject import subject_of
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.motion.readers import read_pose_file
from instantavatar_ns.occupancy.cells import OccupiedCells
from instantavatar_ns.occupancy.posed_grid import pose_cells
from instantavatar_ns.optimizers import RowAdamConfig
from instantavatar_ns.pipeline import AvatarPipelineConfig
from instantavatar_ns.rendering import inputs
from instantavatar_ns.rendering.inputs import Rays
from instantavatar_ns.scripts.evaluate import Evaluate
from instantavatar_ns.scripts.published_table import PUBLISHED, PublishedTable, table
from instantavatar_ns.scripts.refined_poses import RefinedPoses
from instantavatar_ns.training.fitting import RECIPES, fit_poses
from instantavatar_ns.utils.errors import InputError
from tests import tiny
from tests.commands import run_folder, training_arguments
from tests.tiny import frame_store, parse

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras

FRAMES = 8


class Blobs(nn.Module):
    """Stands in for a trained field: smooth blobs along the limbs, coloured by where they are."""

    def __init__(self, centers: Tensor, radius: float = 0.07) -> None:
        super().__init__()
        self.centers, self.radius = centers, radius

    def density(self, points: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor]:
        squared = (points[:, None] - self.centers).square().sum(dim=-1)
        return 40 * torch.exp(-squared / self.radius**2).sum(dim=1), points

    def forward(self, points: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor]:
        return self.density(points)[0], 0.5 + 0.5 * torch.sin(9 * points + torch.tensor([0.0, 1.0, 2.0]))


@pytest.fixture(scope="module")
def outputs(demo_subject: Path) -> DataparserOutputs:
    return parse(demo_subject, poses="truth")


def build(outputs: DataparserOutputs, **changes) -> InstantAvatarModel:
    """A tiny model whose poses are corrected from the first step on, with blobs for its field."""
    model = tiny.build(outputs, **({"pose_start": 0} | changes))
    if model.pose_refinement is not None:
        # Blobs where the joints are in the canonical pose, and half way to their parents.
        joints = model.pose_refinement.canonical[:, :3] @ torch.cat(
            [model.pose_refinement.joints, torch.ones(24, 1)], dim=1
        ).unsqueeze(-1)
        joints = joints[..., 0]
        parents = model.pose_refinement.ancestors[0][1:]
        model.field = Blobs(torch.cat([joints, (joints[1:] + joints[parents]) / 2]))
        model.renderer.avatar = model.renderer.avatar._replace(field=model.field)
    return model


def render(
    model: InstantAvatarModel, rays: RayBundle, body: PosedBody, cells: OccupiedCells | None = None
) -> dict[str, Tensor]:
    """Rays in a pose, on white."""
    pose = model.renderer.prepare(body, cells)
    return model.renderer.render_rays(Rays(rays.origins, rays.directions), pose, background=1.0)


def store(outputs: DataparserOutputs) -> FrameStore:
    return frame_store(outputs, train_num_rays_per_batch=256, sampling="pixels")


def test_gradient_to_every_correction_agrees_with_differences(
    outputs: DataparserOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through rays, samples, search, field and compositing, samples held where they are."""
    for threshold in ("_IMAGE_ALPHA_THRESHOLD", "_IMAGE_EARLY_STOP_EPS"):
        monkeypatch.setattr(inputs, threshold, 0.0)
    model = build(outputs, skinning_resolution=(48, 48, 12)).eval()
    refinement = model.pose_refinement
    assert refinement is not None
    refinement.coordinates.copy_(torch.eye(75))
    model.refresh_occupancy(100)
    cells = pose_cells(model.canonical_occupancy, model.deformer, refinement[2].bone_transforms)
    rays, _ = store(outputs).draw_rays(2, 300, step=0)
    weights = torch.rand(300, 3, generator=torch.Generator().manual_seed(0))

    def rendered(index: int = 0, change: float = 0.0) -> Tensor:
        with torch.no_grad():
            refinement.remainders[2, index] = change
        body = refinement[2]
        return (render(model, rays, body, cells)["rgb"] * weights).sum(dim=1)

    # Hands and feet have too little effect for differences in single precision.
    probed = [0, 1, 2, 4, 6, 9, 14, 38, 50, 54, 72, 73, 74]
    numeric = {}
    for size in (1e-3, 5e-4):
        with torch.no_grad():
            numeric[size] = torch.stack(
                [(rendered(index, size) - rendered(index, -size)) / (2 * size) for index in probed]
            )
    # Where another root becomes the densest, or one leaves its cell, a ray's colour jumps and has no derivative.
    smooth = ((numeric[1e-3] - numeric[5e-4]).abs() < 0.05 + 0.02 * numeric[1e-3].abs()).all(dim=0)
    assert smooth.float().mean() > 0.25
    rendered()[smooth].sum().backward()
    gradient = refinement.remainders.grad
    assert gradient is not None
    assert gradient[2].ne(0).all(), "every joint's rotation and the shift"
    assert gradient[[0, 1, 3]].eq(0).all()
    expected = numeric[5e-4][:, smooth].sum(dim=1)
    assert (gradient[2][probed] - expected).norm() < 0.03 * expected.norm()


def test_training_step_corrects_the_frame_it_sees_once_it_is_time(outputs: DataparserOutputs) -> None:
    model, frames = build(outputs, pose_start=10).train(), store(outputs)
    refinement = model.pose_refinement
    assert refinement is not None
    assert set(model.get_param_groups()) == {"field", "poses"}
    for step, moves in ((9, False), (10, True)):
        model.update_to_step(step)
        rays, batch = frames.draw_rays(3, 64, step)
        losses = model.get_loss_dict(model.get_outputs(rays), batch)
        refinement.zero_grad()
        sum(losses.values()).backward()  # pyright: ignore[reportAttributeAccessIssue]
        assert refinement.remainders.grad is not None, "torch's schedulers want a step from the first on"
        seen = refinement.remainders.grad.ne(0).any(dim=1)
        assert seen.tolist() == [moves and frame == 3 for frame in range(FRAMES)]


def test_corrected_poses_are_shown_and_fill_the_union(outputs: DataparserOutputs) -> None:
    model = build(outputs).eval()
    assert model.pose_refinement is not None
    before, given = model.poses.frame(1), subject_of(outputs.metadata).poses
    with torch.no_grad():
        model.pose_refinement.remainders[1] = 0.05
    assert model.poses.frame(1) is before
    model.forget_images()
    after, bones = model.poses.frame(1), model.poses.training_bones()
    assert (after.world_to_root - before.world_to_root).abs().max() > 1e-3
    torch.testing.assert_close(bones[1], after.bone_transforms)
    assert (bones[1] - model.poses.posed(given)[1].bone_transforms).abs().max() > 1e-3
    # Held-out frames keep theirs.
    held_out = model.poses.frame(FRAMES)
    torch.testing.assert_close(held_out.world_to_root, model.poses.posed(given)[FRAMES].world_to_root)


def test_without_refinement_there_is_nothing_to_correct(outputs: DataparserOutputs) -> None:
    model = build(outputs, refine_poses=False)
    assert set(model.get_param_groups()) == {"field"}
    assert not any("pose" in key for key in model.state_dict())


def test_known_perturbation_is_repaired(outputs: DataparserOutputs) -> None:
    """A field that fits the true pose; the pose turned in three joints and shifted: its image brings it back."""
    model = build(outputs).eval()
    refinement = model.pose_refinement
    assert refinement is not None
    model.refresh_occupancy(100)
    rays, _ = store(outputs).draw_rays(0, 400, step=0)
    with torch.no_grad():
        target = render(model, rays, model.poses.frame(0))["rgb"]
    turned, degrees = [1, 16, 17], 8.0  # left hip, shoulders: about the viewing axis

    def surface() -> Tensor:
        """The blobs as the camera sees them, metres: depth, the world's y, shows next to nothing in one image."""
        body = refinement[0]
        assert isinstance(model.field, Blobs)
        posed = model.deformer.skin(model.field.centers, body.bone_transforms.detach())
        back = torch.linalg.inv(body.world_to_root.detach())
        return (posed @ back[:3, :3].T + back[:3, 3])[:, [0, 2]]

    true = surface()
    wrong = torch.from_numpy(Rotation.from_rotvec([0, 0, np.radians(degrees)]).as_matrix()).float()
    refinement.given_rotations[0, turned] = wrong @ refinement.given_rotations[0, turned]
    refinement.given_transl[0, 0] += 0.02

    def mismatch() -> Tensor:
        body = refinement[0]
        return nn.functional.mse_loss(render(model, rays, body, model.union_grid.cells)["rgb"], target)

    before = (surface() - true).norm(dim=1).mean()
    steps = 30
    optimizer = RowAdamConfig(lr=8e-3, eps=1e-3).setup([refinement.remainders])
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, 1.0)
    first = mismatch().detach()
    for _ in range(steps):
        optimizer.zero_grad()
        (mismatch() + 1e-2 * refinement.corrections()[0].square().sum()).backward()
        optimizer.step()
        scheduler.step()
    assert mismatch().detach() < 0.2 * first
    # Rotations are not compared: pelvis, spine and collars may take a share of what others were turned by.
    assert before > 0.02
    assert (surface() - true).norm(dim=1).mean() < 0.4 * before


# Commands


@pytest.fixture(scope="module")
def corrected_run(demo_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on the poses of an estimator, which are corrected from its tenth step on."""
    folder = tmp_path_factory.mktemp("corrected")
    arguments = training_arguments(demo_subject, folder, 40, "--pipeline.model.pose-start", "10")
    training.train_here([*arguments, "--poses", "poses"])
    return run_folder(folder)


def test_corrections_are_in_the_checkpoint_and_written_in_the_layout_of_the_input(
    demo_subject: Path, corrected_run: Path, tmp_path: Path
) -> None:
    (path,) = RefinedPoses(load_config=corrected_run / "config.yml", truth="truth").main()
    assert path == corrected_run.resolve() / "poses" / "refined.npz"
    given, written = np.load(demo_subject / "poses.npz"), np.load(path)
    assert {key: written[key].shape for key in written.files} == {key: given[key].shape for key in given.files}
    turns = Rotation.from_rotvec(written["thetas"].reshape(-1, 3)) * (
        Rotation.from_rotvec(given["thetas"].reshape(-1, 3)).inv()
    )
    angles = turns.magnitude().reshape(-1, 24)
    assert (angles[:FRAMES].max(axis=1) > 1e-3).all() and angles.max() < 0.3
    assert angles[FRAMES:].max() < 1e-5, "frames that are not trained on keep their pose"
    np.testing.assert_array_equal(written["transl"][FRAMES:], given["transl"][FRAMES:])

    # As input of the next training: put into the recording's folder, asked for by name.
    data = tmp_path / "person"
    data.mkdir()
    for part in demo_subject.iterdir():
        (data / part.name).symlink_to(part)
    (data / "poses").unlink()
    (again,) = RefinedPoses(load_config=corrected_run / "config.yml", output_dir=data / "poses").main()
    poses = parse(data, poses="refined")
    refined = read_pose_file(again)
    np.testing.assert_allclose(subject_of(poses.metadata).poses.body_pose, refined.body_pose, atol=1e-6)
    with pytest.raises(InputError, match="no such file yet"):
        RefinedPoses(load_config=corrected_run / "config.yml", output_dir=data / "poses").main()


def test_poses_of_a_split_are_written_as_a_split(demo_subject: Path, trained_run: Path) -> None:
    """The run was given poses/anim_nerf_train.npz and ended before corrections by images began."""
    train, test = RefinedPoses(load_config=trained_run / "config.yml").main()
    assert (train.name, test.name) == ("refined_train.npz", "refined_test.npz")
    given = {source: read_pose_file(demo_subject / "poses" / f"anim_nerf_{source}.npz") for source in ("train", "test")}
    written = read_pose_file(train)
    moved = np.linalg.norm(written.transl - given["train"].transl, axis=-1)
    assert 1e-5 < moved.max() < 0.02, "by the silhouettes"
    np.testing.assert_allclose(written.body_pose, given["train"].body_pose, atol=0.1)
    np.testing.assert_allclose(read_pose_file(test).transl, given["test"].transl, atol=1e-6)
    np.testing.assert_allclose(read_pose_file(test).body_pose, given["test"].body_pose, atol=1e-5)


def test_evaluation_sets_fitted_figures_beside_the_others(
    corrected_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(RECIPES["fast"], steps_per_frame=6, num_rays=256)
    monkeypatch.setitem(RECIPES, "fast", quick)  # pyright: ignore[reportArgumentType]
    command = Evaluate(load_config=corrected_run / "config.yml", output_dir=tmp_path, sets=("heldout",), fit="fast")
    results = command.main()["heldout"]
    saved = json.loads((tmp_path / "heldout.json").read_text())["results"]
    assert saved == results and results["fit_seconds"] > 0
    assert results["psnr_fitted"] > results["psnr"] + 0.05, "the poses are two degrees off"
    for key in ("psnr", "psnr_fitted", "ssim", "ssim_fitted"):
        assert results[key] == pytest.approx(np.mean([frame[key] for frame in results["frames"]]), rel=1e-4)
    assert len(list((tmp_path / "heldout" / "fitted").glob("*_img_*.png"))) == 3


def test_poses_of_a_checkpoint_turn_about_its_joints(outputs: DataparserOutputs) -> None:
    trained, resumed = build(outputs), build(outputs)
    betas = subject_of(outputs.metadata).poses.betas
    offsets = 0.01 * torch.randn(24, 3, generator=torch.Generator().manual_seed(3))
    assert trained.pose_refinement is not None
    trained.pose_refinement.joints += offsets
    resumed.load_state_dict(trained.state_dict())
    torch.testing.assert_close(resumed.poses.body.joint_offsets, offsets, atol=1e-6, rtol=0)
    torch.testing.assert_close(resumed.poses.body.rest(betas)[1], trained.pose_refinement.joints, atol=1e-6, rtol=0)
    for row in range(FRAMES):  # every pose of the run, those of no training frame too
        expected = trained.pose_refinement[row].bone_transforms
        given = resumed.poses.posed(subject_of(outputs.metadata).poses)[row]
        torch.testing.assert_close(given.bone_transforms, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(resumed.poses.frame(row).bone_transforms, expected, atol=1e-5, rtol=0)
    assert (resumed.poses.rest.bone_transforms - trained.poses.rest.bone_transforms).abs().max() > 1e-3
    resumed.load_state_dict(trained.state_dict())  # and not moved once more
    torch.testing.assert_close(resumed.poses.body.joint_offsets, offsets, atol=1e-6, rtol=0)


def test_published_recipe_hardly_moves_a_pose_and_leaves_the_avatar_alone(outputs: DataparserOutputs) -> None:
    model = build(outputs).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    dataset = AvatarDataset(outputs)
    poses = fit_poses(
        model, dataset, AvatarDataManagerConfig(), replace(RECIPES["published"], steps_per_frame=2, num_rays=64)
    )
    assert list(poses) == list(range(FRAMES)) and model.training
    assert all(value.requires_grad for value in model.parameters())
    for row, body in poses.items():
        moved = (body.bone_transforms - model.poses.frame(row).bone_transforms).abs().max()
        assert 1e-6 < moved < 1e-3 and not body.bone_transforms.requires_grad
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_run_without_corrections_has_none_to_write(corrected_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "a" / "instant-avatar-lite" / "run"
    (run / "nerfstudio_models").mkdir(parents=True)
    (run / "config.yml").write_text((corrected_run / "config.yml").read_text())
    command = RefinedPoses(load_config=run / "config.yml")
    with pytest.raises(InputError, match="expected a checkpoint, found none"):
        command.main()
    content = {"step": 1, "pipeline": {}, "optimizers": {}, "scalers": {}}
    torch.save(content, run / "nerfstudio_models" / "step-000000001.ckpt")
    with pytest.raises(InputError, match="whose poses were corrected"):
        command.main()


# The published table


def test_table_marks_subjects_without_data() -> None:
    rows = {**PUBLISHED, "this package": {"male-3-casual": (30.0, 0.97, 0.02)}}
    shown = table(rows, {"this package"})
    cells = [list(column.cells) for column in shown.columns]
    assert cells[1][-1] == "30.00 / 0.9700 / 0.0200"
    assert [column[-1] for column in cells[2:]] == ["no data"] * 4
    assert cells[1][list(PUBLISHED).index("InstantAvatar, 1 min")] == "29.65 / 0.9730 / 0.0192"
    assert PublishedTable().main() == {"this package": {}, "this package, poses not fitted": {}}


def test_table_refuses_other_data(corrected_run: Path) -> None:
    with pytest.raises(InputError, match="expected a run on one of male-3-casual"):
        PublishedTable(load_configs=(corrected_run / "config.yml",)).main()


def test_pipeline_does_not_fit_unless_asked() -> None:
    assert AvatarPipelineConfig().fit_poses == "off"
