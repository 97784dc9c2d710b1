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
    "deformer",
    "export",
    "field",
    "importing",
    "losses",
    "motion",
    "occupancy",
    "patch_losses",
)
if not torch.cuda.is_available():
    # Read by Triton when a kernel is defined: without a GPU the kernels run in its interpreter.
    os.environ.setdefault("TRITON_INTERPRET", "1")
    install_import_hook([f"instantavatar_ns.{name}" for name in TENSOR_PACKAGES], "beartype.beartype")


# Few tests, but long ones: a process that got them last would keep the other waiting.
FIRST = ("viewer/test_live_viewer.py", "test_docs.py", "test_end_to_end.py", "test_resume.py", "test_pose_training.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    places = {REPO_ROOT / "tests" / name: place for place, name in enumerate(FIRST)}
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
            folder.mkdir()  # fails for the second process if the first one failed half-way
            make(folder)
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
def trained_run(demo_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of `ns-train` on the demo subject, whose checkpoints are not to be changed."""
    from tests.commands import run_command, run_folder, training_arguments

    def make(folder: Path) -> None:
        result = run_command("ns-train", *training_arguments(demo_subject, folder, 150), folder=folder)
        assert result.returncode == 0, result.stderr[-4000:]

    trained, own = shared_folder("trained", tmp_path_factory, make), tmp_path_factory.mktemp("trained") / "outputs"
    return run_folder(shutil.copytree(trained, own))  # commands write beneath the run
