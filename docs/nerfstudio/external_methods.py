"""Entry of this package in nerfstudio's `nerfstudio/configs/external_methods.py`, where it goes without the import."""

from nerfstudio.configs.external_methods import ExternalMethod, external_methods

# InstantAvatar
external_methods.append(
    ExternalMethod(
        """[bold yellow]InstantAvatar[/bold yellow]
For more information visit: https://docs.nerf.studio/nerfology/methods/instant_avatar.html

To enable InstantAvatar, you must install it first by running:
  [grey]pip install git+https://github.com/instantavatar-ns/instantavatar_ns[/grey]""",
        configurations=[
            ("instant-avatar", "InstantAvatar: an animatable avatar from one video, in seconds on a GPU."),
            ("instant-avatar-lite", "InstantAvatar with a small field and few rays, for CPUs and small GPUs."),
            (
                "instant-avatar-wild",
                "InstantAvatar for videos in the wild: small steps, a perceptual loss, poses corrected from the start.",
            ),
        ],
        pip_package="git+https://github.com/instantavatar-ns/instantavatar_ns",
    )
)
