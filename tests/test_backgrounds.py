"""Colours behind the person."""

import torch
from nerfstudio.model_components import renderers

from instantavatar_ns.backgrounds import blend, image_background, on_same_background, unblend_white

IMAGE = torch.tensor([[0.2, 0.4, 0.6, 1.0], [0.2, 0.4, 0.6, 0.5], [0.2, 0.4, 0.6, 0.0]])


def test_colors_are_blended_by_opacity() -> None:
    expected = torch.tensor([[0.2, 0.4, 0.6], [0.6, 0.7, 0.8], [1.0, 1.0, 1.0]])
    torch.testing.assert_close(blend(IMAGE, 1.0), expected)
    assert blend(IMAGE.view(3, 1, 4), 1.0).shape == (3, 1, 3)


def test_images_have_white_behind_them_or_what_the_viewer_asks_for() -> None:
    assert image_background(torch.device("cpu")).tolist() == [1.0, 1.0, 1.0]
    with renderers.background_color_override_context(torch.tensor([0.1, 0.2, 0.3])):
        torch.testing.assert_close(image_background(torch.device("cpu")), torch.tensor([0.1, 0.2, 0.3]))


def test_what_was_blended_on_white_is_taken_off_it() -> None:
    image = unblend_white(blend(IMAGE, 1.0), IMAGE[:, 3:])
    torch.testing.assert_close(image[:2], IMAGE[:2])
    assert image[2].tolist() == [1.0, 1.0, 1.0, 0.0], "white where there is nothing"


def test_fixed_background_leaves_the_rendering_as_it_is() -> None:
    rgb = torch.rand(3, 3)
    rendered, truth = on_same_background(rgb, torch.rand(3, 1), IMAGE, 0.0)
    assert rendered is rgb
    torch.testing.assert_close(truth, blend(IMAGE, 0.0))


def test_random_background_shows_where_opacity_is_wrong_and_nowhere_else() -> None:
    torch.manual_seed(0)
    image = IMAGE.repeat(200, 1)
    rgb, accumulation = blend(image, 0.0), image[:, 3:]
    rendered, truth = on_same_background(rgb, accumulation, image, None)
    torch.testing.assert_close(rendered, truth)
    empty = truth[2::3]
    assert (empty.amin(dim=0) < 0.1).all() and (empty.amax(dim=0) > 0.9).all() and empty.std(dim=1).mean() > 0.2
    rendered, truth = on_same_background(rgb, accumulation * 0.5, image, None)
    assert (rendered - truth)[::3].abs().mean() > 0.2
