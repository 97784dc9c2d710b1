"""`instant-avatar` that notes when the parts of a training begin and end; some of them run at the same time.

`python -m benchmarks.instant parts` starts it. Times are written to the file that the variable PHASES names, in seconds
since the time that ENTER names.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import time
from functools import reduce, wraps
from importlib import import_module
from pathlib import Path
from typing import Any

MODULES = {
    "data": ("instantavatar_ns.data.datamanager", "AvatarDataManager.__init__"),  # all but images and masks
    "frames": ("instantavatar_ns.data.datamanager", "FrameStore.__init__"),
    "model": ("instantavatar_ns.model", "InstantAvatarModel.populate_modules"),
    "check": ("instantavatar_ns.pipeline", "diagnose_frames"),
    "alignment": ("instantavatar_ns.pipeline", "align_poses"),
    "preparation": ("instantavatar_ns.pipeline", "AvatarPipeline.prepare_training"),  # ends when kernels are ready
    "steps": ("instantavatar_ns.trainer", "AvatarTrainer.train"),  # and the checkpoint
    "checkpoint": ("instantavatar_ns.trainer", "AvatarTrainer.save_checkpoint"),
}
"""Where the function of each part is found. Imports are a part, too."""


class Phases:
    """Beginnings and ends.

    Args:
        enter: Time at which the process was started, as `time.time()` has it.
    """

    def __init__(self, enter: float) -> None:
        self._enter = enter
        self.seconds: dict[str, tuple[float, float]] = {}

    def note(self, name: str, begin: float) -> None:
        """Say that a part has ended; only its first time counts.

        Args:
            name: Of the part.
            begin: Time at which it began.
        """
        self.seconds.setdefault(name, (round(begin - self._enter, 2), round(time.time() - self._enter, 2)))

    def watch(self, name: str, owner: Any, function: str) -> None:
        """Have a part noted whenever a function is called.

        Args:
            name: Of the part.
            owner: Module or class of the function.
            function: Its name.
        """
        watched = getattr(owner, function)

        @wraps(watched)
        def noting(*args: Any, **kwargs: Any) -> Any:
            begin = time.time()
            try:
                return watched(*args, **kwargs)
            finally:
                self.note(name, begin)

        setattr(owner, function, noting)


def run() -> None:
    """Be the program `instant-avatar`."""
    phases = Phases(float(os.environ["ENTER"]))
    from instantavatar_ns.scripts import main

    gc.freeze()  # as `main` does before it imports this
    import_module("instantavatar_ns.scripts.train")
    phases.note("imports", float(os.environ["ENTER"]))
    for name, (module, path) in MODULES.items():
        *owners, function = path.split(".")
        phases.watch(name, reduce(getattr, owners, import_module(module)), function)
    atexit.register(lambda: Path(os.environ["PHASES"]).write_text(json.dumps(phases.seconds)))
    main.run()
