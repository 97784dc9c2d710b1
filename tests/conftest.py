"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

REPO_ROOT = Path(__file__).resolve().parents[1]


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
