"""`instant-avatar check`: the table, the page and the exit code."""

import re
import shutil
from base64 import b64decode

import cv2
import numpy as np
import pytest
import tyro

from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.scripts.check import Check
from instantavatar_ns.scripts.main import commands
from instantavatar_ns.utils.errors import InputError
from tests.check.folders import Folder


def test_command_checks_all_sets_of_frames(demo_subject, tmp_path, capsys):
    page = tmp_path / "new" / "check.html"
    arguments = ["check", str(demo_subject), "--output", str(page), "instant-avatar-data", "--poses", "poses"]
    command = tyro.cli(commands(), args=arguments)
    assert command.format.poses == "poses"
    command.main()
    told = capsys.readouterr().out
    for name in (r"train \(8\)", r"held-out \(3\)", r"novel \(4\)"):
        assert re.search(rf"{name} +│ +\d+ % +│ +\d+ % +│ good", told), told
    text = page.read_text(encoding="utf8")
    assert text.count("<img") == 9
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text), "the page needs no other file"
    assert [path.name for path in page.parent.iterdir()] == ["check.html"]
    command.main()  # which replaces its own page


def test_wrong_folder_is_shown_and_ends_with_exit_code_1(demo_subject, tmp_path, capsys):
    folder = Folder(tmp_path / "person", demo_subject)
    folder.transl *= 1000
    with pytest.raises(SystemExit) as caught:
        Check(folder.save(), InstantAvatarDataParserConfig(), tmp_path / "page.html").main()
    assert caught.value.code == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "wrong" in told and "transl seems to be in millimetres" in told
    page = (tmp_path / "page.html").read_text(encoding="utf8")
    assert "with transl times 0.001" in page
    # The body with the suspected change is drawn in green, as long as the person; the given one is a speck.
    for data in re.findall(r"base64,([^\"]+)", page):
        blue, green, red = cv2.imdecode(np.frombuffer(b64decode(data), np.uint8), cv2.IMREAD_COLOR).astype(int).T
        assert (green - np.maximum(red, blue) > 60).sum() > 300


@pytest.mark.parametrize("fault", ["novel unreadable", "novel wrong", "held-out unreadable"])
def test_what_training_does_not_read_is_warned_of(demo_subject, tmp_path, capsys, fault):
    """Training has the same poses and masks as before, so it would not stop: the command ends well."""
    folder = tmp_path / "person"
    shutil.copytree(demo_subject, folder)
    if fault == "novel unreadable":
        (folder / "novel" / "poses.npz").unlink()
    elif fault == "novel wrong":
        arrays = dict(np.load(folder / "novel" / "poses.npz"))
        np.savez(folder / "novel" / "poses.npz", **arrays | {"transl": 1000 * arrays["transl"]})
    else:
        sorted((folder / "masks").iterdir())[-1].write_bytes(b"no picture")  # of 8 frames that train, and 3 held out
    Check(folder, InstantAvatarDataParserConfig(), tmp_path / "page.html").main()
    told = " ".join(capsys.readouterr().out.split())
    name = fault.split()[0]
    assert f"Warning: evaluating the {name} frames stops; training does not" in told
    assert re.search(rf"train \(8\)[^a-z]*good.*{name}[^a-z]*{fault.split()[1]}", told), told


def test_page_of_another_program_is_not_overwritten(demo_subject, tmp_path):
    page = tmp_path / "check.html"
    page.write_text("<html>mine</html>")
    with pytest.raises(InputError, match="another file"):
        Check(demo_subject, InstantAvatarDataParserConfig(), page).main()
    assert page.read_text() == "<html>mine</html>"
