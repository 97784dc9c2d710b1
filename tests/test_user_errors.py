"""Folders that cannot be used: nerfstudio's own command ends with one message, which names the file."""

import copy
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from instantavatar_ns.config import instant_avatar_lite
from instantavatar_ns.utils.errors import InputError
from tests.body.bodies import random_body
from tests.commands import run_command, training_arguments


@pytest.fixture
def subject(demo_subject, tmp_path):
    """A copy of the demo subject, to be damaged."""
    return shutil.copytree(demo_subject, tmp_path / "subject")


def build_pipeline(data):
    """Do what `ns-train` does before the first step."""
    pipeline = copy.deepcopy(instant_avatar_lite.config.pipeline)
    pipeline.datamanager.data = data
    return pipeline.setup(device="cpu", test_mode="val", world_size=1, local_rank=0, grad_scaler=None)


def remove_cameras(subject):
    (subject / "cameras.npz").unlink()
    return "cameras.npz: .*no such file"


def halve_mask(subject):
    path = subject / "masks" / "mask_0003.png"
    Image.open(path).resize((48, 48)).save(path)
    return r"mask_0003.png: .*\(96, 96\).*found \(48, 48\)"


def blacken_mask(subject):
    Image.new("L", (96, 96)).save(subject / "masks" / "mask_0005.png")
    return r"mask_0005.png: .*all black"


def write_nan_pose(subject):
    path = subject / "poses" / "anim_nerf_train.npz"
    poses = dict(np.load(path))
    poses["body_pose"][2, 5] = np.nan
    np.savez(path, **poses)
    return r"anim_nerf_train.npz: .*NaN .*frame 2"


def drop_pose(subject):
    path = subject / "poses" / "anim_nerf_train.npz"
    np.savez(path, **{key: value if key == "betas" else value[:-1] for key, value in np.load(path).items()})
    return r"anim_nerf_train.npz: expected 8 poses.*found 7"


class Command:
    """Unpickled by the usual means, it leaves a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def plant_command(subject):
    (subject / "body" / "SMPL_NEUTRAL.npz").unlink()
    with (subject / "body" / "SMPL_NEUTRAL.pkl").open("wb") as file:
        pickle.dump({"v_template": Command(subject.parent / "was_run")}, file)
    return r"SMPL_NEUTRAL.pkl: .*system; nothing of it was run"


def give_55_joints(subject):
    np.savez(subject / "body" / "SMPL_NEUTRAL.npz", **random_body(num_joints=55))
    return r"SMPL_NEUTRAL.npz: .*24.*55"


@pytest.mark.parametrize(
    "damage",
    [remove_cameras, halve_mask, blacken_mask, write_nan_pose, drop_pose, plant_command, give_55_joints],
    ids=lambda damage: damage.__name__,
)
def test_pipeline_names_the_file_at_fault(subject, damage):
    message = damage(subject)
    with pytest.raises(InputError, match=message) as caught:
        build_pipeline(subject)
    assert str(subject) in str(caught.value)
    assert not (subject.parent / "was_run").exists()


def test_ns_train_ends_with_the_message_alone(subject, tmp_path):
    plant_command(subject)
    result = run_command("ns-train", *training_arguments(subject, tmp_path / "outputs", 1), folder=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr + result.stdout
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"Error: {subject / 'body' / 'SMPL_NEUTRAL.pkl'}: expected a pickle of arrays only")
    assert not (subject.parent / "was_run").exists()


def test_other_errors_keep_their_traceback():
    code = "import instantavatar_ns.utils.errors; raise ValueError('something else')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "ValueError: something else" in result.stderr
