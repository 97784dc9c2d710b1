"""The methods that `ns-train` offers."""

from __future__ import annotations

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.plugins.types import MethodSpecification

from instantavatar_ns.data.datamanager import AvatarDataManagerConfig
from instantavatar_ns.data.instantavatar_dataparser import InstantAvatarDataParserConfig
from instantavatar_ns.deformer.skinning_grid import SkinningSettings
from instantavatar_ns.importing import motions as _tool_motions  # noqa: F401  # lets a run's motion be a pose estimator's result
from instantavatar_ns.model_config import InstantAvatarModelConfig
from instantavatar_ns.optimizers import FusedAdamConfig, PolynomialDecayConfig, RowAdamConfig
from instantavatar_ns.pipeline import AvatarPipelineConfig
from instantavatar_ns.trainer import AvatarTrainerConfig


def _trainer_config(
    method_name: str,
    steps: int,
    datamanager: AvatarDataManagerConfig,
    model: InstantAvatarModelConfig,
    learning_rate: float = 6e-3,
    poses: RowAdamConfig | None = None,
):
    if poses is None:
        # What the figures of benchmarks/results/poses.json are made with, on a GPU. RowAdamConfig's own numbers
        # are better where the two were compared, which is on CPUs, with `instant-avatar-lite`.
        poses = RowAdamConfig(lr=5e-4, eps=5e-2)
    return AvatarTrainerConfig(
        method_name=method_name,
        max_num_iterations=steps,
        steps_per_save=500 if steps < 1000 else 1000,  # a GPU makes 1000 in two seconds, a CPU 500 in a minute
        steps_per_eval_batch=0,
        steps_per_eval_image=0,
        steps_per_eval_all_images=0,
        # The gradient scaler blocks the host twice a step; half precision happens inside the field.
        mixed_precision=False,
        pipeline=AvatarPipelineConfig(datamanager=datamanager, model=model),
        optimizers={
            "field": {
                "optimizer": FusedAdamConfig(lr=learning_rate),
                "scheduler": PolynomialDecayConfig(max_steps=steps),
            },
            "poses": {
                "optimizer": poses,
                "scheduler": PolynomialDecayConfig(max_steps=steps),
            },
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 16),
        vis="viewer",
    )


instant_avatar = MethodSpecification(
    config=_trainer_config(
        "instant-avatar",
        3000,
        AvatarDataManagerConfig(dataparser=InstantAvatarDataParserConfig(), late_rays_mult=2),
        InstantAvatarModelConfig(),
    ),
    description="InstantAvatar: an animatable avatar from one video, in seconds on a GPU.",
)

instant_avatar_lite = MethodSpecification(
    config=_trainer_config(
        "instant-avatar-lite",
        800,
        AvatarDataManagerConfig(
            dataparser=InstantAvatarDataParserConfig(),
            train_num_rays_per_batch=1024,
            eval_num_rays_per_batch=1024,
            sampling="pixels",
            # Few steps see few empty pixels; what they do not see stays as specks around the person.
            pixel_shares=(0.3, 0.3, 0.4),
        ),
        InstantAvatarModelConfig(
            eval_num_rays_per_chunk=1 << 13,
            hash_levels=12,
            log2_hash_entries=16,
            hidden_width=32,
            skinning_resolution=(64, 64, 16),
            skinning=SkinningSettings(smoothing_passes=1),  # its voxels are twice as large
            step_size=2 / 128,
            density_noise_steps=300,
            empty_steps=150,
            pose_start=150,
            unseen_color_start=400,
        ),
        # Few steps have to get there.
        learning_rate=1e-2,
        poses=RowAdamConfig(),
    ),
    description="InstantAvatar with a small field and few rays, for CPUs and small GPUs.",
)

instant_avatar_wild = MethodSpecification(
    config=_trainer_config(
        "instant-avatar-wild",
        4000,
        AvatarDataManagerConfig(dataparser=InstantAvatarDataParserConfig(), mask_dilation=1 / 64),
        InstantAvatarModelConfig(
            lpips_loss_mult=0.01,
            depth_loss_mult=0.01,
            # Seen from few sides, a person has room to grow where no camera looks; the body says where not to.
            occupancy_start="body",
            occupancy_warmup=500,
            pose_start=0,
            unseen_color_start=2000,
        ),
        learning_rate=1e-3,
    ),
    description="InstantAvatar for videos in the wild: small steps, a perceptual loss, poses corrected from the start.",
)
