"""Light that stays where it is."""

from dataclasses import replace

import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from torch import Tensor

from instantavatar_ns.rendering.inputs import Rays
from instantavatar_ns.rendering.light import Light, picture_normals
from instantavatar_ns.utils.pinhole_rays import PinholeCamera
from tests.tiny import build, build_body, frame_store

SIZE, DISTANCE, RADIUS = 64, 2.0, 0.5


def ball() -> tuple[Rays, dict[str, Tensor], Tensor]:
    """Rays at a grey ball around the origin, what is rendered of it, and its true normals (zero beside it)."""
    camera_to_world = torch.eye(4)[:3]
    camera_to_world[2, 3] = DISTANCE
    camera = PinholeCamera(SIZE, SIZE, torch.tensor([100.0, 100, SIZE / 2, SIZE / 2]), camera_to_world)
    rays = Rays(*camera.rays())
    along = -(rays.directions @ rays.origins[0])
    root = RADIUS**2 - DISTANCE**2 + along**2
    hit = root > 0
    depth = torch.where(hit, along - root.clamp(min=0).sqrt(), 9.0)
    points = rays.origins[0] + depth[..., None] * rays.directions
    normals = torch.where(hit[..., None], points / RADIUS, 0.0)
    accumulation = hit[..., None].float()
    rgb = (1 - 0.5 * accumulation).expand(-1, -1, 3)  # on white
    return rays, {"rgb": rgb, "accumulation": accumulation, "depth": depth[..., None]}, normals


def test_normals_of_a_ball_point_outwards() -> None:
    rays, outputs, normals = ball()
    points = rays.origins[0] + outputs["depth"] * rays.directions
    opaque = outputs["accumulation"][..., 0] > 0.5
    found = picture_normals(points[None], opaque[None])[0]
    assert not found[~opaque].any()
    square = normals[..., 2] > 0.5
    cosine = (found * normals).sum(dim=-1)[square]
    assert cosine.min() > 0.97 and cosine.mean() > 0.995


def test_light_from_the_right_brightens_the_right_and_not_the_background() -> None:
    rays, outputs, normals = ball()
    light = Light()
    lit = light.shade(outputs, rays, (SIZE, SIZE), torch.ones(3))["rgb"]
    torch.testing.assert_close(lit, outputs["rgb"], msg="even light changes nothing")
    with torch.no_grad():
        light.coefficients[0] = 0.4
    lit = light.shade(outputs, rays, (SIZE, SIZE), torch.ones(3))["rgb"]
    square = normals[..., 2] > 0.5
    torch.testing.assert_close(lit[square][:, 0], 0.5 * (1 + 0.4 * normals[square][:, 0]), atol=0.02, rtol=0)
    nothing = outputs["accumulation"][..., 0] == 0
    assert torch.equal(lit[nothing], torch.ones_like(lit[nothing]))


@pytest.mark.parametrize("background", [None, 1.0])
def test_light_is_learned_from_patches(background: float | None) -> None:
    rays, outputs, _ = ball()
    picture = outputs | {"rgb": 0.5 * outputs["accumulation"] + (background or 0.0) * (1 - outputs["accumulation"])}
    patches = [part.unfold(0, 32, 32).unfold(1, 32, 32).movedim(2, -1) for part in (rays.directions, *picture.values())]
    directions, rgb, accumulation, depth = (part.flatten(0, -2) for part in patches)
    rays = Rays(rays.origins, directions)
    flat = {"rgb": rgb.expand(-1, 3), "accumulation": accumulation, "depth": depth}
    truth_light, light = Light(), Light()
    truth_light.coefficients.data.copy_(torch.tensor([0.3, -0.2, 0.1, 0.0, 0.1, 0.0, 0.0, 0.05]))
    truth = truth_light.shade(flat, rays, (32, 32), background)["rgb"].detach()
    optimizer = torch.optim.Adam(light.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (light.shade(flat, rays, (32, 32), background)["rgb"] - truth).square().mean().backward()
        optimizer.step()
    error = (light.shade(flat, rays, (32, 32), background)["rgb"] - truth).abs().max()
    assert error < 0.02


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # nerfstudio's cameras
def test_model_learns_light_and_shows_it(outputs: DataparserOutputs) -> None:
    frames, model = frame_store(outputs), build(outputs, light=True)
    assert model.light is not None and any(p is model.light.coefficients for p in model.get_param_groups()["field"])
    dark, camera = build_body(outputs), frames.cameras[:1]
    before = dark.get_outputs_for_camera(camera)
    dark.light = Light()
    dark.light.coefficients.data[2] = -0.5  # from below
    lit = dark.get_outputs_for_camera(camera)
    brighter = (lit["rgb"] / before["rgb"])[before["accumulation"][..., 0] > 0.9]
    assert brighter.min() < 0.9 and brighter.max() > 1.1
    empty = before["accumulation"][..., 0] == 0
    assert torch.equal(lit["rgb"][empty], before["rgb"][empty])
    dark.config = replace(dark.config, pose_start=10_000)
    dark.patch_size = 32
    dark.train().update_to_step(2000)  # no noise on the density any more
    rays, batch = frames.draw_rays(0, 1024, 0)
    sum(dark.get_loss_dict(dark(rays), batch).values()).backward()
    assert dark.light.coefficients.grad is not None and dark.light.coefficients.grad.any()
