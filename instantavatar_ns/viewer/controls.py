"""Everything that this package adds to nerfstudio's control panel, and how it changes the viewer's renderings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import monotonic
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.model_components import renderers
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl
from torch import Tensor, nn
from viser import GuiEvent

from instantavatar_ns.body.posed import PosedBody
from instantavatar_ns.motion.editing import DEFAULT_OPTIONS, MotionOptions, Root
from instantavatar_ns.motion.motion import Motion
from instantavatar_ns.motion.run_motion import load_run_motion
from instantavatar_ns.occupancy.cells import OccupiedCells
from instantavatar_ns.rendering.poses import PoseProvider
from instantavatar_ns.viewer.commands import ExportCommands, FilmCommands, Shown
from instantavatar_ns.viewer.folder import Button, Buttons, finite
from instantavatar_ns.viewer.image_thread import check_outdated, timed_image
from instantavatar_ns.viewer.joint_sliders import JointSliders, bend, joint_turns
from instantavatar_ns.viewer.motion_controls import FRAME, REST, RUN_MOTION, MotionControls
from instantavatar_ns.viewer.opening_view import Side, direction, look_at_person
from instantavatar_ns.viewer.scene_overlays import CanonicalBody, SceneOverlays, posed_vertices, to_scene

# Metres by which the person's surface is drawn back where overlays lie within the person.
_BEHIND = 1.0


class Panel(ViewerControl):
    """Takes over nerfstudio's viewer, and puts the folders between the step and nerfstudio's tabs."""

    def __init__(self, controls: ViewerControls) -> None:
        self._controls = controls

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)
        from instantavatar_ns.viewer.avatar_viewer import AvatarViewer  # a class of the viewer, which is there by now

        AvatarViewer.take_over(viewer)
        controls = self._controls
        folders = (controls.motion, controls.pose, controls.scene, controls.film, controls.export)
        for number, folder in enumerate(folders, 1):
            folder.install(viewer, viewer.stats_markdown.order + number / (len(folders) + 1))


class ViewerControls(nn.Module):
    """The folders of the control panel. Without a viewer nothing here has any effect.

    Args:
        poses: The person's poses.
        unseen: Gives how little the training views show each vertex; see `SceneOverlays`.
    """

    def __init__(
        self, poses: PoseProvider, unseen: Callable[[], Float[Tensor, "vertices"] | None] = lambda: None
    ) -> None:
        super().__init__()
        self.control = Panel(self)
        self._poses = poses
        self._body: PosedBody | None = None  # of the last image
        self._canonical: CanonicalBody | None = None
        # Motions that were loaded in the viewer, posed.
        self._loaded: WeakKeyDictionary[Motion, PosedBody] = WeakKeyDictionary()
        look = (
            Buttons("Look from", ["Front", "Side", "Back"], cb_hook=self._look_from),
            Button("Whole person", cb_hook=self._look_at_all, hint="Move back, or nearer, until all of it is seen"),
        )
        num_train = poses.subject.num_train
        self.motion = MotionControls(num_train, poses.motion, self._load_motion, self.control, look)
        self.pose = JointSliders()
        self.scene = SceneOverlays(self.control, unseen)
        self.film = FilmCommands(self.control, self._on_screen)
        self.export = ExportCommands(self.control, self._on_screen)

    check_outdated = staticmethod(check_outdated)

    def asks(self, camera: Cameras) -> bool:
        """Return True if the viewer asks for an image.

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
        start, self._body = monotonic(), body
        # A cropped view has a background of its own, in nerfstudio's panel.
        cropped = renderers.BACKGROUND_COLOR_OVERRIDE is not None
        background = self.scene.background(body.world_to_root.device)
        with timed_image():
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
        with self._between_steps():
            self._loaded[motion] = self._poses.posed(motion)
        return motion

    def _between_steps(self) -> AbstractContextManager[None]:
        wait = getattr(getattr(self.control, "viewer", None), "between_steps", nullcontext)
        return wait()

    # Buttons

    def _look_from(self, event: GuiEvent) -> None:
        side: Side = event.target.value
        self._look(event, lambda body, _: direction(side, body.world_to_root[2, :3].cpu().numpy()))

    def _look_at_all(self, event: GuiEvent) -> None:
        assert event.client is not None
        position = np.array(event.client.camera.position) / VISER_NERFSTUDIO_SCALE_RATIO
        self._look(event, lambda _, vertices: position - (vertices.min(axis=0) + vertices.max(axis=0)) / 2)

    def _look(self, event: GuiEvent, towards: Callable[[PosedBody, np.ndarray], np.ndarray]) -> None:
        body = self._body
        if body is None or event.client is None:
            return  # nothing was shown yet
        with self._between_steps(), torch.no_grad():
            vertices = to_scene(posed_vertices(self._person(), body), body) / VISER_NERFSTUDIO_SCALE_RATIO
            way = towards(body, vertices)
        look_at_person(event.client, vertices, way)

    def _on_screen(self) -> Shown:
        """Motion, frame or pose on screen, for commands."""
        shown, bent = self.motion.shown(), bool(self.pose.angles())
        if shown is None and self._poses.motion is None:
            time = finite(self.control.viewer.control_panel.time, 0.0, 0.0, 1.0)
            shown = FRAME, round(time * (self._poses.subject.num_train - 1))
        name, row = shown or (RUN_MOTION, 0)
        if name == REST:
            return Shown(None, None, None, None, bent)
        if name in (FRAME, RUN_MOTION):
            return Shown(None, row if name == FRAME else None, self.motion.seconds_of_time, None, bent)
        root = None if self.motion.root == DEFAULT_OPTIONS.root else self.motion.root
        return Shown(self.motion.file(name), row, self.motion.named(name).duration, root, bent)
