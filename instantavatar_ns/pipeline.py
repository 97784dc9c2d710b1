"""nerfstudio's pipeline, made ready for training by one call, and with the metrics of every evaluated frame."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal, cast

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from torch import Tensor
from torch.cuda.amp.grad_scaler import GradScaler

from instantavatar_ns.check.diagnosis import Diagnosis
from instantavatar_ns.check.guard import CheckMode, check_dataset, diagnose_frames, judge
from instantavatar_ns.data.datamanager import AvatarDataManager, AvatarDataManagerConfig
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.metrics import noting_image_metrics
from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.model_config import InstantAvatarModelConfig
from instantavatar_ns.training.alignment import align_poses
from instantavatar_ns.training.captured_step import ParameterUpdate, TrainingStep
from instantavatar_ns.training.checkpoints import check_fit
from instantavatar_ns.training.coverage import observe_coverage, telling_seen_from_unseen, without_nan
from instantavatar_ns.training.fitting import RECIPES, FitRecipe, fit_poses
from instantavatar_ns.training.processes import GradientExchange, share_occupancy, share_state
from instantavatar_ns.training.unseen_views import take_unseen_views
from instantavatar_ns.training.warm_up import compiling_kernels
from instantavatar_ns.utils.background import begin
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.options import Advanced


@dataclass
class AvatarPipelineConfig(VanillaPipelineConfig):
    """Configuration of the AvatarPipeline."""

    _target: type = field(default_factory=lambda: AvatarPipeline)
    """Class to instantiate."""
    datamanager: AvatarDataManagerConfig = field(default_factory=AvatarDataManagerConfig)
    """Frames and how rays are drawn from them."""
    model: InstantAvatarModelConfig = field(default_factory=InstantAvatarModelConfig)
    """The avatar."""
    fit_poses: Advanced[Literal["off", "published", "fast"]] = "off"
    """Fit the poses of evaluated frames to their images, for figures that ns-eval adds as `<metric>_fitted`: by the
    recipe of the published tables, or a faster one that moves them farther."""
    check_data: CheckMode = "stop"
    """Reaction where the posed body does not lie in the masks: stop, warn, or no check."""


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
        """Read the frames and build the model; for a training the check of the data begins as soon as frames are read.

        Args:
            config: Options of data, model and check.
            device: Where to train or render.
            test_mode: What nerfstudio calls it for: "val" by its trainer, the others by commands that look at a run.
            world_size: Number of processes.
            local_rank: Which of the machine's processes this is.
            grad_scaler: That of mixed precision.

        Raises:
            InputError: The data cannot be used, or several processes are to train with mixed precision.
        """
        # Not nerfstudio's own constructor: that would begin with the model when all frames are read, and let it average
        # the gradients of several processes before its poses are aligned.
        super(VanillaPipeline, self).__init__()
        self.config, self.test_mode, self.world_size = config, test_mode, world_size
        self.datamanager = config.datamanager.setup(
            device=device, test_mode=test_mode, world_size=world_size, local_rank=local_rank
        )
        self.datamanager.to(device)
        # Begun here, since nobody else comes between frames and model. `prepare_training` asks for the result, or
        # makes a check where none has begun: a wrong guess costs time alone.
        is_for_training = test_mode == "val"
        is_checked = is_for_training and config.check_data != "off"
        self._begun_diagnosis = begin(self._diagnose, device) if is_checked else None
        dataset = self._data.train_dataset
        self._model = config.model.setup(
            scene_box=dataset.scene_box,
            num_train_data=len(dataset),
            metadata=dataset.metadata,
            device=device,
            grad_scaler=grad_scaler,
        )
        self.model.to(device)
        if test_mode != "inference":  # then none are read
            _ = self._data.train_frames  # whether they can be used is known before anything else is done
        # A gradient scaler multiplies losses by what varies.
        self._scales_gradients = grad_scaler is not None and grad_scaler.is_enabled()
        if self._scales_gradients and world_size > 1:
            found = (
                f"expected full precision where {world_size} processes train together, found gradients that are scaled"
            )
            raise InputError(
                "--mixed-precision", found, "Leave the option out; the field's networks have half precision"
            )
        self._own_step: TrainingStep | None = None

    @property
    def _avatar(self) -> InstantAvatarModel:
        """The model, by its own type."""
        return cast(InstantAvatarModel, self.model)

    @property
    def _data(self) -> AvatarDataManager:
        """The data manager, by its own type."""
        return cast(AvatarDataManager, self.datamanager)

    # Training

    def prepare_training(self, *, resumed: bool) -> None:
        """Check the data and align the poses while kernels are compiled; called once, right before the first step.

        Args:
            resumed: A checkpoint was loaded: its corrections are there already.

        Raises:
            InputError: The posed body does not lie where the masks are, and `check_data` is "stop".
        """
        model, frames = self._avatar, self._data.train_frames
        wants_kernels = model.renderer.supports_cuda_graphs
        with compiling_kernels(model) if wants_kernels else nullcontext():
            self._check_data()
            if not resumed:
                align_poses(model, frames.images.masks(), frames.cameras)
            observe_coverage(model, frames.cameras)
            take_unseen_views(model)
        if self.world_size > 1:
            share_state(model)
            self._own_step = TrainingStep(model, GradientExchange(model), captures=wants_kernels)
        elif wants_kernels and not self._scales_gradients:
            self._own_step = TrainingStep(model)

    def _check_data(self) -> None:
        if self.config.check_data != "off":
            diagnosis = self._begun_diagnosis.result() if self._begun_diagnosis else self._diagnose()
            way_on = "To train all the same, give --pipeline.check-data warn"
            judge(self._data.data_folder, diagnosis, self._data.train_dataset, self.config.check_data, way_on)

    def _diagnose(self) -> Diagnosis:
        frames = self._data.train_frames
        return diagnose_frames(frames.images.masks(), frames.cameras, self._data.train_dataset)

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Callbacks of data and model; several processes share the occupancy whenever it has been refreshed."""
        callbacks = super().get_training_callbacks(training_callback_attributes)
        if self.world_size > 1:
            share = TrainingCallback(
                [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION],
                lambda step: share_occupancy(self._avatar),
                update_every_num_iters=self.config.model.occupancy_interval,
            )
            callbacks.append(share)
        return callbacks

    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        """Load a checkpoint.

        Raises:
            InputError: It is that of other frames, of another body or of other options.
        """
        prefix = "_model."
        state = {name[len(prefix) :]: value for name, value in loaded_state.items() if name.startswith(prefix)}
        check_fit(self.config.datamanager.data, self.model.state_dict(), state)
        super().load_pipeline(loaded_state, step)

    def get_train_loss_dict(self, step: int):
        """Losses of a step, by a CUDA graph of its kernels where they can be captured."""
        if self._own_step is None:
            return super().get_train_loss_dict(step)
        return self._own_step(*self._data.next_train(step))

    @property
    def trains_itself(self) -> bool:
        """Return True if `train_step` may be called: by one process where steps are captured, by several always."""
        return self._own_step is not None

    def train_step(self, step: int, update: ParameterUpdate) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Do a whole training step; return the sum of the losses, the losses, and metrics.

        Args:
            step: Number of the step.
            update: Steps of the optimizers.
        """
        assert self._own_step is not None
        total, result = self._own_step.train(*self._data.next_train(step), update)
        return total, result.losses, result.metrics

    # Evaluation

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ):
        """Averages over the evaluation images; with `get_std`, as `ns-eval` asks, each image's metrics too.

        Raises:
            InputError: `ns-eval` asks, the posed body does not lie where the masks are, and `check_data` is "stop".
        """
        if not get_std:  # during training the averages go to a writer of scalars
            return super().get_average_eval_image_metrics(step, output_path, get_std)
        way_on = "To evaluate all the same, give instant-avatar evaluate --check-data warn"
        check_dataset(self._data.eval_folder, self._eval_dataset, self.config.check_data, way_on)
        metrics, frames = self._image_metrics(step, output_path)
        if self.config.fit_poses != "off":
            folder = output_path / "fitted" if output_path else None
            fitted, fitted_frames = self._fitted_metrics(RECIPES[self.config.fit_poses], step, folder)
            metrics.update(fitted)
            for values, more in zip(frames, fitted_frames, strict=True):
                values.update({f"{key}_fitted": value for key, value in more.items()})
        names = [path.name for path in self._eval_dataset.image_filenames]
        metrics["frames"] = [{"image": name, **values} for name, values in zip(names, frames, strict=True)]
        return metrics

    @property
    def _eval_dataset(self) -> AvatarDataset:
        return cast(AvatarDataset, self.datamanager.eval_dataset)

    def _image_metrics(self, step: int | None, output_path: Path | None) -> tuple[dict[str, Any], list[dict]]:
        """nerfstudio's averages over the evaluation images and their deviations, and each image's metrics."""
        with telling_seen_from_unseen(self._avatar), noting_image_metrics(self.model, output_path) as frames:
            metrics = super().get_average_eval_image_metrics(step, get_std=True)
        without_nan(metrics, frames)
        return metrics, frames

    def _fitted_metrics(
        self, recipe: FitRecipe, step: int | None, output_path: Path | None
    ) -> tuple[dict[str, float], list[dict]]:
        """Averages and each frame's metrics in poses that are fitted to the images."""
        start = monotonic()
        poses = fit_poses(self._avatar, self._eval_dataset, self.config.datamanager, recipe)
        result = {"fit_seconds": monotonic() - start}
        with self._avatar.poses.replacing(poses):
            metrics, frames = self._image_metrics(step, output_path)
        for key in dict.fromkeys(key for values in frames for key in values):
            result[f"{key}_fitted"], result[f"{key}_fitted_std"] = metrics[key], metrics[f"{key}_std"]
        return result, frames
