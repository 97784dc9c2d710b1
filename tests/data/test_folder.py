"""Files of a recording: formats, hidden files, pairs of images and masks, the body."""

import shutil

import pytest

from instantavatar_ns.data.folder import find_body_file, has_body, list_images, list_masks
from instantavatar_ns.utils.errors import InputError


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def paired(folder, image_names, mask_names):
    """Names of images and masks, as they are paired."""
    write(folder, *(f"images/{name}" for name in image_names), *(f"masks/{name}" for name in mask_names))
    images = list_images(folder)
    return [(image.name, mask.name) for image, mask in zip(images, list_masks(folder, images), strict=True)]


PAIRS = {
    "equal": (["a_8.png", "a_9.png", "a_10.png"], ["b_8.npy", "b_9.npy", "b_10.npy"]),
    "padded": (["image_7.png", "image_11.png"], ["mask_0007.png", "mask_0011.png"]),
    "camera's number": (["cam2_007.jpg", "cam2_011.jpg"], ["007.png", "011.png"]),
    "twice the suffix": (["1.JPG", "2.png", "10.webp"], ["1.png.png", "2.png.png", "10.png.png"]),
    "no numbers": (["ann.png", "bob.png"], ["1.png", "2.png"]),
    "numbers of other things": (["f1.png", "f2.png"], ["f1_score90.png", "f2_score85.png"]),
    "one frame": (["frame_3.png"], ["mask_0.png"]),
    "same start": (["1.png", "2.png"], ["m1.png", "m2.png"]),
}


@pytest.mark.parametrize(("images", "masks"), PAIRS.values(), ids=PAIRS.keys())
def test_pairs(tmp_path, images, masks, notices_given):
    assert paired(tmp_path, images, masks) == list(zip(images, masks, strict=True))
    assert notices_given == []


def test_numbering_from_0_and_from_1(tmp_path, notices_given):
    assert paired(tmp_path, ["1.png", "2.png", "3.png"], ["m0.png", "m1.png", "m2.png"])[2] == ("3.png", "m2.png")
    assert (
        len(notices_given) == 1
        and "Masks are numbered from 0, images from 1; m0.png is taken for the mask of 1.png" in notices_given[0]
    )


@pytest.mark.parametrize(
    ("images", "masks", "first"),
    [
        ((0, 1, 3, 4), (0, 1, 2, 4), "image_0003.png at its place in the order, found mask_0002.png"),
        ((0, 1, 3), (0, 1, 2), "image_0003.png at its place in the order, found mask_0002.png"),
        ((5, 6, 7), (4, 5, 6), "image_0005.png at its place in the order, found mask_0004.png"),
        ((0, 4, 8), (0, 1, 2), "image_0004.png at its place in the order, found mask_0001.png"),
    ],
)
def test_lost_files(tmp_path, images, masks, first):
    with pytest.raises(InputError, match=f"masks: expected the mask of {first}"):
        paired(tmp_path, [f"image_{n:04d}.png" for n in images], [f"mask_{n:04d}.png" for n in masks])


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ((0, 1, 2, 3), (0, 1, 3), r"for each of the 4 images, found 3; there is none for image_0002\.png\."),
        ((0, 2), (0, 1, 2), r"for each of the 2 images, found 3; there is no image for mask_0001\.png\."),
        ((0, 1, 2), (7, 8), r"for each of the 3 images, found 2\. Give"),
    ],
)
def test_other_number_of_masks(tmp_path, images, masks, message):
    with pytest.raises(InputError, match=message):
        paired(tmp_path, [f"image_{n:04d}.png" for n in images], [f"mask_{n:04d}.png" for n in masks])


def test_hidden_and_other_files_are_left_out(tmp_path):
    write(tmp_path, "images/._1.png", "images/._2.png", "images/.DS_Store", "images/notes.txt", "masks/._1.png")
    (tmp_path / "images" / "3.png").mkdir()
    assert paired(tmp_path, ["1.png", "2.png"], ["1.png", "2.png"]) == [("1.png", "1.png"), ("2.png", "2.png")]


def test_links(tmp_path):
    write(tmp_path, "frames/1.png", "images/2.png")
    (tmp_path / "images" / "1.png").symlink_to(tmp_path / "frames" / "1.png")
    assert [path.name for path in list_images(tmp_path)] == ["1.png", "2.png"]
    (tmp_path / "frames" / "1.png").unlink()
    with pytest.raises(InputError, match=r"images/1\.png: expected images, found a link .*frames/1\.png\)"):
        list_images(tmp_path)


@pytest.mark.parametrize("names", [["1.png", "1.jpg"], ["1.JPG", "1.jpg"]])
def test_a_frame_in_two_files(tmp_path, names):
    write(tmp_path, *(f"images/{name}" for name in names))
    with pytest.raises(InputError, match=r"expected one file a frame, found both 1\.\w+ and 1\.\w+"):
        list_images(tmp_path)


def test_what_is_found_instead(tmp_path):
    with pytest.raises(InputError, match="person: expected a recording's folder, found no such folder"):
        list_images(tmp_path / "person")
    write(tmp_path, "images/1.heic", "images/2.HEIC")
    with pytest.raises(InputError, match=r"images: .*found only \.heic files\. Convert them"):
        list_images(tmp_path)
    with pytest.raises(InputError, match=r"masks: .*found no such folder\. Check the option data"):
        list_masks(tmp_path, [])
    write(tmp_path, "masks/cam0/1.png")
    with pytest.raises(InputError, match=r"masks: .*found only the folder cam0\. Put the masks of one camera into"):
        list_masks(tmp_path, [])
    shutil.rmtree(tmp_path / "masks")
    write(tmp_path, "camera.pkl")
    with pytest.raises(InputError, match=r"masks: .*found no such folder\. This is a subject of PeopleSnapshot"):
        list_masks(tmp_path, [])


BODIES = {
    "as smplx names it": ["SMPL_NEUTRAL.npz"],
    "lower case": ["smpl_male.pkl"],
    "download of the male": ["basicModel_m_lbs_10_207_0_v1.0.0.pkl"],
    "download of the neutral": ["basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl"],
    "layout of smplx": ["smpl/SMPL_FEMALE.pkl", "smplh/SMPLH_FEMALE.pkl", "smplx/SMPLX_NEUTRAL.npz"],
    "SMPL's download": [
        "SMPL_python_v.1.1.0/smpl/models/basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl",
        "SMPL_python_v.1.1.0/smpl/__init__.py",
        "SMPL_python_v.1.1.0/README.txt",
    ],
    "beside other files": [
        "SMPL_MALE.PKL",
        "J_regressor_extra.npy",
        "smpl_mean_params.npz",
        "LICENSE.txt",
        "._SMPL_MALE.PKL",
    ],
    "of any name": ["anna.npz", "readme.md"],
}


@pytest.mark.parametrize("names", BODIES.values(), ids=BODIES.keys())
def test_body_is_found(tmp_path, names):
    write(tmp_path, *(f"body/{name}" for name in names))
    assert find_body_file(tmp_path) == tmp_path / "body" / names[0]


def test_body_behind_links(tmp_path):
    write(tmp_path, "models/smpl/SMPL_MALE.pkl")
    (tmp_path / "person" / "body").mkdir(parents=True)
    (tmp_path / "person" / "body" / "smpl").symlink_to(tmp_path / "models" / "smpl")
    assert find_body_file(tmp_path / "person") == tmp_path / "person" / "body" / "smpl" / "SMPL_MALE.pkl"


def test_links_in_a_circle(tmp_path):
    write(tmp_path, "body/smpl/models/SMPL_MALE.pkl")
    (tmp_path / "body" / "smpl" / "again").symlink_to(tmp_path / "body")
    assert find_body_file(tmp_path) == tmp_path / "body" / "smpl" / "models" / "SMPL_MALE.pkl"


def test_folder_in_upper_case(tmp_path):
    write(tmp_path, "Body/smpl/SMPL_MALE.pkl")
    found = find_body_file(tmp_path)
    assert found is not None
    assert found.name == "SMPL_MALE.pkl"


def test_no_body(tmp_path):
    assert find_body_file(tmp_path) is None
    write(tmp_path, "body/.gitkeep")
    assert find_body_file(tmp_path) is None
    assert not has_body(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("body", "body: expected a folder with the body model, found a file"),
        ("Body", "Body: expected a folder with the body model, found a file"),
        ("Body/notes.txt", r"Body: expected a body model \(\.pkl or \.npz\), found notes\.txt"),
        ("body/1/2/3/4/5/6/SMPL_MALE.pkl", "found folders without files, 6 levels deep"),
    ],
)
def test_no_free_body_in_place_of_something(tmp_path, name, message):
    write(tmp_path, name)
    with pytest.raises(InputError, match=message):
        find_body_file(tmp_path)


def test_body_is_a_broken_link(tmp_path):
    (tmp_path / "body").symlink_to(tmp_path / "models")
    with pytest.raises(InputError, match="body: expected a folder with the body model, found a link to something that"):
        find_body_file(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["SMPL_NEUTRAL.pth"], r"expected a body model \(\.pkl or \.npz\), found SMPL_NEUTRAL\.pth"),
        (["smpl.zip", "LICENSE.txt"], r"found LICENSE\.txt, smpl\.zip"),
        (
            ["smpl/SMPL_MALE.pkl", "smpl/SMPL_FEMALE.pkl"],
            "one body model, found smpl/SMPL_FEMALE.pkl, smpl/SMPL_MALE.pkl",
        ),
        (["anna.npz", "bob.npz"], r"one body model, found anna\.npz, bob\.npz\. Choose one with --body-model"),
    ],
)
def test_body_that_cannot_be_told(tmp_path, names, message):
    write(tmp_path, *(f"body/{name}" for name in names))
    with pytest.raises(InputError, match=message):
        find_body_file(tmp_path)
