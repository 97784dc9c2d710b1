"""nerfstudio's trainer, with checkpoints that a kill cannot spoil."""

from __future__ import annotations

import os
import shutil

import torch
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.decorators import check_main_thread


class AvatarTrainer(Trainer):
    """A `Trainer` whose checkpoints appear under their names only when they are complete.

    nerfstudio writes in place and loads the newest file there is: killed while it saves, a run could neither be resumed
    nor evaluated until the broken file is deleted by hand, although the last complete checkpoint lies beside it.
    """

    def __init__(self, config: TrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        super().__init__(config, local_rank, world_size)
        if self.device.startswith("cuda"):
            # Triton's kernels and CUDA graphs go to the current device, and nerfstudio's processes all begin with the
            # first one.
            torch.cuda.set_device(self.device)

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Save to a folder beside the checkpoints' one, then move the file; only then are older ones deleted."""
        folder, partial = self.checkpoint_dir, self.base_dir / ".checkpoint-partial"
        shutil.rmtree(partial, ignore_errors=True)
        self.checkpoint_dir = partial
        try:
            super().save_checkpoint(step)
        finally:
            self.checkpoint_dir = folder
        folder.mkdir(parents=True, exist_ok=True)
        (saved,) = partial.iterdir()
        os.replace(saved, folder / saved.name)
        partial.rmdir()
        if self.config.save_only_latest_checkpoint:
            for path in folder.glob("*.ckpt"):
                if path.name != saved.name:
                    path.unlink()
