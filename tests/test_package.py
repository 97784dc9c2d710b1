"""The installed package: entry points, imports while nerfstudio is half imported, and checkpoints."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import instantavatar_ns

ENTRY_POINT_GROUPS = ("nerfstudio.method_configs", "nerfstudio.dataparser_configs", "console_scripts")
ENTRY_MODULES = (
    "instantavatar_ns.config",
    "instantavatar_ns.data.instantavatar_dataparser",
    "instantavatar_ns.data.people_snapshot_dataparser",
)
HEAVY = ("open3d", "pymeshlab", "embreex", "trimesh")


def _distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("instantavatar-ns")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("instantavatar-ns is not installed here (pip install -e .)")


def _run(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_version_is_the_distributions() -> None:
    assert _distribution().version == instantavatar_ns.__version__


def test_no_dependency_is_listed_twice(repo_root: Path) -> None:
    text = (repo_root / "pyproject.toml").read_text(encoding="utf-8")
    listed = text[text.index("\ndependencies = [") : text.index("[project.optional-dependencies]")]
    names = re.findall(r'^    "([\w-]+)', listed, re.M)
    assert "nerfstudio" in names and sorted(names) == sorted(set(names))


def test_every_entry_point_loads_and_has_nerfstudios_type() -> None:
    from nerfstudio.plugins.registry_dataparser import DataParserSpecification
    from nerfstudio.plugins.types import MethodSpecification

    loaded = {
        group: {point.name: point.load() for point in _distribution().entry_points if point.group == group}
        for group in ENTRY_POINT_GROUPS
    }
    methods, parsers, scripts = (loaded[group] for group in ENTRY_POINT_GROUPS)
    assert set(methods) == {"instant-avatar", "instant-avatar-lite", "instant-avatar-wild"}
    own = {"instant-avatar-data", "people-snapshot-data", "neuman-data", "surreal-data", "zju-mocap-data"}
    assert set(parsers) == own
    assert set(scripts) == {"instant-avatar"} and callable(scripts["instant-avatar"])
    for name, method in methods.items():
        assert isinstance(method, MethodSpecification)
        assert method.config.method_name == name, "ns-train lists the method by its config's name"
        assert method.config.vis == "viewer"
    assert all(isinstance(parser, DataParserSpecification) for parser in parsers.values())


@pytest.mark.skipif(not torch.backends.openmp.is_available(), reason="PyTorch has no OpenMP")
@pytest.mark.parametrize(("given", "used"), [(None, "PASSIVE"), ("active", "ACTIVE")])
def test_threads_of_commands_sleep_unless_told_otherwise(given: str | None, used: str) -> None:
    """GNU's OpenMP, PyTorch's on Linux, says what it goes by when it is loaded."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "true"} | ({} if given is None else {"OMP_WAIT_POLICY": given})
    command = [sys.executable, "-c", "import instantavatar_ns"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True).stderr
    if "OMP_WAIT_POLICY" not in told:
        pytest.skip("another OpenMP")
    assert f"OMP_WAIT_POLICY = '{used}'" in told


@pytest.fixture(scope="module")
def heavy_imports() -> dict[str, list[str]]:
    """Heavy packages that are there after each entry module has been imported, before any other of nerfstudio or ours.

    In one process, which forgets nerfstudio and this package each time, but not what they are built on.
    """
    code = f"""
import importlib, json, sys
found = {{}}
for module in {ENTRY_MODULES}:
    importlib.import_module(module)
    found[module] = [name for name in {HEAVY} if name in sys.modules]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("nerfstudio", "instantavatar_ns")]:
        del sys.modules[name]
print(json.dumps(found))
"""
    return json.loads(_run(code).splitlines()[-1])


@pytest.mark.parametrize("module", ENTRY_MODULES)
def test_entry_module_can_be_imported_first(module: str, heavy_imports: dict[str, list[str]]) -> None:
    """nerfstudio loads entry points unguarded: a circular import in one of them breaks every ns-* command."""
    assert heavy_imports[module] == [], "nerfstudio's commands start without these, and should go on to"


def test_importing_the_package_imports_no_nerfstudio() -> None:
    output = _run("import instantavatar_ns, sys; print('nerfstudio' in sys.modules, 'scipy' in sys.modules)")
    assert output.split() == ["False", "False"]


def test_package_data_is_installed() -> None:
    package = Path(instantavatar_ns.__file__).parent
    motions = [f"motion/library/{name}" for name in ("walk.npz", "dance.npz", "stretch.npz", "README.md")]
    for name in ("py.typed", "body/free_body.npz", "body/FREE_BODY_LICENSE.md", *motions):
        assert (package / name).is_file(), name


def test_checkpoint_with_numpy_learning_rate_loads(tmp_path: Path) -> None:
    checkpoint = {"schedulers": {"fields": {"_last_lr": [np.float64(1e-3)]}}, "step": np.int64(7)}
    torch.save(checkpoint, tmp_path / "step.ckpt")
    assert torch.load(tmp_path / "step.ckpt") == checkpoint


def test_checkpoint_from_the_other_numpy_generation_loads(tmp_path: Path) -> None:
    """numpy 1 pickles scalars as numpy.core.multiarray.scalar, numpy 2 as numpy._core.multiarray.scalar."""
    path = tmp_path / "step.ckpt"
    torch.save({"lr": np.float64(1e-3)}, path, _use_new_zipfile_serialization=False)
    here, there = b"numpy.core.multiarray", b"numpy._core.multiarray"
    if here not in path.read_bytes():
        here, there = there, here
    content = path.read_bytes().replace(b"c" + here + b"\n", b"c" + there + b"\n")
    assert there in content
    path.write_bytes(content)
    assert torch.load(path) == {"lr": np.float64(1e-3)}


def test_unregistered_classes_stay_refused(tmp_path: Path) -> None:
    """Only what checkpoints need is let through: a checkpoint must not become a way to run code."""
    torch.save({"path": Path("x")}, tmp_path / "step.ckpt")
    with pytest.raises(Exception, match="Unsupported global"):
        torch.load(tmp_path / "step.ckpt")
