"""Everything that this package adds to nerfstudio's control panel, and how it changes the viewer's renderings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.model_components import renderers
from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor, nn

from instantavatar_ns.body.bank import PoseBank, PosedBody
from instantavatar_ns.body.canonical import canonical_vertices
from instantavatar_ns.body.model import BodyModel
from instantavatar_ns.body.poses import PoseSequence
from instantavatar_ns.motion.editing import MotionOptions, Root
from instantavatar_ns.motion.run_motion import load_run_motion
from instantavatar_ns.viewer.interruptions import Interruptions
from instantavatar_ns.viewer.joint_sliders import JointSliders, bend, canonical_skeleton, joint_turns
from instantavatar_ns.viewer.motion_controls import FRAME, REST, RUN_MOTION, Clip, MotionControls
from instantavatar_ns.viewer.scene_overlays import CanonicalBody, SceneOverlays, ShownPose

# Metres by which the person's surface is drawn back where overlays lie within the person.
_BEHIND = 1.0
_BANKS = {FRAME: "poses", REST: "rest_pose", RUN_MOTION: "motion"}


class ViewerPose(NamedTuple):
    """A pose that only the viewer shows.

    Attributes:
        bank: One of the model's banks; None for a clip that was loaded in the viewer.
        clip: That clip.
        row: The frame of the bank or the clip.
        angles: Of the joint sliders, degrees; () for none.
    """

    bank: str | None
    clip: Clip | None
    row: int
    angles: tuple[float, ...]


class ViewerControls(nn.Module):
    """The folders of the control panel. Without a viewer nothing here has any effect.

    Args:
        body: The person's body.
        poses: Poses of the data set, in its world.
        world_to_dataset: Rigid transform from nerfstudio's world.
        train_pose_ids: The training frames among the poses.
        run_motion: The motion of the run's configuration, the model's bank "motion".
        posed_body: A row of one of the model's banks.
    """

    def __init__(
        self,
        body: BodyModel,
        poses: PoseSequence,
        world_to_dataset: Tensor,
        train_pose_ids: list[int],
        *,
        run_motion: Clip | None,
        posed_body: Callable[[str, int], PosedBody],
    ) -> None:
        super().__init__()
        self.control = ViewerControl()
        self.interruptions = Interruptions()
        self._poses, self._world_to_dataset, self._train_pose_ids = poses, world_to_dataset, train_pose_ids
        self._posed_body = posed_body
        self._body = (body,)  # in a tuple, so that it is no submodule
        self._skeleton = canonical_skeleton(body, poses.betas)
        # nerfstudio calls the folders of its panel as these attributes.
        self.motion = MotionControls(len(train_pose_ids), run_motion, self._load_clip, self.control)
        self.pose = JointSliders()
        self.scene = SceneOverlays(self._canonical_body(), self.control)

    def set_body(self, body: BodyModel) -> None:
        """Pose and draw a body, on the CPU, whose joints may lie elsewhere than the former one's."""
        self._body, self._skeleton = (body,), canonical_skeleton(body, self._poses.betas)
        self.scene.body = self._canonical_body()

    def _canonical_body(self) -> CanonicalBody:
        (body,), skeleton = self._body, self._skeleton
        vertices, joints = canonical_vertices(body, self._poses.betas), skeleton.frames[:, :3, 3]
        return CanonicalBody(vertices, body.faces, body.skinning_weights, joints, skeleton.parents)

    def asks(self, camera: Cameras) -> bool:
        """Whether the viewer asks for an image.

        Its cameras carry `cam_idx`; so do those of `ns-render --camera-idx`, but then there is no viewer. Cameras that
        name their pose are a data set's.
        """
        metadata = camera.metadata or {}
        return hasattr(self.control, "viewer") and "cam_idx" in metadata and "pose_id" not in metadata

    @staticmethod
    def mend(camera: Cameras) -> None:
        """Give a camera of the viewer at least one pixel, in place.

        nerfstudio's field for the resolution takes zero and less, and its rendering thread would die of that. Reads the
        size on the host, as nerfstudio does after each rendering.
        """
        if int(camera.height) < 1 or int(camera.width) < 1:
            for name in ("height", "width", "fx", "fy", "cx", "cy"):
                getattr(camera, name).fill_(1)

    def choose(self, bank: str, row: int) -> tuple[str, int | ViewerPose]:
        """Bank and row of what the panel shows; `self[row]` where the bank is "viewer_controls".

        Args:
            bank: The bank that nerfstudio's time leads to.
            row: Its row.
        """
        shown, angles = self.motion.shown(), self.pose.angles()
        if shown is not None:
            name, row = shown
            if name not in _BANKS:
                return "viewer_controls", ViewerPose(None, self.motion.clip(name), row, angles)
            bank, row = _BANKS[name], self._train_pose_ids[row] if name == FRAME else row
        return ("viewer_controls", ViewerPose(bank, None, row, angles)) if angles else (bank, row)

    def __getitem__(self, pose: ViewerPose) -> PosedBody:
        if pose.clip is not None:
            body = pose.clip.poses[pose.row]
        else:
            assert pose.bank is not None
            body = self._posed_body(pose.bank, pose.row)
        return bend(body, self._skeleton, joint_turns(pose.angles)) if pose.angles else body

    def render(self, render: Callable[[], dict[str, Tensor]], pose: ShownPose) -> dict[str, Tensor]:
        """The viewer's image, on its background, and the overlays that go with it.

        Args:
            render: Renders the image; may be ended by nerfstudio's interruption, and then nothing is drawn.
            pose: What the image shows.
        """
        start = monotonic()
        # A cropped view has a background of its own, in nerfstudio's panel.
        cropped = renderers.BACKGROUND_COLOR_OVERRIDE is not None
        background = self.scene.background(pose.body.world_to_root.device)
        with nullcontext() if cropped else renderers.background_color_override_context(background):
            outputs = render()
        self.scene.draw(pose)
        if self.scene.in_front:
            outputs["depth"] = outputs["depth"] + _BEHIND
        trainer = self.control.viewer.trainer
        if trainer is not None and trainer.training_state == "training":
            # While it plays, training has the device for as long as a rendering takes.
            self.motion.leave_time(monotonic() - start)
        return outputs

    def _load_clip(self, path: Path, root: Root) -> Clip:
        """Read a motion, and let it start where the person stands in the first training frame."""
        first = self._train_pose_ids[0]
        stand, up = self._poses.rows(slice(first, first + 1)), self._world_to_dataset[:3, 2]
        motion = load_run_motion(path, MotionOptions(root=root), stand, up)
        bank = PoseBank(self._body[0], motion, self._world_to_dataset)
        return Clip(bank.to(self._posed_body("rest_pose", 0).world_to_root.device), motion.fps)
