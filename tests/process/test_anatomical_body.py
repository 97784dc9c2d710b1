"""The free body's joints where people have them, in every shape."""

from pathlib import Path

import numpy as np
import pytest
import torch

from instantavatar_ns.body.files import FREE_BODY, load_body_model
from instantavatar_ns.body.smpl import JOINT_NAMES
from instantavatar_ns.process.anatomical_body import load_anatomical_body, write_anatomical_body

PLACES = {name: place for place, name in enumerate(JOINT_NAMES)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("body") / "free_body.npz"
    write_anatomical_body(path)
    return path


@pytest.mark.parametrize("beta", [-2.0, 0.0, 2.0])
def test_joints_are_where_people_have_them(written: Path, beta: float) -> None:
    betas = torch.tensor([beta, *[0.0] * 9])
    vertices, joints = (values.double().numpy() for values in load_body_model(written).rest(betas))
    adult = 1.74 / np.ptp(vertices[:, 1])

    def apart(first: str, second: str) -> float:
        return 1000 * adult * float(np.linalg.norm(joints[PLACES[first]] - joints[PLACES[second]]))

    assert apart("left_hip", "right_hip") == pytest.approx(168, abs=8)
    assert apart("left_collar", "right_collar") == pytest.approx(50, abs=6)
    for side in ("left", "right"):
        assert apart(f"{side}_wrist", f"{side}_hand") == pytest.approx(86, abs=5)
    with np.load(FREE_BODY) as archive:
        ears = archive["parts"] == archive["part_names"].tolist().index("ears")
    below = 1000 * adult * (vertices[ears].mean(axis=0) - joints[PLACES["head"]])
    np.testing.assert_allclose(below, [0, 22, 7], atol=6)
    # Femoral heads lie before the middle of the body, a third of the pelvis's depth behind the iliac spines.
    hip = joints[PLACES["left_hip"]]
    near = vertices[(np.abs(vertices - hip)[:, :2] < [0.05, 0.03]).all(axis=1)]
    front, back = (near[beside, 2].mean() for beside in (near[:, 2] > hip[2], near[:, 2] < hip[2]))
    assert (hip[2] - back) / (front - back) == pytest.approx(0.62, abs=0.04)
    middle = 0.5 * (joints[PLACES["left_hip"]] + joints[PLACES["right_hip"]])
    above = {name: 1000 * adult * (joints[place] - middle)[1] for name, place in PLACES.items()}
    ahead = {name: 1000 * adult * (joints[place] - middle)[2] for name, place in PLACES.items()}
    # The sacrum, the lowest joint of the spine, the lumbar spine's length, and that of lumbar and thoracic spine.
    assert above["pelvis"] == pytest.approx(63, abs=8)
    assert ahead["pelvis"] == pytest.approx(-46, abs=10)
    assert above["spine1"] == pytest.approx(97, abs=8)
    assert above["spine3"] - above["spine1"] == pytest.approx(173, abs=15)
    assert above["spine2"] == pytest.approx(0.5 * (above["spine1"] + above["spine3"]), abs=5)
    assert above["neck"] - above["spine1"] == pytest.approx(458, abs=25)
    assert ahead["neck"] == pytest.approx(0, abs=15)


def test_the_other_joints_and_the_mesh_stay(written: Path) -> None:
    bodies = load_body_model("free"), load_anatomical_body(), load_body_model(written)
    old, new, loaded = (body.rest(torch.ones(10)) for body in bodies)
    torch.testing.assert_close(new[0], old[0])
    torch.testing.assert_close(loaded[1], new[1])
    moved = {name for name, place in PLACES.items() if (new[1] - old[1])[place].norm() > 1e-3}
    assert moved == {
        *("pelvis", "spine1", "spine2", "spine3", "neck", "head"),
        *(f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "collar", "hand")),
    }


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("beta", [-2.0, 2.0])
def test_the_trunk_stays_in_order_and_within_the_skin(number: int, beta: float) -> None:
    betas = torch.zeros(10)
    betas[number] = beta
    vertices, joints = load_anatomical_body().rest(betas)
    line = torch.stack([joints[PLACES[name]] for name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")])
    assert (line[1:, 1] - line[:-1, 1] > 0.02).all()
    for joint in line:
        near = vertices[((vertices - joint)[:, :2].abs() < 0.03).all(dim=1), 2]
        assert near.min() + 0.03 < joint[2] < near.max() - 0.03


def test_it_is_symmetric() -> None:
    joints = load_anatomical_body().rest(torch.zeros(10))[1]
    for name in ("hip", "collar", "hand"):
        left, right = (joints[PLACES[f"{side}_{name}"]] for side in ("left", "right"))
        torch.testing.assert_close(left * torch.tensor([-1.0, 1.0, 1.0]), right, atol=1e-4, rtol=0)
    trunk = joints[[PLACES[name] for name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")]]
    assert trunk[:, 0].abs().max() < 1e-3
