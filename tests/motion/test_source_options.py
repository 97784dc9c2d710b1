"""Rate and vertical axis that a motion's file does not say can be given where a motion is given."""

import numpy as np
import pytest
import tyro

from instantavatar_ns.scripts.animate import Animate
from instantavatar_ns.scripts.export import Export
from instantavatar_ns.utils.errors import InputError


@pytest.mark.parametrize("command", [Animate, Export])
def test_options_reach_the_motion(tmp_path, capsys, command):
    """A command reads its motions before it looks for the run, which is not there."""
    poses = np.zeros((5, 72))
    poses[:, 0] = np.pi / 2
    np.savez(tmp_path / "m.npz", poses=poses, trans=np.zeros((5, 3)), fps=np.nan)
    given = ["--load-config", str(tmp_path / "config.yml"), "--motion", str(tmp_path / "m.npz")]
    with pytest.raises(InputError, match=r"m\.npz: expected fps .* Give the rate with --source-fps"):
        tyro.cli(command, args=given).main()
    with pytest.raises(InputError, match=r"config\.yml"):
        tyro.cli(command, args=[*given, "--source-fps", "25"]).main()
    assert "give --up=z." in capsys.readouterr().out
    for up in (["--up=z"], ["--up=-y"], ["--up", "-z"]):
        with pytest.raises(InputError, match=r"config\.yml"):
            tyro.cli(command, args=[*given, "--source-fps", "25", *up]).main()
        assert not capsys.readouterr().out
