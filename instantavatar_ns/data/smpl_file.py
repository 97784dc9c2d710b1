"""The SMPL model that a data set's poses were fitted with, which its users must download themselves."""

from __future__ import annotations

from pathlib import Path

from instantavatar_ns.data.folder import find_body_file
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.notices import notice


def find_smpl(data: Path, choice: str, dataset: str, files: str) -> str:
    """Path of the body model, or "free".

    Args:
        data: The recording's folder.
        choice: A path, "free", or "auto" for the file in `<data>/body`.
        dataset: Its name, for a notice.
        files: Names of SMPL's files that belong to it.

    Raises:
        InputError: "auto" finds none.
    """
    if choice == "auto":
        found = find_body_file(data)
        if not found:
            message = f"expected the subject's SMPL model ({files}, .pkl or .npz), found none"
            advice = (
                "Download SMPL from smpl.is.tue.mpg.de (its licence must be accepted there) and give the file as "
                "body_model, or give 'free' to try without"
            )
            raise InputError(data / "body", message, advice)
        return str(found)
    if choice == "free":
        text = (
            f"The free body's shape space is not SMPL's: {dataset}'s betas and joints do not fit it, and the avatar "
            "will be worse than with SMPL."
        )
        notice(data, text)
    return choice
