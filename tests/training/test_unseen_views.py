"""Views of a model's unseen parts: written, filled and taken into training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from instantavatar_ns.training.coverage import observe_coverage
from instantavatar_ns.training.unseen_views import take_unseen_views, write_unseen_views
from instantavatar_ns.unseen.coverage import Coverage
from instantavatar_ns.unseen.pictures import fill_views, read_views
from instantavatar_ns.utils.errors import InputError
from tests.tiny import build, build_body, frame_store

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras
COLOR = (30, 200, 60)


@pytest.fixture(scope="module")
def folder(outputs: DataparserOutputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Views of the demo person, seen from the front alone, filled with one colour."""
    model = build_body(outputs)
    observe_coverage(model, frame_store(outputs).cameras[torch.tensor([0, 0, 0])])
    path = tmp_path_factory.mktemp("unseen") / "views"
    write_unseen_views(model, path, count=4, size=64)
    fill_views(path, lambda view, mask: np.full_like(view, COLOR))
    return path


def test_views_from_behind_are_to_be_filled(folder: Path, outputs: DataparserOutputs) -> None:
    views, intrinsic = read_views(folder)
    assert 2 <= len(views) <= 4
    model, shares, behind = build(outputs), [], []
    for view in views:
        person = view.depth > 0
        shares.append((view.mask & person).sum() / person.sum())
        behind.append(view.canonical_to_camera[2, 2] > 0.9)  # looks along z, the way that the person looks
        points = torch.from_numpy(view.surface(intrinsic)[0][person]).float()
        assert model.unseen.distance_from_body(points).median() < 0.03
        assert not person[[0, -1]].any() and not person[:, [0, -1]].any(), "all of the person is in view"
    assert any(behind) and max(shares) == shares[behind.index(True)] > 0.6


def test_filled_views_are_learned_in_the_last_part_of_training(folder: Path, outputs: DataparserOutputs) -> None:
    model, frames = build(outputs, unseen_views=folder, unseen_color_start=10), frame_store(outputs)
    observe_coverage(model, frames.cameras[torch.tensor([0, 0])])
    take_unseen_views(model)
    model.train()
    rays, batch = frames.draw_rays(0, 64, 0)
    settings = []
    for step in (9, 10):
        model.update_to_step(step)
        settings.append(model.step_settings(64))
        calls = []
        pictures = model.unseen.pictures
        assert pictures is not None
        torch.manual_seed(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pictures, "loss", lambda field, count, seen=calls: (seen.append(count), torch.tensor(5.0))[1])
            terms = model.get_loss_dict(model(rays), batch)
        assert (calls == [len(rays)] and terms["unseen_loss"] > 5) if step == 10 else not calls
    assert settings[0] != settings[1], "a captured step is made anew"
    optimizer = torch.optim.Adam(model.field.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = pictures.loss(model.field, 256)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]
    assert not any(name.startswith("pictures") for name in model.state_dict()), "a run needs the folder no more"


def test_seen_from_all_sides_nothing_is_to_be_filled(outputs: DataparserOutputs, tmp_path: Path) -> None:
    model = build_body(outputs)
    with pytest.raises(InputError, match="record of what the training views saw"):
        write_unseen_views(model, tmp_path / "views", 2, 64)
    model.unseen.observe(Coverage(torch.ones_like(model.unseen.share), model.unseen.agreement))
    with pytest.raises(InputError, match="seen from all sides"):
        write_unseen_views(model, tmp_path / "views", 2, 64)
    assert not any(tmp_path.iterdir())


def test_views_of_another_person_are_refused(folder: Path, outputs: DataparserOutputs) -> None:
    model = build(outputs, unseen_views=folder)
    model.unseen.vertices += 3.0
    with pytest.raises(InputError, match=r"views of this person.*off the body"):
        take_unseen_views(model)
