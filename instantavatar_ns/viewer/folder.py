"""A folder of nerfstudio's control panel, in the order in which its elements are added."""

from __future__ import annotations

from math import isnan
from typing import TypeVar

from nerfstudio.viewer.viewer_elements import ViewerElement
from torch import nn
from viser import GuiMarkdownHandle, ViserServer

# Characters of a message; a path may be as long as a user likes.
_LONGEST = 500

Element = TypeVar("Element", bound=ViewerElement)


class Folder(nn.Module):
    """Elements that nerfstudio's viewer finds on the model.

    It looks through the public attributes of modules in alphabetical order and calls a folder as the attribute that
    holds it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def add(self, element: Element) -> Element:
        """Put an element below those that were added before."""
        setattr(self, f"element{self._count:03}", element)
        self._count += 1
        return element


def finite(value: float, default: float, lowest: float, highest: float) -> float:
    """A number from the panel within its range; `default` for NaN, which viser gives where no number was typed."""
    return default if isnan(value) else min(max(value, lowest), highest)


class Message(ViewerElement[str]):
    """A text that the viewer shows to the user; empty at first."""

    def __init__(self) -> None:
        super().__init__("")
        self._text = ""
        self._handle: GuiMarkdownHandle | None = None

    def _create_gui_handle(self, viser_server: ViserServer) -> None:
        self._handle = viser_server.gui.add_markdown(self._text)

    def install(self, viser_server: ViserServer) -> None:
        """Put it where nerfstudio builds its panel."""
        self._create_gui_handle(viser_server)

    @property
    def text(self) -> str:
        """What is shown."""
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
