"""The commands that a finished one names as the next to type; they can be pasted into a shell as they are."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import torch


def training(data: Path) -> str:
    """Command that trains on a folder, by the method for this machine.

    Args:
        data: The folder.
    """
    method = "instant-avatar" if torch.cuda.is_available() else "instant-avatar-lite --machine.device-type cpu"
    return f"ns-train {method} --data {quote(str(data))}"


def of_run(config_path: Path) -> dict[str, str]:
    """Commands that use a trained avatar, by their purpose: view, animate, evaluate, export.

    Args:
        config_path: The run's config.yml.
    """
    config = quote(str(config_path))
    return {
        "view": f"ns-viewer --load-config {config}",
        "animate": f"instant-avatar animate --load-config {config} --motion dance",
        "evaluate": f"instant-avatar evaluate --load-config {config}",
        "export": f"instant-avatar export --load-config {config}",
    }
