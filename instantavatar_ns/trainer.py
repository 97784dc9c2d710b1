"""nerfstudio's trainer, with checkpoints that a kill cannot spoil, and that are checked before it goes on from them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, cast

import torch
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils import writer
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from instantavatar_ns.model_config import InstantAvatarModelConfig
from instantavatar_ns.pipeline import AvatarPipeline
from instantavatar_ns.training.captured_step import ParameterUpdate
from instantavatar_ns.training.checkpoints import check_options, checkpoint_to_resume
from instantavatar_ns.training.run_config import load_run_config
from instantavatar_ns.training.step_progress import write_out_storage
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import move_into_place
from instantavatar_ns.utils.memory import lack_of_memory_explained
from instantavatar_ns.utils.replaced import replaced

_OTHER_CONFIG = (
    "Put the run's config.yml back as ns-train wrote it, or take it away: then options are not compared with "
    "those of the checkpoint's run"
)
_LARGE_RATE = 0.01  # learning rate of the field where there are few steps


@dataclass
class AvatarTrainerConfig(TrainerConfig):
    """Configuration of the AvatarTrainer."""

    _target: type = field(default_factory=lambda: AvatarTrainer)
    """Class to instantiate."""
    vis: Literal[
        "none",
        "viewer",
        "wandb",
        "tensorboard",
        "comet",
        "viewer+wandb",
        "viewer+tensorboard",
        "viewer+comet",
        "viewer_legacy",
    ] = "viewer"
    """Where training is shown and logged; "none": nowhere but on the terminal."""

    def save_config(self) -> None:
        """Save to the run's folder, unless training cannot go on from the checkpoint: then nothing is written.

        Raises:
            InputError: There is no such checkpoint, or it is of a run of other sizes, or no step is asked for.
        """
        found = checkpoint_to_resume(self)
        if self.max_num_iterations < 1:
            message = f"expected at least one step, found {self.max_num_iterations}"
            if found is not None:
                message += f", to go on from the checkpoint of step {found[1]['step']}"
            advice = "Give the number of steps still to go; those of earlier runs do not count"
            raise InputError("--max-num-iterations", message, advice)
        if found is not None:
            path, _ = found
            of_run = path.absolute().parent.parent / "config.yml"
            # Checkpoints may have been copied elsewhere, without it.
            if path.absolute().parent.name == self.relative_model_dir.name and of_run.is_file():
                check_options(path, load_run_config(of_run, _OTHER_CONFIG).pipeline.model, self.pipeline.model)
        super().save_config()


def few_steps(config: TrainerConfig, end: int) -> list[str]:
    """Options for a training of a few hundred steps.

    Few steps have to be large ones, of all rays from the first on, and densities may be noisy for most of them
    (docs/performance.md).

    Args:
        config: That of the training.
        end: Step at which it ends.
    """
    model = "--pipeline.model."
    options = [f"{model}density-noise-steps", str(2 * end // 3), f"{model}empty-steps", str(end // 3)]
    options += [f"{model}pose-start", str(end // 6)]
    options += [word for name in config.optimizers for word in (f"--optimizers.{name}.scheduler.max-steps", str(end))]
    if config.optimizers["field"]["optimizer"].lr < _LARGE_RATE:
        options += ["--optimizers.field.optimizer.lr", str(_LARGE_RATE)]
    if getattr(config.pipeline.datamanager, "late_rays_mult", 1) > 1:
        options += ["--pipeline.datamanager.late-rays-start", "0"]
    if hasattr(config.pipeline.datamanager, "surroundings_end"):
        options += ["--pipeline.datamanager.surroundings-end", str(end // 2)]
    return options


class AvatarTrainer(Trainer):
    """A `Trainer` whose checkpoints appear under their names only when they are complete.

    nerfstudio writes in place and loads the newest file there is: killed while it saves, a run could neither be resumed
    nor evaluated until the broken file is deleted by hand, although the last complete checkpoint lies beside it.
    """

    def __init__(self, config: TrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        if config.machine.device_type == "cuda" and not torch.cuda.is_available():
            raise InputError(
                "--machine.device-type cuda",
                "expected an NVIDIA GPU, and PyTorch finds none",
                "Without a GPU, train instant-avatar-lite with --machine.device-type cpu",
            )
        super().__init__(config, local_rank, world_size)
        if self.device.startswith("cuda"):
            # Triton's kernels and CUDA graphs go to the current device, and nerfstudio's processes all begin with the
            # first one.
            torch.cuda.set_device(self.device)

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Set everything up, load the checkpoint that the options ask for, and make ready for the first step.

        Raises:
            InputError: The checkpoint or the data cannot be used, or memory does not suffice.
        """
        with lack_of_memory_explained(self.device):
            super().setup(test_mode)
            resumed = self.config.load_dir is not None or self.config.load_checkpoint is not None
            with self.train_lock:  # a browser may have asked the viewer for an image already
                cast(AvatarPipeline, self.pipeline).prepare_training(resumed=resumed)
        self._tell_if_short()

    def _tell_if_short(self) -> None:
        """Say so where training ends while densities are still noisy: nobody would be seen clearly."""
        end, model = self._start_step + self.config.max_num_iterations, self.config.pipeline.model
        if isinstance(model, InstantAvatarModelConfig) and end <= model.density_noise_steps:
            options = " ".join(few_steps(self.config, end))
            CONSOLE.log(
                f"[yellow]Training ends at step {end}, but densities are noisy until step {model.density_noise_steps}, "
                f"so the avatar will be blurred. Train for more steps, or give {options}.[/yellow]"
            )

    def train(self) -> None:
        """Train.

        Raises:
            InputError: Memory does not suffice.
        """
        with lack_of_memory_explained(self.device), replaced(writer, "write_out_storage", write_out_storage):
            super().train()

    def train_iteration(self, step: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Do a training step: nerfstudio's, or the same by the pipeline's own, where nothing else happens within it."""
        pipeline = cast(AvatarPipeline, self.pipeline)
        if not (pipeline.trains_itself and self._updates_at_once):
            return super().train_iteration(step)
        result = pipeline.train_step(step, self._update)
        self.optimizers.scheduler_step_all(step)
        return result

    @cached_property
    def _updates_at_once(self) -> bool:
        """Return True if each step updates all parameters by its own gradients, which nobody else looks at."""
        sums = any(self.gradient_accumulation_steps[name] != 1 for name in self.optimizers.parameters)
        clips = any(self.optimizers.config[name]["optimizer"].max_norm for name in self.optimizers.parameters)
        return not (sums or clips or self.config.log_gradients or self.grad_scaler.is_enabled())

    @cached_property
    def _update(self) -> ParameterUpdate:
        return ParameterUpdate([*self.optimizers.optimizers.values()], torch.device(self.device))

    def _load_checkpoint(self) -> None:
        """Go on from the checkpoint that the options ask for, if any."""
        found = checkpoint_to_resume(self.config)
        if found is None:
            super()._load_checkpoint()  # says so
            return
        path, content = found
        self._start_step = content["step"] + 1
        self.pipeline.load_pipeline(content["pipeline"], content["step"])
        self.optimizers.load_optimizers(content["optimizers"])
        if "schedulers" in content and self.config.load_scheduler:
            self.optimizers.load_schedulers(content["schedulers"])
        self.grad_scaler.load_state_dict(content["scalers"])
        CONSOLE.print(f"Done loading Nerfstudio checkpoint from {path}")
        if self.optimizers.optimizers["field"].param_groups[0]["lr"] == 0:
            wanted = self._start_step + self.config.max_num_iterations
            CONSOLE.log(
                "[yellow]The learning rate has reached zero: nothing more is learnt. Give "
                f"--optimizers.field.scheduler.max-steps {wanted}, and the same for poses.[/yellow]"
            )

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
        (saved,) = partial.iterdir()
        move_into_place(saved, folder / saved.name)
        partial.rmdir()
        if self.config.save_only_latest_checkpoint:
            for path in folder.glob("*.ckpt"):
                if path.name != saved.name:
                    path.unlink()
