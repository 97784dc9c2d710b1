"""nerfstudio's pipeline, with the metrics of every frame beside their averages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal, cast

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.models.base_model import Model
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from torch.cuda.amp.grad_scaler import GradScaler

from instantavatar_ns.check.guard import CheckMode, check_dataset, check_frames
from instantavatar_ns.data.datamanager import AvatarDataManager, AvatarDataManagerConfig
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.model_config import InstantAvatarModelConfig
from instantavatar_ns.training.captured_step import TrainingStep
from instantavatar_ns.training.checkpoints import check_fit
from instantavatar_ns.training.fitting import RECIPES, FitRecipe, fit_poses
from instantavatar_ns.training.processes import averaging_gradients, share_occupancy, share_state
from instantavatar_ns.training.warm_up import compile_kernels


@dataclass
class AvatarPipelineConfig(VanillaPipelineConfig):
    """Configuration of the AvatarPipeline."""

    _target: type = field(default_factory=lambda: AvatarPipeline)
    """Class to instantiate."""
    datamanager: AvatarDataManagerConfig = field(default_factory=AvatarDataManagerConfig)
    """Frames and how rays are drawn from them."""
    model: InstantAvatarModelConfig = field(default_factory=InstantAvatarModelConfig)
    """The avatar."""
    fit_poses: Literal["off", "published", "fast"] = "off"
    """Fit the poses of evaluated frames to their images, for figures that ns-eval adds as `<metric>_fitted`: by the
    recipe of the published tables, or a faster one that moves them farther."""
    check_data: CheckMode = "stop"
    """Compare the posed body with the masks before training and evaluation: stop where they do not fit, warn only, or
    leave it out."""
    record_steps: bool = True
    """Record training steps, and with them images, as CUDA graphs, where the model's kernels can be recorded."""


class AvatarPipeline(VanillaPipeline):
    """A `VanillaPipeline` whose `ns-eval` writes a list `frames` next to the averages, and figures of fitted poses."""

    config: AvatarPipelineConfig

    def __init__(
        self,
        config: AvatarPipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: GradScaler | None = None,
    ) -> None:
        # As one process: nerfstudio would let the model average gradients before its poses are aligned.
        super().__init__(config, device, test_mode, 1, local_rank, grad_scaler)
        self.world_size = cast(AvatarDataManager, self.datamanager).world_size = world_size
        # Several processes exchange gradients in hooks, and a gradient scaler multiplies losses by what varies.
        scaled = grad_scaler is not None and grad_scaler.is_enabled()
        self._may_record = config.record_steps and world_size == 1 and not scaled
        self._training_step: TrainingStep | None = None
        model = cast(InstantAvatarModel, self.model)
        model.may_record = config.record_steps
        if self.test_mode != "val":  # what ns-train asks for
            return
        datamanager = cast(AvatarDataManager, self.datamanager)
        frames, dataset = datamanager.train_frames, datamanager.train_dataset
        way_on = "To train all the same, give --pipeline.check-data warn"
        masks = frames.images[..., 3]
        check_frames(datamanager.data_folder, masks, frames.cameras, dataset, config.check_data, way_on)
        model.align_poses(masks, frames.cameras)
        model.observe(frames.cameras)
        if model.supports_cuda_graphs:
            compile_kernels(model)
        if world_size > 1:
            share_state(model)
            self._model = cast(Model, averaging_gradients(model))

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Callbacks of data and model; several processes share the occupancy whenever it has been refreshed."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        if self.world_size > 1:
            share = TrainingCallback(
                [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION],
                lambda step: share_occupancy(cast(InstantAvatarModel, self.model)),
                update_every_num_iters=self.config.model.occupancy_interval,
            )
            callbacks.append(share)
        return callbacks

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint.

        Raises:
            InputError: It is that of other frames, of another body or of other options.
        """
        prefixes = ("_model.module.", "_model.")  # several processes, or one
        names = {name: next((p for p in prefixes if name.startswith(p)), "") for name in loaded_state}
        state = {name.removeprefix(prefix): loaded_state[name] for name, prefix in names.items() if prefix}
        check_fit(self.config.datamanager.data, self.model.state_dict(), state)
        super().load_pipeline(loaded_state, step)

    def get_train_loss_dict(self, step: int):
        """Losses of a step, by a recording of its kernels where one can be made."""
        model = cast(InstantAvatarModel, self.model)
        if not (self._may_record and model.supports_cuda_graphs):
            return super().get_train_loss_dict(step)
        if self._training_step is None:
            self._training_step = TrainingStep(model)
        return self._training_step(*cast(AvatarDataManager, self.datamanager).next_train(step))

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ):
        """Averages over the evaluation images; with `get_std`, as `ns-eval` asks, each image's metrics too."""
        model = cast(InstantAvatarModel, self.model)
        if get_std:
            way_on = "To evaluate all the same, give instant-avatar evaluate --check-data warn"
            folder = cast(AvatarDataManager, self.datamanager).eval_folder
            check_dataset(folder, self._eval_dataset, self.config.check_data, way_on)
        with model.logging_image_metrics() as frames:
            metrics = super().get_average_eval_image_metrics(step, output_path, get_std)
        if not get_std:  # during training the averages go to a writer of scalars
            return metrics
        recipe = self.config.fit_poses
        if recipe != "off":
            folder = output_path / "fitted" if output_path else None
            fitted, fitted_frames = self._fitted_metrics(RECIPES[recipe], step, folder)
            metrics.update(fitted)
            for values, more in zip(frames, fitted_frames, strict=True):
                values.update({f"{key}_fitted": value for key, value in more.items()})
        names = [path.name for path in self._eval_dataset.image_filenames]
        metrics["frames"] = [{"image": name, **values} for name, values in zip(names, frames, strict=True)]
        return metrics

    @property
    def _eval_dataset(self) -> AvatarDataset:
        return cast(AvatarDataset, self.datamanager.eval_dataset)

    def _fitted_metrics(
        self, recipe: FitRecipe, step: int | None, output_path: Path | None
    ) -> tuple[dict[str, float], list[dict[str, float]]]:
        """Averages and each frame's metrics in poses that are fitted to the images."""
        model, start = cast(InstantAvatarModel, self.model), monotonic()
        poses = fit_poses(model, self._eval_dataset, self.config.datamanager, recipe)
        result = {"fit_seconds": monotonic() - start}
        with model.image_poses.replacing(poses), model.logging_image_metrics() as frames:
            metrics = super().get_average_eval_image_metrics(step, output_path, get_std=True)
        for key in frames[0]:
            result[f"{key}_fitted"], result[f"{key}_fitted_std"] = metrics[key], metrics[f"{key}_std"]
        return result, frames
