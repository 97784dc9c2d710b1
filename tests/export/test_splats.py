"""Gaussian splats: their images, their fit, poses of them, and the files."""

from __future__ import annotations

import math
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from benchmarks.everywhere import splat_psnr_between, splats_in
from instantavatar_ns.export.glb_container import read_glb
from instantavatar_ns.export.splats import rasterizer
from instantavatar_ns.export.splats.avatar_splats import VIEWS, AvatarSplats, Effort, neural_images, orbit
from instantavatar_ns.export.splats.cloud import Splats, moved, rotation_matrices, seeds, surface_points
from instantavatar_ns.export.splats.fitting import fit, psnr
from instantavatar_ns.export.splats.rasterizer import (
    BLUR,
    View,
    has_gsplat_kernels,
    rasterize_gsplat,
    rasterize_torch,
    rasterizer_name,
)

SIZE = 48
HARMONIC = 0.28209479177387814  # the zeroth spherical harmonic


def view_from(distance: float = 3.0, azimuth: float = 0.0, size: int = SIZE) -> View:
    """A camera at the height of the origin that looks at it, y upwards in its world."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("y", azimuth).as_matrix()
    world_to_camera = np.diag([1.0, -1.0, -1.0, 1.0]) @ turn
    world_to_camera[2, 3] = distance
    return View(torch.from_numpy(world_to_camera).float(), 1.5 * size, size, size)


def random_splats(count: int = 60, seed: int = 0) -> Splats:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Splats(
        0.5 * normal(count, 3),
        math.log(0.08) + 0.5 * normal(count, 3),
        normal(count, 4),
        normal(count),
        torch.rand(count, 3, generator=generator),
    )


def one(center, deviations, quaternion=(1.0, 0, 0, 0), opacity=0.8, color=(1.0, 0.5, 0.2)) -> Splats:
    tensors = [torch.tensor([values], dtype=torch.float32) for values in (center, deviations, quaternion, color)]
    return Splats(tensors[0], tensors[1].log(), tensors[2], torch.tensor([opacity]).logit(), tensors[3])


def reference(splats: Splats, view: View) -> np.ndarray:
    """Image of opacity and color, pixel by pixel and splat by splat, with the projection's slope by differences."""
    world_to_camera = view.world_to_camera.double().numpy()
    axes = rotation_matrices(splats.quaternions).double().numpy() * np.exp(splats.log_scales.double().numpy())[:, None]

    def place(point):
        x, y, z = world_to_camera[:3, :3] @ point + world_to_camera[:3, 3]
        return np.array([view.focal * x / z + view.width / 2, view.focal * y / z + view.height / 2])

    depths = (splats.centers.double().numpy() @ world_to_camera[:3, :3].T + world_to_camera[:3, 3])[:, 2]
    image, through = np.zeros((view.height, view.width, 4)), np.ones((view.height, view.width))
    pixels = np.stack(np.meshgrid(np.arange(view.width) + 0.5, np.arange(view.height) + 0.5), axis=-1)
    for index in np.argsort(depths):
        center = splats.centers[index].double().numpy()
        steps = [(place(center + 1e-5 * axis) - place(center - 1e-5 * axis)) / 2e-5 for axis in np.eye(3)]
        flat = np.stack(steps, axis=1) @ axes[index]
        inverse = np.linalg.inv(flat @ flat.T + BLUR * np.eye(2))
        offset = pixels - place(center)
        squared = np.einsum("hwi,ij,hwj->hw", offset, inverse, offset)
        alpha = float(splats.opacity_logits[index].sigmoid()) * np.exp(-0.5 * squared)
        alpha = np.where((squared <= 9) & (alpha >= 1 / 255), np.minimum(alpha, 0.99), 0)
        image += (through * alpha)[..., None] * np.append(splats.colors[index].numpy(), 1)
        through *= 1 - alpha
    return image


def test_image_of_one_splat():
    """A ball of 0.1 m at 3 m is a Gaussian of 1.5 * 48 * 0.1 / 3 pixels around the middle, its own color."""
    color, alpha = rasterize_torch(one((0, 0, 0), (0.1, 0.1, 0.1)), view_from())
    x = torch.arange(SIZE) + 0.5 - SIZE / 2
    squared = (x[:, None] ** 2 + x**2) / (2.4**2 + BLUR)
    expected = (0.8 * torch.exp(-0.5 * squared)).where(squared <= 9, 0)
    torch.testing.assert_close(alpha, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(color, expected[..., None] * torch.tensor([1.0, 0.5, 0.2]), atol=1e-5, rtol=0)


def test_images_are_those_of_the_definition():
    splats = random_splats()
    for view in (view_from(), view_from(2.0, 1.0, 40)):
        color, alpha = rasterize_torch(splats, view)
        found = torch.cat([color, alpha[..., None]], dim=-1).numpy()
        # A splat on the verge of being cut may be in one and not in the other.
        difference = np.abs(found - reference(splats, view))
        assert difference.mean() < 1e-5 and difference.max() < 0.02


def test_gradients_are_those_of_the_image():
    values = {name: value.double() for name, value in random_splats(20).tensors().items()}
    target = torch.rand(SIZE, SIZE, 4, generator=torch.Generator().manual_seed(1))

    def loss(values: dict[str, torch.Tensor]) -> torch.Tensor:
        color, alpha = rasterize_torch(Splats(**values), view_from())
        return ((torch.cat([color, alpha[..., None]], dim=-1) - target) ** 2).sum()

    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    loss(leaves).backward()
    generator = torch.Generator().manual_seed(2)
    for name, leaf in leaves.items():
        step = 1e-6 * torch.randn(leaf.shape, generator=generator).double()
        around = [float(loss(values | {name: values[name] + sign * step})) for sign in (1, -1)]
        assert leaf.grad is not None
        assert float((leaf.grad * step).sum() * 2) == pytest.approx(around[0] - around[1], rel=1e-3), name


def test_what_is_behind_the_camera_or_beside_the_image_is_not_seen():
    for center in ((0, 0, 3.5), (0, 0, 3.0), (9, 0, 0)):
        color, alpha = rasterize_torch(one(center, (0.1, 0.1, 0.1)), view_from())
        assert float(alpha.max()) == float(color.max()) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="gsplat's kernels need a GPU")
def test_gsplat_shows_the_same():
    if not has_gsplat_kernels():
        pytest.skip("gsplat's kernels are not compiled here")
    splats = random_splats(2000).to("cuda")
    for one_image, other in zip(
        rasterize_torch(splats, view_from()), rasterize_gsplat(splats, view_from()), strict=True
    ):
        # gsplat does not end splats at exactly three standard deviations.
        assert float((one_image - other).abs().mean()) < 0.01


@pytest.fixture
def extensions(tmp_path, monkeypatch):
    """PyTorch's folder of compiled extensions, for gsplat's, where no compiler may be called."""

    def compiles(*_, **__):
        raise AssertionError("a compiler was called")

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr("torch.utils.cpp_extension.load", compiles)
    monkeypatch.setattr("torch.utils.cpp_extension._jit_compile", compiles)
    monkeypatch.delitem(sys.modules, "gsplat.csrc", raising=False)
    has_gsplat_kernels.cache_clear()
    yield tmp_path / "gsplat_cuda"
    has_gsplat_kernels.cache_clear()


@pytest.mark.parametrize("library", [None, "gsplat_cuda.so"])
def test_gsplat_is_never_compiled(extensions, library):
    """Neither without a library nor with one that does not load, as one for another PyTorch: PyTorch draws."""
    if find_spec("gsplat") is None:
        pytest.skip("gsplat is not installed")
    if find_spec("gsplat.csrc") is not None:
        pytest.skip("gsplat was compiled with its package")
    extensions.mkdir()
    if library is not None:
        (extensions / library).write_bytes(b"compiled for something else")
    assert not has_gsplat_kernels()
    assert "not compiled here" in rasterizer_name(torch.device("cuda"))
    assert rasterizer_name(torch.device("cpu")) == "PyTorch on the CPU"


def test_compiled_gsplat_is_taken_from_pytorchs_folder(extensions, monkeypatch):
    """An extension of Python's own stands in for the library: it is loaded, and is where gsplat looks for it."""
    if find_spec("gsplat") is None:
        pytest.skip("gsplat is not installed")
    origins = {name: getattr(find_spec(name), "origin", None) for name in ("_bisect", "_heapq", "_json", "_csv")}
    name = next((name for name, origin in origins.items() if origin and origin.endswith(".so")), None)
    if name is None:
        pytest.skip("this Python has no extension modules in files")
    folder = extensions.with_name(name)
    folder.mkdir()
    shutil.copy(origins[name], folder / f"{name}.so")
    monkeypatch.setattr(rasterizer, "_GSPLAT_LIBRARY", name)
    assert rasterizer._load_compiled_gsplat()
    from gsplat import csrc

    assert csrc.__file__ == str(folder / f"{name}.so")
    monkeypatch.delitem(sys.modules, "gsplat.csrc")


@pytest.fixture(scope="module")
def ball():
    """Seeds on a ball of half a metre whose color depends on the place."""
    import trimesh

    from instantavatar_ns.export.surface import Surface

    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    vertices, faces = mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32)
    points, normals = surface_points(Surface(vertices, faces, vertices / 0.5), 500)
    return seeds(points, normals, points + 0.5)


def test_seeds_lie_flat_on_the_surface(ball):
    outwards = torch.nn.functional.normalize(ball.centers, dim=1)
    axes = rotation_matrices(ball.quaternions)
    assert float((axes[:, :, 2] * outwards).sum(dim=1).min()) > 0.98
    torch.testing.assert_close(ball.log_scales[:, 0], ball.log_scales[:, 1])
    assert (ball.log_scales[:, 2] < ball.log_scales[:, 0] - 1).all()
    _, alpha = rasterize_torch(ball, view_from())
    # Half a metre at three metres has a silhouette of 12.2 pixels' radius, without holes.
    x = torch.arange(SIZE) + 0.5 - SIZE / 2
    radius = (x[:, None] ** 2 + x**2).sqrt()
    assert float(alpha[radius < 10.5].min()) > 0.8 and float(alpha[radius > 16].max()) < 0.05


def test_fit_comes_near_to_the_images(ball):
    """Images of a ball of other size and colors: silhouette and colors are fitted, also between the views."""
    views = [view_from(azimuth=angle) for angle in np.linspace(0, 2 * math.pi, 6, endpoint=False)]
    truth = Splats(0.95 * ball.centers, ball.log_scales, ball.quaternions, ball.opacity_logits + 2, 0.6 * ball.colors)

    def images(of: list[View]) -> torch.Tensor:
        shown = [rasterize_torch(truth, view) for view in of]
        return torch.stack(
            [torch.cat([color + 1 - alpha[..., None], alpha[..., None]], dim=-1) for color, alpha in shown]
        )

    between = [view_from(azimuth=angle) for angle in (0.5, 2.6)]
    before = psnr(ball, between, images(between))
    fitted = fit(ball, views, images(views), steps=120)
    after = psnr(fitted, between, images(between))
    assert before < 22 and after > 30, (before, after)
    assert 0 <= float(fitted.colors.min()) and float(fitted.colors.max()) <= 1


def test_hardly_seen_splats_keep_their_colors(ball):
    """A layer below the surface, of which little shines through, where no two images agree on the surface's colors."""
    below = Splats(**(ball.tensors() | {"centers": 0.93 * ball.centers}))
    both = Splats(**{name: torch.cat([value, below.tensors()[name]]) for name, value in ball.tensors().items()})
    views = [view_from(azimuth=angle) for angle in np.linspace(0, 2 * math.pi, 6, endpoint=False)]
    generator = torch.Generator().manual_seed(0)
    images = []
    for view in views:
        color, alpha = rasterize_torch(ball, view)
        noise = 0.1 * torch.randn(color.shape, generator=generator) * alpha[..., None]
        images.append(torch.cat([color + 1 - alpha[..., None] + noise, alpha[..., None]], dim=-1).clamp(0, 1))
    fitted = fit(both, views, torch.stack(images), steps=120)
    change = (fitted.colors - both.colors).abs().amax(dim=1)[len(ball) :]
    # 0.11 and 0.24 where nothing holds them
    assert float(change.median()) < 0.03 and float(change.quantile(0.99)) < 0.12


def test_moved_splats_look_as_from_the_camera_moved_back():
    """Under a rotation, a translation and a stretch, which has the picture of ellipsoids stretched alike."""
    splats = random_splats(30)
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = Rotation.from_rotvec([0.3, -0.8, 0.2]).as_matrix(), [0.2, -0.1, 0.3]
    turned = moved(splats, np.tile(rigid[:3].astype(np.float32), (30, 1, 1)))
    view = view_from()
    back = View(view.world_to_camera @ torch.from_numpy(rigid).float(), view.focal, view.width, view.height)
    torch.testing.assert_close(rasterize_torch(turned, view)[0], rasterize_torch(splats, back)[0], atol=2e-3, rtol=0)
    shear = np.array([[1.2, 0.3, 0.0], [0.0, 0.8, 0.1], [0.1, 0.0, 1.1]], np.float32)
    sheared = moved(splats, np.tile(np.pad(shear, ((0, 0), (0, 1))), (30, 1, 1)))
    expected = torch.from_numpy(shear) @ splats.axes()
    torch.testing.assert_close(sheared.axes() @ sheared.axes().mT, expected @ expected.mT, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(sheared.centers, splats.centers @ torch.from_numpy(shear).T)


@pytest.fixture(scope="module")
def splats(trained_run):
    """Few splats of the trained avatar, fitted to small images."""
    from nerfstudio.utils.eval_utils import eval_setup

    from instantavatar_ns.export.avatar import AvatarMesh, model_surface

    model = eval_setup(trained_run / "config.yml", test_mode="inference")[1].model
    return AvatarSplats(AvatarMesh(model, model_surface(model, 0.02, 3000)), Effort(600, 48, 40))


def test_psnr_is_that_of_all_views(splats):
    """The figure that the file notes, worked out from images that are rendered anew."""
    images, views = neural_images(splats.avatar.model, torch.from_numpy(splats.avatar.surface.vertices), 48)
    errors = []
    for image, view in zip(images, views, strict=True):
        color, alpha = rasterize_torch(splats.splats, view)
        errors.append(float(((color + 1 - alpha[..., None]).clamp(0, 1) - image[..., :3]).square().mean()))
    assert len(errors) == VIEWS
    assert splats.psnr == pytest.approx(-10 * np.log10(errors).mean(), abs=0.05)
    assert splats.psnr > 19  # 16.7 of the seeds


def test_views_between_are_halfway():
    """In azimuth and in height, also between the last and the first; and at the same distance."""
    middle = torch.tensor([0.1, -0.2, 0.9])
    fitted, between = ((orbit(middle, 3.0, shift)[:, :3, 3] - middle) / 3 for shift in (0.0, 0.5))
    torch.testing.assert_close(between.norm(dim=1), torch.ones(VIEWS))
    azimuths = [torch.atan2(places[:, 1], places[:, 0]) for places in (fitted, between)]
    torch.testing.assert_close((azimuths[1] - azimuths[0]) % (2 * math.pi), torch.full((VIEWS,), math.pi / VIEWS))
    heights = [places[:, 2].asin() for places in (fitted, between)]
    torch.testing.assert_close(heights[1], (heights[0] + heights[0].roll(-1)) / 2)


def test_benchmark_measures_between_the_fitted_views(splats, trained_run, tmp_path):
    """From the file alone, with images of its own; its splats are those that were written."""
    path = tmp_path / "ann.glb"
    path.write_bytes(splats.glb([]))
    found = splats_in(path)
    for name, values in splats.splats.tensors().items():
        expected = torch.nn.functional.normalize(values, dim=1) if name == "quaternions" else values
        torch.testing.assert_close(getattr(found, name), expected, atol=1e-5, rtol=1e-5)
    between = splat_psnr_between(trained_run / "config.yml", path)
    assert 18 < between < splats.psnr + 0.5


def test_both_files_show_the_same_pose(splats, walk):
    """The skinned splats of the GLB in its rest pose are where the PLY has them, of the same color and opacity."""
    pose = splats.avatar.model.poses.rest
    files = splats.files("ann", [walk], pose)
    assert list(files) == ["ann.ply", "ann.glb"]
    document, binary = read_glb(files["ann.glb"])

    def read(index: int) -> np.ndarray:
        accessor = document["accessors"][index]
        start = document["bufferViews"][accessor["bufferView"]].get("byteOffset", 0)
        dtype, width = {5121: np.uint8, 5126: np.float32}[accessor["componentType"]], int(accessor["type"][-1])
        return np.frombuffer(binary, dtype, accessor["count"] * width, start).reshape(-1, width)

    (primitive,) = document["meshes"][0]["primitives"]
    attributes = {name: index for name, index in primitive["attributes"].items() if "OPACITY" not in name}
    arrays = {name.rpartition(":")[2]: read(index) for name, index in attributes.items()}
    header, _, body = files["ann.ply"].partition(b"end_header\n")
    table = np.frombuffer(body, "<f4").reshape(600, header.count(b"property float"))

    # The root joint's pose in the rest pose moves them rigidly: the distances from the first one stay.
    between = [np.linalg.norm(centers - centers[:1], axis=1) for centers in (arrays["POSITION"], table[:, :3])]
    assert np.abs(between[0] - between[1]).max() < 0.005
    assert 0 < table[:, 1].min() + 0.05 and 1.4 < table[:, 1].max() < 2.2  # y up, on the floor
    np.testing.assert_allclose(table[:, 6:9], arrays["SH_DEGREE_0_COEF_0"], atol=1e-6)
    encoded = 0.5 + HARMONIC * arrays["SH_DEGREE_0_COEF_0"]
    assert encoded.min() > -1e-6 and encoded.max() < 1 + 1e-6
    np.testing.assert_allclose(arrays["COLOR_0"][:, 3] / 255, 1 / (1 + np.exp(-table[:, 9])), atol=1 / 254)
    assert (arrays["SCALE"] > 0).all()  # lengths, no logarithms
    np.testing.assert_allclose(np.linalg.norm(arrays["ROTATION"], axis=1), 1, atol=1e-5)
    assert document["asset"]["extras"]["fit"]["psnr"] == splats.psnr
    assert [clip["name"] for clip in document["animations"]] == ["walk"]


def test_a_training_frame_can_be_shown(splats):
    """Its pose is one that training corrects."""
    posed = splats.posed(splats.avatar.model.poses.frame(1))
    rest = splats.posed(splats.avatar.model.poses.rest)
    assert 0.02 < float((posed.centers - rest.centers).norm(dim=1).max()) < 2
