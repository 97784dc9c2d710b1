"""Everything that this package adds to nerfstudio's control panel, and how it changes the viewer's renderings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import monotonic
from weakref import WeakKeyDictionary

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.model_components import renderers
from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor, nn

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.motion.editing import MotionOptions, Root
from instantavatar_ns.motion.motion import Motion
from instantavatar_ns.motion.run_motion import load_run_motion
from instantavatar_ns.occupancy.cells import OccupiedCells
from instantavatar_ns.rendering.poses import PoseProvider
from instantavatar_ns.viewer.interruptions import Interruptions
from instantavatar_ns.viewer.joint_sliders import JointSliders, bend, joint_turns
from instantavatar_ns.viewer.motion_controls import FRAME, REST, RUN_MOTION, MotionControls
from instantavatar_ns.viewer.scene_overlays import CanonicalBody, SceneOverlays

# Metres by which the person's surface is drawn back where overlays lie within the person.
_BEHIND = 1.0


class ViewerControls(nn.Module):
    """The folders of the control panel. Without a viewer nothing here has any effect.

    Args:
        poses: The person's poses.
    """

    def __init__(self, poses: PoseProvider) -> None:
        super().__init__()
        self.control = ViewerControl()
        self.interruptions = Interruptions()
        self._poses = poses
        self._canonical: CanonicalBody | None = None
        # Motions that were loaded in the viewer, posed.
        self._loaded: WeakKeyDictionary[Motion, PosedBody] = WeakKeyDictionary()
        # nerfstudio calls the folders of its panel as these attributes.
        self.motion = MotionControls(poses.subject.num_train, poses.motion, self._load_motion, self.control)
        self.pose = JointSliders()
        self.scene = SceneOverlays(self.control)

    def asks(self, camera: Cameras) -> bool:
        """Whether the viewer asks for an image.

        Its cameras carry `cam_idx`; so do those of `ns-render --camera-idx`, but then there is no viewer. Cameras that
        name their pose are a data set's.
        """
        metadata = camera.metadata or {}
        return hasattr(self.control, "viewer") and "cam_idx" in metadata and "pose_id" not in metadata

    @staticmethod
    def give_size(camera: Cameras) -> None:
        """Give a camera of the viewer at least one pixel, in place.

        nerfstudio's field for the resolution takes zero and less, and its rendering thread would die of that. Reads the
        size on the host, as nerfstudio does after each rendering.
        """
        if int(camera.height) < 1 or int(camera.width) < 1:
            for name in ("height", "width", "fx", "fy", "cx", "cy"):
                getattr(camera, name).fill_(1)

    def shown_pose(self, of_time: Callable[[], PosedBody]) -> PosedBody:
        """Return the pose that the panel shows; see `PoseProvider.seen_by`.

        Args:
            of_time: Gives the pose that nerfstudio's time leads to.
        """
        shown, angles = self.motion.shown(), self.pose.angles()
        body = of_time() if shown is None else self._chosen(*shown)
        if not angles:
            return body
        return self._poses.kept((body, angles), lambda: bend(body, self._person().skeleton, joint_turns(angles)))

    def _chosen(self, name: str, row: int) -> PosedBody:
        if name == FRAME:
            return self._poses.frame(row)
        if name == REST:
            return self._poses.rest
        if name == RUN_MOTION:
            return self._poses.motion_frame(row)
        motion = self.motion.named(name)
        return self._poses.kept((motion, row), lambda: self._loaded[motion][row])

    def _person(self) -> CanonicalBody:
        """The body, made anew when its joints have been moved."""
        if self._canonical is None or self._canonical.body is not self._poses.body:
            self._canonical = CanonicalBody.of(self._poses.body, self._poses.subject.poses.betas)
        return self._canonical

    def render(
        self,
        render: Callable[[], dict[str, Tensor]],
        body: PosedBody,
        cells: Callable[[], OccupiedCells],
        union: OccupiedCells,
    ) -> dict[str, Tensor]:
        """The viewer's image, on its background, and the overlays that go with it.

        Args:
            render: Renders the image; may be ended by nerfstudio's interruption, and then nothing is drawn.
            body: The pose that the image shows; another object whenever anything has changed.
            cells: Gives its occupied cells, in root space; preparing them takes a while.
            union: The occupied cells of all training poses, in root space.
        """
        start = monotonic()
        # A cropped view has a background of its own, in nerfstudio's panel.
        cropped = renderers.BACKGROUND_COLOR_OVERRIDE is not None
        background = self.scene.background(body.world_to_root.device)
        with nullcontext() if cropped else renderers.background_color_override_context(background):
            outputs = render()
        self.scene.draw(self._person(), body, cells, union)
        if self.scene.in_front:
            outputs["depth"] = outputs["depth"] + _BEHIND
        trainer = self.control.viewer.trainer
        if trainer is not None and trainer.training_state == "training":
            # While it plays, training has the device for as long as a rendering takes.
            self.motion.leave_time(monotonic() - start)
        return outputs

    def _load_motion(self, path: Path, root: Root) -> Motion:
        """Read a motion, and let it start where the person stands in the first training frame."""
        subject = self._poses.subject
        motion = load_run_motion(path, MotionOptions(root=root), subject.stand, subject.up)
        self._loaded[motion] = self._poses.posed(motion)
        return motion
