"""A folder of the panel, in the order in which its elements are added."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Any, NamedTuple, TypeVar

from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer.viewer_elements import ViewerElement
from viser import GuiEvent, GuiMarkdownHandle, ViserServer

# Characters of a message; a path may be as long as a user likes.
_LONGEST = 500

Element = TypeVar("Element", bound=ViewerElement)


class Folder:
    """Elements that lie in one folder of the panel, beside nerfstudio's tabs.

    nerfstudio would put elements that it finds on the model at the end of its longest tab, into folders within folders
    that are called as the attributes.

    Args:
        title: What a user reads.
        is_open: Whether it is open at first.
    """

    def __init__(self, title: str, *, is_open: bool = False) -> None:
        self.title = title
        self._is_open = is_open
        self.elements: list[ViewerElement] = []

    def add(self, element: Element) -> Element:
        """Put an element below those that were added before."""
        self.elements.append(element)
        return element

    def install(self, viewer: Viewer, order: float) -> None:
        """Make the folder in a viewer's panel; a change of an element is followed by a new image.

        Args:
            viewer: nerfstudio's.
            order: Place among the other parts of the panel.
        """
        server = viewer.viser_server
        with server.gui.add_folder(self.title, order=order, expand_by_default=self._is_open):
            for element in self.elements:
                element.install(server)
                element.cb_hook = _then(element.cb_hook, viewer._trigger_rerender)


def _then(hook: Callable[[Any], object], follow: Callable[[], object]) -> Callable[[Any], None]:
    def both(event: object) -> None:
        hook(event)
        follow()

    return both


def finite(value: float, default: float, lowest: float, highest: float) -> float:
    """Number from the panel, clamped to its range.

    Args:
        value: What the panel holds; NaN where no number was typed.
        default: Returned for NaN.
        lowest: Start of the range.
        highest: End of the range.
    """
    return default if isnan(value) else min(max(value, lowest), highest)


class Message(ViewerElement[str]):
    """A text that the viewer shows to the user; empty at first."""

    def __init__(self) -> None:
        super().__init__("")
        self._text = ""
        self._handle: GuiMarkdownHandle | None = None

    def _create_gui_handle(self, viser_server: ViserServer) -> None:
        # An empty element would leave a gap.
        self._handle = viser_server.gui.add_markdown("", visible=bool(self._text))

    def install(self, viser_server: ViserServer) -> None:
        """Put it into the folder that is being made."""
        self._create_gui_handle(viser_server)

    @property
    def text(self) -> str:
        """The text that is shown."""
        return self._text

    @text.setter
    def text(self, text: str) -> None:
        if text == self._text:
            return
        self._text = text
        if self._handle is not None:
            # As code, since the names of files are no markup; viser looks for pictures in code, too, and reads them.
            text = text[:_LONGEST].replace("`", "'").replace("![", "! [")
            self._handle.content = f"`{text}`" if text else ""
            self._handle.visible = bool(text)


class UploadedFile(NamedTuple):
    """A file from a user's machine."""

    name: str
    content: bytes


class _Clickable(ViewerElement[Any]):
    """An element that tells what a click was; nerfstudio's tell only which element it was."""

    def _clicked(self, event: GuiEvent) -> None:
        self.cb_hook(event)  # which `Folder.install` sets anew

    def install(self, viser_server: ViserServer) -> None:
        """Put it into the folder that is being made."""
        self._create_gui_handle(viser_server)


class Buttons(_Clickable):
    """A row of buttons.

    Args:
        name: What a user reads before them.
        options: Their texts.
        cb_hook: Takes viser's event, which says who has pressed which.
    """

    def __init__(self, name: str, options: list[str], cb_hook: Callable[[GuiEvent], object]) -> None:
        super().__init__(name, cb_hook=cb_hook)
        self.options = options

    def _create_gui_handle(self, viser_server: ViserServer) -> None:
        self.gui_handle = viser_server.gui.add_button_group(self.name, self.options)
        self.gui_handle.on_click(self._clicked)


class Button(_Clickable):
    """A button that knows who has pressed it; see `Buttons`.

    Args:
        name: Its text.
        cb_hook: Takes viser's event.
        hint: What a user reads who points at it.
        is_main: Whether it stands out: its folder is about what it does.
    """

    def __init__(
        self, name: str, cb_hook: Callable[[GuiEvent], object], hint: str | None = None, *, is_main: bool = False
    ) -> None:
        super().__init__(name, cb_hook=cb_hook)
        self.hint, self.is_main = hint, is_main

    def _create_gui_handle(self, viser_server: ViserServer) -> None:
        self.gui_handle = viser_server.gui.add_button(self.name, hint=self.hint, color=None if self.is_main else "gray")
        self.gui_handle.on_click(self._clicked)


class UploadButton(_Clickable):
    """A button that takes a file from the user's machine.

    Args:
        name: What a user reads.
        endings: Of the files that are offered.
        cb_hook: Takes the file.
    """

    def __init__(self, name: str, endings: tuple[str, ...], cb_hook: Callable[[UploadedFile], object]) -> None:
        super().__init__(name, cb_hook=cb_hook)
        self.endings = endings

    def _create_gui_handle(self, viser_server: ViserServer) -> None:
        # viser's MIME type is the browser's list of what to accept.
        handle = viser_server.gui.add_upload_button(self.name, mime_type=",".join(self.endings), color="gray")
        handle.on_upload(self._clicked)

    def _clicked(self, event: GuiEvent) -> None:
        file = event.target.value
        self.cb_hook(UploadedFile(file.name, file.content))
