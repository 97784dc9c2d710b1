"""Fixtures shared by all tests, and the check of annotated shapes while they run."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from jaxtyping import install_import_hook

from tests.dependencies import skip_what_misses_any

REPO_ROOT = Path(__file__).resolve().parents[1]

skip_what_misses_any()

# Where tensors are worked on, every annotated shape and type is checked at each call. Not on a GPU, because Triton
# cannot compile a wrapped kernel; not in modules with nerfstudio configs, whose inherited annotations are not exact.
TENSOR_PACKAGES = (
    "backgrounds",
    "body",
    "check",
    "correction",
    "deformer",
    "demo",
    "export",
    "field",
    "importing",
    "losses",
    "motion",
    "occupancy",
    "rendering.composite",
    "rendering.composite_triton",
    "rendering.march",
    "rendering.march_triton",
    "rendering.ray_points_triton",
    "rendering.rounds_triton",
    "utils.recorded_arrays",
    "utils.unpickle",
)
for name in TENSOR_PACKAGES:
    path = REPO_ROOT / "instantavatar_ns" / name.replace(".", "/")
    if not (path.is_dir() or path.with_suffix(".py").is_file()):
        raise FileNotFoundError(f"{path}: expected what TENSOR_PACKAGES names; correct it where a module has moved")
if not torch.cuda.is_available():
    # Read by Triton when a kernel is defined: without a GPU the kernels run in its interpreter.
    os.environ.setdefault("TRITON_INTERPRET", "1")
    install_import_hook([f"instantavatar_ns.{name}" for name in TENSOR_PACKAGES], "beartype.beartype")


# Files of few tests, but long ones: a worker that began them last would end long after the other.
FIRST = (
    "viewer/test_live_viewer.py",
    "training/test_two_processes.py",
    "batch/test_on_ray.py",
    "test_docs.py",
    "test_end_to_end.py",
    "test_examples.py",
    "training/test_resume.py",
    "test_pose_training.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest.

    Raises:
        FileNotFoundError: A file of `FIRST` has been moved.
    """
    places = {(REPO_ROOT / "tests" / name).resolve(strict=True): place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture
def notices_given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notices about the input, as they are given during the test."""
    from instantavatar_ns.utils import notices

    said: list[str] = []
    notices._say_once.cache_clear()
    monkeypatch.setattr(notices.CONSOLE, "print", lambda *parts, **options: said.extend(map(str, parts)))
    return said


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """Folder of the checkout: holds README.md, configs/ and docs/."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def shared_subjects() -> Path:
    """Folder of rendered subjects with ground truth that lies beside some checkouts; the test is skipped without it."""
    subjects = REPO_ROOT.parent / "shared" / "subjects"
    if not subjects.is_dir():
        pytest.skip(f"no rendered subjects with ground truth at ../shared/subjects ({subjects} does not exist)")
    return subjects


@pytest.fixture(scope="session")
def avatar():
    """The free body with a deformer of full resolution (`tests.avatars.Avatar`)."""
    from tests.avatars import free_avatar

    return free_avatar()


@pytest.fixture(scope="session")
def small_avatar():
    """The free body with a coarse deformer, which is quick to pose (`tests.avatars.Avatar`)."""
    from tests.avatars import free_avatar

    return free_avatar((48, 48, 12))


def shared_folder(name: str, factory: pytest.TempPathFactory, make: Callable[[Path], None]) -> Path:
    """A folder that one of the tests' processes fills and all of them read."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / name
    with FileLock(folder.with_suffix(".lock")):
        done = folder.with_suffix(".made")
        if not done.exists():
            folder.mkdir()
            try:
                make(folder)
            except BaseException:  # a skip, too: the next process finds out for itself
                shutil.rmtree(folder)
                raise
            done.touch()
    return folder


@pytest.fixture(scope="session")
def demo_subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a demo subject, not to be changed: 8 training frames, 3 held-out and 4 of the dance, 96 pixels."""
    from instantavatar_ns.scripts.demo_data import DemoData

    def make(folder: Path) -> None:
        DemoData(output=folder / "subject", size=96, train_frames=8, heldout_frames=3, novel_frames=4).main()

    return shared_folder("demo", tmp_path_factory, make) / "subject"


@pytest.fixture(scope="session")
def outputs(demo_subject: Path):
    """Outputs of the data parser for the demo subject's training frames."""
    from tests.tiny import parse

    return parse(demo_subject)


@pytest.fixture(scope="session")
def trained_run(demo_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of `ns-train` on the demo subject, whose checkpoints are not to be changed."""
    from tests.commands import run_command, run_folder, training_arguments

    def make(folder: Path) -> None:
        result = run_command("ns-train", *training_arguments(demo_subject, folder, 150), folder=folder)
        assert result.returncode == 0, result.stderr[-4000:]

    trained, own = shared_folder("trained", tmp_path_factory, make), tmp_path_factory.mktemp("trained") / "outputs"
    return run_folder(shutil.copytree(trained, own))  # commands write beneath the run
