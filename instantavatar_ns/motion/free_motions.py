"""The motions that come with this package, made by `tools/make_motions.py` and free of any rights (CC0)."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).with_name("library")


def library_names() -> list[str]:
    """Names of the motions that come along."""
    return sorted(path.stem for path in _FOLDER.glob("*.npz"))


def find_motion(motion: Path) -> Path:
    """The motion's file: what lies at that path, else the motion of that name that comes along."""
    shipped = _FOLDER / f"{motion}.npz"
    return shipped if not motion.exists() and motion.parent == Path(".") and shipped.is_file() else motion
